"""docs/reference/settings.md, from `service/settings.py`."""

from __future__ import annotations

import json
from typing import Any

from service.settings import PREFIX, Settings
from tests.docs.reference.markdown import codes, page
from tests.docs.reference.schemas import limits

# The first setting of each group.
GROUPS = {
    "host": "Address",
    "tls_certificate": "TLS and proxies",
    "keys_file": "Access",
    "purpose": "Responsible use",
    "model_repository": "Models",
    "engine": "Engines",
    "processes": "Several processes",
    "body_limit_bytes": "Limits",
    "stream_idle_s": "Times",
    "log_level": "Log",
}
COMPUTED = {
    "model_repository": "the folder `model_repository`, else the models in the package",
    "processes": "available cores / 4, rounded up",
    "worker_threads": "available cores / processes, at least 2 with several processes",
}
FORMATS = {
    "file-path": "file that exists",
    "path": "path",
    "password": "address",
}


def settings_page() -> str:
    schema = Settings.model_json_schema()
    parts = []
    for name, part in schema["properties"].items():
        if name in GROUPS:
            parts.append(f"## {GROUPS[name]}")
        parts += [
            f"### {PREFIX}{name.upper()}",
            part["description"],
            f"- Default: {_default(name)}\n- Value: {_value(part, schema['$defs'])}",
        ]
    return page(
        "Settings",
        "Every setting of the service. Settings are environment variables, and all are optional. The "
        "service reads them once, at the start. An invalid value or an unknown variable stops the start "
        "with a sentence that names it. Durations are in seconds and sizes in bytes, as the names say. "
        "Lists are separated by commas.",
        *parts,
    )


def _default(name: str) -> str:
    default = Settings.model_fields[name].default
    if name in COMPUTED:
        return COMPUTED[name]
    if default in (None, ()):
        return "none"
    return f"`{json.dumps(default) if isinstance(default, bool) else default}`"


def _value(part: dict[str, Any], definitions: dict[str, Any]) -> str:
    choices = [choice for choice in part.get("anyOf", [part]) if choice.get("type") != "null"]
    (choice,) = choices
    if "$ref" in choice:
        choice = definitions[choice["$ref"].rpartition("/")[2]]
    if "enum" in choice:
        return codes(choice["enum"])
    if choice["type"] == "boolean":
        return "`true` or `false`"
    if choice["type"] == "array":
        return "list"
    kind = "text" if choice["type"] == "string" else choice["type"]
    return f"{FORMATS.get(choice.get('format', ''), kind)}{limits(choice)}"

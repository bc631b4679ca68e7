"""Describes the types and limits of fields in words, from JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from service.api.schemas import Face
from tests.docs.reference.markdown import bullet_list, codes, plain, table

# Definitions that other pages describe.
ELSEWHERE = {
    "ProblemCode": "[error code](errors.md)",
    "Reason": "[reason](api.md#why-a-verdict-is-uncertain)",
}
# Models that also have the fields of another model.
EXTENDS: dict[str, type[BaseModel]] = {"TrackedFace": Face}
PLURALS = {"string": "strings", "number": "numbers", "integer": "integers"}

Schema = dict[str, Any]


def sections(models: Iterable[type[BaseModel]], known: set[str]) -> Iterator[str]:
    """A section for each model and each definition that it uses, except those in `known`."""
    for model in models:
        schema = model.model_json_schema(mode="serialization")
        definitions = schema.pop("$defs", {})
        yield from _section(schema, definitions, known)


def _section(schema: Schema, definitions: Schema, known: set[str]) -> Iterator[str]:
    name = schema["title"]
    if name in known or name in ELSEWHERE:
        return
    known.add(name)
    properties = schema.get("properties", {})
    base = EXTENDS.get(name)
    inherited = base.model_fields if base else {}
    rows = [
        (f"`{field}`", _kind(part, definitions), _meaning(part, definitions))
        for field, part in properties.items()
        if field not in inherited
    ]
    parts = [f"### {name}", plain(schema.get("description"))]
    if base:
        parts.append(f"It has the fields of [{base.__name__}](#{base.__name__.lower()}), and:")
    if properties:
        parts.append(table(("field", "type", "meaning"), rows))
    elif "enum" in schema:
        parts.append(bullet_list(f"`{value}`" for value in schema["enum"]))
    yield "\n\n".join(filter(None, parts))
    for used in _names(properties):
        # An alias has no section: the field has its description.
        if definitions.get(used, {}).keys() & {"properties", "enum"}:
            yield from _section({"title": used, **definitions[used]}, definitions, known)


def _names(part: object) -> Iterator[str]:
    """Definitions that a part of a schema refers to, in its order."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].rpartition("/")[2]
        for value in part.values():
            yield from _names(value)
    elif isinstance(part, list):
        for value in part:
            yield from _names(value)


def _kind(part: Schema, definitions: Schema) -> str:
    """Type, limits and default of a field."""
    text = _type(part, definitions) + limits(part)
    if part.get("default") not in (None, [], {}, part.get("const")):
        text += f", default `{_value(part['default'])}`"
    return text


def _type(part: Schema, definitions: Schema) -> str:
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        if name in ELSEWHERE:
            return ELSEWHERE[name]
        target = definitions.get(name, {})
        named = target.keys() & {"properties", "enum"}
        return f"[{name}](#{name.lower()})" if named else _type(target, definitions)
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return codes(part["enum"])
    if "anyOf" in part:
        found = [_type(choice, definitions) + limits(choice) for choice in part["anyOf"]]
        # A list of values that may grow also allows any other text.
        return " or ".join(found[:-1] if found[-1] == "string" and len(found) == 2 else found)
    if part.get("type") == "array":
        if "prefixItems" in part:
            return "two numbers"
        return f"list of {_plural(part['items'], definitions)}"
    if part.get("type") == "object" and isinstance(part.get("additionalProperties"), dict):
        return f"object of {_plural(part['additionalProperties'], definitions)}"
    return "`null`" if part.get("type") == "null" else str(part.get("type", "any value"))


def _plural(part: Schema, definitions: Schema) -> str:
    one = _type(part, definitions)
    return PLURALS.get(one, one)


def limits(part: Schema) -> str:
    low, above, high = (part.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    found = []
    if low is not None and high is not None:
        found.append(f"{low:g} to {high:g}")
    elif above is not None and high is not None:
        found.append(f"above {above:g}, up to {high:g}")
    elif above is not None:
        found.append(f"above {above:g}")
    elif low is not None:
        found.append(f"at least {low:g}")
    if part.get("type") == "array" and "maxItems" in part and "prefixItems" not in part:
        found.append(f"{part.get('minItems', 0)} to {part['maxItems']}")
    return "".join(f", {limit}" for limit in found)


def _meaning(part: Schema, definitions: Schema) -> str:
    # A field without a description has the description of its definition.
    target = definitions.get(part.get("$ref", "").rpartition("/")[2], {})
    text = plain(part.get("description") or target.get("description"))
    assert text, f"{part} has no description"
    return text


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)

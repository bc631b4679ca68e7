"""Presets, and changes of settings by dotted keys such as `optimiser.learning_rate`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from training.config import RunConfig, flat, parse_yaml, read_config

PRESETS = Path(__file__).with_name("presets")


def preset(name: str) -> RunConfig:
    """Raises `ValueError`, which names the presets, for an unknown name."""
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        raise ValueError(f"{name} is neither a file nor a preset; the presets are {', '.join(names)}")
    return read_config(PRESETS / f"{name}.yaml")


def configured(source: str, pairs: Sequence[str], dataset: str | None = None) -> RunConfig:
    """A preset or a file, changed by `assignments`. Raises `ValueError`, which names the key."""
    path = Path(source)
    return changed(read_config(path) if path.is_file() else preset(source), assignments(pairs, dataset))


def assignments(pairs: Sequence[str], dataset: str | None = None) -> dict[str, Any]:
    """Dotted keys and their values, from `KEY=VALUE` pairs with values in YAML, and the kind of a data set.

    Raises `ValueError` for a pair of another form.
    """
    found: dict[str, Any] = {} if dataset is None else {"dataset": dataset}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ValueError(f"{pair} is not KEY=VALUE, such as optimiser.learning_rate=0.01")
        found[key] = parse_yaml(value, key)
    return found


def changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The configuration with other values. changes: nested or dotted keys, the later one counts.

    Another `network.name` starts from the defaults of that network.
    Raises `ValueError`, which names similar keys, for an unknown key, and for values that are not allowed.
    """
    content, known = config.model_dump(mode="json"), _known_keys()
    given = flat(changes)
    for key in given:
        if key not in known:
            raise ValueError(f"{key} is not a setting{_similar(key, known)}")
    if given.get("network.name", config.network.name) != config.network.name:
        content["network"] = {}
    for key, value in given.items():
        *parts, last = key.split(".")
        part = content
        for name in parts:
            if not isinstance(part.get(name), dict):
                part[name] = {}
            part = part[name]
        part[last] = value
    return RunConfig.model_validate(content)


def dumped(config: RunConfig) -> str:
    """YAML for `read_config`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


@cache
def _known_keys() -> set[str]:
    """All keys of a configuration, with dots: together, the presets have every part."""
    return {key for path in PRESETS.glob("*.yaml") for key in flat(read_config(path).model_dump())}


def _similar(key: str, known: set[str]) -> str:
    by_last = {name.rpartition(".")[2]: name for name in sorted(known, reverse=True)}
    near = [
        *difflib.get_close_matches(key, known, 2),
        *(by_last[name] for name in difflib.get_close_matches(key.rpartition(".")[2], by_last, 2)),
    ]
    return f"; similar: {', '.join(dict.fromkeys(near))}" if near else ""

"""Any environment and any manifest gives a valid object, or one error that names the fault."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.core.errors import ModelFileError, SettingsError
from service.core.manifest import Manifest, read_manifest
from service.settings import PREFIX, Settings, read_settings

PROFILE = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

# The text that the system allows in an environment variable.
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40)
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from(["1e400", "-0", "0x10", "1_0", "٣", " 5 "]))
VALUES = st.one_of(TEXT, NUMBERS.map(str), st.sampled_from(["true", "null", "[]", "{}", "/", "\n", "a\nb"]))


@PROFILE
@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), VALUES, min_size=1, max_size=3))
@example({"port": "80\n81"})
@example({"triton_url": "a:1,b:2"})
@example({"triton_url": "1.2.3.4:٣"})
@example({"triton_root_certificates": "a" * 5000})
def test_any_environment(environment: dict[str, str]) -> None:
    variables = {PREFIX + name.upper(): value for name, value in environment.items()}
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    with mock.patch.dict(os.environ, clean | variables, clear=True):
        try:
            assert isinstance(read_settings(), Settings)
        except SettingsError as error:
            sentence = str(error)
            assert sentence.startswith(PREFIX)
            assert sentence.endswith(".")
            assert len(sentence.splitlines()) == 1


VALID: dict[str, Any] = json.loads(
    (Settings().model_repository / "expressnet_moe" / "manifest.json").read_text()
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def read(folder: Path, text: bytes) -> None:
    path = folder / "expressnet_moe" / "manifest.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    try:
        assert isinstance(read_manifest(folder, "expressnet_moe"), Manifest)
    except ModelFileError:
        return


@PROFILE
@given(st.dictionaries(st.sampled_from(sorted(VALID)), JSON, max_size=2))
def test_a_manifest_with_other_values(
    tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any]
) -> None:
    read(folder_of(tmp_path_factory), json.dumps(VALID | changed).encode())


@PROFILE
@given(st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60)))
@example(b"[" * 100_000)
@example(b'{"kind":' * 50_000)
@example(b"9" * 100_000)
@example(b'{"kind": "classifier"')
@example(b"\xff\xfe{\0}\0")
def test_any_manifest(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    read(folder_of(tmp_path_factory), text)


def folder_of(factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples."""
    return factory.getbasetemp()

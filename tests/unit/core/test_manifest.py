"""A manifest is read completely, or refused with the name of the file and the reason."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.core.errors import ModelFileError
from service.core.manifest import (
    EMOTIONS,
    MODEL_FILES,
    ClassifierManifest,
    Manifest,
    ModelFile,
    digest,
    model_path,
    read_manifest,
    verified_model_path,
)

MODEL = b"the model's bytes"


def classifier(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "version": "2",
        "kind": "classifier",
        "sha256": dict.fromkeys(MODEL_FILES, hashlib.sha256(MODEL).hexdigest()),
        "labels": list(EMOTIONS),
        "input": {
            "size": 48,
            "crop": {"left_eye": [0.3, 0.4], "right_eye": [0.7, 0.4], "mouth": [0.5, 0.8]},
        },
        "calibration": {
            **{"temperature": 1.2, "ece_before": 0.1, "ece_after": 0.02, "ece_by_chance": 0.01},
            "data": "validation",
        },
        "prior": {"shares": {"neutral": 0.5}, "strength": 0.7, "balanced_strength": 0.1},
        "verdict": {"threshold": 0.6, "coverage": 0.8, "accuracy": 0.95, "data": "validation"},
        "metrics": {"test": {"accuracy": {"value": 0.8, "samples": 100, "interval": [0.7, 0.9]}}},
        "training": {"data": ["d"], "licences": ["l"], "config": {"epochs": 2}, "seeds": [0, 1]},
        "intended_use": "tests",
        "limits": ["many"],
    } | changes


def with_limit(**limit: Any) -> dict[str, Any]:
    """A verdict whose quality has one limit."""
    band = {"low": 0, "high": 0.1, "samples": 9, "accuracy": 0.5, "confidence": 0.7, "certain": 0.6}
    bands = [{**band, "certain_accuracy": 0.5}]
    limits = [{"code": "blurred", "measure": "sharpness", "bands": bands} | limit]
    quality = {"limits": limits, "rule": "a rule", "data": "validation"}
    return {"threshold": 0.6, "coverage": 1, "accuracy": 1, "data": "", "quality": quality}


def detector(**changes: Any) -> dict[str, Any]:
    whole = classifier(kind="detector", **changes)
    for name in ("labels", "input", "calibration", "prior", "verdict"):
        del whole[name]
    return whole


def write(repository: Path, content: dict[str, Any] | bytes, name: str = "tiny") -> Path:
    folder = repository / name
    (folder / "2").mkdir(parents=True)
    for file in MODEL_FILES:
        (folder / "2" / file).write_bytes(MODEL)
    path = folder / "manifest.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_a_written_classifier_manifest_is_read_back(tmp_path: Path) -> None:
    path = write(tmp_path, classifier())
    manifest = read_manifest(tmp_path, "tiny")
    assert isinstance(manifest, ClassifierManifest)
    assert manifest.labels == EMOTIONS
    assert manifest.input.crop.mouth == (0.5, 0.8)
    assert manifest.metrics["test"]["accuracy"].interval == (0.7, 0.9)
    path.write_text(manifest.model_dump_json(indent=2))
    assert read_manifest(tmp_path, "tiny") == manifest


def test_written_limits_of_quality_are_read_back(tmp_path: Path) -> None:
    path = write(tmp_path, classifier(verdict=with_limit(min=0.1)))
    manifest = read_manifest(tmp_path, "tiny")
    assert isinstance(manifest, ClassifierManifest)
    assert manifest.verdict.quality is not None
    (limit,) = manifest.verdict.quality.limits
    assert (limit.code, limit.min, limit.max, limit.bands[0].samples) == ("blurred", 0.1, None, 9)
    path.write_text(manifest.model_dump_json(indent=2, exclude_none=True))
    assert read_manifest(tmp_path, "tiny") == manifest


def test_a_detector_needs_no_labels(tmp_path: Path) -> None:
    write(tmp_path, detector())
    manifest = read_manifest(tmp_path, "tiny")
    assert type(manifest) is Manifest
    assert manifest.kind == "detector"
    assert manifest.labels == ()


@pytest.mark.parametrize("file", MODEL_FILES)
def test_the_right_model_file_is_accepted(tmp_path: Path, file: ModelFile) -> None:
    write(tmp_path, classifier())
    manifest = read_manifest(tmp_path, "tiny")
    path = verified_model_path(tmp_path, manifest, file)
    assert path == model_path(tmp_path, "tiny", "2", file) == tmp_path / "tiny" / "2" / file
    assert digest(path) == manifest.sha256[file]


def test_a_changed_model_file_is_refused_with_both_digests(tmp_path: Path) -> None:
    write(tmp_path, classifier())
    manifest = read_manifest(tmp_path, "tiny")
    changed = MODEL + b"!"
    model_path(tmp_path, "tiny", "2", "model.pt").write_bytes(changed)
    verified_model_path(tmp_path, manifest, "model.onnx")
    with pytest.raises(ModelFileError) as caught:
        verified_model_path(tmp_path, manifest, "model.pt")
    assert hashlib.sha256(MODEL).hexdigest() in str(caught.value)
    assert hashlib.sha256(changed).hexdigest() in str(caught.value)
    assert "model.pt" in str(caught.value)


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, classifier())
    manifest = read_manifest(tmp_path, "tiny")
    model_path(tmp_path, "tiny", "2", "model.onnx").unlink()
    with pytest.raises(ModelFileError, match=r"model\.onnx cannot be read"):
        verified_model_path(tmp_path, manifest, "model.onnx")


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tiny/manifest\.json is missing"):
        read_manifest(tmp_path, "tiny")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b"{}", b'{"kind": "classifier"}'],
)
def test_a_file_that_is_no_manifest_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, content)
    with pytest.raises(ModelFileError, match=r"manifest\.json is not a valid manifest"):
        read_manifest(tmp_path, "tiny")


@pytest.mark.parametrize("missing", ["labels", "input", "verdict", "sha256", "training", "limits", "version"])
def test_a_classifier_without_a_required_field_is_refused(tmp_path: Path, missing: str) -> None:
    content = classifier()
    del content[missing]
    write(tmp_path, content)
    with pytest.raises(ModelFileError, match=missing):
        read_manifest(tmp_path, "tiny")


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": []},
        {"labels": ["happiness"]},
        {"sha256": "0" * 64},
        {"sha256": {"model.onnx": "ABC", "model.pt": "0" * 64}},
        {"sha256": {"model.onnx": "0" * 64}},
        {"sha256": {"model.onnx": "0" * 64, "model.pt": "0" * 64, "model.bin": "0" * 64}},
        {"version": "0"},
        {"version": "latest"},
        {"name": "../tiny"},
        {"kind": "oracle"},
        {"verdict": {"threshold": 1.5, "coverage": 1, "accuracy": 1, "data": ""}},
        {"verdict": with_limit(min=0.1, max=0.2)},
        {"verdict": with_limit(code="ugly")},
        {"verdict": with_limit(measure="beauty")},
        {"unknown": 1},
    ],
)
def test_an_invalid_value_is_refused_by_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    write(tmp_path, classifier(**changes))
    with pytest.raises(ModelFileError, match=next(iter(changes))):
        read_manifest(tmp_path, "tiny")


def test_a_manifest_in_the_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    write(tmp_path, classifier(name="other"))
    with pytest.raises(ModelFileError, match="other"):
        read_manifest(tmp_path, "tiny")


def test_a_manifest_is_frozen(tmp_path: Path) -> None:
    write(tmp_path, classifier())
    with pytest.raises(ValidationError):
        read_manifest(tmp_path, "tiny").version = "3"  # type: ignore[misc]

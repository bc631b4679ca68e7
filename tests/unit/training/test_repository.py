"""Several versions of a model in one repository, and the Triton configuration that names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.core.errors import ModelFileError
from service.core.manifest import (
    MODEL_FILES,
    TORCHSCRIPT,
    ClassifierManifest,
    Crop,
    Input,
    Prior,
    Training,
    VerdictRule,
    model_path,
    other_versions,
    read_manifest,
    survey,
    verified_model_path,
)
from training.formats import Files, digests
from training.repository import write_model

CONFIG = 'name: "tiny"\nmax_batch_size: 32\n'


def files(content: int) -> Files:
    return {file: f"{file} {content}".encode() for file in MODEL_FILES}


def manifest(version: str, content: int, labels: tuple[str, ...] = ("yes", "no")) -> ClassifierManifest:
    eye = (0.3, 0.4)
    return ClassifierManifest(
        name="tiny",
        version=version,
        sha256=digests(files(content)),
        labels=labels,
        input=Input(size=8, crop=Crop(left_eye=eye, right_eye=(0.7, 0.4), mouth=(0.5, 0.8))),
        prior=Prior(shares={}, strength=1, balanced_strength=0),
        verdict=VerdictRule(threshold=0.5, coverage=1, accuracy=1, data="none"),
        training=Training(data=(), licences=(), config={}),
        intended_use="tests",
        limits=(),
    )


def test_a_new_version_keeps_the_old_one_and_becomes_the_default(tmp_path: Path) -> None:
    write_model(tmp_path, manifest("1", 1), files(1), CONFIG)
    folder = write_model(tmp_path, manifest("2", 2), files(2), CONFIG)

    assert read_manifest(tmp_path, "tiny").version == "2"
    assert other_versions(tmp_path, "tiny") == ["1"]
    expected = {}
    for version in ("1", "2"):
        found = read_manifest(tmp_path, "tiny", version)
        assert found.version == version
        for file in MODEL_FILES:
            verified_model_path(tmp_path, found, file)
        expected[version] = found.sha256[TORCHSCRIPT]
    assert len(set(expected.values())) == 2
    config = (folder / "config.pbtxt").read_text()
    assert "versions: [ 1, 2 ]" in config
    for version, sha256 in expected.items():
        assert f'key: "sha256_{version}" value {{ string_value: "{sha256}" }}' in config
    assert [
        (name, found.version) for name, found in survey(tmp_path) if not isinstance(found, Exception)
    ] == [
        ("tiny", "2"),
        ("tiny", "1"),
    ]
    with pytest.raises(ModelFileError, match="has no version 3"):
        read_manifest(tmp_path, "tiny", "3")


def test_an_old_version_written_again_is_the_default_again(tmp_path: Path) -> None:
    write_model(tmp_path, manifest("1", 1), files(1), CONFIG)
    write_model(tmp_path, manifest("2", 2), files(2), CONFIG)
    folder = write_model(tmp_path, manifest("1", 3), files(3), CONFIG)
    assert read_manifest(tmp_path, "tiny").version == "1"
    assert other_versions(tmp_path, "tiny") == ["2"]
    assert not (folder / "1" / "manifest.json").exists()
    verified_model_path(tmp_path, read_manifest(tmp_path, "tiny"), TORCHSCRIPT)


def test_one_configuration_cannot_serve_two_shapes(tmp_path: Path) -> None:
    write_model(tmp_path, manifest("1", 1), files(1), CONFIG)
    with pytest.raises(ValueError, match="version 1 of tiny has inputs or outputs of another shape"):
        write_model(tmp_path, manifest("2", 2, ("yes", "no", "perhaps")), files(2), CONFIG)
    assert not model_path(tmp_path, "tiny", "2", TORCHSCRIPT).exists()


def test_triton_chooses_the_number_of_instances_by_default(tmp_path: Path) -> None:
    folder = write_model(tmp_path, manifest("1", 1), files(1), CONFIG)
    assert "instance_group" not in (folder / "config.pbtxt").read_text()
    write_model(tmp_path, manifest("1", 1), files(1), CONFIG, instances=3)
    assert "instance_group [ { count: 3 kind: KIND_AUTO } ]" in (folder / "config.pbtxt").read_text()

"""Writes the model repository that both engines serve from, in Triton's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from service.core.manifest import (
    TORCHSCRIPT,
    Manifest,
    digest_parameter,
    manifest_path,
    model_path,
    other_versions,
    read_manifest,
)
from training.atomic import replacing
from training.formats import Files


def write_model(
    repository: Path,
    manifest: Manifest,
    files: Files,
    config_pbtxt: str,
    *,
    instances: int | None = None,
) -> Path:
    """Write one version of a model, make it the default one, and return the model's folder.

    Other versions stay. The manifest, which has the files' digests, is written last. A gateway that reads
    before that refuses the model.
    config_pbtxt: the configuration without versions and instances. instances: copies that Triton runs on
    every GPU, or on the CPU without a GPU; by default Triton chooses.
    Raises `ValueError`, and writes nothing, when another version has other inputs or outputs: Triton has one
    configuration for all versions.
    """
    others = _others(repository, manifest)
    folder = repository / manifest.name
    for file, content in files.items():
        path = model_path(repository, manifest.name, manifest.version, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, content)
    for other in others:
        write_manifest(manifest_path(repository, other.name, other.version), other)
    versions = sorted([*others, manifest], key=lambda version: int(version.version))
    config_pbtxt += versions_pbtxt(versions)
    if instances is not None:
        config_pbtxt += f"instance_group [ {{ count: {instances} kind: KIND_AUTO }} ]\n"
    _write(folder / "config.pbtxt", config_pbtxt.encode())
    write_manifest(manifest_path(repository, manifest.name), manifest)
    manifest_path(repository, manifest.name, manifest.version).unlink(missing_ok=True)
    return folder


def versions_pbtxt(versions: Sequence[Manifest]) -> str:
    """The versions that Triton loads, and the digests by which a gateway checks Triton's files."""
    numbers = ", ".join(version.version for version in versions)
    return f"version_policy {{ specific {{ versions: [ {numbers} ] }} }}\n" + "".join(
        f'parameters {{ key: "{digest_parameter(version.version)}" '
        f'value {{ string_value: "{version.sha256[TORCHSCRIPT]}" }} }}\n'
        for version in versions
    )


def versions_of(repository: Path, name: str) -> list[Manifest]:
    """All versions of a model. Raises `ModelFileError` when a manifest is invalid."""
    if not manifest_path(repository, name).exists():
        return []
    found = [read_manifest(repository, name, version) for version in other_versions(repository, name)]
    return [read_manifest(repository, name), *found]


def _others(repository: Path, manifest: Manifest) -> list[Manifest]:
    """The model's other versions."""
    name = manifest.name
    others = [each for each in versions_of(repository, name) if each.version != manifest.version]
    for other in others:
        if (_input_size(other), len(other.labels)) != (_input_size(manifest), len(manifest.labels)):
            raise ValueError(
                f"version {other.version} of {name} has inputs or outputs of another shape: remove it, or "
                "export under another name"
            )
    return others


def _input_size(manifest: Manifest) -> int | None:
    return None if manifest.input is None else manifest.input.size


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest as indented JSON."""
    _write(path, manifest.model_dump_json(indent=2, exclude_none=True).encode() + b"\n")


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)

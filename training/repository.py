"""Writes the model repository that both engines serve from, in Triton's layout."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from service.manifest import (
    Manifest,
    digest,
    digest_parameter,
    manifest_path,
    model_path,
    other_versions,
    read_manifest,
)


def write_model(
    repository: Path,
    manifest: Manifest,
    module: nn.Module,
    config_pbtxt: str,
    *,
    instances: int | None = None,
) -> Path:
    """Write one version of a model, make it the default one, and return the model's folder.

    Other versions stay beside it. The manifest's `sha256` is filled in here, and the default manifest is
    written last: whoever reads in between refuses the model instead of serving half of it.
    config_pbtxt: all but what depends on the versions and on `instances`: how many Triton runs on every GPU,
    or on the CPU where there is none; it chooses unless told.
    Raises `RuntimeError`, and writes nothing, when two exports of the module are not the same file, and
    `ValueError` when another version has other inputs or outputs: Triton has one configuration for all.
    """
    others = _others(repository, manifest)
    # In processes of their own: the names of classes in the file depend on what was scripted before. Pickled
    # here, because a pool would move the caller's weights to shared memory.
    pickled = pickle.dumps(module)
    fresh = get_context("forkserver")
    fresh.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(2, fresh, max_tasks_per_child=1) as processes:
        archive, again = processes.map(archived, (pickled, pickled))
    if again != archive:
        raise RuntimeError(f"{manifest.name} cannot be reproduced: two exports of it differ")
    folder = repository / manifest.name
    path = model_path(repository, manifest.name, manifest.version)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, archive)
    complete = manifest.model_copy(update={"sha256": digest(path)})
    for other in others:
        write_manifest(manifest_path(repository, other.name, other.version), other)
    versions = sorted([*others, complete], key=lambda version: int(version.version))
    config_pbtxt += versions_pbtxt(versions)
    if instances is not None:
        config_pbtxt += f"instance_group [ {{ count: {instances} kind: KIND_AUTO }} ]\n"
    replace(folder / "config.pbtxt", config_pbtxt.encode())
    write_manifest(manifest_path(repository, manifest.name), complete)
    manifest_path(repository, manifest.name, manifest.version).unlink(missing_ok=True)
    return folder


def versions_pbtxt(versions: Sequence[Manifest]) -> str:
    """Which versions Triton loads, and the digests by which a gateway knows that it asks the right file."""
    numbers = ", ".join(version.version for version in versions)
    return f"version_policy {{ specific {{ versions: [ {numbers} ] }} }}\n" + "".join(
        f'parameters {{ key: "{digest_parameter(version.version)}" '
        f'value {{ string_value: "{version.sha256}" }} }}\n'
        for version in versions
    )


def _others(repository: Path, manifest: Manifest) -> list[Manifest]:
    """The model's other versions."""
    name = manifest.name
    if not manifest_path(repository, name).exists():
        return []
    found = [read_manifest(repository, name, version) for version in other_versions(repository, name)]
    others = [v for v in (read_manifest(repository, name), *found) if v.version != manifest.version]
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
    """As every manifest is written."""
    replace(path, manifest.model_dump_json(indent=2, exclude_none=True).encode() + b"\n")


def archived(pickled: bytes) -> bytes:
    """The TorchScript file of a pickled module."""
    buffer = io.BytesIO()
    scripted = script(pickle.loads(pickled))
    with without_jit_warnings():
        torch.jit.save(scripted, buffer)
    return reproducible(buffer.getvalue())


def reproducible(archive: bytes) -> bytes:
    """A TorchScript file without what differs between two exports, so that equal models are equal files.

    Left out: debug records, which name paths of the exporting machine, and a random id. A class's constants
    are sorted, since torch writes them in the order of a set.
    """
    clean = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(clean, "w") as target:
        for name in source.namelist():
            if name.endswith((".debug_pkl", "serialization_id")):
                continue
            content = source.read(name)
            if name.endswith(".py"):
                content = CONSTANTS.sub(lambda lines: b"".join(sorted(lines[0].splitlines(True))), content)
            target.writestr(zipfile.ZipInfo(name), content)
    return clean.getvalue()


CONSTANTS = re.compile(rb"(?m)(?:^ +\w+ : Final\[.*\n)+")


def replace(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one, never half of one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def script(module: nn.Module) -> torch.jit.ScriptModule:
    """TorchScript of a module in eval mode.

    Not frozen: that turns weights into constants which `.to(device)` no longer moves, and gains nothing here.
    """
    with without_jit_warnings():
        scripted = torch.jit.script(module.eval())
    assert isinstance(scripted, torch.jit.ScriptModule)
    return scripted


@contextmanager
def without_jit_warnings() -> Iterator[None]:
    """torch.jit is deprecated, but Triton's pytorch_libtorch platform loads nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit.*", category=DeprecationWarning)
        yield

"""The locks have the pinned versions, and the audit and the bill of materials report what is installed."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from service import __version__
from service.core.manifest import read_manifest
from service.settings import Settings
from tests.supply.audit import summarise
from tests.supply.sbom import bill_of_materials

ROOT = Path(__file__).parents[3]
LOCKS = ("build", "gateway", "embedded")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    return {normalised(name): pin for name, pin in re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.MULTILINE)}


def lock(name: str) -> str:
    return (ROOT / "locks" / f"{name}.txt").read_text()


CONSTRAINTS = pins((ROOT / "constraints.txt").read_text())


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_the_pinned_versions_with_hashes(name: str) -> None:
    text = lock(name)
    locked = pins(text)
    assert locked
    assert {package: CONSTRAINTS.get(package) for package in locked} == locked
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked)
    assert all("--hash=sha256:" in entry for entry in entries)


def project_of(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


def test_service_and_training_have_the_same_version() -> None:
    training = project_of(ROOT / "training")
    assert project_of(ROOT)["version"] == training["version"] == __version__
    assert f"expressnet-service=={__version__}" in training["dependencies"]


def test_the_dependencies_of_the_project_are_locked() -> None:
    project = project_of(ROOT)
    extras = project["optional-dependencies"]

    def names_of(*requirements: str) -> set[str]:
        return {normalised(re.split(r"[\[><=]", requirement)[0]) for requirement in requirements}

    service = names_of(*project["dependencies"])
    assert service - set(pins(lock("embedded"))) == set()
    # The gateway of Triton runs no model itself. Only the command line reads videos.
    assert service - set(pins(lock("gateway"))) == {"av", "onnxruntime"}
    assert names_of(*extras["triton"]) - set(pins(lock("gateway"))) == set()
    assert "torch" not in pins(lock("embedded")) | pins(lock("gateway"))


def test_the_bill_of_materials_is_valid_and_names_packages_and_models() -> None:
    document = bill_of_materials()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    found = {component["name"]: component for component in document["components"]}
    assert set(map(normalised, found)) >= set(pins(lock("embedded")))
    for name in ("expressnet_moe", "yunet", "yunet_mtcnn"):
        manifest = read_manifest(Settings().model_repository, name)
        files = {file["name"]: file["hashes"] for file in found[name]["components"]}
        assert files == {
            file: [{"alg": "SHA-256", "content": digest}] for file, digest in manifest.sha256.items()
        }
        assert found[name]["licenses"]


def report(**vulnerabilities: list[dict[str, Any]] | None) -> str:
    """A report of pip-audit. vulnerabilities: by package; None if the database lacks the package."""
    return json.dumps(
        {
            "dependencies": [
                {"name": name, "version": "1", "vulns": found}
                if found is not None
                else {"name": name, "skip_reason": "not found"}
                for name, found in vulnerabilities.items()
            ]
        }
    )


VULNERABILITY = {"id": "PYSEC-1", "fix_versions": ["2"]}


@pytest.mark.parametrize(
    ("output", "error", "ok", "pattern"),
    [
        (report(a=[], b=[]), "", True, "2 of 2 packages looked up, 0 vulnerabilities"),
        (report(a=[], b=None), "", True, "1 of 2 packages looked up"),
        (report(a=[VULNERABILITY], b=None), "", False, "a 1: PYSEC-1, fixed in 2"),
        (report(a=None, b=None), "", True, "not done"),
        ("", "Traceback\nConnectionError: no route", True, "not done.*ConnectionError: no route"),
        ("", "", True, "not done"),
    ],
)
def test_the_audit_fails_only_for_vulnerabilities(output: str, error: str, ok: bool, pattern: str) -> None:
    summary, passes = summarise(output, error)
    assert passes == ok
    assert re.search(pattern, summary)
    assert len(summary.splitlines()) == (1 if ok else 2)

"""`make sbom`: writes a CycloneDX bill of materials of the locked packages and the models, with hashes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from service.core.manifest import Manifest, survey
from service.settings import Settings

ROOT = Path(__file__).parents[2]


def bill_of_materials() -> dict[str, Any]:
    """Build the CycloneDX 1.6 document.

    Raises `ValueError` for an invalid manifest, or a model file that differs from its manifest.
    """
    completed = subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "requirements", str(ROOT / "locks" / "embedded.txt")),
            *("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application"),
            *("--spec-version", "1.6", "--output-reproducible", "--output-format", "JSON"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    document: dict[str, Any] = json.loads(completed.stdout)
    for _, manifest in survey(Settings().model_repository):
        if not isinstance(manifest, Manifest):
            raise ValueError(str(manifest))
        document["components"].append(model_component(manifest))
    return document


def model_component(manifest: Manifest) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{manifest.name}@{manifest.version}",
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.intended_use,
        "licenses": [{"license": {"name": licence}} for licence in manifest.training.licences],
        "components": [
            {
                "type": "file",
                "bom-ref": f"model:{manifest.name}@{manifest.version}/{file}",
                "name": file,
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
            for file, digest in manifest.sha256.items()
        ],
    }


def main() -> None:
    Path(sys.argv[1]).write_text(json.dumps(bill_of_materials(), indent=2) + "\n")


if __name__ == "__main__":
    main()

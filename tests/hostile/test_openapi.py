"""schemathesis sends valid and invalid requests of the OpenAPI document to a running gateway."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import Settings
from tests.conftest import Gateway, serving
from tests.fake_engine import fake_engines

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
    "allow_header_conformance",
)


def fuzz(gateway: Gateway, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run schemathesis in its own process, because it changes warnings and writes a database of examples."""
    config = Path(__file__).with_name("schemathesis.toml")
    arguments = ["--config-file", str(config), "run", f"{gateway.url}/openapi.json"]
    options = ["--no-color", "--continue-on-failure", "--checks", ",".join(CHECKS)]
    return subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *arguments, *options],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=cwd,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("schemathesis_hooks.py"))},
    )


@pytest.mark.timeout(240)
def test_the_service_does_what_its_document_says(tmp_path: Path) -> None:
    with serving(Settings(port=0), fake_engines()) as gateway:
        found = fuzz(gateway, tmp_path)
        assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
        assert re.search(r"Operations:\s+17 selected / 17 total", found.stdout), found.stdout
        generated = re.search(r"(\d+) generated", found.stdout)
        assert generated
        assert int(generated[1]) > 200
        assert 'status="500"' not in gateway.client.get("/metrics").text

"""`expressnet predict` in the process of the tests, with scripted engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from service.assembly import Engines
from service.cli import app
from service.settings import Settings
from tests.conftest import encoded
from tests.fake_engine import fake_engines

Expressnet = Callable[..., Result]


@pytest.fixture
def engines() -> Engines:
    return fake_engines()


@pytest.fixture
def expressnet(monkeypatch: pytest.MonkeyPatch, engines: Engines) -> Expressnet:
    """The command line with `engines` instead of real engines. It does not configure logs."""
    monkeypatch.setattr("service.assembly.make_engines", lambda *_: engines)
    monkeypatch.setattr("service.telemetry.logs.configure_logs", lambda *_: None)
    # Tests change the working directory.
    monkeypatch.setenv("EXPRESSNET_MODEL_REPOSITORY", str(Settings().model_repository.resolve()))

    def run(*arguments: object, input: bytes | None = None, env: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(app, [str(each) for each in arguments], input=input, env=env)

    return run


@pytest.fixture
def photos(tmp_path: Path, astronaut: NDArray[np.uint8], faceless_jpeg: bytes) -> Path:
    """Photos of one face, no face and two faces, a photo that is text inside, and a text file."""
    folder = tmp_path / "photos"
    (folder / "later").mkdir(parents=True)
    (folder / "one.jpg").write_bytes(encoded(astronaut))
    (folder / "none.jpg").write_bytes(faceless_jpeg)
    (folder / "later" / "two.png").write_bytes(encoded(np.hstack([astronaut, astronaut]), "PNG"))
    (folder / "torn.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("no photo either")
    return folder

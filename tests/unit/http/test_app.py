"""What prevents the creation of an application: wrong models, a missing engine, an invalid setting."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from typer.testing import CliRunner

from service import __version__
from service.access.keys import KeysFileError
from service.assembly import Engines
from service.cli import app as command_line
from service.core.errors import EngineUnavailable, ModelFileError, SettingsError
from service.http.app import create_app
from service.serving.server import make_server
from service.settings import Settings
from tests.fake_engine import FakeClassifier, FakeDetector, fake_engines


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"classifier": "yunet"}, "yunet is a detector, not a classifier"),
        ({"detector": "expressnet_moe"}, "expressnet_moe is a classifier, not a detector"),
        ({"classifier": "resnet"}, "resnet"),
    ],
)
def test_models_of_the_wrong_kind_are_refused(models: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        create_app(Settings(**models), fake_engines())


def test_an_invalid_keys_file_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text("[one]")
    with pytest.raises(KeysFileError, match=r"^EXPRESSNET_KEYS_FILE=\S+ cannot be used: one\.sha256: .*\.$"):
        create_app(Settings(keys_file=file), fake_engines())


async def test_an_engine_that_never_answered_leaves_the_service_unready() -> None:
    down = Engines(FakeClassifier(), FakeDetector(error=EngineUnavailable("it is not there")))
    app = create_app(Settings(), down)
    async with app.router.lifespan_context(app):
        assert not app.state.readiness.ready


def test_an_invalid_certificate_stops_the_start(tmp_path: Path) -> None:
    authority = trustme.CA()
    one, other = (authority.issue_cert("127.0.0.1") for _ in range(2))
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    one.cert_chain_pems[0].write_to_path(certificate)
    for private in (other.private_key_pem.bytes(), b"no key"):
        key.write_bytes(private)
        settings = Settings(tls_certificate=certificate, tls_private_key=key)
        with pytest.raises(SettingsError, match=r"^the TLS certificate and its key cannot be used: .*\.$"):
            make_server(create_app(settings, fake_engines()), settings)
    key.write_bytes(one.private_key_pem.bytes())
    assert make_server(create_app(settings, fake_engines()), settings).config.is_ssl


@pytest.mark.parametrize(
    ("engine", "module", "missing", "install"),
    [
        ("embedded", "onnx", "onnxruntime", "onnxruntime"),
        ("triton", "triton", "tritonclient", r"'expressnet-service\[triton\]'"),
        ("triton", "triton", "grpc", r"'expressnet-service\[triton\]'"),
    ],
)
def test_the_error_of_a_missing_package_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, engine: str, module: str, missing: str, install: str
) -> None:
    for name in [m for m in sys.modules if m.startswith((f"service.inference.{module}", f"{missing}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelFileError, match=rf"^{missing} is not installed: pip install {install}$"):
        create_app(Settings.model_validate({"engine": engine}))


def test_other_engines_work_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert create_app(Settings(), fake_engines()).title == "ExpressNet Service"


def test_the_command_line_prints_its_version_and_invalid_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    assert runner.invoke(command_line, ["--version"]).output.strip() == __version__
    monkeypatch.setenv("EXPRESSNET_PORT", "-1")
    result = runner.invoke(command_line, ["serve"])
    assert result.exit_code == 2
    assert "EXPRESSNET_PORT=-1" in result.output

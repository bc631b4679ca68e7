"""`expressnet check` reports problems, and how to fix them."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme
from typer.testing import CliRunner

from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.assembly import Engines
from service.cli import app, diagnosis
from service.core.errors import EngineUnavailable
from service.process import cores
from service.settings import Settings
from service.vision.decode import decode
from tests.conftest import free_port
from tests.fake_engine import FakeClassifier, FakeDetector, fake_engines


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    engines = fake_engines()
    monkeypatch.setattr("service.assembly.make_engines", lambda *_: engines)
    monkeypatch.setattr("service.telemetry.logs.configure_logs", lambda *_: None)
    return engines


def findings(code: int, **settings: object) -> dict[str, dict[str, Any]]:
    """The last finding of each check, by the name of the check. The command must exit with `code`."""
    environment = {"EXPRESSNET_PORT": "0"} | {f"EXPRESSNET_{k.upper()}": str(v) for k, v in settings.items()}
    result = CliRunner().invoke(app, ["check", "--json"], env=environment)
    assert result.exit_code == code, result.output
    content = json.loads(result.stdout)
    assert content["ok"] is (code == 0)
    for finding in content["findings"]:
        assert (finding["fix"] is None) is (finding["state"] == "ok")
    return {finding["check"]: finding for finding in content["findings"]}


@pytest.mark.usefixtures("engines")
def test_on_a_good_machine_the_last_finding_is_an_answer() -> None:
    found = findings(0)
    assert {finding["state"] for name, finding in found.items() if name != "threads"} == {"ok"}
    last = list(found.values())[-1]
    assert last["check"] == "answer"
    assert "classification took" in last["found"]
    assert "happiness" in last["found"]


@pytest.mark.usefixtures("engines")
def test_findings_are_also_printed_as_text() -> None:
    result = CliRunner().invoke(app, ["check"], env={"EXPRESSNET_PORT": "99999"})
    assert result.exit_code == 1
    first, fix = result.stdout.splitlines()
    assert first.startswith("error    settings: EXPRESSNET_PORT=99999 cannot be used")
    assert fix.strip() == "Correct or unset the setting; docs/reference/settings.md lists all of them."


@pytest.mark.usefixtures("engines")
def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = findings(1, port=port)
        assert found["port"]["state"] == "error"
        assert "EXPRESSNET_PORT" in found["port"]["fix"]
        assert findings(1, admin_port=port)["admin port"]["state"] == "error"
    assert findings(0, port=port, admin_port=free_port())["admin port"]["state"] == "ok"


@pytest.mark.usefixtures("engines")
def test_a_public_address_needs_keys_and_tls(tmp_path: Path) -> None:
    found = findings(0, host="0.0.0.0", allow_anonymous="true")
    assert (found["keys"]["state"], found["tls"]["state"]) == ("warning", "warning")
    keys = tmp_path / "keys.toml"
    add_key(keys, "mobile", [Scope.PREDICT], None, None)
    certificate = trustme.CA().issue_cert("localhost")
    chain, private = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(private)
    secured = {"host": "0.0.0.0", "keys_file": keys, "tls_certificate": chain, "tls_private_key": private}
    found = findings(0, **secured)
    assert found["keys"]["found"].endswith("keys.toml: 1 of 1")
    assert found["tls"]["state"] == "ok"
    keys.write_text("[mobile]")
    private.write_text("no key")
    found = findings(1, **secured)
    assert (found["keys"]["state"], found["tls"]["state"]) == ("error", "error")


@pytest.mark.usefixtures("engines")
def test_a_file_with_only_expired_keys_is_a_warning(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[old]\nsha256 = "{"0" * 64}"\nscopes = ["predict"]\nexpires = 2020-01-01T00:00:00Z\n')
    assert findings(0, keys_file=keys)["keys"]["state"] == "warning"


@pytest.mark.usefixtures("engines")
def test_an_unreachable_redis_is_a_warning_without_its_password() -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    found = findings(0, redis_url=url, rate_limit="10/second")["redis"]
    assert found["state"] == "warning"
    assert "secret" not in json.dumps(found)


@pytest.mark.usefixtures("engines")
def test_a_model_that_differs_from_its_manifest_is_an_error_and_gets_no_image(tmp_path: Path) -> None:
    shutil.copytree(Settings().model_repository, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "yunet/1/model.onnx").open("ab") as file:
        file.write(b"!")
    found = findings(1, model_repository=tmp_path)
    assert "its manifest says" in found["models"]["found"]
    assert "answer" not in found
    missing = findings(1, model_repository="/nowhere")["models"]["found"]
    assert "/nowhere/expressnet_moe/manifest.json is missing; set EXPRESSNET_MODEL_REPOSITORY" in missing
    # With Triton the server loads the file, so a changed file is no error here.
    found = findings(0, model_repository=tmp_path, engine="triton")
    assert found["triton"]["found"].startswith("yunet is ready at 127.0.0.1:8001")


def test_an_unreachable_triton_is_an_error(engines: Engines) -> None:
    object.__setattr__(engines, "detector", FakeDetector(error=EngineUnavailable("it is not connected")))
    found = findings(1, engine="triton", triton_url="127.0.0.1:9")
    assert "yunet at 127.0.0.1:9: it is not connected" in found["triton"]["found"]
    assert "EXPRESSNET_TRITON_URL" in found["triton"]["fix"]
    assert "answer" not in found


def test_an_engine_that_cannot_answer_is_an_error(engines: Engines) -> None:
    object.__setattr__(engines, "classifier", FakeClassifier(error=EngineUnavailable("out of order")))
    assert "engine_unavailable: out of order" in findings(1)["answer"]["found"]


@pytest.mark.usefixtures("engines")
def test_an_engine_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find_spec", lambda package: None)
    assert findings(1)["engine"]["fix"] == "Install it: pip install onnxruntime."
    found = findings(1, engine="triton")["engine"]
    assert found["fix"] == "Install it: pip install 'expressnet-service[triton]'."


@pytest.mark.usefixtures("engines")
def test_settings_beyond_the_limits_of_the_machine_are_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert "WORKER_THREADS=1" in findings(0, worker_threads=2)["threads"]["fix"]
    assert findings(0, worker_threads=1)["threads"]["state"] == "ok"
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    threads = findings(0, processes=2, worker_threads=3)["threads"]
    assert threads["found"] == "2 processes with 3 worker threads each, but 2 cores"
    assert "WORKER_THREADS=2" in threads["fix"]
    monkeypatch.setattr("service.cli.diagnosis.resource.getrlimit", lambda _: (256, 256))
    assert "ulimit -n 612" in findings(0, worker_threads=1)["open files"]["fix"]


def test_the_drawn_photo_can_be_decoded() -> None:
    photo = decode(diagnosis._drawn_photo(), pixel_limit=1_000_000)
    assert (photo.width, photo.height) == diagnosis.DRAWN_PX
    assert photo.pixels.std() > 20

"""The container files agree with the code: settings, routes, the time to stop, and what the build needs."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import __version__
from service.settings import PREFIX, Settings
from tests.conftest import serving
from tests.fake_engine import fake_engines

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")

DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Every instruction and its argument, continued lines joined, comments gone."""
    code = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in code.splitlines() if line.strip()]
    return [(name.upper(), argument) for name, argument in lines]


def final_stage(dockerfile: str) -> list[tuple[str, str]]:
    found = instructions(dockerfile)
    return found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]


def arguments(name: str, found: list[tuple[str, str]]) -> list[str]:
    return [argument for instruction, argument in found if instruction == name]


def pairs(name: str) -> dict[str, str]:
    """What ENV or LABEL of the final stage sets."""
    return {
        key: ast.literal_eval(value) if value.startswith('"') else value
        for argument in arguments(name, final_stage(DOCKERFILE))
        for key, value in re.findall(r'(\S+?)=("[^"]*"|\S+)', argument)
    }


def defaulted(value: str) -> str:
    """What Compose reads where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


@pytest.fixture(scope="module")
def gateway() -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]["gateway"]
    return service


def test_every_install_is_constrained_and_none_is_editable() -> None:
    installs = [
        command
        for argument in arguments("RUN", instructions(DOCKERFILE))
        for command in argument.split("&&")
        if "pip install" in command
    ]
    assert any("'.[embedded]'" in command for command in installs)
    for command in installs:
        assert " -c constraints.txt " in command
        assert not re.search(r" (-e|--editable)\b", command)


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    (user,) = arguments("USER", final_stage(DOCKERFILE))
    # A name could not be told from root by an orchestrator that forbids root.
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_the_final_stage_runs_no_command_and_takes_only_what_was_built() -> None:
    stage = final_stage(DOCKERFILE)
    assert arguments("RUN", stage) == []
    taken = [argument.split() for argument in arguments("COPY", stage)]
    assert [source for source, *_ in taken] == ["--from=build"] * 2
    assert pairs("ENV")[f"{PREFIX}MODEL_REPOSITORY"] in [target for *_, target in taken]


def test_both_stages_stand_on_the_same_base() -> None:
    bases = {argument.split()[0] for argument in arguments("FROM", instructions(DOCKERFILE))}
    # The virtual environment links to the interpreter of the stage that made it.
    assert bases == {"${BASE_IMAGE}"}


def test_what_is_copied_exists_and_enters_the_context() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in lines
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copies = arguments("COPY", instructions(DOCKERFILE))
    copied = {source for copy in copies if "--from=" not in copy for source in copy.split()[:-1]}
    assert copied == let_in
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_the_version_is_the_code_s() -> None:
    assert pairs("LABEL")["org.opencontainers.image.version"] == __version__


def test_the_signal_to_stop_is_one_that_the_server_drains_at() -> None:
    stage = final_stage(DOCKERFILE)
    assert arguments("STOPSIGNAL", stage) == ["SIGTERM"]
    # The exec form: a shell in between would keep the signal to itself.
    assert [json.loads(command) for command in arguments("CMD", stage)] == [["expressnet", "serve"]]


def test_the_health_check_follows_readiness() -> None:
    (argument,) = arguments("HEALTHCHECK", final_stage(DOCKERFILE))
    program, *rest = json.loads(argument.partition(" CMD ")[2])
    assert program == "python"
    settings = Settings(port=0, model_repository=ROOT / "model_repository")
    with serving(settings, fake_engines()) as served:
        port = served.url.rpartition(":")[2]
        proxied = {"http_proxy": "http://127.0.0.1:9", f"{PREFIX}PORT": port}

        def check() -> int:
            return subprocess.run([sys.executable, *rest], env=os.environ | proxied, timeout=30).returncode

        assert check() == 0
        served.drain()
        assert check() == 1
    assert check() == 1


def test_the_default_port_is_exposed_published_and_checked(gateway: dict[str, Any]) -> None:
    port = str(DEFAULTS["port"])
    assert arguments("EXPOSE", final_stage(DOCKERFILE)) == [port]
    assert f"'{PREFIX}PORT', '{port}'" in DOCKERFILE
    assert [defaulted(published) for published in gateway["ports"]] == [f"127.0.0.1:{port}:{port}"]
    assert defaulted(gateway["environment"][f"{PREFIX}PORT"]) == port
    assert pairs("ENV")[f"{PREFIX}HOST"] == "0.0.0.0"


def test_compose_waits_longer_than_the_server_takes_to_stop(gateway: dict[str, Any]) -> None:
    seconds = re.fullmatch(r"(\d+)s", gateway["stop_grace_period"])
    assert seconds
    assert int(seconds[1]) > DEFAULTS["grace_s"]
    # A first process gets no signal that it does not handle, and the server handles none while it loads.
    assert gateway["init"] is True


def test_compose_takes_every_right_away_that_the_gateway_does_not_need(gateway: dict[str, Any]) -> None:
    assert gateway["read_only"] is True
    assert [mount.split(":")[0] for mount in gateway["tmpfs"]] == ["/tmp"]
    assert gateway["cap_drop"] == ["ALL"]
    assert gateway["security_opt"] == ["no-new-privileges:true"]
    assert not gateway.keys() & {"privileged", "cap_add", "user", "volumes", "network_mode"}


def test_build_arguments_of_compose_are_known_to_the_dockerfile(gateway: dict[str, Any]) -> None:
    known = {argument.partition("=")[0] for argument in arguments("ARG", instructions(DOCKERFILE))}
    assert set(gateway["build"]["args"]) <= known


@pytest.mark.parametrize("text", [DOCKERFILE, COMPOSE, PAGE], ids=["Dockerfile", "compose", "page"])
def test_every_variable_is_a_setting(text: str) -> None:
    named = set(re.findall(rf"\b{PREFIX}\w+", text))
    assert named
    assert named <= {PREFIX + name.upper() for name in DEFAULTS}

"""The container files agree with the code: settings, routes, the time to stop, and what the builds need."""

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
import trustme
import yaml

from service import __version__
from service.settings import PREFIX, Settings
from tests.conftest import serving
from tests.fake_engine import fake_engines

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
OVERLAY = (ROOT / "deploy" / "compose.gpu.yaml").read_text(encoding="utf-8")
PAGES = {
    name: (ROOT / "docs" / "guides" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("docker", "triton", "air-gapped", "proxy")
}

DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}

Instruction = tuple[str, str]


def instructions(dockerfile: str) -> list[Instruction]:
    """Every instruction and its argument, with continued lines joined and comments removed."""
    code = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in code.splitlines() if line.strip()]
    return [(name.upper(), argument) for name, argument in lines]


def stages(dockerfile: str) -> dict[str, list[Instruction]]:
    """The instructions of each stage, by its name and in their order, FROM first."""
    found: dict[str, list[Instruction]] = {}
    name = ""
    for instruction, argument in instructions(dockerfile):
        if instruction == "FROM":
            name = argument.split(" AS ")[1]
        if name:
            found.setdefault(name, []).append((instruction, argument))
    return found


STAGES = stages(DOCKERFILE)
IMAGES = ("gateway", "embedded")


def image(name: str) -> list[Instruction]:
    """All instructions of an image, with those of its base stages first."""
    base = STAGES[name][0][1].split()[0]
    return [*(image(base) if base in STAGES else []), *STAGES[name][1:]]


def arguments(name: str, found: list[Instruction]) -> list[str]:
    return [argument for instruction, argument in found if instruction == name]


def pairs(name: str, found: list[Instruction]) -> dict[str, str]:
    """The names and values that ENV or LABEL sets."""
    return {
        key: ast.literal_eval(value) if value.startswith('"') else value
        for argument in arguments(name, found)
        for key, value in re.findall(r'(\S+?)=("[^"]*"|\S+)', argument)
    }


def without_variables(value: str) -> str:
    """The value that Compose reads when no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


BASE: dict[str, Any] = yaml.safe_load(COMPOSE)
GPU: dict[str, Any] = yaml.safe_load(OVERLAY)
GATEWAY = BASE["services"]["gateway"]
TRITON = GPU["services"]["triton"]
SERVICES = {**BASE["services"], "triton": TRITON}


def installs() -> list[str]:
    commands = (c for a in arguments("RUN", instructions(DOCKERFILE)) for c in a.split("&&"))
    return [command for command in commands if "pip install" in command]


def test_every_install_requires_hashes_or_has_no_dependencies_and_none_is_editable() -> None:
    for command in installs():
        assert not re.search(r" (-e|--editable)\b", command)
    without_hashes = [
        command.strip() for command in installs() if "--require-hashes -r locks/" not in command
    ]
    assert without_hashes == ["pip install --no-deps --no-build-isolation --target /opt/expressnet ."]


def test_each_image_has_the_packages_of_its_engine() -> None:
    for name in IMAGES:
        (command,) = arguments("RUN", STAGES[f"{name}-packages"])
        assert f"-r locks/{name}.txt" in command
        assert f"--from={name}-packages /opt/venv /opt/venv" in arguments("COPY", image(name))
    assert pairs("ENV", image("gateway"))[f"{PREFIX}ENGINE"] == "triton"
    assert f"{PREFIX}ENGINE" not in pairs("ENV", image("embedded"))


def test_the_images_have_no_installers() -> None:
    for name in IMAGES:
        (command,) = arguments("RUN", STAGES[f"{name}-packages"])
        assert re.search(r"&& pip uninstall --yes (av )?setuptools pip$", command)


def test_a_build_without_target_gives_the_embedded_image() -> None:
    assert list(STAGES)[-1] == "embedded"
    assert GATEWAY["build"]["target"] == "embedded"


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_runs_as_a_numeric_user_that_is_not_root(name: str) -> None:
    (user,) = arguments("USER", image(name))
    # An orchestrator that forbids root cannot see from a name whether the user is root.
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_no_command_and_copies_only_from_other_stages(name: str) -> None:
    found = image(name)
    assert arguments("RUN", found) == arguments("ADD", found) == []
    copies = [argument.split() for argument in arguments("COPY", found)]
    assert all(source.startswith("--from=") for source, *_ in copies)
    targets = [target for *_, target in copies]
    assert pairs("ENV", found)[f"{PREFIX}MODEL_REPOSITORY"] in targets
    assert pairs("ENV", found)["PYTHONPATH"] in targets


def test_the_gateway_of_triton_has_manifests_and_no_model() -> None:
    assert "--from=manifests /opt/model_repository /opt/model_repository" in arguments(
        "COPY", image("gateway")
    )
    (command,) = arguments("RUN", STAGES["manifests"])
    assert "-type f ! -name manifest.json -delete" in command


def test_all_stages_have_the_same_base() -> None:
    bases = {arguments("FROM", found)[0].split()[0] for found in STAGES.values()}
    # The virtual environment links to the interpreter of the stage that made it.
    assert bases - set(STAGES) == {"${BASE_IMAGE}"}


def test_copied_paths_exist_and_are_in_the_build_context() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in lines
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copies = arguments("COPY", instructions(DOCKERFILE))
    copied = {source for copy in copies if "--from=" not in copy for source in copy.split()[:-1]}
    assert copied == allowed
    assert [source for source in copied if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("name", IMAGES)
def test_the_version_label_is_the_version_of_the_code(name: str) -> None:
    assert pairs("LABEL", image(name))["org.opencontainers.image.version"] == __version__


@pytest.mark.parametrize("name", IMAGES)
def test_the_stop_signal_makes_the_server_drain(name: str) -> None:
    assert arguments("STOPSIGNAL", image(name)) == ["SIGTERM"]
    # The exec form: a shell would not pass on the signal.
    assert [json.loads(command) for command in arguments("CMD", image(name))] == [["expressnet", "serve"]]


@pytest.mark.parametrize("name", IMAGES)
def test_the_health_check_follows_readiness(name: str) -> None:
    (argument,) = arguments("HEALTHCHECK", image(name))
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


def test_the_health_check_uses_tls_when_the_gateway_uses_tls(tmp_path: Path) -> None:
    program, *rest = json.loads(arguments("HEALTHCHECK", image("gateway"))[0].partition(" CMD ")[2])
    assert program == "python"
    authority = trustme.CA()
    certificate = authority.issue_cert("gateway.example.com")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    certificate.private_key_pem.write_to_path(tmp_path / "tls.key")
    settings = Settings(
        port=0,
        model_repository=ROOT / "model_repository",
        tls_certificate=tmp_path / "tls.crt",
        tls_private_key=tmp_path / "tls.key",
    )
    # The certificate is for another name than the address that the health check uses.
    with serving(settings, fake_engines()) as served:
        variables = {f"{PREFIX}PORT": served.url.rpartition(":")[2]}
        variables[f"{PREFIX}TLS_CERTIFICATE"] = str(settings.tls_certificate)
        checked = subprocess.run([sys.executable, *rest], env=os.environ | variables, timeout=30)
    assert checked.returncode == 0


KEYS: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.keys.yaml").read_text(encoding="utf-8"))


def test_who_has_access_is_set_in_the_file_that_publishes_the_address(tmp_path: Path) -> None:
    # The image alone does not start: its operator must first choose keys or anonymous access.
    for name in IMAGES:
        assert not {f"{PREFIX}ALLOW_ANONYMOUS", f"{PREFIX}KEYS_FILE"} & set(pairs("ENV", image(name)))
    assert without_variables(GATEWAY["environment"][f"{PREFIX}ALLOW_ANONYMOUS"]) == "true"
    assert all(port.startswith("127.0.0.1:") for port in map(without_variables, GATEWAY["ports"]))
    overlay = KEYS["services"]["gateway"]
    environment = {name.removeprefix(PREFIX).lower(): str(v) for name, v in overlay["environment"].items()}
    assert environment["allow_anonymous"] == "false"
    ((source, target, mode),) = (volume.split(":") for volume in overlay["volumes"])
    assert (source, target, mode) == ("./keys", str(Path(environment["keys_file"]).parent), "ro")
    (tmp_path / "keys.toml").write_text("# no keys yet")
    settings = Settings.model_validate(environment | {"host": "0.0.0.0", "keys_file": tmp_path / "keys.toml"})
    assert [without_variables(port) for port in overlay["ports"]] == [
        f"127.0.0.1:{settings.admin_port}:{settings.admin_port}"
    ]


def test_prometheus_reads_the_admin_port_when_there_is_one() -> None:
    (mount,) = (volume.split(":") for volume in KEYS["services"]["prometheus"]["volumes"])
    assert mount == ["./deploy/prometheus/prometheus.keys.yml", "/etc/prometheus/prometheus.yml", "ro"]
    port = KEYS["services"]["gateway"]["environment"][f"{PREFIX}ADMIN_PORT"]
    plain, other = (
        yaml.safe_load((ROOT / "deploy" / "prometheus" / f"{name}.yml").read_text(encoding="utf-8"))
        for name in ("prometheus", "prometheus.keys")
    )
    (job,) = (job for job in plain["scrape_configs"] if job["job_name"] == "gateway")
    assert job["static_configs"] == [{"targets": [f"gateway:{DEFAULTS['port']}"]}]
    job["static_configs"] = [{"targets": [f"gateway:{port}"]}]
    assert other == plain


def test_the_default_port_is_exposed_published_and_checked() -> None:
    port = str(DEFAULTS["port"])
    for name in IMAGES:
        assert arguments("EXPOSE", image(name)) == [port]
        assert pairs("ENV", image(name))[f"{PREFIX}HOST"] == "0.0.0.0"
    assert f"'{PREFIX}PORT', '{port}'" in DOCKERFILE
    assert [without_variables(published) for published in GATEWAY["ports"]] == [f"127.0.0.1:{port}:{port}"]
    # .env may choose another port for the machine. In the container the port stays the same.
    assert str(GATEWAY["environment"][f"{PREFIX}PORT"]) == port
    assert [published.rpartition(":")[2] for published in GATEWAY["ports"]] == [port]


def test_compose_waits_longer_than_the_servers_take_to_stop() -> None:
    def seconds(text: str) -> int:
        found = re.fullmatch(r"(\d+)s", text)
        assert found
        return int(found[1])

    assert seconds(GATEWAY["stop_grace_period"]) > DEFAULTS["grace_s"]
    # Process 1 gets only the signals that it handles, and the server handles none while it loads.
    assert GATEWAY["init"] is True
    triton_s = re.search(r"--exit-timeout-secs=(\d+)", TRITON["command"][-1])
    assert triton_s
    assert seconds(TRITON["stop_grace_period"]) > int(triton_s[1]) >= DEFAULTS["grace_s"]


def test_without_a_profile_there_is_only_the_gateway() -> None:
    assert [name for name, service in BASE["services"].items() if "profiles" not in service] == ["gateway"]
    assert all(BASE["services"][name]["profiles"] == ["monitoring"] for name in ("prometheus", "grafana"))


@pytest.mark.parametrize("name", SERVICES)
def test_compose_removes_every_right_that_a_service_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "ipc", "userns_mode"}
    assert all(":size=" in mount for mount in service.get("tmpfs", []))
    for volume in service.get("volumes", []):
        # Only the data of Prometheus is kept.
        assert volume.endswith(":ro") or volume == "prometheus:/prometheus"
    if "build" not in service:
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"gateway"}))
def test_third_party_images_are_pinned_and_have_a_health_check(name: str) -> None:
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-py3)?$", SERVICES[name]["image"])
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_triton_is_of_a_release_without_the_known_critical_faults() -> None:
    release = re.search(r"tritonserver:(\d+)\.(\d+)-py3$", TRITON["image"])
    assert release
    assert (int(release[1]), int(release[2])) >= (26, 6)


def test_services_without_keys_are_published_on_this_machine_only() -> None:
    for name in ("prometheus", "grafana"):
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


def test_grafana_has_no_password_to_guess() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert not any("PASSWORD" in name for name in environment)


def test_triton_is_reached_by_the_gateway_and_prometheus_only() -> None:
    assert "ports" not in TRITON
    assert TRITON["networks"] == ["inference"]
    assert GPU["networks"] == {"inference": {"internal": True}}
    reached = {name for name, service in GPU["services"].items() if "inference" in service["networks"]}
    assert reached == {"gateway", "prometheus", "triton"}


def test_the_overlay_builds_the_gateway_of_triton() -> None:
    gateway = GPU["services"]["gateway"]
    assert gateway["build"] == {"target": "gateway"}
    assert gateway["environment"] == {f"{PREFIX}ENGINE": "triton", f"{PREFIX}TRITON_URL": "triton:8001"}
    # Compose merges both files. Without a name of its own, two images would have the same name.
    assert gateway["image"] != GATEWAY["image"]


@pytest.mark.parametrize(
    "text",
    [
        DOCKERFILE,
        COMPOSE,
        OVERLAY,
        (ROOT / "deploy" / "compose.keys.yaml").read_text(encoding="utf-8"),
        *PAGES.values(),
    ],
    ids=["Dockerfile", "compose", "overlay", "keys", *PAGES],
)
def test_every_variable_is_a_setting(text: str) -> None:
    named = set(re.findall(rf"\b{PREFIX}\w+", text))
    assert named
    assert named <= {PREFIX + name.upper() for name in DEFAULTS}

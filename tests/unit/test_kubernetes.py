"""The Kubernetes manifests agree with the code, with the images and with each other."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service import __version__
from service.core.timings import STAGES
from service.settings import PREFIX, Settings
from service.telemetry.metrics import Metrics
from tests.conftest import serving
from tests.fake_engine import fake_engines

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
DOCS = ROOT / "docs"
PAGE = (DOCS / "guides" / "kubernetes.md").read_text(encoding="utf-8")
ALERTS = (DOCS / "reference" / "alerts.md").read_text(encoding="utf-8")
PAGES = {
    name: (DOCS / "guides" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("kubernetes", "rollout", "triton", "keys", "monitoring", "sizing")
} | {"alerts": ALERTS}
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted(KUBERNETES.rglob("*.y*ml"))
}

Object = dict[str, Any]

# A gRPC client resolves a name at most this often. By default cluster DNS caches an answer this long.
RESOLVES_EVERY_S, DNS_CACHE_S = 30, 30


@cache  # the parser takes long
def objects(folder: str = "base") -> list[Object]:
    paths = [path for path in (KUBERNETES / folder).glob("*.yaml") if path.name != "kustomization.yaml"]
    return [found for path in sorted(paths) for found in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def find_object(kind: str, name: str) -> Object:
    (found,) = (o for o in objects() if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def pod(name: str) -> Object:
    spec: Object = find_object("Deployment", name)["spec"]["template"]["spec"]
    return spec


def container(name: str) -> Object:
    (found,) = pod(name)["containers"]
    assert found["name"] == name
    return dict(found)


def environment(name: str) -> Object:
    return {variable["name"]: variable.get("value") for variable in container(name)["env"]}


def ports(name: str) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(name)["ports"]}


def flags(arguments: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (argument.partition("=") for argument in arguments)}


def pause_s(name: str) -> int:
    seconds: int = container(name)["lifecycle"]["preStop"]["sleep"]["seconds"]
    return seconds


def tags() -> dict[str, str]:
    images = yaml.safe_load(TEXTS["deploy/kubernetes/base/kustomization.yaml"])["images"]
    return {image["name"]: image["newTag"] for image in images}


@pytest.mark.parametrize("text", [*TEXTS.values(), *PAGES.values()], ids=[*TEXTS, *PAGES])
def test_every_variable_is_a_setting(text: str) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z]\w+", text))
    assert named <= {PREFIX + name.upper() for name in Settings.model_fields}


def test_the_settings_of_the_gateway_can_be_used() -> None:
    given = environment("gateway")
    settings = Settings(
        **{name.removeprefix(PREFIX).lower(): value for name, value in given.items() if value is not None}
    )
    assert settings.engine == "triton"
    assert settings.allow_anonymous
    versions = ROOT / "model_repository" / settings.classifier
    assert (versions / given[f"{PREFIX}MODEL_VERSION"] / "model.pt").is_file()


def test_the_gateway_s_worst_case_fits_its_memory() -> None:
    settings = Settings()
    limits = container("gateway")["resources"]["limits"]
    gigabytes = re.fullmatch(r"(\d+)Gi", limits["memory"])
    assert gigabytes
    in_flight = int(environment("gateway")[f"{PREFIX}MAX_IN_FLIGHT_REQUESTS"])
    bodies = in_flight * settings.batch_body_limit_bytes
    pixels = 2 * 3 * settings.pixel_limit * int(limits["cpu"])
    assert bodies + pixels < int(gigabytes[1]) * 2**30


def test_the_ports_are_those_of_the_gateway() -> None:
    given = environment("gateway")
    assert ports("gateway") == {
        "http": Settings.model_fields["port"].default,
        "admin": int(given[f"{PREFIX}ADMIN_PORT"]),
    }
    assert given[f"{PREFIX}ADMIN_HOST"] == "0.0.0.0"
    annotations = find_object("Deployment", "gateway")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == given[f"{PREFIX}ADMIN_PORT"]
    (port,) = find_object("Service", "gateway")["spec"]["ports"]
    assert port["targetPort"] == "http"
    assert find_object("Service", "gateway")["spec"]["selector"].items() <= labels("gateway").items()


def labels(name: str) -> dict[str, str]:
    found: dict[str, str] = find_object("Deployment", name)["spec"]["template"]["metadata"]["labels"]
    return found


def test_a_draining_gateway_fails_only_its_readiness_probe() -> None:
    probed = {
        kind: container("gateway")[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")
    }
    assert {probe["port"] for probe in probed.values()} == {"http"}
    settings = Settings(port=0, model_repository=ROOT / "model_repository")
    with serving(settings, fake_engines()) as gateway:

        def statuses() -> dict[str, int]:
            return {
                kind: httpx.get(gateway.url + probe["path"]).status_code for kind, probe in probed.items()
            }

        assert statuses() == {"startup": 200, "liveness": 200, "readiness": 200}
        gateway.drain()
        # A draining gateway gets no requests, but is not killed.
        assert statuses() == {"startup": 200, "liveness": 200, "readiness": 503}


def test_the_gateway_has_the_time_that_it_needs_to_stop() -> None:
    grace_s = float(environment("gateway")[f"{PREFIX}GRACE_S"])
    assert grace_s >= Settings().timeout_s
    assert pod("gateway")["terminationGracePeriodSeconds"] > pause_s("gateway") + grace_s
    # The readiness probe fails within the pause, even if the pod is still in the endpoints of the service.
    readiness = container("gateway")["readinessProbe"]
    assert pause_s("gateway") >= readiness["periodSeconds"] * readiness["failureThreshold"]


def test_all_gateways_disconnect_from_a_triton_before_it_stops() -> None:
    given = flags(container("triton")["args"])
    age_s = int(given["--grpc-max-connection-age"]) / 1000
    assert pause_s("triton") >= age_s + RESOLVES_EVERY_S + DNS_CACHE_S
    assert pod("triton")["terminationGracePeriodSeconds"] > pause_s("triton") + int(
        given["--exit-timeout-secs"]
    )
    # The longest call must be able to end on the connection that it uses.
    assert int(given["--grpc-max-connection-age-grace"]) / 1000 > Settings().timeout_s


def test_the_gateway_finds_every_triton() -> None:
    host, _, port = environment("gateway")[f"{PREFIX}TRITON_URL"].partition(":")
    service = find_object("Service", host)["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"].items() <= labels("triton").items()
    assert int(port) == ports("triton")["grpc"] == service["ports"][0]["port"]
    assert [served["targetPort"] for served in service["ports"]] == ["grpc"]


def test_triton_serves_the_models_of_the_init_container() -> None:
    (init,) = pod("triton")["initContainers"]
    program, *_, source, target = init["command"]
    assert (program, source, target) == ("cp", "/opt/model_repository/.", "/models")
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stage = re.search(r"^FROM \S+ AS models\n((?:(?!FROM).*\n)*)", dockerfile, flags=re.MULTILINE)
    assert stage
    assert "COPY model_repository /opt/model_repository" in stage[1]
    assert flags(container("triton")["args"])["--model-repository"] == target
    mounts = [{m["name"]: m for m in c["volumeMounts"]}["models"] for c in (init, container("triton"))]
    assert mounts == [
        {"name": "models", "mountPath": target},
        {"name": "models", "mountPath": target, "readOnly": True},
    ]


def test_models_and_shared_memory_cannot_be_changed_over_the_network() -> None:
    given = flags(container("triton")["args"])
    assert given["--model-control-mode"] == "none"
    assert given["--allow-client-shm"] == "false"
    # Only the calls of the gateway stay open, and over HTTP only the calls of the kubelet.
    all_calls = {"health", "inference", "model-config", "metadata", "shared-memory"}
    all_calls |= {"model-repository", "statistics", "trace", "logging"}
    for option, open_calls in (
        ("--grpc-restricted-protocol", {"health", "inference", "model-config"}),
        ("--http-restricted-api", {"health"}),
    ):
        calls, _, key = given[option].partition(":")
        assert set(calls.split(",")) == all_calls - open_calls
        assert key == "nobody=$(POD_UID)"
    (uid,) = (v for v in container("triton")["env"] if v["name"] == "POD_UID")
    assert uid["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


def test_triton_has_the_same_flags_in_kubernetes_and_compose() -> None:
    files = [ROOT / "docker-compose.yml", *(ROOT / "deploy").glob("*.y*ml")]
    services = [
        service
        for path in files
        for service in yaml.safe_load(path.read_text(encoding="utf-8"))["services"].values()
        if "tritonserver" in service.get("image", "")
    ]
    assert services
    # Compose has one server and no kubelet, so it needs no flags for other servers or outside health checks.
    kubernetes_only = {
        "--http-address",
        "--metrics-address",
        "--grpc-max-connection-age",
        "--grpc-max-connection-age-grace",
    }

    def shared_flags(arguments: list[str]) -> dict[str, str]:
        without_key = [re.sub(r":nobody=\S+", "", argument) for argument in arguments]
        return {name: value for name, value in flags(without_key).items() if name not in kubernetes_only}

    for service in services:
        assert service["image"] == f"nvcr.io/nvidia/tritonserver:{tags()['nvcr.io/nvidia/tritonserver']}"
        command = service["command"]
        text = command if isinstance(command, str) else " ".join(command)
        assert shared_flags(re.findall(r"--\S+", text.replace('"', ""))) == shared_flags(
            container("triton")["args"]
        )
        assert service["environment"] | {"POD_UID": None} == environment("triton")


def test_the_probes_of_triton_use_calls_that_stay_open() -> None:
    for kind, path in (("startup", "ready"), ("readiness", "ready"), ("liveness", "live")):
        assert container("triton")[f"{kind}Probe"]["httpGet"] == {
            "path": f"/v2/health/{path}",
            "port": "http",
        }
    assert ports("triton") == {"http": 8000, "grpc": 8001, "metrics": 8002}


def test_images_have_the_version_of_the_code() -> None:
    named = {c["image"] for name in ("gateway", "triton") for c in all_containers(name)}
    assert named == set(tags())
    assert tags()["expressnet-gateway"] == tags()["expressnet-models"] == __version__


def all_containers(name: str) -> list[Object]:
    return [*pod(name).get("initContainers", []), *pod(name)["containers"]]


def test_triton_is_of_a_release_without_the_known_critical_faults() -> None:
    year, month = map(int, re.findall(r"\d+", tags()["nvcr.io/nvidia/tritonserver"])[:2])
    assert (year, month) >= (26, 6)


@pytest.mark.parametrize("name", ["gateway", "triton"])
def test_every_right_that_nothing_needs_is_removed(name: str) -> None:
    spec = pod(name)
    assert spec["automountServiceAccountToken"] is False
    # A service named expressnet would set EXPRESSNET_PORT and other variables, which the gateway refuses.
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"}
    for found in all_containers(name):
        assert found["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert {next(iter(set(volume) - {"name"})) for volume in spec["volumes"]} == {"emptyDir"}
    assert all(volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"])


def test_the_gateway_runs_as_the_user_of_its_image() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    context = pod("gateway")["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile


@pytest.mark.parametrize("name", ["gateway", "triton"])
def test_only_the_autoscaler_sets_the_number_of_pods(name: str) -> None:
    deployment, scaler = find_object("Deployment", name), find_object("HorizontalPodAutoscaler", name)
    # If the manifest had a number, every apply would undo the change of the autoscaler.
    assert "replicas" not in deployment["spec"]
    assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    assert 2 <= scaler["spec"]["minReplicas"] < scaler["spec"]["maxReplicas"]
    budget = find_object("PodDisruptionBudget", name)["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == deployment["spec"]["selector"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels(name).items()


def test_the_adapter_offers_the_metrics_of_the_autoscalers() -> None:
    needed = {
        metric["pods"]["metric"]["name"]
        for name in ("gateway", "triton")
        for metric in find_object("HorizontalPodAutoscaler", name)["spec"]["metrics"]
        if metric["type"] == "Pods"
    }
    offered = {rule["name"]["as"]: rule for rule in adapter_rules()}
    assert set(offered) == needed == {"triton_queue_seconds", "expressnet_queue_seconds"}
    for rule in offered.values():
        assert rule["resources"]["overrides"] == {
            "namespace": {"resource": "namespace"},
            "pod": {"resource": "pod"},
        }


def adapter_rules() -> list[Object]:
    values = yaml.safe_load(TEXTS["deploy/kubernetes/prometheus/adapter-values.yaml"])
    found: list[Object] = values["rules"]["custom"]
    return found


def test_the_adapter_reads_metrics_that_the_gateway_has() -> None:
    metrics = Metrics()
    metrics.stages(dict.fromkeys(STAGES, 1.0))
    samples = {sample.name for metric in metrics.registry.collect() for sample in metric.samples}
    text = TEXTS["deploy/kubernetes/prometheus/adapter-values.yaml"]
    named = set(re.findall(r"\bexpressnet_\w+", text)) - {"expressnet_queue_seconds"}
    assert named
    assert named <= samples
    assert set(re.findall(r'stage="(\w+)"', text)) == {"queue"} <= set(STAGES)


def test_the_policies_allow_only_the_needed_connections() -> None:
    policies = {o["metadata"]["name"]: o["spec"] for o in objects() if o["kind"] == "NetworkPolicy"}
    assert set(policies) == {"default-deny", "gateway", "triton"}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def allowed(name: str, direction: str) -> list[tuple[object, list[int]]]:
        side = {"ingress": "from", "egress": "to"}[direction]
        return [
            (rule[side], [p["port"] for p in rule["ports"]]) for rule in policies[name].get(direction, [])
        ]

    for name in ("gateway", "triton"):
        assert policies[name]["podSelector"]["matchLabels"].items() <= labels(name).items()
    gateway, triton = ([{"podSelector": policies[name]["podSelector"]}] for name in ("gateway", "triton"))
    monitoring = {"namespaceSelector": {"matchLabels": {"expressnet/monitoring": "true"}}}
    clients = {"namespaceSelector": {"matchLabels": {"expressnet/client": "true"}}}
    assert allowed("gateway", "ingress") == [
        ([clients], [ports("gateway")["http"]]),
        ([monitoring], [ports("gateway")["admin"]]),
    ]
    assert allowed("triton", "ingress") == [
        (gateway, [ports("triton")["grpc"]]),
        ([monitoring], [ports("triton")["metrics"]]),
    ]
    to_triton, to_dns = allowed("gateway", "egress")
    assert to_triton == (triton, [ports("triton")["grpc"]])
    assert to_dns[1] == [53, 53]
    assert allowed("triton", "egress") == []


def test_the_page_names_the_labels_that_allow_connections() -> None:
    for label in set(re.findall(r"\bexpressnet/\w+", TEXTS["deploy/kubernetes/base/network-policy.yaml"])):
        assert f"{label}=true" in PAGE


def test_scraped_ports_are_ports_of_the_pods() -> None:
    jobs = yaml.safe_load(TEXTS["deploy/kubernetes/prometheus/scrape.yml"])["scrape_configs"]
    keep = {job["relabel_configs"][0]["regex"] for job in jobs}
    assert keep == {"gateway;gateway;admin|triton;triton;metrics"}
    assert {job["job_name"] for job in jobs} == {"gateway", "triton"}
    for name, port in (("gateway", "admin"), ("triton", "metrics")):
        assert labels(name)["app.kubernetes.io/name"] == name
        assert port in ports(name)
    for job in jobs:
        assert {relabel.get("target_label") for relabel in job["relabel_configs"]} == {
            None,
            "namespace",
            "pod",
        }


def test_the_page_says_what_to_do_about_every_alert() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    listed = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \|", ALERTS, flags=re.MULTILINE)
    assert listed == [(rule["alert"], rule["alert"].lower(), rule["labels"]["severity"]) for rule in alerts]
    sections = re.split(r"^## ", ALERTS, flags=re.MULTILINE)[1:]
    assert [section.partition("\n")[0] for section in sections] == [rule["alert"] for rule in alerts]
    for section in sections:
        assert re.search(r"^- Look: ", section, flags=re.MULTILINE)
        assert re.search(r"^- Do: ", section, flags=re.MULTILINE)


@pytest.mark.parametrize("page", ["kubernetes", "rollout", "keys", "monitoring", "sizing", "alerts"])
def test_metrics_that_a_page_names_exist(page: str) -> None:
    metrics = Metrics()
    exist = {sample.name for metric in metrics.registry.collect() for sample in metric.samples}
    exist |= {metric.name for metric in metrics.registry.collect()}
    exist |= {f"{metric.name}_total" for metric in metrics.registry.collect() if metric.type == "counter"}
    exist |= {rule["name"]["as"] for rule in adapter_rules()}
    rules = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    exist |= set(re.findall(r"record: (\S+)", rules))
    named = set(re.findall(r"(?<![\w/:-])(?:[\w:]+:)?expressnet_\w+(?::\w+)*", PAGES[page]))
    assert named
    assert named - exist - {"expressnet_moe"} == set()

"""Builds the Kubernetes manifests with kustomize and validates the result."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.docs.blocks import blocks_of

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
PAGE, KEYS_PAGE, TRITON_PAGE = (
    (ROOT / "docs" / "guides" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("kubernetes", "keys", "triton")
)

# The oldest version with every field that the manifests use, and the newest version with schemas.
VERSIONS = ("1.30", kubernetes_validate.latest_version())

Object = dict[str, Any]


@pytest.fixture(scope="module")
def build() -> Callable[[Path], list[Object]]:
    """A function that builds a folder with kustomize and returns its objects."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build"]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is installed")

    def built(folder: Path) -> list[Object]:
        done = subprocess.run([*command, folder], capture_output=True, text=True, timeout=60)
        # A warning names a field that the next version of kustomize refuses.
        assert (done.returncode, done.stderr) == (0, "")
        return list(yaml.safe_load_all(done.stdout))

    return built


@pytest.fixture(scope="module", params=["cpu", "gpu", "cpu with tls", "gpu with tls", "cpu with keys"])
def overlay(
    request: pytest.FixtureRequest,
    build: Callable[[Path], list[Object]],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Object]:
    kind, _, component = request.param.partition(" with ")
    folder = KUBERNETES / "overlays" / kind
    if component:
        own = tmp_path_factory.mktemp("overlay")
        relative = {
            "resources": [os.path.relpath(folder, own.resolve())],
            "components": [os.path.relpath(KUBERNETES / "components" / component, own.resolve())],
        }
        (own / "kustomization.yaml").write_text(yaml.safe_dump(relative))
        folder = own
    return build(folder)


def find(overlay: list[Object], kind: str, name: str) -> Object:
    (found,) = (o for o in overlay if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def pod_spec(overlay: list[Object], name: str) -> Object:
    spec: Object = find(overlay, "Deployment", name)["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(overlay: list[Object], version: str) -> None:
    assert len(overlay) == 12
    for found in overlay:
        kubernetes_validate.validate(found, version, strict=True)


def test_the_validator_finds_a_misspelt_field(overlay: list[Object]) -> None:
    misspelt = copy.deepcopy(find(overlay, "Deployment", "gateway"))
    misspelt["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["periodSecond"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="periodSecond"):
        kubernetes_validate.validate(misspelt, VERSIONS[0], strict=True)


def test_all_objects_are_in_one_namespace(overlay: list[Object]) -> None:
    namespaces = {o["metadata"].get("namespace", o["metadata"]["name"]) for o in overlay}
    assert namespaces == {"expressnet"}
    namespace = find(overlay, "Namespace", "expressnet")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_image_has_a_version(overlay: list[Object]) -> None:
    for name in ("gateway", "triton"):
        spec = pod_spec(overlay, name)
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert re.search(r":\d[\w.-]+$", container["image"])


def test_every_container_has_requests_and_limits(overlay: list[Object]) -> None:
    for name in ("gateway", "triton"):
        spec = pod_spec(overlay, name)
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}


def test_referenced_volumes_variables_and_labels_exist(overlay: list[Object]) -> None:
    for name in ("gateway", "triton"):
        spec = pod_spec(overlay, name)
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            named = set(re.findall(r"\$\((\w+)\)", " ".join(container.get("args", []))))
            assert named <= {variable["name"] for variable in container.get("env", [])}
        # The network policy selects the pods by their labels, which kustomize may change.
        labels = find(overlay, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
        policy = find(overlay, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]
        assert policy.items() <= labels.items()


def test_one_triton_has_one_gpu_and_a_rollout_needs_no_spare_gpu(
    build: Callable[[Path], list[Object]],
) -> None:
    cpu, gpu = (build(KUBERNETES / "overlays" / kind) for kind in ("cpu", "gpu"))
    (container,) = pod_spec(gpu, "triton")["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert [taint["key"] for taint in pod_spec(gpu, "triton")["tolerations"]] == ["nvidia.com/gpu"]
    rolling = find(gpu, "Deployment", "triton")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}
    assert "nvidia.com/gpu" not in yaml.safe_dump(pod_spec(cpu, "triton"))
    # Only the resources differ. The flags and the models are the same.
    (plain,) = pod_spec(cpu, "triton")["containers"]
    assert {**container, "resources": None} == {**plain, "resources": None}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_page_lists_the_requests_and_limits(kind: str, build: Callable[[Path], list[Object]]) -> None:
    built = build(KUBERNETES / "overlays" / kind)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"
    ]
    for name, title in (("gateway", "gateway"), ("triton", f"triton, {kind}")):
        (row,) = (row for row in rows if row[0] == title)
        resources = pod_spec(built, name)["containers"][0]["resources"]
        expected = [
            resources[bound][resource] for resource in ("cpu", "memory") for bound in ("requests", "limits")
        ]
        assert row[1:5] == expected


def test_the_overlay_of_the_pages_can_be_built(build: Callable[[Path], list[Object]], tmp_path: Path) -> None:
    overlay: Object = {"components": []}
    for page in (PAGE, KEYS_PAGE, TRITON_PAGE):
        for block in blocks_of(page):
            if re.match("apiVersion|components", block.text):
                found = yaml.safe_load(block.text)
                overlay |= {**found, "components": overlay["components"] + found.get("components", [])}
    assert len(overlay["components"]) == 2
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    mine = tmp_path / "kubernetes" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    built = build(mine)
    for found in built:
        kubernetes_validate.validate(found, VERSIONS[0], strict=True)
    images = {
        c["image"]
        for c in (*pod_spec(built, "triton")["initContainers"], *pod_spec(built, "gateway")["containers"])
    }
    assert all(image.startswith("registry.example.com/") for image in images)
    (version,) = (
        v["value"]
        for v in pod_spec(built, "gateway")["containers"][0]["env"]
        if v["name"] == "EXPRESSNET_MODEL_VERSION"
    )
    assert version == "1"
    assert "--grpc-use-ssl-mutual=true" in pod_spec(built, "triton")["containers"][0]["args"]
    variables = {v["name"] for v in pod_spec(built, "gateway")["containers"][0]["env"]}
    assert "EXPRESSNET_KEYS_FILE" in variables


def test_the_tls_component_enables_tls_on_both_sides(
    overlay: list[Object], request: pytest.FixtureRequest
) -> None:
    encrypted = "tls" in request.node.callspec.params["overlay"]
    arguments = pod_spec(overlay, "triton")["containers"][0]["args"]
    variables = {v["name"]: v.get("value") for v in pod_spec(overlay, "gateway")["containers"][0]["env"]}
    assert ("--grpc-use-ssl-mutual=true" in arguments) is encrypted
    assert (variables.get("EXPRESSNET_TRITON_TLS") == "true") is encrypted
    if encrypted:
        for name in ("gateway", "triton"):
            secrets = [v["secret"]["secretName"] for v in pod_spec(overlay, name)["volumes"] if "secret" in v]
            assert secrets == [f"{name}-certificate"]
            assert f"{name}-certificate" in TRITON_PAGE


def test_the_keys_component_mounts_and_requires_keys(
    overlay: list[Object], request: pytest.FixtureRequest
) -> None:
    with_keys = "keys" in request.node.callspec.params["overlay"]
    (container,) = pod_spec(overlay, "gateway")["containers"]
    variables = {v["name"]: v.get("value") for v in container["env"]}
    assert variables["EXPRESSNET_ALLOW_ANONYMOUS"] == ("false" if with_keys else "true")
    assert ("EXPRESSNET_KEYS_FILE" in variables) is with_keys
    if with_keys:
        (secret,) = (v for v in pod_spec(overlay, "gateway")["volumes"] if "secret" in v)
        (mount,) = (m for m in container["volumeMounts"] if m["name"] == secret["name"])
        assert f"create secret generic {secret['secret']['secretName']} --from-file=keys.toml" in KEYS_PAGE
        assert variables["EXPRESSNET_KEYS_FILE"] == f"{mount['mountPath']}/keys.toml"
        # The kubelet never updates a file that is mounted by subPath.
        assert "subPath" not in mount


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_queries_of_the_adapter_give_the_mean_wait_of_each_pod(tmp_path: Path) -> None:
    values = yaml.safe_load((KUBERNETES / "prometheus" / "adapter-values.yaml").read_text(encoding="utf-8"))
    rules = {rule["name"]["as"]: rule for rule in values["rules"]["custom"]}

    def query(name: str) -> str:
        rule = rules[name]
        filled = {
            "<<.Series>>": rule["seriesQuery"].partition("{")[0],
            "<<.LabelMatchers>>": 'namespace="expressnet",pod=~"a|b"',
            "<<.GroupBy>>": "pod",
        }
        text: str = rule["metricsQuery"]
        for placeholder, value in filled.items():
            text = text.replace(placeholder, value)
        assert "<<" not in text
        return text

    def series(name: str, step: float, **labels: str) -> dict[str, str]:
        selector = ",".join(
            f'{key}="{value}"' for key, value in {"namespace": "expressnet", **labels}.items()
        )
        return {"series": f"{name}{{{selector}}}", "values": f"0+{step:g}x40"}

    # In pod a, each model gets 100 requests every 15 s. They wait 80 ms for the detector and 5 ms for the
    # classifier. Pod b is idle.
    waits = [("a", "yunet", 100, 0.08), ("a", "moe", 100, 0.005), ("b", "yunet", 0, 0), ("b", "moe", 0, 0)]
    triton = [
        found
        for pod, model, count, wait_s in waits
        for found in (
            series("nv_inference_queue_duration_us", count * wait_s * 1e6, pod=pod, model=model),
            series("nv_inference_request_success", count, pod=pod, model=model),
        )
    ]
    metric = "expressnet_stage_duration_seconds"
    gateway = [
        found
        for pod, stage, count, wait_s in (
            ("a", "queue", 30, 0.2),
            ("a", "detect", 30, 9),
            ("b", "queue", 0, 0),
        )
        for found in (
            series(f"{metric}_sum", count * wait_s, pod=pod, stage=stage),
            series(f"{metric}_count", count, pod=pod, stage=stage),
        )
    ]
    groups = [
        {
            "interval": "15s",
            "input_series": input_series,
            "promql_expr_test": [
                {
                    "expr": query(name),
                    "eval_time": "8m",
                    "exp_samples": [
                        {"labels": '{pod="a"}', "value": value},
                        {"labels": '{pod="b"}', "value": 0},
                    ],
                }
            ],
        }
        for name, input_series, value in (
            ("triton_queue_seconds", triton, 0.08),
            ("expressnet_queue_seconds", gateway, 0.2),
        )
    ]
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"tests": groups}))
    promtool("test", "rules", path)


def test_prometheus_accepts_the_scrape_configuration(tmp_path: Path) -> None:
    config = yaml.safe_load((KUBERNETES / "prometheus" / "scrape.yml").read_text(encoding="utf-8"))
    for job in config["scrape_configs"]:
        # The Prometheus of Debian has no service discovery for Kubernetes.
        (discovery,) = job.pop("kubernetes_sd_configs")
        assert discovery == {"role": "pod", "namespaces": {"names": ["expressnet"]}}
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    promtool("check", "config", path)

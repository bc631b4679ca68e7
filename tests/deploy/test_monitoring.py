"""A real Prometheus with the shipped configuration and rules reads a real gateway and a real Triton."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from tests.conftest import Gateway, encoded, eventually, free_port
from tests.deploy.compose import GRAFANA, PROMETHEUS, service
from tests.deploy.programs import need
from tests.processes import stop
from tests.triton.server import TritonServer

RULES: dict[str, Any] = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))
DASHBOARD: dict[str, Any] = json.loads(
    (GRAFANA / "dashboards" / "expressnet.json").read_text(encoding="utf-8")
)
CONDITION = re.compile(r"(?P<series>\S+) (?:<|>|<=|>=|==|!=) (?P<number>[\d.]+)")


def conditions(expression: str) -> list[str]:
    """The series that an alert compares with numbers. rules.yml describes the form of an alert."""
    found = [CONDITION.fullmatch(part) for part in expression.split(" and ")]
    assert all(found), expression
    return [part["series"] for part in found if part]


def queries() -> dict[str, str]:
    """The queries of the dashboard and the series that alerts compare, by their panel or alert."""
    found = {
        f"{panel['title']}, {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
    }
    for group in RULES["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                parts = conditions(rule["expr"])
                found |= {f"{rule['alert']}, {number}": part for number, part in enumerate(parts)}
    return found


class Prometheus:
    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10)

    def close(self) -> None:
        self._client.close()

    @property
    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def values(self, query: str) -> list[float]:
        """The values of all series that the query finds, without NaN and infinities."""
        values = [float(sample["value"][1]) for sample in self.get("query", query=query)["result"]]
        return [value for value in values if math.isfinite(value)]


def configuration(folder: Path, targets: dict[str, str]) -> Path:
    """A copy of the shipped files with these targets. All intervals are 1 s instead of 15 s."""
    shutil.copytree(PROMETHEUS, folder)
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    assert {job["job_name"] for job in config["scrape_configs"]} == targets.keys()
    config["scrape_configs"] = [
        {key: value for key, value in job.items() if not key.endswith("_sd_configs")}
        | {"static_configs": [{"targets": [targets[job["job_name"]]]}]}
        for job in config["scrape_configs"]
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    rules = yaml.safe_load((folder / "rules.yml").read_text())
    for group in rules["groups"]:
        group.pop("interval", None)
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    return folder / "prometheus.yml"


@pytest.fixture(scope="module")
def prometheus(
    gateway: Gateway, hardened_triton: TritonServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    need("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    address = f"127.0.0.1:{free_port()}"
    targets = {
        "gateway": gateway.url.removeprefix("http://"),
        "triton": f"127.0.0.1:{hardened_triton.metrics_port}",
        "prometheus": address,
    }
    replaced = {
        "--config.file": configuration(folder / "etc", targets),
        "--storage.tsdb.path": folder / "data",
    }
    command = [argument.partition("=") for argument in service("prometheus")["command"]]
    assert replaced.keys() <= {name for name, _, _ in command}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                *(f"{name}={replaced.get(name, value)}" for name, _, value in command),
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    running = Prometheus(f"http://{address}")
    try:
        eventually(lambda: running.ready or process.poll() is not None)
        assert running.ready, (folder / "log").read_text()
        yield running
    finally:
        running.close()
        stop(process)


@pytest.fixture(scope="module")
def busy(
    prometheus: Prometheus,
    gateway: Gateway,
    hardened_triton: TritonServer,
    astronaut_jpeg: bytes,
    faceless_jpeg: bytes,
) -> Prometheus:
    """Prometheus after single photos with and without faces, batches, and refused requests."""

    noise = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))

    def send() -> None:
        assert gateway.post(astronaut_jpeg).status_code == 200
        assert gateway.post(faceless_jpeg).status_code == 200
        assert gateway.post(noise, detect="false").status_code == 200
        batch = gateway.client.post("/v1/emotions/batch", files=[("images", astronaut_jpeg)] * 2)
        assert batch.status_code == 200
        assert gateway.post(b"no image").status_code == 400
        late = {"Content-Type": "image/jpeg", "X-Timeout-Ms": "1"}
        assert gateway.client.post("/v1/emotions", content=noise, headers=late).status_code == 504

    # A rate needs two values, so Prometheus must read the metrics after the first round.
    send()
    refused = 'expressnet_http_requests_total{route="/v1/emotions",status="504"}'
    eventually(lambda: prometheus.values(refused))
    inferences = "nv_inference_count"
    eventually(lambda: sum(prometheus.values(inferences)) == hardened_triton.metric(inferences))
    send()
    return prometheus


def test_all_targets_are_read(busy: Prometheus) -> None:
    eventually(lambda: len(busy.values("up == 1")) == 3)
    assert {target["labels"]["job"] for target in busy.get("targets")["activeTargets"]} == {
        "gateway",
        "triton",
        "prometheus",
    }


@pytest.mark.parametrize("query", [pytest.param(query, id=name) for name, query in queries().items()])
def test_every_query_finds_values(busy: Prometheus, query: str) -> None:
    eventually(lambda: busy.values(query))


def test_every_rule_can_be_evaluated_and_records_values(busy: Prometheus) -> None:
    rules = [rule for group in busy.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == sum(len(group["rules"]) for group in RULES["groups"])
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    for rule in rules:
        if rule["type"] == "recording":
            eventually(lambda name=rule["name"]: busy.values(name))  # type: ignore[misc]


def test_no_alert_fires_in_normal_operation(busy: Prometheus) -> None:
    assert [alert for alert in busy.get("alerts")["alerts"] if alert["state"] == "firing"] == []


def test_a_query_without_data_finds_no_values(busy: Prometheus) -> None:
    assert busy.values("expressnet_no_such_metric") == []
    assert busy.values("0 / (expressnet_queue_depth_faces < 0)") == []

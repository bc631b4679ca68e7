"""Checks the shipped files with the validators and linters of their formats."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.compose import COMPOSE_FILES, COMPOSE_KEYS, GRAFANA, PROMETHEUS, ROOT, service
from tests.deploy.programs import need, run

BIN = Path(sys.executable).parent


def test_compose_files_follow_the_specification() -> None:
    files = (*COMPOSE_FILES, COMPOSE_KEYS)
    checked = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files)
    assert checked.returncode == 0, checked.stdout


def test_the_dockerfile_has_no_known_mistake() -> None:
    checked = run(BIN / "hadolint", ROOT / "Dockerfile")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("file", ["prometheus.yml", "prometheus.keys.yml"])
def test_prometheus_accepts_its_configuration_and_rules(file: str) -> None:
    need("promtool")
    checked = run("promtool", "check", "config", "--lint-fatal", PROMETHEUS / file)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("file", ["rules_test.yml", "drift_test.yml"])
def test_each_alert_fires_for_its_fault(file: str) -> None:
    need("promtool")
    checked = run("promtool", "test", "rules", PROMETHEUS / file)
    assert checked.returncode == 0, checked.stderr


RULES: dict[str, Any] = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RECORDED = [rule for group in RULES["groups"] for rule in group["rules"] if "record" in rule]


def test_every_alert_is_tested_with_and_without_its_fault() -> None:
    fired, quiet = set[str](), set[str]()
    for file in ("rules_test.yml", "drift_test.yml"):
        for test in yaml.safe_load((PROMETHEUS / file).read_text(encoding="utf-8"))["tests"]:
            for case in test.get("alert_rule_test", []):
                (fired if case.get("exp_alerts") else quiet).add(case["alertname"])
    assert fired == quiet == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_description_and_a_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/reference/alerts.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("rule", RECORDED, ids=lambda rule: rule["record"])
def test_every_recorded_series_follows_the_naming_convention_and_is_used(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", rule["record"])
    dashboard = (GRAFANA / "dashboards" / "expressnet.json").read_text(encoding="utf-8")
    others = [other["expr"] for other in (*RECORDED, *ALERTS) if other is not rule]
    assert any(rule["record"] in text for text in (dashboard, *others))


DASHBOARD: dict[str, Any] = json.loads(
    (GRAFANA / "dashboards" / "expressnet.json").read_text(encoding="utf-8")
)


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_has_a_row_for_each_question_and_describes_each_panel() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Is it healthy?", "What is slow?", "Is it drifting?"]
    assert all(panel["description"] for panel in DASHBOARD["panels"] if panel["type"] != "row")


def test_grafana_finds_its_data_source_and_its_dashboard() -> None:
    provisioning = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    used = {
        part["datasource"]["uid"]
        for panel in DASHBOARD["panels"]
        if panel["type"] != "row"
        for part in (panel, *panel["targets"])
    }
    assert used == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "expressnet.yaml").read_text())["providers"]
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in service("grafana")["volumes"])
    by_target = {target: ROOT / source for source, target in mounts.items()}
    assert by_target[provider["options"]["path"]] == GRAFANA / "dashboards"
    assert by_target["/etc/grafana/provisioning/datasources"] == provisioning / "datasources"
    assert by_target["/etc/grafana/provisioning/dashboards"] == provisioning / "dashboards"
    home = Path(service("grafana")["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (by_target[str(home.parent)] / home.name).is_file()


def test_broken_files_are_detected(tmp_path: Path) -> None:
    need("promtool")
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE_FILES[0].read_text().replace("read_only: true", "read_only: 7", 1))
    assert run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", broken).returncode == 1
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM debian\nRUN cd /tmp && apt-get install gcc\n")
    assert run(BIN / "hadolint", dockerfile).returncode == 1
    rules = shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    text = (rules / "rules.yml").read_text()
    (rules / "rules.yml").write_text(text.replace("ratio_rate5m > 0.05", "ratio_rate5m > 0.5"))
    assert run("promtool", "check", "config", rules / "prometheus.yml").returncode == 0
    assert run("promtool", "test", "rules", rules / "rules_test.yml").returncode == 1

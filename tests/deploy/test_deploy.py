"""The alerts and the dashboard: every expression in them is one that Prometheus takes, on metrics that there are."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=Path(sys.executable).parent)
GIVEN = {"up", "ALERTS"}
"""Series that Prometheus makes itself."""
OF_PROMETHEUS = {"job", "instance", "alertstate"}
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*"}

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: alerts are not tested")


def promtool(*words: str | Path, folder: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    command = [str(PROMTOOL), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def read(name: str) -> Any:
    return YAML(typ="safe").load(PROMETHEUS / name)


def rules() -> list[dict[str, Any]]:
    return [rule for group in read("alerts.yml")["groups"] for rule in group["rules"]]


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())


def drawn() -> Iterator[str]:
    """Yield the expressions of the dashboard, with its variables filled in."""
    page = dashboard()
    found = [target["expr"] for panel in page["panels"] for target in panel.get("targets", ())]
    found += [annotation["expr"] for annotation in page["annotations"]["list"]]
    for expression in found:
        yield re.sub(r"\$\w+", lambda variable: VARIABLES[variable[0]], expression)


def series(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each series that an expression reads, and the labels it asks of it."""
    for name, matchers in re.findall(r"\b((?:broker|process|python)_\w+|up|ALERTS)\b(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', matchers)))


def wrong(expression: str, scrape: Any) -> Iterator[str]:
    """Yield what an expression asks for that no scrape has."""
    for name, labels in series(expression):
        if name not in scrape.names | GIVEN:
            yield name
        else:
            yield from (f"{name}{{{label}}}" for label in labels - OF_PROMETHEUS - scrape.labels.get(name, set()))


def test_every_expression_asks_for_series_and_labels_that_a_broker_serves(scrape: Any) -> None:
    expressions = [*drawn(), *(rule["expr"] for rule in rules())]
    assert len(expressions) > 80
    assert [astray for expression in expressions for astray in wrong(expression, scrape)] == []


def test_an_expression_that_asks_for_what_is_not_there_is_found(scrape: Any) -> None:
    expression = 'rate(broker_turns_total{outcom="lost", job=~".*"}[5m]) / broker_turn_total + broker_turn_seconds'
    assert list(wrong(expression, scrape)) == ["broker_turns_total{outcom}", "broker_turn_total", "broker_turn_seconds"]


def test_the_dashboard_shows_every_metric_of_the_broker(scrape: Any) -> None:
    shown = {name for expression in drawn() for name, _ in series(expression)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scrape.names if name.startswith("broker_")}
    unseen = {name for name in families if not {name, f"{name}_bucket"} & shown}
    assert unseen == {"broker_connections_opened_total"}  # the handshakes that were accepted


def test_the_panels_of_the_dashboard_have_names_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] for panel in panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_each_alert_says_what_it_is_what_it_means_and_what_to_do() -> None:
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}
    assert f"{len(rules())} alerts" in (DEPLOY / "README.md").read_text()


def test_each_alert_has_its_case() -> None:
    names = [case["name"] for case in read("alerts.test.yml")["tests"]]
    assert [name for name in names if " " not in name] == [rule["alert"] for rule in rules()]


@needs_promtool
def test_prometheus_takes_the_example_and_the_alerts() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@needs_promtool
def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [{"record": f"a:{number}", "expr": expression} for number, expression in enumerate(drawn())]
    for file, entries in (("drawn.yml", recorded), ("broken.yml", [{"record": "a:b", "expr": "sum(rate(a))"}])):
        (tmp_path / file).write_text(json.dumps({"groups": [{"name": "dashboard", "rules": entries}]}))
    done = promtool("check", "rules", "drawn.yml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert promtool("check", "rules", "broken.yml", folder=tmp_path).returncode != 0


@needs_promtool
def test_each_alert_is_quiet_while_all_is_well_and_fires_when_it_is_not() -> None:
    done = promtool("test", "rules", "alerts.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("broker_store_up == 0", "broker_store_up == 2"), ("broker_store_up == 0", "broker_store_up >= 0")],
)
def test_an_alert_that_is_deaf_or_cries_wolf_is_found(right: str, wrong: str, tmp_path: Path) -> None:
    text = (PROMETHEUS / "alerts.yml").read_text()
    assert right in text
    (tmp_path / "alerts.yml").write_text(text.replace(right, wrong))
    cases = read("alerts.test.yml")
    cases["tests"] = [case for case in cases["tests"] if case["name"] == "StoreDown"]
    (tmp_path / "alerts.test.yml").write_text(json.dumps(cases))
    done = promtool("test", "rules", "alerts.test.yml", folder=tmp_path)
    assert done.returncode != 0
    assert "StoreDown" in done.stdout + done.stderr

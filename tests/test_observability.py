"""Dashboard, alerts and their README against the metrics that the code has. promtool's part is `make observability`."""

from __future__ import annotations

import itertools
import re
import shutil

import pytest
import yaml

from handler.event_types import MESSAGE_PUBLISHED, PING
from handler.telemetry.instruments import METRICS, Metric
from tests.observability import FOLDER, alerts, main, panels, queries

README = (FOLDER / "README.md").read_text()
# Labels that Prometheus itself gives: the resource's `service.name`, `service.instance.id`, a histogram's bucket.
_GIVEN = {"job", "instance", "le"}
_SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def in_prometheus(metric: Metric) -> str:
    """A metric's name as OTLP brings it to Prometheus: underscores, the unit, and `_total` for a counter."""
    name = metric.name.replace(".", "_")
    if metric.unit == "s":
        name += "_seconds"
    return f"{name}_total" if metric.kind == "counter" else name


SERIES = {
    in_prometheus(metric) + suffix: {label.replace(".", "_") for label in (*metric.always, *metric.sometimes)}
    for metric in METRICS
    for suffix in _SUFFIXES[metric.kind]
}
EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in alerts()] + list(queries())


def series_of(expression: str) -> set[str]:
    """The metrics that an expression names."""
    return set(re.findall(r"\b(?:autostop|http)_\w+(?=\s*\{|\s*\[|\s*\))", expression)) - labels_of(expression)


def labels_of(expression: str) -> set[str]:
    """The labels that an expression matches or groups by."""
    matchers = " ".join(re.findall(r"\{(.*?)\}", expression, re.DOTALL))
    matched = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", matchers))
    grouped = {name.strip() for inside in re.findall(r"\bby \((.*?)\)", expression) for name in inside.split(",")}
    return matched | grouped


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_every_expression_is_about_what_the_code_records(where: str, expression: str) -> None:
    """Each metric exists, and has each label."""
    named = series_of(expression)
    assert named, where
    assert named <= set(SERIES), where
    allowed = set.union(*(SERIES[name] for name in named)) | _GIVEN
    assert labels_of(expression) <= allowed, where


def test_every_metric_is_used() -> None:
    """By the dashboard or an alert; what is not shown need not be recorded."""
    used = {name for _, expression in EXPRESSIONS for name in series_of(expression)}
    for metric in METRICS:
        assert {in_prometheus(metric) + suffix for suffix in _SUFFIXES[metric.kind]} & used, metric.name


def test_the_values_that_expressions_match_are_values_of_the_code() -> None:
    """A misspelt outcome would match nothing, without an error."""
    text = " ".join(expression for _, expression in EXPRESSIONS)
    outcomes = {word for found in re.findall(r'event_outcome=~?"(.*?)"', text) for word in found.split("|")}
    assert outcomes <= {"completed", "failed", "refused", "planned", "unhandled", "ignored"}
    sources = "".join(path.read_text() for path in (FOLDER.parent.parent / "handler").rglob("*.py"))
    for label in ("event_reason", "error_type", "cloudevents_event_type", "server_reason"):
        for value in re.findall(rf'{label}!?="(.*?)"', text):
            assert f'"{value}"' in sources, value


def test_the_readme_has_the_metrics_of_the_code() -> None:
    """Name, name in Prometheus, kind, labels."""
    table = README.partition("<!-- metrics:")[2].partition("<!-- end of metrics -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "`" in line]

    def labels(metric: Metric) -> str:
        always = ", ".join(f"`{label}`" for label in metric.always)
        return always + (f" ({', '.join(f'`{label}`' for label in metric.sometimes)})" if metric.sometimes else "")

    assert rows == [[f"`{m.name}`", f"`{in_prometheus(m)}`", m.kind, labels(m)] for m in METRICS]


def test_each_alert_is_described_and_tested() -> None:
    """With a severity and two sentences; promtool's tests have each fire."""
    tested: dict[str, set[bool]] = {}
    for path in FOLDER.glob("*.test.yaml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            for expected in case["alert_rule_test"]:
                tested.setdefault(expected["alertname"], set()).add(bool(expected["exp_alerts"]))
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        # One of two series in one test may fire, and the other not.
        assert True in tested[rule["alert"]], rule["alert"]
    assert set(tested) == {rule["alert"] for rule in alerts()}


def test_the_dashboard_is_valid() -> None:
    """Panels have unique ids and do not overlap; one data source is to be chosen."""
    found = panels()
    assert len({panel["id"] for panel in found}) == len({panel["title"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        x, y, width, height = (panel["gridPos"][name] for name in "xywh")
        cells = set(itertools.product(range(x, x + width), range(y, y + height)))
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_settings_of_the_collector_are_consistent() -> None:
    """Each component is defined and used, and the port is that of the README."""
    settings = yaml.safe_load((FOLDER / "collector.yaml").read_text())
    assert set(settings["service"]["pipelines"]) == {"metrics", "traces"}
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in settings["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == set(settings[kind])
    endpoint = settings["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert f":{endpoint.rpartition(':')[2]}" in README


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)
def test_promtool_finds_nothing_wrong() -> None:
    """Rules, their tests and the dashboard's queries, by Prometheus itself."""
    assert main() == 0


def test_nightly_alert_is_tested_for_a_weekend_a_fresh_installation_and_a_missed_night() -> None:
    """For each type of schedule that it matches."""
    text = (FOLDER / "nightly.test.yaml").read_text()
    for situation in ("A weekend", "A missed night", "A fresh installation"):
        assert situation in text
    (expression,) = [rule["expr"] for rule in alerts() if rule["alert"] == "AutostopNoNightlyEvent"]
    (types,) = re.findall(r'cloudevents_event_type=~"(.*?)"', expression)
    for type_ in types.split("|"):
        assert type_ in {PING, MESSAGE_PUBLISHED}
        assert f'cloudevents_event_type="{type_}"' in text


def test_dead_letter_alert_can_fire_on_the_shipped_manifests() -> None:
    """The log service, where dead letters go, has the series that the alert looks for; test_event_log.py reads it."""
    (expression,) = [rule["expr"] for rule in alerts() if rule["alert"] == "AutostopDeadLetter"]
    log = (FOLDER.parent / "knative" / "base" / "event-log.yaml").read_text()
    for matcher in re.findall(r'\w+="[^"]*"', expression):
        assert matcher in log
    assert "prometheus.io/scrape" in log


def test_collector_names_its_least_version() -> None:
    """The exporter has this name since then."""
    text = (FOLDER / "collector.yaml").read_text()
    assert "otlp_http/" in text
    assert re.search(r"Collector 0\.144\.0 or newer", text)


def test_a_missing_promtool_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With what to install."""
    monkeypatch.setenv("PATH", "")
    assert main() == 2
    assert "apt-get install prometheus" in capsys.readouterr().err


def test_a_misspelt_metric_and_a_misspelt_label_are_found() -> None:
    """In a matcher as well as in a grouping."""
    for metric in ("autostop_events_totl", "http_server_request_duration_seconds"):
        assert series_of(f'sum by (job) (rate({metric}{{job="x"}}[5m]))') == {metric}
        assert metric not in SERIES
    found = labels_of('sum by (job, outcom) (increase(autostop_events_total{cloudevents_typ!~"a|b"}[5m]))')
    assert found == {"job", "outcom", "cloudevents_typ"}

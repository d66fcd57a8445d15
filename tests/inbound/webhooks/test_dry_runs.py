"""Dry runs that people ask for in messages of producers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.authentication import receiver, sample, send_body
from tests.inbound.webhooks.receiver import ONE, Receiver

Ask = Callable[[str, str], tuple[Receiver, Answer]]
DIMENSIONS = "detail.configuration.metrics.0.metricStat.metric.dimensions"


def _sent(path: str, document: Any, query: str = "") -> tuple[Receiver, Answer]:
    here = receiver(path)
    return here, send_body(here, path, document, query=query)


def _member(path: str, place: str) -> Ask:
    return lambda name, value: _sent(path, sample(path, **{f"{place}.{name}": value}))


def _entry(path: str, place: str, entry: Callable[[str, str], Any]) -> Ask:
    return lambda name, value: _sent(path, sample(path, **{place: entry(name, value)}))


# Where the name and the value are.
PLACES: dict[str, Ask] = {
    "variable": _entry(
        "/gitlab",
        "object_attributes.variables",
        lambda name, value: [{"key": "SERVER_ID", "value": ONE}, {"key": name, "value": value}],
    ),
    "label": _member("/grafana", "alerts.0.labels"),
    "annotation of another alert": _member("/alertmanager", "alerts.2.annotations"),
    "annotation of a resolved alert": _member("/alertmanager", "alerts.1.annotations"),
    "common label": _member("/alertmanager", "commonLabels"),
    "custom property": _member("/azure-monitor", "data.customProperties"),
    "property of the context": _entry(
        "/azure-monitor", "data.alertContext.properties", lambda name, value: {name: value}
    ),
    "constant input": lambda name, value: _sent("/eventbridge", {"server_ids": [ONE], "labels": {name: value}}),
    "dimension": _member("/eventbridge", DIMENSIONS),
    "trait": _entry("/aodh", "reason_data.event.traits.1", lambda name, value: [name, 1, value]),
    "query": lambda name, value: _sent("/alertmanager", sample("/alertmanager"), f"{name}={value}"),
}
EVERYWHERE = pytest.mark.parametrize("ask", PLACES.values(), ids=PLACES)


@EVERYWHERE
@pytest.mark.parametrize(
    ("name", "value"),
    [("dry_run", "true"), ("DRY_RUN", "True"), ("dry-run", " TRUE "), ("DryRun", "true"), ("ops/dry-run", "true")],
)
def test_a_dry_run_is_handed_on_as_one(ask: Ask, name: str, value: str) -> None:
    """In a label, annotation, property, dimension, variable, trait, or parameter of the URL."""
    here, answer = ask(name, value)
    assert answer.status == 200
    assert here.only().dry_run is True
    assert ONE in here.only().server_ids


@EVERYWHERE
@pytest.mark.parametrize(("name", "value"), [("dry_run", "yes"), ("dry_run", ""), ("dry-run", "1"), ("dry_run", "tru")])
def test_a_dry_run_that_is_not_understood_hands_nothing_on(ask: Ask, name: str, value: str) -> None:
    """Its author expects that nothing is stopped."""
    here, answer = ask(name, value)
    assert (answer.status, here.handed) == (400, [])


@EVERYWHERE
def test_false_is_no_dry_run(ask: Ask) -> None:
    """The name alone does not make it one."""
    here, answer = ask("dry_run", "false")
    assert answer.status == 200
    assert here.only().dry_run is False

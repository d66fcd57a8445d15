"""OpenTelemetry's own variables switch telemetry on; the function works also if it fails."""

from __future__ import annotations

import logging
import sys

import pytest

from handler.settings.common import wanted_signals
from handler.simulator import Simulator
from handler.telemetry import start
from handler.telemetry.providers import LazyProviders, _replace_log_output
from tests.conftest import StartFunction
from tests.support.capture import logged
from tests.telemetry.conftest import Observe

URL = "http://127.0.0.1:1"
BOTH = {"traces", "metrics"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, set()),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_RESOURCE_ATTRIBUTES": "a=b"}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, BOTH),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "  "}, set()),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, {"traces"}),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": URL}, {"metrics"}),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, {"traces"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_METRICS_EXPORTER": "None"}, {"traces"}),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": " True "}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "false"}, BOTH),
    ],
)
def test_the_standard_variables_select_the_signals(environ: dict[str, str], wanted: set[str]) -> None:
    """An endpoint or an exporter switches on, `none` and OTEL_SDK_DISABLED switch off."""
    assert wanted_signals(environ) == wanted


@pytest.mark.parametrize(
    ("environ", "detail"),
    [
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, "OTEL_METRICS_EXPORTER must be otlp or none."),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf; no traces are sent.",
        ),
    ],
)
def test_an_unknown_protocol_is_reported(environ: dict[str, str], detail: str) -> None:
    """Nothing is exported."""
    with logged() as lines:
        assert start(wanted_signals(environ), environ) is None
    assert [(line["level"], line["detail"]) for line in lines.of("telemetry is off")] == [("WARNING", detail)]


def test_the_protocol_of_a_signal_overrides_the_common_one(observe: Observe) -> None:
    """One signal is exported if only its own protocol is supported."""
    protocols = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf"}
    with observe(**protocols) as function:
        function.stop()
    assert function.collector.points
    assert function.spans == []


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.exporter.otlp.proto.http"])
def test_a_missing_package_is_logged(
    cloud: Simulator, start_function: StartFunction, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """A platform may set these variables for everything that it runs; servers are stopped."""

    class Missing:
        """An import path on which it is not installed."""

        def find_spec(self, name: str, *_: object) -> None:
            """Nothing of this package is found."""
            if name == missing or name.startswith(f"{missing}."):
                raise ModuleNotFoundError(name=name)

    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "handler.telemetry."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    server = cloud.add_server()
    with logged() as lines:
        function = start_function(cloud, OTEL_EXPORTER_OTLP_ENDPOINT=URL)
        assert function.stop(server).status_code == 200
    (line,) = lines.of("telemetry is off")
    assert line["detail"] == (
        "OpenTelemetry needs the extra `otel`: pip install '.[otel]' in a clone, or 'FILE.whl[otel]'."
    )
    assert cloud.server(server).vm_state == "stopped"


def test_a_variable_that_the_sdk_rejects_is_reported_without_its_value(observe: Observe) -> None:
    """Servers are stopped, and the other signal is exported."""
    with logged() as lines, observe(OTEL_METRIC_EXPORT_INTERVAL="-7") as function:
        assert function.stop().status == 200
    assert function.spans
    (line,) = lines.of("telemetry is off")
    detail = "No metrics: OpenTelemetry cannot be set up (ValueError); check its variables."
    assert (line["level"], line["detail"]) == ("ERROR", detail)


def test_an_unreachable_collector_is_reported_without_its_path(observe: Observe) -> None:
    """Once for each error, as a JSON line; events are handled."""
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=marked", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.1"}
    with logged() as lines, observe(url="http://127.0.0.1:1/marked-path", **environ) as function:
        for _ in range(3):
            assert function.stop().status == 200
    reported = lines.of("telemetry failed")
    assert reported
    assert len({line["detail"] for line in reported}) == len(reported)
    assert "marked" not in lines.text


def test_a_repeated_warning_is_logged_once() -> None:
    """A line for each span would fill the log."""
    _replace_log_output()
    _replace_log_output()
    theirs = logging.getLogger("opentelemetry.sdk.marked")
    with logged() as lines:
        for number in range(50):
            theirs.warning("Queue full at %s, test.", number)
        theirs.info("below the level")
    assert [line["detail"] for line in lines.all] == ["Queue full at %s, test."]


def test_a_warning_names_its_exception_and_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the path of its URL, and without the message of the exception."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.test:4318/marked")
    _replace_log_output()
    theirs = logging.getLogger("opentelemetry.sdk.marked")
    with logged() as lines:
        theirs.warning("Transient error %s while exporting.", ConnectionError("marked"))
        try:
            raise TimeoutError("marked")
        except TimeoutError:
            theirs.exception("Exception while exporting Span.")
    assert [(line["failure"], line["host"]) for line in lines.all] == [
        ("ConnectionError", "collector.test:4318"),
        ("TimeoutError", "collector.test:4318"),
    ]
    assert "marked" not in lines.text.replace("opentelemetry.sdk.marked", "")


@pytest.mark.parametrize(
    ("environ", "name", "instance"),
    [
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-7"}, "bms-autostop", "pod-7"),
        ({"OTEL_SERVICE_NAME": "stopper", "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-8"}, "stopper", "pod-8"),
    ],
)
def test_the_resource_has_a_name_and_an_instance(
    observe: Observe, environ: dict[str, str], name: str, instance: str
) -> None:
    """OpenTelemetry's variables override the defaults."""
    with observe(**environ) as function:
        function.stop()
    resource = function.collector.resources[0]
    assert (resource["service.name"], resource["service.instance.id"]) == (name, instance)
    assert resource["faas.name"] == "stop_servers"


def test_the_sdk_is_set_up_once_and_on_first_use() -> None:
    """Its threads would not survive a fork before that; it can be closed without having been used."""
    providers = LazyProviders(frozenset(), {})
    providers.close()
    assert providers() is providers()

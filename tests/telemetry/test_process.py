"""Telemetry in a real process: gunicorn loads the function, forks, and ends its worker on a signal."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import requests

from handler.simulator import Simulator
from tests.conftest import Function
from tests.support.raw_http import FunctionProcess
from tests.telemetry.collector import Collector


def test_everything_is_exported_before_the_worker_ends(cloud: Simulator, tmp_path: Path) -> None:
    """Nothing was exported until then; requests to any path are measured as well."""
    with Collector() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        with FunctionProcess(cloud, tmp_path, ended_by=signal.SIGTERM, environ=environ) as process:
            assert Function(process.url).stop(cloud.add_server()).status_code == 200
            requests.post(f"{process.url}/robots.txt", data=b"x" * 5000, timeout=10)
        names = [span.name for span in collector.spans]
        assert names.count("stop server") == 1
        statuses = {
            (point.attributes.get("http.route"), point.attributes["http.response.status_code"])
            for point in collector.of("http.server.request.duration")
        }
        assert {(None, 200), (None, 413), ("/healthz", 200)} <= statuses


def test_a_dead_collector_holds_up_nothing(cloud: Simulator, tmp_path: Path) -> None:
    """It takes connections and says nothing: events are answered, and the process ends soon after SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        # Leaving the block waits for the process to end, for 30 seconds at most.
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "1",
            "OTEL_METRIC_EXPORT_INTERVAL": "1",
        }
        with FunctionProcess(cloud, tmp_path, ended_by=signal.SIGTERM, environ=environ) as process:
            function = Function(process.url)
            for _ in range(5):
                assert function.stop(cloud.add_server()).status_code == 200

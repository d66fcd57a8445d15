"""What each function loads: its cold start pays for what is switched on, and for nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

import pytest

from handler.simulator import Simulator
from tests.conftest import ROOT
from tests.harness.bench.stage import clean_environ

_LOAD = """
import json, sys
import functions_framework, gunicorn.app.base, gunicorn.workers.gthread
before = set(sys.modules)
functions_framework.create_app(sys.argv[1], "handler/main.py")
print(json.dumps(sorted(set(sys.modules) - before)))
"""
_STOP = {
    "handler",
    "handler.cloud",
    "handler.cloud.connect",
    "handler.cloud.endpoint",
    "handler.cloud.error_mapping",
    "handler.cloud.api_client",
    "handler.cloud.auth.keystone",
    "handler.cloud.auth.login",
    "handler.cloud.dry_run",
    "handler.errors",
    "handler.inbound",
    "handler.inbound.http.responses",
    "handler.inbound.auth.caller",
    "handler.inbound.cloudevents.decode",
    "handler.inbound.endpoints.stop_servers",
    "handler.inbound.extract",
    "handler.inbound.http.wsgi",
    "handler.inbound.http.shutdown",
    "handler.inbound.cloudevents.strict_json",
    "handler.login_settings",
    "handler.outbound",
    "handler.outbound.logs",
    "handler.outbound.result",
    "handler.outbound.sink",
    "handler.rfc3339",
    "handler.services.stop_servers",
    "handler.settings",
    "handler.shared_settings",
    "handler.stop",
    "handler.stop.calls",
    "handler.stop.server_task",
    "handler.stop.executor",
    "handler.stop.decide",
    "handler.stop.evidence",
    "handler.stop.model",
    "handler.stop.pauses",
    "handler.stop.ports",
    "handler.stop.scheduler",
    "handler.stop.run",
    "handler.stop.failures",
    "handler.stop.steps",
    "handler.values",
    "handler.wire",
}


def loaded(target: str, environ: Mapping[str, str]) -> set[str]:
    """The modules that a target needs on top of the framework that serves it."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, target],
        cwd=ROOT,
        env={**clean_environ(), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def foreign(modules: set[str]) -> set[str]:
    """The packages among them that are neither ours nor Python's."""
    tops = {name.partition(".")[0] for name in modules}
    return {top for top in tops if top not in sys.stdlib_module_names and top not in ("handler", "_user_function")}


def test_stopping_servers_loads_this_and_no_more(cloud: Simulator) -> None:
    """Whoever adds to this list makes every cold start longer."""
    modules = loaded("stop_servers", {"AUTOSTOP_INBOUND_AUTH": "none", **cloud.environ()})
    assert {name for name in modules if name.partition(".")[0] == "handler"} == _STOP
    assert foreign(modules) == {"main", "urllib3"}


@pytest.mark.parametrize("target", ["stop_servers", "receive_webhook"])
@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({"OTEL_SERVICE_NAME": "stopper"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
    ],
)
def test_telemetry_that_is_off_is_not_loaded(
    cloud: Simulator, target: str, environ: dict[str, str], wanted: bool
) -> None:
    """Nothing of OpenTelemetry, and nothing of ours that knows it."""
    settings = {"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_EVENT_SINK": "http://127.0.0.1:1/", **cloud.environ()}
    modules = loaded(target, {**settings, **environ})
    assert ("opentelemetry" in foreign(modules)) is wanted
    assert ("handler.telemetry" in modules) is wanted


def test_a_proof_that_is_off_is_not_loaded(cloud: Simulator) -> None:
    """Only the settings of OIDC are there before its first token, and with bearer tokens not even they."""
    bearer = loaded(
        "stop_servers", {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": "t", **cloud.environ()}
    )
    assert not {name for name in bearer if "oidc" in name}
    assert not foreign(bearer) & {"jwt", "cryptography"}


@pytest.mark.parametrize("switch", [{}, {"AUTOSTOP_ALERTMANAGER_TOKEN": "t"}])
def test_a_webhook_that_is_off_is_not_loaded(switch: dict[str, str]) -> None:
    """Nor is anything that logs in to a cloud."""
    modules = loaded("receive_webhook", {"AUTOSTOP_EVENT_SINK": "http://127.0.0.1:1/", **switch})
    assert ("handler.inbound.webhooks.alertmanager" in modules) is bool(switch)
    unwanted = ("slack", "grafana", "teams", "smn", "aodh")
    assert not {name for name in modules if name.rpartition(".")[2] in unwanted}
    assert not {name for name in modules if name.startswith("handler.cloud")}
    assert not foreign(modules) & {"requests", "keystoneauth1", "jmespath", "cryptography", "jwt"}


def test_on_functiongraph_its_events_are_loaded_when_the_first_comes(cloud: Simulator) -> None:
    """And no other login; a topic as the sink costs its two files."""
    place = {"RUNTIME_PROJECT_ID": cloud.project_id, "OS_REGION_NAME": "eu-de", "AUTOSTOP_COMPUTE_URL": cloud.url}
    modules = loaded("stop_servers", {"AUTOSTOP_INBOUND_AUTH": "none", **place})
    assert {name for name in modules if name.partition(".")[0] == "handler"} == _STOP - {"handler.cloud.auth.keystone"}
    sink = {"AUTOSTOP_RESULT_SINK": f"smn:urn:smn:eu-de:{cloud.project_id}:results"}
    more = loaded("stop_servers", {"AUTOSTOP_INBOUND_AUTH": "none", **place, **sink})
    assert more - modules == {"handler.cloud.smn", "handler.outbound.smn_sink"}


def test_a_chat_is_not_loaded_before_it_is_posted_to() -> None:
    """Nor is anything that logs in to a cloud, or takes webhooks."""
    modules = loaded(
        "notify_chat", {"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_NOTIFY_SLACK_URL": "http://127.0.0.1:1/"}
    )
    chats = {name for name in modules if name.startswith("handler.outbound.chat.")}
    assert chats == {"handler.outbound.chat.post", "handler.outbound.chat.route"}
    assert not {name for name in modules if name.startswith(("handler.cloud", "handler.inbound.webhooks"))}
    assert foreign(modules) == {"main", "urllib3"}

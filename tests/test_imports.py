"""What each function loads: its cold start pays for what is switched on, and for nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from handler.event_types import STOP_APPROVED, STOP_COMPLETED, STOP_REFUSED, STOP_REQUESTED
from handler.simulator import Simulator
from tests.conftest import ROOT
from tests.harness.bench.stage import clean_environ

_LOAD = """
import sys
import functions_framework, gunicorn.app.base, gunicorn.workers.gthread
before = set(sys.modules)
functions_framework.create_app(sys.argv[1], "handler/main.py")
result = sorted(set(sys.modules) - before)
"""
_REQUESTS = {"requests", "urllib3", "certifi", "idna"}
# Loaded when an event needs an approval, or is one; never at the start, whether a key is configured or not.
_APPROVAL = ("handler.stop.approval", "handler.services.approvals", "handler.inbound.extract.approved")
# What a cold start of `stop_servers` must not pay for; a part is a package or a module below `handler`.
_NOT_FOR_STOP = (
    "handler.cli",
    "handler.demo",
    "handler.doctor",
    "handler.simulator",
    "handler.telemetry",
    "handler.inbound.webhooks",
    "handler.inbound.auth.oidc",
    "handler.outbound.chat",
    "handler.outbound.smn_sink",
    "handler.outbound.announcement",
    "handler.functiongraph",
    "handler.cloud.auth.aksk",
    "handler.cloud.auth.clouds_yaml",
    "handler.services.receive_webhook",
    "handler.services.notify_chat",
    "handler.services.keep_servers",
    "handler.cloud.metadata",
    "handler.settings.chat",
    "handler.keep",
    "handler.settings.durations",
    *_APPROVAL,
)
# Modules of ours that a cold start of `stop_servers` may load. A new one that every event needs may raise it.
_MOST_MODULES = 65


def run(script: str, *arguments: str, environ: Mapping[str, str]) -> Any:
    """Run a script in a process of its own, and return its `result`: by a file, since the log is written to stdout."""
    with tempfile.NamedTemporaryFile() as file:
        done = subprocess.run(
            [sys.executable, "-c", f"{script}\nimport json; json.dump(result, open({file.name!r}, 'w'))", *arguments],
            cwd=ROOT,
            env={**clean_environ(), "AUTOSTOP_INBOUND_AUTH": "none", **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.load(file)


def loaded(target: str, environ: Mapping[str, str]) -> set[str]:
    """The modules that a target needs on top of the framework that serves it."""
    return set(run(_LOAD, target, environ=environ))


def unwanted(modules: set[str], parts: Iterable[str]) -> list[str]:
    """The modules among them that are, or are below, one of these parts."""
    return sorted(name for name in modules if any(name == part or name.startswith(f"{part}.") for part in parts))


def foreign(modules: set[str]) -> set[str]:
    """The packages among them that are neither ours nor Python's."""
    tops = {name.partition(".")[0] for name in modules}
    return {top for top in tops if top not in sys.stdlib_module_names and top not in ("handler", "_user_function")}


def test_stopping_servers_loads_this_and_no_more(cloud: Simulator) -> None:
    """Each module more makes every cold start longer."""
    modules = loaded("stop_servers", cloud.environ())
    assert unwanted(modules, _NOT_FOR_STOP) == []
    assert len({name for name in modules if name.startswith("handler")}) <= _MOST_MODULES
    assert foreign(modules) == {"main", *_REQUESTS}


def test_garbage_is_collected_again_once_it_is_loaded(cloud: Simulator) -> None:
    """Only the modules themselves are left out."""
    script = "import gc, functions_framework as f; f.create_app('stop_servers', 'handler/main.py')"
    assert run(f"{script}; result = gc.isenabled()", environ=cloud.environ()) is True


def test_announcements_cost_one_module(cloud: Simulator) -> None:
    """Where they are switched on."""
    environ = {"AUTOSTOP_RESULT_SINK": "http://127.0.0.1:1/", **cloud.environ()}
    more = loaded("stop_servers", {**environ, "AUTOSTOP_ANNOUNCE": "required"}) - loaded("stop_servers", environ)
    assert {name for name in more if name.startswith("handler")} == {"handler.outbound.announcement"}


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
    """Nothing of OpenTelemetry, and none of our modules that import it."""
    settings = {"AUTOSTOP_EVENT_SINK": "http://127.0.0.1:1/", **cloud.environ()}
    modules = loaded(target, {**settings, **environ})
    assert ("opentelemetry" in foreign(modules)) is wanted
    assert ("handler.telemetry" in modules) is wanted


_SEND = """
import json, sys
import functions_framework
client = functions_framework.create_app("stop_servers", "handler/main.py").test_client()
result = []
for number, (type_, data) in enumerate(json.loads(sys.argv[1])):
    headers = {"ce-specversion": "1.0", "ce-id": str(number), "ce-source": "/tests", "ce-type": type_}
    answer = client.post("/", json=data, headers=headers)
    result.append([answer.headers.get("ce-type"), sorted(sys.modules)])
"""


@pytest.mark.parametrize("settings", [{}, {"AUTOSTOP_APPROVAL_KEYS": "k" * 32, "AUTOSTOP_APPROVAL": "above:1"}])
def test_approvals_are_loaded_by_the_first_event_that_needs_them(cloud: Simulator, settings: dict[str, str]) -> None:
    """A stop that needs no approval is handled without them, also where a key is configured."""
    ids = [cloud.add_server(), cloud.add_server()]
    sent = [(STOP_REQUESTED, {"server_ids": ids[:1]}), (STOP_APPROVED, {"plan": "AAAA", "approved_by": "slack:T1/U1"})]
    environ = {**cloud.environ(), **settings}
    (stopped, plain), (refused, approval) = run(_SEND, json.dumps(sent), environ=environ)
    assert (stopped, refused) == (STOP_COMPLETED, STOP_REFUSED)
    assert unwanted(set(plain), _APPROVAL) == []
    assert unwanted(set(approval), _APPROVAL) == sorted(_APPROVAL)


def test_authentication_that_is_off_is_not_loaded(cloud: Simulator) -> None:
    """Only the settings of OIDC are there before its first token, and with bearer tokens not even they."""
    bearer = loaded(
        "stop_servers",
        {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": "token-of-this-test", **cloud.environ()},
    )
    assert not {name for name in bearer if "oidc" in name}
    assert not foreign(bearer) & {"jwt", "cryptography"}


@pytest.mark.parametrize("switch", [{}, {"AUTOSTOP_ALERTMANAGER_TOKEN": "token-of-this-test"}])
def test_a_webhook_that_is_off_is_not_loaded(switch: dict[str, str]) -> None:
    """Nor is anything that logs in to a cloud."""
    modules = loaded("receive_webhook", {"AUTOSTOP_EVENT_SINK": "http://127.0.0.1:1/", **switch})
    assert ("handler.inbound.webhooks.alertmanager" in modules) is bool(switch)
    off = ("slack", "grafana", "teams", "smn", "aodh")
    assert not {name for name in modules if name.rpartition(".")[2] in off}
    assert not {name for name in modules if name.startswith("handler.cloud")}
    assert not foreign(modules) & {"keystoneauth1", "jmespath", "cryptography", "jwt"}


def test_on_functiongraph_only_what_it_needs_is_loaded_on_top(cloud: Simulator) -> None:
    """No other login; its triggers share fields with the webhooks. A topic as the sink costs its two modules."""
    place = {"RUNTIME_PROJECT_ID": cloud.project_id, "OS_REGION_NAME": "eu-de", "AUTOSTOP_COMPUTE_URL": cloud.url}
    modules = loaded("stop_servers", {**place})
    needed = {"handler.functiongraph", "handler.inbound.webhooks"}
    assert unwanted(modules, ({*_NOT_FOR_STOP} - needed) | {"handler.cloud.auth.keystone"}) == []
    sink = {"AUTOSTOP_RESULT_SINK": f"smn:urn:smn:eu-de:{cloud.project_id}:results"}
    more = loaded("stop_servers", {**place, **sink})
    assert more - modules == {"handler.cloud.smn", "handler.outbound.smn_sink"}


def test_a_chat_is_not_loaded_before_it_is_posted_to() -> None:
    """Nor is anything that logs in to a cloud, or takes webhooks."""
    modules = loaded("notify_chat", {"AUTOSTOP_NOTIFY_SLACK_URL": "http://127.0.0.1:1/"})
    chats = {name for name in modules if name.startswith("handler.outbound.chat.")}
    assert chats == {"handler.outbound.chat.post", "handler.outbound.chat.route"}
    assert not {name for name in modules if name.startswith(("handler.cloud", "handler.inbound.webhooks"))}
    assert foreign(modules) == {"main", *_REQUESTS}


def test_requests_is_complete_without_what_is_left_out() -> None:
    """No warning, text is UTF-8, and charset_normalizer can still be imported."""
    script = """
import warnings
warnings.simplefilter("error")
import handler.http_client, sys, requests
left_out = {"chardet", "charset_normalizer"}.isdisjoint(sys.modules)
response = requests.Response()
response._content = b"gr\\xc3\\xbcn"
import charset_normalizer
result = [left_out, response.text]
"""
    assert run(script, environ={}) == [True, "gr\u00fcn"]

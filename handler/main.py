"""The functions-framework targets: wiring only. Only the target that is served is set up and imported."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import flask

from handler.inbound.http import wsgi
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.outbound import logs
from handler.settings.common import wanted_signals
from handler.settings.env import SettingsError

if TYPE_CHECKING:
    from handler.telemetry import Telemetry

_PROBES = ("/healthz", "/readyz")


class Wiring(NamedTuple):
    """A target that is set up.

    Attributes:
        answer: answers one request; never raises.
        max_body: bytes of the largest request body.
        deadline: longest time for an event, which SIGTERM does not cut off; zero for the default.
        telemetry: None if it is off.
        routes: paths that become labels of metrics.
    """

    answer: Callable[[HttpRequest], Answer]
    max_body: int
    deadline: timedelta
    telemetry: Telemetry | None
    routes: tuple[str, ...] = _PROBES


def _start_telemetry(log_level: str, types: Iterable[str] = ()) -> Telemetry | None:
    logs.configure(log_level)
    signals = wanted_signals(os.environ)
    if not signals:
        return None
    from handler.telemetry import start

    return start(signals, os.environ, types)


def _stop_servers() -> Wiring:
    from handler.services.stop_servers import Service, SharedResources
    from handler.settings.stop_servers import from_environ

    settings = from_environ(os.environ)
    telemetry = _start_telemetry(settings.log_level, settings.event_types)
    shared = SharedResources(settings, telemetry=telemetry)
    shared.log_started()
    if os.environ.get("RUNTIME_PROJECT_ID"):
        from handler.functiongraph.container import Container

        answer = Container(shared).answer
    else:
        answer = Service(settings, shared).endpoint().answer
    return Wiring(answer, settings.max_body, settings.deadline, telemetry)


def _receive_webhook() -> Wiring:
    from handler.http_client import host_of
    from handler.inbound.webhooks.registry import SWITCHES
    from handler.services.receive_webhook import WebhookService
    from handler.settings.receive_webhook import from_environ

    settings = from_environ(os.environ)
    telemetry = _start_telemetry(settings.log_level)
    answer = WebhookService(settings, telemetry).endpoint().answer
    logs.log_started("receive_webhook", dry_run=settings.dry_run, sink=host_of(settings.sink.url))
    return Wiring(answer, settings.max_body, timedelta(0), telemetry, (*_PROBES, *SWITCHES))


def _notify_chat() -> Wiring:
    from handler.services.notify_chat import NotifyService
    from handler.settings.notify_chat import from_environ

    settings = from_environ(os.environ)
    telemetry = _start_telemetry(settings.log_level)
    logs.log_started("notify_chat", inbound_auth=settings.callers.inbound_auth.value)
    return Wiring(NotifyService(settings).endpoint().answer, settings.max_body, timedelta(0), telemetry)


def _keep_servers() -> Wiring:
    from handler.services.keep_servers import KeepService
    from handler.settings.keep_servers import from_environ

    settings = from_environ(os.environ)
    telemetry = _start_telemetry(settings.log_level)
    service = KeepService(settings, telemetry=telemetry)
    service.log_started()
    if os.environ.get("RUNTIME_PROJECT_ID"):
        from handler.functiongraph.keep import KeepContainer

        answer = KeepContainer(service, settings).answer
    else:
        answer = service.endpoint().answer
    return Wiring(answer, settings.max_body, settings.deadline, telemetry)


_TARGETS: Mapping[str, Callable[[], Wiring]] = {
    "stop_servers": _stop_servers,
    "receive_webhook": _receive_webhook,
    "notify_chat": _notify_chat,
    "keep_servers": _keep_servers,
}

# Modules are not garbage: looking through them again and again is a quarter of the time that they take to load.
gc.disable()
try:
    # functions-framework sets FUNCTION_TARGET before it loads this file, also if the target was an argument.
    _WIRING = _TARGETS.get(os.environ.get("FUNCTION_TARGET") or "stop_servers", _stop_servers)()
except SettingsError as error:
    sys.exit("bms-autostop does not start:\n" + "\n".join(f"  {line}" for line in error.violations))
finally:
    gc.enable()
gc.freeze()

if flask.has_app_context():
    wsgi.install(flask.current_app, _WIRING.max_body, _WIRING.deadline, logs.write_in_background())
    if _WIRING.telemetry is not None:
        _WIRING.telemetry.install(flask.current_app, _WIRING.routes)


def _serve(request: flask.Request) -> flask.Response:
    answer = _WIRING.answer(wsgi.request_of(request.environ))
    return flask.Response(answer.body, answer.status, dict(answer.headers))


# functions-framework takes the function that has the target's name.
stop_servers = receive_webhook = notify_chat = keep_servers = _serve

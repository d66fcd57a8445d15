"""The functions-framework targets: wiring, no logic. Only the one that is served is wired, and loads what it needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import flask

from handler.inbound.http import shutdown, wsgi
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.outbound import logs
from handler.settings.common import wanted_signals
from handler.settings.env import SettingsError

if TYPE_CHECKING:
    from handler.telemetry import Telemetry

# functions-framework sets it before it loads this file, whichever way the target was given.
_TARGET = os.environ.get("FUNCTION_TARGET") or "stop_servers"


def _telemetry() -> Telemetry | None:
    signals = wanted_signals(os.environ)
    if not signals:
        return None
    from handler.telemetry.start import start

    return start(signals, os.environ)


_ROUTES = ["/healthz", "/readyz"]

try:
    if _TARGET == "receive_webhook":
        from handler.inbound.webhooks.registry import SWITCHES
        from handler.services.receive_webhook import WebhookService
        from handler.settings import receive_webhook as webhook_settings

        _WEBHOOKS = webhook_settings.from_environ(os.environ)
        logs.configure(_WEBHOOKS.log_level)
        _TELEMETRY = _telemetry()
        _MAX_BODY, _ANSWER = _WEBHOOKS.max_body, WebhookService(_WEBHOOKS, _TELEMETRY).endpoint().answer
        _ROUTES += SWITCHES
    elif _TARGET == "notify_chat":
        from handler.services.notify_chat import NotifyService
        from handler.settings import notify_chat as notify_settings

        _NOTICES = notify_settings.from_environ(os.environ)
        logs.configure(_NOTICES.log_level)
        _TELEMETRY = _telemetry()
        _MAX_BODY, _ANSWER = _NOTICES.max_body, NotifyService(_NOTICES).endpoint().answer
    else:
        from handler.services.stop_servers import Service
        from handler.settings import stop_servers as stop_settings
        from handler.settings.login import LoginKind

        _SETTINGS = stop_settings.from_environ(os.environ)
        logs.configure(_SETTINGS.log_level)
        _TELEMETRY = _telemetry()
        _SERVICE = Service(_SETTINGS, telemetry=_TELEMETRY)
        _MAX_BODY, _ANSWER = _SETTINGS.max_body, _SERVICE.endpoint().answer
except SettingsError as error:
    sys.exit("bms-autostop does not start:\n" + "\n".join(f"  {line}" for line in error.violations))

if flask.has_app_context():
    wsgi.install(flask.current_app, _MAX_BODY)
    if _TELEMETRY is not None:
        _TELEMETRY.install(flask.current_app, _ROUTES)


def _served(request: flask.Request, answering: Callable[[HttpRequest], Answer] = _ANSWER) -> flask.Response:
    answer = answering(wsgi.request_of(request.environ))
    return flask.Response(answer.body, answer.status, dict(answer.headers))


if _TARGET == "receive_webhook":

    def receive_webhook(request: flask.Request) -> flask.Response:
        """Turn what a producer without CloudEvents sent into a stop request, and hand it on."""
        return _served(request)

elif _TARGET == "notify_chat":

    def notify_chat(request: flask.Request) -> flask.Response:
        """Tell a chat what came of a stop request."""
        return _served(request)

else:
    shutdown.give_time(_SETTINGS.deadline)

    def stop_servers(request: flask.Request) -> flask.Response:
        """Stop the servers that a CloudEvent names, and answer with the result event."""
        path = wsgi.request_of(request.environ).path
        if path in ("/invoke", "/init") or _SETTINGS.login.kind is LoginKind.FUNCTIONGRAPH:
            from handler.functiongraph.container import Container

            return _served(request, Container(_SERVICE).answer)
        return _served(request)

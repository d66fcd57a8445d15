"""The functions-framework targets: wiring, no logic."""

from __future__ import annotations

import os
import sys

import flask

from handler import settings
from handler.inbound import front
from handler.outbound import logs
from handler.service import Service

try:
    _SETTINGS = settings.from_environ(os.environ)
except settings.SettingsError as fault:
    sys.exit("bms-autostop does not start:\n" + "\n".join(f"  {line}" for line in fault.faults))

logs.configure(_SETTINGS.log_level)
_DOOR = Service(_SETTINGS).door()
if flask.has_app_context():
    front.install(flask.current_app, _SETTINGS.max_body)


def stop_servers(request: flask.Request) -> flask.Response:
    """Stop the servers that a CloudEvent names, and answer with the result event."""
    answer = _DOOR.answer(front.request_of(request.environ))
    return flask.Response(answer.body, answer.status, dict(answer.headers))

"""FunctionGraph as a function sees it: the context that is handed to each call, and events of the triggers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from handler.simulator import AccessKey, Simulator

ONE = "95bf2490-5428-432c-ad9b-5e3406f869dd"
TWO = "5c9fd0d6-2f3b-4c8e-9a51-7be0a4b5c1f2"
TOPIC = "urn:smn:eu-de:0a1b2c3d4e5f40718293a4b5c6d7e8f9:bms-alarms"
AT = "2026-11-20T19:00:00+01:00"
NOW = datetime(2026, 11, 20, 18, 0, 5, tzinfo=UTC)


class StandIn:
    """The context with the methods that the function calls, and two that it must not; without an agency keys are empty.

    Args:
        cloud: what the agency opens; None for a function without an agency.
        key: temporary keys in place of a token.
        remaining: milliseconds.
    """

    def __init__(
        self,
        userdata: Mapping[str, str],
        *,
        cloud: Simulator | None = None,
        key: AccessKey | None = None,
        project_id: str = "0a1b2c3d4e5f40718293a4b5c6d7e8f9",
        remaining: int = 60000,
        name: str = "bms-stop",
    ) -> None:
        self.userdata = userdata
        self.token = cloud.token() if cloud is not None and key is None else ""
        self.key = key
        self.project_id = cloud.project_id if cloud is not None else project_id
        self.remaining = remaining
        self.name = name

    def getToken(self) -> str:
        return self.token

    def getSecurityAccessKey(self) -> str:
        return self.key.access if self.key else ""

    def getSecuritySecretKey(self) -> str:
        return self.key.secret if self.key else ""

    def getSecurityToken(self) -> str:
        return self.key.security_token or "" if self.key else ""

    def getAccessKey(self) -> str:
        raise AssertionError("no longer maintained, and not to be used")

    getSecretKey = getAccessKey

    def getFunctionName(self) -> str:
        return self.name

    def getProjectID(self) -> str:
        return self.project_id

    def getRemainingTimeInMilliSeconds(self) -> int:
        return self.remaining

    def getUserData(self, key: str) -> str | None:
        return self.userdata.get(key)

    def getLogger(self) -> None:
        raise AssertionError("the function writes its log itself")


def tick(user_event: object = None, **changes: object) -> dict[str, Any]:
    """What a timer sends; what is not text goes as JSON text."""
    shown = user_event if isinstance(user_event, str | None) else json.dumps(user_event)
    event = {"version": "v1.0", "time": AT, "trigger_type": "TIMER", "trigger_name": "nightly", "user_event": shown}
    return {**event, **changes}


def record(message: object, /, **changes: object) -> dict[str, Any]:
    """One record of an SMN trigger; what is not text goes as JSON text."""
    smn = {
        "topic_urn": TOPIC,
        "timestamp": "2026-11-20T18:00:00Z",
        "message_attributes": None,
        "message": message if isinstance(message, str) else json.dumps(message),
        "type": "notification",
        "message_id": "bf94b63a5dfb475994d3ac34664e24f2",
        "subject": "a subject",
    }
    urn = "urn:fss:eu-de:0a1b2c3d4e5f40718293a4b5c6d7e8f9:function:default:bms-stop:latest"
    return {"event_version": "1.0", "event_subscription_urn": urn, "event_source": "smn", "smn": {**smn, **changes}}


def notifications(*records: object) -> dict[str, Any]:
    """What an SMN trigger sends."""
    return {
        "record": list(records),
        "functionname": "bms-stop",
        "requestId": "7c307f6a-cf68-4e65-8be0-4c77405a1b2c",
        "timestamp": "Fri Nov 20 2026 19:00:00 GMT+0100 (CET)",
    }


def alarm(server: str = ONE, **changes: object) -> dict[str, Any]:
    """An alarm of Cloud Eye."""
    document = {
        "message_type": "alarm",
        "alarm_id": "al1795190000000Xy9Zk2Qw3",
        "alarm_name": "bms-idle",
        "alarm_status": "alarm",
        "namespace": "SERVICE.BMS",
        "metric_name": "cpu_usage",
        "dimension": f"instance_id:{server}",
        "template_variable": {"ResourceId": server, "IsAlarm": True},
    }
    return {**document, **changes}


def trace(name: str = "startBareMetalServers", **changes: object) -> dict[str, Any]:
    """What a CTS trigger sends; a change given as None is left out."""
    cts = {
        "time": 1795197600000,
        "user": {"name": "ops-user", "id": "0f5fc1a3e8b94d1d9b3cbd1f7ad9f6a1"},
        "request": json.dumps({"os-start": {"servers": [{"id": TWO}]}}),
        "response": json.dumps({"job_id": "70a599e031e749b7b260868f441e862b"}),
        "code": 200,
        "service_type": "BMS",
        "resource_type": "bms",
        "resource_name": "bms-db-01",
        "resource_id": ONE,
        "trace_name": name,
        "trace_type": "ApiCall",
        "record_time": 1795197600900,
        "trace_id": "69be64a7-0233-11e8-82e4-e5d37911193e",
        "trace_status": "normal",
    }
    return {"cts": {key: value for key, value in {**cts, **changes}.items() if value is not None}}


def requested(server: str = ONE) -> dict[str, Any]:
    """A CloudEvent as it is sent without a trigger."""
    return {
        "specversion": "1.0",
        "id": "1",
        "source": "/ops",
        "type": "io.github.bms-autostop.stop.requested.v1",
        "data": {"server_ids": [server]},
    }


def passage(
    body: bytes | str | object = b"",
    headers: Mapping[str, object] | None = None,
    /,
    *,
    encoded: bool = True,
    **changes: object,
) -> dict[str, Any]:
    """What a gateway trigger sends; a body that is neither bytes nor text goes as JSON."""
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    event: dict[str, object] = {
        "body": base64.b64encode(raw).decode() if encoded else raw.decode(),
        "requestContext": {
            "apiId": "bc1dcffd-aa35-474d-897c-d53425a4c08e",
            "requestId": "11cdcdcf33949dc6d722640a13091c77",
            "stage": "RELEASE",
        },
        "queryStringParameters": {},
        "httpMethod": "POST",
        "pathParameters": {},
        "headers": {"content-type": "application/json", "x-real-ip": "203.0.113.7", **(headers or {})},
        "path": "/bms/stop",
        "isBase64Encoded": encoded,
    }
    return {**event, **changes}

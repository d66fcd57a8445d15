"""GitLab: a pipeline that succeeded is the clock, and its variable names the servers."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import timedelta
from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.scene import JSON, NOW, ONE, THREE, TWO, Scene, fresh_secret, json_of, mac, refused

TOKEN = fresh_secret()
KEY = secrets.token_bytes(32)
SIGNING = f"whsec_{base64.b64encode(KEY).decode()}"
ENDED = NOW - timedelta(seconds=2)
ID = "0b9ee6a1-7ba3-4f8e-bd0e-5a8f4bd0a001"


def hook(variables: Any = None, *, kind: str = "pipeline", **attributes: Any) -> dict[str, Any]:
    """A pipeline that has run."""
    return {
        "object_kind": kind,
        "object_attributes": {
            "id": 31,
            "status": "success",
            "source": "schedule",
            "finished_at": "2026-11-20 18:00:03 UTC",
            "variables": [{"key": "SERVER_IDS", "value": f"{ONE},{TWO}"}] if variables is None else variables,
            **attributes,
        },
        "user": {"id": 7, "username": "night"},
        "project": {"id": 1, "path_with_namespace": "ops/night"},
        "commit": {"id": THREE, "title": f"stop {THREE}"},
    }


def by_token(**environ: Any) -> Scene:
    """GitLab authenticates itself by its token."""
    return Scene(**{"AUTOSTOP_GITLAB_TOKEN": TOKEN, **environ})


def by_signature(**environ: Any) -> Scene:
    """GitLab authenticates itself by its signature."""
    return Scene(**{"AUTOSTOP_GITLAB_SIGNING_TOKEN": SIGNING, **environ})


def send(here: Scene, body: Any) -> Answer:
    """A delivery with the right token."""
    return here.post("/gitlab", body, {**JSON, "x-gitlab-token": TOKEN})


def signed(body: bytes, *, id_: str = ID, at: int = int(NOW.timestamp()) - 5) -> dict[str, str]:
    """The headers of a signed delivery."""
    made = base64.b64encode(mac(KEY, f"{id_}.{at}.".encode() + body)).decode()
    return {"webhook-id": id_, "webhook-timestamp": str(at), "webhook-signature": f"v1,{made}"}


def test_a_pipeline_that_succeeded_names_its_servers() -> None:
    """And no other id of the message is one; its time is when the pipeline ended."""
    here = by_token()
    answer = send(here, hook())
    request = here.only()
    assert (answer.status, json_of(answer)) == (200, {"status": "handed-on", "id": request.id})
    assert (request.server_ids, request.time, request.source) == ((ONE, TWO), ENDED, "/bms-autostop/gitlab")
    assert (request.reason, request.requested_by) == ("GitLab pipeline 31 of ops/night", "GitLab: night")


def test_the_least_that_a_pipeline_says_is_enough() -> None:
    """Without user, project and time of its end."""
    here = by_token()
    least = {"object_kind": "pipeline", "object_attributes": {"id": 31, "status": "success"}}
    least["object_attributes"]["variables"] = [{"key": "server_id", "value": ONE}]  # type: ignore[index]
    assert send(here, least).status == 200
    request = here.only()
    assert (request.reason, request.requested_by) == ("GitLab pipeline 31", "GitLab")


@pytest.mark.parametrize("key", ["SERVER_ID", "SERVER_IDS", "server_ids", "Server_Id"])
def test_case_and_number_of_the_variable_do_not_count(key: str) -> None:
    """As they are usually written in GitLab."""
    here = by_token()
    send(here, hook([{"key": "OTHER", "value": THREE}, "odd", {"key": key, "value": ONE}]))
    assert here.only().server_ids == (ONE,)


def test_the_name_of_the_variable_is_a_setting() -> None:
    """As for labels."""
    here = by_token(AUTOSTOP_ID_LABEL="bms")
    send(here, hook([{"key": "BMS", "value": TWO}, {"key": "SERVER_ID", "value": ONE}]))
    assert here.only().server_ids == (TWO,)


def test_one_bad_id_refuses_all() -> None:
    """The servers of one id alone are not what its author meant."""
    here = by_token()
    problem = refused(send(here, hook([{"key": "SERVER_IDS", "value": f"{ONE},db-1"}])), 400)
    assert problem["faults"] == [{"at": "object_attributes.variables[0].value", "fault": "must be a UUID"}]
    assert here.handed == []


@pytest.mark.parametrize("id_", [None, "31", {}])
def test_a_pipeline_without_a_number_is_400(id_: Any) -> None:
    """Its redelivery could not be recognized."""
    problem = refused(send(by_token(), hook(id=id_)), 400)
    assert problem["faults"] == [{"at": "object_attributes.id", "fault": "must be a number"}]


@pytest.mark.parametrize(
    "status", ["created", "pending", "running", "failed", "canceled", "skipped", "manual", None, 1]
)
def test_no_other_state_acts(status: Any) -> None:
    """GitLab sends each."""
    here = by_token()
    assert send(here, hook(status=status)).status == 204
    assert here.handed == []


@pytest.mark.parametrize(
    "body", [hook(kind="build"), hook(kind="push"), hook([]), hook("odd"), hook([{"key": "X", "value": ONE}]), {}]
)
def test_what_names_no_server_is_nothing(body: Any) -> None:
    """Other messages, and pipelines that are about something else."""
    here = by_token()
    assert send(here, body).status == 204
    assert here.handed == []


def test_a_redelivery_is_recognisable_and_another_run_is_not_it() -> None:
    """A pipeline that was started again ends at another time."""
    here = by_token()
    for body in (hook(), hook(), hook(id=32), hook(finished_at="2026-11-20 19:00:03 UTC")):
        send(here, body)
    first, again, *others = (request.id for request in here.handed)
    assert first == again
    assert len({first, *others}) == 3


def test_a_signed_time_is_the_events_time() -> None:
    """And the plain token is not required."""
    here, body = by_signature(), json.dumps(hook()).encode()
    assert here.post("/gitlab", body, signed(body)).status == 200
    assert here.only().time == NOW - timedelta(seconds=5)


@pytest.mark.parametrize(
    ("finished_at", "earlier"),
    [
        ("2026-10-20 18:00:05 UTC", timedelta(days=31)),
        ("2026-11-20 20:00:02 +0200", timedelta(seconds=3)),
        ("2026-11-20T18:00:01.500Z", timedelta(seconds=3.5)),
        ("2026-11-20 18:00:06 UTC", timedelta()),
        ("2026-11-31 18:00:01 UTC", timedelta()),
        ("yesterday", timedelta()),
        (None, timedelta()),
        (1795197600, timedelta()),
    ],
)
def test_a_message_that_comes_late_is_as_old_as_its_pipeline(finished_at: Any, earlier: timedelta) -> None:
    """A user may send a delivery of last month again; what cannot be read, or is yet to come, is the receipt."""
    here = by_token()
    assert send(here, hook(finished_at=finished_at)).status == 200
    assert here.only().time == NOW - earlier


def test_one_right_signature_of_several_is_enough() -> None:
    """While keys are changed there is one for each."""
    here, body = by_signature(), json.dumps(hook()).encode()
    headers = signed(body)
    headers["webhook-signature"] = f"v1,{base64.b64encode(b'x' * 32).decode()} {headers['webhook-signature']} v2,x"
    assert here.post("/gitlab", body, headers).status == 200


def test_both_set_both_are_needed() -> None:
    """The token without the signature, or the other way round, is not enough."""
    here, body = by_token(AUTOSTOP_GITLAB_SIGNING_TOKEN=SIGNING), json.dumps(hook()).encode()
    refused(here.post("/gitlab", body, {"x-gitlab-token": TOKEN}), 401)
    refused(here.post("/gitlab", body, signed(body)), 401)
    assert here.post("/gitlab", body, {"x-gitlab-token": TOKEN, **signed(body)}).status == 200

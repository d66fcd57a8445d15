"""GitLab: the variable that names the servers, the states of a pipeline, and when it ended."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest

from tests.inbound.webhooks.authentication import BY_SIGNATURE, KEY, SENT, encoded, receiver, sample, send, send_body
from tests.inbound.webhooks.receiver import JSON, NOW, ONE, THREE, TWO, Receiver, refused

PATH = "/gitlab"
VARIABLES, ENDED = "object_attributes.variables", "object_attributes.finished_at"


def test_a_pipeline_needs_an_id_a_state_and_a_variable_only(here: Receiver) -> None:
    """Without user, project and time of its end."""
    variables = [{"key": "server_id", "value": ONE}]
    least = {"object_kind": "pipeline", "object_attributes": {"id": 31, "status": "success", "variables": variables}}
    assert send_body(here, PATH, least).status == 200
    assert (here.only().reason, here.only().requested_by) == ("GitLab pipeline 31", "GitLab")


@pytest.mark.parametrize(
    ("key", "setting"),
    [("SERVER_ID", "server_id"), ("SERVER_IDS", "server_id"), ("Server_Id", "server_id"), ("BMS", "bms")],
)
def test_case_and_number_of_the_variable_do_not_count(key: str, setting: str) -> None:
    """Its name is a setting."""
    here = receiver(PATH, AUTOSTOP_ID_LABEL=setting)
    send(here, PATH, **{VARIABLES: [{"key": "OTHER", "value": THREE}, "odd", {"key": key, "value": ONE}]})
    assert here.only().server_ids == (ONE,)


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        (f'["{ONE}", "{TWO}"]', (ONE, TWO)),
        (f' [ "{ONE}" ]\n', (ONE,)),
        (f"{ONE},{TWO}", (ONE, TWO)),
        (f"{ONE},db-1", None),
        ("[]", None),
        (f'["{ONE}", "bms-07"]', None),
        (f'["{ONE}", 5]', None),
        (f"[{ONE}]", None),
        (f'{{"server_ids": ["{ONE}"]}}', None),
    ],
)
def test_a_variable_has_ids_or_an_array_of_them(here: Receiver, value: str, ids: tuple[str, ...] | None) -> None:
    """One that is malformed refuses all."""
    answer = send(here, PATH, **{VARIABLES: [{"key": "SERVER_IDS", "value": value}]})
    if ids is None:
        fault = {"at": "object_attributes.variables[0].value", "message": "must be a UUID"}
        assert refused(answer, 400)["violations"] == [fault]
    assert [request.server_ids for request in here.handed] == ([] if ids is None else [ids])


@pytest.mark.parametrize("id_", [None, "31", {}])
def test_a_pipeline_without_a_number_is_400(id_: Any) -> None:
    """Its redelivery could not be recognized."""
    problem = refused(send(receiver(PATH), PATH, **{"object_attributes.id": id_}), 400)
    assert problem["violations"] == [{"at": "object_attributes.id", "message": "must be a number"}]


STATES = ["created", "pending", "running", "failed", "canceled", "skipped", "manual", None, 1]


@pytest.mark.parametrize(
    "changes",
    [
        *({"object_attributes.status": status} for status in STATES),
        *({"object_kind": kind} for kind in ("build", "push")),
        *({VARIABLES: variables} for variables in ([], "odd", [{"key": "X", "value": ONE}])),
        {"object_attributes": None},
    ],
)
def test_nothing_to_act_on_is_204(here: Receiver, changes: dict[str, Any]) -> None:
    """GitLab sends each state of each pipeline."""
    assert send(here, PATH, **changes).status == 204
    assert here.handed == []


def test_a_pipeline_that_was_started_again_is_another_event(here: Receiver) -> None:
    """It ends at another time."""
    for changes in ({}, {"object_attributes.id": 32}, {ENDED: "2026-11-20 19:00:03 UTC"}):
        send(here, PATH, **changes)
    assert len({request.id for request in here.handed}) == 3


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
def test_a_message_that_comes_late_is_as_old_as_its_pipeline(
    here: Receiver, finished_at: Any, earlier: timedelta
) -> None:
    """A user may send a delivery of last month again; what cannot be read, or is in the future, is the receipt."""
    assert send(here, PATH, **{ENDED: finished_at}).status == 200
    assert here.only().time == NOW - earlier


@pytest.mark.parametrize("others", ["", f"v1,{base64.b64encode(b'x' * 32).decode()} v2,x "])
def test_a_signed_time_is_the_events_time_and_one_of_several_signatures_is_enough(others: str) -> None:
    """While keys are changed there is one for each."""
    here = receiver(PATH, AUTOSTOP_GITLAB_TOKEN="", **BY_SIGNATURE["gitlab"].environ)
    body = encoded(PATH, sample(PATH, **{ENDED: None}))
    headers = BY_SIGNATURE["gitlab"].sign(body, int(SENT), KEY)
    signatures = {"webhook-signature": f"{others}{headers['webhook-signature']}"}
    assert here.post(PATH, body, {**JSON, **headers, **signatures}).status == 200
    assert here.only().time == NOW - timedelta(seconds=5)

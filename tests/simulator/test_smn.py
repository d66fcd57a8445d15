"""Messages are published to topics as Open Telekom Cloud's reference shows it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from handler.simulator import Api, CallKind, Fault, Simulator
from tests.simulator.conftest import Ask
from tests.support.clock import FakeClock


@pytest.fixture
def cloud(clock: FakeClock) -> Iterator[Simulator]:
    """A cloud with SMN."""
    with Simulator(clock=clock, smn=True, otc_iam=True) as running:
        yield running


@pytest.fixture
def publish(ask: Ask, cloud: Simulator) -> Ask:
    """Publish something to a topic."""
    urn = cloud.add_topic("alarms")

    def send(body: Any = None, *, to: Any = urn, project_id: str = cloud.project_id, **more: Any) -> Any:
        body = {"subject": "s", "message": "m"} if body is None else body
        return ask("POST", f"/v2/{project_id}/notifications/topics/{to}/publish", body, **more)

    return send


def test_a_message_is_kept(cloud: Simulator, publish: Ask) -> None:
    """The answer has its id; a test sees topic, subject and message."""
    answer = publish({"subject": "bär", "message": "m" * 262144, "time_to_live": "3600"})
    (kept,) = cloud.published
    assert (answer.status, set(answer.json())) == (200, {"request_id", "message_id"})
    assert answer.json()["message_id"] == kept.message_id
    assert (kept.topic_urn, kept.subject) == (f"urn:smn:RegionOne:{cloud.project_id}:alarms", "bär")
    assert (cloud.calls[-1].api, cloud.calls[-1].kind) == (Api.SMN, CallKind.PUBLISH)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"subject": "s"}, 400, "SMN.0018"),
        ({"subject": "s", "message": ""}, 400, "SMN.0018"),
        ({"subject": "s", "message": 1}, 400, "SMN.0018"),
        ({"subject": "s", "message": "ä" * 131073}, 400, "SMN.0018"),
        ({"subject": "s" * 513, "message": "m"}, 400, "SMN.0020"),
        ({"subject": "", "message": "m"}, 400, "SMN.0020"),
        (b"{", 400, "SMN.0018"),
        ([], 400, "SMN.0018"),
    ],
)
def test_a_message_has_limits(cloud: Simulator, publish: Ask, body: Any, status: int, code: int) -> None:
    """Errors have their code at the top, and nothing is kept."""
    answer = publish(body)
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert set(answer.json()) == {"request_id", "code", "message"}
    assert cloud.published == []


def test_the_topic_must_be_there_and_the_project_ones_own(cloud: Simulator, publish: Ask) -> None:
    """Another project's, another topic, none at all."""
    assert publish(to="nothing").json()["code"] == "SMN.0005"
    answer = publish(to=f"urn:smn:RegionOne:{cloud.project_id}:other")
    assert (answer.status, answer.json()["code"]) == (404, "SMN.0006")
    assert publish(project_id=cloud.other_project_id).status == 403
    assert publish(token=cloud.token(scoped=False)).status == 403


def test_the_gateway_looks_first(cloud: Simulator, ask: Ask, publish: Ask) -> None:
    """At the path, then at the token."""
    assert ask("GET", f"/v2/{cloud.project_id}/notifications/topics").json()["error_code"] == "APIG.0101"
    assert ask("DELETE", f"/v2/{cloud.project_id}/notifications").status == 404
    assert publish(token="nobody").status == 401


def test_faults_strike_here_too(cloud: Simulator, publish: Ask) -> None:
    """In the form of the gateway, or of the API behind it."""
    cloud.inject(Fault(on=CallKind.PUBLISH, status=503))
    cloud.inject(Fault(on=CallKind.PUBLISH, status=500))
    assert publish().json()["error_code"] == "APIG.0613"
    assert publish().json()["code"] == "SMN.0019"
    assert json.loads(publish().body)["message_id"]


def test_a_cloud_without_topics_has_no_such_path(ask: Ask) -> None:
    """There it is one of the old Nova's, which has none."""
    with Simulator() as plain:
        answer = ask(
            "POST", f"/v2/{plain.project_id}/notifications/topics/x/publish", {}, to=plain, token=plain.token()
        )
        assert (answer.status, plain.calls[-1].api) == (404, Api.NOVA)

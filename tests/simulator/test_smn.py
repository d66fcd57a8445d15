"""Messages are published to topics as Open Telekom Cloud's reference shows it."""

from functools import partial
from typing import Any

import pytest

from handler.simulator import Api, CallKind, Fault, Simulator
from tests.simulator.conftest import Ask

CLOUD = partial(Simulator, smn=True, otc_iam=True)


@pytest.fixture
def publish(ask: Ask, cloud: Simulator) -> Ask:
    """Publish something to a topic."""
    urn = cloud.add_topic("alarms")

    def send(body: Any = None, *, to: Any = urn, project_id: str = cloud.project_id, **more: Any) -> Any:
        body = {"subject": "s", "message": "m"} if body is None else body
        return ask("POST", f"/v2/{project_id}/notifications/topics/{to}/publish", body, **more)

    return send


def test_a_published_message_is_stored(cloud: Simulator, publish: Ask) -> None:
    """The answer has its id; a test sees topic, subject and message."""
    answer = publish({"subject": "bär", "message": "m" * 262144, "time_to_live": "3600"})
    (published,) = cloud.published
    assert (answer.status, set(answer.json())) == (200, {"request_id", "message_id"})
    assert answer.json()["message_id"] == published.message_id
    assert (published.topic_urn, published.subject) == (f"urn:smn:RegionOne:{cloud.project_id}:alarms", "bär")
    assert (cloud.calls[-1].api, cloud.calls[-1].kind) == (Api.SMN, CallKind.PUBLISH)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"subject": "s"}, "SMN.0018"),
        ({"subject": "s", "message": ""}, "SMN.0018"),
        ({"subject": "s", "message": 1}, "SMN.0018"),
        ({"subject": "s", "message": "ä" * 131073}, "SMN.0018"),
        ({"subject": "s" * 513, "message": "m"}, "SMN.0020"),
        ({"subject": "", "message": "m"}, "SMN.0020"),
        (b"{", "SMN.0018"),
        ([], "SMN.0018"),
    ],
)
def test_a_message_has_limits(cloud: Simulator, publish: Ask, body: Any, code: str) -> None:
    """Errors have their code at the top, and nothing is published."""
    answer = publish(body)
    assert answer.code == (400, code)
    assert set(answer.json()) == {"request_id", "code", "message"}
    assert cloud.published == []


def test_topic_and_project_must_exist_and_be_the_callers(cloud: Simulator, publish: Ask) -> None:
    """A malformed topic, an unknown one, another project, and no project."""
    assert publish(to="nothing").code == (400, "SMN.0005")
    assert publish(to=f"urn:smn:RegionOne:{cloud.project_id}:other").code == (404, "SMN.0006")
    assert publish(project_id=cloud.other_project_id).code == (403, "SMN.0100")
    assert publish(token=cloud.token(scoped=False)).code == (403, "SMN.0100")


def test_the_gateway_checks_path_and_token(cloud: Simulator, ask: Ask, publish: Ask) -> None:
    """In this order."""
    path = f"/v2/{cloud.project_id}/notifications"
    assert ask("GET", f"{path}/topics").code == ask("DELETE", path, token=None).code == (404, "APIG.0101")
    assert publish(token="nobody").code == (401, "APIG.0301")


def test_faults_have_the_form_of_the_gateway_or_of_this_api(cloud: Simulator, publish: Ask) -> None:
    """Then it works again."""
    cloud.inject(Fault(on=CallKind.PUBLISH, status=503))
    cloud.inject(Fault(on=CallKind.PUBLISH, status=500))
    assert publish().code == (503, "APIG.0613")
    assert publish().code == (500, "SMN.0019")
    assert publish().status == 200


def test_a_cloud_without_topics_has_no_such_path(ask: Ask) -> None:
    """There it is one of the old Nova's, which has none."""
    with Simulator() as plain:
        path = f"/v2/{plain.project_id}/notifications/topics/x/publish"
        answer = ask("POST", path, {}, to=plain, token=plain.token())
        assert (answer.status, plain.calls[-1].api) == (404, Api.NOVA)

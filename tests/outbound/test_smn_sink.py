"""Publishing a result to a topic of SMN: once if it is taken, again while that can help, and never half of it."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any, Self

import pytest
from cloudevents.http import CloudEvent

from handler.cloud.auth.login import CatalogEntry, Login, Token
from handler.cloud.endpoint import SMN, Endpoint
from handler.cloud.smn import Topic
from handler.errors import CloudError, CloudUnexpectedAnswer, LoginMissing, LoginRefused, SinkUnreachable
from handler.outbound.announcement import announcement_event
from handler.outbound.smn_sink import TopicSink
from handler.settings.env import Secret
from handler.simulator import Api, CallKind, Cut, Fault, Simulator
from handler.stop.ports import Candidate
from tests.cloud.conftest import StartClient, start_client
from tests.outbound.test_result import REQUEST
from tests.support.capture import logged
from tests.support.clock import FakeClock
from tests.test_events_folder import row

__all__ = ["start_client"]

PREFIX = "io.github.bms-autostop.stop."


def result(*rows: dict[str, object], kind: str = "completed", refusal: str | None = None) -> CloudEvent:
    """A result event."""
    outcomes = [str(one["outcome"]) for one in rows]
    words = ("stopped", "accepted", "unchanged", "skipped", "failed", "planned")
    summary = {word: outcomes.count(word) for word in words}
    attributes = {"id": "1", "source": "/bms-autostop", "type": f"{PREFIX}{kind}.v1"}
    return CloudEvent(attributes, {"refusal": refusal, "summary": summary, "servers": list(rows)})


class ScriptedTopic:
    """A topic that raises these errors one after the other, and then accepts everything."""

    def __init__(self, *errors: CloudError) -> None:
        self.errors = list(errors)
        self.took: list[tuple[str, str]] = []
        self.timeouts: list[float] = []
        self.clock = FakeClock()

    def publish(self, subject: str, message: str, timeout: float) -> None:
        """Raise the next error, or accept the message."""
        self.timeouts.append(timeout)
        if self.errors:
            raise self.errors.pop(0)
        self.took.append((subject, message))

    def deliver(self, event: CloudEvent) -> Self:
        """Send one event to this topic."""
        deliver(self, event, self.clock)
        return self


def deliver(topic: Any, event: CloudEvent | None = None, clock: FakeClock | None = None) -> None:
    """Send one event to a topic within 30 seconds."""
    clock = clock or FakeClock()
    TopicSink(topic, sleep=clock.sleep, monotonic=clock).deliver(event or result(), clock.now + 30.0)


def test_the_message_is_the_structured_event() -> None:
    """With what is not ASCII as it is, as SMN counts bytes; the subject is for people."""
    event = result(row("stopped", "confirmed", name="bär"), row("skipped", "locked"), row("accepted", "accepted"))
    ((subject, message),) = ScriptedTopic().deliver(event).took
    assert subject == "bms-autostop stop.completed: 1 stopped, 1 accepted, 1 skipped"
    assert json.loads(message) == {"specversion": "1.0", **event.get_attributes(), "data": event.data}
    assert "bär" in message


def test_half_of_a_character_does_not_keep_a_result_back() -> None:
    """Names that were cut come that way out of JSON; SMN could not store such text."""
    ((_, message),) = ScriptedTopic().deliver(result(row("stopped", "confirmed", name="ci-\ud83d"))).took
    assert json.loads(message)["data"]["servers"][0]["name"] == "ci-?"


def _announced(count: int) -> CloudEvent:
    servers = [Candidate(f"00000000-0000-4000-8000-{number:012d}", None) for number in range(count)]
    return announcement_event(REQUEST, servers, source="/s", extensions={}, now=datetime.now(UTC))


@pytest.mark.parametrize(
    ("event", "subject"),
    [
        (result(kind="refused", refusal="too-old"), "stop.refused: too-old"),
        (_announced(1), "stop.announced: 1 server"),
        (_announced(3), "stop.announced: 3 servers"),
    ],
    ids=["refusal", "one server", "three servers"],
)
def test_the_subject_without_an_outcome(event: CloudEvent, subject: str) -> None:
    """There is nothing to count but servers."""
    assert ScriptedTopic().deliver(event).took[0][0] == f"bms-autostop {subject}"


@pytest.mark.parametrize("status", [None, 500, 503, 404, 429])
def test_what_may_pass_is_tried_again(status: int | None) -> None:
    """With the sink's own pauses, and no longer than an attempt may take."""
    with logged() as lines:
        topic = ScriptedTopic(*[CloudError("down", status=status)] * 2).deliver(result())
    assert (len(topic.took), len(topic.clock.slept), topic.timeouts) == (1, 2, [5.0, 5.0, 5.0])
    assert [line["problem"] for line in lines.all] == ["cloud-error", "cloud-error"]


def test_the_clouds_own_wait_is_kept() -> None:
    """As that of any sink."""
    topic = ScriptedTopic(CloudError("slow down", status=429, retry_after=7.0)).deliver(result())
    assert topic.clock.slept == [7.0]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (CloudError("no", status=400), SinkUnreachable),
        (CloudError("no", status=403), SinkUnreachable),
        # Another attempt could lock the login.
        (LoginRefused("no", status=401), LoginRefused),
        (LoginMissing("none"), LoginMissing),
    ],
)
def test_a_refusal_is_final(error: CloudError, raised: type[Exception]) -> None:
    """The result is not lost: the event is sent again."""
    topic = ScriptedTopic(error)
    with pytest.raises(raised):
        topic.deliver(result())
    assert (topic.took, len(topic.timeouts)) == ([], 1)


def test_what_is_too_large_is_reported_and_not_sent() -> None:
    """SMN would refuse it, each time anew."""
    topic = ScriptedTopic()
    with pytest.raises(SinkUnreachable, match="larger than a message of SMN"):
        topic.deliver(result(row("stopped", "confirmed", detail="ä" * 131072)))
    assert topic.timeouts == []


def test_as_many_servers_as_the_settings_allow_fit_into_a_message() -> None:
    """With ids, evidence and all, and names as long as they come."""
    name, request = "b" * 64, f"req-{uuid.uuid4()}"
    rows = [row("stopped", "confirmed", name=name, request_id=request, detail="x" * 200) for _ in range(150)]
    assert len(ScriptedTopic().deliver(result(*rows)).took) == 1


# --- over real HTTP


@pytest.fixture
def otc() -> Any:
    """Open Telekom Cloud."""
    with Simulator.otc() as cloud:
        yield cloud


def topic_of(start_client: StartClient, cloud: Simulator, urn: str, **environ: str) -> Topic:
    """The topic as the settings make it."""
    topic = start_client(cloud, AUTOSTOP_RESULT_SINK=f"smn:{urn}", **environ).clouds.topic()
    assert topic is not None
    return topic


def test_a_result_is_published_where_the_catalogue_says(otc: Simulator, start_client: StartClient) -> None:
    """For the project of the login, which the catalogue leaves out of the URL."""
    urn = otc.add_topic()
    deliver(topic_of(start_client, otc, urn))
    (message,) = otc.published
    assert (message.topic_urn, json.loads(message.message)["id"]) == (urn, "1")
    call = otc.calls[-1]
    assert (call.api, call.kind) == (Api.SMN, CallKind.PUBLISH)
    assert call.path == f"/v2/{otc.project_id}/notifications/topics/{urn}/publish"


@pytest.mark.parametrize("place", ["", "/v2", "/v2/"])
def test_an_explicit_url_goes_first(otc: Simulator, start_client: StartClient, place: str) -> None:
    """With or without the version; the catalogue need not have it then."""
    otc._catalog.smn = False
    topic = topic_of(start_client, otc, otc.add_topic(), AUTOSTOP_SMN_URL=f"{otc.url}{place}")
    deliver(topic)
    assert len(otc.published) == 1


def test_keys_sign_what_they_publish(otc: Simulator, start_client: StartClient) -> None:
    """The colons of the URN are signed as the cloud sees them."""
    key = otc.add_access_key()
    environ = dict.fromkeys(otc.environ(), "") | otc.key_environ(key)
    topic = topic_of(start_client, otc, otc.add_topic(), **environ, AUTOSTOP_SMN_URL=otc.url)
    deliver(topic)
    assert (len(otc.published), otc.calls[-1].access_key) == (1, key.access)


def test_a_cloud_without_topics_is_found_out(start_client: StartClient) -> None:
    """It has no URL to publish to."""
    with Simulator() as plain, pytest.raises(CloudUnexpectedAnswer, match="the catalogue does not have it"):
        topic_of(start_client, plain, f"urn:smn:eu-de:{plain.project_id}:x").url(5.0)


class Brings(Login):
    """A login with this catalogue."""

    def __init__(self, catalogue: tuple[CatalogEntry, ...] | None) -> None:
        super().__init__()
        self._brings = Token(project_id="p", token=Secret("t"), catalogue=catalogue)

    def _obtain(self) -> Token:
        return self._brings


@pytest.mark.parametrize("catalogue", [None, (), (CatalogEntry("compute", "public", "eu-nl", "https://n/"),)])
@pytest.mark.parametrize(("iam", "smn"), [("iam.eu-nl", "smn.eu-nl"), ("iam-pub.eu-ch2.sc", "smn.eu-ch2.sc")])
def test_otcs_host_is_derived_where_the_catalogue_leaves_it_out(
    catalogue: tuple[CatalogEntry, ...] | None, iam: str, smn: str
) -> None:
    """Or where there is no catalogue at all."""
    place = Endpoint(
        Brings(catalogue),
        SMN,
        explicit=None,
        region="eu-nl",
        interface="public",
        auth_url=f"https://{iam}.otc.t-systems.com/v3",
    )
    assert place.url(5.0) == f"https://{smn}.otc.t-systems.com/v2/p"


def test_a_lost_answer_is_published_again_as_the_same_event(otc: Simulator, start_client: StartClient) -> None:
    """Twice is better than never, and both have one id."""
    otc.inject(Fault(on=CallKind.PUBLISH, cut=Cut.AFTER))
    deliver(topic_of(start_client, otc, otc.add_topic()))
    assert [json.loads(message.message)["id"] for message in otc.published] == ["1", "1"]


@pytest.mark.parametrize("body", ["<html>Please sign in</html>", "{}", '{"message_id": ""}', "[]", ""])
def test_a_success_without_the_id_of_a_message_is_none(otc: Simulator, start_client: StartClient, body: str) -> None:
    """A proxy that answers in SMN's place has published nothing."""
    otc.inject(Fault(on=CallKind.PUBLISH, status=200, body=body))
    with logged() as lines:
        deliver(topic_of(start_client, otc, otc.add_topic()))
    assert len(otc.published) == 1
    assert [line["problem"] for line in lines.all] == ["cloud-unexpected-answer"]


def test_a_token_that_is_over_is_renewed(otc: Simulator, start_client: StartClient) -> None:
    """By the same login as for the stops."""
    topic = topic_of(start_client, otc, otc.add_topic())
    topic.url(5.0)
    otc.revoke_tokens()
    deliver(topic)
    assert (len(otc.published), otc.count(CallKind.LOGIN)) == (1, 2)


def test_a_topic_that_is_not_there_is_reported(otc: Simulator, start_client: StartClient) -> None:
    """After some tries: a topic may be new."""
    topic = topic_of(start_client, otc, f"urn:smn:eu-de:{otc.project_id}:missing")
    with logged() as lines, pytest.raises(SinkUnreachable, match="in time"):
        deliver(topic)
    assert "HTTP 404 SMN.0006" in lines.all[0]["detail"]

"""The model of the broker keeps to Knative's rules, and to what was observed with a real one."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.deploy.broker import Broker, Channel, Event, Publication, channel_of, event_of, matches
from tests.deploy.kustomize import BASE, KAFKA, PRODUCTION, find, render
from tests.support.sink_server import Say, SinkServer

A_RESULT = {"ce-id": "r", "ce-source": "/f", "ce-type": "result", "ce-specversion": "1.0"}


def event(**attributes: str) -> Event:
    """Return an event with these attributes."""
    return Event({"id": "1", "source": "/t", "type": "ask", "specversion": "1.0", **attributes}, b"{}")


def objects(policy: str = "linear", retry: int = 3, dead: bool = True, **more: Any) -> list[dict[str, Any]]:
    """A broker with one trigger."""
    delivery: dict[str, Any] = {"retry": retry, "backoffPolicy": policy, "backoffDelay": "PT10S"}
    if dead:
        delivery["deadLetterSink"] = {"ref": {"name": "letters"}, "uri": "/dead"}
    trigger = {"broker": "b", "subscriber": {"ref": {"name": "function"}}, "delivery": delivery, **more}
    return [
        {"kind": "Broker", "metadata": {"name": "b"}, "spec": {}},
        {"kind": "Trigger", "metadata": {"name": "t"}, "spec": trigger},
    ]


def replay(
    function: SinkServer, letters: SinkServer, wanted: list[dict[str, Any]], *, up: bool = True, rounds: int = 255
) -> Broker:
    """Publish one event and deliver it to the end; the broker may be down after it has accepted the event."""
    broker = Broker(wanted, {"function": function.origin, "letters": letters.origin})
    broker.publish(event(), rounds=rounds)
    broker.up = up
    broker.run()
    return broker


@pytest.mark.parametrize("status", [500, 502, 503, 504, 404, 408, 409, 429, 0])
def test_passing_failure_is_retried(status: int) -> None:
    """Those codes, and no answer at all; a wait that the answer asks for is not looked at."""
    with SinkServer(Say(status, {"Retry-After": "9999"})) as function, SinkServer() as letters:
        broker = replay(function, letters, objects())
    assert broker.tried("1") == [status or None, 202]
    assert (broker.now, broker.dead, broker.lost) == (0.0, [], [])


@pytest.mark.parametrize("status", [301, 400, 401, 403, 410, 413, 415, 422])
def test_other_codes_are_final(status: int) -> None:
    """One try, and the event is a dead letter that says where it failed, how, and with what words."""
    with SinkServer(Say(status, {"Location": "/elsewhere"}, b"no")) as function, SinkServer() as letters:
        broker = replay(function, letters, objects())
        (letter,) = letters.got
        assert letter.path == "/dead"
        assert letter.headers["ce-knativeerrorcode"] == str(status)
        assert letter.headers["ce-knativeerrordest"] == f"{function.origin}/"
        assert base64.b64decode(letter.headers["ce-knativeerrordata"]) == b"no"
        assert (letter.headers["ce-id"], letter.body) == ("1", b"{}")
    assert broker.dead == [("1", str(status))]


@pytest.mark.parametrize(("policy", "times"), [("linear", [0, 0, 10, 30]), ("exponential", [0, 10, 30, 70])])
def test_waits_grow_as_the_policy_says(policy: str, times: list[float]) -> None:
    """Counted from nought, as the broker made of channels does."""
    with SinkServer(*[Say(503)] * 4) as function, SinkServer() as letters:
        broker = replay(function, letters, objects(policy))
    assert [each.at for each in broker.attempts if each.status == 503] == times
    assert broker.dead == [("1", "503")]


def test_no_answer_at_all_is_a_dead_letter_in_the_end() -> None:
    """With the code that the dispatcher writes for it."""
    with SinkServer(*[Say(0)] * 4) as function, SinkServer() as letters:
        assert replay(function, letters, objects()).dead == [("1", "500")]


def test_an_answer_that_is_not_an_event_is_a_failure() -> None:
    """A friendly `OK` would be tried again and again."""
    with SinkServer(*[Say(200, {}, b"OK")] * 4) as function, SinkServer() as letters:
        broker = replay(function, letters, objects())
    assert broker.tried("1") == [200, 200, 200, 200, 202]
    assert broker.dead == [("1", "502")]


def test_without_a_dead_letter_sink_it_is_lost() -> None:
    """Which is why the manifests have one; one that is away for longer than the tries loses it too."""
    with SinkServer(Say(400)) as function, SinkServer() as letters:
        assert replay(function, letters, objects(dead=False)).lost == ["1"]
    with SinkServer(Say(400)) as function, SinkServer(*[Say(503)] * 4) as letters:
        assert replay(function, letters, objects()).lost == ["1"]


def test_an_answer_that_is_an_event_goes_into_the_broker() -> None:
    """And to the triggers for its type: the function is asked to prefer a reply."""
    wanted = objects(filters=[{"exact": {"type": "ask"}}])
    spec = {"broker": "b", "subscriber": {"ref": {"name": "letters"}}, "filters": [{"exact": {"type": "result"}}]}
    wanted.append({"kind": "Trigger", "metadata": {"name": "results"}, "spec": spec})
    with SinkServer(Say(200, A_RESULT, b"{}")) as function, SinkServer() as letters:
        replay(function, letters, wanted)
        assert function.got[0].headers["prefer"] == "reply"
        assert [got.headers["ce-type"] for got in letters.got] == ["result"]


def test_a_reply_that_the_broker_cannot_take_makes_a_dead_letter_of_the_request() -> None:
    """The function is not asked again, but what it was asked is not lost."""
    with SinkServer(Say(200, A_RESULT, b"{}")) as function, SinkServer() as letters:
        broker = replay(function, letters, objects(), up=False)
        assert len(function.got) == 1
        assert [got.headers["ce-id"] for got in letters.got] == ["1"]
    assert broker.dead == [("1", "503")]


def test_a_loop_ends() -> None:
    """A function that answers each event with one that it gets itself is stopped after so many rounds."""
    with SinkServer(*[Say(200, A_RESULT, b"{}")] * 50) as function, SinkServer() as letters:
        replay(function, letters, objects(), rounds=5)
        assert len(function.got) == 6


def test_a_broker_that_is_down_takes_nothing() -> None:
    """The producer gets no 202."""
    broker = Broker(objects(), {})
    broker.up = False
    assert not broker.publish(event())


@pytest.mark.parametrize(
    ("dialect", "passes"),
    [
        ({"exact": {"type": "ask"}}, True),
        ({"exact": {"type": "ask", "source": "/other"}}, False),
        ({"exact": {"missing": "x"}}, False),
        ({"prefix": {"type": "as"}}, True),
        ({"suffix": {"type": "as"}}, False),
        ({"any": [{"exact": {"type": "x"}}, {"suffix": {"source": "t"}}]}, True),
        ({"all": [{"exact": {"type": "ask"}}, {"not": {"prefix": {"source": "/"}}}]}, False),
    ],
)
def test_filters(dialect: dict[str, Any], passes: bool) -> None:
    """Each dialect that the manifests use, and those beside them."""
    assert matches([dialect], event().attributes) is passes


def test_an_unknown_filter_is_an_error() -> None:
    """It would rather fail than let everything pass."""
    with pytest.raises(ValueError, match="cesql"):
        matches([{"cesql": "type = 'ask'"}], {})


def test_what_is_not_an_event_is_none() -> None:
    """The four attributes make it one, whatever case its headers have."""
    assert event_of({"ce-id": "1"}, b"") is None
    sent = event_of({name.title(): value for name, value in A_RESULT.items()} | {"Content-Type": "x/y"}, b"z")
    assert sent == Event({name[3:]: value for name, value in A_RESULT.items()}, b"z", "x/y")


# --- when a producer is answered, and what a subscriber that is down does to it


def with_chat_down(channel: Channel, *, chat: str = "", up_again: float | None = None) -> tuple[Broker, Publication]:
    """Replay a request whose result goes to a log that works and to a chat that refuses connections.

    Args:
        channel: of the broker.
        chat: where the chat listens once it is up again, after `up_again` seconds.
        up_again: seconds; None for never.
    """
    delivery = {
        "retry": 6,
        "backoffPolicy": "linear",
        "backoffDelay": "PT45S",
        "timeout": "PT60S",
        "deadLetterSink": {"ref": {"name": "log"}, "uri": "/dead"},
    }
    wanted: list[dict[str, Any]] = [{"kind": "Broker", "metadata": {"name": "b"}, "spec": {"delivery": delivery}}]
    for service, type_ in (("function", "ask"), ("chat", "result"), ("log", "result")):
        spec = {"subscriber": {"ref": {"name": service}}, "filters": [{"exact": {"type": type_}}]}
        wanted.append({"kind": "Trigger", "metadata": {"name": service}, "spec": spec})
    with SinkServer(Say(200, A_RESULT, b"{}")) as function, SinkServer() as log:
        addresses = {"chat": "http://127.0.0.1:9", "function": function.origin, "log": log.origin}
        broker = Broker(wanted, addresses, channel=channel)
        publication = broker.publish(event())
        assert publication is not None
        assert (publication.answered_at is None) == (channel is Channel.SYNCHRONOUS)
        if up_again is not None:
            broker.at(up_again, lambda: addresses.update(chat=chat))
        broker.run()
        assert len(function.got) == 1
    return broker, publication


@pytest.mark.parametrize("channel", Channel)
def test_producer_is_answered_after_the_function_only_by_a_synchronous_channel(channel: Channel) -> None:
    """Observed: 1.85 s with a power-off of 1 s on the default; 6 ms with the annotation."""
    with SinkServer() as chat:
        broker, publication = with_chat_down(channel, chat=chat.url, up_again=0.0)
    assert (publication.answered_at, publication.status, broker.lost, broker.dead) == (0.0, 202, [], [])


def test_subscriber_that_is_down_holds_the_producer_and_multiplies_results() -> None:
    """The default broker gives no response in 40 s, once over ten minutes.

    Observed: the result came to the log six times, about 60, 160, 310 and 500 s after the first; the function ran
    once.
    """
    broker, publication = with_chat_down(Channel.SYNCHRONOUS)
    assert publication.answered_at is not None
    assert publication.answered_at > 600
    times = broker.delivered_at("log", "r")
    assert [round(time) for time in times] == [0, 60, 165, 315, 510, 750, 1035]
    for model, observed in zip(times[1:], (60, 160, 310, 500), strict=False):
        assert abs(model - observed) <= 0.05 * observed
    # The broker gave the reply up: the request is the dead letter, so it is not lost.
    assert (broker.dead, broker.lost) == ([("1", "500")], [])


def test_subscriber_that_comes_back_gets_the_result_and_the_others_have_it_several_times() -> None:
    """The producer is answered then; a consumer of results has to drop repeats by id."""
    with SinkServer() as chat:
        broker, publication = with_chat_down(Channel.SYNCHRONOUS, chat=chat.url, up_again=300.0)
        assert [got.headers["ce-id"] for got in chat.got] == ["r"]
    assert len(broker.delivered_at("log", "r")) == 4
    assert publication.answered_at is not None
    assert 300 < publication.answered_at < 375
    assert (broker.dead, broker.lost) == ([], [])


@pytest.mark.parametrize("channel", [Channel.ASYNCHRONOUS, Channel.DURABLE])
def test_subscriber_that_is_down_delays_no_other(channel: Channel) -> None:
    """Observed with the annotation: 202 in 3 ms with the chat dead. The chat's own result is the dead letter."""
    broker, publication = with_chat_down(channel)
    assert publication.answered_at == 0.0
    assert broker.delivered_at("log", "r")[0] == 0.0
    assert (broker.dead, broker.lost) == ([("r", "500")], [])


@pytest.mark.parametrize("channel", Channel)
def test_malformed_event_is_final_and_answers_the_producer(channel: Channel) -> None:
    """Observed: not retried, dead letter with code 400 and our problem document; the producer is answered in 21 ms."""
    with SinkServer(Say(400, {}, b"problem")) as function, SinkServer() as letters:
        broker = Broker(objects(), {"function": function.origin, "letters": letters.origin}, channel=channel)
        publication = broker.publish(event())
        broker.run()
        assert base64.b64decode(letters.got[0].headers["ce-knativeerrordata"]) == b"problem"
    assert isinstance(publication, Publication)
    assert (publication.answered_at, publication.status) == (0.0, 202)
    assert broker.dead == [("1", "400")]


@pytest.mark.parametrize(
    ("channel", "answered", "lost", "tried"),
    [
        (Channel.SYNCHRONOUS, False, [], [503, 503]),
        (Channel.ASYNCHRONOUS, True, ["1"], [503, 503]),
        (Channel.DURABLE, True, [], [503, 503, 202]),
    ],
)
def test_restart_of_the_dispatcher(channel: Channel, answered: bool, lost: list[str], tried: list[int]) -> None:
    """In memory, what it holds is gone: the producer was answered (lost), or was not (it has to send it again)."""
    with SinkServer(Say(503), Say(503)) as function, SinkServer() as letters:
        broker = Broker(objects(), {"function": function.origin, "letters": letters.origin}, channel=channel)
        publication = broker.publish(event())
        broker.at(5.0, broker.restart)
        broker.run()
    assert publication is not None
    assert (publication.answered_at is not None, broker.lost, broker.tried("1")) == (answered, lost, tried)


def test_client_that_goes_away_ends_the_deliveries_of_a_synchronous_channel() -> None:
    """Its request is cancelled, and what was to be sent for it later is not sent."""
    with SinkServer(Say(503), Say(503)) as function:
        broker = Broker(objects(dead=False), {"function": function.url}, channel=Channel.SYNCHRONOUS)
        publication = broker.publish(event())
        assert publication is not None
        broker.at(5.0, publication.cancel)
        broker.run()
    assert broker.tried("1") == [503, 503]
    assert publication.answered_at is None


def test_channel_is_read_from_the_manifests() -> None:
    """The base answers at once, Kafka is durable, and a broker without either annotation is synchronous."""
    for folder, channel in (
        (BASE, Channel.ASYNCHRONOUS),
        (PRODUCTION, Channel.ASYNCHRONOUS),
        (KAFKA, Channel.DURABLE),
    ):
        assert channel_of(find(render(folder), "Broker", "bms-autostop")) is channel
    assert channel_of({"metadata": {"name": "b"}}) is Channel.SYNCHRONOUS

"""The test broker keeps to Knative's rules, or what it proves about the manifests is worth nothing."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.deploy.broker import Broker, Event, event_of, matches
from tests.support.sink_server import Say, SinkServer

A_RESULT = {"ce-id": "r", "ce-source": "/f", "ce-type": "result", "ce-specversion": "1.0"}


def event(**attributes: str) -> Event:
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


def replay(function: SinkServer, letters: SinkServer, wanted: list[dict[str, Any]]) -> Broker:
    """Publish one event and deliver it to the end."""
    addresses = {
        name: sink.url.removesuffix("/results") for name, sink in (("function", function), ("letters", letters))
    }
    broker = Broker(wanted, addresses)
    broker.publish(event())
    broker.run()
    return broker


@pytest.mark.parametrize("status", [500, 502, 503, 504, 404, 408, 409, 429, 0])
def test_passing_trouble_is_tried_again(status: int) -> None:
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
        assert letter.headers["ce-knativeerrordest"] == function.url.removesuffix("results")
        assert base64.b64decode(letter.headers["ce-knativeerrordata"]) == b"no"
        assert (letter.headers["ce-id"], letter.body) == ("1", b"{}")
    assert broker.dead == [("1", str(status))]


@pytest.mark.parametrize(("policy", "times"), [("linear", [0, 0, 10, 30]), ("exponential", [0, 10, 30, 70])])
def test_waits_grow_as_the_policy_says(policy: str, times: list[float]) -> None:
    """Counted from nought, as the broker made of channels does."""
    with SinkServer(*[Say(503)] * 4) as function, SinkServer() as letters:
        broker = replay(function, letters, objects(policy))
    assert [each.at for each in broker.tries if each.status == 503] == times
    assert broker.dead == [("1", "503")]


def test_no_answer_at_all_is_a_dead_letter_in_the_end() -> None:
    """With the code that the dispatcher writes for it."""
    with SinkServer(*[Say(0)] * 4) as function, SinkServer() as letters:
        assert replay(function, letters, objects()).dead == [("1", "500")]


def test_an_answer_that_is_no_event_is_a_failure() -> None:
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
    """And to whoever wants its type: the function is asked to prefer a reply."""
    wanted = objects(filters=[{"exact": {"type": "ask"}}])
    told = {"broker": "b", "subscriber": {"ref": {"name": "letters"}}, "filters": [{"exact": {"type": "result"}}]}
    wanted.append({"kind": "Trigger", "metadata": {"name": "told"}, "spec": told})
    with SinkServer(Say(200, A_RESULT, b"{}")) as function, SinkServer() as letters:
        replay(function, letters, wanted)
        assert function.got[0].headers["prefer"] == "reply"
        assert [got.headers["ce-type"] for got in letters.got] == ["result"]


def test_a_reply_that_the_broker_cannot_take_makes_a_dead_letter_of_the_request() -> None:
    """The function is not asked again, but what it was asked is not lost."""
    with SinkServer(Say(200, A_RESULT, b"{}")) as function, SinkServer() as letters:
        broker = Broker(objects(), {"function": function.url, "letters": letters.url})
        broker.publish(event())
        broker.up = False
        broker.run()
        assert len(function.got) == 1
        assert [got.headers["ce-id"] for got in letters.got] == ["1"]
    assert broker.dead == [("1", "503")]


def test_a_loop_ends() -> None:
    """Whoever answers each event with one that it gets itself is stopped after so many rounds."""
    with SinkServer(*[Say(200, A_RESULT, b"{}")] * 50) as function, SinkServer() as letters:
        broker = Broker(objects(), {"function": function.url, "letters": letters.url})
        broker.publish(event(), rounds=5)
        broker.run()
        assert len(function.got) == 6


def test_a_broker_that_is_down_takes_nothing() -> None:
    """Whoever publishes hears of it."""
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


def test_what_is_no_event_is_none() -> None:
    """The four attributes make it one, whatever case its headers have."""
    assert event_of({"ce-id": "1"}, b"") is None
    sent = event_of({name.title(): value for name, value in A_RESULT.items()} | {"Content-Type": "x/y"}, b"z")
    assert sent == Event({name[3:]: value for name, value in A_RESULT.items()}, b"z", "x/y")

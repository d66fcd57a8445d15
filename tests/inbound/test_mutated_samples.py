"""Samples of all producers, changed at random: no change makes a server be stopped that the sample did not name for it.

A change drops or renames a member, makes text of a part or of all, or turns the word for the firing state into another
one. With a member that asks for a dry run put anywhere, nothing is stopped at all.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from handler.errors import BadEvent
from handler.functiongraph.triggers.dispatch import requests_of
from handler.inbound.cloudevents.decode import decode
from handler.inbound.endpoints.stop_servers import requests_of as requests_of_events
from handler.stop.model import Selector, StopRequest
from tests.inbound.webhooks.authentication import ENVIRON, GOLDEN, SMN, at, authenticated, places
from tests.inbound.webhooks.receiver import NOW, Receiver
from tests.test_events_folder import EVENTS, names, structured

CHATS = {"/slack", "/mattermost", "/teams", "/rocketchat"}
# What fires, and what does not or is not known to.
FIRING = {"firing", "alarm", "ALARM", "Fired", "success", "notification", "Notification", "normal"}
# Paths whose state is a number, which stands for other things elsewhere: the tests of the producer change it.
NUMBERED: set[str] = set()
OTHER = ["resolved", "ok", "OK", "Resolved", "failed", "insufficient data", "NoData", "Firing?", "", None, True, 1]
SEVERAL = {"batch.json", "smn-three-records.json"}


class Sample(NamedTuple):
    """One message.

    Attributes:
        name: of its file.
        path: of the producer's webhook; empty for an event, `functiongraph` for a trigger's.
        body: what is sent.
        environ: settings that it needs.
    """

    name: str
    path: str
    body: Any
    environ: dict[str, Any]

    def send(self, body: Any) -> list[StopRequest]:
        """Send it with this body in place of its own, and return what is to be stopped for good."""
        if self.path in ("", "functiongraph"):
            try:
                requests: Sequence[StopRequest] = self._events(body)
            except BadEvent:
                requests = []
        else:
            requests = self._webhook(body)
        return [request for request in requests if not request.dry_run]

    def _events(self, body: Any) -> Sequence[StopRequest]:
        if self.path:
            return requests_of(_with_text(body), "/functiongraph", NOW) if isinstance(body, dict) else []
        kind = "application/cloudevents-batch+json" if isinstance(body, list) else "application/cloudevents+json"
        return requests_of_events(decode({"content-type": kind}, json.dumps(body).encode()), {})

    def _webhook(self, body: Any) -> Sequence[StopRequest]:
        here = Receiver(get=SMN.get, **{**ENVIRON, **self.environ})
        try:
            raw, headers, query = authenticated(self.path, body)
        except (KeyError, TypeError, AttributeError):
            # What has no text where SMN signs text cannot be signed.
            return []
        here.post(self.path, raw, headers, query=query)
        return here.handed


def _with_text(event: dict[str, Any]) -> dict[str, Any]:
    """An event of FunctionGraph with its messages as text, as they are sent."""
    event = copy.deepcopy(event)
    records = event.get("record")
    for record in records if isinstance(records, list) else []:
        smn = record.get("smn") if isinstance(record, dict) else None
        if isinstance(smn, dict) and isinstance(smn.get("message"), dict):
            smn["message"] = json.dumps(smn["message"])
    return event


def _samples() -> Iterator[Sample]:
    for name in names("in"):
        if name not in ("malformed.json", "outdated.json", "expired.json"):
            yield Sample(name, "", structured(name), {})
    for path in sorted(GOLDEN.glob("*.json")):
        pair = json.loads(path.read_text())
        if pair["path"] not in CHATS:
            yield Sample(path.name, pair["path"], pair["body"], pair["settings"])
    for path in sorted((EVENTS / "samples" / "functiongraph").glob("*.json")):
        # Events of the gateway carry whole HTTP requests.
        if not path.name.startswith("apig"):
            yield Sample(path.name, "functiongraph", json.loads(path.read_text())["event"], {})


SAMPLES = list(_samples())
# What alone keeps these samples from stopping a server: without it they are what they would be otherwise.
_KEPT_BY_ONE_MEMBER = re.compile(r'"dry_run": "?true|DatasourceNoData|DatasourceError')
ALLOWED: dict[str, tuple[set[str], set[Selector]]] = {}
for _sample in SAMPLES:
    _requests = _sample.send(_sample.body)
    ALLOWED[_sample.path + _sample.name] = (
        {id_ for request in _requests for id_ in request.server_ids},
        {request.selector for request in _requests if request.selector},
    )


def renamed(draw: st.DrawFn, name: str) -> str:
    """A name in another case, with other signs, with one letter too few or too many, or another altogether."""
    ways = [name.upper(), name.replace("_", "-"), f"{name}s", name[1:], name[:-1], f"x{name}", "server_ids", "labels"]
    return draw(st.sampled_from(ways))


def change(draw: st.DrawFn, body: Any) -> Any:
    """The document with one change."""
    found = places(body)
    if not found or draw(st.integers(0, 19)) == 0:
        return json.dumps(body)
    *way, last = draw(st.sampled_from(found))
    inner = at(body, tuple(way))
    match draw(st.sampled_from(["drop", "rename", "wrap"])):
        case "drop":
            del inner[last]
        case "rename" if isinstance(inner, dict):
            inner[renamed(draw, last)] = inner.pop(last)
        case _:
            inner[last] = json.dumps(inner[last])
    return body


@st.composite
def changed(draw: st.DrawFn) -> tuple[Sample, Any]:
    """A sample, and its body with one to three changes."""
    # Without its dry_run a dry run is none, and without its alertname missing data is an alarm.
    sample = draw(
        st.sampled_from([sample for sample in SAMPLES if not _KEPT_BY_ONE_MEMBER.search(json.dumps(sample.body))])
    )
    body = copy.deepcopy(sample.body)
    for _ in range(draw(st.integers(1, 3))):
        body = change(draw, body)
    return sample, body


@settings(max_examples=250)
@given(changed())
def test_no_change_stops_another_server(made: tuple[Sample, Any]) -> None:
    """Nor one that the sample does not stop, since it does not fire, is over, or is a dry run."""
    sample, body = made
    ids, selectors = ALLOWED[sample.path + sample.name]
    for request in sample.send(body):
        assert set(request.server_ids) <= ids
        # Fewer parts of a selector could fit more servers: that is the author's own doing, not a misreading.
        assert request.selector is None or selectors


@st.composite
def not_firing(draw: st.DrawFn) -> tuple[Sample, Any]:
    """An alarm whose words for the firing state are all others."""
    fires = [sample for sample in SAMPLES if sample.name not in SEVERAL and _words(sample.body)]
    sample = draw(st.sampled_from(fires))
    body = copy.deepcopy(sample.body)
    for place in _words(body):
        at(body, place[:-1])[place[-1]] = draw(st.sampled_from(OTHER))
    return sample, body


def _words(body: Any) -> list[tuple[Any, ...]]:
    states = [place for place in places(body) if isinstance(at(body, place), str) and at(body, place) in FIRING]
    # What the message is, is not its state; nor is what a group of alerts says of all of them.
    of_group = ("status",) if "alerts" in body else None
    return [place for place in states if place[-1] not in ("message_type", "type") and place != of_group]


def test_each_producer_has_a_sample_whose_state_is_known_here() -> None:
    """The test below changes the word for the firing state, and so must find it."""
    paths = {sample.path for sample in SAMPLES if _words(sample.body)}
    for path in {sample.path for sample in SAMPLES if sample.path.startswith("/")}:
        message = f"FIRING above must have the word with which {path} fires, or NUMBERED the path if it is a number"
        assert path in paths | NUMBERED, message


@settings(max_examples=100)
@given(not_firing())
def test_only_the_firing_state_acts(made: tuple[Sample, Any]) -> None:
    """A word that is not known, or no word at all, is not it."""
    sample, body = made
    assert sample.send(body) == []


@st.composite
def dry(draw: st.DrawFn) -> tuple[Sample, Any]:
    """A sample with a member that asks for a dry run, anywhere."""
    # Of several events in one message each is a dry run or not by itself.
    sample = draw(st.sampled_from([sample for sample in SAMPLES if sample.name not in SEVERAL]))
    body = copy.deepcopy(sample.body)
    spots = [(), *(place for place in places(body) if isinstance(at(body, place), dict | list))]
    inner = at(body, draw(st.sampled_from(spots)))
    names = ["dry_run", "DRY_RUN", "dry-run", "dryRun", "dryrun", "Dry\u2010Run", "dry_runs", "dryrn"]
    name = draw(st.sampled_from(names))
    value = draw(st.sampled_from([True, "true", "True", " TRUE", "yes", "", 1, None]))
    # An attribute of an event that is null is not set.
    assume(value is not None or sample.path or inner is not body)
    if isinstance(inner, list):
        inner.append(draw(st.sampled_from([{name: value}, {"key": name, "value": value}, [name, 1, value]])))
    else:
        inner[name] = value
    return sample, body


@settings(max_examples=250)
@given(dry())
def test_a_dry_run_anywhere_stops_nothing(made: tuple[Sample, Any]) -> None:
    """Acted on or refused, but never ignored."""
    sample, body = made
    assert sample.send(body) == []


def test_enough_samples_act() -> None:
    """Else nothing would be tried."""
    acting = [name for name, (ids, selectors) in ALLOWED.items() if ids or selectors]
    assert len(acting) > len(SAMPLES) // 2

"""Random input to every webhook path, unauthenticated and authenticated: no internal error, no echo, no other host."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.registry import SWITCHES
from tests.inbound.webhooks.authentication import (
    BODY_AUTHENTICATES,
    ENVIRON,
    SAMPLES,
    SENDS_FORMS,
    SMN,
    at,
    authenticated,
    authenticated_bytes,
    places,
)
from tests.inbound.webhooks.fake_smn import CERT_URL, CONFIRM_URL
from tests.inbound.webhooks.receiver import ONE, THREE, TWO, Receiver, refused

PEOPLE: dict[str, str] = {name: value for pair in SAMPLES for name, value in pair["settings"].items()}
MARK = "marked-by-the-sender"
HEADERS = [
    "authorization",
    "content-type",
    "x-slack-signature",
    "x-slack-request-timestamp",
    "x-grafana-alerting-signature",
    "x-grafana-time",
    "x-gitlab-token",
    "webhook-signature",
    "x-smn-message-type",
    "x-openstack-request-id",
    "traceparent",
    "tracestate",
]
VALUES = st.text(st.characters(max_codepoint=0xFF), max_size=80)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(
        [
            ONE,
            TWO.upper(),
            f"{ONE},{TWO}",
            MARK,
            "firing",
            "alarm",
            "ALARM",
            "Fired",
            "2026-11-20T18:00:00Z",
            "https://x/",
        ]
    ),
)
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def receiver() -> Receiver:
    """Every producer switched on."""
    SMN.asked.clear()
    return Receiver(get=SMN.get, **{**ENVIRON, **PEOPLE})


def harmless(answer: Answer) -> None:
    """No internal error, and no text of the sender in a refusal."""
    assert answer.status in (200, 204, 400, 401, 403, 405, 503), answer
    if answer.status >= 400:
        document = refused(answer, answer.status)
        assert document["type"] != "urn:bms-autostop:problem:internal-error"
        assert MARK not in json.dumps(document)
    assert all(url in (CONFIRM_URL, CERT_URL) or url.startswith(CERT_URL[:40]) for url in SMN.asked), SMN.asked


@given(
    path=st.sampled_from([*SWITCHES, "/", "/healthz", "/unknown"]) | st.text(max_size=20),
    body=st.binary(max_size=300) | TREES.map(lambda tree: json.dumps(tree).encode()),
    headers=st.dictionaries(st.sampled_from(HEADERS), VALUES, max_size=4),
    query=VALUES,
    method=st.sampled_from(["POST", "POST", "POST", "GET", "BREW"]),
)
def test_unauthenticated_random_input_is_refused(
    path: str, body: bytes, headers: dict[str, str], query: str, method: str
) -> None:
    """Nothing is handed on, and nothing fetched."""
    here = receiver()
    harmless(here.post(path, body, headers, query=query, method=method))
    assert (here.handed, SMN.asked) == ([], [])


@st.composite
def changed(draw: st.DrawFn) -> Any:
    """A sample with one to three members that are changed or removed."""
    pair = copy.deepcopy(draw(st.sampled_from(SAMPLES)))
    flat = pair["path"] in SENDS_FORMS
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(pair["body"])))
        inner = at(pair["body"], way)
        if isinstance(inner, dict) and draw(st.booleans()):
            del inner[last]
        else:
            inner[last] = draw(VALUES if flat else TREES)
        if not pair["body"]:
            break
    return pair


@settings(max_examples=400)
@given(changed())
def test_authenticated_random_input_causes_no_internal_error(pair: Any) -> None:
    """Of a changed sample: at most one valid event, and none for another server than it names."""
    here = receiver()
    try:
        body, headers, query = authenticated(pair["path"], pair["body"])
    except (KeyError, TypeError):
        # What has no text where SMN signs text cannot be signed: it goes unsigned.
        body, headers, query = json.dumps(pair["body"]).encode(), {}, ""
    harmless(here.post(pair["path"], body, {**pair["headers"], **headers}, query=query))
    assert len(here.handed) <= 1
    assert all(set(request.server_ids) <= {ONE, TWO, THREE} for request in here.handed)


@given(st.sampled_from(sorted(SWITCHES)), st.binary(max_size=200) | TREES.map(lambda tree: json.dumps(tree).encode()))
def test_any_authenticated_bytes_cause_no_internal_error(path: str, body: bytes) -> None:
    """Whatever the body is, as far as a producer can sign bytes."""
    here = receiver()
    if path in BODY_AUTHENTICATES:
        # Their credentials are in the body, so bytes alone authenticate nothing.
        refused(here.post(path, body), 401)
        return
    _, headers, query = authenticated_bytes(path, body)
    harmless(here.post(path, body, headers, query=query))

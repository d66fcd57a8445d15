"""What every producer and every chat promises, one row for each; a new one is tested by its sample."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handler import rfc3339
from handler.errors import Acceptance
from handler.inbound.webhooks.chat import Chat
from handler.inbound.webhooks.registry import SWITCHES
from tests.inbound.webhooks.authentication import (
    ACTS,
    AS_BASE64,
    AUTHENTICATION,
    BODY_AUTHENTICATES,
    BY_SIGNATURE,
    BY_TOKEN,
    ENVIRON,
    GOLDEN,
    KEY,
    NAMES,
    SAMPLES,
    SECRET,
    SENDS_FORMS,
    SENT,
    BySignature,
    ByToken,
    authenticated,
    authenticated_bytes,
    encoded,
    receiver,
    result_of,
    send,
    send_body,
)
from tests.inbound.webhooks.receiver import NOW, Receiver, flip, refused, text_of

ALL = sorted(SWITCHES)
CHATS = sorted(path for path, producer in Receiver(**ENVIRON).producers.items() if isinstance(producer, Chat))
MACHINES = sorted(set(ALL) - set(CHATS))
PATIENCE = {"/slack": 2.0, "/mattermost": 2.0, "/teams": 3.5, "/rocketchat": 3.5, "/eventbridge": 3.5}
"""Seconds until the answer, where the producer waits for five seconds or less."""

# --- samples


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_gives_its_event(name: str) -> None:
    """The whole event, or none, and the status; and no UUID of anything else is among the servers."""
    pair = json.loads((GOLDEN / f"{name}.json").read_text())
    answer, events = result_of(pair)
    assert answer.status == pair["status"], answer
    expected = [] if pair["event"] is None else [pair["event"]]
    assert events == expected, f"python -m tests.inbound.webhooks {name} writes the event of the sample"
    for event in events:
        assert not set(pair["decoys"]) & set(event["data"].get("server_ids", []))


@pytest.mark.parametrize("path", sorted(SWITCHES))
def test_each_producer_has_a_sample_that_acts_and_one_that_does_not(path: str) -> None:
    """A new producer cannot be forgotten here."""
    found = {pair["event"] is not None for pair in SAMPLES if pair["path"] == path}
    assert found == {True, False}, f"events/samples/webhooks/ must have samples of {path} with an event and with null"


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_has_the_members_of_the_format(name: str) -> None:
    """No more and no fewer, as CONTRIBUTING.md lists them."""
    members = {"path", "settings", "headers", "body", "decoys", "status", "event"}
    assert set(json.loads((GOLDEN / f"{name}.json").read_text())) == members


# --- every producer


@pytest.mark.parametrize("path", ALL)
def test_every_producer_has_a_row_and_a_sample(path: str) -> None:
    """A new one cannot be forgotten: what is missing is in the message."""
    # SMN signs with a certificate: its forgeries are in `test_smn.py`.
    assert AUTHENTICATION[path] or path == "/smn"
    assert ACTS[path]
    assert path in Receiver(**ENVIRON).producers, f"ENVIRON must switch {path} on"


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize("source", ["/ops/night", "/ops/night/"])
def test_the_source_names_the_deployment_and_the_producer(path: str, source: str) -> None:
    """Whether or not the name of the deployment ends with a slash."""
    here = receiver(path, AUTOSTOP_SOURCE=source)
    send(here, path)
    assert here.only().source == f"/ops/night{path}"


@pytest.mark.parametrize("path", ALL)
def test_one_slash_at_the_end_of_the_path_is_accepted(path: str) -> None:
    """URLs are often configured so; two are another path."""
    here = receiver(path)
    body, headers, query = authenticated(path, ACTS[path]["body"])
    sent = {**ACTS[path]["headers"], **headers}
    assert [here.post(f"{path}{end}", body, sent, query=query).status for end in ("/", "//")] == [200, 403]
    assert len(here.handed) == 1


@pytest.mark.parametrize("path", ALL)
def test_a_deployment_in_dry_run_mode_hands_on_dry_runs(path: str) -> None:
    """The reply of a chat states it."""
    here = receiver(path, AUTOSTOP_DRY_RUN="true")
    answer = send(here, path)
    assert here.only().dry_run is True
    assert ("dry run" in answer.body.decode()) == (path in CHATS)


@pytest.mark.parametrize("path", ALL)
def test_the_trace_is_continued(path: str) -> None:
    """A well-formed trace context is handed on, a malformed one is dropped."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for traceparent, expected in ((trace, (trace, "a=b")), ("x", (None, None))):
        here = receiver(path)
        body, headers, query = authenticated(path, ACTS[path]["body"])
        traced = {**ACTS[path]["headers"], **headers, "traceparent": traceparent, "tracestate": "a=b"}
        here.post(path, body, traced, query=query)
        assert (here.only().traceparent, here.only().tracestate) == expected


@pytest.mark.parametrize("path", ALL)
def test_a_defect_of_a_producer_is_503(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer sends again, and the answer shows nothing of the defect."""
    here = receiver(path)
    monkeypatch.setattr(type(here.producers[path]), "gate", lambda *_: 1 / 0)
    found = refused(send(here, path), 503)
    assert found["type"] == "urn:bms-autostop:problem:internal-error"
    assert "division" not in json.dumps(found)


@pytest.mark.parametrize("path", ALL)
def test_the_sink_has_as_long_as_the_producer_waits(path: str) -> None:
    """Counted from the arrival of the delivery."""
    here = receiver(path)
    send(here, path)
    (deadline,) = here.deadlines
    assert deadline == 100.0 + PATIENCE.get(path, 8.0), f"PATIENCE above must have {path} if it waits for less than 8 s"


@pytest.mark.parametrize("path", ALL)
def test_a_redelivery_is_the_same_event(path: str) -> None:
    """The same bytes a minute later have the id of the first, also in another process."""
    here = receiver(path)
    send(here, path)
    other = receiver(path)
    for again in (here, other):
        again.now = NOW + timedelta(minutes=1)
        send(again, path)
    assert here.handed[0].id == here.handed[1].id == other.only().id


@pytest.mark.parametrize("path", MACHINES)
def test_a_machine_sends_again_if_the_sink_is_down(path: str) -> None:
    """After the time that the sink named."""
    answer = send(receiver(path, down=True), path)
    assert refused(answer, 503)["type"] == "urn:bms-autostop:problem:sink-unreachable"
    assert answer.headers["Retry-After"] == "7"


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize(
    ("acceptance", "words"),
    [
        (Acceptance.NOT_TAKEN, "it was NOT handed on"),
        (Acceptance.UNKNOWN, "not known whether it was taken. Do not send it"),
    ],
)
def test_a_chat_reads_whether_a_command_may_have_been_taken(path: str, acceptance: Acceptance, words: str) -> None:
    """With status 200, since a person would see nothing of an error."""
    response = text_of(send(receiver(path, down=acceptance), path))
    assert words in response
    assert "was handed on" not in response


# --- tokens


def by_token(way: ByToken, token: str | None) -> tuple[Receiver, Any]:
    """Send the sample with this token, or with none; return the receiver and the answer."""
    environ: dict[str, Any] = {**ACTS[way.path]["settings"], way.setting: SECRET}
    here = Receiver(**environ)
    changes, headers, query = ({}, {}, "") if token is None else way.show(token)
    document = {**ACTS[way.path]["body"], **changes}
    return here, here.post(way.path, encoded(way.path, document), {**ACTS[way.path]["headers"], **headers}, query=query)


@pytest.mark.parametrize("name", BY_TOKEN)
def test_the_right_token_is_enough(name: str) -> None:
    """Wherever the producer puts it."""
    here, answer = by_token(BY_TOKEN[name], SECRET)
    assert (answer.status, len(here.handed)) == (200, 1)


WRONG_TOKENS: dict[str, str | None] = {
    "none": None,
    "empty": "",
    "last bit": flip(SECRET),
    "first bit": flip(SECRET, 0),
    "a bit": flip(SECRET, 3),
    "shorter": SECRET[:-1],
    "longer": SECRET + "0",
    "not ASCII": "é",
    "scheme before it": f"Bearer {SECRET}",
}


@pytest.mark.parametrize("name", BY_TOKEN)
@pytest.mark.parametrize("token", WRONG_TOKENS.values(), ids=WRONG_TOKENS)
def test_any_other_token_is_401(name: str, token: str | None) -> None:
    """One bit is enough; nothing is handed on."""
    here, answer = by_token(BY_TOKEN[name], token)
    refused(answer, 401)
    assert here.handed == []


# --- signatures


SIGNING = pytest.mark.parametrize("way", BY_SIGNATURE.values(), ids=BY_SIGNATURE)


class Signed:
    """The sample of a producer, signed, and `receive_webhook` with that producer alone."""

    def __init__(self, way: BySignature, at: int = int(SENT), key: bytes = KEY) -> None:
        pair = ACTS[way.path]
        environ: dict[str, Any] = {**pair["settings"], **way.environ}
        self.path, self.here = way.path, Receiver(**environ)
        self.plain: dict[str, str] = pair["headers"]
        self.body = encoded(way.path, pair["body"])
        self.credentials = way.sign(self.body, at, key)

    def status(self, body: bytes | None = None, credentials: Mapping[str, str] | None = None) -> int:
        """Send it with another body, or other headers in place of the signature's; return the status."""
        sent = self.plain | dict(self.credentials if credentials is None else credentials)
        status: int = self.here.post(self.path, self.body if body is None else body, sent).status
        return status


@SIGNING
def test_a_signature_is_enough(way: BySignature) -> None:
    """Without any token."""
    signed = Signed(way)
    assert (signed.status(), len(signed.here.handed)) == (200, 1)


@SIGNING
def test_one_changed_bit_of_the_body_is_401(way: BySignature) -> None:
    """Wherever it is, and a byte more or less."""
    signed = Signed(way)
    for at in range(len(signed.body)):
        forged = bytearray(signed.body)
        forged[at] ^= 1
        assert signed.status(bytes(forged)) == 401
    assert {signed.status(signed.body + b"&"), signed.status(signed.body[:-1]), signed.status(b"")} == {401}
    assert signed.here.handed == []


@SIGNING
def test_one_changed_bit_of_a_header_is_401(way: BySignature) -> None:
    """Wherever it is; and a header that is empty, odd, longer or missing."""
    signed = Signed(way)
    for name, value in signed.credentials.items():
        for at in range(len(value)):
            assert signed.status(credentials={**signed.credentials, name: flip(value, at)}) == 401
        for other in ("", "v0=", "é", "0", "9" * 30, "\u0665", f"{value}0", f"{value.upper()}0"):
            assert signed.status(credentials={**signed.credentials, name: other}) == 401
        rest = {key: value for key, value in signed.credentials.items() if key != name}
        assert signed.status(credentials=rest) == 401
    assert signed.here.handed == []


WRONG_KEYS = {
    "empty": b"",
    "first bit": bytes([KEY[0] ^ 1]) + KEY[1:],
    "last bit": KEY[:-1] + bytes([KEY[-1] ^ 1]),
    "longer": KEY + b"0",
    "in base64": AS_BASE64.encode(),
}


@SIGNING
@pytest.mark.parametrize("key", WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_another_key_is_401(way: BySignature, key: bytes) -> None:
    """One bit of it is enough."""
    signed = Signed(way, key=key)
    assert (signed.status(), signed.here.handed) == (401, [])


@pytest.mark.parametrize("name", ["grafana", "gitlab"])
def test_with_token_and_signature_set_both_are_needed(name: str) -> None:
    """Either alone is not enough."""
    token, signature = BY_TOKEN[name], BY_SIGNATURE[name]
    here = receiver(token.path, **{token.setting: SECRET, "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER": "", **signature.environ})
    body = encoded(token.path, ACTS[token.path]["body"])
    _, plain, _ = token.show(SECRET)
    signed = signature.sign(body, int(SENT), KEY)
    for headers, status in ((plain, 401), (signed, 401), ({**plain, **signed}, 200)):
        assert here.post(token.path, body, headers).status == status
    assert len(here.handed) == 1


# --- time


def _at(seconds: int) -> datetime:
    return NOW + timedelta(seconds=seconds)


def _signed_at(name: str) -> Callable[[int], tuple[int, Receiver]]:
    def sent(seconds: int) -> tuple[int, Receiver]:
        signed = Signed(BY_SIGNATURE[name], int(_at(seconds).timestamp()))
        return signed.status(), signed.here

    return sent


def _dated(path: str, render: Callable[[datetime], object]) -> Callable[[int], tuple[int, Receiver]]:
    def sent(seconds: int) -> tuple[int, Receiver]:
        here = receiver(path)
        return send(here, path, timestamp=render(_at(seconds))).status, here

    return sent


WINDOWS = {
    **{name: _signed_at(name) for name, way in BY_SIGNATURE.items() if way.covers_time},
    "teams": _dated("/teams", rfc3339.render),
    "rocketchat": _dated("/rocketchat", rfc3339.render),
}


@pytest.mark.parametrize("sent", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("seconds", [-86400 * 400, -301, -300, 300, 301, 86400])
def test_a_message_is_taken_within_five_minutes(sent: Callable[[int], tuple[int, Receiver]], seconds: int) -> None:
    """On either side, its edges included; outside it is 401, however well it is authenticated."""
    status, here = sent(seconds)
    inside = abs(seconds) <= 300
    assert (status, len(here.handed)) == ((200, 1) if inside else (401, 0))


# --- what cannot be read


JSON_ALONE = pytest.mark.parametrize("path", sorted({*ACTS} - BODY_AUTHENTICATES - SENDS_FORMS))
UNREADABLE = [b"", b"{", b"[]", b"5", b'"x"', b"\xff", b"a=b", b'{"a": NaN}', b'{"token": ["x"]}']


@JSON_ALONE
@pytest.mark.parametrize("body", UNREADABLE[:-1], ids=repr)
def test_an_authenticated_body_that_is_not_a_json_object_is_400(path: str, body: bytes) -> None:
    """It comes from the producer, which gets the violations; nothing is handed on."""
    here = receiver(path)
    found = refused(send_body(here, path, body), 400)
    assert found["violations"]
    assert here.handed == []


@pytest.mark.parametrize("path", sorted({*MACHINES} - BODY_AUTHENTICATES))
def test_the_content_type_of_a_form_is_named(path: str) -> None:
    """Clients send it by default; JSON is read whatever its content type is."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    for body, status in ((b"a=b", 400), (encoded(path, ACTS[path]["body"]), 200)):
        here = receiver(path)
        body, headers, query = authenticated_bytes(path, body)
        answer = here.post(path, body, {**headers, **form}, query=query)
        assert (answer.status, len(here.handed)) == (status, int(status == 200))
        assert status == 200 or form["content-type"] in refused(answer, 400)["violations"][0]["message"]


@JSON_ALONE
def test_json_that_was_encoded_twice_is_read(path: str) -> None:
    """As text that has the document."""
    here = receiver(path)
    assert send_body(here, path, json.dumps(encoded(path, ACTS[path]["body"]).decode()).encode()).status == 200
    assert len(here.handed) == 1


@pytest.mark.parametrize("path", sorted(BODY_AUTHENTICATES))
@pytest.mark.parametrize("body", [*UNREADABLE, b"token"], ids=repr)
def test_a_body_that_should_authenticate_and_cannot_be_read_is_401(path: str, body: bytes) -> None:
    """Whatever content type it has."""
    here = receiver(path)
    for headers in ({"content-type": "application/json"}, {"content-type": "application/x-www-form-urlencoded"}, {}):
        refused(here.post(path, body, headers), 401)
    assert here.handed == []


# --- every chat


NOT_ALLOWED: list[tuple[str, dict[str, Any]]] = [
    ("/slack", {"user_id": "U9"}),
    ("/slack", {"user_id": ""}),
    ("/slack", {"user_id": "u2147483697"}),
    ("/slack", {"user_id": "ada", "user_name": "U2147483697"}),
    ("/slack", {"channel_id": "C9"}),
    ("/slack", {"channel_id": ""}),
    ("/slack", {"user_id": "U9", "channel_id": "C9"}),
    ("/mattermost", {"user_id": "x"}),
    ("/mattermost", {"user_id": "", "user_name": "c3a4cqe3dfy6dgopqt8ai3hydh"}),
    ("/mattermost", {"channel_id": "x"}),
    ("/rocketchat", {"user_id": "x"}),
    ("/rocketchat", {"user_id": None}),
    ("/rocketchat", {"user_id": ["rocketAda"]}),
    ("/rocketchat", {"channel_id": "x"}),
    ("/teams", {"from": {"id": "29:other", "name": "Ada", "aadObjectId": "95bf2490-5428-432c-ad9b-5e3406f869dd"}}),
    ("/teams", {"from": {}}),
    ("/teams", {"from": None}),
    ("/teams", {"channelData": {}, "conversation": {"id": "19:other;messageid=1"}}),
    ("/teams", {"channelData": {}, "conversation": None}),
]


@pytest.mark.parametrize(("path", "who"), NOT_ALLOWED)
def test_only_the_named_people_may_and_only_in_the_named_channels(path: str, who: dict[str, Any]) -> None:
    """Ids count, names do not; the answer names the setting, and nothing is handed on."""
    here = receiver(path)
    text = text_of(send(here, path, **who))
    assert f"AUTOSTOP_{path[1:].upper()}_" in text
    assert "nderstood" not in text
    assert here.handed == []


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("list_", ["USERS", "CHANNELS"])
def test_an_empty_list_allows_no_user(path: str, list_: str) -> None:
    """In place of everybody."""
    environ: dict[str, Any] = {f"AUTOSTOP_{path[1:].upper()}_{list_}": ""}
    here = receiver(path, **environ)
    text_of(send(here, path))
    assert here.handed == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        *(("/slack", text) for text in ("", "help", "destroy everything", "stop 95bf2490-5428-432c-ad9b-5e3406f869d")),
        ("/mattermost", "bms what?"),
        ("/rocketchat", "!bms"),
        ("/teams", "<at>BMS</at> what?"),
    ],
)
def test_what_is_not_understood_gets_the_help(path: str, text: str) -> None:
    """In words, with status 200; nothing is handed on."""
    here = receiver(path)
    assert "stop ID[, ID ...] [--dry-run] [because REASON]" in text_of(send(here, path, text=text))
    assert here.handed == []


@pytest.mark.parametrize(("path", "setting"), [("/mattermost", "MATTERMOST"), ("/rocketchat", "ROCKETCHAT")])
def test_the_old_token_counts_while_both_are_set(path: str, setting: str) -> None:
    """So that a token can be changed without a gap."""
    other = flip(SECRET)
    for tokens in (f"{other},{SECRET}", f"{SECRET},{other}"):
        environ: dict[str, Any] = {f"AUTOSTOP_{setting}_TOKENS": tokens}
        here = receiver(path, **environ)
        send(here, path)
        assert len(here.handed) == 1


def test_the_clock_of_the_samples_is_that_of_the_receiver() -> None:
    """Or the windows above would mean nothing."""
    assert datetime.fromtimestamp(int(SENT), UTC) == NOW - timedelta(seconds=5)

"""Slack: the response to a command, its identity, and the URL for later messages."""

from __future__ import annotations

from typing import Any

import pytest
from slack_sdk.signature import Clock, SignatureVerifier

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.authentication import (
    BY_SIGNATURE,
    KEY,
    SECRET,
    SENT,
    encoded,
    receiver,
    sample,
    send,
    send_body,
)
from tests.inbound.webhooks.receiver import FORM, NOW, ONE, TWO, Receiver, flip, json_of, text_of

PATH = "/slack"


def typed(here: Receiver, text: str = f"stop {ONE}", **changes: Any) -> Answer:
    """Use a command whose name is not a verb."""
    return send(here, PATH, **{"text": text, "command": "/bms", **changes})


def test_the_author_alone_reads_what_was_understood(here: Receiver) -> None:
    """In text without markup of Slack."""
    answer = typed(here, f"stop {ONE} {TWO} because R&amp;D is done")
    assert (here.only().server_ids, here.only().reason) == ((ONE, TWO), "R&D is done")
    assert json_of(answer) == {
        "response_type": "ephemeral",
        "text": f"Understood: stop 2 servers: {ONE}, {TWO}. Reason: `R\uff06D is done`. "
        "The request was handed on. The result comes later.",
    }


def test_a_probe_of_the_certificate_is_200_and_nothing_else(here: Receiver) -> None:
    """Even one that carries a command."""
    answer = typed(here, ssl_check="1")
    assert (answer.status, answer.body, here.handed) == (200, b"", [])


def test_the_response_lists_the_first_ten_servers(here: Receiver) -> None:
    """All of them are handed on."""
    ids = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(25)]
    response = text_of(typed(here, f"stop {' '.join(ids)}"))
    assert f"{ids[9]} and 15 more." in response
    assert ids[10] not in response
    assert here.only().server_ids == tuple(ids)


def test_the_same_text_typed_again_is_another_event(here: Receiver) -> None:
    """Each use of a command has its trigger; without one the signature, which covers the time, is the identity."""
    for trigger, at in (("one", 0), ("another", 0), ("", 0), ("", 0), ("", 1)):
        send_body(here, PATH, sample(PATH, trigger_id=trigger), int(SENT) + at)
    one, another, signed, again, later = (request.id for request in here.handed)
    assert one != another
    assert signed == again != later


@pytest.mark.parametrize("url", ["", "javascript:alert(1)", "ftp://x/", "https://x/" + "y" * 2050, "https://[::1", "x"])
def test_a_response_url_that_is_not_http_is_dropped(here: Receiver, url: str) -> None:
    """The request is handed on without it."""
    typed(here, response_url=url)
    assert here.only().reply_to is None


# --- signatures: Slack's own verifier and ours accept the same


BODIES = {
    "command": encoded(PATH, sample(PATH)),
    "beyond ASCII": encoded(PATH, sample(PATH, text=f"stop {ONE} Übung ✓ 100 %")),
    "unencoded": f"text=stop {ONE} Übung&user_id=U2147483697&channel_id=C2147483705&trigger_id=1".encode(),
    "empty": b"",
}
TIME, SIGNATURE = "x-slack-request-timestamp", "x-slack-signature"


class FixedClock(Clock):
    """The clock of the samples."""

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return NOW.timestamp()


THEIRS = SignatureVerifier(SECRET, FixedClock())


def signed(body: bytes, at: int = int(SENT), key: bytes = KEY) -> dict[str, str]:
    """The headers that authenticate a body."""
    return {**FORM, **BY_SIGNATURE["slack"].sign(body, at, key)}


def ours(body: bytes, headers: dict[str, str]) -> bool:
    """Whether it is authenticated here; its content may still be malformed."""
    return receiver(PATH).post(PATH, body, headers).status != 401


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_slacks_code_makes_the_signature_that_is_accepted(body: bytes) -> None:
    """Over exactly these bytes; the other tests of Slack sign in the same way."""
    assert signed(body)[SIGNATURE] == THEIRS.generate_signature(timestamp=SENT, body=body)
    assert THEIRS.is_valid_request(body, signed(body))
    assert ours(body, signed(body))


@pytest.mark.parametrize("age", [-301, -300, -299, 0, 299, 300, 301])
def test_both_have_the_same_window(age: int) -> None:
    """Five minutes on either side."""
    body = BODIES["command"]
    headers = signed(body, int(NOW.timestamp()) - age)
    assert ours(body, headers) == THEIRS.is_valid_request(body, headers) == (abs(age) <= 300)


GOOD = signed(BODIES["command"])


@pytest.mark.parametrize(
    "headers",
    [
        signed(BODIES["command"], key=KEY + b"0"),
        signed(BODIES["command"] + b"x"),
        {**GOOD, TIME: str(int(SENT) + 1)},
        {**GOOD, SIGNATURE: flip(GOOD[SIGNATURE])},
        {**GOOD, SIGNATURE: GOOD[SIGNATURE].replace("v0=", "v1=")},
        {**GOOD, SIGNATURE: GOOD[SIGNATURE].replace("v0=", "V0=")},
        {TIME: SENT},
    ],
    ids=["key", "body", "time", "signature", "version", "case", "none"],
)
def test_both_refuse_the_same_forgeries(headers: dict[str, str]) -> None:
    """One thing is changed in each."""
    assert not THEIRS.is_valid_request(BODIES["command"], headers)
    assert not ours(BODIES["command"], headers)

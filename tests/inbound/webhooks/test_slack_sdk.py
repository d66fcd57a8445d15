"""Slack's own verifier and ours take and refuse the same."""

from __future__ import annotations

import pytest
from slack_sdk.signature import Clock, SignatureVerifier

from tests.inbound.webhooks.authentication import BY_SIGNATURE, KEY, SECRET, SENT, encoded, receiver, sample
from tests.inbound.webhooks.receiver import FORM, NOW, ONE, flip

BODIES = {
    "command": encoded("/slack", sample("/slack")),
    "beyond ASCII": encoded("/slack", sample("/slack", text=f"stop {ONE} Übung ✓ 100 %")),
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
    return receiver("/slack").post("/slack", body, headers).status != 401


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

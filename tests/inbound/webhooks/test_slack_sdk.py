"""Slack's own verifier and ours take and refuse the same."""

from __future__ import annotations

import pytest
from slack_sdk.signature import Clock, SignatureVerifier

from handler.inbound.webhooks.registry import switched_on
from handler.settings.receive_webhook import from_environ
from tests.inbound.webhooks.scene import FORM, NOW, ONE, Scene, flip, form, fresh_secret
from tests.inbound.webhooks.test_slack import SECRET, SENT, fields, scene, signed

BODIES = {
    "command": form(fields(f"stop {ONE}")),
    "beyond ASCII": form(fields(f"stop {ONE} Übung ✓ 100 %")),
    "unencoded": f"text=stop {ONE} Übung&user_id=U2147483697&channel_id=C2147483705&trigger_id=1".encode(),
    "empty": b"",
}


class Still(Clock):
    """The clock of the scene."""

    def now(self) -> float:
        """When it plays."""
        return NOW.timestamp()


THEIRS = SignatureVerifier(SECRET, Still())


def ours(here: Scene, body: bytes, headers: dict[str, str]) -> bool:
    """Whether it is authenticated; its content may still be malformed."""
    return here.post("/slack", body, headers).status != 401


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_signature_that_slacks_code_makes_opens(body: bytes) -> None:
    """Over the very bytes, whatever is in them."""
    made = THEIRS.generate_signature(timestamp=str(SENT), body=body)
    assert made is not None
    headers = {**FORM, "X-Slack-Request-Timestamp": str(SENT), "X-Slack-Signature": made}
    assert ours(scene(), body, headers)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_what_these_tests_sign_is_what_slack_signs(body: bytes) -> None:
    """So the other tests of Slack are about Slack."""
    assert THEIRS.is_valid_request(body, signed(body))


@pytest.mark.parametrize("age", [-301, -300, -299, 0, 299, 300, 301])
def test_both_have_the_same_window(age: int) -> None:
    """Five minutes on either side."""
    body, at = BODIES["command"], int(NOW.timestamp()) - age
    headers = signed(body, at)
    assert ours(scene(), body, headers) == THEIRS.is_valid_request(body, headers) == (abs(age) <= 300)


@pytest.mark.parametrize("forgery", ["secret", "body", "time", "signature", "version", "case", "none"])
def test_both_refuse_the_same_forgeries(forgery: str) -> None:
    """One thing changed at a time."""
    body = BODIES["command"]
    headers = signed(body)
    match forgery:
        case "secret":
            headers = signed(body, secret=fresh_secret())
        case "body":
            body = body[:-1] + b"x"
        case "time":
            headers["X-Slack-Request-Timestamp"] = str(SENT + 1)
        case "signature":
            headers["X-Slack-Signature"] = flip(headers["X-Slack-Signature"])
        case "version":
            headers["X-Slack-Signature"] = headers["X-Slack-Signature"].replace("v0=", "v1=")
        case "case":
            headers["X-Slack-Signature"] = headers["X-Slack-Signature"].replace("v0=", "V0=")
        case "none":
            del headers["X-Slack-Signature"]
    assert not THEIRS.is_valid_request(body, headers)
    assert not ours(scene(), body, headers)


def test_a_secret_of_their_form_is_taken_as_it_is() -> None:
    """Hexadecimal, and not decoded."""
    settings = from_environ({"AUTOSTOP_EVENT_SINK": "http://sink/", "AUTOSTOP_SLACK_SIGNING_SECRET": SECRET})
    assert "/slack" in switched_on(settings)
    assert settings.slack_signing_secret.reveal() == THEIRS.signing_secret

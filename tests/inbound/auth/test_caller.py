"""Who may call, and the handshake of a webhook sender."""

from __future__ import annotations

import hmac
from contextlib import nullcontext
from typing import Any

import pytest

from handler.errors import CallerForbidden, Unauthenticated
from handler.inbound.auth import caller
from tests.support.events import FakeHandler, binary, call_endpoint, event, settings, structured

TOKENS: dict[str, Any] = {
    "AUTOSTOP_INBOUND_AUTH": "bearer",
    "AUTOSTOP_BEARER_TOKENS": "first-token-of-two, second-token-of-two",
}


def test_without_auth_every_caller_may_call() -> None:
    """`none` requires no credentials, and ignores those that are sent."""
    caller.authenticate({}, settings().callers)
    caller.authenticate({"authorization": "Bearer whatever"}, settings().callers)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("Bearer first-token-of-two", True),
        ("Bearer second-token-of-two", True),
        ("bearer first-token-of-two", True),
        ("BEARER first-token-of-two", True),
        ("Bearer   first-token-of-two ", True),
        (None, False),
        ("", False),
        ("Bearer", False),
        ("Bearer ", False),
        ("Bearer wrong", False),
        ("Bearer first-token-of-tw", False),
        ("Bearer first-token-of-two2", False),
        ("Bearer FIRST-TOKEN-OF-TWO", False),
        ("Bearer first-token-of-two,Bearer first-token-of-two", False),
        ("Bearer first-token-of-two, second-token-of-two", False),
        ("Basic first-token-of-two", False),
        ("first-token-of-two", False),
        ("Bearer \xff\xfe", False),
        ("Bearer f\xefrst-token-of-two", False),
    ],
)
def test_each_token_authenticates_and_nothing_else_does(header: str | None, accepted: bool) -> None:
    """Old and new token both count while they rotate; the scheme's case does not matter."""
    headers = {} if header is None else {"authorization": header}
    with nullcontext() if accepted else pytest.raises(Unauthenticated):
        caller.authenticate(headers, settings(**TOKENS).callers)


def test_a_token_may_have_characters_beyond_ascii() -> None:
    """It arrives as UTF-8 bytes that WSGI shows as Latin-1."""
    known = settings(AUTOSTOP_INBOUND_AUTH="bearer", AUTOSTOP_BEARER_TOKENS="schlüssel-für-den-test").callers
    caller.authenticate({"authorization": "Bearer " + "schlüssel-für-den-test".encode().decode("latin-1")}, known)
    with pytest.raises(Unauthenticated):
        caller.authenticate({"authorization": "Bearer schlussel-für-den-test"}, known)


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A valid first token does not end the comparison, so the time taken reveals nothing."""
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def watched(sent: bytes, known: bytes) -> bool:
        compared.append((sent, known))
        return real(sent, known)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    caller.authenticate({"authorization": "Bearer first-token-of-two"}, settings(**TOKENS).callers)
    assert compared == [(b"first-token-of-two", b"first-token-of-two"), (b"first-token-of-two", b"second-token-of-two")]


@pytest.mark.parametrize(
    "message",
    [
        structured(b"{"),
        structured(event(id=None)),
        ({"content-type": "text/plain"}, b"hello"),
        structured(event(type="io.github.bms-autostop.stop.completed.v1")),
        binary(),
    ],
)
def test_an_unauthenticated_caller_learns_nothing_about_its_body(message: tuple[dict[str, str], bytes]) -> None:
    """The caller is authenticated before the body is read."""
    fake = FakeHandler()
    answer = call_endpoint(message, fake, headers={"authorization": "Bearer wrong"}, **TOKENS)
    assert (answer.status, fake.requests) == (401, [])
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="bms-autostop"'
    call_endpoint(binary(), fake, headers={"authorization": "Bearer second-token-of-two"}, **TOKENS)
    assert len(fake.requests) == 1


def test_without_an_origin_it_is_not_a_handshake() -> None:
    """A bare OPTIONS learns the methods, and gives no consent."""
    assert caller.consent({}, settings(AUTOSTOP_WEBHOOK_ORIGINS="*").callers) == {"Allow": "POST, OPTIONS"}


@pytest.mark.parametrize("origin", ["events.example.com", "EVENTS.example.com", " events.example.com "])
def test_an_allowed_origin_gets_consent(origin: str) -> None:
    """The answer names the origin as the settings write it."""
    allowed = settings(AUTOSTOP_WEBHOOK_ORIGINS="other.example.com, Events.Example.com").callers
    assert caller.consent({"webhook-request-origin": origin}, allowed) == {
        "Allow": "POST, OPTIONS",
        "WebHook-Allowed-Origin": "events.example.com",
        "WebHook-Allowed-Rate": "*",
    }


@pytest.mark.parametrize(
    ("origins", "origin"),
    [("", "events.example.com"), ("a.example.com", "b.example.com"), ("a.example.com", "*"), ("a.example.com", "")],
)
def test_another_origin_gets_none(origins: str, origin: str) -> None:
    """An origin that is not on the list may not subscribe; without a list none may."""
    with pytest.raises(CallerForbidden):
        caller.consent({"webhook-request-origin": origin}, settings(AUTOSTOP_WEBHOOK_ORIGINS=origins).callers)


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("120", "120"),
        ("007", "7"),
        ("0", "*"),
        ("", "*"),
        ("*", "*"),
        ("-5", "*"),
        ("1.5", "*"),
        ("many", "*"),
        ("1234567890", "*"),
        ("\u0661", "*"),
        ("\xb2", "*"),
    ],
)
def test_a_rate_that_is_a_number_is_granted(asked: str, granted: str) -> None:
    """Anything else gets no limit; nothing but digits is repeated, and no name of an origin where any is allowed."""
    headers = {"webhook-request-origin": "a.example", "webhook-request-rate": asked}
    answer = caller.consent(headers, settings(AUTOSTOP_WEBHOOK_ORIGINS="*").callers)
    assert (answer["WebHook-Allowed-Origin"], answer["WebHook-Allowed-Rate"]) == ("*", granted)


def test_the_handshake_needs_no_token() -> None:
    """A sender asks for consent before it has credentials."""
    headers = {"webhook-request-origin": "a.example"}
    answer = call_endpoint(({}, b""), method="OPTIONS", headers=headers, AUTOSTOP_WEBHOOK_ORIGINS="a.example", **TOKENS)
    assert (answer.status, answer.headers["WebHook-Allowed-Origin"]) == (200, "a.example")
    assert call_endpoint(({}, b""), method="OPTIONS", headers=headers, **TOKENS).status == 403

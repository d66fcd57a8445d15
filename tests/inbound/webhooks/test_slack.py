"""Slack: the response to a command, its identity, and the URL for later messages."""

from __future__ import annotations

from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.authentication import SENT, sample, send, send_body
from tests.inbound.webhooks.receiver import ONE, TWO, Receiver, json_of, text_of

PATH = "/slack"


def typed(here: Receiver, text: str = f"stop {ONE}", **changes: Any) -> Answer:
    """Use a command whose name is no verb."""
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

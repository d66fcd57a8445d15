"""The notice of a stop in a chat: which servers lose power, when, in whose time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest

from handler.outbound.chat import slack
from handler.outbound.chat.chat_message import Row, chat_message
from handler.services.notify_chat import _in_zone
from handler.settings.chat import ButtonAction, mac
from handler.stop.model import Reason, Report
from tests.outbound.chat.reports import BUTTONS, CHATS, document, reported, text_of
from tests.stop.fakes import NOW, id_of

BERLIN = ZoneInfo("Europe/Berlin")


def noticed(*reasons: Reason, due: datetime = NOW + timedelta(hours=1), name: str = "") -> Report:
    """The report of a notice; the dry run ended at 19:00 UTC."""
    return reported(*reasons, name=name, notice_for=due)._replace(dry_run=True)


@pytest.mark.parametrize(
    ("zone", "due", "words"),
    [
        (None, "2026-11-20T20:00:00+00:00", "at 20:00 UTC on 2026-11-20"),
        (BERLIN, "2026-11-20T20:00:00+00:00", "at 21:00 Europe/Berlin on 2026-11-20 (20:00 UTC)"),
        # The zone's rules count, not an offset.
        (BERLIN, "2027-07-01T18:00:00+00:00", "at 20:00 Europe/Berlin on 2027-07-01 (18:00 UTC)"),
        (BERLIN, "2026-11-20T23:30:00+00:00", "at 00:30 Europe/Berlin on 2026-11-21 (23:30 UTC on 2026-11-20)"),
        (
            ZoneInfo("America/New_York"),
            "2026-11-21T00:30:59+00:00",
            "at 19:30 America/New_York on 2026-11-20 (00:30 UTC on 2026-11-21)",
        ),
        (ZoneInfo("Etc/UTC"), "2026-11-20T20:00:00+00:00", "at 20:00 UTC on 2026-11-20"),
    ],
)
def test_the_time_is_that_of_the_reader_and_utc(zone: tzinfo | None, due: str, words: str) -> None:
    """To the minute, with the day of each where they differ."""
    report = _in_zone(noticed(Reason.DRY_RUN, due=datetime.fromisoformat(due)), zone)
    assert isinstance(report, Report)
    assert chat_message(report, 5).headline == f"1 server will lose power {words} unless kept. Nothing was sent yet."


@pytest.mark.parametrize("chat", CHATS)
def test_each_chat_names_the_servers_that_lose_power_first(chat: str) -> None:
    """Before those that are left running, with how to keep one."""
    text = text_of(chat, noticed(Reason.PROTECTED, Reason.DRY_RUN, Reason.ALREADY_STOPPED))
    assert "1 server will lose power at 20:00 UTC on 2026-11-20 unless kept." in text
    assert "Other servers: 1 skipped, 1 unchanged." in text
    assert text.index("Will lose power: 1") < text.index("Skipped (protected): 1")
    assert "keep ID 2h" in text
    assert "ci-01" in text


def test_the_servers_that_a_button_may_keep_are_those_that_lose_power() -> None:
    """And no others; a dry run that gives no notice offers none."""
    report = noticed(Reason.PROTECTED, Reason.DRY_RUN, Reason.DRY_RUN)
    assert chat_message(report, 1).keepable == (id_of(1), id_of(2))
    assert chat_message(reported(Reason.DRY_RUN), 1).keepable == ()
    assert chat_message(reported(Reason.DRY_RUN), 1).keep_until is None


@pytest.mark.parametrize("zone", [None, BERLIN])
def test_a_button_keeps_until_two_hours_after_the_stop(zone: tzinfo | None) -> None:
    """Also over a change of the clocks: on 2027-03-28 there is no 02:30 in Berlin."""
    due = datetime(2027, 3, 28, 0, 30, tzinfo=UTC)
    report = noticed(Reason.DRY_RUN, due=due)._replace(finished_at=due - timedelta(hours=1))
    message = chat_message(_in_zone(report, zone), 5)
    assert message.keep_until == due + timedelta(hours=2)
    shown = "04:30 Europe/Berlin on 2027-03-28 (02:30 UTC)" if zone else "02:30 UTC on 2027-03-28"
    assert message.keep_hint == f"A click on Keep 2 h keeps its server running until {shown}."
    button = message.keep_button(Row(id_of(0), "", ""))
    assert button is not None
    assert (button.action, button.value) == (ButtonAction.KEEP, f"{id_of(0)} until 2027-03-28T02:30:00Z")
    assert message.keep_button(Row(id_of(1), "", "")) is None


@pytest.mark.parametrize("chat", ["slack", "mattermost"])
@pytest.mark.parametrize(("count", "buttons"), [(1, 1), (10, 10), (11, 0)])
def test_a_button_is_beside_each_server_that_loses_power(chat: str, count: int, buttons: int) -> None:
    """Up to ten; for more of them the message says what to type, as always."""
    report = noticed(Reason.PROTECTED, *[Reason.DRY_RUN] * count, name="n" * 60)
    made = document(chat, report)
    assert [value for value in values(made) if " until " in value] == [
        f"{id_of(number)} until 2026-11-20T22:00:00Z" for number in range(1, buttons + 1)
    ]
    assert ("A click on Keep 2 h" in json.dumps(made)) == bool(buttons)
    assert "keep ID 2h" in text_of(chat, report)


def values(node: object) -> Iterator[str]:
    """What the buttons of a message carry."""
    match node:
        case {"value": str(value)}:
            yield value
        case dict():
            for inner in node.values():
                yield from values(inner)
        case list():
            for inner in node:
                yield from values(inner)


def test_a_button_of_slack_stands_in_the_block_of_its_server() -> None:
    """Its words are ours alone."""
    blocks = document("slack", noticed(Reason.DRY_RUN, Reason.DRY_RUN))["blocks"]
    found = [block for block in blocks if "accessory" in block]
    assert len(found) == 2
    for block in found:
        assert block["accessory"]["value"].split()[0] in block["text"]["text"]
        assert block["accessory"]["text"]["text"] == "Keep 2 h"
        assert len(block["accessory"]["value"]) <= 2000


def test_servers_that_do_not_fit_have_no_button_and_are_counted() -> None:
    """The message says how to keep those by a command."""
    report = noticed(*[Reason.DRY_RUN] * 10, *[Reason.PROTECTED] * 20, name="n" * 60)
    blocks = list(slack._blocks(chat_message(report, 5)))
    assert len(list(values(blocks))) == 5
    assert {"type": "section", "text": {"type": "plain_text", "text": "• and 5 more", "emoji": False}} in blocks


def test_the_buttons_of_mattermost_have_ids_of_their_own_and_a_mac() -> None:
    """Mattermost looks a click's action up by its id, which it takes with letters and digits only."""
    report = noticed(Reason.DRY_RUN, Reason.DRY_RUN)
    _, *attachments = document("mattermost", report)["attachments"]
    actions = [action for attachment in attachments for action in attachment["actions"]]
    ids = [action["id"] for action in actions]
    assert len(set(ids)) == 2
    assert all(id_.isalnum() and id_.isascii() for id_ in ids)
    for attachment, action in zip(attachments, actions, strict=True):
        context = action["integration"]["context"]
        assert context["value"].split()[0] in attachment["text"]
        assert context["mac"] == mac(BUTTONS.key.reveal(), ButtonAction.KEEP, context["value"])
    assert b"attachments" not in CHATS["mattermost"].message(report, False, None)


def test_a_notice_without_a_server_that_loses_power_says_so() -> None:
    """And why not."""
    headline = chat_message(noticed(Reason.KEPT_UNTIL), 5).headline
    assert headline.startswith("No server will lose power at 20:00 UTC on 2026-11-20. Other servers: 1 skipped.")


def test_a_notice_that_comes_too_late_does_not_say_what_will_be() -> None:
    """The time has passed."""
    message = chat_message(noticed(Reason.DRY_RUN, due=NOW), 5)
    assert message.headline.startswith("This notice came too late: the stop was due at 19:00 UTC on 2026-11-20.")
    assert "will lose power" not in message.groups[0].title.lower()
    assert (message.keepable, message.keep_until, message.keep_hint) == ((), None, "")

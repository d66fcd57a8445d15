"""The notice of a stop in a chat: which servers lose power, when, in whose time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest

from handler.outbound.chat.chat_message import chat_message
from handler.services.notify_chat import _in_zone
from handler.stop.model import Reason, Report
from tests.outbound.chat.reports import CHATS, reported, sampled, spoken
from tests.stop.fakes import NOW, id_of

BERLIN = ZoneInfo("Europe/Berlin")


def noticed(*reasons: Reason, due: datetime = NOW + timedelta(hours=1), name: str = "") -> Report:
    """The report of a notice; the dry run ended at 19:00 UTC."""
    return replace(reported(*reasons, name=name, notice_for=due), dry_run=True)


@pytest.mark.parametrize(
    ("zone", "due", "words"),
    [
        (None, "2026-11-20T20:00:00+00:00", "at 20:00 UTC on 2026-11-20"),
        (BERLIN, "2026-11-20T20:00:00+00:00", "at 21:00 Europe/Berlin on 2026-11-20 (20:00 UTC)"),
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


def test_a_notice_in_the_readers_summer_has_the_summers_hour() -> None:
    """The zone's rules count, not an offset."""
    report = noticed(Reason.DRY_RUN, due=datetime(2027, 7, 1, 18, 0, tzinfo=UTC))
    report = replace(report, finished_at=datetime(2027, 7, 1, 17, 0, tzinfo=UTC))
    localized = _in_zone(report, BERLIN)
    assert isinstance(localized, Report)
    assert "at 20:00 Europe/Berlin on 2027-07-01 (18:00 UTC)" in chat_message(localized, 5).headline


@pytest.mark.parametrize("chat", CHATS)
def test_each_chat_names_the_servers_that_lose_power_first(chat: str) -> None:
    """Before those that are left running, with how to keep one."""
    text = spoken(chat, noticed(Reason.PROTECTED, Reason.DRY_RUN, Reason.ALREADY_STOPPED))
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


def test_no_server_that_loses_power_is_said_so() -> None:
    """And why not."""
    message = chat_message(noticed(Reason.KEPT_UNTIL), 5)
    assert message.headline.startswith(
        "No server will lose power at 20:00 UTC on 2026-11-20. Other servers: 1 skipped."
    )


def test_a_notice_that_comes_too_late_does_not_say_what_will_be() -> None:
    """The time has passed."""
    message = chat_message(noticed(Reason.DRY_RUN, due=NOW), 5)
    assert message.headline.startswith("This notice came too late: the stop was due at 19:00 UTC on 2026-11-20.")
    assert "will lose power" not in message.groups[0].title.lower()


def test_the_sample_is_reported_as_a_notice() -> None:
    """As it is in events/samples/out."""
    assert chat_message(sampled("completed-notice"), 5).headline.startswith("2 servers will lose power at 19:00 UTC")

"""What every message has, and what it must not have: more than fits the chat, anything untrue, untrusted markup."""

from __future__ import annotations

import itertools
import json
import re
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.outbound.chat import mattermost
from handler.outbound.chat.chat_message import chat_message, fitted, one_line
from handler.settings.chat import mac
from handler.stop.decide import decide
from handler.stop.model import Outcome, Policy, Reason, Refusal, Report, ServerResult
from handler.stop.selection import news
from tests.outbound.chat.reports import BUTTONS, CHATS, document, reported, text_of
from tests.stop.fakes import NOW, asked, id_of, seen

EVERY = tuple(Reason)
REAL = tuple(reason for reason in EVERY if reason is not Reason.DRY_RUN)
SIZES = {"one": (Reason.BUSY,), "twenty": (*REAL, Reason.CONFIRMED), "a thousand": REAL * 52 + REAL[:12]}
# Everything that is markup, a mention, a link, or the end of what it stands in, somewhere.
MARKUP = (
    "<!channel> <@U1> @all @here `` ` *b* _i_ ~s~ [l](http://evil/) <http://evil/|x> &lt; <at>x</at> :tada: #tag\n> q"
)


@pytest.mark.parametrize("reason", EVERY)
def test_stopped_is_said_of_servers_that_were_seen_stopped_and_of_no_others(reason: Reason) -> None:
    """The word is used for `stopped`, and for a server that was stopped already; not for one with only a stop sent."""
    for chat in CHATS:
        shown = re.search(r"\bstopped\b", text_of(chat, reported(reason)), re.IGNORECASE)
        assert bool(shown) is (reason.outcome is Outcome.STOPPED or reason is Reason.ALREADY_STOPPED)


@pytest.mark.parametrize(
    "state", ["active", "error", "active/rebooting", "active/deleting", "active/powering-on", "paused", "building"]
)
@pytest.mark.parametrize("facts", [{}, {"locked": True}, {"launched": False}, {"tags": frozenset({"autostop=never"})}])
def test_what_the_decision_says_of_a_server_that_is_not_stopped_never_calls_it_so(
    state: str, facts: dict[str, Any]
) -> None:
    """The details of the real decisions are reported too, so they are checked with their own words."""
    server = seen(state, **facts)
    decision = decide(server, asked(server.id), Policy(), NOW)
    row = ServerResult(server.id, decision.reason, decision.detail, vm_state=server.vm_state)
    report = reported(Reason.BUSY)._replace(servers=(row,), dry_run=decision.reason is Reason.DRY_RUN)
    for chat in CHATS:
        assert not re.search(r"\bstopped\b", text_of(chat, report), re.IGNORECASE)


@pytest.mark.parametrize("chat", CHATS)
def test_each_reason_and_refusal_is_a_sentence(chat: str) -> None:
    """No reader has to look a word up, or another page."""
    for reason in EVERY:
        assert reason.meaning in text_of(chat, reported(reason))
    for refusal in Refusal:
        text = text_of(chat, reported(refusal=refusal))
        assert f"Refused as a whole; nothing was sent to the cloud this time. {refusal.meaning}" in text
        assert "Asked to stop" not in text


@pytest.mark.parametrize("chat", CHATS)
def test_what_went_wrong_comes_first(chat: str) -> None:
    """Failed, then accepted and not confirmed, then skipped, then the rest, whatever their order in the event was."""
    text = text_of(
        chat, reported(Reason.CONFIRMED, Reason.ALREADY_STOPPED, Reason.LOCKED, Reason.ACCEPTED, Reason.BUSY)
    )
    words = ["Failed (busy)", "Accepted, not confirmed:", "Skipped (locked)", "Stopped:", "Unchanged (already-stopped)"]
    assert sorted(words, key=text.index) == words


_CET = timezone(timedelta(hours=1))
_TIMES = "From 2026-11-20 19:00:00 UTC to 2026-11-20 19:00:05 UTC."
_PLANNED = reported(Reason.NEEDS_APPROVAL)
SAID = {
    "a dry run": (
        reported(Reason.DRY_RUN, Reason.LOCKED),
        ["Dry run, nothing was sent: 2 servers, of which 1 skipped, 1 would be switched off."],
    ),
    "who, why and when, in UTC": (
        reported(Reason.BUSY, requested_by="ada", reason="weekend", id="e-7", source="/me")._replace(
            started_at=NOW.astimezone(_CET),
            finished_at=NOW + timedelta(seconds=5),
        ),
        ["Asked by: ada", "Reason: weekend", "Event: e-7 from /me", _TIMES],
    ),
    "the event as a whole": (reported()._replace(detail="No server fits."), ["No server fits."]),
    "no server": (reported(), ["Asked to stop: 0 servers, so there was nothing to do."]),
    "a plan": (
        _PLANNED,
        ["An approval is needed, nothing was sent", "another person than the requester", "approve dG9rZW4"],
    ),
}


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("case", SAID)
def test_each_chat_says(chat: str, case: str) -> None:
    """What the reader needs, in every chat."""
    report, words = SAID[case]
    text = text_of(chat, report).replace("`", "")
    assert [line for line in words if line not in text] == []


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("count", [0, 51])
def test_what_a_selector_fits_calls_no_server_stopped(chat: str, count: int) -> None:
    """The real sentences about the event as a whole are reported as they are."""
    report = reported()._replace(detail=news(count, Policy()))
    assert str(report.detail) in text_of(chat, report)
    assert "stopped" not in text_of(chat, report)


@pytest.mark.parametrize("chat", CHATS)
def test_twenty_servers_are_all_there(chat: str) -> None:
    """By name and by id, which is what one types to try again."""
    text = text_of(chat, reported(*[Reason.BUSY] * 4, *[Reason.LOCKED] * 3, *[Reason.CONFIRMED] * 13))
    for number in range(20):
        assert f"ci-{number:02}" in text
        assert id_of(number) in text
    assert " more" not in text


@pytest.mark.parametrize("chat", CHATS)
def test_of_a_thousand_servers_the_failed_ones_are_listed_and_all_are_counted(chat: str) -> None:
    """The rest is a number."""
    text = text_of(chat, reported(*[Reason.CONFIRMED] * 995, *[Reason.BUSY] * 5))
    assert "1000 servers, of which 5 failed, 995 stopped" in text
    assert all(id_of(number) in text for number in range(995, 1000))
    (more,) = re.findall(r"and (\d+) more", text)
    assert text.count("00000000-0000-4000-8000-") + int(more) == 1000


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", [MARKUP, "&" * 400, "\U0001f989" * 400], ids=["markup", "entities", "wide"])
def test_a_message_stays_within_the_limits_of_its_chat(chat: str, size: str, text: str) -> None:
    """At 1, 20 and 1000 servers with every reason there is, whatever they are called."""
    report = reported(*SIZES[size], name=text, detail=text, requested_by=text, reason=text, id=text, source=text)
    assert within(chat, document(chat, report._replace(detail=text), reply=True))


@pytest.mark.parametrize("chat", ["slack", "mattermost", "teams", "rocketchat"])
def test_a_message_gets_shorter_if_its_chat_takes_less(chat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chat has its own limit."""
    report = reported(*[Reason.BUSY] * 30)
    assert text_of(chat, report).count("ci-") == 30
    name = {"slack": "_LONGEST_IN_ALL", "teams": "_LARGEST"}.get(chat, "_LONGEST")
    monkeypatch.setattr(CHATS[chat], name, 2000)
    assert 0 < text_of(chat, report).count("ci-") < 30


def within(chat: str, made: Any) -> bool:
    """Whether a chat takes a message of this size, as its makers say."""
    match chat:
        case "slack":
            return fits_slack(made)
        case "mattermost":
            return len(made["text"]) <= 16383
        case "rocketchat":
            return len(made["text"]) <= 5000
        case "teams":
            return len(json.dumps(made).encode()) <= 28 * 1024
        case _:
            return True


def fits_slack(made: Any) -> bool:
    """Slack counts blocks, the elements of a context, and the characters of each text."""
    sections = [block["text"] for block in made["blocks"] if block["type"] == "section"]
    contexts = [block["elements"] for block in made["blocks"] if block["type"] == "context"]
    return (
        len(made["blocks"]) <= 50
        and all(1 <= len(text["text"]) <= 3000 for text in itertools.chain(sections, *contexts))
        and all(len(elements) <= 10 for elements in contexts)
        and len(json.dumps(made["blocks"], ensure_ascii=False)) <= 13_000
    )


def test_the_limits_here_can_be_broken() -> None:
    """They would notice a message that is too large."""
    report = reported(*[Reason.BUSY] * 1000)
    for chat in ("mattermost", "rocketchat"):
        everything = " ".join(row.id for group in chat_message(report, 1000).groups for row in group.rows)
        assert not within(chat, {"text": everything})
    assert not fits_slack({"blocks": [{"type": "section", "text": {"text": "x" * 3001}}]})


def test_fewer_are_listed_until_it_fits() -> None:
    """As many of all groups as there is room for, and none if there is room for none."""
    report = reported(*[Reason.BUSY] * 20, *[Reason.LOCKED] * 20)

    def listed(most: int) -> int:
        return fitted(report, lambda made: sum(len(group.rows) for group in made.groups), lambda rows: rows <= most)

    assert [listed(most) for most in (100, 29, 12, 7, 3)] == [30, 20, 10, 5, 0]
    assert [*chat_message(report, 0).groups[0].lines("-")] == ["- 20 not listed here"]


# --- text from outside

outside = st.text(max_size=80) | st.sampled_from(
    [MARKUP, "", " ", "`", "```", "\n# h", "\u202etxt.exe", "@channel", "&amp;"]
)


@st.composite
def untrusted(draw: st.DrawFn) -> Report:
    """A report in which all untrusted input is as bad as it can be."""
    reasons = draw(st.lists(st.sampled_from(EVERY), max_size=4))
    rows = tuple(
        ServerResult(id_of(number), reason, draw(outside), name=draw(outside), vm_state=draw(outside))
        for number, reason in enumerate(reasons)
    )
    request = asked()._replace(id=draw(outside), source=draw(outside), reason=draw(outside), requested_by=draw(outside))
    return reported()._replace(request=request, servers=rows, detail=draw(outside))


@given(untrusted())
def test_in_slack_it_stands_in_plain_text_and_controls_nothing(report: Report) -> None:
    """The markup is the same as without it, and nothing in angle brackets is left anywhere."""
    made = document("slack", report, reply=True)
    bare = document("slack", report._replace(servers=tuple(row._replace(name="", detail="") for row in report.servers)))
    assert marked(made["blocks"]) == marked(bare["blocks"])
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text_of("slack", report))


def marked(blocks: list[Any]) -> list[str]:
    """The texts in which Slack reads markup."""
    return [block["text"]["text"] for block in blocks if block.get("text", {}).get("type") == "mrkdwn"]


@given(untrusted())
def test_in_markdown_it_is_in_code_and_mentions_no_user(report: Report) -> None:
    """Take the code spans out, and what is left is the same whatever came from outside; no `@` is left in any."""
    for chat, bold in (("mattermost", "**"), ("rocketchat", "*")):
        text = document(chat, report)["text"]
        assert "@" not in text
        # One span of it ends where it began: in its line.
        assert all(line.count("`") % 2 == 0 for line in text.split("\n"))
        rest = re.sub(r"`[^`\n]+`", "", text)
        assert re.fullmatch(r"[A-Za-z0-9 :;,.()*\n-]*", rest), rest
        assert text.startswith(f"{bold}Asked to stop: ")


@given(untrusted())
def test_in_teams_it_stands_in_text_runs(report: Report) -> None:
    """Nothing else in a card is read without Markdown; and a card without entities mentions no user."""
    card = document("teams", report)["attachments"][0]["content"]
    for element in card["body"]:
        if element["type"] == "TextBlock":
            assert re.fullmatch(r"[A-Za-z0-9 :;,.()-]*", element["text"])
    assert "entities" not in card["msteams"]
    assert {element["type"] for element in card["body"]} <= {"TextBlock", "RichTextBlock"}


@given(st.text())
def test_a_text_from_outside_is_one_line_of_what_can_be_seen(text: str) -> None:
    """No line of it can pass for one of ours, and none of its characters turns others round."""
    line = one_line(text, 50)
    assert line.isprintable()
    assert len(line) <= 50
    assert line == line.strip()
    line.encode()


def test_a_long_text_is_cut_and_shows_it() -> None:
    """The reader sees that there is more."""
    assert one_line("x" * 51, 50) == "x" * 49 + "…"
    assert one_line("x" * 50, 50) == "x" * 50
    assert one_line(None, 50) == ""


@pytest.mark.parametrize("chat", CHATS)
def test_a_server_without_a_name_is_reported_by_its_id(chat: str) -> None:
    """It was never seen, or its name is empty."""
    report = reported(Reason.NOT_FOUND)
    report = report._replace(servers=tuple(row._replace(name=" ") for row in report.servers))
    text = text_of(chat, report)
    assert id_of(0) in text
    assert "()" not in text
    assert "``" not in text


def test_an_answer_to_a_command_is_seen_by_the_whole_channel() -> None:
    """As far as a chat makes a difference; a configured webhook needs no such words."""
    report = reported(Reason.CONFIRMED)
    for chat in ("slack", "mattermost"):
        assert document(chat, report, reply=True)["response_type"] == "in_channel"
        assert "response_type" not in document(chat, report)
    assert document("slack", report, reply=True)["replace_original"] is False


@pytest.mark.parametrize("chat", CHATS)
def test_a_token_that_is_too_long_for_a_chat_is_not_shown(chat: str) -> None:
    """The message names what to use instead, and has no buttons."""
    assert _PLANNED.plan is not None
    report = _PLANNED._replace(plan=_PLANNED.plan._replace(token="x" * 1901))
    assert "x" * 100 not in json.dumps(document(chat, report))
    assert "autostopapprove" not in json.dumps(document(chat, report))
    assert "with the command line or an event" in text_of(chat, report)


def test_the_buttons_of_mattermost_need_an_address() -> None:
    """Without one there are none."""
    assert b"actions" not in mattermost.message(_PLANNED, False, None)
    (attachment,) = document("mattermost", _PLANNED)["attachments"]
    approve, discard = attachment["actions"]
    assert approve["integration"]["url"] == BUTTONS.url
    context = approve["integration"]["context"]
    assert context["value"] == "dG9rZW4"
    assert context["mac"] == mac(BUTTONS.key.reveal(), context["action"], context["value"])
    assert (approve["id"].isalnum(), discard["id"].isalnum()) == (True, True)

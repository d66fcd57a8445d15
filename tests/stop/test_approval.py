"""Plans and approvals: what a token holds, what it refuses, and which servers an approval covers."""

from __future__ import annotations

import base64
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import StateConflict
from handler.stop.approval import ApprovedReview, Plan, PlanReview, issue, refuses_approver, seen_of, verify
from handler.stop.evidence import Action, History, Lookup, UnreadEntry
from handler.stop.model import Approver, Outcome, Policy, Reason, Refusal, Server
from handler.stop.ports import Taken
from tests.stop.fakes import ID, NOW, Scenario, Script, acts, id_of, seen

KEY, OTHER_KEY = b"a" * 32, b"b" * 32
AUDIENCE = "/bms-autostop"
REQUESTER, ANOTHER = "slack:T1/U1", "slack:T1/U2"
EXPIRES = NOW + timedelta(minutes=15)
UPDATED = NOW - timedelta(hours=1)
CREATED = Action("create", NOW - timedelta(days=9), "req-create")


def plan(servers: int = 1, **facts: Any) -> Plan:
    """A plan for so many servers."""
    return replace(
        Plan(
            plan_id=str(uuid.UUID(int=7)),
            source="/teams/a",
            id="event-1",
            requester=REQUESTER,
            approver=Approver.OTHER,
            expires_at=EXPIRES,
            seen={id_of(number): number.to_bytes(8, "big") for number in range(1, servers + 1)},
        ),
        **facts,
    )


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def refusal(
    token: str,
    *,
    keys: tuple[bytes, ...] = (KEY,),
    audience: str = AUDIENCE,
    approved_by: str = ANOTHER,
    now: datetime = NOW,
) -> Refusal | None:
    """What is refused about a token."""
    return verify(token, keys, audience, approved_by, now)[1]


# --- the token ---


def test_a_token_gives_back_the_plan() -> None:
    """Nothing is stored: what the token says is all there is."""
    assert verify(issue(plan(3), (KEY,), AUDIENCE), (KEY,), AUDIENCE, ANOTHER, NOW) == (plan(3), None)


def test_a_token_may_end_with_any_character() -> None:
    """Only the padding of base64 is left out."""
    ends = set()
    for number in range(600):
        wanted = plan(id=f"e-{number}")
        token = issue(wanted, (KEY,), AUDIENCE)
        ends.add(token[-1])
        assert verify(token, (KEY,), AUDIENCE, ANOTHER, NOW) == (wanted, None)
    assert "X" in ends


@pytest.mark.parametrize(
    ("facts", "token"),
    [
        (
            {},
            "ATBOvY0BAaH6YisgVkGHzGmUOaBsgKkBAAAAAAAAAAAAAAAAAAAABwgvdGVhbXMvYQdldmVudC0xC3NsYWNrOlQxL1UxAAAAAAAAQACAAAAAAAAAAQAAAAAAAAABFqCCTAhNhihUIulb8w9wfUoQ-cdw5fSI1CE01f8lcak",
        ),
        (
            {"source": "s" * 32, "id": "i" * 36, "requester": f"slack:T1/{'U' * 70}", "approver": Approver.SELF},
            "ATBOvY0AAaH6YisgVkGHzGmUOaBsgKkBAAAAAAAAAAAAAAAAAAAAByBzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3NzcyRpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlPc2xhY2s6VDEvVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVQAAAAAAAEAAgAAAAAAAAAEAAAAAAAAAAcY_Mq05kvHfP7rr3wQqul8vwdna6pFVVAwG78gN_TQE",
        ),
        (
            {"source": "s" * 33, "id": "i" * 37, "requester": f"oidc:T:1/{'U' * 80}"},
            "ATBOvY0BAaH6YisgVkGHzGmUOaBsgKkBAAAAAAAAAAAAAAAAAAAABx1zaGEyNTY6a3VHRXZjYVQwWl9Sb0gzMFU3T1pBQR1zaGEyNTY6czl6NWFfUGhrdmZZUmFNb1BZbDVsdzNvaWRjOn5PZk5HUV9HR2RUM2V5TFQtYmMzNzBBL0VmQzBsc1kxbHlHVWt4Y3FqNkJPNUEAAAAAAABAAIAAAAAAAAABAAAAAAAAAAHF3OICHPpz0HjiHjfUVL597GVMXFmw--EvMYBf-kCJDg",
        ),
        (
            {"requester": f"mail:{'u' * 80}"},
            "ATBOvY0BAaH6YisgVkGHzGmUOaBsgKkBAAAAAAAAAAAAAAAAAAAABwgvdGVhbXMvYQdldmVudC0xHG1haWw6fkVmQzBsc1kxbHlHVWt4Y3FqNkJPNUEAAAAAAABAAIAAAAAAAAABAAAAAAAAAAH4Q1fuN_7MLePnTxBZVQdNM7o0k6sQrUaJWHYERhp-gA",
        ),
        (
            {"requester": None},
            "ATBOvY0BAaH6YisgVkGHzGmUOaBsgKkBAAAAAAAAAAAAAAAAAAAABwgvdGVhbXMvYQdldmVudC0xAAAAAAAAAEAAgAAAAAAAAAEAAAAAAAAAAeOz-LrDmXns-ghHSq0_4E35yJv2oTcaAFJtEUo3fOAn",
        ),
    ],
)
def test_the_form_of_a_token_stays(facts: dict[str, Any], token: str) -> None:
    """A plan of one release is approved in the next."""
    assert issue(plan(**facts), (KEY,), AUDIENCE) == token


# Lengths in bytes around those from which on a text is replaced by its hash, and far beyond.
@pytest.mark.parametrize("source", ["s" * 32, "s" * 33, "ü" * 150])
@pytest.mark.parametrize("id_", ["i" * 36, "i" * 37, "\U0001f5a5" * 75])
@pytest.mark.parametrize(
    "requester", [f"slack:{'u' * 73}", f"slack:{'u' * 74}", f"system-of-16-chr:{'t' * 90}/{'u' * 90}"]
)
def test_a_token_for_50_servers_has_at_most_1900_characters(source: str, id_: str, requester: str) -> None:
    """A button of Slack holds 2,000 characters."""
    wanted = plan(50, source=source, id=id_, requester=requester)
    token = issue(wanted, (KEY,), AUDIENCE)
    assert len(token) <= 1900
    found, refused = verify(token, (KEY,), AUDIENCE, requester, NOW)
    assert refused is Refusal.APPROVAL_SELF
    assert found is not None
    assert found.seen == wanted.seen


def test_every_bit_of_a_token_counts() -> None:
    """Whichever single bit is flipped, in the text or in what it encodes, the token is not accepted."""
    token = issue(plan(2), (KEY,), AUDIENCE)
    texts = [
        token[:at] + chr(ord(character) ^ 1 << bit) + token[at + 1 :]
        for at, character in enumerate(token)
        for bit in range(8)
    ]
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for at, byte in enumerate(raw):
        for bit in range(8):
            texts.append(_base64(raw[:at] + bytes([byte ^ 1 << bit]) + raw[at + 1 :]))
    assert {refusal(text) for text in texts} == {Refusal.APPROVAL_INVALID}
    assert refusal(token) is None


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_a_token_has_one_spelling(servers: int) -> None:
    """Padding, another alphabet, blanks, or trailing bits that are not zero are not accepted."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # The lengths of the source make each remainder of three bytes.
    for extra in ("", "x", "xx"):
        token = issue(plan(servers, source=f"/s{extra}"), (KEY,), AUDIENCE)
        assert refusal(token) is None
        others = [f"{token}=", f"{token}==", f" {token}", f"{token}\n", f"{token}A", token[:-1], ""]
        last = alphabet.index(token[-1])
        others += [token[:-1] + alphabet[last ^ bits] for bits in range(1, 4)]
        if "-" in token or "_" in token:
            others.append(token.translate(str.maketrans("-_", "+/")))
        assert {refusal(text) for text in others} == {Refusal.APPROVAL_INVALID}


@given(st.text(max_size=300) | st.binary(max_size=200).map(lambda raw: _base64(b"\x01" + raw)))
def test_any_other_text_is_no_token(text: str) -> None:
    """A text that this deployment did not sign is refused, and never an error."""
    assert refusal(text) is Refusal.APPROVAL_INVALID


LATE = EXPIRES + timedelta(days=1)


@pytest.mark.parametrize(
    ("facts", "refused"),
    [
        ({}, None),
        # The first key signs, and all verify: a key is added behind the old one, moved to the front, and the old one
        # removed when its tokens have expired.
        ({"keys": (OTHER_KEY, KEY)}, None),
        ({"keys": (OTHER_KEY,)}, Refusal.APPROVAL_INVALID),
        ({"keys": ()}, Refusal.APPROVAL_INVALID),
        ({"audience": "/elsewhere"}, Refusal.APPROVAL_INVALID),
        ({"now": EXPIRES - timedelta(milliseconds=1)}, None),
        ({"now": EXPIRES}, Refusal.APPROVAL_EXPIRED),
        # Signature, audience, expiry, approver: in this order.
        ({"keys": (OTHER_KEY,), "now": LATE, "approved_by": REQUESTER}, Refusal.APPROVAL_INVALID),
        ({"audience": "/elsewhere", "now": LATE, "approved_by": REQUESTER}, Refusal.APPROVAL_INVALID),
        ({"now": LATE, "approved_by": REQUESTER}, Refusal.APPROVAL_EXPIRED),
        ({"approved_by": REQUESTER}, Refusal.APPROVAL_SELF),
    ],
)
def test_a_token_is_for_one_deployment_a_time_and_an_approver(facts: dict[str, Any], refused: Refusal | None) -> None:
    """What is wrong first is what is refused."""
    assert refusal(issue(plan(), (KEY, OTHER_KEY), AUDIENCE), **facts) is refused


@pytest.mark.parametrize(
    ("approver", "requester", "approved_by", "allowed"),
    [
        (Approver.OTHER, REQUESTER, ANOTHER, True),
        (Approver.OTHER, REQUESTER, REQUESTER, False),
        (Approver.OTHER, REQUESTER, "slack:t1/u1", False),
        (Approver.OTHER, REQUESTER, "slack:T2/U2", False),
        (Approver.OTHER, REQUESTER, "mattermost:u2", False),
        (Approver.OTHER, None, REQUESTER, True),
        (Approver.OTHER, "agent:planner", REQUESTER, True),
        (Approver.OTHER, "agent:planner", "agent:planner", False),
        (Approver.OTHER, "agent:planner", "agent:other", False),
        (Approver.OTHER, "AGENT:planner", REQUESTER, True),
        (Approver.SELF, REQUESTER, REQUESTER, True),
        (Approver.SELF, REQUESTER, "mattermost:u2", True),
        (Approver.SELF, "agent:planner", "agent:planner", False),
        (Approver.OTHER, f"teams:{'t' * 100}/one", f"teams:{'t' * 100}/two", True),
        (Approver.OTHER, f"teams:{'t' * 100}/one", f"teams:{'T' * 100}/ONE", False),
        (Approver.OTHER, f"teams:{'t' * 100}/one", f"teams:{'x' * 100}/two", False),
        (Approver.OTHER, f"mail:{'t' * 100}", f"mail:{'x' * 100}", True),
        (Approver.OTHER, "oidc:T:1/a", "oidc:T:1/b", True),
        (Approver.OTHER, "oidc:T:1/a", "oidc:U:1/b", False),
        (Approver.OTHER, "oidc:T/a:1", "oidc:T/b:1", True),
        (Approver.OTHER, "agent:a:b", "oidc:T/b", True),
        (Approver.SELF, REQUESTER, "agent:a:b", False),
    ],
)
def test_who_may_approve(approver: Approver, requester: str | None, approved_by: str, allowed: bool) -> None:
    """Only another person of the same system is known to be another person; an agent is nobody who approves."""
    token = issue(plan(approver=approver, requester=requester), (KEY,), AUDIENCE)
    assert refusal(token, approved_by=approved_by) is (None if allowed else Refusal.APPROVAL_SELF)
    assert refuses_approver(token, approved_by) is not allowed


@pytest.mark.parametrize("token", ["", "AAAA", "A" * 99, "A" * 400, "_" * 400, "no token"])
def test_an_invalid_token_excludes_no_approver(token: str) -> None:
    """Only who has the keys can refuse it."""
    assert not refuses_approver(token, REQUESTER)


# --- what was seen ---


def test_each_state_and_the_newest_entry_of_the_history_make_another_digest() -> None:
    """`updated` counts where there is no history; a record that only ages does not change a plan."""
    server = seen("active", updated=UPDATED, power_state=1)
    started = Action("start", NOW, "req-start")
    others = [
        server,
        server._replace(id=id_of(2)),
        server._replace(vm_state="error"),
        server._replace(task_state="rebooting"),
        server._replace(power_state=4),
        server._replace(updated=NOW),
        server._replace(history=acts(CREATED)),
        server._replace(history=acts(started, CREATED)),
        server._replace(history=acts(started._replace(request_id="req-other"), CREATED)),
        # An entry that cannot be read may be of a start.
        *(
            server._replace(history=History((CREATED,), unread=(entry,)))
            for entry in (
                UnreadEntry("start"),
                UnreadEntry("start", NOW),
                UnreadEntry("start", LATE),
                UnreadEntry("stop"),
            )
        ),
    ]
    digests = [seen_of(one) for one in others]
    assert len(set(digests)) == len(others)
    assert all(digest is not None and len(digest) == 8 for digest in digests)
    assert seen_of(server._replace(history=History(None, Lookup.FORBIDDEN))) == seen_of(server)
    assert seen_of(server._replace(history=acts(CREATED), updated=NOW)) == seen_of(
        server._replace(history=acts(CREATED))
    )
    assert seen_of(server._replace(updated=None)) is None


def test_the_form_of_a_digest_stays() -> None:
    """A plan of one release is approved in the next."""
    digests = [seen_of(running(history=acts(CREATED))), seen_of(running())]
    assert [digest.hex() for digest in digests if digest] == ["6a092e114469e7fd", "b2da9da97e6a17a0"]


def planned(*scripts: Script) -> Scenario:
    """Servers whose stop is to be planned."""
    return Scenario(*scripts, review=PlanReview())


def running(**facts: Any) -> Server:
    """A server that runs."""
    return seen("active", **{"updated": UPDATED, "power_state": 1, **facts})


def test_a_plan_sends_nothing_and_keeps_what_was_seen() -> None:
    """Not even to a cloud that could stop servers."""
    scenario = planned(Script(running(), histories=[acts(CREATED)]), Script("stopped"))
    first, second = scenario.results()
    assert (first.outcome, first.reason) == (Outcome.PLANNED, Reason.NEEDS_APPROVAL)
    assert first.seen == seen_of(running(history=acts(CREATED)))
    assert first.detail.endswith(" It needs an approval.")
    assert (second.reason, second.seen) == (Reason.ALREADY_STOPPED, None)
    assert scenario.cloud.sequence() == ["read", "history"]


def test_a_plan_does_not_rest_on_a_second_that_is_not_over() -> None:
    """`updated` counts in whole seconds, and clocks differ: it is read again until another change would show."""
    scenario = planned(Script(running(updated=NOW), histories=[History(None)]))
    assert scenario.result().reason is Reason.NEEDS_APPROVAL
    assert scenario.elapsed >= 6
    for gap in (Lookup.NOT_KEPT, Lookup.FORBIDDEN):
        other = planned(Script(running(), histories=[History(None, gap)]))
        assert (other.result().seen, other.elapsed) == (seen_of(running()), 0.0)
    ahead = planned(Script(running(updated=NOW + timedelta(hours=1)), histories=[History(None)]))
    (left,) = ahead.results()
    assert left.reason is Reason.BUSY
    assert left.detail.startswith("The cloud has changed its record just now.")
    over = NOW - timedelta(seconds=1) - Policy().clock_tolerance
    past = planned(Script(running(updated=over), histories=[History(None)]))
    assert (past.result().reason, past.elapsed) == (Reason.NEEDS_APPROVAL, 0.0)


def test_a_server_of_which_nothing_tells_a_restart_is_not_planned() -> None:
    """An approval of it would cover whatever happens to it."""
    scenario = planned(Script(running(updated=None), histories=[History(None)]))
    (left,) = scenario.results()
    sentence = "The cloud shows neither its history nor when it was updated, so a stop of it cannot be planned."
    assert (left.reason, left.detail) == (Reason.CLOUD_ERROR, sentence)
    assert scenario.cloud.of("stop") == []


def approved(*scripts: Script, was: Server, **facts: Any) -> Scenario:
    """A plan that rests on `was`, approved."""
    digest = seen_of(was)
    assert digest is not None
    return Scenario(*scripts, review=ApprovedReview({ID: digest}), **facts)


STOPPED = seen("stopped", power_state=4)


@pytest.mark.parametrize(
    ("now", "history", "reason"),
    [
        (running(), acts(CREATED), Reason.CONFIRMED),
        # The approval has a time of its own: a record that has changed since then has the history read first.
        (running(updated=NOW), acts(CREATED), Reason.CONFIRMED),
        (running(), acts(Action("start", NOW, "req-start"), CREATED), Reason.CHANGED_SINCE_PLAN),
        (running(), History((CREATED,), unread=(UnreadEntry("start"),)), Reason.CHANGED_SINCE_PLAN),
        (running(), History(None), Reason.CHANGED_SINCE_PLAN),
        (running(), acts(), Reason.CHANGED_SINCE_PLAN),
        (running(updated=None), History(None), Reason.CHANGED_SINCE_PLAN),
        (seen("error", updated=UPDATED, power_state=1), acts(CREATED), Reason.CHANGED_SINCE_PLAN),
        (seen("active/image_snapshot", updated=UPDATED), acts(CREATED), Reason.CHANGED_SINCE_PLAN),
        (STOPPED, acts(CREATED), Reason.CHANGED_SINCE_PLAN),
        (seen("active/powering-off", updated=NOW), acts(CREATED), Reason.CHANGED_SINCE_PLAN),
        (seen("paused", updated=UPDATED), acts(CREATED), Reason.CHANGED_SINCE_PLAN),
        (seen("active/powering-on", updated=NOW), acts(CREATED), Reason.STARTED_SINCE),
        (running(tags=frozenset({"autostop=never"})), acts(CREATED), Reason.PROTECTED),
        (running(locked=True), acts(CREATED), Reason.LOCKED),
        (seen("deleted"), acts(CREATED), Reason.NOT_FOUND),
    ],
)
def test_an_approved_server_is_stopped_only_if_it_is_as_planned(now: Server, history: History, reason: Reason) -> None:
    """All guards count anew, and what was approved is the server as it was."""
    was, time = running(history=acts(CREATED)), NOW - timedelta(minutes=2)
    scenario = approved(Script(now, STOPPED, histories=[history]), was=was, time=time)
    result = scenario.result()
    assert result.reason is reason
    if reason is Reason.CONFIRMED:
        assert scenario.cloud.sequence()[:3] == ["read", "history", "stop"]
        return
    sentences = {
        "image_snapshot": "Another operation is running on it (task image_snapshot).",
        "powering-off": "It was already powering off, since 2026-11-20T19:00:00.000Z.",
        "stopped": "It was already stopped.",
        "paused": "It is paused; only active or error can be stopped.",
    }
    other = "Its states, its history or its record are not those of the plan."
    if reason is Reason.CHANGED_SINCE_PLAN:
        sentence = sentences.get(now.task_state or str(now.vm_state), other)
        assert result.detail == f"It has changed since the plan. {sentence}"
    assert scenario.cloud.of("stop") == []


def test_an_approval_covers_no_server_that_is_not_in_its_plan() -> None:
    """A digest is of one server."""
    was = running(history=acts(CREATED))
    scenario = approved(*[Script(running(), STOPPED, histories=[acts(CREATED)])] * 2, was=was)
    assert [result.reason for result in scenario.results()] == [Reason.CONFIRMED, Reason.CHANGED_SINCE_PLAN]


def test_an_approval_does_not_cover_what_happened_after_a_stop_that_was_turned_down() -> None:
    """The cloud answers 409, and the server has been restarted when it is read again."""
    restarted = acts(Action("start", NOW, "req-start"), CREATED)
    script = Script(
        running(),
        stops=[StateConflict("409"), Taken()],
        histories=[acts(CREATED), restarted],
    )
    scenario = approved(script, was=running(history=acts(CREATED)))
    assert scenario.result().reason is Reason.CHANGED_SINCE_PLAN
    assert len(scenario.cloud.of("stop")) == 1


def test_the_times_of_a_token_are_in_whole_milliseconds() -> None:
    """So that the result event says the same."""
    token = issue(plan(expires_at=datetime(2026, 1, 2, 3, 4, 5, 678999, UTC)), (KEY,), AUDIENCE)
    found, _ = verify(token, (KEY,), AUDIENCE, ANOTHER, NOW)
    assert found is not None
    assert found.expires_at == datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)

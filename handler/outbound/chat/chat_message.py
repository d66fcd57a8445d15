"""What is to be told about a report, before any chat has its say: what matters first, every reason as a sentence.

Text of ours and text from outside (names, reasons, who asked) are kept apart here, so that each chat can see to it that
nothing from outside becomes markup, a mention or a link. The word "stopped" is said of a server that was seen stopped,
and of no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar, assert_never

from handler.keep import meanings as keep_meanings
from handler.keep.decide import written
from handler.keep.model import AnyReport, KeepReport, KeepRequest, KeepResult
from handler.keep.model import Outcome as KeepOutcome
from handler.keep.model import Reason as KeepReason
from handler.stop.meanings import MEANINGS, REFUSALS
from handler.stop.model import Approver, Outcome, PlanOffer, Reason, Report, ServerResult, StopRequest

# What a button of Slack holds, and a person can be asked to paste.
LONGEST_TOKEN = 1_900
_LONGEST_NAME, _LONGEST_REMARK, _LONGEST_FACT = 60, 160, 300
# Tried one after the other until the message fits into the chat; without any row it always does.
_ROWS = (30, 20, 10, 5, 0)
# What needs somebody's eye comes first: it is also what is listed if not everything can be.
_WORDS: Mapping[Outcome, str] = {
    Outcome.FAILED: "failed",
    Outcome.ACCEPTED: "accepted, not confirmed",
    Outcome.SKIPPED: "skipped",
    Outcome.STOPPED: "stopped",
    Outcome.PLANNED: "would be switched off",
    Outcome.UNCHANGED: "unchanged",
}
# Of a keep, likewise.
_KEEP_WORDS: Mapping[KeepOutcome, str] = {
    KeepOutcome.FAILED: "failed",
    KeepOutcome.UNCHANGED: "unchanged",
    KeepOutcome.KEPT: "kept",
    KeepOutcome.RELEASED: "released",
    KeepOutcome.PLANNED: "would be changed",
}
# Their detail says more than the meaning of the reason does.
_KEEP_TELLING = frozenset(
    {
        KeepReason.ALREADY_KEPT,
        KeepReason.PROTECTED,
        KeepReason.FORBIDDEN,
        KeepReason.CONFLICT,
        KeepReason.CLOUD_ERROR,
    }
)

# Of a notice, those beside the servers that it is about.
_OTHER_WORDS: Mapping[Outcome, str] = {
    outcome: word for outcome, word in _WORDS.items() if outcome is not Outcome.PLANNED
}
_HOW_TO_KEEP = "To keep a server running, type: keep ID 2h"

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Row:
    """One server. All of it but the id is text from outside.

    Attributes:
        name, remark: one line each; may be empty.
    """

    id: str
    name: str
    remark: str


@dataclass(frozen=True, slots=True)
class Group:
    """The servers that came out alike.

    Attributes:
        title, meaning: our words.
        left_out: how many more there are than rows.
    """

    title: str
    meaning: str
    rows: tuple[Row, ...]
    left_out: int

    @property
    def rest(self) -> str:
        """What to say of those that are left out; empty if none are."""
        if not self.left_out:
            return ""
        return f"and {self.left_out} more" if self.rows else f"{self.left_out} not listed here"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """What is to be told.

    Attributes:
        headline: our words.
        facts: pairs of a label of ours and text from outside, in one line.
        groups: what matters most first.
        closing: our words.
        approval: our words on how the plan is approved; empty if there is none.
        command: the line to type for it; empty if it is too long for that.
        keepable: ids of the servers that a notice is about, which a button of the chat may offer to keep.
    """

    headline: str
    facts: tuple[tuple[str, str], ...]
    groups: tuple[Group, ...]
    closing: str
    approval: str = ""
    command: str = ""
    keepable: tuple[str, ...] = ()


def notice(report: AnyReport, most: int) -> ChatMessage:
    """Say what came of an event.

    Args:
        most: how many servers may be listed.
    """
    request = report.request
    plan = report.plan if isinstance(report, Report) else None
    facts = (
        ("Note", report.detail),
        *_people(request),
        ("Reason", request.reason),
        ("Event", f"{request.id} from {request.source}"),
    )
    return ChatMessage(
        headline=_keep_headline(report) if isinstance(report, KeepReport) else _headline(report),
        facts=tuple((label, line) for label, text in facts if (line := one_line(text, _LONGEST_FACT))),
        groups=_keep_groups(report, most) if isinstance(report, KeepReport) else _groups(report, most),
        closing=_closing(report),
        approval=_approval(plan) if plan else "",
        command=f"approve {plan.token}" if plan and len(plan.token) <= LONGEST_TOKEN else "",
        keepable=_losing_power(report) if isinstance(report, Report) and report.notice_for else (),
    )


def _people(request: StopRequest | KeepRequest) -> tuple[tuple[str, str | None], ...]:
    """Say who asked, and who approved. An approval's own `requested_by` is the approver."""
    if isinstance(request, StopRequest) and request.approved_by is not None:
        return ("Asked by", request.requester), ("Approved by", request.approved_by)
    return (("Asked by", request.requested_by),)


def fitted(report: AnyReport, make: Callable[[ChatMessage], _Made], fits: Callable[[_Made], bool]) -> _Made:
    """The message with as many servers listed as fit into it."""
    for most in _ROWS[:-1]:
        made = make(notice(report, most))
        if fits(made):
            return made
    return make(notice(report, _ROWS[-1]))


def one_line(text: str | None, longest: int) -> str:
    """A text from outside in one line, without characters that are not seen or that turn others round."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text or "").split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _headline(report: Report) -> str:
    if report.refusal:
        return f"Refused as a whole; nothing was sent to the cloud this time. {REFUSALS[report.refusal]}"
    if report.notice_for is not None:
        return _notice_headline(report, report.notice_for)
    count = len(report.servers)
    what = f"{count} server{'s' * (count != 1)}"
    summary = report.summary
    told = ", ".join(f"{number} {word}" for outcome, word in _WORDS.items() if (number := summary[outcome]))
    begin = "Dry run, nothing was sent" if report.dry_run else "Asked to stop"
    if report.plan is not None:
        begin = "An approval is needed, nothing was sent"
    return f"{begin}: {what}" + (f", of which {told}." if told else ", so there was nothing to do.")


def _approval(plan: PlanOffer) -> str:
    who = "a person" if plan.approver is Approver.SELF else "another person than the requester"
    how = "with this command" if len(plan.token) <= LONGEST_TOKEN else "with the command line or an event"
    too_many = "" if len(plan.token) <= LONGEST_TOKEN else " It is for too many servers to be approved from a chat."
    return f"Until {_time(plan.expires_at)} it can be approved by {who} {how}.{too_many}"


def _notice_headline(report: Report, due: datetime) -> str:
    """Say which servers lose power when. The names stand in the rows, since they are text from outside."""
    if due <= report.finished_at:
        return f"This notice came too late: the stop was due {_due(due)}. The dry run sent nothing."
    count = len(_losing_power(report))
    rest = ", ".join(
        f"{number} {word}" for outcome, word in _OTHER_WORDS.items() if (number := report.summary[outcome])
    )
    others = f" Other servers: {rest}." if rest else ""
    what = f"{count} server{'s' * (count != 1)}" if count else "No server"
    return f"{what} will lose power {_due(due)}{' unless kept' if count else ''}.{others} Nothing was sent yet."


def _losing_power(report: Report) -> tuple[str, ...]:
    return tuple(server.id for server in report.servers if server.outcome is Outcome.PLANNED)


def _due(due: datetime) -> str:
    """Say a time to the minute: in its own zone first, and in UTC."""
    utc = due.astimezone(UTC)
    if due.utcoffset() == utc.utcoffset():
        return f"at {utc:%H:%M} UTC on {utc:%Y-%m-%d}"
    other_day = f" on {utc:%Y-%m-%d}" if utc.date() != due.date() else ""
    return f"at {due:%H:%M} {due.tzinfo} on {due:%Y-%m-%d} ({utc:%H:%M} UTC{other_day})"


def _groups(report: Report, most: int) -> tuple[Group, ...]:
    groups = []
    noticed = report.notice_for is not None and report.notice_for > report.finished_at
    # What a notice is about comes first.
    words: Mapping[Outcome, str] = {Outcome.PLANNED: "will lose power", **_OTHER_WORDS} if noticed else _WORDS
    for outcome, word in words.items():
        reasons = [reason for reason in Reason if reason.outcome is outcome]
        for reason in reasons:
            servers = [server for server in report.servers if server.reason is reason]
            if not servers:
                continue
            which = f" ({reason})" if len(reasons) > 1 and outcome is not Outcome.PLANNED else ""
            listed = servers[:most]
            most -= len(listed)
            groups.append(
                Group(
                    title=f"{word[0].upper()}{word[1:]}{which}: {len(servers)}",
                    meaning=_HOW_TO_KEEP if noticed and reason is Reason.DRY_RUN else MEANINGS[reason],
                    rows=tuple(_row(server) for server in listed),
                    left_out=len(servers) - len(listed),
                )
            )
    return tuple(groups)


def _row(server: ServerResult) -> Row:
    return Row(server.id, one_line(server.name, _LONGEST_NAME), one_line(_remark(server), _LONGEST_REMARK))


def _remark(server: ServerResult) -> str:
    """Return what a message says of a server beside the meaning of its reason; empty if that is all."""
    match server.reason:
        case (
            Reason.PROTECTED
            | Reason.KEPT_UNTIL
            | Reason.STARTED_SINCE
            | Reason.CHANGED_SINCE_PLAN
            | Reason.BUSY
            | Reason.FORBIDDEN
            | Reason.REVERTED
            | Reason.POWER_STILL_ON
            | Reason.CLOUD_ERROR
        ):
            return server.detail
        case Reason.WRONG_STATE:
            return f"It is {server.vm_state}." if server.vm_state else ""
        case (
            Reason.CONFIRMED
            | Reason.ACCEPTED
            | Reason.ALREADY_STOPPED
            | Reason.ALREADY_STOPPING
            | Reason.LOCKED
            | Reason.NOT_BARE_METAL
            | Reason.OTHER_PROJECT
            | Reason.NOT_OPTED_IN
            | Reason.NOT_FOUND
            | Reason.DELETING
            | Reason.NEVER_LAUNCHED
            | Reason.CONFLICT
            | Reason.REJECTED
            | Reason.DRY_RUN
            | Reason.NEEDS_APPROVAL
        ):
            return ""
        case unreachable:
            assert_never(unreachable)


def _keep_headline(report: KeepReport) -> str:
    if report.refusal:
        return f"Refused as a whole; nothing was written. {REFUSALS[report.refusal]}"
    count = len(report.servers)
    what = f"{count} server{'s' * (count != 1)}"
    summary = report.summary
    told = ", ".join(f"{number} {word}" for outcome, word in _KEEP_WORDS.items() if (number := summary[outcome]))
    asked = f"keep until {_time(report.keep_until)}" if report.keep_until else "end the keep"
    begin = f"Dry run, nothing was written ({asked})" if report.dry_run else f"Asked to {asked}"
    return f"{begin}: {what}" + (f", of which {told}." if told else ", so there was nothing to do.")


def _keep_groups(report: KeepReport, most: int) -> tuple[Group, ...]:
    groups = []
    for outcome, word in _KEEP_WORDS.items():
        for reason in (reason for reason in KeepReason if reason.outcome is outcome):
            servers = [server for server in report.servers if server.reason is reason]
            if not servers:
                continue
            which = f" ({reason})" if reason.value != outcome.value and reason is not KeepReason.DRY_RUN else ""
            listed = servers[:most]
            most -= len(listed)
            groups.append(
                Group(
                    title=f"{word[0].upper()}{word[1:]}{which}: {len(servers)}",
                    meaning=keep_meanings.MEANINGS[reason],
                    rows=tuple(_keep_row(server, report) for server in listed),
                    left_out=len(servers) - len(listed),
                )
            )
    return tuple(groups)


def _keep_row(server: KeepResult, report: KeepReport) -> Row:
    remark = server.detail if server.reason in _KEEP_TELLING else ""
    if server.reason in (KeepReason.KEPT, KeepReason.RELEASED) and server.keep_until != report.keep_until:
        # It ended up kept longer than was asked for.
        remark = server.detail or (f"Kept until {written(server.keep_until)}." if server.keep_until else "")
    return Row(server.id, one_line(server.name, _LONGEST_NAME), one_line(remark, _LONGEST_REMARK))


def _closing(report: AnyReport) -> str:
    began, ended = (_time(stamp) for stamp in (report.started_at, report.finished_at))
    return f"At {began}." if began == ended else f"From {began} to {ended}."


def _time(stamp: datetime) -> str:
    return f"{stamp.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

"""The content of a message about a report, independent of the chat: most important first, each reason as a sentence.

Our own text and untrusted input (names, reasons, who asked) are separate members, so that each chat can keep the latter
from becoming markup, a mention or a link. The word "stopped" is used of servers that were seen stopped only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar, assert_never

from handler.keep.decide import written
from handler.keep.model import AnyReport, KeepReport, KeepRequest, KeepResult
from handler.keep.model import Outcome as KeepOutcome
from handler.keep.model import Reason as KeepReason
from handler.settings.chat import ButtonAction
from handler.stop.model import Approver, Outcome, PlanOffer, Reason, Report, ServerResult, StopRequest

# Of the value of a button of Slack, which a person can still paste.
LONGEST_TOKEN = 1_900
_LONGEST_NAME, _LONGEST_REMARK, _LONGEST_FACT = 60, 160, 300
# Numbers of rows to try until the message fits into the chat; without rows it always does.
_ROWS = (30, 20, 10, 5, 0)
# What needs a person comes first, and is listed if not everything can be.
_WORDS: Mapping[Outcome, str] = {
    Outcome.FAILED: "failed",
    Outcome.ACCEPTED: "accepted, not confirmed",
    Outcome.SKIPPED: "skipped",
    Outcome.STOPPED: "stopped",
    Outcome.PLANNED: "would be switched off",
    Outcome.UNCHANGED: "unchanged",
}
# The same for keeps.
_KEEP_WORDS: Mapping[KeepOutcome, str] = {
    KeepOutcome.FAILED: "failed",
    KeepOutcome.UNCHANGED: "unchanged",
    KeepOutcome.KEPT: "kept",
    KeepOutcome.RELEASED: "released",
    KeepOutcome.PLANNED: "would be changed",
}
# Their detail says more than the meaning of the reason.
_KEEP_DETAILED = (
    *(KeepReason.ALREADY_KEPT, KeepReason.PROTECTED),
    *(KeepReason.FORBIDDEN, KeepReason.CONFLICT, KeepReason.CLOUD_ERROR),
)
# In a notice, the outcomes of other servers.
_OTHER_WORDS: Mapping[Outcome, str] = {
    outcome: word for outcome, word in _WORDS.items() if outcome is not Outcome.PLANNED
}
_HOW_TO_KEEP = "To keep a server running, type: keep ID 2h"
# Each button of a notice is beside its server. More of them are hard to read, and Slack's messages have a limit.
_MOST_KEEP_BUTTONS = 10
_KEEP_LENGTH = timedelta(hours=2)

_Made = TypeVar("_Made")
_Server = TypeVar("_Server", ServerResult, KeepResult)


@dataclass(frozen=True, slots=True)
class Row:
    """One server. All members but the id are untrusted input, one line each; they may be empty."""

    id: str
    name: str
    remark: str

    def text(self) -> str:
        """Return it in one line, untrusted input unchanged."""
        return " ".join(part for part in (self.name, f"({self.id})" if self.name else self.id, self.remark) if part)


@dataclass(frozen=True, slots=True)
class Group:
    """The servers with the same outcome and reason.

    Attributes:
        title, meaning: our text.
        left_out: number of servers without a row.
    """

    title: str
    meaning: str
    rows: tuple[Row, ...]
    left_out: int

    def lines(self, bullet: str, text: Callable[[Row], str] = Row.text) -> Iterator[str]:
        """Yield a line for each row, and one about the servers without a row."""
        yield from (f"{bullet} {text(row)}" for row in self.rows)
        if self.left_out:
            yield f"{bullet} and {self.left_out} more" if self.rows else f"{bullet} {self.left_out} not listed here"


class Button(NamedTuple):
    """A button, for the chats that have buttons.

    Attributes:
        value: returned by a click.
        primary: whether it is shown as the main one.
    """

    action: ButtonAction
    label: str
    value: str
    primary: bool = False


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """The content of a message.

    Attributes:
        headline: our text.
        facts: pairs of a label of ours and untrusted input in one line.
        groups: the most important first.
        closing: our text.
        approval: our text on how the plan is approved; empty without a plan.
        command: the line to type for it; empty if it is too long for that.
        keepable: ids of the servers that have a button to keep them, in a chat that has buttons.
        keep_until: the time until which the buttons keep a server (aware); None if there are none.
        keep_hint: our words on that; empty if there are none.
    """

    headline: str
    facts: tuple[tuple[str, str], ...]
    groups: tuple[Group, ...]
    closing: str
    approval: str = ""
    command: str = ""
    keepable: tuple[str, ...] = ()
    keep_until: datetime | None = None
    keep_hint: str = ""

    def buttons(self) -> tuple[Button, ...]:
        """Return the buttons of the whole message."""
        if not self.command:
            return ()
        approve = Button(ButtonAction.APPROVE, "Approve", self.command.partition(" ")[2], primary=True)
        return approve, Button(ButtonAction.DISCARD, "Discard", "plan")

    def keep_button(self, row: Row) -> Button | None:
        """Return the button beside a server of a notice; None if the server has none."""
        if self.keep_until is None or row.id not in self.keepable:
            return None
        return Button(ButtonAction.KEEP, "Keep 2 h", f"{row.id} until {written(self.keep_until)}")


def chat_message(report: AnyReport, most: int) -> ChatMessage:
    """Make the content of the message about a report, with at most so many servers listed."""
    request, plan = report.request, report.plan if isinstance(report, Report) else None
    keepable, keep_until = _keep_offer(report)
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
        keepable=keepable,
        keep_until=keep_until,
        keep_hint=f"A click on Keep 2 h keeps its server running until {_minute(keep_until)}." if keep_until else "",
    )


def _people(request: StopRequest | KeepRequest) -> tuple[tuple[str, str | None], ...]:
    """Return who requested and who approved. The `requested_by` of an approval is the approver."""
    if isinstance(request, StopRequest) and request.approved_by is not None:
        return ("Asked by", request.requester), ("Approved by", request.approved_by)
    return (("Asked by", request.requested_by),)


def fitted(report: AnyReport, make: Callable[[ChatMessage], _Made], fits: Callable[[_Made], bool]) -> _Made:
    """Return the message with as many servers as fit into it."""
    for most in _ROWS[:-1]:
        made = make(chat_message(report, most))
        if fits(made):
            return made
    return make(chat_message(report, _ROWS[-1]))


def one_line(text: str | None, longest: int) -> str:
    """Return untrusted input in one line, without characters that are invisible or change the direction of others."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text or "").split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _headline(report: Report) -> str:
    if report.refusal:
        return f"Refused as a whole; nothing was sent to the cloud this time. {report.refusal.meaning}"
    if report.notice_for is not None:
        return _notice_headline(report, report.notice_for)
    begin = "Dry run, nothing was sent" if report.dry_run else "Asked to stop"
    if report.plan is not None:
        begin = "An approval is needed, nothing was sent"
    return _with_counts(begin, report, _WORDS)


def _with_counts(begin: str, report: AnyReport, words: Mapping[Any, str]) -> str:
    counts = _counts(report, words)
    return (
        f"{begin}: {_servers(len(report.servers))}, {f'of which {counts}' if counts else 'so there was nothing to do'}."
    )


def _counts(report: AnyReport, words: Mapping[Any, str]) -> str:
    return ", ".join(f"{number} {word}" for outcome, word in words.items() if (number := report.summary[outcome]))


def _servers(count: int) -> str:
    return f"{count} server{'s' * (count != 1)}"


def _approval(plan: PlanOffer) -> str:
    who = "a person" if plan.approver is Approver.SELF else "another person than the requester"
    how = "with this command" if len(plan.token) <= LONGEST_TOKEN else "with the command line or an event"
    too_many = "" if len(plan.token) <= LONGEST_TOKEN else " It is for too many servers to be approved from a chat."
    return f"Until {_time(plan.expires_at)} it can be approved by {who} {how}.{too_many}"


def _notice_headline(report: Report, due: datetime) -> str:
    """Return which servers lose power, and when. Their names are in the rows, since they are untrusted input."""
    if due <= report.finished_at:
        return f"This notice came too late: the stop was due at {_minute(due)}. The dry run sent nothing."
    count = len(_losing_power(report))
    rest = _counts(report, _OTHER_WORDS)
    others = f" Other servers: {rest}." if rest else ""
    what = _servers(count) if count else "No server"
    return f"{what} will lose power at {_minute(due)}{' unless kept' if count else ''}.{others} Nothing was sent yet."


def _losing_power(report: Report) -> tuple[str, ...]:
    return tuple(server.id for server in report.servers if server.outcome is Outcome.PLANNED)


def _keep_offer(report: AnyReport) -> tuple[tuple[str, ...], datetime | None]:
    """Return which servers have a button to keep them, and until when it does: the same however late it is clicked.

    A keep that counted from the click could end before the stop, and each repeat of a click would prolong it.
    """
    due = report.notice_for if isinstance(report, Report) else None
    if not isinstance(report, Report) or due is None or due <= report.finished_at:
        return (), None
    ids = _losing_power(report)
    if not 0 < len(ids) <= _MOST_KEEP_BUTTONS:
        return (), None
    return ids, (due.astimezone(UTC) + _KEEP_LENGTH).astimezone(due.tzinfo)


def _minute(time: datetime) -> str:
    """Render a time to the minute: in its own zone first, and in UTC."""
    utc = time.astimezone(UTC)
    if time.utcoffset() == utc.utcoffset():
        return f"{utc:%H:%M} UTC on {utc:%Y-%m-%d}"
    other_day = f" on {utc:%Y-%m-%d}" if utc.date() != time.date() else ""
    return f"{time:%H:%M} {time.tzinfo} on {time:%Y-%m-%d} ({utc:%H:%M} UTC{other_day})"


def _groups(report: Report, most: int) -> tuple[Group, ...]:
    noticed = report.notice_for is not None and report.notice_for > report.finished_at
    # The servers that will lose power come first.
    words: Mapping[Outcome, str] = {Outcome.PLANNED: "will lose power", **_OTHER_WORDS} if noticed else _WORDS
    meanings = {reason: reason.meaning for reason in Reason}
    if noticed:
        meanings[Reason.DRY_RUN] = _HOW_TO_KEEP
    return tuple(_grouped(report.servers, words, meanings, _row, most))


def _grouped(
    servers: Iterable[_Server],
    words: Mapping[Any, str],
    meanings: Mapping[Any, str],
    row: Callable[[_Server], Row],
    most: int,
) -> Iterator[Group]:
    """Yield the groups of a stop or a keep, by outcome as in `words` and then by reason as in `meanings`."""
    for outcome, word in words.items():
        reasons = [reason for reason in meanings if reason.outcome is outcome]
        for reason in reasons:
            found = [server for server in servers if server.reason is reason]
            if not found:
                continue
            which = f" ({reason})" if len(reasons) > 1 and outcome != Outcome.PLANNED else ""
            listed = found[:most]
            most -= len(listed)
            yield Group(
                title=f"{word[0].upper()}{word[1:]}{which}: {len(found)}",
                meaning=meanings[reason],
                rows=tuple(map(row, listed)),
                left_out=len(found) - len(listed),
            )


def _row(server: ServerResult) -> Row:
    return Row(server.id, one_line(server.name, _LONGEST_NAME), one_line(_remark(server), _LONGEST_REMARK))


def _remark(server: ServerResult) -> str:
    """Return the text about a server beside the meaning of its reason; empty if there is none."""
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
        return f"Refused as a whole; nothing was written. {report.refusal.meaning}"
    asked = f"keep until {_time(report.keep_until)}" if report.keep_until else "end the keep"
    begin = f"Dry run, nothing was written ({asked})" if report.dry_run else f"Asked to {asked}"
    return _with_counts(begin, report, _KEEP_WORDS)


def _keep_groups(report: KeepReport, most: int) -> tuple[Group, ...]:
    meanings = {reason: reason.meaning for reason in KeepReason}
    return tuple(_grouped(report.servers, _KEEP_WORDS, meanings, lambda server: _keep_row(server, report), most))


def _keep_row(server: KeepResult, report: KeepReport) -> Row:
    runs = server.vm_state in (None, "active") and server.task_state is None
    has_detail = server.reason in _KEEP_DETAILED or (server.reason is KeepReason.KEPT and not runs)
    remark = server.detail if has_detail else ""
    if server.reason in (KeepReason.KEPT, KeepReason.RELEASED) and server.keep_until != report.keep_until:
        # It is kept for longer than was requested.
        remark = server.detail or (f"Kept until {written(server.keep_until)}." if server.keep_until else "")
    return Row(server.id, one_line(server.name, _LONGEST_NAME), one_line(remark, _LONGEST_REMARK))


def _closing(report: AnyReport) -> str:
    began, ended = (_time(stamp) for stamp in (report.started_at, report.finished_at))
    return f"At {began}." if began == ended else f"From {began} to {ended}."


def _time(stamp: datetime) -> str:
    return f"{stamp.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

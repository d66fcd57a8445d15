"""The law: what may be sent and what may be said, restated from the contract without a line of the function.

Each check returns what is wrong, as the end of a sentence, or None. A person may act between the function's read and
its stop; no function can help that. So a stop is judged by what the cloud showed in the last read that it answered
before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from handler.simulator import Action
from handler.simulator.compute.servers import ServerState
from tests.harness.prove.errand import Errand, Look, Sent
from tests.harness.prove.events import Asked

MAX_SERVERS = 5
MAX_AGE = 15 * 60.0
TOLERANCE = 5.0
WAIT = 20.0
DEADLINE = 50.0
# An operation that has been running for longer is stuck.
STUCK = 30 * 60.0
# The cloud tells times in whole seconds, cut off.
_GRAIN = 1.0

_STARTS = frozenset({"start", "reboot"})
_KEEP = "autostop-keep-until"
_OUTCOMES = {
    "confirmed": "stopped",
    "accepted": "accepted",
    "already-stopped": "unchanged",
    "already-stopping": "unchanged",
    "protected": "skipped",
    "kept-until": "skipped",
    "locked": "skipped",
    "not-bare-metal": "skipped",
    "started-since": "skipped",
    "other-project": "skipped",
    "not-opted-in": "skipped",
    "dry-run": "planned",
}


def objection(errand: Errand, server_id: str, sent: Sent, earlier: Sequence[Sent]) -> str | None:
    """What speaks against a stop that is being sent.

    Args:
        earlier: stops for the same event that brought this server down before.
    """
    asked, here = errand.asked, errand.stops.get(server_id, ())
    if asked is None or asked.kind != "good":
        return "for no event"
    if not meant(errand, server_id):
        return "that was not asked for"
    if asked.dry_run:
        return "in a rehearsal"
    if refusal := refusals(asked, errand.began):
        return f"for an event that is {refusal[0]}"
    look = sent.basis
    if look is None:
        return "without a read before it, or since the stop before it"
    if against := guards(look.state, sent.at):
        return f"that is {' and '.join(sorted(against))}"
    if fault := _unfit(look.state):
        return f"that is {fault}"
    if any(other.taken_at is not None and other.answer is not None and other.answer < 300 for other in here):
        return "that this delivery had stopped already"
    known = asked.time is not None and server_id not in errand.blind
    if known and started(asked, look.actions, 0.0):
        return "that was started after the event"
    if here and server_id not in errand.blind and started_after(look.actions, here[0].at):
        return "that was started after this delivery's first stop"
    if known and any(other.taken_at is not None and other.taken_at < look.at for other in earlier):
        return "that this event had stopped before"
    return None


def meant(errand: Errand, server_id: str) -> bool:
    """Whether an event is about a server: it names it, or it was seen with the tag that the event tells."""
    asked = errand.asked
    if asked is None or asked.tag is None:
        return asked is not None and server_id in asked.server_ids
    return any(asked.tag in look.state.tags for look in errand.reads.get(server_id, ()))


def too_many(errand: Errand) -> bool:
    """Whether more servers were seen with the tag that the event tells than are taken at once."""
    return sum(meant(errand, server_id) for server_id in errand.reads) > MAX_SERVERS


def refusals(asked: Asked, now: float) -> list[str]:
    """Why an event must be refused as a whole, before anything was looked at."""
    return [
        reason
        for reason, applies in (
            ("expired", asked.expires is not None and asked.expires <= now),
            ("too-old", asked.time is not None and now - asked.time > MAX_AGE),
            ("too-many-servers", len(asked.server_ids) > MAX_SERVERS),
        )
        if applies
    ]


def guards(state: ServerState, now: float) -> set[str]:
    """The guards that keep a server from being stopped, as the reasons that a result may give."""
    found = set()
    labels = [*state.tags, *(f"{key}={value}" for key, value in state.metadata.items())]
    if any(label.replace(" ", "").lower() == "autostop=never" for label in labels):
        found.add("protected")
    for key, _, value in (label.partition("=") for label in labels):
        if key == _KEEP:
            try:
                until = datetime.fromisoformat(value).timestamp()
            except ValueError:
                found.add("protected")
            else:
                found |= {"kept-until"} if until > now else set()
    if state.locked:
        found.add("locked")
    sign = "__type_baremetal" in state.tags or state.metadata.get("metering.resourcetype") == "__type_baremetal"
    if not sign and not state.flavor.startswith("physical."):
        found.add("not-bare-metal")
    return found


def started(asked: Asked, actions: Sequence[Action], doubt: float) -> bool:
    """Whether somebody started the server after the event, or up to `doubt` seconds before it."""
    if asked.time is None:
        return False
    return started_after(actions, min(asked.time, asked.emitted) - doubt)


def started_after(actions: Sequence[Action], moment: float) -> bool:
    """Whether somebody started the server after a moment, in seconds since the epoch."""
    return any(action.action in _STARTS and action.start_time > moment for action in actions)


def _unfit(state: ServerState) -> str | None:
    if state.vm_state not in ("active", "error"):
        return state.vm_state
    if state.task_state is not None:
        return f"busy ({state.task_state})"
    return None if state.launched_at is not None else "one that never ran"


def expected(
    asked: Asked, state: ServerState | None, actions: Sequence[Action], now: float, *, veiled: bool = False
) -> set[str] | None:
    """The reasons that a result may give for a server if nothing disturbs the delivery; None if that can't be told.

    Args:
        state: None if the API that is spoken shows no such server.
        veiled: stops are told by a job that does not say which server it means.
    """
    if state is None or state.deleted:
        return {"not-found"}
    if state.task_state is not None and now - state.updated > STUCK - DEADLINE:
        # It may count as stuck when the function looks.
        return None
    if state.task_state == "powering-on" and not guards(state, now) and state.due and state.due.at - now > DEADLINE / 2:
        return {"started-since"}
    if state.due is not None and state.due.at - now < DEADLINE:
        # It may come true before the function looks, or after.
        return None
    if state.task_state == "powering-off":
        return {"already-stopping"}
    if state.vm_state == "stopped" and state.task_state is None:
        return {"already-stopped"}
    if found := guards(state, now):
        # A time that is nearly up may be up when the function looks.
        return found if found == guards(state, now + DEADLINE) else None
    if state.vm_state == "building":
        return {"wrong-state"}
    if state.task_state is not None:
        return {"busy"}
    if state.vm_state not in ("active", "error"):
        return {"wrong-state"}
    if state.launched_at is None:
        return {"never-launched"}
    stopping = _stopping(asked, state)
    if veiled and not asked.dry_run:
        # It may run on because of another server until the waiting time is up.
        stopping |= {"accepted"}
    if started(asked, actions, 0.0):
        return {"started-since"}
    if started(asked, actions, TOLERANCE + 4.0 + 2 * _GRAIN):
        return {"started-since", *stopping}
    return stopping


def _stopping(asked: Asked, state: ServerState) -> set[str]:
    if asked.dry_run:
        return {"dry-run"}
    if (state.power_off_delay or 0.0) > WAIT:
        return {"accepted"}
    return {"reverted"} if state.power_off_fails else {"confirmed"}


def misstatement(
    errand: Errand, row: Mapping[str, Any], state: ServerState | None, actions: Sequence[Action]
) -> str | None:
    """What is wrong with what a result says of one server.

    Args:
        state, actions: the server as it is now, and what was done to it.
    """
    asked, server_id, reason = errand.asked, row["id"], row["reason"]
    assert asked is not None
    looks, stops = errand.reads.get(server_id, []), errand.stops.get(server_id, [])
    if row["outcome"] != _OUTCOMES.get(reason, "failed"):
        return f"{row['outcome']} for the reason {reason}"
    if row["vm_state"] is not None and row["vm_state"] not in {look.state.vm_state for look in looks}:
        return f"{row['vm_state']}, which nobody saw"
    told = any(sent.answer is not None and sent.answer < 300 and sent.taken_at is not None for sent in stops)
    if row["outcome"] == "skipped" and told:
        return "skipped, though its stop was taken"
    if row["outcome"] == "planned" and stops:
        return "planned, though a stop was sent"
    if row["outcome"] == "unchanged" and any(s.ours and s.taken_at is not None and not s.late for s in stops):
        return "unchanged, though the stop that changed it was ours"
    if reason in ("not-found", "forbidden", "rejected", "conflict", "cloud-error"):
        # The cloud may have answered 404 for no reason.
        gone = reason == "not-found" and (state is None or state.deleted)
        return None if gone or server_id in errand.failing else f"failed ({reason}), though nothing went wrong"
    if not looks:
        return f"{reason}, though it was never seen"
    blind = server_id in errand.blind
    return None if _borne_out(reason, asked, looks, stops, actions, blind=blind) else f"{reason}, which is not so"


def _borne_out(
    reason: str,
    asked: Asked,
    looks: Sequence[Look],
    stops: Sequence[Sent],
    actions: Sequence[Action],
    *,
    blind: bool,
) -> bool:
    """Whether what the function was shown gives it a right to say this."""
    last = looks[-1].state
    ours = [sent for sent in stops if sent.ours]
    match reason:
        case "confirmed":
            return any(
                look.at > sent.at and look.state.vm_state == "stopped" and look.state.power_state != 1
                for sent in ours
                for look in looks
            )
        case "accepted":
            told = any(sent.answer is not None for sent in ours)
            return told or any(
                look.at > s.at and look.state.task_state == "powering-off" for s in ours for look in looks
            )
        case "already-stopped":
            return last.vm_state == "stopped" and last.power_state != 1
        case "already-stopping":
            return last.task_state == "powering-off"
        case "protected" | "locked" | "not-bare-metal" | "kept-until":
            return reason in guards(last, looks[-1].at)
        case "started-since":
            doubt = TOLERANCE + 4.0 + 2 * _GRAIN
            return (
                last.task_state == "powering-on"
                or started(asked, actions, doubt)
                or (bool(stops) and (blind or started_after(actions, stops[0].at - doubt)))
            )
        case "busy":
            return last.task_state is not None
        case "wrong-state":
            return last.vm_state not in ("active", "error", "stopped")
        case "never-launched":
            return last.launched_at is None
        case "reverted":
            return bool(ours) and last.vm_state in ("active", "error")
        case "dry-run":
            return asked.dry_run and _unfit(last) is None
    return False

"""What the function may send and report, restated from the contract without a line of the function.

Each check returns what is wrong, as the end of a sentence, or None. A user may act between the function's read and its
stop; no function can prevent that. So a stop is checked against what the cloud showed in the last read before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from handler.simulator import Action
from handler.simulator.compute.servers import ServerState
from tests.harness.prove import approvals
from tests.harness.prove.approvals import ApprovalRules
from tests.harness.prove.command import Command, Deployment, Observation, StopSent
from tests.harness.prove.events import Event

MAX_SERVERS = 5
MAX_AGE = 15 * 60.0
# How far ahead the time of an event may be.
MAX_AHEAD = 60.0
TOLERANCE = 5.0
WAIT = 20.0
DEADLINE = 50.0
# An operation that has been running for longer is stuck.
STUCK = 30 * 60.0
# The cloud shows times in whole seconds, cut off.
_GRAIN = 1.0
# A start that is this close before the moment from which starts count may count as well.
_DOUBT = 2 * TOLERANCE + 2 * _GRAIN

_STARTS = frozenset({"start", "reboot"})
_PROTECT, _KEEP = "autostop", "autostop-keep-until"
_TRANSITIONAL = frozenset({"reboot"})
_DELETING = frozenset({"deleting", "soft-deleting"})
_ON, _OFF = 1, frozenset({3, 4, 6, 7})
OUTCOMES = {
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
    "changed-since-plan": "skipped",
    "dry-run": "planned",
    "needs-approval": "planned",
}


def stop_violation(command: Command, server_id: str, stop: StopSent, earlier: Sequence[StopSent]) -> str | None:
    """Return what is wrong with a stop that is being sent.

    Args:
        earlier: stops for the same event that brought this server down before.
    """
    event, here = command.event, command.stops.get(server_id, [])
    if event is None or event.kind != "good":
        return "for no event"
    if not selected(command, server_id):
        return "that was not asked for"
    if event.dry_run:
        return "in a dry run"
    if refused := refusals(event, command.began, command.deployment.approval):
        return f"for an event that is {refused[0]}"
    if command.over_limit:
        return "for a batch about too many servers"
    basis = stop.basis
    if basis is None:
        return "without a read before it, or since the stop before it"
    if found := guards(basis.state, stop.at, command.deployment):
        return f"that is {' and '.join(sorted(found))}"
    if unfit := _unfit(basis.state):
        return f"that is {unfit}"
    if any(other.known_taken for other in here):
        return "that this delivery had stopped already"
    if not_approved := approvals.stop_violation(command, server_id, basis.state, basis.actions):
        return not_approved
    if not_announced := approvals.announcement_violation(command, server_id, stop.at):
        return not_announced
    return _started_violation(command, event, server_id, basis, earlier)


def _started_violation(
    command: Command, event: Event, server_id: str, basis: Observation, earlier: Sequence[StopSent]
) -> str | None:
    here = command.stops.get(server_id, [])
    if server_id in command.without_history:
        # Without a history only a record that has not changed shows that it was not started after a stop of ours.
        for other in here:
            unchanged = other.basis is not None and int(other.basis.state.updated) == int(basis.state.updated)
            if other.unclear and not unchanged:
                return "that may have been started after this delivery's first stop"
        return None
    if started(event, command.began, basis.actions, 0.0):
        return "that was started after the event"
    if started_after(basis.actions, command.attempted[server_id]):
        return "that was started after this delivery's first stop"
    moment = counts_from(event, command.began)
    if moment is not None and any(stop.taken_at is not None and moment <= stop.taken_at < basis.at for stop in earlier):
        return "that this event had stopped before"
    return None


def selected(command: Command, server_id: str) -> bool:
    """Whether an event is about a server: it names it, or a read showed the tag that the event selects by."""
    event = command.event
    if event is None or event.tag is None:
        return event is not None and server_id in event.server_ids
    return any(event.tag in seen.state.tags for seen in command.observations.get(server_id, ()))


def selected_ids(command: Command) -> set[str]:
    """Return the servers that an event, or the events of a batch, are about as far as reads have shown."""
    if command.parts:
        return set().union(*(selected_ids(part) for part in command.parts.values()))
    named = command.event.server_ids if command.event is not None else ()
    return {server_id for server_id in (*named, *command.observations) if selected(command, server_id)}


def refusals(event: Event, now: float, approval: ApprovalRules) -> list[str]:
    """Return why an event must be refused as a whole, whatever the cloud shows."""
    return approvals.refusals(event, now, approval) + [
        reason
        for reason, applies in (
            ("expired", event.expires is not None and event.expires <= now),
            ("too-old", event.time is not None and now - event.time > MAX_AGE),
            ("in-the-future", event.time is not None and event.time - now > MAX_AHEAD),
            ("no-server-ids", not event.server_ids and event.tag is None),
            ("too-many-servers", len(event.server_ids) > MAX_SERVERS),
        )
        if applies
    ]


def named(events: Sequence[Event], began: float, approval: ApprovalRules) -> set[str]:
    """Return the servers that are named by events that are not refused, whenever their refusals are decided."""
    moments = (began, began + DEADLINE)
    accepted = [event for event in events if not any(refusals(event, moment, approval) for moment in moments)]
    return {id_ for event in accepted for id_ in event.server_ids}


def over_limit(events: Sequence[Event], began: float, approval: ApprovalRules) -> bool:
    """Whether the events of a batch certainly name too many servers together."""
    return len(events) > 1 and len(named(events, began, approval)) > MAX_SERVERS


def guards(state: ServerState, now: float, deployment: Deployment) -> set[str]:
    """Return the guards that keep a server from being stopped, as the reasons that a result may give."""
    found = set()
    if state.project_id != deployment.project_id:
        found.add("other-project")
    for value in _values(state, _PROTECT):
        if value.strip().lower() == "never":
            found.add("protected")
    for value in _values(state, _KEEP):
        until = time_of(value)
        if until is None:
            found.add("protected")
        elif until > now:
            found.add("kept-until")
    if state.locked:
        found.add("locked")
    marked = "__type_baremetal" in state.tags or state.metadata.get("metering.resourcetype") == "__type_baremetal"
    if not marked and not (state.flavor_name or state.flavor).startswith("physical."):
        found.add("not-bare-metal")
    if deployment.only is not None:
        key, _, value = deployment.only.partition("=")
        if not {f"{key}={value}", f"{key}.{value}"} & set(state.tags) and state.metadata.get(key) != value:
            found.add("not-opted-in")
    return found


def _values(state: ServerState, key: str) -> Iterator[str]:
    """The values under a key: tags `key=value` and, in the old form, `key.value`; metadata, with both forms of key."""
    for label in (*state.tags, *(f"{name}={value}" for name, value in state.metadata.items())):
        name, _, value = label.partition("=")
        if name.strip().lower() == key:
            yield value
        elif name.strip().lower().startswith(f"{key}."):
            yield name.strip()[len(key) + 1 :]


def keeps(state: ServerState) -> list[float | None]:
    """Return until when a server is kept, in seconds since the epoch; None for an entry that cannot be read."""
    return [time_of(value) for value in _values(state, _KEEP)]


def time_of(text: str) -> float | None:
    """Return an RFC 3339 time with a zone in seconds since the epoch; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None


def counts_from(event: Event, began: float) -> float | None:
    """Return the moment from which a start counts against the event, in seconds since the epoch; None if none does.

    A time that is ahead by no more than clocks may differ stands for the true one; one that is further ahead counts as
    the moment at which the delivery began.
    """
    moments = [] if event.since is None else [min(event.since, began)]
    if event.time is not None:
        ahead = event.time - event.emitted > TOLERANCE
        moments.append(min(event.time, began) if ahead else min(event.time, event.emitted))
    return min(moments, default=None)


def started(event: Event, began: float, actions: Sequence[Action], doubt: float) -> bool:
    """Whether a user started the server after the event, or up to `doubt` seconds before it."""
    moment = counts_from(event, began)
    return moment is not None and started_after(actions, moment - doubt)


def started_after(actions: Sequence[Action], moment: float) -> bool:
    """Whether a user started the server after a moment, in seconds since the epoch."""
    return any(action.action in _STARTS and action.start_time > moment for action in actions)


def _unfit(state: ServerState) -> str | None:
    if state.vm_state not in ("active", "error"):
        return state.vm_state
    if state.task_state is not None:
        return f"busy ({state.task_state})"
    return None if state.launched_at is not None else "one that never ran"


def expected(
    command: Command,
    state: ServerState | None,
    actions: Sequence[Action],
    now: float,
    *,
    history: bool = True,
    shared_job: bool = False,
    planned: bool = False,
) -> set[str] | None:
    """Return the reasons that a result may give for a server if nothing disturbs the delivery; None if any may be.

    Args:
        state: None if the API that is used shows no such server.
        history: the cloud shows the login the history of servers.
        shared_job: stops are reported by a job that does not show what came of each server.
        planned: nothing is stopped, as in a dry run.
    """
    assert command.event is not None
    event = replace(command.event, dry_run=command.event.dry_run or planned)
    if state is None or state.deleted:
        return {"not-found"}
    found = guards(state, now, command.deployment)
    if state.task_state in _DELETING:
        return {"deleting"}
    if state.task_state in ("powering-off", "powering-on") and now - state.updated > STUCK - DEADLINE:
        # It may come to count as stuck, or does already.
        stuck = now - state.updated > STUCK and state.due is None
        return {"busy"} if stuck and not found else None
    starting = state.task_state == "powering-on" and (state.due is None or state.due.at - now > DEADLINE / 2)
    if starting and not found:
        return {"started-since"}
    if state.due is not None and state.due.at - now < DEADLINE:
        # It may come true before the function reads, or after.
        return None
    if state.task_state == "powering-off":
        return {"already-stopping"}
    if state.vm_state == "stopped" and state.task_state is None and state.power_state != _ON:
        return {"already-stopped"}
    if found:
        # A time that is nearly up may be up when the function reads.
        return found if found == guards(state, now + DEADLINE, command.deployment) else None
    return _expected_of_state(command, event, state, actions, history=history, shared_job=shared_job)


def _expected_of_state(
    command: Command,
    event: Event,
    state: ServerState,
    actions: Sequence[Action],
    *,
    history: bool,
    shared_job: bool,
) -> set[str]:
    if state.vm_state == "stopped" and state.task_state is None:
        return {"power-still-on"}
    if state.vm_state == "building":
        return {"wrong-state"}
    if state.task_state is not None or state.vm_state in _TRANSITIONAL:
        return {"busy"}
    if state.vm_state not in ("active", "error"):
        return {"wrong-state"}
    if state.launched_at is None:
        return {"never-launched"}
    stopping = _stopping(event, state)
    if shared_job and not event.dry_run:
        # It may run on because of another server until the waiting time is up, or fail because of one: what is then not
        # seen off counts as failed.
        stopping |= {"accepted", "reverted"}
    if not history:
        # A failed stop that was over before the next read leaves no trace.
        return stopping | ({"accepted"} if "reverted" in stopping else set())
    if started(event, command.began, actions, 0.0):
        return {"started-since"}
    if started(event, command.began, actions, _DOUBT):
        return {"started-since", *stopping}
    return stopping


def _stopping(event: Event, state: ServerState) -> set[str]:
    if event.dry_run:
        return {"dry-run"}
    if (state.power_off_delay or 0.0) > WAIT and state.controller != "refuses":
        return {"accepted"}
    if state.power_off_fails:
        return {"reverted"}
    return {{"works": "confirmed", "silent": "accepted"}.get(state.controller, "power-still-on")}


def row_violation(
    command: Command, row: Mapping[str, Any], state: ServerState | None, actions: Sequence[Action]
) -> str | None:
    """Return what is wrong with what a result says of one server.

    Args:
        state, actions: the server as it is now, and its history.
    """
    event, server_id, reason = command.event, row["id"], row["reason"]
    assert event is not None
    seen, stops = command.observations.get(server_id, []), command.stops.get(server_id, [])
    if row["outcome"] != OUTCOMES.get(reason, "failed"):
        return f"{row['outcome']} for the reason {reason}"
    if row["vm_state"] is not None and row["vm_state"] not in {one.state.vm_state for one in seen}:
        return f"{row['vm_state']}, which no read showed"
    if row["outcome"] == "skipped" and any(stop.known_taken for stop in stops):
        return "skipped, though its stop was taken"
    if row["outcome"] == "planned" and stops:
        return "planned, though a stop was sent"
    if row["outcome"] == "unchanged" and any(
        stop.may_be_taken and stop.taken_at is not None and not stop.late for stop in stops
    ):
        return "unchanged, though the stop that changed it was ours"
    if reason in ("not-found", "forbidden", "rejected", "conflict", "cloud-error"):
        # The cloud may have answered 404 for no reason.
        gone = reason == "not-found" and (state is None or state.deleted)
        return None if gone or server_id in command.failing else f"failed ({reason}), though nothing went wrong"
    if not seen:
        return f"{reason}, though no read showed it"
    return None if _holds(reason, command, server_id, actions) else f"{reason}, which is not so"


def _holds(reason: str, command: Command, server_id: str, actions: Sequence[Action]) -> bool:
    """Whether what the function was shown entitles it to give this reason."""
    event, seen, stops = command.event, command.observations[server_id], command.stops.get(server_id, [])
    assert event is not None
    last = seen[-1].state
    ours = [stop for stop in stops if stop.may_be_taken]
    match reason:
        case "confirmed":
            return any(
                one.at > stop.at and one.state.vm_state == "stopped" and one.state.power_state in _OFF
                for stop in ours
                for one in seen
            )
        case "accepted":
            return any(stop.accepted for stop in ours) or any(
                one.at > stop.at and (one.state.task_state == "powering-off" or one.state.vm_state == "stopped")
                for stop in ours
                for one in seen
            )
        case "power-still-on":
            return last.vm_state == "stopped" and last.power_state == _ON
        case "already-stopped":
            return last.vm_state == "stopped" and last.power_state != _ON
        case "already-stopping":
            return last.task_state == "powering-off"
        case "protected" | "locked" | "not-bare-metal" | "kept-until" | "other-project" | "not-opted-in":
            return reason in guards(last, seen[-1].at, command.deployment)
        case "started-since":
            return (
                last.task_state == "powering-on"
                or server_id in command.unreadable_history
                or started(event, command.began, actions, _DOUBT)
                or (server_id in command.attempted and started_after(actions, command.attempted[server_id] - _DOUBT))
                or (server_id in command.attempted and server_id in command.without_history)
            )
        case "busy":
            return (
                last.task_state is not None
                or last.vm_state in _TRANSITIONAL
                # Where only `updated` shows a change, no plan is made within the second of one.
                or (
                    approvals.may_change_unseen(command, server_id)
                    and seen[-1].at - last.updated < _GRAIN + TOLERANCE + _GRAIN
                )
            )
        case "deleting":
            return last.task_state in _DELETING
        case "wrong-state":
            return last.vm_state not in ("active", "error", "stopped")
        case "never-launched":
            return last.launched_at is None
        case "reverted":
            return bool(ours) and (last.vm_state in ("active", "error") or last.power_state not in _OFF)
        case "dry-run":
            return event.dry_run and _unfit(last) is None
        case "needs-approval":
            needed = command.deployment.approval.needed(event, command.most)
            return needed is not None and any(_unfit(one.state) is None for one in seen)
        case "changed-since-plan":
            return approvals.changed_since_plan(command, server_id)
    raise AssertionError(f"_holds in {__name__} must have a case for the reason {reason}")

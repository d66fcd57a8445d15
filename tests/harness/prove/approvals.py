"""Approvals and announcements of stops, restated from the contract without a line of the function."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from handler.simulator import Action
from handler.simulator.compute.servers import ServerState

if TYPE_CHECKING:
    from tests.harness.prove.command import Command
    from tests.harness.prove.events import Event

SELF, OTHER = "self", "other"
# A Slack button holds 2,000 characters.
_LONGEST_TOKEN = 1900
# Where a token has its key id and its audience, and how long they and its MAC are.
_KEY_ID, _AUDIENCE, _MAC_LENGTH = slice(1, 5), slice(12, 24), 32
_FIRST_TEXT, _TEXTS, _ROW_LENGTH = 40, 3, 24
_ANNOUNCED_TYPE = "io.github.bms-autostop.stop.announced.v1"
# Near the end of the time budget there may be no time left for an attempt.
_IN_TIME = 30.0
_STRANGER = "a key of at least 32 characters that no deployment has"
# What a guard says of a server is the reason also if the server has changed.
_KEPT = frozenset({"not-found", "deleting"})


class Forgery(StrEnum):
    """What is wrong with a token."""

    BIT = "one bit"
    CUT = "cut"
    SERVER = "another server"
    AUDIENCE = "another audience"
    KEY = "an unknown key"
    KEY_ID = "an unknown key under the id of ours"
    SPELLING = "another spelling"


@dataclass(frozen=True, slots=True)
class ApprovalRules:
    """What the settings of a deployment say about approvals.

    Attributes:
        above: an event about more servers needs one (0 for `always`); None if only the event says so.
        approver: `AUTOSTOP_APPROVER`, or None.
        keys: the first one signs.
        ttl: seconds.
        source: `AUTOSTOP_SOURCE`, the audience of plans.
    """

    above: int | None = None
    approver: str | None = None
    keys: tuple[str, ...] = ()
    ttl: float = 900.0
    source: str = ""

    def environ(self) -> dict[str, str]:
        variables = {
            "AUTOSTOP_APPROVAL": {None: "", 0: "always"}.get(self.above, f"above:{self.above}"),
            "AUTOSTOP_APPROVER": self.approver or "",
            "AUTOSTOP_APPROVAL_KEYS": ",".join(self.keys),
            "AUTOSTOP_APPROVAL_TTL": f"{self.ttl:g}s",
            "AUTOSTOP_SOURCE": self.source,
        }
        return {name: value for name, value in variables.items() if value}

    def needed(self, event: Event, servers: int) -> str | None:
        """Return who must approve the stops of an event whose delivery is about so many servers; None for no one."""
        if event.approves is not None or event.dry_run:
            return None
        by_rule = self.above is not None and servers > self.above
        if event.approval is None and not by_rule:
            return None
        # `other` is the default of a deployment that demands approvals, and neither side can loosen the other's word.
        default = OTHER if self.above is not None else SELF
        return OTHER if OTHER in (event.approval, self.approver or default) else SELF


NO_RULES = ApprovalRules()


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run that planned the stop of a server was shown of it.

    Attributes:
        states: each combination of states.
        newest: each newest entry of its history, by request id.
        doubtful: its history could not be had, or not be read whole.
    """

    states: frozenset[tuple[str, str | None, int]]
    newest: frozenset[str]
    doubtful: bool


@dataclass(frozen=True, slots=True, eq=False)
class IssuedPlan:
    """A plan that the function has issued.

    Attributes:
        expires_at: in seconds since the epoch.
    """

    plan_id: str
    token: str
    requester: str | None
    approver: str
    key: str
    expires_at: float
    servers: Mapping[str, Planned]


@dataclass(frozen=True, slots=True)
class Approved:
    """What an approval says."""

    plan: IssuedPlan
    token: str
    forged: bool
    approved_by: str | None


def refusals(event: Event, now: float, rules: ApprovalRules) -> list[str]:
    """Return why an approval must be refused: what is found first, or nothing."""
    approved = event.approves
    if approved is None:
        return []
    plan = approved.plan
    if approved.forged or plan.key not in rules.keys:
        return ["approval-invalid"]
    if now >= plan.expires_at:
        return ["approval-expired"]
    return [] if _may_approve(plan, approved.approved_by or "") else ["approval-self"]


def is_person(identity: str | None) -> bool:
    """Whether an identity is that of a person."""
    return identity is not None and not identity.lower().startswith("agent:")


def _may_approve(plan: IssuedPlan, approved_by: str) -> bool:
    if plan.approver == SELF or not is_person(plan.requester):
        return True
    requester, approver = str(plan.requester).lower(), approved_by.lower()
    # Only two accounts of one workspace are known to be of two people.
    return requester != approver and _workspace(requester) == _workspace(approver)


def _workspace(identity: str) -> str:
    return identity.rpartition("/")[0] or identity.partition(":")[0]


def stop_violation(command: Command, server_id: str, state: ServerState, actions: Sequence[Action]) -> str | None:
    """Return what is wrong with the approval of a stop, as the end of a sentence; None if nothing is.

    Args:
        state, actions: the server and its history in the read that the stop rests on.
    """
    event = command.event
    assert event is not None
    if command.deployment.approval.needed(event, command.fewest):
        return "without the approval that its event needs"
    if event.approves is None:
        return None
    planned = event.approves.plan.servers.get(server_id)
    if planned is None:
        return "under an approval of a plan that does not list it"
    return None if _same(planned, state, actions) else "under an approval that does not cover its state"


def _same(planned: Planned, state: ServerState, actions: Sequence[Action]) -> bool:
    return _states(state) in planned.states and _newest(actions) in planned.newest


def _states(state: ServerState) -> tuple[str, str | None, int]:
    return state.vm_state, state.task_state, state.power_state


def _newest(actions: Sequence[Action]) -> str:
    return actions[0].request_id


def changed_since_plan(command: Command, server_id: str) -> bool:
    """Whether a run was shown that a server is not as it was planned, or was not shown all of it."""
    event = command.event
    if event is None or event.approves is None:
        return False
    planned = event.approves.plan.servers[server_id]
    newest = command.newest_shown.get(server_id)
    return (
        planned.doubtful
        or _doubtful(command, server_id)
        or (newest is not None and newest not in planned.newest)
        or any(not _same(planned, one.state, one.actions) for one in command.observations[server_id])
    )


def may_change_unseen(command: Command, server_id: str) -> bool:
    """Whether a run plans a stop without all of the server's history."""
    event = command.event
    assert event is not None
    return command.deployment.approval.needed(event, command.most) is not None and _doubtful(command, server_id)


def _doubtful(command: Command, server_id: str) -> bool:
    return server_id in command.without_history or server_id in command.unreadable_history


def predicted(
    command: Command, server_id: str, state: ServerState | None, actions: Sequence[Action], reasons: set[str],
    skipped: set[str],
) -> set[str]:  # fmt: skip
    """Return the reasons that a result may give under an approval, or of a plan.

    Args:
        reasons: that it may give without any, if it is a dry run or stops the server.
        skipped: the reasons of guards.
    """
    event = command.event
    assert event is not None
    if command.deployment.approval.needed(event, command.fewest):
        return {"needs-approval" if reason == "dry-run" else reason for reason in reasons}
    if event.approves is None:
        return reasons
    planned = event.approves.plan.servers[server_id]
    same = state is not None and _same(planned, state, actions)
    changed = {reason if reason in skipped | _KEPT else "changed-since-plan" for reason in reasons}
    if not same:
        return changed
    return reasons | changed if planned.doubtful or _doubtful(command, server_id) else reasons


def plan_of(command: Command, plan_id: str, data: Mapping[str, Any], expires_at: float) -> IssuedPlan:
    """Return the plan that a result offers."""
    event, rules = command.event, command.deployment.approval
    assert event is not None
    servers = {}
    for row in data["servers"]:
        if row["reason"] == "needs-approval":
            seen = command.observations[row["id"]]
            newest = {_newest(one.actions) for one in seen} | {command.newest_shown.get(row["id"], "")}
            servers[row["id"]] = Planned(
                frozenset(_states(one.state) for one in seen), frozenset(newest - {""}), _doubtful(command, row["id"])
            )
    return IssuedPlan(
        plan_id=plan_id,
        token=data["plan"]["token"],
        requester=event.requester,
        approver=rules.needed(event, command.most) or SELF,
        key=rules.keys[0],
        expires_at=expires_at,
        servers=servers,
    )


def plan_violations(command: Command, plan: IssuedPlan, approver: str, now: float) -> list[str]:
    """Return what is wrong with a plan.

    Args:
        approver: who may approve it, as the result says.
        now: seconds since the epoch.
    """
    rules, event = command.deployment.approval, command.event
    assert event is not None
    found = []
    if not rules.needed(event, command.most):
        found.append("an event that needs no approval was answered with a plan")
    elif approver != plan.approver:
        found.append(f"a plan may be approved by {approver}, and it should be {plan.approver}")
    if len(plan.token) > _LONGEST_TOKEN:
        found.append(f"a token has {len(plan.token)} characters")
    if _listed(plan.token) != list(plan.servers):
        found.append("a token is about other servers than those that wait for an approval")
    if not command.began + rules.ttl - 0.001 <= plan.expires_at <= now + rules.ttl:
        found.append(f"a plan can be approved for {plan.expires_at - now:.0f} s, and it should be {rules.ttl:.0f}")
    return found


def _listed(token: str) -> list[str]:
    raw = _decoded(token)[:-_MAC_LENGTH]
    at = _FIRST_TEXT
    for _ in range(_TEXTS):
        at += 1 + raw[at]
    ids = [raw[row : row + 16].hex() for row in range(at, len(raw), _ROW_LENGTH)]
    return [f"{id_[:8]}-{id_[8:12]}-{id_[12:16]}-{id_[16:20]}-{id_[20:]}" for id_ in ids]


def forge(plan: IssuedPlan, how: Forgery, position: int) -> str:
    """Return a token that is not the plan's."""
    raw = bytearray(_decoded(plan.token))
    match how:
        case Forgery.BIT:
            place, bit = divmod(position % (len(raw) * 8), 8)
            raw[place] ^= 1 << bit
        case Forgery.CUT:
            return plan.token[:-4]
        case Forgery.SERVER:
            raw[-_MAC_LENGTH - _ROW_LENGTH] ^= 1
        case Forgery.AUDIENCE:
            raw[_AUDIENCE] = hashlib.sha256(b"/another/deployment").digest()[:12]
            _sign(raw, plan.key)
        case Forgery.KEY:
            raw[_KEY_ID] = hashlib.sha256(b"bms-autostop approval key " + _STRANGER.encode()).digest()[:4]
            _sign(raw, _STRANGER)
        case Forgery.KEY_ID:
            _sign(raw, _STRANGER)
        case Forgery.SPELLING:
            # The last character has bits that are not used, unless the length is a multiple of three.
            alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
            last = alphabet.index(plan.token[-1])
            return plan.token + "=" if len(raw) % 3 == 0 else plan.token[:-1] + alphabet[last ^ 1]
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(token: str) -> bytes:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def _sign(raw: bytearray, key: str) -> None:
    raw[-_MAC_LENGTH:] = hmac.new(key.encode(), bytes(raw[:-_MAC_LENGTH]), hashlib.sha256).digest()


class Announce(StrEnum):
    """What the deployment says (`AUTOSTOP_ANNOUNCE`)."""

    OFF = "off"
    BEST_EFFORT = "best-effort"
    REQUIRED = "required"


def is_announcement(headers: Mapping[str, str]) -> bool:
    """Whether a request to the sink carries one."""
    return headers["ce-type"] == _ANNOUNCED_TYPE


def note_announcement(command: Command, headers: Mapping[str, str], body: bytes, *, taken: bool) -> list[str]:
    """Note an announcement that is posted.

    Args:
        headers: with names in lower case.
        taken: the sink took it.

    Returns:
        What is wrong with it, as sentences.
    """
    event, found = command.event, []
    listed = [row["id"] for row in json.loads(body)["servers"]]
    if event is None or headers["ce-causationid"] != event.id:
        return ["an announcement was made for no event, or for another one"]
    if not listed:
        found.append("an announcement lists no server")
    if event.dry_run or command.deployment.approval.needed(event, command.fewest):
        found.append("an announcement was made of stops that are not to be made")
    if event.tag is None and not set(listed) <= set(event.server_ids):
        found.append("an announcement lists a server that was not asked for")
    if any(command.stops.values()):
        found.append("an announcement was made after a stop")
    if {headers["ce-id"]} != command.announcements.setdefault("ids", {headers["ce-id"]}):
        found.append("an event has two announcements in one delivery")
    command.announcements.setdefault("tried", set()).update(listed)
    if taken:
        command.announcements.setdefault("taken", set()).update(listed)
    return found


def announcement_violation(command: Command, server_id: str, now: float) -> str | None:
    """Return what is wrong with the announcement of a stop, as the end of a sentence; None if nothing is."""
    match command.deployment.announce:
        case Announce.REQUIRED if server_id not in command.announcements.get("taken", ()):
            return "without an announcement that lists it and was delivered"
        case Announce.BEST_EFFORT if (
            server_id not in command.announcements.get("tried", ()) and now - command.began < _IN_TIME
        ):
            return "without an attempt to announce it"
    return None

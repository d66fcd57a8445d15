"""Plans that need an approval: what a plan's token holds, and whether a server is still as it was planned.

Loaded only for events that need an approval, or that are one. Nothing is stored: the token is the plan. It is canonical
base64url of::

    version   1 byte
    key id    4 bytes    of the key that signed it
    rule      1 byte     who may approve
    expiry    6 bytes    milliseconds since 1970
    audience  12 bytes   of SHA-256 of the deployment's `source`
    plan id   16 bytes   the id of the `stop.planned.v1` event
    source    1 byte length, up to 32 bytes of UTF-8    of the request
    id        1 byte length, up to 36 bytes of UTF-8    of the request
    requester 1 byte length, up to 79 bytes of UTF-8
    servers   24 bytes each: id, then 8 bytes of SHA-256 of what was seen of it
    MAC       32 bytes   HMAC-SHA-256 of everything before it

A longer text is replaced by its hash. With 50 servers this is at most 1,900 characters.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import assert_never

from handler.stop.model import Approver, Decision, Move, Outcome, Policy, Reason, Refusal, Server

_VERSION = b"\x01"
_KEY_ID = slice(1, 5)
_MAC_LENGTH = 32
_SERVER_LENGTH = 24
_SEEN_LENGTH = 8
_AUDIENCE_LENGTH = 12
_PLAN_ID_LENGTH = 16
_LONGEST_SOURCE, _LONGEST_ID, _LONGEST_REQUESTER = 32, 36, 79
_RULES = (Approver.SELF, Approver.OTHER)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a token says.

    Attributes:
        plan_id: id of the `stop.planned.v1` event.
        source, id: of the request that was planned; a hash if they are long.
        requester: identity of the requester, `<system>:<id>`, hashed if it is long; None if it has none.
        approver: who may approve the plan.
        expires_at: from when on it cannot be approved (aware, whole milliseconds).
        seen: by lower-case server id, the digest of what was seen of the server.
    """

    plan_id: str
    source: str
    id: str
    requester: str | None
    approver: Approver
    expires_at: datetime
    seen: Mapping[str, bytes]


def issue(plan: Plan, keys: Sequence[bytes], audience: str) -> str:
    """Return the token of a plan, signed by the first key, for the deployment with the `source` `audience`."""
    head = _VERSION + _key_id(keys[0])
    expires = (plan.expires_at - _EPOCH) // _MILLISECOND
    payload = b"".join(
        (
            bytes([_RULES.index(plan.approver)]),
            expires.to_bytes(6, "big"),
            _audience(audience),
            uuid.UUID(plan.plan_id).bytes,
            _text(_shortened(plan.source, _LONGEST_SOURCE)),
            _text(_shortened(plan.id, _LONGEST_ID)),
            _text(_shortened_identity(plan.requester) if plan.requester else ""),
            *(uuid.UUID(id_).bytes + seen for id_, seen in plan.seen.items()),
        )
    )
    return _base64(head + payload + _mac(keys[0], head + payload))


def verify(
    token: str, keys: Sequence[bytes], audience: str, approved_by: str, now: datetime
) -> tuple[Plan | None, Refusal | None]:
    """Check a token that any of the keys may have signed, and whether this approver may approve its plan now.

    Returns:
        The plan, or the refusal. A plan that is refused for its expiry or its approver is returned beside the refusal.
    """
    signed = _signed(token, keys)
    plan = _plan(signed, audience) if signed is not None else None
    if plan is None:
        return None, Refusal.APPROVAL_INVALID
    if now >= plan.expires_at:
        return plan, Refusal.APPROVAL_EXPIRED
    if not _may_approve(plan, approved_by):
        return plan, Refusal.APPROVAL_SELF
    return plan, None


def refuses_approver(token: str, approved_by: str) -> bool:
    """Whether the plan of a token excludes an approver, for callers without the keys.

    Only `verify` decides what an approval is worth; an invalid token is not refused here.
    """
    try:
        plan, _ = _read(base64.urlsafe_b64decode(token + "==")[:-_MAC_LENGTH])
    except (ValueError, IndexError, OverflowError):
        return False
    return not _may_approve(plan, approved_by)


def seen_of(server: Server) -> bytes | None:
    """Return the digest of what a plan rests on: the states, the newest history entry or `updated`, unreadable entries.

    Returns:
        8 bytes; None if the cloud shows neither history nor `updated`, so that a restart could not be noticed.
    """
    actions = server.history.actions if server.history is not None else None
    last: Sequence[object]
    if actions:
        newest = actions[0]
        last = ("action", newest.name, newest.at.isoformat(), newest.request_id)
    elif server.updated is not None:
        last = ("updated", server.updated.isoformat())
    else:
        return None
    # An entry that cannot be read may be of a start.
    unread = [
        (entry.name, entry.at.isoformat() if entry.at else None)
        for entry in (server.history.unread if server.history is not None else ())
    ]
    text = json.dumps([server.id, server.vm_state, server.task_state, server.power_state, last, unread])
    return hashlib.sha256(text.encode()).digest()[:_SEEN_LENGTH]


@dataclass(frozen=True, slots=True)
class PlanReview:
    """Turns the stop of each server into a plan that waits for an approval."""

    def review(self, server: Server, decision: Decision, policy: Policy, now: datetime) -> Decision:
        """Return the decision with what a plan needs to know of the server."""
        if decision.move is not Move.STOP:
            return decision
        if server.history is None:
            return decision._replace(move=Move.ASK)
        seen = seen_of(server)
        if seen is None:
            return Decision(
                Move.LEAVE,
                Reason.CLOUD_ERROR,
                "The cloud shows neither its history nor when it was updated, so a stop of it cannot be planned.",
            )
        if (
            not server.history.actions
            and server.updated is not None
            and now - server.updated < _SECOND + policy.clock_tolerance
        ):
            # `updated` counts in whole seconds: another change within this one would not show.
            return Decision(Move.WAIT, Reason.BUSY, "The cloud has changed its record just now.")
        detail = f"{decision.detail} It needs an approval."
        # It ends here: nothing is sent, whatever the cloud could do.
        return decision._replace(move=Move.LEAVE, reason=Reason.NEEDS_APPROVAL, detail=detail, seen=seen)


@dataclass(frozen=True, slots=True)
class ApprovedReview:
    """Allows the stop of a server only as long as it is as it was when the stop was planned.

    Attributes:
        seen: of each server of the plan.
    """

    seen: Mapping[str, bytes]

    def review(self, server: Server, decision: Decision, policy: Policy, now: datetime) -> Decision:
        """Return the decision, or one that leaves a server running that has changed since the plan."""
        del policy, now
        match decision.move:
            case Move.ASK:
                return decision
            case Move.STOP:
                if server.history is None:
                    return decision._replace(move=Move.ASK)
                seen, planned = seen_of(server), self.seen.get(server.id)
                if seen is not None and planned is not None and hmac.compare_digest(seen, planned):
                    return decision
                return _changed(decision, "Its states, its history or its record are not those of the plan.")
            case Move.WAIT:
                return _changed(decision, decision.detail)
            case Move.LEAVE:
                # A guard that objects, and a server that is gone, are the better reasons.
                kept = decision.reason.outcome is Outcome.SKIPPED or decision.reason in (
                    Reason.NOT_FOUND,
                    Reason.DELETING,
                )
                return decision if kept else _changed(decision, decision.detail)
            case unreachable:
                assert_never(unreachable)


def is_person(identity: str) -> bool:
    """Whether an identity is that of a person: every system's but `agent`."""
    return identity.partition(":")[0].casefold() != "agent"


def _changed(decision: Decision, detail: str) -> Decision:
    return decision._replace(
        move=Move.LEAVE,
        reason=Reason.CHANGED_SINCE_PLAN,
        detail=f"It has changed since the plan. {detail}",
    )


def _may_approve(plan: Plan, approved_by: str) -> bool:
    if not is_person(approved_by):
        return False
    match plan.approver:
        case Approver.SELF:
            return True
        case Approver.OTHER:
            if plan.requester is None or not is_person(plan.requester):
                return True
            asked, approves = plan.requester.casefold(), _shortened_identity(approved_by).casefold()
            # The same person may have an account in another system, or another workspace of it: only accounts of one
            # are known to be of two people.
            return _system(asked) == _system(approves) and asked != approves
        case unreachable:
            assert_never(unreachable)


def _system(identity: str) -> str:
    """The system of an identity, and within it the workspace or tenant if it names one: `slack:T1` of `slack:T1/U2`."""
    system, _, within = identity.partition(":")
    return f"{system}:{within.rpartition('/')[0]}"


def _signed(token: str, keys: Sequence[bytes]) -> bytes | None:
    """Return what a token says, without its MAC; None if it is malformed or none of the keys signed it."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", token):
        return None
    try:
        raw = base64.urlsafe_b64decode(token + "==")
    except ValueError:
        return None
    # One text for one token: neither other padding nor other trailing bits.
    if _base64(raw) != token or raw[:1] != _VERSION:
        return None
    signed, mac = raw[:-_MAC_LENGTH], raw[-_MAC_LENGTH:]
    # Every key is tried, so that the time taken does not tell which one came close.
    hits = [
        hmac.compare_digest(_mac(key, signed), mac) and hmac.compare_digest(_key_id(key), signed[_KEY_ID])
        for key in keys
    ]
    return signed if any(hits) else None


def _plan(signed: bytes, audience: str) -> Plan | None:
    """Read what was signed; None if it is for another audience."""
    plan, hashed = _read(signed)
    return plan if hmac.compare_digest(hashed, _audience(audience)) else None


def _read(signed: bytes) -> tuple[Plan, bytes]:
    """Read what was signed, and the hash of its audience.

    Raises:
        ValueError, IndexError, OverflowError: it is not well-formed, which cannot be if its MAC is valid.
    """
    reader = BytesIO(signed[_KEY_ID.stop :])
    rule = reader.read(1)[0]
    expires = int.from_bytes(reader.read(6), "big")
    audience = reader.read(_AUDIENCE_LENGTH)
    plan_id = str(uuid.UUID(bytes=reader.read(_PLAN_ID_LENGTH)))
    source, id_, requester = _read_text(reader), _read_text(reader), _read_text(reader)
    rows = reader.read()
    seen = {
        str(uuid.UUID(bytes=rows[at : at + 16])): rows[at + 16 : at + _SERVER_LENGTH]
        for at in range(0, len(rows), _SERVER_LENGTH)
    }
    plan = Plan(plan_id, source, id_, requester or None, _RULES[rule], _EPOCH + expires * _MILLISECOND, seen)
    return plan, audience


def _read_text(reader: BytesIO) -> str:
    return reader.read(reader.read(1)[0]).decode()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


def _shortened(text: str, longest: int) -> str:
    return text if len(text.encode()) <= longest else f"sha256:{_hash(text)}"


def _shortened_identity(identity: str) -> str:
    """An identity, in which what follows the system is replaced by hashes if it is long."""
    if len(identity.encode()) <= _LONGEST_REQUESTER:
        return identity
    system, _, within = identity.casefold().partition(":")
    tenant, slash, person = within.rpartition("/")
    return f"{system}:~{_hash(tenant) if slash else ''}{slash}{_hash(person)}"


def _hash(text: str) -> str:
    return _base64(hashlib.sha256(text.encode()).digest()[:16])


def _audience(source: str) -> bytes:
    return hashlib.sha256(source.encode()).digest()[:_AUDIENCE_LENGTH]


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"bms-autostop approval key " + key).digest()[:4]


def _mac(key: bytes, signed: bytes) -> bytes:
    return hmac.new(key, signed, hashlib.sha256).digest()


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

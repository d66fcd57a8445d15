"""The decision: pure functions of the server that was just read, and of the request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from handler.keep.model import Reason
from handler.stop.decide import KEEP_UNTIL, labels, parse_keep_until, same
from handler.stop.model import Server

_GONE = frozenset({"deleted", "soft-delete", "soft_deleted"})


class Move(StrEnum):
    """What to do next with a server."""

    WRITE = "write"
    REMOVE = "remove"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one server, and why.

    Attributes:
        reason: for LEAVE the final one; else what a dry run reports.
        detail: one plain sentence.
        keys: for REMOVE: the entries of the metadata to remove, as the server has them.
    """

    move: Move
    reason: Reason
    detail: str
    keys: tuple[str, ...] = ()


def decide(server: Server, until: datetime | None, protect: tuple[str, str]) -> Decision:
    """Decide what to do with one server that was just read.

    An existing entry is never replaced by an earlier time, and one that is not valid is never changed.

    Args:
        server: as read.
        until: the time until which the server is to be kept (aware); None for a release.
        protect: as in `handler.stop.model.Policy`.
    """
    if server.vm_state in _GONE:
        return Decision(Move.LEAVE, Reason.NOT_FOUND, "It has been deleted.")
    if server.other_project is not None:
        return Decision(Move.LEAVE, Reason.NOT_FOUND, "It belongs to another project than the login.")
    if not all(_is_time(value) for value, _, _ in labels(server, KEEP_UNTIL)):
        detail = f"Its {KEEP_UNTIL} is not an RFC 3339 time with a zone, so it is protected; the entry stays."
        return Decision(Move.LEAVE, Reason.PROTECTED, detail)
    return _release(server) if until is None else _keep(server, until, protect)


def kept_until(server: Server) -> datetime | None:
    """Return the latest keep-until of a server, also one that has passed; None if it has none."""
    times = [parse_keep_until(value) for value, _, _ in labels(server, KEEP_UNTIL) if _is_time(value)]
    return max(times, default=None)


def written(until: datetime) -> str:
    """Render a time: RFC 3339 in UTC, in whole seconds, such as `2026-12-24T07:00:00Z`."""
    return until.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _keep(server: Server, until: datetime, protect: tuple[str, str]) -> Decision:
    key, value = protect
    if any(same(found, value) for found, _, _ in labels(server, key)):
        return Decision(Move.LEAVE, Reason.PROTECTED, f"It is protected by {key}={value}, which does not end.")
    present = kept_until(server)
    if present is not None and present >= until:
        return Decision(Move.LEAVE, Reason.ALREADY_KEPT, f"It is already kept until {written(present)}.")
    return Decision(Move.WRITE, Reason.DRY_RUN, f"It would be kept until {written(until)}.")


def _release(server: Server) -> Decision:
    found = {entry for _, _, entry in labels(server, KEEP_UNTIL) if entry is not None}
    keys = tuple(key for key, value in server.metadata.items() if f"{key}={value}" in found)
    if keys:
        return Decision(Move.REMOVE, Reason.DRY_RUN, f"Its {KEEP_UNTIL} would be removed.", keys)
    present = kept_until(server)
    if present is not None:
        detail = f"A tag keeps it until {written(present)}; tags are not changed here."
        return Decision(Move.LEAVE, Reason.ALREADY_KEPT, detail)
    return Decision(Move.LEAVE, Reason.NOT_KEPT, f"It has no {KEEP_UNTIL}.")


def _is_time(text: str) -> bool:
    try:
        parse_keep_until(text)
    except ValueError:
        return False
    return True

"""Announcements of stops, restated from the contract without a line of the function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.harness.prove.command import Command

_TYPE = "io.github.bms-autostop.stop.announced.v1"
# Near the end of the time budget there may be no time left for an attempt.
_IN_TIME = 30.0


class Announce(StrEnum):
    """What the deployment says (`AUTOSTOP_ANNOUNCE`)."""

    OFF = "off"
    BEST_EFFORT = "best-effort"
    REQUIRED = "required"


def is_announcement(headers: Mapping[str, str]) -> bool:
    """Whether a request to the sink carries one."""
    return headers["ce-type"] == _TYPE


def note(command: Command, headers: Mapping[str, str], body: bytes, *, taken: bool) -> list[str]:
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


def stop_violation(command: Command, server_id: str, now: float) -> str | None:
    """Return what is wrong with the announcement of a stop, as the end of a sentence; None if nothing is."""
    match command.deployment.announce:
        case Announce.REQUIRED if server_id not in command.announcements.get("taken", ()):
            return "without an announcement that lists it and was delivered"
        case Announce.BEST_EFFORT if (
            server_id not in command.announcements.get("tried", ()) and now - command.began < _IN_TIME
        ):
            return "without an attempt to announce it"
    return None

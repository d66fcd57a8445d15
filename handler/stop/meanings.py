"""Each reason and each refusal in one plain sentence, for documents and chats; a run does not import it.

The word "stopped" is used only where it is true.
"""

from __future__ import annotations

from collections.abc import Mapping

from handler.stop.model import Reason, Refusal

MEANINGS: Mapping[Reason, str] = {
    Reason.CONFIRMED: "Our stop was sent, and then the server was seen stopped, with its power off.",
    Reason.ACCEPTED: "The cloud took our stop, but the server was not seen off in the waiting time.",
    Reason.ALREADY_STOPPED: "The server was stopped when we looked.",
    Reason.ALREADY_STOPPING: "The server was powering off when we looked.",
    Reason.PROTECTED: "It carries the protect tag or metadata, or a keep-until that is no valid time.",
    Reason.KEPT_UNTIL: "It is to be kept running until a time that has not come.",
    Reason.LOCKED: "It is locked in the cloud.",
    Reason.NOT_BARE_METAL: "Neither tag, metadata nor flavor says that it is a bare metal server.",
    Reason.STARTED_SINCE: "It was started after the event or our first stop, may have been, or is being started now.",
    Reason.OTHER_PROJECT: "It belongs to another project than the login.",
    Reason.NOT_OPTED_IN: "It lacks the tag or metadata that is required of servers here.",
    Reason.CHANGED_SINCE_PLAN: "It is not as it was when its stop was planned, so the approval does not cover it.",
    Reason.NOT_FOUND: "The cloud knows no such server in this project, or it has been deleted.",
    Reason.WRONG_STATE: "It is in a state that allows no stop, such as paused, shelved or building.",
    Reason.POWER_STILL_ON: "The cloud shows it as SHUTOFF, but its power is on.",
    Reason.BUSY: "Another operation, such as a reboot, outlasted the time budget, or has run for over 30 minutes.",
    Reason.DELETING: "It is being deleted.",
    Reason.NEVER_LAUNCHED: "It is in error and never ran, so there is nothing to stop.",
    Reason.FORBIDDEN: "The login may not read it or may not stop it.",
    Reason.CONFLICT: "The cloud kept turning the stop down, though nothing seemed to stand against it.",
    Reason.REJECTED: "The cloud called our request wrong.",
    Reason.REVERTED: "The cloud took our stop, but the server was not off after it, or it recorded the stop as failed.",
    Reason.CLOUD_ERROR: "The cloud kept failing for this server, while it answered otherwise.",
    Reason.DRY_RUN: "A stop would have been sent; it was a dry run.",
    Reason.NEEDS_APPROVAL: "A stop would be sent, and needs an approval first; nothing was sent.",
}

REFUSALS: Mapping[Refusal, str] = {
    Refusal.TOO_OLD: "The event was older than is acted on here.",
    Refusal.EXPIRED: "The time until which the event was to be acted on had passed.",
    Refusal.TOO_MANY_SERVERS: "The event asks for more servers than one event may.",
    Refusal.NO_SERVER_IDS: "The event names no server.",
    Refusal.IN_THE_FUTURE: "The event's time is in the future: the clock of its sender, or ours, is wrong.",
    Refusal.APPROVAL_INVALID: "The token of the plan is not one that this deployment signed, or it was altered.",
    Refusal.APPROVAL_EXPIRED: "The time in which the plan could be approved had passed.",
    Refusal.APPROVAL_SELF: "The plan must be approved by another person of the same system as its requester.",
}

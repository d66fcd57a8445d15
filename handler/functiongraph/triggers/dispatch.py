"""From an event of FunctionGraph to stop requests, whichever trigger it is from, but for the gateway's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar, Protocol

from handler.errors import BadEvent, Violation
from handler.functiongraph.triggers.cts import CtsEvent
from handler.functiongraph.triggers.smn import SmnRecord
from handler.functiongraph.triggers.timer import TimerEvent
from handler.inbound import dry_run
from handler.inbound.skip import Skip
from handler.stop.model import StopRequest

_LOG = logging.getLogger(__name__)


class Trigger(Protocol):
    """One record of one trigger.

    Attributes:
        name: the trigger as the log names it.
    """

    name: ClassVar[str]

    def gate(self) -> Skip | None:
        """Say whether there is anything to act on; None if there is.

        Raises:
            BadEvent: it is malformed.
        """

    def extract(self) -> StopRequest:
        """Make the stop request.

        Raises:
            BadEvent: it is malformed; with every flaw.
        """


def requests_of(document: Mapping[str, object], source: str, now: datetime) -> list[StopRequest]:
    """What an event asks for: all of its records or, if one is malformed, none.

    Args:
        document: the event as the platform sends it.
        source: what the `source` of each request begins with.
        now: when it was received (aware).

    Raises:
        BadEvent: with every flaw of every record.
    """
    prefixed = "record" in document
    requests: dict[tuple[str, str], StopRequest] = {}
    violations: list[Violation] = []
    for index, said in enumerate(_all_said(document, source, now)):
        prefix = f"record[{index}]." if prefixed else ""
        try:
            skip = said.gate()
            if skip is not None:
                _LOG.info("trigger ignored", extra={"trigger": said.name, "detail": skip.reason})
                continue
            asked = said.extract()
        except BadEvent as bad:
            violations += [Violation(f"{prefix}{violation.at}", violation.message) for violation in bad.violations]
            continue
        # The same message twice in one event is a repeat.
        if requests.setdefault((asked.source, asked.id), asked) != asked:
            violations.append(Violation(f"{prefix}smn.message_id", "must be unique within the event"))
    if requests and not violations:
        # What stands beside text and messages; those are read for it too.
        beside = {name: value for name, value in document.items() if name != "user_event"}
        if dry_run.requested_in(beside, "event", violations):
            requests = {key: replace(asked, dry_run=True) for key, asked in requests.items()}
    if violations:
        raise BadEvent(*violations)
    return list(requests.values())


def _all_said(document: Mapping[str, object], source: str, now: datetime) -> Sequence[Trigger]:
    if TimerEvent.is_one(document):
        return [TimerEvent(document, f"{source}/timer", now)]
    if CtsEvent.is_one(document):
        return [CtsEvent(document, f"{source}/cts")]
    if "record" in document:
        return SmnRecord.all_of(document, f"{source}/smn", now)
    raise BadEvent(Violation("event", "must be of a trigger that is known here, or a CloudEvent"))

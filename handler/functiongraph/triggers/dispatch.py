"""From an event of any trigger of FunctionGraph, except the gateway, to stop requests."""

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
        name: of the trigger, for the log.
    """

    name: ClassVar[str]

    def gate(self) -> Skip | None:
        """Return why the record is skipped; None if it is not.

        Raises:
            BadEvent: it is malformed.
        """

    def extract(self) -> StopRequest:
        """Return the stop request.

        Raises:
            BadEvent: it is malformed; with every violation.
        """


def requests_of(document: Mapping[str, object], source: str, now: datetime) -> list[StopRequest]:
    """Return the stop requests of an event: of all of its records or, if one is malformed, of none.

    Args:
        document: the event as the platform sends it.
        source: beginning of the `source` of each request.
        now: when it was received (aware).

    Raises:
        BadEvent: with every violation of every record.
    """
    prefixed = "record" in document
    requests: dict[tuple[str, str], StopRequest] = {}
    violations: list[Violation] = []
    for index, record in enumerate(_records_of(document, source, now)):
        prefix = f"record[{index}]." if prefixed else ""
        try:
            skip = record.gate()
            if skip is not None:
                _LOG.info("trigger ignored", extra={"trigger": record.name, "detail": skip.reason})
                continue
            asked = record.extract()
        except BadEvent as bad:
            violations += [Violation(f"{prefix}{violation.at}", violation.message) for violation in bad.violations]
            continue
        # The same message twice in one event is a repeat.
        if requests.setdefault((asked.source, asked.id), asked) != asked:
            violations.append(Violation(f"{prefix}smn.message_id", "must be unique within the event"))
    if requests and not violations:
        # The other members of the event; text and messages are checked for it as well.
        beside = {name: value for name, value in document.items() if name != "user_event"}
        if dry_run.requested_in(beside, "event", violations):
            requests = {key: replace(asked, dry_run=True) for key, asked in requests.items()}
    if violations:
        raise BadEvent(*violations)
    return list(requests.values())


def _records_of(document: Mapping[str, object], source: str, now: datetime) -> Sequence[Trigger]:
    if TimerEvent.is_one(document):
        return [TimerEvent(document, f"{source}/timer", now)]
    if CtsEvent.is_one(document):
        return [CtsEvent(document, f"{source}/cts")]
    if "record" in document:
        return SmnRecord.all_of(document, f"{source}/smn", now)
    raise BadEvent(Violation("event", "must be of a trigger that is known here, or a CloudEvent"))

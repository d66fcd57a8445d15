"""From an event of any trigger of FunctionGraph, except the gateway, to stop requests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial

from handler.errors import BadEvent, Violation
from handler.functiongraph.triggers import cts, smn, timer
from handler.inbound import dry_run
from handler.inbound.skip import Skip
from handler.inbound.webhooks.fields import text
from handler.stop.model import StopRequest

_LOG = logging.getLogger(__name__)


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
    trigger, records = _records_of(document, source, now)
    for index, read in enumerate(records):
        prefix = f"record[{index}]." if prefixed else ""
        try:
            found = read()
        except BadEvent as bad:
            violations += [Violation(f"{prefix}{violation.at}", violation.message) for violation in bad.violations]
            continue
        if isinstance(found, Skip):
            _LOG.info("trigger ignored", extra={"trigger": trigger, "detail": found.reason})
        # The same message twice in one event is a repeat.
        elif requests.setdefault((found.source, found.id), found) != found:
            violations.append(Violation(f"{prefix}smn.message_id", "must be unique within the event"))
    if requests and not violations:
        # The other members of the event; text and messages are checked for it as well.
        beside = {name: value for name, value in document.items() if name != "user_event"}
        if dry_run.requested_in(beside, "event", violations):
            requests = {key: request._replace(dry_run=True) for key, request in requests.items()}
    if violations:
        raise BadEvent(*violations)
    return list(requests.values())


def _records_of(
    document: Mapping[str, object], source: str, now: datetime
) -> tuple[str, Sequence[Callable[[], StopRequest | Skip]]]:
    """Return the name of the trigger, and what reads each record of the event.

    Raises:
        BadEvent: it is of no known trigger, or has no records.
    """
    if text(document, "trigger_type").upper() == "TIMER":
        return "timer", [partial(timer.stop_request, document, f"{source}/timer", now)]
    if isinstance(trace := document.get("cts"), dict):
        return "cts", [partial(cts.stop_request, trace, f"{source}/cts")]
    if "record" not in document:
        raise BadEvent(Violation("event", "must be of a trigger that is known here, or a CloudEvent"))
    records = document["record"]
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise BadEvent(Violation("record", "must be an array of at least one record"))
    return "smn", [partial(smn.stop_request, record, f"{source}/smn", now) for record in records]

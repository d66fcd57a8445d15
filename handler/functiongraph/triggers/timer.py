"""FunctionGraph's timer: the additional text of the trigger is canonical data, as with any schedule.

An event of a timer has no id. It is made of the name and the time of the trigger, which are the same in a repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from handler import rfc3339
from handler.errors import BadEvent, Violation
from handler.inbound.extract.canonical import canonical
from handler.inbound.webhooks.fields import LONGEST_REQUESTER, both, cut, identity, plain_event, text
from handler.stop.model import StopRequest


def stop_request(document: Mapping[str, object], source: str, now: datetime) -> StopRequest:
    """Return the request of the trigger's text, which may have no ids.

    Args:
        document: the event as the platform sends it.
        source: of the request.
        now: when it was received (aware).

    Raises:
        BadEvent: with every violation; text must be JSON.
    """
    (name, time), request = both(lambda: _run(document), lambda: _request(document, source, now))
    return request._replace(
        id=identity(name, rfc3339.render(time)),
        time=time,
        requested_by=request.requested_by or cut(f"timer {name}", LONGEST_REQUESTER),
    )


def _run(document: Mapping[str, object]) -> tuple[str, datetime]:
    name = text(document, "trigger_name")
    if not name.strip():
        raise BadEvent(Violation("trigger_name", "must be present"))
    try:
        return name, rfc3339.parse(text(document, "time"))
    except ValueError:
        raise BadEvent(Violation("time", "must be an RFC 3339 timestamp with a zone")) from None


def _request(document: Mapping[str, object], source: str, now: datetime) -> StopRequest:
    """Return the request of the text, with a placeholder id."""
    written = document.get("user_event")
    data = None if isinstance(written, str) and not written.strip() else written
    try:
        return canonical(plain_event(data, id_="timer", source=source), now)
    except BadEvent as bad:
        # The author of the text knows the member by the platform's name.
        violations = [
            Violation(f"user_event{violation.at.removeprefix('data')}", violation.message)
            for violation in bad.violations
        ]
        raise BadEvent(*violations) from None

"""FunctionGraph's SMN trigger: the notifications of a topic, several in one event, each handled by itself.

The messages are the same as over HTTPS. There is no signature, and no list of permitted topics: a topic is permitted by
the trigger that connects it with the function.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from handler import rfc3339
from handler.errors import BadEvent, Violation
from handler.inbound.skip import Skip
from handler.inbound.webhooks.fields import member, text
from handler.inbound.webhooks.smn_message import SmnMessage
from handler.stop.model import StopRequest


def stop_request(record: Mapping[str, object], source: str, now: datetime) -> StopRequest | Skip:
    """Return a request of one record: from Cloud Eye's alarm, or from canonical data.

    Args:
        record: as the platform sends it.
        source: of the request.
        now: when it was received (aware).

    Returns:
        A skip unless it is a notification, and of Cloud Eye an alarm that fires.

    Raises:
        BadEvent: with every violation.
    """
    smn = member(record, "smn")
    if not smn:
        return Skip("a record of another service")
    if text(smn, "type").lower() != "notification":
        return Skip("no notification")
    message = _message(smn, source, now)
    return message.gate() or message.extract()


def _message(smn: Mapping[str, object], source: str, now: datetime) -> SmnMessage:
    violations = [
        Violation(f"smn.{name}", "must be present") for name in ("message", "message_id") if not text(smn, name).strip()
    ]
    time: datetime | None = None
    try:
        time = rfc3339.parse(text(smn, "timestamp"))
    except ValueError:
        violations.append(Violation("smn.timestamp", "must be an RFC 3339 timestamp with a zone"))
    if time is None or violations:
        raise BadEvent(*violations)
    return SmnMessage(text(smn, "message_id"), text(smn, "message"), time, source, now)

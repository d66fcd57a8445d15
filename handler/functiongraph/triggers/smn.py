"""FunctionGraph's SMN trigger: the notifications of a topic, several in one event, each handled by itself.

The messages are the same as over HTTPS. There is no signature, and no list of permitted topics: a topic is permitted by
the trigger that connects it with the function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from handler import rfc3339
from handler.errors import BadEvent, Violation
from handler.inbound.skip import Skip
from handler.inbound.webhooks.fields import member, text
from handler.inbound.webhooks.smn_message import SmnMessage
from handler.stop.model import StopRequest


@dataclass(frozen=True, slots=True)
class SmnRecord:
    """One of the records of an event.

    Attributes:
        record: as the platform sends it.
        source: of the request.
        now: when it was received (aware).
    """

    record: Mapping[str, object]
    source: str
    now: datetime

    name: ClassVar[str] = "smn"

    @classmethod
    def all_of(cls, document: Mapping[str, object], source: str, now: datetime) -> tuple[SmnRecord, ...]:
        """Return the records of an event, of which there is at least one.

        Raises:
            BadEvent: there are none.
        """
        records = document.get("record")
        if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
            raise BadEvent(Violation("record", "must be an array of at least one record"))
        return tuple(cls(record, source, now) for record in records)

    def gate(self) -> Skip | None:
        """Accept only a notification, and of Cloud Eye only an alarm that fires.

        Raises:
            BadEvent: the message, its id or its time cannot be parsed.
        """
        if not self._smn:
            return Skip("a record of another service")
        if text(self._smn, "type").lower() != "notification":
            return Skip("no notification")
        return self._message().gate()

    def extract(self) -> StopRequest:
        """Return a request from Cloud Eye's alarm, or from canonical data.

        Raises:
            BadEvent: with every violation.
        """
        return self._message().extract()

    @property
    def _smn(self) -> Mapping[str, object]:
        return member(self.record, "smn")

    def _message(self) -> SmnMessage:
        violations = [
            Violation(f"smn.{name}", "must be present")
            for name in ("message", "message_id")
            if not text(self._smn, name).strip()
        ]
        time: datetime | None = None
        try:
            time = rfc3339.parse(text(self._smn, "timestamp"))
        except ValueError:
            violations.append(Violation("smn.timestamp", "must be an RFC 3339 timestamp with a zone"))
        if time is None or violations:
            raise BadEvent(*violations)
        return SmnMessage(text(self._smn, "message_id"), text(self._smn, "message"), time, self.source, self.now)

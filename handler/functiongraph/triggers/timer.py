"""FunctionGraph's timer: the additional text of the trigger is canonical data, as with any schedule.

An event of a timer has no id. It is made of the name and the time of the trigger, which are the same in a repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from handler import rfc3339
from handler.errors import BadEvent, Violation
from handler.inbound.extract.canonical import canonical
from handler.inbound.skip import Skip
from handler.inbound.webhooks.fields import LONGEST_REQUESTER, both, cut, identity, plain_event, text
from handler.stop.model import StopRequest


@dataclass(frozen=True, slots=True)
class TimerEvent:
    """One run of a timer.

    Attributes:
        document: the event as the platform sends it.
        source: of the request.
        now: when it was received (aware).
    """

    document: Mapping[str, object]
    source: str
    now: datetime

    name: ClassVar[str] = "timer"

    @classmethod
    def is_one(cls, document: Mapping[str, object]) -> bool:
        """Whether an event is a timer's."""
        return text(document, "trigger_type").upper() == "TIMER"

    def gate(self) -> Skip | None:
        """Accept every event of a timer; without ids it is refused later."""
        return None

    def extract(self) -> StopRequest:
        """Return a request from the trigger's text, which may have no ids.

        Raises:
            BadEvent: with every violation; text must be JSON.
        """
        (name, time), request = both(self._run, self._request)
        return replace(
            request,
            id=identity(name, rfc3339.render(time)),
            time=time,
            requested_by=request.requested_by or cut(f"timer {name}", LONGEST_REQUESTER),
        )

    def _run(self) -> tuple[str, datetime]:
        name = text(self.document, "trigger_name")
        if not name.strip():
            raise BadEvent(Violation("trigger_name", "must be present"))
        try:
            return name, rfc3339.parse(text(self.document, "time"))
        except ValueError:
            raise BadEvent(Violation("time", "must be an RFC 3339 timestamp with a zone")) from None

    def _request(self) -> StopRequest:
        """Return the request of the text, with a placeholder id."""
        text = self.document.get("user_event")
        data = None if isinstance(text, str) and not text.strip() else text
        try:
            return canonical(plain_event(data, id_="tick", source=self.source), self.now)
        except BadEvent as bad:
            # The author of the text knows the member by the platform's name.
            violations = [
                Violation(f"user_event{violation.at.removeprefix('data')}", violation.message)
                for violation in bad.violations
            ]
            raise BadEvent(*violations) from None

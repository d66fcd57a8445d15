"""FunctionGraph's CTS trigger: the audit trace of an operation on a bare metal server.

Only traces of a start or a restart lead to a stop; which of the two are sent is configured in the trigger. All others
are ignored: create (there is nothing to stop yet), delete, undocumented operations, and stop, which is the trace of
this function's own call. So is a trace that does not show success: CTS also writes traces of failed calls, and of some
that were only accepted.

The guards apply as for any event. A server that is powering on is left alone, and with Nova's history so is one that
was started within the clock tolerance of the trace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from handler.errors import BadEvent, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound.skip import Skip
from handler.inbound.webhooks.fields import LONGEST_REASON, LONGEST_REQUESTER, both, cut, identity, member, moment, text
from handler.inbound.webhooks.fields import server_ids as ids_in
from handler.stop.model import StopRequest

_ACTS = {"startbaremetalservers", "rebootbaremetalservers"}
_ECHO = "stopbaremetalservers"


@dataclass(frozen=True, slots=True)
class CtsEvent:
    """One audit trace.

    Attributes:
        document: the event as the platform sends it.
        source: of the request.
    """

    document: Mapping[str, object]
    source: str

    name: ClassVar[str] = "cts"

    @classmethod
    def is_one(cls, document: Mapping[str, object]) -> bool:
        """Whether an event is a trace."""
        return isinstance(document.get("cts"), dict)

    @property
    def _cts(self) -> Mapping[str, object]:
        return member(self.document, "cts")

    def gate(self) -> Skip | None:
        """Accept only a start or restart of a bare metal server, and only if the trace shows success."""
        name = text(self._cts, "trace_name").lower()
        if name == _ECHO:
            return Skip("echo of a stop")
        if text(self._cts, "service_type").upper() != "BMS" or name not in _ACTS:
            return Skip("a trace of something else")
        if not self._worked():
            return Skip("a trace of something that did not work")
        if not text(self._cts, "resource_id").strip():
            return Skip("the trace names no server")
        return None

    def extract(self) -> StopRequest:
        """Return a request for the server of the trace, at the time when CTS recorded it.

        Raises:
            BadEvent: with every violation.
        """
        id_ = text(self._cts, "trace_id")
        ids, time = both(lambda: ids_in([("cts.resource_id", self._cts.get("resource_id"))]), self._time)
        if not id_.strip():
            raise BadEvent(Violation("cts.trace_id", "must be present"))
        who = text(member(self._cts, "user"), "name")
        return StopRequest(
            source=self.source,
            id=identity(id_),
            type=STOP_REQUESTED,
            server_ids=ids,
            time=time,
            reason=cut(f"CTS trace {text(self._cts, 'trace_name')}", LONGEST_REASON),
            requested_by=cut(f"CTS, trace of {who}" if who else "CTS", LONGEST_REQUESTER),
        )

    def _worked(self) -> bool:
        """Whether the rating is `normal`, under either of its names, and the code is not that of an error."""
        ratings = [self._cts[name] for name in ("trace_status", "trace_rating") if self._cts.get(name) is not None]
        code = self._cts.get("code")
        # 0 is in traces of calls without an HTTP status.
        good = code is None or re.fullmatch(r"0|2\d\d", str(code)) is not None
        return good and bool(ratings) and all(str(rating).lower() == "normal" for rating in ratings)

    def _time(self) -> datetime:
        """Return when CTS recorded the trace, or else the time of the operation."""
        for name in ("record_time", "time"):
            if self._cts.get(name) is not None:
                return moment(self._cts[name], f"cts.{name}")
        raise BadEvent(Violation("cts.time", "must be present"))

"""FunctionGraph's CTS trigger: the audit trace of something that was done to a bare metal server.

A trace tells of the past, so it acts only where the past calls for a stop: a server was started or restarted, by
somebody, though it was to stay off. Which of the two the function hears of is chosen in the trigger. All else is left
alone: creating (there is nothing to stop yet), deleting, what no document names, and above all stopping: that trace is
the echo of this function's own call. So is a trace that does not say that the thing was done: CTS writes traces of
failed calls too, and of some that were only accepted.

The guards stay what they are. A server that is still powering on is left alone, and with Nova's history so is one
that was started within the clock tolerance of the trace.
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
        source: of the request that may come of it.
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
        """Only a bare metal server that was started or restarted, and only if the trace says that it worked."""
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
        """The server of the trace, at the time when CTS had it.

        Raises:
            BadEvent: with every flaw.
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
        """Whether the rating is `normal`, under either of its names, and the code, if there is one, no error's."""
        ratings = [self._cts[name] for name in ("trace_status", "trace_rating") if self._cts.get(name) is not None]
        code = self._cts.get("code")
        # 0 stands in traces of calls that have no HTTP status.
        good = code is None or re.fullmatch(r"0|2\d\d", str(code)) is not None
        return good and bool(ratings) and all(str(rating).lower() == "normal" for rating in ratings)

    def _time(self) -> datetime:
        """When CTS had the trace, or else when the thing was done."""
        for name in ("record_time", "time"):
            if self._cts.get(name) is not None:
                return moment(self._cts[name], f"cts.{name}")
        raise BadEvent(Violation("cts.time", "must be present"))

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
from datetime import datetime

from handler.errors import BadEvent, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound.skip import Skip
from handler.inbound.webhooks.fields import LONGEST_REASON, LONGEST_REQUESTER, both, cut, identity, member, moment, text
from handler.inbound.webhooks.fields import server_ids as ids_in
from handler.stop.model import StopRequest

_STARTS = {"startbaremetalservers", "rebootbaremetalservers"}
_STOP = "stopbaremetalservers"


def stop_request(trace: Mapping[str, object], source: str) -> StopRequest | Skip:
    """Return a request for the server of a trace, at the time when CTS recorded it.

    Args:
        trace: the member `cts` of the event.
        source: of the request.

    Returns:
        A skip unless it is the start or restart of a bare metal server, and the trace shows success.

    Raises:
        BadEvent: with every violation.
    """
    name = text(trace, "trace_name")
    if name.lower() == _STOP:
        return Skip("echo of a stop")
    if text(trace, "service_type").upper() != "BMS" or name.lower() not in _STARTS:
        return Skip("a trace of something else")
    if not _succeeded(trace):
        return Skip("a trace of something that did not work")
    if not text(trace, "resource_id").strip():
        return Skip("the trace names no server")
    id_ = text(trace, "trace_id")
    ids, time = both(lambda: ids_in([("cts.resource_id", trace["resource_id"])]), lambda: _time(trace))
    if not id_.strip():
        raise BadEvent(Violation("cts.trace_id", "must be present"))
    user = text(member(trace, "user"), "name")
    return StopRequest(
        source=source,
        id=identity(id_),
        type=STOP_REQUESTED,
        server_ids=ids,
        time=time,
        reason=cut(f"CTS trace {name}", LONGEST_REASON),
        requested_by=cut(f"CTS, trace of {user}" if user else "CTS", LONGEST_REQUESTER),
    )


def _succeeded(trace: Mapping[str, object]) -> bool:
    """Return whether the rating is `normal`, under either of its names, and the code is not that of an error."""
    ratings = [trace[name] for name in ("trace_status", "trace_rating") if trace.get(name) is not None]
    code = trace.get("code")
    # 0 is in traces of calls without an HTTP status.
    good = code is None or re.fullmatch(r"0|2\d\d", str(code)) is not None
    return good and bool(ratings) and all(str(rating).lower() == "normal" for rating in ratings)


def _time(trace: Mapping[str, object]) -> datetime:
    """Return when CTS recorded the trace, or else the time of the operation."""
    for name in ("record_time", "time"):
        if trace.get(name) is not None:
            return moment(trace[name], f"cts.{name}")
    raise BadEvent(Violation("cts.time", "must be present"))

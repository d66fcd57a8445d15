"""W3C Trace Context of events and requests."""

from __future__ import annotations

import re
from typing import TypedDict

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_TRACESTATE = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,511}", re.ASCII)


class TraceContext(TypedDict):
    """The trace context of a request, as keywords."""

    traceparent: str | None
    tracestate: str | None


def traced(parent: str | None, state: str | None) -> TraceContext:
    """Return a trace context without what is malformed, which must be dropped (W3C Trace Context)."""
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return TraceContext(traceparent=None, tracestate=None)
    return TraceContext(traceparent=parent, tracestate=state if _TRACESTATE.fullmatch(state or "") else None)

"""A stop request, or the approval of a plan, as the CloudEvent that `receive_webhook` sends on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cloudevents.http import CloudEvent

from handler import rfc3339
from handler.outbound.result import selector_row
from handler.stop.model import StopRequest


def stop_request_event(request: StopRequest, extensions: Mapping[str, str]) -> CloudEvent:
    """Make the event with canonical data.

    Args:
        request: the stop request.
        extensions: attributes of every event sent.
    """
    optional = {
        "time": rfc3339.render(request.time) if request.time else None,
        "expirytime": rfc3339.render(request.expires) if request.expires else None,
        "correlationid": request.correlationid,
        "traceparent": request.traceparent,
        "tracestate": request.tracestate,
    }
    attributes = {
        "id": request.id,
        "source": request.source,
        "type": request.type,
        "datacontenttype": "application/json",
        **{name: value for name, value in optional.items() if value is not None},
        **extensions,
    }
    data: dict[str, object] = {
        "server_ids": list(request.server_ids) or None,
        "selector": selector_row(request.selector),
        "dry_run": request.dry_run,
        "reason": request.reason,
        "requested_by": request.requested_by,
        "requester": request.requester,
        "approval": request.approval.value if request.approval else None,
        "reply_to": request.reply_to,
        "since": _since(request.since),
        "left_out": request.left_out or None,
    }
    if request.plan is not None:
        # The servers are those of the plan.
        data = {
            "plan": request.plan,
            "approved_by": request.approved_by,
            "dry_run": request.dry_run,
            "reason": request.reason,
            "requested_by": request.requested_by,
            "reply_to": request.reply_to,
        }
    return CloudEvent(attributes, {name: value for name, value in data.items() if value is not None})


def _since(since: datetime | Mapping[str, datetime] | None) -> str | dict[str, str] | None:
    if isinstance(since, Mapping):
        return {id_: rfc3339.render(stamp) for id_, stamp in since.items()} or None
    return rfc3339.render(since) if since else None

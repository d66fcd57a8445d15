"""A stop request, or the approval of a plan, as the CloudEvent that `receive_webhook` sends on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cloudevents.http import CloudEvent

from handler import rfc3339
from handler.outbound.result import present, request_attributes, selector_row
from handler.stop.model import StopRequest


def stop_request_event(request: StopRequest, extensions: Mapping[str, str]) -> CloudEvent:
    """Make the event with canonical data, with `extensions` as of every event sent."""
    data: dict[str, object] = {
        "dry_run": request.dry_run,
        "reason": request.reason,
        "requested_by": request.requested_by,
        "reply_to": request.reply_to,
    }
    if request.plan is not None:
        # The servers are those of the plan.
        data |= {"plan": request.plan, "approved_by": request.approved_by}
    else:
        data |= {
            "server_ids": list(request.server_ids) or None,
            "selector": selector_row(request.selector),
            "requester": request.requester,
            "approval": request.approval,
            "since": _since(request.since),
            "left_out": request.left_out or None,
        }
    return CloudEvent(request_attributes(request, extensions), present(data))


def _since(since: datetime | Mapping[str, datetime] | None) -> str | dict[str, str] | None:
    if isinstance(since, Mapping):
        return {id_: rfc3339.render(stamp) for id_, stamp in since.items()} or None
    return rfc3339.render(since) if since else None

"""Reports as result events: `stop.completed.v1`, `stop.failed.v1`, `stop.refused.v1` or `stop.planned.v1`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from cloudevents.conversion import to_binary, to_dict
from cloudevents.http import CloudEvent

from handler import rfc3339
from handler.event_types import STOP_COMPLETED, STOP_FAILED, STOP_PLANNED, STOP_REFUSED
from handler.stop.evidence import Evidence
from handler.stop.model import Reason, Report, Selector, ServerResult, StopRequest

if TYPE_CHECKING:
    from handler.keep.model import AnyReport, KeepRequest

_Value = TypeVar("_Value")

# A fixed namespace, so that the same result has the same id in every deployment.
_IDS = uuid.UUID("6e9d1f0c-6c0c-5d0e-9d4a-2f1f6a5f7c11")
# What distinguishes one result from another, beside the request id of a stop.
_CONTENT = attrgetter("id", "outcome", "reason", "vm_state", "task_state", "job_id")
_ROW = (
    *("id", "name", "outcome", "reason", "detail"),
    *("vm_state", "task_state", "previous_vm_state", "request_id", "job_id"),
)
# With these reasons, the request id of a row is the one of the stop, if the cloud gave one.
_STOP_TAKEN = frozenset({Reason.CONFIRMED, Reason.ACCEPTED, Reason.REVERTED, Reason.POWER_STILL_ON})
# Printable ASCII but for space, double quote and percent is not encoded in headers (CloudEvents HTTP binding).
_PLAIN_IN_HEADER = "!#$&'()*+,/:;<=>?@[\\]^`{|}"


def result_id(report: Report, type_: str) -> str:
    """Derive the id of a result event from the incoming event and from the content of the result.

    The same content has the same id, so that a receiver can drop a repeat; other content has another id, as
    CloudEvents demands of events with one `source`. `causationid` ties all results of an event together.

    Returns:
        A UUID (version 5) of the incoming `source` and `id`, the type, the refusal, and of each server its id, outcome,
        reason, states, job id, and the request id of a stop that the cloud took; of no time but the expiry of a plan.
    """
    rows = [
        (*_CONTENT(server), server.request_id if server.reason in _STOP_TAKEN else None) for server in report.servers
    ]
    request = report.request
    content: list[object] = [request.source, request.id, type_, report.refusal, rows]
    if report.plan is not None:
        content.append(rfc3339.render(report.plan.expires_at))
    return str(uuid.uuid5(_IDS, json.dumps(content)))


def result_type(report: Report) -> str:
    """Return the type of the result event of a report."""
    if report.refusal is not None:
        return STOP_REFUSED
    if report.plan is not None:
        return STOP_PLANNED
    return STOP_FAILED if report.failed else STOP_COMPLETED


def result_event(report: Report, *, source: str, extensions: Mapping[str, str]) -> CloudEvent:
    """Make the result event of one report, with `extensions` as of every event sent."""
    type_ = result_type(report)
    id_, servers = result_id(report, type_), report.request.server_ids
    attributes = caused_attributes(report.request, servers, id_, type_, source, report.finished_at, extensions)
    return CloudEvent(attributes, result_data(report))


def caused_attributes(
    request: StopRequest | KeepRequest,
    servers: Sequence[str],
    id_: str,
    type_: str,
    source: str,
    time: datetime,
    extensions: Mapping[str, str],
) -> dict[str, str]:
    """Return the attributes of an event that a request has caused; if it is about one server, that is the subject."""
    return {
        "id": id_,
        "source": source,
        "type": type_,
        "time": rfc3339.render(time),
        "causationid": request.id,
        **present({"subject": servers[0] if len(servers) == 1 else None}),
        **_attributes_of(request, extensions),
    }


def request_attributes(request: StopRequest | KeepRequest, extensions: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes of a request as `receive_webhook` sends it on."""
    return {
        "id": request.id,
        "source": request.source,
        "type": request.type,
        **present({"time": _time(request.time), "expirytime": _time(request.expires)}),
        **_attributes_of(request, extensions),
    }


def _attributes_of(request: StopRequest | KeepRequest, extensions: Mapping[str, str]) -> dict[str, str]:
    tracing = {"traceparent": request.traceparent, "tracestate": request.tracestate}
    optional = present({"correlationid": request.correlationid, **tracing})
    return {"datacontenttype": "application/json", **optional, **extensions}


def present(members: Mapping[str, _Value | None]) -> dict[str, _Value]:
    """Return the members that are not None."""
    return {name: value for name, value in members.items() if value is not None}


def binary(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Return headers and body in binary mode, with header values percent-encoded, which the SDK does not do."""
    headers, body = to_binary(event)
    encoded = {
        name: quote(value, safe=_PLAIN_IN_HEADER) if name.startswith("ce-") else value
        for name, value in headers.items()
    }
    return encoded, body


def batch(events: Sequence[CloudEvent]) -> tuple[dict[str, str], bytes]:
    """Return headers and body in batch mode."""
    return {"content-type": "application/cloudevents-batch+json"}, json.dumps(
        [dict(to_dict(event)) for event in events]
    ).encode()


def result_data(report: Report) -> dict[str, object]:
    """Return the `data` of the result event."""
    plan = report.plan
    servers = [
        {**server_row(server), "evidence": evidence_row(server.evidence) if server.evidence else None}
        for server in report.servers
    ]
    data = report_row(report, {**request_row(report.request), **people(report.request)}, servers)
    offer = plan and {
        "token": plan.token,
        "expires_at": rfc3339.render(plan.expires_at),
        "approver": plan.approver.value,
    }
    return {**data, **present({"notice_for": _time(report.notice_for), "plan": offer})}


def report_row(report: AnyReport, request: Mapping[str, object], servers: Sequence[object]) -> dict[str, object]:
    """Return the members that the results of a stop and of a keep have."""
    return {
        "request": request,
        "dry_run": report.dry_run,
        "api": report.api,
        "refusal": report.refusal,
        "detail": report.detail,
        "summary": report.summary,
        "servers": servers,
        "started_at": rfc3339.render(report.started_at),
        "finished_at": rfc3339.render(report.finished_at),
    }


def people(request: StopRequest) -> dict[str, str]:
    """Return who requested and who approved, as far as the event names them."""
    approved = {"approved_by": request.approved_by, "plan_id": request.plan_id}
    return present({"requester": request.requester, **approved})


def request_row(request: StopRequest | KeepRequest) -> dict[str, object]:
    """Return the request of an event as in the events that are sent about it, without `people`."""
    return {
        "source": request.source,
        "id": request.id,
        "type": request.type,
        "time": _time(request.time),
        "reason": request.reason,
        "requested_by": request.requested_by,
        "reply_to": request.reply_to,
        "selector": selector_row(request.selector),
    }


def selector_row(selector: Selector | None) -> dict[str, object] | None:
    """Return a selector as in canonical data, with the given parts only."""
    if selector is None:
        return None
    parts = {"tags": list(selector.tags), "metadata": dict(selector.metadata), "name": selector.name}
    return {name: part for name, part in parts.items() if part}


def server_row(server: ServerResult) -> dict[str, str | None]:
    """Return one server as in the result event and the log."""
    return {name: getattr(server, name) for name in _ROW}


def evidence_row(evidence: Evidence) -> dict[str, object]:
    """Return the evidence of one server as in the result event and `plan`."""
    action = evidence.action
    return {
        "observed_at": rfc3339.render(evidence.observed_at),
        "vm_state": evidence.vm_state,
        "task_state": evidence.task_state,
        "power_state": evidence.power_state,
        "locked": evidence.locked,
        "launched": evidence.launched,
        "flavor": evidence.flavor,
        "tag": evidence.tag,
        "metadata": evidence.metadata,
        "updated": _time(evidence.updated),
        "event_time": _time(evidence.event_time),
        "clock_tolerance_seconds": evidence.clock_tolerance.total_seconds(),
        "history": evidence.history.value,
        "action": action
        and {
            "action": action.name,
            "start_time": rfc3339.render(action.at),
            "user_id": action.user_id,
            "request_id": action.request_id,
            "failed": action.failed,
        },
    }


def _time(stamp: datetime | None) -> str | None:
    return rfc3339.render(stamp) if stamp else None

"""Plans for `stop_servers`: which events become one, what it is answered with, and what its approval allows.

Loaded when the first event needs an approval, or is one.
"""

from __future__ import annotations

from datetime import datetime

from handler.errors import ApprovalNotConfigured
from handler.event_types import STOP_PLANNED
from handler.outbound.result import result_id
from handler.settings.stop_servers import ApprovalSettings
from handler.stop.approval import ApprovedReview, Plan, PlanReview, issue, verify
from handler.stop.model import Approver, PlanOffer, Reason, Refusal, Report, StopRequest

_MILLISECOND = 1000


def to_be_planned(request: StopRequest, approver: Approver, settings: ApprovalSettings) -> StopRequest:
    """Return the request with its stops turned into a plan for this approver.

    Raises:
        ApprovalNotConfigured: there is no key to sign a plan with.
    """
    if not settings.keys:
        raise ApprovalNotConfigured("The event needs an approval, and AUTOSTOP_APPROVAL_KEYS is not set.")
    return request._replace(approval=approver, review=PlanReview())


def with_plan(report: Report, settings: ApprovalSettings, source: str) -> Report:
    """Return the report with what an approver needs; unchanged if nothing would be stopped.

    The audience of the token is the `source` of this deployment.
    """
    request = report.request
    seen = {
        server.id: server.seen
        for server in report.servers
        if server.reason is Reason.NEEDS_APPROVAL and server.seen is not None
    }
    if not seen or request.approval is None:
        return report
    ends = report.finished_at + settings.ttl
    expires_at = ends.replace(microsecond=ends.microsecond // _MILLISECOND * _MILLISECOND)
    offered = report._replace(plan=PlanOffer("", expires_at, request.approval))
    plan = Plan(
        plan_id=result_id(offered, STOP_PLANNED),
        source=request.source,
        id=request.id,
        requester=request.requester,
        approver=request.approval,
        expires_at=expires_at,
        seen=seen,
    )
    token = issue(plan, _keys(settings), source)
    return offered._replace(plan=PlanOffer(token, expires_at, request.approval))


def approved(
    request: StopRequest, settings: ApprovalSettings, source: str, now: datetime
) -> tuple[StopRequest, Refusal | None]:
    """Return the request of an approval with the servers of its plan, or why it is refused.

    The token must be for the `source` of this deployment.
    """
    assert request.plan is not None
    assert request.approved_by is not None
    plan, refusal = verify(request.plan, _keys(settings), source, request.approved_by, now)
    if plan is None:
        return request, refusal
    request = request._replace(requester=plan.requester, plan_id=plan.plan_id)
    if refusal is not None:
        return request, refusal
    return request._replace(server_ids=tuple(plan.seen), review=ApprovedReview(plan.seen)), None


def _keys(settings: ApprovalSettings) -> list[bytes]:
    return [key.reveal().encode() for key in settings.keys]

"""The approval of a plan: `stop.approved.v1`. Loaded when the first one arrives."""

from __future__ import annotations

from handler.errors import BadEvent, Violation
from handler.inbound.cloudevents.decode import Event
from handler.inbound.extract.canonical import (
    LONGEST,
    MEMBERS,
    data_object,
    dry_run_of,
    identity,
    misspelt,
    request_for,
    texts_of,
)
from handler.stop.approval import is_person
from handler.stop.model import StopRequest

_APPROVAL = ("plan", "approved_by")


def approved(event: Event) -> StopRequest:
    """Read an approval: `data.plan` is the token of the plan, `data.approved_by` the identity of the approver.

    The servers are those of the token, and no others.

    Raises:
        BadEvent: the data is malformed; with every violation.
    """
    data = data_object(event) or {}
    violations: list[Violation] = misspelt(data, (*_APPROVAL, *MEMBERS))
    violations += [
        Violation(f"data.{name}", "must not be in an approval: the plan names the servers")
        for name in MEMBERS
        if name not in ("dry_run", *LONGEST) and data.get(name) is not None
    ]
    plan, approved_by = data.get("plan"), identity(data, "approved_by", violations)
    if not isinstance(plan, str) or not plan:
        violations.append(Violation("data.plan", "must be the token of a plan"))
    if data.get("approved_by") is None:
        violations.append(Violation("data.approved_by", "must be the identity of the approver, <system>:<id>"))
    elif approved_by is not None and not is_person(approved_by):
        violations.append(Violation("data.approved_by", "must be the identity of a person, not of an agent"))
    dry = dry_run_of(data, (*_APPROVAL, *MEMBERS), violations)
    texts = texts_of(data, violations)
    if violations:
        raise BadEvent(*violations)
    return request_for(event, (), dry, texts["reason"])._replace(
        requested_by=texts["requested_by"],
        reply_to=texts["reply_to"],
        plan=str(plan),
        approved_by=approved_by,
    )

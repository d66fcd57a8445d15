"""`bms-autostop approve`: post the approval of a plan."""

from __future__ import annotations

import sys
from typing import Any

import click

from handler.cli import events
from handler.cli.exit_codes import Exit, refused
from handler.cli.send import deliver, delivery_options, requests_in, url_option


@click.command(
    epilog="Exit code: 0 taken (2xx), 2 the command line is wrong, 3 the approval is malformed or was refused, 4 no "
    "answer, or 503: not handled. It may be run again after 4: a server is stopped once at most."
)
@click.argument("plan")
@url_option("the function")
@click.option("--as", "approved_by", metavar="SYSTEM:ID", required=True, help="Who approves, such as slack:T1/U2.")
@click.option("--reason", metavar="TEXT", help="Why; carried into the result.")
@delivery_options
@click.option("-v", "--verbose", is_flag=True, help="Print what each server was judged by.")
def approve(plan: str, approved_by: str, reason: str | None, **delivery: Any) -> int:
    """Approve a plan, so that its servers are stopped.

    Those that are still as planned are stopped, which is a power cut.

    PLAN is the token of a stop.planned.v1 event, or - to read it from standard input. The caller must be one that may
    send approvals (AUTOSTOP_APPROVER_TOKENS or AUTOSTOP_APPROVER_SUBJECTS of the function, if they are set).
    """
    from handler.event_types import STOP_APPROVED

    token = sys.stdin.read().strip() if plan == "-" else plan
    message = events.made(STOP_APPROVED, {"plan": token, "approved_by": approved_by, "reason": reason})
    with refused("The approval can never succeed; it was not sent:"):
        requests = requests_in(message)
    answer = deliver(message, requests, **delivery)
    if any(result.get("refusal") for result in answer.results):
        return Exit.REFUSED
    return answer.delivery.exit_code

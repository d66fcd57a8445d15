"""`bms-autostop approve`: post the approval of a plan."""

from __future__ import annotations

import json
import sys

import click

from handler.cli import events
from handler.cli.exit_codes import Exit
from handler.cli.send import as_document, bearer_token, delivery_options, not_sent, post, requests_in, show, url_option
from handler.terminal import problems


@click.command(
    epilog="Exit code: 0 taken (2xx), 2 the command line is wrong, 3 the approval is malformed or was refused, 4 no "
    "answer, or 503: not handled. It may be run again after 4: a server is stopped once at most."
)
@click.argument("plan")
@click.option(
    "--url", metavar="URL", callback=url_option, required=True, help="Of the function, or of a broker before it."
)
@click.option("--as", "approved_by", metavar="SYSTEM:ID", required=True, help="Who approves, such as slack:T1/U2.")
@click.option("--reason", metavar="TEXT", help="Why; carried into the result.")
@delivery_options
@click.option("-v", "--verbose", is_flag=True, help="Print what each server was judged by.")
def approve(
    plan: str,
    url: str,
    approved_by: str,
    reason: str | None,
    token_file: str | None,
    timeout: int,
    as_json: bool,
    verbose: bool,
) -> int:
    """Approve a plan, so that its servers are stopped.

    Those that are still as planned are stopped, which is a power cut.

    PLAN is the token of a stop.planned.v1 event, or - to read it from standard input. The caller must be one that may
    send approvals (AUTOSTOP_APPROVER_TOKENS or AUTOSTOP_APPROVER_SUBJECTS of the function, if they are set).
    """
    from handler.errors import BadEvent
    from handler.event_types import STOP_APPROVED

    try:
        token = bearer_token(token_file)
    except OSError as failure:
        problems("Cannot read:", [str(failure)])
        return Exit.USAGE
    data = {"plan": sys.stdin.read().strip() if plan == "-" else plan, "approved_by": approved_by, "reason": reason}
    message = events.made(STOP_APPROVED, {name: value for name, value in data.items() if value is not None})
    try:
        requests = requests_in(message)
    except BadEvent as bad:
        return not_sent("approval", bad)
    answer = post(url, message, token, timeout)
    if as_json:
        click.echo(json.dumps(as_document(answer, requests), indent=2))
    else:
        show(answer, requests, verbose)
    if any(result.get("refusal") for result in answer.results):
        return Exit.REFUSED
    return answer.delivery.exit_code

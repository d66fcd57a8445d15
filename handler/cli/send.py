"""`bms-autostop send`: post an event to a function."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from handler.cli import events
from handler.cli.exit_codes import CommandError, Exit, refused
from handler.terminal import Progress, escape, problems, terminal_width, wrap

if TYPE_CHECKING:
    from handler.keep.model import KeepRequest
    from handler.stop.model import StopRequest

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])

_TOKEN = re.compile(r"[\x21-\x7e]+")
_UNKNOWN = "It is not known whether the event was taken: servers may be stopped. Look before sending it again."


class Delivery(StrEnum):
    """Whether a posted event was accepted."""

    TAKEN = "taken"
    REFUSED = "refused"
    NOT_SENT = "not-sent"
    NOT_HANDLED = "not-handled"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> Exit:
        """The exit code for it."""
        if self is Delivery.TAKEN:
            return Exit.OK
        return Exit.REFUSED if self is Delivery.REFUSED else Exit.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of posting an event.

    Attributes:
        delivery: whether it was accepted.
        status: the HTTP status; None if there was no answer.
        detail: one sentence, without text from outside.
        results: the data of each result event in the answer.
        problem: the problem document of an answer that is not 2xx; empty if it has none.
    """

    delivery: Delivery
    status: int | None
    detail: str
    results: tuple[Mapping[str, Any], ...] = ()
    problem: Mapping[str, Any] = field(default_factory=dict)


def _url(ctx: click.Context, param: click.Parameter, value: str) -> str:
    from handler.settings.env import http_url

    try:
        return http_url(value)
    except ValueError:
        raise click.BadParameter("must be an http or https URL without credentials", ctx, param) from None


def _token(ctx: click.Context, param: click.Parameter, file: str | None) -> str:
    """Return the bearer token; empty if there is none."""
    del ctx, param
    try:
        token = Path(file).read_text(encoding="latin-1").strip() if file else os.environ.get("AUTOSTOP_SINK_TOKEN", "")
        if (file or token) and not _TOKEN.fullmatch(token):
            raise OSError(f"{file or 'AUTOSTOP_SINK_TOKEN'}: must hold one token and nothing else")
    except OSError as error:
        raise CommandError(Exit.USAGE, "Cannot read:", [str(error)]) from None
    return token


def url_option(what: str) -> Callable[[_Decorated], _Decorated]:
    """Return the option --url, which names `what` or a broker before it."""
    about = f"Of {what}, or of a broker before it."
    return click.option("--url", metavar="URL", callback=_url, required=True, help=about)


def delivery_options(command: _Decorated) -> _Decorated:
    """Add the other options about the delivery of an event, as `deliver` takes them, to a command."""
    as_json = "Print one JSON object: delivery, status, events, results."
    limits = click.IntRange(1, 3600)
    token = "File with the bearer token; else AUTOSTOP_SINK_TOKEN."
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help=as_json),
        click.option("--timeout", metavar="SECONDS", type=limits, default=90, help="Longer than AUTOSTOP_DEADLINE."),
        click.option("--token-file", "token", metavar="FILE", type=click.Path(), callback=_token, help=token),
    ):
        command = decorate(command)
    return command


@click.command(
    epilog="Exit code: 0 taken (2xx), 2 the command line is wrong, 3 the event is malformed or was refused (4xx), 4 no "
    "answer, or 503: not handled. After a time-out it is not known whether the event was taken."
)
@url_option("the function")
@click.option("--dry-run", "dry_run", flag_value=True, type=bool, default=None, help="Ask what would be done.")
@click.option(
    "--stop",
    "dry_run",
    flag_value=False,
    type=bool,
    default=None,
    help="Ask for the stop, which may be a forced power cut.",
)
@events.selection
@delivery_options
@click.option("-v", "--verbose", is_flag=True, help="Print what each server was judged by.")
def send(
    url: str,
    dry_run: bool | None,
    token: str,
    timeout: int,
    as_json: bool,
    verbose: bool,
    **options: Any,
) -> int:
    """Post an event that asks for a stop, or for a plan of it.

    The event is a file, or made of the options that name servers. Either --dry-run or --stop must be given. With
    --dry-run a file's event is changed to say `dry_run`; one that cannot be changed is not sent. An event is posted
    once and never repeated.
    """
    if dry_run is None:
        raise click.UsageError("Either --dry-run or --stop must be given.")
    message = events.message(**options, more={"dry_run": dry_run})
    if dry_run and options["event"] is not None:
        message = _as_dry_run(message)
    with refused("The event can never succeed; it was not sent:"):
        requests = requests_in(message)
    if not requests:
        ignored = "It asks for nothing: the function would ignore it."
        raise CommandError(Exit.REFUSED, "The event was not sent:", [ignored])
    if any(request.dry_run is not dry_run for request in requests):
        text = (
            "The event cannot be made a dry run here." if dry_run else "The event says dry_run, and --stop was given."
        )
        raise CommandError(Exit.USAGE, "The event was not sent:", [text])
    answer = deliver(message, requests, url, token, timeout, as_json, verbose=verbose, approvable=True)
    return answer.delivery.exit_code


def _as_dry_run(message: events.Message) -> events.Message:
    """Return the same message with `dry_run` in the data of each event, where the data is a JSON object.

    Whether it is a dry run then is checked afterwards, by parsing it as the function does.
    """
    from handler.inbound.cloudevents import strict_json

    try:
        # Strictly, since a duplicate name would be lost.
        document = strict_json.loads(message.body)
    except ValueError:
        return message
    found = [document]
    if message.headers.get("content-type", "").startswith("application/cloudevents"):
        members = document if isinstance(document, list) else [document]
        found = [event.setdefault("data", {}) for event in members if isinstance(event, dict)]
    for data in found:
        # Any other value is a violation, which must be reported.
        if isinstance(data, dict) and isinstance(data.get("dry_run", False), bool):
            data["dry_run"] = True
    return events.Message(message.headers, json.dumps(document).encode())


def requests_in(message: events.Message) -> list[StopRequest]:
    """Parse a message as the function does.

    Raises:
        AutostopError: the function would refuse it.
    """
    from handler.inbound.cloudevents.decode import decode
    from handler.inbound.endpoints.stop_servers import requests_of

    return requests_of(decode(*message), {})


def deliver(
    message: events.Message,
    requests: Sequence[StopRequest | KeepRequest],
    url: str,
    token: str,
    timeout: float,
    as_json: bool,
    *,
    verbose: bool = False,
    planned: str = "would be stopped",
    approvable: bool = False,
    unknown: str = _UNKNOWN,
) -> Answer:
    """Post a message once, and print the answer; see `delivery_options`.

    With `approvable` the command that approves a plan is printed as well; `planned` is the verb for servers of a dry
    run in the summary, `unknown` the detail if it is not known whether the event was taken.
    """
    with Progress(f"waiting for {urlsplit(url).hostname}"):
        answer = _posted(url, message, token, timeout, unknown)
    if as_json:
        click.echo(json.dumps(_document(answer, requests), indent=2))
    elif answer.delivery is Delivery.TAKEN:
        _show(answer, requests, verbose, planned, url if approvable else "")
    else:
        problems(_heading(answer), _details(answer.problem, requests))
    return answer


def _posted(url: str, message: events.Message, token: str, timeout: float, unknown: str) -> Answer:
    from handler.http_client import FAILURES, HttpClient

    headers = dict(message.headers)
    if token:
        headers["Authorization"] = f"Bearer {token}"
    client = HttpClient(pool=1)
    try:
        status, received, body = client.send("POST", url, headers=headers, body=message.body, timeout=timeout)
    except FAILURES as failure:
        return _no_answer(failure, unknown)
    finally:
        client.close()
    document = _json(body)
    if 200 <= status < 300:
        results = tuple(_results(str(received.get("content-type") or ""), str(received.get("ce-type") or ""), document))
        detail = "The event was handled." if results else "The event was taken. The answer holds no result."
        return Answer(Delivery.TAKEN, status, detail, results)
    problem = document if isinstance(document, dict) else {}
    if status == 503:
        detail = "The event was not handled, or not wholly. Sending the same event again is safe."
        return Answer(Delivery.NOT_HANDLED, status, detail, problem=problem)
    if status < 500:
        detail = "A redirect is not followed." if status < 400 else "The event was refused; nothing was done."
        return Answer(Delivery.REFUSED, status, detail, problem=problem)
    return Answer(Delivery.UNKNOWN, status, unknown, problem=problem)


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _results(media_type: str, type_: str, document: object) -> Iterator[Mapping[str, Any]]:
    """Yield the data of each result event: of one in binary mode, or of a batch."""
    if media_type.startswith("application/cloudevents-batch") and isinstance(document, list):
        for event in document:
            if isinstance(event, dict) and isinstance(event.get("data"), dict):
                yield event["data"]
    elif type_ and isinstance(document, dict):
        yield document


def _no_answer(failure: BaseException, unknown: str) -> Answer:
    from urllib3 import exceptions

    reason = failure.args[0] if isinstance(failure, exceptions.SSLError) and failure.args else failure
    match reason:
        case exceptions.NameResolutionError():
            why = "no address for the host name"
        case exceptions.NewConnectionError():
            cause = reason.__cause__ or reason.__context__
            why = str(cause.strerror) if isinstance(cause, OSError) and cause.strerror else "no connection"
        case exceptions.ConnectTimeoutError():
            why = "no connection in time"
        case ssl.SSLCertVerificationError():
            why = f"the certificate is not trusted: {reason.verify_message}"
        case _:
            return Answer(Delivery.UNKNOWN, None, f"No answer ({type(failure).__name__}). {unknown}")
    return Answer(Delivery.NOT_SENT, None, f"No connection, so nothing was sent: {why}.")


def _document(answer: Answer, requests: Sequence[StopRequest | KeepRequest]) -> dict[str, object]:
    return {
        "delivery": answer.delivery.value,
        "status": answer.status,
        "detail": answer.detail,
        "events": [{"source": request.source, "id": request.id, "dry_run": request.dry_run} for request in requests],
        "results": list(answer.results),
        "problem": dict(answer.problem) or None,
    }


def _heading(answer: Answer) -> str:
    return f"HTTP {answer.status}: {answer.detail}" if answer.status else answer.detail


def _details(problem: Mapping[str, Any], requests: Sequence[StopRequest | KeepRequest]) -> Iterator[str]:
    """Yield the events, and what a problem document says of them."""
    for request in requests:
        yield f"event: {request.id} from {request.source}"
    yield from (str(problem[name]) for name in ("title", "detail") if problem.get(name))
    violations = problem.get("violations")
    for violation in violations if isinstance(violations, list) else []:
        if isinstance(violation, dict):
            yield f"{violation.get('at')}: {violation.get('message')}"
    if word := re.search("[a-z]+(-[a-z]+)*$", str(problem.get("type", ""))):
        yield f"`bms-autostop explain {word[0]}` says what to do."


def _show(
    answer: Answer, requests: Sequence[StopRequest | KeepRequest], verbose: bool, planned: str, approve_at: str
) -> None:
    """Print the results of an event that was taken."""
    from handler.cli.results import Result, lines, summary

    width = terminal_width()
    for request in requests:
        click.echo("\n".join(wrap(escape(f"Event {request.id} from {request.source}"), width)))
    click.echo("\n".join(wrap(_heading(answer), width)))
    if answer.results:
        results = [Result.parse(data) for data in answer.results]
        rows = lines(results, width, verbose=verbose, planned=False)
        plans = [line for data in answer.results for line in _approval(data, approve_at, width)] if approve_at else []
        click.echo("\n".join([*rows, *plans, *wrap(summary(results, planned), width)]))


def _approval(data: Mapping[str, Any], url: str, width: int) -> Iterator[str]:
    """Say how the plan of a result is approved; the command is one line, so that it can be copied."""
    plan = data.get("plan")
    token = str(plan.get("token")) if isinstance(plan, dict) else ""
    # It is printed as it is, so it must not be able to control the terminal.
    if not isinstance(plan, dict) or not re.fullmatch(r"[A-Za-z0-9_-]+", token):
        return
    by = "a person" if plan.get("approver") == "self" else "another person than the requester"
    yield from wrap(f"Nothing was sent. Until {escape(str(plan.get('expires_at')))} {by} can approve the plan:", width)
    yield f"bms-autostop approve --url {url} --as SYSTEM:ID {token}"

"""`bms-autostop plan`: show what an event would do."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from handler.cli import events
from handler.cli.exit_codes import CommandError, Exit, refused
from handler.terminal import Progress, terminal_width, wrap

if TYPE_CHECKING:
    from handler.errors import RetryableError


@click.command(
    epilog="Exit code: 0 nothing stands in the way, 1 at least one server would fail, 2 settings or command line are "
    "wrong, 3 the event is malformed, ignored or would be refused, 4 the cloud could not be asked."
)
@events.selection
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(0.1, 3600), default=30, help="Time for the cloud's answers."
)
@click.option("--json", "as_json", is_flag=True, help="Print the data of the result event; an array for a batch.")
@click.option("-v", "--verbose", is_flag=True, help="Print what each server was judged by.")
def plan(timeout: float, as_json: bool, verbose: bool, **options: Any) -> int:
    """Say what an event would do to each server, and why.

    The event is a file (- for standard input) in any mode of CloudEvents: a JSON object, an array of them, or an
    object with `headers` and `body`. Instead of a file, options can name the servers.

    A stop on Open Telekom Cloud is a forced power cut; on upstream Nova it is a clean shutdown with a time-out, forced
    when that ends. Here the cloud is only read. Whether the login may stop servers is not tested: see `bms-autostop
    doctor --server`.
    """
    message = events.message(**options, more={})
    from handler.cli.results import Result, lines, summary
    from handler.cli.settings import Target, read
    from handler.errors import RetryableError
    from handler.inbound.cloudevents.decode import decode
    from handler.inbound.endpoints.stop_servers import requests_of
    from handler.outbound.result import result_data
    from handler.services.stop_servers import Service
    from handler.settings.env import SettingsError

    # No caller is authenticated here, so this setting is not required.
    environ = {"AUTOSTOP_INBOUND_AUTH": "none", **os.environ, "AUTOSTOP_DRY_RUN": "true"}
    try:
        configured = read(Target.STOP_SERVERS, environ)
    except SettingsError as invalid:
        raise CommandError(Exit.USAGE, "The settings are not valid:", invalid.violations) from None
    ignored: list[str] = []
    try:
        with refused("The event can never succeed:"):
            requests = requests_of(decode(*message), configured.event_types, lambda _, why: ignored.append(why))
            if not requests:
                raise CommandError(Exit.REFUSED, "The event would be ignored:", ignored)
            service, deadline = Service(configured), time.monotonic() + timeout
            with Progress("asking the cloud"):
                data = [result_data(service.report(request, deadline)) for request in requests]
    except RetryableError as error:
        raise CommandError(Exit.UNAVAILABLE, "The cloud could not be asked:", _details(error)) from None
    results = [Result.parse(one) for one in data]
    if as_json:
        click.echo(json.dumps(data if "batch" in message.headers.get("content-type", "") else data[0], indent=2))
    else:
        width = terminal_width()
        note = "Nothing was sent. Whether the login may stop servers was not tested."
        text = [*lines(results, width, verbose=verbose, planned=True), *wrap(note, width)]
        click.echo("\n".join([*text, *wrap(summary(results), width)]))
    if any(result.refusal for result in results):
        return Exit.REFUSED
    return Exit.FAILED if any(result.failed for result in results) else Exit.OK


def _details(failure: RetryableError) -> Iterator[str]:
    """Yield the error, its causes except for texts from outside, and what to do."""
    from handler.errors import AutostopError

    error: BaseException | None = failure
    while isinstance(error, AutostopError):
        yield f"{error.name}: {error}"
        error = error.__cause__
    if failure.cause is not None:
        yield f"Cause: {failure.cause}."
    yield from filter(None, [failure.fix])
    yield "`bms-autostop doctor` says what is wrong."

"""`bms-autostop keep`: keep servers from being stopped for a while, or end that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from handler import rfc3339
from handler.cli import events
from handler.cli.exit_codes import Exit, refused
from handler.cli.send import deliver, delivery_options, url_option
from handler.settings import durations

_UNKNOWN = "It is not known whether the event was taken. Sending it again is safe: a keep is never shortened."


def _valid(
    parse: Callable[[str], object], must: str
) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return the check of an option whose text is copied into the event."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        try:
            if value is not None:
                parse(value)
        except ValueError:
            raise click.BadParameter(must, ctx, param) from None
        return value

    return check


_DURATION = _valid(durations.parse, "must be a duration such as 30m, 2h or 1d")
_TIME = _valid(rfc3339.parse, "must be an RFC 3339 time with a zone, such as 2026-12-24T08:00:00+01:00")


@click.command(
    epilog="Exit code: 0 every server is kept or released (without a result in the answer: the event was taken), 1 a "
    "server failed, 2 the command line is wrong, 3 the event was refused, 4 no answer, or 503: not handled. It may be "
    "run again after 1 and 4."
)
@url_option("keep_servers")
@click.option("--for", "duration", metavar="DURATION", callback=_DURATION, help="Such as 30m, 2h or 1d, from now.")
@click.option("--until", metavar="TIME", callback=_TIME, help="RFC 3339 with a zone.")
@click.option("--release", is_flag=True, help="End the keep.")
@click.option("--dry-run", is_flag=True, help="Ask what would be done.")
@events.servers
@click.option("--requested-by", metavar="TEXT", help="Who asks; the result carries it.")
@delivery_options
def keep(
    url: str,
    duration: str | None,
    until: str | None,
    release: bool,
    dry_run: bool,
    requested_by: str | None,
    token: str,
    timeout: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Keep servers from being stopped until a time, or end that.

    One of --for, --until and --release must be given, and the servers by --server, or by --name, --tag and --metadata.
    A keep that is there is never shortened, except by --release.
    """
    if (duration is not None) + (until is not None) + release != 1:
        raise click.UsageError("One of --for, --until and --release must be given.")
    from handler.cli.results import Result
    from handler.event_types import KEEP_REQUESTED
    from handler.inbound.cloudevents.decode import decode
    from handler.inbound.extract.keep import extract_keep
    from handler.keep.model import KeepRequest

    more = {"for": duration, "until": until, "release": release or None, "requested_by": requested_by}
    message = events.message(event=None, **options, more={**more, "dry_run": dry_run}, type_=KEEP_REQUESTED)
    with refused("The event can never succeed; it was not sent:"):
        (event,) = decode(*message).events
        # The function limits how far ahead a keep may end.
        request = extract_keep(event, timedelta.max, datetime.now(UTC))
    assert isinstance(request, KeepRequest)
    answer = deliver(message, [request], url, token, timeout, as_json, planned="would be changed", unknown=_UNKNOWN)
    results = [Result.parse(data) for data in answer.results]
    if any(result.refusal for result in results):
        return Exit.REFUSED
    return Exit.FAILED if any(result.failed for result in results) else answer.delivery.exit_code

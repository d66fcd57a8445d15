"""The event that a command is about: from a file, or made of the command line."""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from handler.cli.exit_codes import CommandError, Exit

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_STOP_REQUESTED = "io.github.bms-autostop.stop.requested.v1"
_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class Message(NamedTuple):
    """An HTTP message that carries one event or several.

    Attributes:
        headers: names in lower case; values as bytes decoded as Latin-1.
    """

    headers: Mapping[str, str]
    body: bytes


def server_id(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Check the ids of servers, for an option; upper case becomes lower case."""
    if value is None or isinstance(value, tuple):
        return value if value is None else tuple(server_id(ctx, param, one) for one in value)
    if not _UUID.fullmatch(value):
        raise click.BadParameter("must be the UUID of a server", ctx, param)
    return value.lower()


def _entries(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Split entries of metadata at their first `=`; the value may be empty."""
    pairs = [one.partition("=") for one in value]
    if not all(key and sign for key, sign, _ in pairs):
        raise click.BadParameter("must be of the form KEY=VALUE", ctx, param)
    return tuple((key, text) for key, _, text in pairs)


def selection(command: _Decorated) -> _Decorated:
    """Add the argument EVENT and the options in place of it to a command."""
    return click.argument("event", metavar="[EVENT.json|-]", required=False)(servers(command))


def servers(command: _Decorated) -> _Decorated:
    """Add the options that name servers, and --reason, to a command."""
    for decorate in (
        click.option("--reason", metavar="TEXT", help="Why; the result carries it. Not with EVENT."),
        click.option("--metadata", metavar="K=V", multiple=True, callback=_entries, help="Servers with this metadata."),
        click.option(
            "--tag", "tags", metavar="TAG", multiple=True, help="Servers with this tag. Several: all of them."
        ),
        click.option("--name", metavar="GLOB", help="Servers whose whole name fits, such as 'ci-*'."),
        click.option("--server", "servers", metavar="ID", multiple=True, callback=server_id, help="This server."),
    ):
        command = decorate(command)
    return command


def message(
    event: str | None,
    servers: tuple[str, ...],
    name: str | None,
    tags: tuple[str, ...],
    metadata: tuple[tuple[str, str], ...],
    reason: str | None,
    *,
    more: Mapping[str, object],
    type_: str = _STOP_REQUESTED,
) -> Message:
    """Read the event from its file, or make one of the other options, with `more` in its data.

    Raises:
        click.UsageError: not exactly one way of naming servers is used.
        CommandError: the file cannot be read.
    """
    selector = {"name": name, "tags": list(tags) or None, "metadata": dict(metadata) or None}
    selector = {part: value for part, value in selector.items() if value is not None}
    if (event is not None) + bool(servers) + bool(selector) != 1:
        raise click.UsageError("Name the servers: EVENT.json, or --server, or --name, --tag and --metadata.")
    if event is None:
        named = {"server_ids": list(servers)} if servers else {"selector": selector}
        return made(type_, {**named, "reason": reason, **more})
    if reason is not None:
        raise click.UsageError("--reason cannot be given with EVENT.json, which has its own.")
    try:
        return _from_file(sys.stdin.buffer.read() if event == "-" else Path(event).read_bytes())
    except OSError as error:
        raise CommandError(Exit.USAGE, "The event cannot be read:", [str(error)]) from None


def made(type_: str, data: Mapping[str, object]) -> Message:
    """Make an event of now, in structured mode, without the members of data that are None."""
    event = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/bms-autostop/cli",
        "type": type_,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {name: value for name, value in data.items() if value is not None},
    }
    return Message({"content-type": _STRUCTURED}, json.dumps(event).encode())


def _from_file(content: bytes) -> Message:
    """Return the message in a file: an array is a batch; an object of just `headers` and `body` is binary mode."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    match document:
        case list():
            return Message({"content-type": _BATCH}, content)
        case {"headers": dict(headers), "body": str(body)} if len(document) == 2:
            return Message({name.lower(): _latin_1(value) for name, value in headers.items()}, body.encode())
        case _:
            return Message({"content-type": _STRUCTURED}, content)


def _latin_1(value: object) -> str:
    return str(value).encode("utf-8", "surrogatepass").decode("latin-1")

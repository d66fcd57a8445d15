"""`bms-autostop serve`: run a function here."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import click

from handler.cli.exit_codes import CommandError, Exit
from handler.cli.settings import Target, read
from handler.terminal import os_reason

_MAIN = Path(__file__).parent.parent / "main.py"


@click.command(epilog="Exit code: 2 the settings are wrong or the port is in use; else that of the server.")
@click.option(
    "--target",
    type=click.Choice([one.value for one in Target]),
    default=Target.STOP_SERVERS.value,
    help="The function to serve.",
)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(1, 65535),
    envvar="PORT",
    show_envvar=True,
    default=8080,
    help="Port to listen on.",
)
def serve(target: str, host: str, port: int) -> int:
    """Serve a function, with settings from the environment.

    The process becomes functions-framework, so signals reach the server directly.
    """
    from handler.settings.env import SettingsError

    try:
        read(Target(target), os.environ)
    except SettingsError as invalid:
        raise CommandError(Exit.USAGE, f"The settings of {target} are not valid:", invalid.violations) from None
    try:
        _check_free(host, port)
    except OSError as error:
        details = [f"{host}, port {port}: {os_reason(error)}"]
        raise CommandError(Exit.USAGE, "The function cannot listen:", details) from None
    command = [sys.executable, "-m", "functions_framework", "--source", str(_MAIN), "--target", target]
    sys.stdout.flush()
    return os.execv(sys.executable, [*command, "--host", host, "--port", str(port)])


def _check_free(host: str, port: int) -> None:
    """Raise OSError if nothing can listen there."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        # As gunicorn does: a connection that has just ended does not occupy the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Two listeners can share an address only until the second one calls listen.
        listener.listen(1)

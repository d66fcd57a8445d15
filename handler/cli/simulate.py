"""`bms-autostop simulate`: run the simulated cloud alone."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from handler.cli.exit_codes import CommandError, Exit
from handler.terminal import os_reason

if TYPE_CHECKING:
    from handler.simulator import Simulator

_ANY_ADDRESS = ("", "0.0.0.0", "::")


@click.command(epilog="Exit code: 0 ended by Ctrl-C, 2 the command line is wrong or the port is in use.")
@click.option("--fleet", type=click.Choice(["demo"]), help="Begin with a dozen servers that README and samples name.")
@click.option("--servers", type=click.IntRange(0, 1000), default=3, help="How many active servers to begin with.")
@click.option(
    "--host",
    metavar="NAME",
    default="127.0.0.1",
    help="Name or address to listen on, which the catalogue names to clients. Who reaches it can do all it can.",
)
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65535), default=8774, help="Port; 0 for a free one.")
@click.option("--password", metavar="TEXT", help="Of its user `operator`.  [default: a random one]")
@click.option(
    "--power-off-delay",
    metavar="SECONDS",
    type=click.FloatRange(0, 3600),
    default=2.0,
    help="From a stop that is taken to a server that is stopped.",
)
@click.pass_context
def simulate(
    ctx: click.Context,
    fleet: str | None,
    servers: int,
    host: str,
    port: int,
    password: str | None,
    power_off_delay: float,
) -> int:
    """Run the simulated cloud alone, and print a login to it.

    The login is printed as lines that set the OS_* variables.
    Its Keystone and Nova answer as real ones do; nothing leaves this machine.
    """
    from handler.simulator import Simulator

    if fleet and ctx.get_parameter_source("servers") is not ParameterSource.DEFAULT:
        raise click.UsageError("--servers cannot be given with --fleet, which has its own.")
    if host in _ANY_ADDRESS:
        raise click.UsageError("--host: must be a name or address that clients can call.")
    try:
        with Simulator(host=host, port=port, power_off_delay=power_off_delay, password=password) as cloud:
            click.echo("# A simulated cloud. Paste these lines into another terminal to log in:")
            for name, value in cloud.environ().items():
                click.echo(f"export {name}='{value}'")
            for line in _demo_fleet(cloud) if fleet else _active_servers(cloud, servers):
                click.echo(f"# {line}")
            click.echo("# Ctrl-C ends it.")
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return Exit.OK
    except OSError as error:
        details = [f"{host}, port {port}: {os_reason(error)}"]
        raise CommandError(Exit.USAGE, "The simulated cloud cannot run:", details) from None


def _active_servers(cloud: Simulator, count: int) -> Iterator[str]:
    for number in range(1, count + 1):
        name = f"bms-{number:02}"
        # The same at each start, so that commands with them can be repeated.
        yield f"{name} {cloud.add_server(name, id=str(uuid.uuid5(uuid.NAMESPACE_DNS, name)))} active"


def _demo_fleet(cloud: Simulator) -> Iterator[str]:
    from handler.demo.fleet import FLEET, add

    for server in FLEET:
        add(cloud, server)
        yield f"{server.name:<9}{server.id}  {server.vm_state:<9}{server.remark}"

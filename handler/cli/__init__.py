"""The `bms-autostop` command.

Each subcommand is a module of its own, which is imported when it is called; so `--help` and shell completion import
neither the HTTP client nor the simulated cloud.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from handler import __version__
from handler.cli.exit_codes import CommandError, Exit
from handler.terminal import problems

__all__ = ["Exit", "command", "main"]

# In the order of `--help`. Each is an object of a module below `handler.cli`, which may hold several.
_COMMANDS = (
    *("demo", "demo-chat", "simulate", "serve", "doctor", "plan", "send", "keep", "approve"),
    *("explain", "settings", "completion"),
)


class _ClosedPipe(Exception):
    """Nothing reads the standard output any more."""


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names in the order of `--help`."""
        del ctx
        return [*_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"handler.cli.{cmd_name.removesuffix('-chat')}")
        imported: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return imported

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and write out everything that it printed."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            raise _ClosedPipe from None
        return result


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Colour is used on terminals only, and not if NO_COLOR is set.",
)
@click.version_option(__version__, message="bms-autostop %(version)s")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Stop bare metal servers when an event asks for it.

    A stop on Open Telekom Cloud is a forced power cut, and does not end the bill of a bare metal server. On upstream
    Nova it is a clean shutdown with a time-out, with Ironic a soft power-off first, forced when that ends. Of the
    commands below only `serve`, `send --stop` and `approve` can lead to one.
    """
    # None: click uses colour if the output is a terminal.
    ctx.color = False if os.environ.get("NO_COLOR") else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the arguments, or with those of the process, and return its exit code; see `Exit`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # The command prints what is relevant; without a handler Python would print the log's warnings as plain text.
    logger, silent = logging.getLogger("handler"), logging.NullHandler()
    logger.addHandler(silent)
    try:
        code = command.main(arguments, prog_name="bms-autostop", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CommandError as error:
        problems(error.heading, error.details)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except _ClosedPipe:
        # Python flushes the standard output at exit, which would fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.CLOSED_PIPE
    finally:
        logger.removeHandler(silent)
    return code if isinstance(code, int) else Exit.OK


def _interrupted() -> int:
    """End as SIGINT ends a process: at once, without waiting for calls of other threads."""
    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    return Exit.INTERRUPTED

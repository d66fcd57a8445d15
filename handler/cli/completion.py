"""`bms-autostop completion`: completion for a shell."""

from __future__ import annotations

import click

from handler.cli.exit_codes import Exit


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print a script for completion in a shell.

    For bash: eval "$(bms-autostop completion bash)"
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    # The name of the variable is the one that click looks for in `main`.
    click.echo(found(ctx.find_root().command, {}, "bms-autostop", "_BMS_AUTOSTOP_COMPLETE").source())
    return Exit.OK

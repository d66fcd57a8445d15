"""The settings of each target: `bms-autostop settings`, and how other commands read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib import import_module
from typing import Any

import click

from handler import settings as handler_settings
from handler.settings.env import Setting
from handler.terminal import Row, counted, table, terminal_width, wrap


class Target(StrEnum):
    """A function of `handler/main.py`."""

    STOP_SERVERS = "stop_servers"
    RECEIVE_WEBHOOK = "receive_webhook"
    NOTIFY_CHAT = "notify_chat"
    KEEP_SERVERS = "keep_servers"


def declarations(target: Target) -> Sequence[Setting[Any]]:
    """Return the declared settings of a target, without the OS_* variables of the cloud login."""
    return [one for one in handler_settings.declared() if target in one.targets and not one.name.startswith("OS_")]


def read(target: Target, environ: Mapping[str, str]) -> Any:
    """Read and check the settings of a target.

    Returns:
        `Settings`, `WebhookSettings`, `NotifySettings` or `KeepSettings`.

    Raises:
        SettingsError: with every violation.
    """
    return import_module(f"handler.settings.{target}").from_environ(environ)


@click.command()
@click.option("--target", type=click.Choice([one.value for one in Target]), help="Only the settings of this function.")
def settings(target: str | None) -> int:
    """Print the settings: name, default and meaning of each.

    They are environment variables, read once when the function starts. Beside them stand the OS_* variables of the
    cloud login, which have the names that OpenStack's clients know.
    """
    width = terminal_width()
    total = 0
    for name in [Target(target)] if target else [*Target]:
        declared = declarations(name)
        total += len(declared)
        rows = [Row((one.name, _plain(one.shown_default)), "", _plain(one.description)) for one in declared]
        click.secho(f"{name}\n", bold=True)
        click.echo("\n".join([*table(("NAME", "DEFAULT", "MEANING"), rows, width), ""]))
    click.echo("\n".join(wrap(f"{counted(total, 'setting')}. The cloud login uses OpenStack's OS_* variables.", width)))
    return 0


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")

"""The two demos, `stop` and `chat`, on a simulated cloud, and how both begin and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from handler.terminal import counted, terminal_width, wrap


def run_demo(about: str, send: Callable[[], tuple[int, list[str]]], noun: str, closing: Iterable[str]) -> int:
    """Show a demo from its first line to its summary.

    Args:
        about: the first line.
        send: sends the events and shows the results; returns the number of events, and what is not as expected.
        noun: for one of the events.
        closing: lines that follow if everything is as expected.

    Returns:
        0 if everything is as expected, 130 if it was interrupted, else 1.
    """
    width = terminal_width()
    click.echo("\n".join(wrap(about, width)))
    try:
        sent, violations = send()
    except KeyboardInterrupt:
        click.echo("\nInterrupted; everything that was started has ended.")
        return 130
    if violations:
        click.echo("\nNot as expected:")
        for violation in violations:
            click.echo("\n".join(wrap(violation, width, "  - ")))
        return 1
    summary = f"{counted(sent, noun)} sent. Everything came out as expected."
    click.echo("\n".join([*closing, click.style("\n".join(wrap(summary, width)), fg="green")]))
    return 0


def heading(title: str) -> list[str]:
    """Return the lines above a part of a demo."""
    width = terminal_width()
    return ["", "-" * min(width, 100), *(click.style(line, bold=True) for line in wrap(title, width))]

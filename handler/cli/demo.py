"""`bms-autostop demo` and `demo-chat`."""

from __future__ import annotations

import click

_EPILOG = "Exit code: 0 everything came out as expected, 1 something did not, 130 interrupted."


@click.command(epilog=_EPILOG)
def demo() -> int:
    """Show it work on a simulated cloud; no account is needed."""
    from handler.demo.stop import demo

    return demo()


@click.command(epilog=_EPILOG)
def demo_chat() -> int:
    """Show it from a chat command or an alert to the chat's message."""
    from handler.demo.chat import demo_chat

    return demo_chat()

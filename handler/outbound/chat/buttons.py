"""The buttons of a message, for the chats that have buttons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from handler.keep.decide import written
from handler.outbound.chat.chat_message import ChatMessage, Row
from handler.settings.chat import ButtonAction


class Button(NamedTuple):
    """A button.

    Attributes:
        action: its name.
        label: its text.
        value: returned by a click.
        primary: whether it is shown as the main one.
    """

    action: ButtonAction
    label: str
    value: str
    primary: bool = False


def buttons(message: ChatMessage) -> Iterator[Button]:
    """Return the buttons of a message."""
    if message.command:
        yield Button(ButtonAction.APPROVE, "Approve", message.command.partition(" ")[2], primary=True)
        yield Button(ButtonAction.DISCARD, "Discard", "plan")


def keep_button(message: ChatMessage, row: Row) -> Button | None:
    """Return the button beside a server of a notice; None if the server has none."""
    if message.keep_until is None or row.id not in message.keepable:
        return None
    return Button(ButtonAction.KEEP, "Keep 2 h", f"{row.id} until {written(message.keep_until)}")

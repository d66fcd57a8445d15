"""The buttons below a message, for the chats that have some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from handler.outbound.chat.chat_message import ChatMessage
from handler.settings.chat_actions import ButtonAction


class Button(NamedTuple):
    """A button.

    Attributes:
        value: what it carries, and a click brings back.
        primary: whether it is shown as the main one.
    """

    action: ButtonAction
    label: str
    value: str
    primary: bool = False


def buttons(message: ChatMessage) -> Iterator[Button]:
    """Return the buttons that belong below a message."""
    if message.command:
        yield Button(ButtonAction.APPROVE, "Approve", message.command.partition(" ")[2], primary=True)
        yield Button(ButtonAction.DISCARD, "Discard", "plan")

"""The commands of the buttons of our messages, which have the names that `notify_chat` gives them."""

from __future__ import annotations

from handler.inbound.webhooks.chat import DiscardCommand
from handler.inbound.webhooks.grammar import ApproveCommand, KeepCommand, NotUnderstood, Verb, parse
from handler.settings.chat import ButtonAction


def command(action: str, value: str) -> ApproveCommand | KeepCommand | DiscardCommand | NotUnderstood:
    """Return the command of a click.

    Args:
        action: the button's name.
        value: of the button: the rest of the line that could be typed instead.
    """
    match action:
        case ButtonAction.APPROVE:
            found = parse(f"{Verb.APPROVE} {value}")
            return found if isinstance(found, ApproveCommand) else NotUnderstood(action, f"{Verb.APPROVE} TOKEN")
        case ButtonAction.DISCARD:
            return DiscardCommand()
        case ButtonAction.KEEP:
            keep = parse(f"{Verb.KEEP} {value}")
            return keep if isinstance(keep, KeepCommand) else NotUnderstood(action, f"{Verb.KEEP} ID 2h")
        case _:
            return NotUnderstood(action[:60], f"{Verb.APPROVE} TOKEN")

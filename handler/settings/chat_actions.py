"""The buttons of our messages in chats, as `notify_chat` makes them and `receive_webhook` understands them."""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum


class ButtonAction(StrEnum):
    """What a button asks for. The values are its ids, for which Mattermost takes letters and digits only."""

    APPROVE = "autostopapprove"
    DISCARD = "autostopdiscard"
    KEEP = "autostopkeep"


def mac(key: str, action: str, value: str) -> str:
    """Return the MAC that authenticates a button, in hexadecimal: HMAC-SHA-256 of its action and its value.

    Mattermost returns the context of a button unchanged, and authenticates a click in no other way.
    """
    signed = f"bms-autostop button\0{action}\0{value}"
    return hmac.new(key.encode(), signed.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

"""The buttons of our messages in chats: `notify_chat` makes them, `receive_webhook` receives the clicks."""

from __future__ import annotations

import hashlib
import hmac
import re
from enum import StrEnum

from handler.settings.env import Setting, signing_keys, words


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


def hosts_as_origins(text: str) -> frozenset[str]:
    """Parse hosts, to origins. Only an address of this machine may do without https, for trying it out."""
    hosts = words(text.lower())
    form = r"[a-z0-9.-]+(:\d{1,5})?|http://127\.0\.0\.1:\d{1,5}"
    if not all(re.fullmatch(form, host, re.ASCII) for host in hosts):
        raise ValueError("must be a list of hosts, with or without a port")
    return frozenset(host if host.startswith("http://") else f"https://{host.removesuffix(':443')}" for host in hosts)


SLACK_HOSTS = Setting(
    "AUTOSTOP_SLACK_HOSTS", hosts_as_origins, "hosts that a `response_url` of Slack may have", "hooks.slack.com"
)
ACTION_KEYS = Setting(
    "AUTOSTOP_ACTION_KEYS",
    signing_keys,
    "keys of Mattermost's buttons, comma-separated for rotation, each of at least 32 characters: `notify_chat` signs "
    "with the first, `receive_webhook` verifies with all",
    secret=True,
)

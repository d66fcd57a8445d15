"""The producers by path. A producer is loaded only if it is switched on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from handler.inbound.webhooks.model import Producer
from handler.settings.receive_webhook import WebhookSettings

# Path, and what switches the producer on. Its module has the name of its path, and ends with `producer = <Class>`.
SWITCHES: Mapping[str, Callable[[WebhookSettings], object]] = {
    "/alertmanager": lambda settings: settings.alertmanager_token,
    "/grafana": lambda settings: settings.grafana_token or settings.grafana_hmac_secret,
    "/aodh": lambda settings: settings.aodh_token,
    "/azure-monitor": lambda settings: settings.azure_token,
    "/eventbridge": lambda settings: settings.eventbridge_token,
    "/gitlab": lambda settings: settings.gitlab_token or settings.gitlab_signing_token,
    "/smn": lambda settings: settings.smn_topics,
    "/slack": lambda settings: settings.slack_signing_secret,
    "/mattermost": lambda settings: settings.mattermost_tokens,
    "/teams": lambda settings: settings.teams_secret,
    "/rocketchat": lambda settings: settings.rocketchat_tokens,
}


def switched_on(settings: WebhookSettings) -> Mapping[str, Producer[Any]]:
    """Load the producers that have a secret; return them by their paths."""
    return {path: _load(path, settings) for path, switch in SWITCHES.items() if switch(settings)}


def _load(path: str, settings: WebhookSettings) -> Producer[Any]:
    module = import_module(f"{__package__}.{path[1:].replace('-', '_')}")
    made: Producer[Any] = module.producer(settings, settings.source.rstrip("/") + path)
    return made

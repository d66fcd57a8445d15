"""Environments that are just enough, and what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from handler.settings import stop_servers
from handler.settings.env import SettingsError
from handler.settings.stop_servers import Settings

PASSWORD = {
    "OS_AUTH_URL": "https://iam.example/v3",
    "OS_USERNAME": "operator",
    "OS_PASSWORD": "password",
    "OS_USER_DOMAIN_NAME": "Default",
    "OS_PROJECT_NAME": "bare-metal",
}
CREDENTIAL = {
    "OS_AUTH_URL": "https://iam.example/v3",
    "OS_APPLICATION_CREDENTIAL_ID": "4f",
    "OS_APPLICATION_CREDENTIAL_SECRET": "secret",
}
LEAST = {"AUTOSTOP_INBOUND_AUTH": "none", **PASSWORD}
MARK = "marked-by-a-secret"
URN = "urn:smn:eu-de:0a1b2c3d4e5f40718293a4b5c6d7e8f9:bms-results"


def read(**changes: str) -> Settings:
    """Settings of `stop_servers` from the least that is needed, with changes."""
    return stop_servers.from_environ({**LEAST, **changes})


def violations(
    environ: Mapping[str, str], from_environ: Callable[[Mapping[str, str]], object] = stop_servers.from_environ
) -> tuple[str, ...]:
    """What is wrong with an environment."""
    with pytest.raises(SettingsError) as raised:
        from_environ(environ)
    assert str(raised.value) == "\n".join(raised.value.violations)
    return raised.value.violations


def names(found: tuple[str, ...]) -> list[str]:
    """The variables that violations begin with."""
    return [violation.split()[0] for violation in found]


def without(environ: Mapping[str, str], *unwanted: str) -> dict[str, str]:
    """The environment without some variables."""
    return {name: value for name, value in environ.items() if name not in unwanted}

"""The settings of `receive_webhook`: good values, and every violation by its variable's name."""

from __future__ import annotations

import pytest

from handler.inbound.webhooks import registry
from handler.settings import receive_webhook
from handler.settings.receive_webhook import People, from_environ
from tests.settings import environments
from tests.settings.environments import URN, names

LEAST = {"AUTOSTOP_EVENT_SINK": "http://sink.example/"}
TOKEN = "token-of-this-test"


def violations(environ: dict[str, str]) -> tuple[str, ...]:
    """What is wrong with an environment."""
    return environments.violations(environ, from_environ)


def test_a_sink_is_all_that_is_needed() -> None:
    """No login, no AUTOSTOP_INBOUND_AUTH; everything else has a default or is off."""
    found = from_environ(LEAST)
    assert (found.sink.url, found.source, found.id_label) == ("http://sink.example/", "/bms-autostop", "server_id")
    assert (found.max_body, found.log_level, found.dry_run) == (1024 * 1024, "INFO", False)
    assert not any(switch(found) for switch in registry.SWITCHES.values())
    assert "smn.eu-de.otc.t-systems.com" in found.smn_cert_hosts
    assert "console.otc.t-systems.com" in found.smn_confirm_hosts


def test_the_sink_of_the_settings_comes_before_that_of_knative() -> None:
    """K_SINK counts where AUTOSTOP_EVENT_SINK is not set."""
    assert from_environ({"K_SINK": "http://platform/"}).sink.url == "http://platform/"
    assert from_environ({"K_SINK": "http://platform/", **LEAST}).sink.url == "http://sink.example/"


BAD = {
    "AUTOSTOP_EVENT_SINK": "nowhere",
    "K_SINK": "nowhere",
    "AUTOSTOP_SOURCE": "a b",
    "AUTOSTOP_SINK_TOKEN": "two words",
    "AUTOSTOP_MAX_BODY": "big",
    "AUTOSTOP_LOG_LEVEL": "loud",
    "AUTOSTOP_DRY_RUN": "maybe",
    "K_CE_OVERRIDES": "{",
    "AUTOSTOP_ALERTMANAGER_TOKEN": "two words",
    "AUTOSTOP_GRAFANA_HMAC_SECRET": "changeme",
    "AUTOSTOP_GITLAB_SIGNING_TOKEN": "whsec_",
    "AUTOSTOP_TEAMS_SECRET": "no base64!",
    "AUTOSTOP_SMN_TOPICS": f"{URN}, bms-alarms",
    "AUTOSTOP_SMN_CERT_HOSTS": "https://smn.example/",
    "AUTOSTOP_SMN_CONFIRM_HOSTS": "*",
    "AUTOSTOP_SLACK_SECRET": "x",
}


def test_all_violations_are_reported_at_once() -> None:
    """Each is named once."""
    assert sorted(names(violations(BAD))) == sorted(BAD)


@pytest.mark.parametrize(
    ("environ", "violation"),
    [
        (
            {"AUTOSTOP_ALERTMANAGER_TOKEN": TOKEN},
            "AUTOSTOP_EVENT_SINK must be set (or K_SINK): stop requests are posted there.",
        ),
        (
            {"AUTOSTOP_EVENT_SINK": f"smn:{URN}"},
            "AUTOSTOP_EVENT_SINK must not be an SMN topic: webhooks have no login at the cloud.",
        ),
        (
            {**LEAST, "AUTOSTOP_GRAFANA_HMAC_SECRET": TOKEN, "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER": "no header"},
            "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER must be the name of a header.",
        ),
        # A signed time alone authenticates nothing.
        (
            {**LEAST, "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER": "X-Time"},
            "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER needs AUTOSTOP_GRAFANA_HMAC_SECRET.",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(environ: dict[str, str], violation: str) -> None:
    """When the function starts."""
    assert violations(environ) == (violation,)


def test_smn_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if it is switched on, and the message says how to get it."""
    monkeypatch.setattr(receive_webhook, "find_spec", lambda _: None)
    assert from_environ(LEAST).smn_topics == frozenset()
    assert violations({**LEAST, "AUTOSTOP_SMN_TOPICS": URN}) == (
        "AUTOSTOP_SMN_TOPICS needs the extra `smn`: pip install '.[smn]' in a clone, or 'FILE.whl[smn]'.",
    )


@pytest.mark.parametrize("chat", ["slack", "mattermost", "teams", "rocketchat"])
def test_each_chat_has_its_people(chat: str) -> None:
    """Users and channels of one chat count for no other; an empty list permits no user."""
    found = from_environ(
        {**LEAST, f"AUTOSTOP_{chat.upper()}_USERS": "U1, ,U2,", f"AUTOSTOP_{chat.upper()}_CHANNELS": "C1"}
    )
    people = {name: getattr(found, f"{name}_people") for name in ("slack", "mattermost", "teams", "rocketchat")}
    assert people.pop(chat) == People(frozenset({"U1", "U2"}), frozenset({"C1"}))
    assert set(people.values()) == {People()}


def test_lists_and_names_are_read() -> None:
    """Tokens can rotate, hosts and header names have no case."""
    found = from_environ(
        {
            **LEAST,
            "AUTOSTOP_ID_LABEL": "instance_id",
            "AUTOSTOP_MATTERMOST_TOKENS": f"{TOKEN}-1, {TOKEN}-2",
            "AUTOSTOP_GRAFANA_HMAC_SECRET": "with spaces and ü",
            "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER": "X-Grafana-Time",
            "AUTOSTOP_SMN_CERT_HOSTS": "SMN.example, localhost:8443",
        }
    )
    assert found.id_label == "instance_id"
    assert [token.reveal() for token in found.mattermost_tokens] == [f"{TOKEN}-1", f"{TOKEN}-2"]
    assert found.grafana_hmac_secret.reveal() == "with spaces and ü"
    assert found.grafana_timestamp_header == "x-grafana-time"
    assert found.smn_cert_hosts == {"smn.example", "localhost:8443"}

"""The environment of `receive_webhook`: good values, and every fault by its variable's name."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields

import pytest

from handler import webhook_settings
from handler.inbound.webhooks import registry
from handler.settings import VARIABLES
from handler.shared_settings import SettingsError
from handler.webhook_settings import People, WebhookSettings, from_environ
from handler.webhook_variables import WEBHOOK_VARIABLES

LEAST = {"AUTOSTOP_EVENT_SINK": "http://sink.example/"}
TOPIC = "urn:smn:eu-de:0a1b2c3d4e5f40718293a4b5c6d7e8f9:bms-alarms"
MARK = "marked-by-a-secret"
SECRETS = {
    "AUTOSTOP_ALERTMANAGER_TOKEN": MARK,
    "AUTOSTOP_GRAFANA_TOKEN": MARK,
    "AUTOSTOP_GRAFANA_HMAC_SECRET": MARK,
    "AUTOSTOP_AODH_TOKEN": MARK,
    "AUTOSTOP_AZURE_TOKEN": MARK,
    "AUTOSTOP_EVENTBRIDGE_TOKEN": MARK,
    "AUTOSTOP_GITLAB_TOKEN": MARK,
    "AUTOSTOP_GITLAB_SIGNING_TOKEN": f"whsec_{base64.b64encode(MARK.encode()).decode()}",
    "AUTOSTOP_SLACK_SIGNING_SECRET": MARK,
    "AUTOSTOP_MATTERMOST_TOKENS": MARK,
    "AUTOSTOP_TEAMS_SECRET": base64.b64encode(MARK.encode()).decode(),
    "AUTOSTOP_ROCKETCHAT_TOKENS": MARK,
    "AUTOSTOP_SINK_TOKEN": MARK,
}


def faults(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What is wrong with an environment."""
    with pytest.raises(SettingsError) as raised:
        from_environ(environ)
    return raised.value.faults


def test_a_sink_is_all_that_is_needed() -> None:
    """No login, no AUTOSTOP_INBOUND_AUTH; everything else has a default or is off."""
    found = from_environ(LEAST)
    assert (found.event_sink, found.source, found.id_label) == ("http://sink.example/", "/bms-autostop", "server_id")
    assert (found.max_body, found.log_level, found.dry_run) == (1024 * 1024, "INFO", False)
    assert not any(switch(found) for switch in registry.SWITCHES.values())
    assert "smn.eu-de.otc.t-systems.com" in found.smn_cert_hosts
    assert "console.otc.t-systems.com" in found.smn_confirm_hosts


def test_the_platform_may_give_the_sink() -> None:
    """K_SINK counts where AUTOSTOP_EVENT_SINK is not set."""
    assert from_environ({"K_SINK": "http://platform/"}).event_sink == "http://platform/"
    assert from_environ({"K_SINK": "http://platform/", **LEAST}).event_sink == "http://sink.example/"


def test_without_a_sink_it_does_not_start() -> None:
    """A request that goes nowhere is no request."""
    (fault,) = faults({"AUTOSTOP_ALERTMANAGER_TOKEN": MARK})
    assert fault.startswith("AUTOSTOP_EVENT_SINK: must be set (or K_SINK)")


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
    "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER": "no header",
    "AUTOSTOP_GITLAB_SIGNING_TOKEN": "whsec_",
    "AUTOSTOP_TEAMS_SECRET": "no base64!",
    "AUTOSTOP_SMN_TOPICS": f"{TOPIC}, bms-alarms",
    "AUTOSTOP_SMN_CERT_HOSTS": "https://smn.example/",
    "AUTOSTOP_SMN_CONFIRM_HOSTS": "*",
    "AUTOSTOP_SLACK_SECRET": "x",
}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_value_is_one_fault_with_its_name(name: str) -> None:
    """And nothing else is said to be wrong."""
    (fault,) = faults({**LEAST, name: BAD[name]})
    assert fault.startswith(f"{name}: ")
    assert fault.endswith((".", "?"))


def test_all_faults_are_told_at_once() -> None:
    """Nobody has to start the process once for each mistake."""
    named = [fault.partition(":")[0] for fault in faults(BAD)]
    assert sorted(named) == sorted(BAD)


def test_a_signed_time_needs_a_signature() -> None:
    """Alone it would prove nothing."""
    (fault,) = faults({**LEAST, "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER": "X-Time"})
    assert fault == "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER: needs AUTOSTOP_GRAFANA_HMAC_SECRET."


def test_smn_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if it is switched on, and the fault says how to get it."""
    monkeypatch.setattr(webhook_settings, "find_spec", lambda _: None)
    assert from_environ(LEAST).smn_topics == frozenset()
    (fault,) = faults({**LEAST, "AUTOSTOP_SMN_TOPICS": TOPIC})
    assert fault == "AUTOSTOP_SMN_TOPICS: needs the extra `smn`: pip install 'bms-autostop[smn]'."


def test_no_secret_is_shown() -> None:
    """Neither in a repr, nor in what is said of a faulty environment."""
    encoded = SECRETS["AUTOSTOP_TEAMS_SECRET"]
    found = from_environ({**LEAST, **SECRETS})
    assert MARK not in repr(found)
    assert encoded not in repr(found)
    told = faults({**LEAST, **dict.fromkeys(SECRETS, f"{MARK} {MARK}")})
    assert told
    assert MARK not in " ".join(told)


@pytest.mark.parametrize("chat", ["slack", "mattermost", "teams", "rocketchat"])
def test_each_chat_has_its_people(chat: str) -> None:
    """Users and channels of one chat count for no other; an empty list is nobody."""
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
            "AUTOSTOP_MATTERMOST_TOKENS": "one, two",
            "AUTOSTOP_GRAFANA_HMAC_SECRET": "with spaces and ü",
            "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER": "X-Grafana-Time",
            "AUTOSTOP_SMN_CERT_HOSTS": "SMN.example, localhost:8443",
        }
    )
    assert found.id_label == "instance_id"
    assert [token.reveal() for token in found.mattermost_tokens] == ["one", "two"]
    assert found.grafana_hmac_secret.reveal() == "with spaces and ü"
    assert found.grafana_timestamp_header == "x-grafana-time"
    assert found.smn_cert_hosts == {"smn.example", "localhost:8443"}


def test_settings_are_frozen() -> None:
    """Nobody changes them while the process runs."""
    with pytest.raises(FrozenInstanceError):
        from_environ(LEAST).event_sink = ""  # type: ignore[misc]


def test_each_variable_is_known_once() -> None:
    """No name stands in both lists, and each that this target reads is in one of them."""
    names = [variable.name for variable in (*VARIABLES, *WEBHOOK_VARIABLES)]
    assert len(names) == len(set(names))
    assert from_environ({**LEAST, **{name: "" for name in names if name not in LEAST}}).event_sink


def test_an_unset_environment_gives_the_documented_defaults() -> None:
    """The frozen object's own defaults are those of an empty environment."""
    found, plain = from_environ(LEAST), WebhookSettings(event_sink="http://sink.example/")
    shown = [{field.name: repr(getattr(made, field.name)) for field in fields(made)} for made in (found, plain)]
    assert shown[0] == shown[1]

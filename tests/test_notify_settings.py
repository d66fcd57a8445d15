"""The settings of `notify_chat`: all faults at once, by name, and no URL of a webhook in any of them."""

from __future__ import annotations

import pytest

from handler import settings as stop_settings
from handler import webhook_settings
from handler.notify_settings import ChatName, from_environ
from handler.notify_variables import NOTIFY_VARIABLES
from handler.settings import InboundAuth
from handler.shared_settings import SettingsError

NONE = {"AUTOSTOP_INBOUND_AUTH": "none"}
URL = "https://chat.example/hooks/very-secret"


def faults(**environ: str) -> tuple[str, ...]:
    """What is wrong with these settings."""
    with pytest.raises(SettingsError) as caught:
        from_environ({**NONE, **environ})
    return caught.value.faults


def test_without_anything_only_commands_of_slack_are_answered() -> None:
    """The one host that is known to everybody is there; nothing else is."""
    made = from_environ(NONE)
    assert (made.webhooks, made.default) == ({}, None)
    assert made.origins == {ChatName.SLACK: {"https://hooks.slack.com"}, ChatName.MATTERMOST: set()}
    assert (made.deadline.total_seconds(), made.max_body, made.log_level) == (50, 1024 * 1024, "INFO")


def test_callers_must_prove_themselves_as_those_of_stop_servers() -> None:
    """Nobody is let in by forgetting a variable."""
    with pytest.raises(SettingsError, match="AUTOSTOP_INBOUND_AUTH: must be set"):
        from_environ({})
    assert faults(AUTOSTOP_INBOUND_AUTH="bearer") == (
        "AUTOSTOP_BEARER_TOKENS: must hold at least one token with AUTOSTOP_INBOUND_AUTH=bearer.",
    )
    made = from_environ({"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": "a,b"})
    assert made.callers.inbound_auth is InboundAuth.BEARER
    assert [token.reveal() for token in made.callers.bearer_tokens] == ["a", "b"]


@pytest.mark.parametrize("chat", ChatName)
def test_the_only_webhook_is_the_default(chat: ChatName) -> None:
    """Each chat has its variable."""
    made = from_environ({**NONE, f"AUTOSTOP_NOTIFY_{chat.upper()}_URL": URL})
    assert (made.default, made.webhooks[chat].reveal()) == (chat, URL)


def test_of_several_webhooks_one_must_be_the_default() -> None:
    """It would be a guess otherwise, and an alarm told in the wrong channel is told to nobody."""
    two = {"AUTOSTOP_NOTIFY_SLACK_URL": URL, "AUTOSTOP_NOTIFY_TEXT_URL": URL}
    assert faults(**two) == (
        "AUTOSTOP_NOTIFY_DEFAULT: must be set, since several chats are: which gets what no chat asked for?",
    )
    assert from_environ({**NONE, **two, "AUTOSTOP_NOTIFY_DEFAULT": "Text"}).default is ChatName.TEXT
    assert faults(**two, AUTOSTOP_NOTIFY_DEFAULT="teams") == (
        "AUTOSTOP_NOTIFY_DEFAULT: needs AUTOSTOP_NOTIFY_TEAMS_URL.",
    )
    assert faults(**two, AUTOSTOP_NOTIFY_DEFAULT="irc") == (
        "AUTOSTOP_NOTIFY_DEFAULT: is none of slack, mattermost, teams, rocketchat, text.",
    )


@pytest.mark.parametrize(
    "host", ["https://x.example", "x.example/path", "*.example", "http://127.0.0.1", "http://10.0.0.1:80", "a b", "x:y"]
)
def test_a_host_is_a_host(host: str) -> None:
    """No pattern, no path, no scheme; only loopback may do without https, and then with its port."""
    assert faults(AUTOSTOP_SLACK_HOSTS=f"y.example,{host}") == (
        "AUTOSTOP_SLACK_HOSTS: has what is no host, with or without a port.",
    )


def test_a_host_belongs_to_one_chat() -> None:
    """What is said differs from chat to chat."""
    assert faults(AUTOSTOP_MATTERMOST_HOSTS="Hooks.Slack.com:443") == (
        "AUTOSTOP_MATTERMOST_HOSTS: names a host of AUTOSTOP_SLACK_HOSTS too.",
    )


def test_all_faults_are_told_at_once_and_none_quotes_a_url() -> None:
    """A misspelt name, with what was perhaps meant; a URL that is none."""
    found = faults(
        AUTOSTOP_NOTIFY_SLAK_URL=URL,
        AUTOSTOP_NOTIFY_TEAMS_URL=f"ftp://{URL}",
        AUTOSTOP_NOTIFY_TEXT_URL="https://user:very-secret@chat.example/",
        AUTOSTOP_DEADLINE="10ms",
        AUTOSTOP_MAX_BODY="none",
    )
    assert [fault.partition(":")[0] for fault in found] == [
        "AUTOSTOP_NOTIFY_SLAK_URL",
        "AUTOSTOP_MAX_BODY",
        "AUTOSTOP_NOTIFY_TEAMS_URL",
        "AUTOSTOP_NOTIFY_TEXT_URL",
        "AUTOSTOP_DEADLINE",
    ]
    assert "Did you mean AUTOSTOP_NOTIFY_SLACK_URL?" in found[0]
    assert "very-secret" not in "".join(found)


def test_the_url_of_a_webhook_is_not_shown() -> None:
    """Whoever knows it can post."""
    assert "very-secret" not in repr(from_environ({**NONE, "AUTOSTOP_NOTIFY_SLACK_URL": URL}))


def test_the_settings_of_one_target_do_no_harm_to_another() -> None:
    """One image and one Secret can serve all of them."""
    notify = {variable.name: "" for variable in NOTIFY_VARIABLES}
    webhooks = {"AUTOSTOP_EVENT_SINK": "http://sink.example/", "AUTOSTOP_SLACK_SIGNING_SECRET": "s"}
    stops = {
        "AUTOSTOP_MAX_SERVERS": "3",
        "OS_AUTH_URL": "http://127.0.0.1:1/v3",
        "OS_AUTH_TYPE": "admin_token",
        "OS_TOKEN": "t",
        "OS_PROJECT_ID": "p",
    }
    everything = {**NONE, **notify, **webhooks, **stops}
    assert from_environ(everything).default is None
    assert webhook_settings.from_environ(everything).event_sink
    assert stop_settings.from_environ(everything).policy.max_servers == 3

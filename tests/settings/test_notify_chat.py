"""The settings of `notify_chat`: all violations at once, by name, and no URL of a webhook in any of them."""

from __future__ import annotations

import pytest

from handler.settings.notify_chat import ChatName, from_environ
from tests.settings import environments
from tests.settings.environments import names

NONE = {"AUTOSTOP_INBOUND_AUTH": "none"}
URL = "https://chat.example/hooks/very-secret"


def violations(**environ: str) -> tuple[str, ...]:
    """What is wrong with these settings."""
    return environments.violations({**NONE, **environ}, from_environ)


def test_without_anything_only_commands_of_slack_are_answered() -> None:
    """The one host that is known to everybody is there; nothing else is."""
    made = from_environ(NONE)
    assert (made.webhooks, made.default) == ({}, None)
    assert made.origins == {ChatName.SLACK: {"https://hooks.slack.com"}, ChatName.MATTERMOST: set()}
    assert (made.deadline.total_seconds(), made.max_body, made.log_level) == (50, 1024 * 1024, "INFO")


@pytest.mark.parametrize("chat", ChatName)
def test_the_only_webhook_is_the_default(chat: ChatName) -> None:
    """Each chat has its variable."""
    made = from_environ({**NONE, f"AUTOSTOP_NOTIFY_{chat.upper()}_URL": URL})
    assert (made.default, made.webhooks[chat].reveal()) == (chat, URL)


def test_of_several_webhooks_one_must_be_the_default() -> None:
    """It would be a guess otherwise, and an alarm in the wrong channel is not read."""
    two = {"AUTOSTOP_NOTIFY_SLACK_URL": URL, "AUTOSTOP_NOTIFY_TEXT_URL": URL}
    assert violations(**two) == ("AUTOSTOP_NOTIFY_DEFAULT must be set if several chats are.",)
    assert from_environ({**NONE, **two, "AUTOSTOP_NOTIFY_DEFAULT": "Text"}).default is ChatName.TEXT
    assert violations(**two, AUTOSTOP_NOTIFY_DEFAULT="teams") == (
        "AUTOSTOP_NOTIFY_DEFAULT needs AUTOSTOP_NOTIFY_TEAMS_URL.",
    )
    assert violations(**two, AUTOSTOP_NOTIFY_DEFAULT="irc") == (
        "AUTOSTOP_NOTIFY_DEFAULT must be one of slack, mattermost, teams, rocketchat, text.",
    )


@pytest.mark.parametrize(
    "host", ["https://x.example", "x.example/path", "*.example", "http://127.0.0.1", "http://10.0.0.1:80", "a b", "x:y"]
)
def test_a_host_is_a_host(host: str) -> None:
    """No pattern, no path, no scheme; only loopback may do without https, and then with its port."""
    assert violations(AUTOSTOP_SLACK_HOSTS=f"y.example,{host}") == (
        "AUTOSTOP_SLACK_HOSTS must be a list of hosts, with or without a port.",
    )


def test_a_host_belongs_to_one_chat() -> None:
    """The hosts differ from chat to chat."""
    assert violations(AUTOSTOP_MATTERMOST_HOSTS="Hooks.Slack.com:443") == (
        "AUTOSTOP_MATTERMOST_HOSTS must not name a host of AUTOSTOP_SLACK_HOSTS.",
    )


def test_buttons_of_mattermost_need_a_key() -> None:
    """Nothing else shows `receive_webhook` that the click is on a button of ours."""
    url = {"AUTOSTOP_WEBHOOK_URL": "https://webhooks.example/stops/"}
    assert violations(**url) == ("AUTOSTOP_ACTION_KEYS must be set with AUTOSTOP_WEBHOOK_URL.",)
    keys = "a-first-key-of-thirty-two-letters,a-second-key-of-thirty-two-letters"
    made = from_environ({**NONE, **url, "AUTOSTOP_ACTION_KEYS": keys})
    assert made.webhook_url == "https://webhooks.example/stops"
    assert [key.reveal() for key in made.action_keys] == keys.split(",")


def test_all_faults_are_reported_at_once_and_none_quotes_a_url() -> None:
    """A misspelt name, with what was perhaps meant; a URL that is none."""
    found = violations(
        AUTOSTOP_NOTIFY_SLAK_URL=URL,
        AUTOSTOP_NOTIFY_TEAMS_URL=f"ftp://{URL}",
        AUTOSTOP_NOTIFY_TEXT_URL="https://user:very-secret@chat.example/",
        AUTOSTOP_DEADLINE="10ms",
        AUTOSTOP_MAX_BODY="none",
    )
    assert names(found) == [
        "AUTOSTOP_NOTIFY_TEAMS_URL",
        "AUTOSTOP_NOTIFY_TEXT_URL",
        "AUTOSTOP_DEADLINE",
        "AUTOSTOP_MAX_BODY",
        "AUTOSTOP_NOTIFY_SLAK_URL",
    ]
    assert found[-1].endswith("; the nearest is AUTOSTOP_NOTIFY_SLACK_URL.")
    assert "very-secret" not in "".join(found)


def test_the_time_zone_is_read_by_its_iana_name() -> None:
    """UTC alone without it."""
    assert from_environ(NONE).timezone is None
    assert str(from_environ({**NONE, "AUTOSTOP_NOTIFY_TIMEZONE": "Europe/Berlin"}).timezone) == "Europe/Berlin"


@pytest.mark.parametrize(
    "name", ["Berlin", "CEST+1", "Europe/Nowhere", "../../etc/passwd", "/etc/localtime", "Europe", "x" * 5000]
)
def test_another_time_zone_is_refused(name: str) -> None:
    """At the start, not with the first notice."""
    assert violations(AUTOSTOP_NOTIFY_TIMEZONE=name) == (
        "AUTOSTOP_NOTIFY_TIMEZONE must be the IANA name of a time zone that is known here, such as Europe/Berlin.",
    )

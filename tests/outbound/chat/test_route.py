"""Where a result is reported. The address that an event brings is untrusted input."""

from __future__ import annotations

import pytest

from handler.outbound.chat.route import Target, targets
from handler.settings.notify_chat import ChatName, NotifySettings, from_environ
from tests.outbound.chat.reports import reported

HOOKS = {
    "AUTOSTOP_NOTIFY_SLACK_URL": "https://hooks.slack.com/services/T/B/secret",
    "AUTOSTOP_NOTIFY_TEAMS_URL": "https://teams.example/workflow",
    "AUTOSTOP_NOTIFY_ROCKETCHAT_URL": "https://rocket.example/hooks/secret",
    "AUTOSTOP_NOTIFY_DEFAULT": "teams",
}
SLACK = "https://hooks.slack.com/commands/T0001/1234567890/test"
MATTERMOST = "https://mm.example/hooks/commands/testonly"


def settings(**environ: str) -> NotifySettings:
    """Settings of `notify_chat` that let Mattermost answer too."""
    return from_environ({"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_MATTERMOST_HOSTS": "mm.example:443", **environ})


def where(made: NotifySettings, reply_to: str = "", source: str = "/tests") -> list[tuple[str, str, bool]]:
    """Chat, URL and whether it is the one that the event brought, for each place in turn."""
    found = targets(reported(reply_to=reply_to, source=source), made)
    return [(target.chat.value, target.url.reveal(), target.reply) for target in found]


def test_a_command_is_answered_where_it_was_typed_else_at_the_webhook_of_its_chat() -> None:
    """The second place is for an address that has expired."""
    assert where(settings(**HOOKS), SLACK) == [
        ("slack", SLACK, True),
        ("slack", HOOKS["AUTOSTOP_NOTIFY_SLACK_URL"], False),
    ]
    assert where(settings(), MATTERMOST) == [("mattermost", MATTERMOST, True)]


def test_without_a_webhook_of_its_chat_the_default_is_the_second_place() -> None:
    """Better in another chat than nowhere."""
    assert where(settings(**HOOKS), MATTERMOST)[1:] == [("teams", HOOKS["AUTOSTOP_NOTIFY_TEAMS_URL"], False)]


@pytest.mark.parametrize(
    ("source", "chat"),
    [
        ("/bms-autostop/rocketchat", "rocketchat"),
        ("/bms-autostop/slack", "slack"),
        ("/bms-autostop/mattermost", "teams"),
        ("/bms-autostop/alertmanager", "teams"),
        ("/docs/text", "teams"),
        ("rocketchat", "rocketchat"),
        ("", "teams"),
    ],
)
def test_a_chat_without_such_an_address_is_known_by_the_source(source: str, chat: str) -> None:
    """What was requested in Teams or Rocket.Chat is reported by its webhook, everything else by the default."""
    assert [(name, reply) for name, _, reply in where(settings(**HOOKS), source=source)] == [(chat, False)]


def test_there_may_be_no_chat_to_post_to() -> None:
    """No webhook is set, and the request is not from a chat."""
    assert where(settings()) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.slack.com/commands/T/1/x",
        "HTTPS://hooks.slack.com/commands/T/1/x",
        "https://hooks.slack.com:8443/commands/T/1/x",
        "https://hooks.slack.com./commands/T/1/x",
        "https://hooks.slack.com.evil.example/commands/T/1/x",
        "https://evil.example/commands/T/1/x",
        "https://evil.example/hooks.slack.com/commands/T/1/x",
        "https://hooks.slack.com@evil.example/commands/T/1/x",
        "https://user:pass@hooks.slack.com/commands/T/1/x",
        "https://evil.example\\@hooks.slack.com/commands/T/1/x",
        "https://evil.example#@hooks.slack.com/commands/T/1/x",
        "https://hooks.slack.com/commands/T/1/x#y",
        "https://hooks.slack.com/commands/T/1/x?y",
        "https://hooks.slack.com/commands/../services/T/B/x",
        "https://hooks.slack.com/commands/%2e%2e/services/T/B/x",
        "https://hooks.slack.com/services/T/B/x",
        "https://hooks.slack.com/commands/",
        "https://hooks.slack.com",
        "https://hooks.sla\u0441k.com/commands/T/1/x",
        "https://hooks\uff0eslack\uff0ecom/commands/T/1/x",
        "https://hooks.slack.com/commands/T/1/x\r\nHost: evil.example",
        "https://hooks.slack.com/commands/T/1/x\n",
        " https://hooks.slack.com/commands/T/1/x",
        "//hooks.slack.com/commands/T/1/x",
        "https://127.0.0.1/commands/T/1/x",
        "http://127.0.0.1:9/commands/T/1/x",
        "https://[::1]/commands/T/1/x",
        "https://2130706433/commands/T/1/x",
        "https://169.254.169.254/commands/latest/meta-data",
        "https://mm.example/api/v4/posts",
        "https://mm.example/hooks/incoming",
        "https://mm.example/commands/T/1/x",
        "https://mm.example/hooks/commands/a/b",
        "https://hooks.slack.com/hooks/commands/a",
        "file:///commands/T/1/x",
        "build-ops",
        "",
    ],
)
def test_no_other_address_is_ever_used(url: str) -> None:
    """Not one that another parser would read otherwise, nor one that does more than answer a command."""
    assert where(settings(), url) == []


@pytest.mark.parametrize(
    ("url", "chat"),
    [
        ("https://HOOKS.slack.com/commands/T/1/x", "slack"),
        ("https://hooks.slack.com:443/actions/T/1/x", "slack"),
        ("https://mm.example/sub/path/hooks/commands/x1", "mattermost"),
    ],
)
def test_the_same_host_written_otherwise_is_the_same(url: str, chat: str) -> None:
    """Case does not matter, nor does a port that is https's own, nor where Mattermost lives on its host."""
    assert where(settings(), url) == [(chat, url, True)]


def test_loopback_without_https_has_to_be_named_with_its_port() -> None:
    """For a try on one machine; another port of it is another program."""
    made = settings(AUTOSTOP_SLACK_HOSTS="http://127.0.0.1:8099")
    assert where(made, "http://127.0.0.1:8099/commands/x") == [("slack", "http://127.0.0.1:8099/commands/x", True)]
    assert where(made, "http://127.0.0.1:8098/commands/x") == []
    assert where(made, SLACK) == []


def test_a_target_shows_no_url() -> None:
    """Everyone who knows one can post."""
    (target,) = targets(reported(reply_to=SLACK), settings())
    assert target == Target(ChatName.SLACK, target.url, reply=True)
    assert "hooks" not in repr(target)

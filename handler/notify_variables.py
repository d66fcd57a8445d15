"""The settings of `notify_chat` by name: the README's third table, and what no other target calls unknown."""

from __future__ import annotations

from handler.shared_settings import Variable

NOTIFY_VARIABLES = (
    Variable("AUTOSTOP_NOTIFY_SLACK_URL", "none", "incoming webhook of Slack"),
    Variable("AUTOSTOP_NOTIFY_MATTERMOST_URL", "none", "incoming webhook of Mattermost"),
    Variable("AUTOSTOP_NOTIFY_TEAMS_URL", "none", "webhook of a Teams workflow that posts Adaptive Cards"),
    Variable("AUTOSTOP_NOTIFY_ROCKETCHAT_URL", "none", "incoming webhook of Rocket.Chat"),
    Variable("AUTOSTOP_NOTIFY_TEXT_URL", "none", "URL that plain text is posted to"),
    Variable(
        "AUTOSTOP_NOTIFY_DEFAULT",
        "the only one",
        "which of these gets what no chat asked for: `slack`, `mattermost`, `teams`, `rocketchat` or `text`",
    ),
    Variable("AUTOSTOP_SLACK_HOSTS", "`hooks.slack.com`", "hosts that a `response_url` of Slack may have"),
    Variable("AUTOSTOP_MATTERMOST_HOSTS", "none", "hosts that a `response_url` of Mattermost may have"),
)

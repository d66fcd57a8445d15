"""The settings of `receive_webhook` by name: the README's second table, and what no other target calls unknown.

A list and nothing else, so that `stop_servers` can know the names without loading what they are for.
"""

from __future__ import annotations

from handler.shared_settings import Variable

_WHO = "ids of those who may, comma-separated; empty = nobody"


def _people(chat: str) -> tuple[Variable, Variable]:
    return (
        Variable(f"AUTOSTOP_{chat}_USERS", "none", f"users: {_WHO}"),
        Variable(f"AUTOSTOP_{chat}_CHANNELS", "none", f"channels: {_WHO}"),
    )


WEBHOOK_VARIABLES = (
    Variable("AUTOSTOP_EVENT_SINK", "`K_SINK`", "`http(s)://` URL that stop requests are posted to; one must be set"),
    Variable("AUTOSTOP_ID_LABEL", "`server_id`", "label, property, dimension or variable that holds the server's id"),
    Variable("AUTOSTOP_ALERTMANAGER_TOKEN", "none", "switches `/alertmanager` on: bearer token or basic-auth password"),
    Variable("AUTOSTOP_GRAFANA_TOKEN", "none", "switches `/grafana` on: bearer token or basic-auth password"),
    Variable("AUTOSTOP_GRAFANA_HMAC_SECRET", "none", "switches `/grafana` on: signature. Both set: both needed"),
    Variable("AUTOSTOP_GRAFANA_TIMESTAMP_HEADER", "none", "header with the signed time, as in Grafana's contact point"),
    Variable("AUTOSTOP_AODH_TOKEN", "none", "switches `/aodh` on: query parameter `token` of the alarm action's URL"),
    Variable("AUTOSTOP_AZURE_TOKEN", "none", "switches `/azure-monitor` on: bearer token, or query parameter `token`"),
    Variable("AUTOSTOP_EVENTBRIDGE_TOKEN", "none", "switches `/eventbridge` on: bearer token or basic-auth password"),
    Variable("AUTOSTOP_GITLAB_TOKEN", "none", "switches `/gitlab` on: the webhook's secret token"),
    Variable(
        "AUTOSTOP_GITLAB_SIGNING_TOKEN", "none", "switches `/gitlab` on: signature (`whsec_…`). Both set: both needed"
    ),
    Variable("AUTOSTOP_SLACK_SIGNING_SECRET", "none", "switches `/slack` on"),
    *_people("SLACK"),
    Variable("AUTOSTOP_MATTERMOST_TOKENS", "none", "switches `/mattermost` on: tokens of its commands and webhooks"),
    *_people("MATTERMOST"),
    Variable("AUTOSTOP_TEAMS_SECRET", "none", "switches `/teams` on: security token as Teams shows it (base64)"),
    *_people("TEAMS"),
    Variable("AUTOSTOP_ROCKETCHAT_TOKENS", "none", "switches `/rocketchat` on: tokens of its outgoing webhooks"),
    *_people("ROCKETCHAT"),
    Variable("AUTOSTOP_SMN_TOPICS", "none", "switches `/smn` on: URNs of the topics that are listened to"),
    Variable("AUTOSTOP_SMN_CERT_HOSTS", "Open Telekom Cloud's", "hosts that a signing certificate may come from"),
    Variable("AUTOSTOP_SMN_CONFIRM_HOSTS", "Open Telekom Cloud's", "hosts that a subscription may be confirmed at"),
)

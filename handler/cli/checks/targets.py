"""The checks of each target, beside its settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from handler.cli.checks import TIMEOUT, Check, OnCheck, error, network, ok, warning
from handler.errors import CloudError, KeysUnreachable
from handler.settings.common import Callers, InboundAuth, SinkSettings
from handler.settings.stop_servers import Settings
from handler.terminal import counted

if TYPE_CHECKING:
    from handler.settings.keep_servers import KeepSettings
    from handler.settings.notify_chat import NotifySettings
    from handler.settings.oidc import OidcSettings
    from handler.settings.receive_webhook import WebhookSettings


def stop_servers(settings: Settings, server_id: str | None, on_check: OnCheck) -> Iterator[Check]:
    """Check callers, cloud and sink; see `cloud.cloud`."""
    from handler.cli.checks.cloud import cloud

    yield from _callers(settings.callers, on_check)
    if settings.approval.keys:
        yield _approvals(settings.callers)
    yield from cloud(settings, server_id, on_check)
    yield from _results(settings, on_check)


def keep_servers(settings: KeepSettings, on_check: OnCheck) -> Iterator[Check]:
    """Check callers, login, Nova and sink. Writing metadata is not tested, since that would change a server."""
    from handler.cloud.metadata import MetadataClouds

    yield from _callers(settings.callers, on_check)
    on_check("Nova")
    clouds = MetadataClouds(settings)
    try:
        clouds.ready(TIMEOUT)
        shown = len(clouds.reader().peek(TIMEOUT))
    except CloudError as failure:
        fix = "Check the login and AUTOSTOP_COMPUTE_URL; bms-autostop doctor --target stop_servers says more."
        yield error("Nova", str(failure), fix)
    else:
        yield ok("Nova", f"the login works, and {counted(shown, 'server')} can be listed")
        detail = "the right to write and remove metadata is not tested: that would change a server"
        yield warning("metadata", detail, "Keep a server for a minute: bms-autostop keep --server ID --for 1m.")
    yield from _results(settings, on_check)


def receive_webhook(settings: WebhookSettings, on_check: OnCheck) -> Iterator[Check]:
    """Check which producers are on, which users of chats are permitted, and the sink."""
    from handler.inbound.webhooks.registry import SWITCHES

    enabled = [path for path, switch in SWITCHES.items() if switch(settings)]
    if enabled:
        yield ok("producers", ", ".join(enabled))
    else:
        yield warning("producers", "none is switched on", "Set the secret of at least one: bms-autostop settings.")
    chats = {
        "/slack": settings.slack_people,
        "/mattermost": settings.mattermost_people,
        "/teams": settings.teams_people,
        "/rocketchat": settings.rocketchat_people,
    }
    for path, people in chats.items():
        if path in enabled and not (people.users and people.channels):
            chat = path[1:].upper()
            fix = f"Set AUTOSTOP_{chat}_USERS and AUTOSTOP_{chat}_CHANNELS."
            yield warning(path[1:], "no user, or no channel, may ask for a stop", fix)
    if settings.smn_topics:
        for host in sorted(settings.smn_cert_hosts):
            on_check(host)
            yield network.reachable("SMN certificates", f"https://{host}/")
    on_check("sink")
    yield from _sink("AUTOSTOP_EVENT_SINK", settings.sink)


def notify_chat(settings: NotifySettings, on_check: OnCheck) -> Iterator[Check]:
    """Check callers, and whether each chat can be reached. Nothing is posted."""
    yield from _callers(settings.callers, on_check)
    if not settings.webhooks and not any(settings.origins.values()):
        yield warning("chats", "none is set", "Set at least one AUTOSTOP_NOTIFY_..._URL: bms-autostop settings.")
    for chat, url in settings.webhooks.items():
        on_check(chat)
        yield from network.in_clear(chat, url.reveal(), "the webhook's secret URL", "Set an https URL.")
        yield network.reachable(chat, url.reveal(), ca_setting="REQUESTS_CA_BUNDLE")


def _callers(callers: Callers, on_check: OnCheck) -> Iterator[Check]:
    match callers.inbound_auth:
        case InboundAuth.NONE:
            yield ok("callers", "not authenticated by the function (AUTOSTOP_INBOUND_AUTH=none)")
        case InboundAuth.BEARER:
            yield ok("callers", "authenticated by bearer token")
        case InboundAuth.OIDC:
            yield ok("callers", "authenticated by tokens of an issuer")
    if callers.oidc is not None:
        on_check("issuer")
        yield _issuer(callers.oidc)


def _approvals(callers: Callers) -> Check:
    """Check that callers that may ask for a stop cannot approve it as well."""
    if callers.names_approvers:
        return ok("approvals", "only the named callers may approve")
    fix = "Set AUTOSTOP_APPROVER_TOKENS (bearer) or AUTOSTOP_APPROVER_SUBJECTS (oidc), usually to receive_webhook's."
    return warning("approvals", "every caller that may ask for a stop may also approve it", fix)


def _issuer(settings: OidcSettings) -> Check:
    """Fetch the keys that callers' tokens are verified with, as the function does."""
    from handler.inbound.auth.key_server import KeyServer

    try:
        keys = KeyServer(settings)(TIMEOUT)
    except KeysUnreachable as unreachable:
        fix = "Check AUTOSTOP_OIDC_ISSUER; AUTOSTOP_OIDC_JWKS_URL, _CA and _TOKEN_FILE help where discovery cannot."
        return error("issuer", str(unreachable), fix)
    return ok("issuer", counted(len(keys), "usable key"))


def _results(settings: Settings | KeepSettings, on_check: OnCheck) -> Iterator[Check]:
    """Check where results are sent."""
    on_check("sink")
    if settings.result_topic:
        yield _topic(settings)
    if settings.sink:
        yield from _sink("AUTOSTOP_RESULT_SINK", settings.sink)


def _sink(setting: str, sink: SinkSettings) -> Iterator[Check]:
    """Check that a sink can be reached. No event is sent to it: it would be acted on."""
    if sink.token or sink.token_file:
        yield from network.in_clear("sink", sink.url, "the sink's token", f"Set {setting} to an https URL.")
    if sink.token_file:
        yield network.readable("sink token", sink.token_file, "AUTOSTOP_SINK_TOKEN_FILE")
    yield network.reachable("sink", sink.url, sink.ca or True, ca_setting="K_CA_CERTS")


def _topic(settings: Settings | KeepSettings) -> Check:
    """Check the topic of the results. Publishing itself is not tested, since subscribers would get the message."""
    from handler.cloud.connect import Clouds

    topic = Clouds(settings).topic()
    assert topic is not None
    try:
        url = topic.url(TIMEOUT)
    except CloudError as failure:
        return error("sink", str(failure), "Check OS_REGION_NAME, or set AUTOSTOP_SMN_URL.")
    return network.reachable("sink", url, settings.login.verify)

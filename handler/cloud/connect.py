"""From settings to connections: the choice of login and API."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, assert_never

from handler.cloud.api_client import Http
from handler.cloud.auth.login import Login, NoLogin, StaticToken
from handler.cloud.dry_run import DryRunCloud
from handler.cloud.endpoint import BMS, NOVA, SMN, Api, Endpoint
from handler.errors import CloudError
from handler.http_client import HttpClient, host_of
from handler.settings.login import CloudLogin, LoginKind
from handler.settings.stop_servers import ApiName
from handler.stop.evidence import History
from handler.stop.ports import Cloud

if TYPE_CHECKING:
    from handler.cloud.bms import BmsReader
    from handler.cloud.nova import Microversion, NovaReader
    from handler.cloud.smn import Topic
    from handler.settings.keep_servers import KeepSettings
    from handler.settings.stop_servers import Settings


class Clouds:
    """Creates clouds for events; all share one login and its connections. Nothing is sent before it is needed.

    Args:
        client: an existing one for the same settings, perhaps with another login; None to create one.
        new_client: creates a client.
    """

    def __init__(
        self,
        settings: Settings | KeepSettings,
        monotonic: Callable[[], float] = time.monotonic,
        client: HttpClient | None = None,
        new_client: Callable[..., HttpClient] = HttpClient,
    ) -> None:
        login, plugin = settings.login, None
        api, explicit = (BMS, settings.bms_url) if settings.api is ApiName.BMS else (NOVA, settings.compute_url)
        smn_url, compute_url = settings.smn_url, settings.compute_url
        if login.kind is LoginKind.CLOUDS_YAML:
            from handler.cloud.auth import clouds_yaml

            login, plugin, urls = clouds_yaml.entry(login, (api.service_type, NOVA.service_type, SMN.service_type))
            explicit, smn_url = explicit or urls[api.service_type], smn_url or urls[SMN.service_type]
            compute_url = compute_url or urls[NOVA.service_type]
        self.client = client or new_client(verify=login.verify, pool=settings.concurrency)
        if plugin is not None:
            self.login: Login = clouds_yaml.PluginLogin(plugin, login.verify, monotonic)
            self.login.host = host_of(login.auth_url)
        else:
            self.login = _new_login(login, self.client, monotonic)
        self.http = Http(self.login, self.client)
        self._api = settings.api
        self._login_settings = login
        self.endpoint = self._endpoint(api, explicit)
        # With BMS v1 the history of servers is read from Nova.
        self._compute = self._endpoint(NOVA, compute_url) if settings.api is ApiName.BMS else self.endpoint
        self._smn_url, self._topic_urn = smn_url, settings.result_topic

    @cached_property
    def _microversion(self) -> Microversion:
        from handler.cloud.nova import Microversion

        return Microversion()

    def _ask_nova_for_history(self, server_id: str, timeout: float) -> History | CloudError:
        try:
            listed = self._compute.listed(timeout)
        except CloudError as error:
            # The login may just have failed.
            if error.concerns_all:
                raise
            return error
        if not listed:
            return History(actions=None)
        from handler.cloud.nova import NovaReader

        answer = NovaReader(self.http, self._compute, self._microversion).history(server_id, timeout)
        # Nova does not have the server, or does not respond at that URL.
        return History(actions=None) if isinstance(answer, CloudError) and answer.status == 404 else answer

    def reader(self) -> BmsReader | NovaReader:
        """Return the part of the cloud that only reads."""
        # Only the module of the API in use is imported, for the time of a cold start.
        if self._api is ApiName.BMS:
            from handler.cloud.bms import BmsReader

            return BmsReader(self.http, self.endpoint, self._ask_nova_for_history)
        from handler.cloud.nova import NovaReader

        return NovaReader(self.http, self.endpoint, self._microversion)

    def topic(self) -> Topic | None:
        """Return the topic of the settings, published to with the same login; None if they have none."""
        if self._topic_urn is None:
            return None
        from handler.cloud.smn import Topic

        return Topic(self.http, self._endpoint(SMN, self._smn_url), self._topic_urn)

    def _endpoint(self, api: Api, explicit: str | None) -> Endpoint:
        settings = self._login_settings
        region, interface = settings.region, settings.interface
        return Endpoint(
            self.login, api, explicit=explicit, region=region, interface=interface, auth_url=settings.auth_url
        )

    def cloud(self, *, dry_run: bool) -> Cloud:
        """Return a cloud for one event; for a dry run one without methods that write."""
        if dry_run:
            return DryRunCloud(self.reader())
        if self._api is ApiName.BMS:
            from handler.cloud.bms import BmsCloud

            return BmsCloud(self.http, self.endpoint, self._ask_nova_for_history)
        from handler.cloud.nova import NovaCloud

        return NovaCloud(self.http, self.endpoint, self._microversion)


def _new_login(login: CloudLogin, client: HttpClient, monotonic: Callable[[], float]) -> Login:
    """Return the login of the settings."""
    match login.kind:
        case LoginKind.PASSWORD | LoginKind.TOKEN | LoginKind.APPLICATION_CREDENTIAL:
            from handler.cloud.auth.keystone import KeystoneLogin

            return KeystoneLogin(login, client, monotonic)
        case LoginKind.READY_TOKEN:
            return StaticToken(login.token, login.project_id or "", monotonic)
        case LoginKind.ACCESS_KEY:
            from handler.cloud.auth.aksk import AccessKeyAuth

            return AccessKeyAuth(login, client, monotonic)
        case LoginKind.CLOUDS_YAML:
            raise AssertionError("its login is made by its plugin")
        case LoginKind.FUNCTIONGRAPH:
            # Each call has its own, see `handler/functiongraph/context.py`.
            return NoLogin(monotonic)
        case unreachable:
            assert_never(unreachable)

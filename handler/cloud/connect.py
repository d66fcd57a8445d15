"""From settings to connections: the one place that knows which kind of login needs what, and which API is which."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

from keystoneauth1 import session as ksa_session
from keystoneauth1.identity import v3

from handler.cloud.endpoint import BMS, NOVA, Endpoint
from handler.cloud.http import Http, new_session
from handler.cloud.login import KeyLogin, KeystoneLogin, Login, ReadyToken
from handler.cloud.rehearsal import Rehearsal
from handler.settings import ApiName, CloudLogin, LoginKind, Settings
from handler.stop.ports import Cloud

if TYPE_CHECKING:
    from handler.cloud.bms import BmsReader
    from handler.cloud.nova import NovaReader


class Clouds:
    """Hands out clouds for events; all share one login and its connections. Nothing is sent before it is needed."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        login, auth = _resolved(settings.login)
        self.session = new_session(verify=login.verify, pool=settings.concurrency)
        self.login = _new_login(login, auth, self.session, monotonic)
        self.http = Http(self.login, self.session)
        self._api = settings.api
        api, explicit = (BMS, settings.bms_url) if settings.api is ApiName.BMS else (NOVA, settings.compute_url)
        self.endpoint = Endpoint(
            self.login,
            api,
            explicit=explicit,
            region=login.region,
            interface=login.interface,
            auth_url=login.auth_url,
        )

    def reader(self) -> BmsReader | NovaReader:
        """The half of the cloud that only looks."""
        # The file of the other API is not even loaded: the cold start pays for nothing that is not used.
        if self._api is ApiName.BMS:
            from handler.cloud.bms import BmsReader

            return BmsReader(self.http, self.endpoint)
        from handler.cloud.nova import NovaReader

        return NovaReader(self.http, self.endpoint)

    def cloud(self, *, dry_run: bool) -> Cloud:
        """A cloud for one event; for a dry run one that has nothing to write with."""
        if dry_run:
            return Rehearsal(self.reader())
        if self._api is ApiName.BMS:
            from handler.cloud.bms import BmsCloud

            return BmsCloud(self.http, self.endpoint)
        from handler.cloud.nova import NovaCloud

        return NovaCloud(self.http, self.endpoint)


def _resolved(login: CloudLogin) -> tuple[CloudLogin, v3.Auth | None]:
    """Fill in what an entry of clouds.yaml says, with the plugin that it describes."""
    if login.kind is not LoginKind.CLOUDS_YAML:
        return login, None
    from openstack.config import OpenStackConfig

    region = OpenStackConfig().get_one(cloud=login.cloud, region_name=login.region)
    verify, _ = region.get_requests_verify_args()
    found = replace(
        login,
        auth_url=region.get_auth_args().get("auth_url", ""),
        region=region.get_region_name(),
        interface=region.get_interface() or login.interface,
        verify=verify,
    )
    return found, region.get_auth()


def _new_login(
    login: CloudLogin, auth: v3.Auth | None, session: ksa_session.Session, monotonic: Callable[[], float]
) -> Login:
    """The login that the settings describe. Version 3 of Keystone is named, so nothing is spent on discovery."""
    scope = {
        "project_id": login.project_id,
        "project_name": login.project_name,
        "project_domain_id": login.project_domain_id,
        "project_domain_name": login.project_domain_name,
    }
    user = {
        "username": login.username,
        "user_id": login.user_id,
        "user_domain_id": login.user_domain_id,
        "user_domain_name": login.user_domain_name,
    }
    match login.kind:
        case LoginKind.PASSWORD:
            auth = v3.Password(login.auth_url, password=login.password.reveal(), **user, **scope)
        case LoginKind.TOKEN:
            auth = v3.Token(login.auth_url, login.token.reveal(), **scope)
        case LoginKind.APPLICATION_CREDENTIAL:
            # A credential is bound to its project; naming a scope beside it is an error upstream.
            auth = v3.ApplicationCredential(
                login.auth_url,
                application_credential_secret=login.application_credential_secret.reveal(),
                application_credential_id=login.application_credential_id,
                application_credential_name=login.application_credential_name,
                **user,
            )
        case LoginKind.READY_TOKEN:
            return ReadyToken(login.token.reveal(), login.project_id or "", monotonic)
        case LoginKind.ACCESS_KEY:
            return _key_login(login, session, monotonic)
        case LoginKind.CLOUDS_YAML:
            pass
        case unreachable:
            assert_never(unreachable)
    return KeystoneLogin(auth, session, monotonic)


def _key_login(login: CloudLogin, session: ksa_session.Session, monotonic: Callable[[], float]) -> Login:
    from handler.cloud.signing import Signer

    signer = partial(
        Signer,
        login.access_key or "",
        login.secret_key.reveal(),
        security_token=login.security_token.reveal(),
    )
    return KeyLogin(
        lambda project_id: signer(project_id=project_id),
        session,
        auth_url=login.auth_url,
        project_id=login.project_id,
        project_name=login.project_name,
        monotonic=monotonic,
    )

"""An entry of clouds.yaml, by openstacksdk and its plugins: an optional extra, imported only if it is used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from keystoneauth1 import exceptions as ksa
from keystoneauth1 import session as ksa_session
from openstack.config import OpenStackConfig
from openstack.exceptions import ConfigException

from handler.cloud import error_mapping
from handler.cloud.auth.keystone import expires_in
from handler.cloud.auth.login import LOGIN_TIMEOUT, CatalogEntry, Login, Token
from handler.settings.env import Secret, SettingsError, http_url
from handler.settings.login import CloudLogin


class Entry(NamedTuple):
    """A parsed entry.

    Attributes:
        login: the one of the settings, completed from the entry.
        plugin: of keystoneauth.
        urls: the entry's `*_endpoint_override`, by service type; None where it has none.
    """

    login: CloudLogin
    plugin: Any
    urls: Mapping[str, str | None]


def entry(login: CloudLogin, service_types: Iterable[str]) -> Entry:
    """Read the entry.

    Raises:
        SettingsError: there is no such entry, it is not valid, or the variables beside `OS_CLOUD` contradict it.
    """
    try:
        region = OpenStackConfig().get_one(cloud=login.cloud, region_name=login.region)
    except ConfigException:
        and_region = ", and OS_REGION_NAME one of its regions" if login.region else ""
        raise SettingsError(f"OS_CLOUD must name an entry of clouds.yaml{and_region}.") from None
    auth = region.get_auth_args()
    violations = [
        f"OS_{name.upper()} must be equal to the entry of clouds.yaml that OS_CLOUD names, or unset."
        for name in ("project_name", "project_id", "project_domain_name", "project_domain_id")
        if getattr(login, name) not in (None, auth.get(name))
    ]
    urls = {kind: region.get_endpoint(kind) for kind in service_types}
    for kind, url in urls.items():
        try:
            _ = url and http_url(url)
        except ValueError as violation:
            violations.append(f"OS_CLOUD names an entry whose {kind}_endpoint_override {violation}.")
    if violations:
        raise SettingsError(*violations)
    verify, _ = region.get_requests_verify_args()
    found = login._replace(
        auth_url=auth.get("auth_url", ""),
        region=region.get_region_name(),
        interface=region.get_interface() or login.interface,
        verify=verify,
    )
    return Entry(found, region.get_auth(), urls)


class PluginLogin(Login):
    """A token by any of keystoneauth's version 3 plugins."""

    def __init__(self, plugin: Any, verify: bool | str, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(monotonic)
        self._plugin = plugin
        self._session = ksa_session.Session(verify=verify, redirect=False, timeout=LOGIN_TIMEOUT)

    def _obtain(self) -> Token:
        try:
            # Not `get_access`, which takes a token for expired 120 s before its end, however short its life is.
            got = self._plugin.get_auth_ref(self._session)
        except ksa.HttpError as failure:
            response = failure.response
            headers, body = (response.headers, response.content) if response is not None else ({}, b"")
            raise error_mapping.from_login_answer(failure.http_status, headers, body) from failure
        except ksa.ConnectionError as failure:
            # keystoneauth calls each timeout a connect timeout; the original exception is its cause.
            raise error_mapping.from_login(failure.__context__ or failure) from failure
        catalogue = got.service_catalog.get_endpoints_data().items()
        return Token(
            project_id=got.project_id,
            catalogue=tuple(
                CatalogEntry(kind, str(one.interface or ""), str(one.region_name or ""), str(one.catalog_url or ""))
                for kind, endpoints in catalogue
                for one in endpoints
            ),
            token=Secret(got.auth_token),
            expires_in=expires_in(got.issued.isoformat(), got.expires.isoformat()),
            roles=tuple(got.role_names),
        )

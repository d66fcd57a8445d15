"""The URL of an API: an explicit one, that of the token's catalogue, or a host by OTC's naming scheme."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from handler.cloud import error_mapping
from handler.cloud.auth.login import Login, Token
from handler.errors import EndpointUnusable, InsecureEndpoint

_OTC_IAM = re.compile(r"iam(?:-pub)?\.((?:[a-z0-9-]+)\.(?:sc\.)?otc\.t-systems\.com)")


class Api(NamedTuple):
    """The names of an API.

    Attributes:
        service_type: its type in the catalogue.
        version: the path segment of the version that is called; catalogues may have another minor version, or none.
        otc_host: first label of its host name on Open Telekom Cloud.
        setting: the environment variable of its URL.
        otc_only: no other cloud has it. Its path always has the project, also without it in the catalogue, and its
            host is derived also if it is not in a catalogue.
    """

    service_type: str
    version: str
    otc_host: str
    setting: str
    otc_only: bool = False


NOVA = Api("compute", "v2.1", "ecs", "AUTOSTOP_COMPUTE_URL")
BMS = Api("bms", "v1", "bms", "AUTOSTOP_BMS_URL")
# Seen in a token's catalogue as type `smn`, with a URL that ends in `/v2/`.
SMN = Api("smn", "v2", "smn", "AUTOSTOP_SMN_URL", otc_only=True)


class Endpoint:
    """The base URL of one API for the project of the login.

    Args:
        explicit: base URL from the settings, with or without version and project; None for the catalogue's.
        auth_url: of IAM, from which OTC's hosts are derived without a catalogue, as with AK/SK or a static token.
            Unless it is http, the token is not sent to an http URL of the catalogue.
    """

    def __init__(
        self, login: Login, api: Api, *, explicit: str | None, region: str | None, interface: str, auth_url: str
    ) -> None:
        self._login = login
        self._api = api
        self._explicit = explicit
        self._region = region
        self._interface = interface
        self.auth_url = auth_url
        self._known: tuple[Token, str] | None = None

    def url(self, timeout: float) -> str:
        """Return the base URL, without a slash at its end.

        Raises:
            EndpointUnusable: the URL is not known.
            InsecureEndpoint: the token would be sent unencrypted, to a host that only the catalogue names.
            CloudError: the login failed.
        """
        access = self._login.access(timeout)
        known = self._known
        if known is not None and known[0] is access:
            return known[1]
        found = self._find(access)
        self._known = (access, found)
        return found

    def project(self, timeout: float) -> str | None:
        """Return the project of the login; None if it is not known.

        Raises:
            CloudError: the login failed.
        """
        return self._login.access(timeout).project_id

    def _find(self, access: Token) -> str:
        if self._explicit is not None:
            return self._fitted(self._explicit, access.project_id)
        found = self._from_catalogue(access)
        if found is not None:
            # Upstream's catalogue has no project where none is needed.
            return self._fitted(found, access.project_id if self._api.otc_only else None)
        host = _OTC_IAM.fullmatch(urlsplit(self.auth_url).hostname or "")
        if host is not None and (access.catalogue is None or self._api.otc_only):
            return self._fitted(f"https://{self._api.otc_host}.{host[1]}", access.project_id)
        lacks = "this login brings no catalogue" if access.catalogue is None else "the catalogue does not have it"
        where = f" in region {self._region}" if access.catalogue is not None and self._region else ""
        raise EndpointUnusable(
            f"finding the {self._api.service_type} API: {lacks}{where}; OS_REGION_NAME and OS_INTERFACE must fit the "
            f"catalogue, or {self._api.setting} must name the URL"
        )

    def listed(self, timeout: float) -> bool:
        """Return whether the settings or the catalogue have a URL for it, so that it need not be derived.

        Raises:
            EndpointUnusable: the catalogue has several regions, and the settings name none.
            CloudError: the login failed.
        """
        return self._explicit is not None or self._from_catalogue(self._login.access(timeout)) is not None

    def _from_catalogue(self, access: Token) -> str | None:
        # Catalogues of version 2 wrote `publicURL`.
        fit = [
            entry
            for entry in access.catalogue or ()
            if (entry.service_type, entry.interface.removesuffix("URL")) == (self._api.service_type, self._interface)
            and entry.url.startswith(("http://", "https://"))
            and self._region in (None, entry.region)
        ]
        regions = sorted({entry.region for entry in fit})
        if len(regions) > 1:
            named = ", ".join(region if error_mapping.is_safe(region) else "(no usable name)" for region in regions)
            raise EndpointUnusable(
                f"finding the {self._api.service_type} API: the catalogue has it in several regions ({named}); "
                "OS_REGION_NAME must name one of them"
            )
        secure = [
            entry.url for entry in fit if entry.url.startswith("https://") or urlsplit(self.auth_url).scheme == "http"
        ]
        if fit and not secure:
            raise self._insecure(fit[0].url)
        return secure[0] if secure else None

    def _insecure(self, url: str) -> InsecureEndpoint:
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        named = f" (host {host})" if error_mapping.is_safe(host) else ""
        return InsecureEndpoint(
            f"finding the {self._api.service_type} API: the login is over https, and the catalogue names "
            f"an http URL{named}; no token is sent there unless {self._api.setting} names that URL."
        )

    def _fitted(self, base: str, project_id: str | None) -> str:
        """Return a base URL with the version that is called, and with the project.

        Catalogues also have `/v2/{project}` for Nova (OTC did), or no version at all. OTC requires the project in the
        path; upstream Nova accepts it there.
        """
        parts = urlsplit(base)
        path = parts.path.rstrip("/")
        segment, major = f"/{self._api.version}", self._api.version.partition(".")[0]
        path, found = re.subn(rf"/{major}(?:\.\d+)?(?=/|$)", segment, path, count=1)
        if not found:
            path += segment
        if project_id and path.endswith(segment):
            path += f"/{project_id}"
        return urlunsplit((parts.scheme, parts.netloc, path, "", ""))

"""The keep-until of a server, written through Nova's metadata call, whichever API stops servers.

Open Telekom Cloud's BMS v1 has a metadata call of its own, which is not documented well enough. This is the only module
that writes metadata, and it cannot stop a server; `stop_servers` does not import it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from handler.cloud.api_client import Http
from handler.cloud.connect import Clouds
from handler.cloud.endpoint import Endpoint
from handler.cloud.nova import NovaReader
from handler.http_client import HttpClient
from handler.stop.decide import KEEP_UNTIL

if TYPE_CHECKING:
    from handler.settings.keep_servers import KeepSettings

_HEADERS: Mapping[str, str] = {"Accept": "application/json"}


class NovaMetadata:
    """Writes and removes the keep-until of servers, and nothing else."""

    def __init__(self, http: Http, endpoint: Endpoint) -> None:
        self._http = http
        self._endpoint = endpoint

    def keep(self, server_id: str, until: str, timeout: float) -> str | None:
        """Call `POST /servers/{id}/metadata`, which leaves other entries as they are.

        Nova answers 200 in `active`, `stopped` and `paused`, also while an operation runs, and 409 in `error` or if the
        server is locked (nova/compute/api.py).
        """
        return self._send("POST", f"/servers/{server_id}/metadata", timeout, {"metadata": {KEEP_UNTIL: until}})

    def release(self, server_id: str, key: str, timeout: float) -> str | None:
        """Call `DELETE /servers/{id}/metadata/{key}`, which answers 204, or 404 if there is no such entry."""
        return self._send("DELETE", f"/servers/{server_id}/metadata/{quote(key, safe='')}", timeout)

    def _send(self, method: str, path: str, timeout: float, body: object = None) -> str | None:
        url = self._endpoint.url(timeout) + path
        what = "writing its metadata" if method == "POST" else "removing an entry of its metadata"
        return self._http.send(what, method, url, timeout=timeout, headers=_HEADERS, body=body).request_id


class MetadataClouds:
    """Creates the reader and the writer of metadata that a keep needs; it cannot create anything that stops servers."""

    def __init__(
        self,
        settings: KeepSettings,
        client: HttpClient | None = None,
        new_client: Callable[..., HttpClient] = HttpClient,
    ) -> None:
        connection = Clouds(settings, client=client, new_client=new_client)
        self.client = connection.client
        self.topic = connection.topic
        self._http = connection.http
        self._endpoint = connection.endpoint
        self._reader = connection.reader

    def ready(self, timeout: float) -> None:
        """Raise unless the login works and Nova's URL is known."""
        self._endpoint.url(timeout)

    def reader(self) -> NovaReader:
        """Return the part that reads servers."""
        reader = self._reader()
        assert isinstance(reader, NovaReader)
        return reader

    def writer(self) -> NovaMetadata:
        """Return the part that writes a keep-until."""
        return NovaMetadata(self._http, self._endpoint)

"""A simulated cloud whose identity API is reached over https, while its catalogue names http URLs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

from handler.simulator import Simulator
from tests.inbound.webhooks.fake_smn import as_pem, certificate, new_key
from tests.support.http_server import Handler, HttpServer


@contextmanager
def https_login(cloud: Simulator, folder: Path) -> Iterator[dict[str, str]]:
    """Forward from https to the cloud until the end of the block.

    Args:
        folder: for the key and the certificate.

    Yields:
        The settings that log in over https.
    """
    key = new_key()
    (folder / "key.pem").write_bytes(as_pem(key))
    (folder / "cert.pem").write_bytes(certificate(key, datetime.now(UTC) - timedelta(days=1), host="localhost"))

    class Forward(Handler):
        def do_GET(self) -> None:
            """Forward the request and its response."""
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            url = cloud.url + self.path
            answer = requests.request(self.command, url, headers=headers, data=self.read_body(), timeout=10)
            self.reply(answer.status_code, answer.content, answer.headers)

        do_POST = do_GET

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with HttpServer(Forward, context) as server:
        url = cloud.auth_url.replace(cloud.url, server.origin)
        yield {"OS_AUTH_URL": url, "OS_CACERT": str(folder / "cert.pem")}

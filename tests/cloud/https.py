"""A simulated cloud whose identity API is reached over https, while its catalogue names http URLs."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

from handler.simulator import Simulator
from tests.inbound.webhooks.vendor import as_pem, certificate, new_key


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

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Forward the request and its response."""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            answer = requests.request(self.command, cloud.url + self.path, headers=headers, data=body, timeout=10)
            self.send_response_only(answer.status_code)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = cloud.auth_url.replace(cloud.url, f"https://localhost:{server.server_port}")
        yield {"OS_AUTH_URL": url, "OS_CACERT": str(folder / "cert.pem")}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

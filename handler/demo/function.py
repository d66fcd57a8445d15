"""A function in a process of its own, as in production, and the samples to send to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

_PACKAGE = Path(__file__).parent.parent
_START_TIMEOUT = 30.0

HTTP = requests.Session()
# All of it is on this machine, so no proxy is used.
HTTP.trust_env = False
# A function ends at once if there is no persistent connection to it.
HTTP.headers["Connection"] = "close"


@contextmanager
def function(target: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Run a function until the block ends; yields its URL.

    Args:
        target: `stop_servers`, `receive_webhook`, `notify_chat` or `keep_servers`.
        environ: its settings. Those of this process, and its proxies, are not passed on.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AUTOSTOP_", "OS_", "K_")) and not name.lower().endswith("_proxy")
    }
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "functions_framework", "--source", str(_PACKAGE / "main.py")),
            *("--target", target, "--host", "127.0.0.1", "--port", str(port)),
        ],
        env={**inherited, **environ},
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait_until_up(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=40)


def _wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if HTTP.get(f"{url}healthz", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.05)
    raise RuntimeError("the function did not start")


def samples() -> Path:
    """Return the folder `events/samples/in`: inside the package once it is installed, beside it in a checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for events in (_PACKAGE / "_events", _PACKAGE.parent / "events"):
        if (events / "samples" / "in").is_dir():
            return events / "samples" / "in"
    raise FileNotFoundError("the samples of events/ are not installed")

"""The contents of an image, and of FunctionGraph's zip, started as a platform does.

That is: as any user, with nothing to write to but /tmp, and no network but loopback.

Runs in namespaces of its own (`unshare --net --mount --pid --fork`), which end with it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.simulator import Simulator
from tests.deploy.platform import call, timer
from tests.harness.bench.stage import STOP, memory

_PATIENCE = 60.0
_CLOUD_PORT, _STOP_PORT, _HOOK_PORT = 8774, 8080, 8081


@dataclass(frozen=True, slots=True)
class Figures:
    """What one start cost.

    Attributes:
        first_answer: seconds from the start of the process to the first answer.
        first_stop: seconds from there to the first server seen stopped, of an event sent at once.
        idle, after: MiB resident, of all processes together, before and after that event.
        ending: seconds from SIGTERM to the end.
    """

    first_answer: float
    first_stop: float
    idle: float
    after: float
    ending: float


class Chroot:
    """A root file system that can be entered.

    Args:
        root: where it is, mounted read-only already.
    """

    def __init__(self, root: Path, uid: int, environ: Mapping[str, str], folder: str) -> None:
        self.uid = uid
        self._environ = dict(environ)
        self._enter = ["chroot", f"--userspec={uid}:{uid}", str(root), "env", "-C", folder]

    def command(self, command: Sequence[str]) -> list[str]:
        return [*self._enter, *command]

    def run(self, command: Sequence[str], environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        env = self._environ | dict(environ or {})
        return subprocess.run(self.command(command), env=env, text=True, capture_output=True, timeout=_PATIENCE)

    @contextmanager
    def started(self, command: Sequence[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            self.command(command), env=self._environ | dict(environ), text=True, stdout=subprocess.PIPE
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def mounted(root: Path) -> Path:
    """Mount it a second time: read-only, with an empty /tmp and the system's own folders."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    for command in (
        ("mount", "--bind", str(root), str(place)),
        ("mount", "-o", "remount,bind,ro", str(place)),
        ("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(place / "tmp")),
        ("mount", "-t", "proc", "proc", str(place / "proc")),
        ("mount", "--rbind", "/dev", str(place / "dev")),
    ):
        subprocess.run(command, check=True)
    return place


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Call what listens on loopback, as soon as it does."""
    began = time.monotonic()
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        except ConnectionRefusedError:
            if time.monotonic() - began > _PATIENCE:
                raise
            time.sleep(0.005)
        finally:
            connection.close()


def expect(what: str, is_so: object, seen: object = "") -> None:
    """End with what is wrong unless it is so."""
    if not is_so:
        raise SystemExit(f"not so: {what} {seen}")


def check(chroot: Chroot, image: Mapping[str, Any]) -> Figures:
    """Every claim about the image's processes, one after the other."""
    unset = chroot.run(image["command"], {"AUTOSTOP_INBOUND_AUTH": ""})
    expect("without settings it names what is missing", unset.returncode and "AUTOSTOP_INBOUND_AUTH" in unset.stderr)
    version = chroot.run(["bms-autostop", "--version"])
    expect("the command is there", version.returncode == 0, version)
    with chroot.started(["bms-autostop", "simulate", "--servers", "2", "--power-off-delay", "0.1"], {}) as cloud:
        login, servers = _printed_login(cloud)
        stopping = {**login, "AUTOSTOP_INBOUND_AUTH": "none", "PORT": str(_STOP_PORT)}
        began = time.monotonic()
        with chroot.started(image["command"], stopping) as function:
            status, _, _ = ask(_STOP_PORT, "GET", "/healthz")
            first_answer = time.monotonic() - began
            expect("GET /healthz is 200", status == 200, status)
            idle = memory(function.pid)
            first_stop = _stopped(servers[0])
            after = memory(function.pid)
            expect("GET /readyz is 200", ask(_STOP_PORT, "GET", "/readyz")[0] == 200)
            health = chroot.run(image["health"], {"PORT": str(_STOP_PORT)})
            expect("the health check says so too", health.returncode == 0, health)
            _hooked(chroot, image, servers[1])
            began = time.monotonic()
            function.send_signal(signal.SIGTERM)
            expect("SIGTERM ends it well", function.wait(_PATIENCE) == 0, function.returncode)
            ending = time.monotonic() - began
        sick = chroot.run(image["health"], {"PORT": str(_STOP_PORT)})
        expect("the health check fails when it is gone", sick.returncode == 1, sick)
    written = chroot.run(["python", "-c", "import os; print(sorted(os.listdir('/tmp')))"])
    # Gunicorn's socket is in the home folder, which is /tmp.
    expect("nothing else is left in /tmp", written.stdout.strip() in ("[]", "['.gunicorn']"), written.stdout)
    return Figures(first_answer, first_stop, idle, after, ending)


def _printed_login(cloud: subprocess.Popen[str]) -> tuple[dict[str, str], list[str]]:
    assert cloud.stdout is not None
    login, servers = {}, []
    for line in cloud.stdout:
        if pair := re.fullmatch(r"export (\w+)='(.*)'\n", line):
            login[pair[1]] = pair[2]
        elif server := re.fullmatch(r"# bms-\d+ (\S+) active\n", line):
            servers.append(server[1])
        elif "Ctrl-C" in line:
            break
    return login, servers


def _stopped(server: str) -> float:
    began = time.monotonic()
    status, headers, body = ask(
        _STOP_PORT,
        "POST",
        "/",
        {"server_ids": [server]},
        **{"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/image", "ce-type": STOP},
        **{"content-type": "application/json"},
    )
    took = time.monotonic() - began
    expect("an event is answered with its result", status == 200 and "completed" in headers["ce-type"], (status, body))
    (row,) = json.loads(body)["servers"]
    expect("the server was seen stopped", (row["id"], row["outcome"]) == (server, "stopped"), row)
    return took


def _hooked(chroot: Chroot, image: Mapping[str, Any], server: str) -> None:
    """The same image as `receive_webhook`: an alarm becomes an event, and the event a stop."""
    alert = {
        "status": "firing",
        "labels": {"server_id": server},
        "fingerprint": "1",
        "startsAt": "2026-01-01T00:00:00Z",
    }
    group = {"version": "4", "groupKey": "k", "status": "firing", "alerts": [alert]}
    settings = {
        "FUNCTION_TARGET": "receive_webhook",
        "AUTOSTOP_EVENT_SINK": f"http://127.0.0.1:{_STOP_PORT}/",
        "AUTOSTOP_ALERTMANAGER_TOKEN": "not-a-secret-for-this-test-only",
        "PORT": str(_HOOK_PORT),
    }
    with chroot.started(image["command"], settings) as hook:
        token = {"authorization": "Bearer not-a-secret-for-this-test-only", "content-type": "application/json"}
        status, _, body = ask(_HOOK_PORT, "POST", "/alertmanager", group, **token)
        expect("an alarm is taken", status in (200, 202, 204), (status, body))
        status, _, body = ask(_HOOK_PORT, "POST", "/alertmanager", group, authorization="Bearer x")
        expect("an alarm with a wrong token is not", status in (401, 403), (status, body))
        hook.send_signal(signal.SIGTERM)
        expect("SIGTERM ends it well", hook.wait(_PATIENCE) == 0, hook.returncode)


def call_zip(chroot: Chroot) -> None:
    """Call the zip as FunctionGraph does, in a Debian with Python and nothing else."""
    with Simulator.otc() as cloud:
        server = cloud.add_server("bms-0")
        settings = {
            "AUTOSTOP_INBOUND_AUTH": "none",
            "OS_AUTH_URL": cloud.auth_url,
            "OS_REGION_NAME": "eu-de",
            "AUTOSTOP_COMPUTE_URL": f"{cloud.url}/v2.1/{cloud.project_id}",
        }
        called = call(
            "/opt/function/code",
            "index.handler",
            [timer(server)],
            on_path=False,
            user_data=settings,
            token=cloud.token(),
            project=cloud.project_id,
            python=chroot.command(["python3"]),
        )
        expect("the server is stopped", cloud.server(server).vm_state == "stopped", called)
        expect("all that was loaded is the zip's or Python's own", not called.foreign, called.foreign)
        print(
            f"  user {chroot.uid}, index.handler: {called.seconds:.2f} s from the start of Python to the end of the"
            f" first event, {called.memory:.0f} MiB at most",
            flush=True,
        )


def main() -> None:
    """Check it for the users in the image that standard input describes, and print what it cost."""
    image = json.load(sys.stdin)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for uid in image["uids"]:
        figures = check(Chroot(mounted(Path(image["root"])), uid, image["environ"], image["folder"]), image)
        print(
            f"  user {uid}: first answer after {figures.first_answer:.2f} s, first server stopped"
            f" {figures.first_stop:.2f} s later (0.1 s of it powering off), {figures.idle:.0f} MiB before and"
            f" {figures.after:.0f} MiB after,"
            f" ended {figures.ending:.2f} s after SIGTERM",
            flush=True,
        )
    if image["zip"]:
        call_zip(Chroot(mounted(Path(image["zip"])), 1003, {}, "/"))


if __name__ == "__main__":
    os.umask(0o022)
    main()

"""A simulated cloud with a clock that the test sets, and an HTTP client that shows answers as they are."""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from handler.simulator import Simulator
from tests.support.clock import FakeClock

NOON = 1_750_000_000.0


UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
NOVA_IDS = ["x-openstack-request-id", "x-compute-request-id"]
NOVA_VERSION = ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version", "Vary", "Vary"]
NOVA_ANSWER = ["Content-Length", "Content-Type", *NOVA_VERSION, *NOVA_IDS]
NOVA_ERROR = [*NOVA_VERSION, "Content-Type", "Content-Length", *NOVA_IDS]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with its headers in order and not folded."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> Any:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def names(self) -> list[str]:
        """The names of the headers in order, without those of the HTTP server itself."""
        return [name for name, _ in self.headers if name not in ("Date", "Server")]

    @property
    def message(self) -> str:
        """The message inside an error body of Nova, Keystone or the BMS API."""
        (error,) = self.json().values()
        return str(error["message"])

    @property
    def refusal(self) -> tuple[int, str, str]:
        """The status, the name and the message of an error of Nova, which must have its headers."""
        ((name, error),) = self.json().items()
        assert (self.names, error["code"]) == (NOVA_ERROR, self.status)
        return self.status, name, error["message"]

    @property
    def code(self) -> tuple[int, str]:
        """The status, and the code of an error of the gateway or of an API behind it."""
        body = self.json()
        return self.status, body.get("error_code") or body.get("error", body)["code"]


Ask = Callable[..., Reply]
"""Sends one request, and returns the response."""
Lookup = Callable[..., Any]
"""Sends one request, and returns a part of the response."""


def password_login(cloud: Simulator, *, scope: Any = "project", **given: str) -> dict[str, Any]:
    """Return the body of a login by name, right but for what is given."""
    login = cloud.environ()
    domain = {"name": given.get("domain", login["OS_USER_DOMAIN_NAME"])}
    user = {"name": given.get("user", login["OS_USERNAME"]), "domain": domain}
    user["password"] = given.get("password", login["OS_PASSWORD"])
    auth = {"identity": {"methods": ["password"], "password": {"user": user}}}
    if scope == "project":
        scope = {"project": {"name": given.get("project", login["OS_PROJECT_NAME"]), "domain": domain}}
    return {"auth": auth | {"scope": scope}}


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the cloud."""
    return FakeClock(NOON)


@pytest.fixture
def cloud(clock: FakeClock, request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """A cloud with that clock, made by `CLOUD` of the module if it has one."""
    with getattr(request.module, "CLOUD", Simulator)(clock=clock) as running:
        yield running


@pytest.fixture
def ask(cloud: Simulator) -> Ask:
    """Send one request on a connection of its own, with the operator's token unless another is given."""
    own = cloud.token()

    def send(
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = own,
        to: Simulator = cloud,
        timeout: float = 5,
        **headers: str,
    ) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["X-Auth-Token"] = token
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        where = urlsplit(to.url)
        with closing(http.client.HTTPConnection(str(where.hostname), where.port, timeout=timeout)) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Reply(answer.status, answer.reason, answer.getheaders(), answer.read())

    return send


@pytest.fixture
def stop(ask: Ask) -> Ask:
    """Send the stop of a server."""

    def send(server_id: str, body: Any = None, **more: Any) -> Reply:
        return ask("POST", f"/v2.1/servers/{server_id}/action", {"os-stop": body}, **more)

    return send


@pytest.fixture
def bms(ask: Ask, cloud: Simulator) -> Ask:
    """Send a GET to the BMS API, below the operator's project."""
    return lambda path, **more: ask("GET", f"/v1/{cloud.project_id}/{path}", **more)

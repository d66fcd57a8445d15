"""The record of the requests to the simulated cloud, for tests."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Api(StrEnum):
    """Which of the cloud's APIs a request goes to."""

    KEYSTONE = "keystone"
    NOVA = "nova"
    BMS = "bms"
    SMN = "smn"


class CallKind(StrEnum):
    """The operation that is requested, of any API."""

    LOGIN = "login"
    READ = "read"
    LIST = "list"
    STOP = "stop"
    ACTIONS = "actions"
    VERSION = "version"
    REVOKE = "revoke"
    JOB = "job"
    PUBLISH = "publish"
    METADATA = "metadata"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Call:
    """One request that the cloud received.

    Args:
        kind: the requested operation; `stop` means that its body had an `os-stop`.
        method: in upper case.
        path: path and query as sent.
        status: of the answer; None if there was none (yet, or because the connection was closed).
        at: when it was received, in seconds since the epoch on the cloud's clock.
        acted: whether the cloud carried it out, whatever the answer.
        headers: as sent, names in lower case, without tokens and signatures.
        body: as sent, empty for a login.
        api: that it was sent to.
        server_ids: all servers it is about, in the cloud's spelling and in the order in which they are named.
        acted_on: those of them for which the cloud carried it out.
        access_key: the id of the key in the signature; None without one.
    """

    kind: CallKind
    method: str
    path: str
    status: int | None
    at: float
    acted: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    api: Api = Api.NOVA
    server_ids: tuple[str, ...] = ()
    acted_on: tuple[str, ...] = ()
    access_key: str | None = None

    @property
    def server_id(self) -> str | None:
        """The id of the server it is about; None if it is about none, or about several."""
        return self.server_ids[0] if len(self.server_ids) == 1 else None


class CallLog:
    """All calls in the order of their arrival; safe to use from several threads."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    def begin(self, call: Call) -> int:
        """Record a call on arrival, so that one without an answer is recorded, too; return its index."""
        with self._lock:
            self._calls.append(call)
            return len(self._calls) - 1

    def end(self, place: int, call: Call) -> None:
        """Record the result of a call."""
        with self._lock:
            self._calls[place] = call

    def all(self) -> list[Call]:
        """Return the calls so far."""
        with self._lock:
            return list(self._calls)

    def find(self, kind: CallKind | str, server_id: str | None = None) -> list[Call]:
        """Return the calls of a kind so far, about one server if given."""
        return [call for call in self.all() if call.kind == kind and server_id in (None, *call.server_ids)]

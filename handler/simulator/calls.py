"""What the simulated cloud was asked: the record that tests look into afterwards."""

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
    """What a request asks for, of whichever API."""

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
    """One request that reached the cloud.

    Args:
        kind: what it asked for; `stop` means that its body had an `os-stop`.
        method: in capitals.
        path: path and query as sent.
        server_id: the server it is about, as the cloud writes the id; None if about none, or about several.
        status: what was answered; None if nothing was (yet, or because the connection was cut).
        at: when it came, in seconds since the epoch on the cloud's clock.
        acted: the cloud did what was asked, whatever it then answered.
        headers: as sent, names in small letters, without those that carry a token or a signature.
        body: as sent, empty for a login.
        api: where it went.
        server_ids: all servers it is about, in the order in which they are named.
        acted_on: those of them for which the cloud did what was asked.
        access_key: the id of the key that the request says it is signed with; None if it says none.
    """

    kind: CallKind
    method: str
    path: str
    server_id: str | None
    status: int | None
    at: float
    acted: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    api: Api = Api.NOVA
    server_ids: tuple[str, ...] = ()
    acted_on: tuple[str, ...] = ()
    access_key: str | None = None


class CallLog:
    """All calls in the order in which they came; safe to use from several threads."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    def begin(self, call: Call) -> int:
        """Note a call when it comes, so that also one without an answer is seen; returns its place."""
        with self._lock:
            self._calls.append(call)
            return len(self._calls) - 1

    def end(self, place: int, call: Call) -> None:
        """Note what became of it."""
        with self._lock:
            self._calls[place] = call

    def all(self) -> list[Call]:
        """Return the calls so far."""
        with self._lock:
            return list(self._calls)

    def find(self, kind: CallKind | str, server_id: str | None = None) -> list[Call]:
        """Return the calls of a kind so far, about one server if given."""
        return [call for call in self.all() if call.kind == kind and server_id in (None, *call.server_ids)]

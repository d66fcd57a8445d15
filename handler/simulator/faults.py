"""Faults that can be injected into the simulated cloud, to test its clients.

cloud.inject(Fault.conflict(ConflictKind.LOCKED))
cloud.inject(Fault.throttled(CallKind.READ, retry_after=2))
cloud.inject(Fault.cut_after(CallKind.STOP))
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from handler.simulator import gateway
from handler.simulator.bms import views
from handler.simulator.calls import Api, CallKind

_JSON = "application/json"
_REQUEST_ID = {"X-Request-Id": "{request_id}"}


class Cut(StrEnum):
    """When the connection is closed without a complete answer."""

    BEFORE = "before"
    """Before the cloud acts."""
    AFTER = "after"
    """After the cloud has acted, and before the first byte of the answer."""
    MIDWAY = "midway"
    """After the cloud has acted and half of the answer's body is sent, with the full Content-Length."""


class ConflictKind(StrEnum):
    """Why Nova answers 409 to an action; the text is Nova's message, `{id}` stands for the server's id."""

    VM_STATE = "Cannot 'stop' instance {id} while it is in vm_state stopped"
    TASK_STATE = "Cannot 'stop' instance {id} while it is in task_state powering-off"
    LOCKED = "Instance {id} is locked"
    NOT_READY = "Instance {id} is not ready"
    NEVER_LAUNCHED = "Instance {id} is in an invalid state for 'stop'"

    @property
    def bms_code(self) -> str:
        """The code with which the BMS API refuses a stop for this reason."""
        codes = {"VM_STATE": "BMS.0039", "TASK_STATE": "BMS.0036", "LOCKED": "Ecs.0605"}
        return codes.get(self.name, "Ecs.0100")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of calls of one kind. All times are in seconds.

    The class methods make the usual ones; all of them accept further fields by name.

    Args:
        on: which calls.
        server_id: only calls about this server, also together with others; None for all.
        api: only calls to this API; None for all.
        times: for how many calls; None for all until it is removed.
        skip: how many matching calls are not affected first.
        status: answer this instead; the cloud does not act then, unless `act`.
        message: the text inside the usual error body, `{id}` in it stands for the server's id.
        bms_code: the BMS API answers 400 with this code, in place of `status` and `message`.
        headers: more headers of the answer, with or without `status`; `{request_id}` in a value stands for
            the id under which the cloud handles the call, as it does in a `body` of text.
        body: the body of the answer, in place of the usual error body.
        content_type: of that body.
        delay: wait before acting, as when a database behind the API hangs.
        hold: act at once, and answer only after this time, as when a message queue behind the API hangs.
        cut: close the connection without a complete answer.
        slow_body: send the answer's body byte by byte, with this pause before each.
        expire_token: the token of the call is unknown from now on, so the cloud answers 401.
        act: with `status`, the cloud acts although it answers an error.
        rival: another user's stop of the same server is accepted just before this call.
    """

    on: CallKind
    server_id: str | None = None
    times: int | None = 1
    skip: int = 0
    status: int | None = None
    message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | bytes | None = None
    content_type: str | None = None
    delay: float = 0.0
    hold: float = 0.0
    cut: Cut | None = None
    slow_body: float = 0.0
    expire_token: bool = False
    act: bool = False
    rival: bool = False
    api: Api | None = None
    bms_code: str | None = None

    @classmethod
    def conflict(cls, kind: ConflictKind, server_id: str | None = None, **others: Any) -> Self:
        """Answer a stop with 409 and Nova's message, or the BMS API's code, in any state of the server."""
        code = kind.bms_code
        return cls(on=CallKind.STOP, server_id=server_id, status=409, message=kind.value, bms_code=code, **others)

    @classmethod
    def bms(
        cls,
        on: CallKind,
        code: str,
        status: int = 400,
        *,
        message: str | None = None,
        flat: bool = False,
        **others: Any,
    ) -> Self:
        """Answer a call to the BMS API with an error of its form.

        If `flat`, code and message are at the top of the body, and not in an `error` object.
        """
        body = views.error_body(code, message, flat=flat)
        return cls(on=on, api=Api.BMS, status=status, headers=_REQUEST_ID, body=body, content_type=_JSON, **others)

    @classmethod
    def gateway_code(
        cls,
        on: CallKind,
        code: str,
        status: int,
        *,
        message: str | None = None,
        retry_after: int | str | None = None,
        **others: Any,
    ) -> Self:
        """Answer with an error of the API gateway in front of Open Telekom Cloud's APIs.

        The code is one such as APIG.0308, or IAM.0012 of the identity service, which answers in the same form.
        `retry_after` is the header of that name: seconds, or a date.
        """
        headers = {**_REQUEST_ID, **_retry_after(retry_after)}
        body = gateway.body_of(code, message, "{request_id}")
        return cls(on=on, status=status, headers=headers, body=body, content_type=_JSON, **others)

    @classmethod
    def throttled(cls, on: CallKind, retry_after: int | str | None = None, **others: Any) -> Self:
        """Answer 429, with `Retry-After` (seconds, or a date) if given."""
        message = "This request was rate-limited."
        return cls(on=on, status=429, headers=_retry_after(retry_after), message=message, **others)

    @classmethod
    def gateway(cls, on: CallKind, status: int = 502, **others: Any) -> Self:
        """Answer with the HTML page of a proxy in front of the cloud."""
        title = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
        heading = f"{status} {title.get(status, '')}".strip()
        page = (
            f"<html>\r\n<head><title>{heading}</title></head>\r\n<body>\r\n<center><h1>{heading}</h1></center>\r\n"
            "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        )
        return cls(on=on, status=status, body=page, content_type="text/html", **others)

    @classmethod
    def two_stops_at_once(cls, server_id: str | None = None, **others: Any) -> Self:
        """Answer a stop with 500, as Nova does if it has accepted another one at the same moment."""
        message = (
            "Unexpected API Error. Please contact the administrator\n<class 'nova.exception.UnexpectedTaskStateError'>"
        )
        return cls(on=CallKind.STOP, server_id=server_id, status=500, message=message, rival=True, **others)

    @classmethod
    def keystone_down(cls, on: CallKind, **others: Any) -> Self:
        """Answer 503 in plain text, as Nova does while it cannot reach Keystone to check a token."""
        page = (
            "503 Service Unavailable\n\n"
            "The server is currently unavailable. Please try again at a later time.\n\n"
            " The Keystone service is temporarily unavailable.  "
        )
        ids = {"x-openstack-request-id": "{request_id}", "x-compute-request-id": "{request_id}"}
        kind = "text/plain; charset=UTF-8"
        return cls(on=on, status=503, headers=ids, body=page, content_type=kind, **others)

    @classmethod
    def token_expired(cls, on: CallKind, **others: Any) -> Self:
        """Expire the token of the call."""
        return cls(on=on, expire_token=True, **others)

    @classmethod
    def cut_before(cls, on: CallKind, server_id: str | None = None, **others: Any) -> Self:
        """Close the connection before the cloud acts."""
        return cls(on=on, server_id=server_id, cut=Cut.BEFORE, **others)

    @classmethod
    def cut_after(cls, on: CallKind, server_id: str | None = None, **others: Any) -> Self:
        """Act, and close the connection without an answer."""
        return cls(on=on, server_id=server_id, cut=Cut.AFTER, **others)


def _retry_after(value: int | str | None) -> dict[str, str]:
    return {} if value is None else {"Retry-After": str(value)}


@dataclass(slots=True, eq=False)
class _Entry:
    fault: Fault
    left: float
    skip: int


class InjectedFaults:
    """The injected faults; safe to use from several threads."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Append a fault; the same one may be added twice."""
        left = math.inf if fault.times is None else fault.times
        with self._lock:
            self._entries.append(_Entry(fault, left, fault.skip))

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._entries.clear()

    def present(self) -> list[Fault]:
        """Return the faults that can still apply, in order."""
        with self._lock:
            return [entry.fault for entry in self._entries]

    def take(self, kind: CallKind, api: Api, server_ids: tuple[str, ...]) -> Fault | None:
        """Return the fault that applies to this call: the first that matches; None if none does."""
        with self._lock:
            for entry in self._entries:
                fault = entry.fault
                if fault.on is not kind or fault.api not in (None, api):
                    continue
                if fault.server_id not in (None, *server_ids):
                    continue
                if entry.skip:
                    entry.skip -= 1
                    continue
                entry.left -= 1
                if entry.left <= 0:
                    self._entries.remove(entry)
                return fault
        return None

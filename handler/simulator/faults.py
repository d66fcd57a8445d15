"""Faults that can be put into the simulated cloud, so that a test can see what becomes of its client.

cloud.inject(Fault.conflict(ConflictKind.LOCKED))
cloud.inject(Fault.throttled(CallKind.READ, retry_after=2))
cloud.inject(Fault.cut_after(CallKind.STOP))
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from handler.simulator import gateway
from handler.simulator.bms import replies
from handler.simulator.calls import Api, CallKind


class Cut(StrEnum):
    """When the connection is closed without a whole answer."""

    BEFORE = "before"
    """Before the cloud has done anything."""
    AFTER = "after"
    """When the cloud has done it, and before the first byte of the answer."""
    MIDWAY = "midway"
    """When the cloud has done it and half of the answer's body is out, under the full Content-Length."""


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
    """Something that goes wrong with calls of one kind. All times are in seconds.

    Args:
        on: which calls.
        server_id: only calls about this server, also together with others; None for all.
        api: only calls to this API; None for all.
        times: how often it strikes; None for as long as it is there.
        skip: how many matching calls it lets through first.
        status: answer this instead; the cloud does nothing then, unless `act`.
        message: the text inside the usual error body, `{id}` in it stands for the server's id.
        bms_code: the BMS API answers 400 with this code, in place of `status` and `message`.
        headers: more headers of the answer, with or without `status`; `{request_id}` in a value stands for
            the id under which the cloud handles the call, as it does in a `body` of text.
        body: the body of the answer, in place of the usual error body.
        content_type: of that body.
        delay: wait before doing anything, as when a database behind the API hangs.
        hold: do it at once, and answer only after this time, as when a message queue behind the API hangs.
        cut: close the connection instead of answering in full.
        slow_body: send the answer's body byte by byte, with this pause before each.
        expire_token: the token of the call is unknown from now on, so the cloud answers 401.
        act: with `status`, the cloud does what was asked although it answers an error.
        rival: somebody else's stop of the same server is taken just before this call is looked at.
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
    def conflict(cls, kind: ConflictKind, server_id: str | None = None, times: int | None = 1) -> Self:
        """Answer a stop with 409 and Nova's words for it, or the BMS API's code, whatever the server's state is."""
        return cls(
            on=CallKind.STOP,
            server_id=server_id,
            times=times,
            status=409,
            message=kind.value,
            bms_code=kind.bms_code,
        )

    @classmethod
    def bms(
        cls,
        on: CallKind,
        code: str,
        status: int = 400,
        *,
        message: str | None = None,
        server_id: str | None = None,
        times: int | None = 1,
        flat: bool = False,
        act: bool = False,
    ) -> Self:
        """Answer a call to the BMS API with an error of its form; calls to other APIs are not met.

        Args:
            flat: code and message are at the top of the body, and not in an `error` object.
        """
        body = replies.error_body(code, message, flat=flat)
        return cls(
            on=on,
            api=Api.BMS,
            server_id=server_id,
            times=times,
            status=status,
            headers={"X-Request-Id": "{request_id}"},
            body=body,
            content_type="application/json",
            act=act,
        )

    @classmethod
    def gateway_code(
        cls,
        on: CallKind,
        code: str,
        status: int,
        *,
        message: str | None = None,
        retry_after: int | str | None = None,
        server_id: str | None = None,
        times: int | None = 1,
        act: bool = False,
    ) -> Self:
        """Answer with an error of the API gateway in front of Open Telekom Cloud's APIs.

        Args:
            code: such as APIG.0308, or IAM.0012 of the identity service, which answers in the same form.
            retry_after: for the header of that name: seconds, or a date; None to leave it out.
        """
        headers = {"X-Request-Id": "{request_id}"}
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        return cls(
            on=on,
            server_id=server_id,
            times=times,
            status=status,
            headers=headers,
            body=gateway.body_of(code, message, "{request_id}"),
            content_type="application/json",
            act=act,
        )

    @classmethod
    def throttled(cls, on: CallKind, retry_after: int | str | None = None, times: int | None = 1) -> Self:
        """Answer 429, with `Retry-After` (seconds, or a date) if given."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        message = "This request was rate-limited."
        return cls(on=on, times=times, status=429, headers=headers, message=message)

    @classmethod
    def gateway(cls, on: CallKind, status: int = 502, times: int | None = 1, act: bool = False) -> Self:
        """Answer with the HTML page of a proxy in front of the cloud, which acted all the same if `act`."""
        title = {
            502: "502 Bad Gateway",
            503: "503 Service Temporarily Unavailable",
            504: "504 Gateway Time-out",
        }
        heading = title.get(status, str(status))
        page = (
            f"<html>\r\n<head><title>{heading}</title></head>\r\n<body>\r\n<center><h1>{heading}</h1></center>\r\n"
            "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        )
        return cls(on=on, times=times, status=status, body=page, content_type="text/html", act=act)

    @classmethod
    def two_stops_at_once(cls, server_id: str | None = None, times: int | None = 1) -> Self:
        """Answer a stop with 500, as Nova does when another one, which it takes, was quicker by a hair."""
        message = (
            "Unexpected API Error. Please contact the administrator\n<class 'nova.exception.UnexpectedTaskStateError'>"
        )
        return cls(on=CallKind.STOP, server_id=server_id, times=times, status=500, message=message, rival=True)

    @classmethod
    def keystone_down(cls, on: CallKind, times: int | None = 1) -> Self:
        """Answer as Nova does while it cannot reach Keystone to check a token: 503 in plain text."""
        page = (
            "503 Service Unavailable\n\n"
            "The server is currently unavailable. Please try again at a later time.\n\n"
            " The Keystone service is temporarily unavailable.  "
        )
        ids = {"x-openstack-request-id": "{request_id}", "x-compute-request-id": "{request_id}"}
        kind = "text/plain; charset=UTF-8"
        return cls(on=on, times=times, status=503, headers=ids, body=page, content_type=kind)

    @classmethod
    def token_expired(cls, on: CallKind, times: int | None = 1) -> Self:
        """Let the token of the call be unknown from now on."""
        return cls(on=on, times=times, expire_token=True)

    @classmethod
    def cut_before(cls, on: CallKind, server_id: str | None = None, times: int | None = 1) -> Self:
        """Close the connection without having done anything."""
        return cls(on=on, server_id=server_id, times=times, cut=Cut.BEFORE)

    @classmethod
    def cut_after(cls, on: CallKind, server_id: str | None = None, times: int | None = 1) -> Self:
        """Do what was asked, and close the connection without an answer."""
        return cls(on=on, server_id=server_id, times=times, cut=Cut.AFTER)


@dataclass(slots=True, eq=False)
class _Entry:
    fault: Fault
    left: float
    skip: int


class FaultBook:
    """The faults that are there at present; safe to use from several threads."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Put a fault behind those that are there; the same one may be put in twice."""
        left = math.inf if fault.times is None else fault.times
        with self._lock:
            self._entries.append(_Entry(fault, left, fault.skip))

    def clear(self) -> None:
        """Take all faults away."""
        with self._lock:
            self._entries.clear()

    def present(self) -> list[Fault]:
        """Return the faults that can still strike, in the order in which they came."""
        with self._lock:
            return [entry.fault for entry in self._entries]

    def strike(self, kind: CallKind, api: Api, server_ids: tuple[str, ...]) -> Fault | None:
        """Return the fault that strikes this call, the first one that came; a call meets at most one."""
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

"""What all producers have in common: a delivery comes in, a stop request or nothing comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from handler.errors import Acceptance
from handler.inbound.http import responses
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.skip import Skip
from handler.stop.model import StopRequest

if TYPE_CHECKING:
    from handler.keep.model import KeepRequest


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """One POST of a producer, of which nothing is proven yet.

    Attributes:
        request: its headers, query and body.
        now: when it was here (aware).
        until: when the answer must be on its way, on the monotonic clock.
    """

    request: HttpRequest
    now: datetime
    until: float

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names; values as WSGI has them."""
        return self.request.headers

    @property
    def query(self) -> str:
        """Undecoded."""
        return self.request.query

    @property
    def body(self) -> bytes:
        """The body of a producer that is authenticated by headers or query; see `HttpRequest.body`."""
        return self.request.body

    @property
    def unauthenticated_body(self) -> bytes:
        """The exact bytes that authenticate the producer; see `HttpRequest.unauthenticated_body`."""
        return self.request.unauthenticated_body


Message = TypeVar("Message")


class Producer(Protocol[Message]):
    """One kind of sender. `Message` is what its deliveries say, once they are proven.

    Attributes:
        patience: seconds from the delivery's arrival to the answer; shorter than what the producer waits for.
    """

    patience: float

    def verify(self, delivery: WebhookRequest) -> Message:
        """Let only what this producer sent pass.

        Raises:
            CallerUnproven: it is not proven, too old, or changed on the way.
            BadEvent: it is proven, and cannot be read.
        """

    def gate(self, message: Message) -> Skip | None:
        """Say whether there is anything to act on; None if there is.

        Raises:
            BadEvent: it is malformed.
        """

    def extract(self, message: Message) -> StopRequest | KeepRequest:
        """Make the request. A time of None stands for the receipt.

        Raises:
            BadEvent: it is malformed; with every flaw.
        """

    def handed_on(self, message: Message, request: StopRequest | KeepRequest) -> Answer:
        """What the producer is told once the sink has taken the request."""

    def not_handed_on(
        self, message: Message, request: StopRequest | KeepRequest, acceptance: Acceptance
    ) -> Answer | None:
        """Answer if the sink did not say that it has taken it; None for a 503, so that it is sent again.

        Args:
            acceptance: whether the sink may have taken it.
        """


class Alarm:
    """The answers of a producer that is a machine."""

    patience = 8.0

    def handed_on(self, _message: object, request: StopRequest | KeepRequest) -> Answer:
        """Say that it was handed on, as which event, and what the producer left out; nothing has been stopped yet."""
        left_out = request.left_out if isinstance(request, StopRequest) else 0
        incomplete = {"left_out": left_out} if left_out else {}
        return responses.json_answer(200, {"status": "handed-on", "id": request.id, **incomplete})

    def not_handed_on(
        self, _message: object, _request: StopRequest | KeepRequest, _acceptance: Acceptance
    ) -> Answer | None:
        """Have it sent again: the event's id is the same then."""
        return None

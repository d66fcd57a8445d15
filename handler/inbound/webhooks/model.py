"""The interface of all producers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from handler.errors import Acceptance
from handler.inbound.http import responses
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.skip import Skip
from handler.stop.model import StopRequest

if TYPE_CHECKING:
    from handler.keep.model import KeepRequest
    from handler.settings.receive_webhook import WebhookSettings


class Notification(NamedTuple):
    """An authenticated message of a program.

    Attributes:
        document: its body.
        now: when it was received, or signed (aware).
        body: its exact bytes.
    """

    document: Mapping[str, object]
    now: datetime
    body: bytes


Message = TypeVar("Message")


class Producer(ABC, Generic[Message]):
    """One kind of sender. `Message` is an authenticated delivery.

    Attributes:
        patience: seconds from the arrival of a delivery to the response; less than the producer waits.
    """

    patience = 8.0

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        self._settings = settings
        self._source = source

    @abstractmethod
    def verify(self, delivery: HttpRequest, now: datetime) -> Message:
        """Authenticate and read a delivery, which was received now (aware).

        Raises:
            Unauthenticated: it is not of this producer, too old, or changed on its way.
            BadEvent: it is authenticated, and cannot be read.
        """

    @abstractmethod
    def gate(self, message: Message) -> Skip | None:
        """Return a reason to skip the message; None if it is to be acted on.

        Raises:
            BadEvent: it is malformed.
        """

    @abstractmethod
    def extract(self, message: Message) -> StopRequest | KeepRequest:
        """Make the request. A time of None stands for the receipt.

        Raises:
            BadEvent: the message is malformed; with every violation.
        """

    @abstractmethod
    def handed_on(self, message: Message, request: StopRequest | KeepRequest) -> Answer:
        """Return the response once the sink has taken the request."""

    def not_handed_on(
        self, _message: Message, _request: StopRequest | KeepRequest, _acceptance: Acceptance
    ) -> Answer | None:
        """Return the response if the sink did not confirm that it has taken the request; None for a 503.

        A program sends its message again after a 503, which gives an event with the same id.
        """
        return None


class Alarm(Producer[Message]):
    """A producer that is a program."""

    def handed_on(self, _message: Message, request: StopRequest | KeepRequest) -> Answer:
        """Return the id of the request, and how much the producer left out; nothing has been stopped yet."""
        left_out = request.left_out if isinstance(request, StopRequest) else 0
        incomplete = {"left_out": left_out} if left_out else {}
        return responses.json_answer(200, {"status": "handed-on", "id": request.id, **incomplete})

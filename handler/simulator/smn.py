"""The part of Open Telekom Cloud's Simple Message Notification that publishes to a topic. There are no subscribers.

Paths, fields and the form of errors are those of its API reference; the texts are our own.
"""

import json
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from handler.simulator import gateway
from handler.simulator.calls import CallKind
from handler.simulator.gateway import Call, ServiceError
from handler.simulator.identity.model import Identity
from handler.simulator.messages import Answer, Request
from handler.simulator.routes import Routes

LARGEST_MESSAGE = 256 * 1024
LONGEST_SUBJECT = 512

_PREFIX = r"/v2/(?P<project_id>[^/]+)/notifications"
_MESSAGES = {
    "SMN.0005": "The URN of the topic is not valid.",
    "SMN.0006": "There is no such topic.",
    "SMN.0018": "The message is not valid.",
    "SMN.0020": "The subject is not valid.",
    "SMN.0100": "This project is not yours.",
}


@dataclass(frozen=True, slots=True)
class Published:
    """A published message; `message_id` is 32 hexadecimal digits."""

    topic_urn: str
    subject: str
    message: str
    message_id: str


class Smn(gateway.Service):
    """Answers requests below `/v2/{project_id}/notifications`."""

    def __init__(self, identity: Identity, region: str) -> None:
        routes: Routes[Callable[[Call], Answer]] = Routes(
            _PREFIX, {"POST /topics/{urn}/publish": (CallKind.PUBLISH, self._publish)}
        )
        super().__init__(identity, routes, ServiceError(403, "SMN.0100"))
        self._region = region
        self._topics: set[str] = set()
        self._published: list[Published] = []
        self._lock = threading.Lock()

    def add_topic(self, name: str, project_id: str) -> str:
        """Add a topic, and return its URN."""
        urn = f"urn:smn:{self._region}:{project_id}:{name}"
        self._topics.add(urn)
        return urn

    @property
    def published(self) -> list[Published]:
        """The messages published so far, the oldest first."""
        with self._lock:
            return list(self._published)

    def identify(self, request: Request) -> tuple[CallKind, list[str]] | None:
        """Return the operation that a request asks for; it is about no server."""
        if not re.match(_PREFIX + "(?:/|$)", request.path):
            return None
        route = self._routes.find(request.method, request.path)
        return route.kind if route else CallKind.OTHER, []

    def _publish(self, call: Call) -> Answer:
        published = self._add(call.request, call.names["urn"])
        document = {"request_id": call.request_id, "message_id": published.message_id}
        return gateway.answer(call.request_id, 200, json.dumps(document).encode())

    def _add(self, request: Request, urn: str) -> Published:
        if not urn.startswith("urn:smn:"):
            raise ServiceError(400, "SMN.0005")
        if urn not in self._topics:
            raise ServiceError(404, "SMN.0006")
        match request.json_or_none():
            case {"message": str(message), "subject": str(subject)}:
                if not 0 < len(message.encode()) <= LARGEST_MESSAGE:
                    raise ServiceError(400, "SMN.0018")
                if not 0 < len(subject) <= LONGEST_SUBJECT:
                    raise ServiceError(400, "SMN.0020")
                published = Published(urn, subject, message, uuid.uuid4().hex)
                with self._lock:
                    self._published.append(published)
                return published
        raise ServiceError(400, "SMN.0018")

    def _code_for(self, _status: int) -> str:
        return "SMN.0019"

    def _error(self, request_id: str, error: ServiceError, message: str | None = None) -> Answer:
        body = {"request_id": request_id, "code": error.code, "message": message or _MESSAGES[error.code]}
        return gateway.answer(request_id, error.status, json.dumps(body).encode())

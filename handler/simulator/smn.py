"""The part of Open Telekom Cloud's Simple Message Notification that publishes to a topic. There are no subscribers.

Paths, fields and the form of errors are those of its API reference; the texts are our own.
"""

import json
import re
import threading
import uuid
from dataclasses import dataclass

from handler.simulator import gateway
from handler.simulator.calls import CallKind
from handler.simulator.faults import Fault
from handler.simulator.identity.model import Identity
from handler.simulator.messages import Answer, Request, phrase

LARGEST_MESSAGE = 256 * 1024
LONGEST_SUBJECT = 512

_PATH = re.compile(r"/v2/(?P<project_id>[^/]+)/notifications/topics/(?P<urn>[^/]+)/publish")
_BELOW = re.compile(r"/v2/[^/]+/notifications(?:/|$)")
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


class _Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


def is_smn(path: str) -> bool:
    """Whether a decoded path is one of this API."""
    return bool(_BELOW.match(path))


class Smn:
    """Answers requests below `/v2/{project_id}/notifications`."""

    def __init__(self, identity: Identity, region: str) -> None:
        self._identity = identity
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

    def identify(self, request: Request) -> tuple[CallKind, list[str]]:
        """Return the operation that a request asks for; it is about no server."""
        return CallKind.PUBLISH if _published(request) else CallKind.OTHER, []

    def answer(self, request: Request, request_id: str) -> Answer:
        """Store the message of a request, and return the answer."""
        found = _published(request)
        if found is None:
            return gateway.refuse(request_id, 404, gateway.NOT_PUBLISHED)
        token = self._identity.check(request.header("X-Auth-Token"))
        if token is None:
            return gateway.refuse_token(self._identity, request, request_id)
        try:
            if token.project is None or token.project.id != found["project_id"]:
                raise _Refused(403, "SMN.0100")
            kept = self._keep(request, found["urn"])
        except _Refused as refused:
            return _error(request_id, refused.status, refused.code, _MESSAGES[refused.code])
        document = {"request_id": request_id, "message_id": kept.message_id}
        return gateway.answer(request_id, 200, json.dumps(document).encode())

    def refuse(self, _request: Request, request_id: str, status: int, message: str | None, _fault: Fault) -> Answer:
        """Return the error of an injected fault in the form of the gateway or of this API, whichever answers it."""
        if code := gateway.code_for(status):
            return gateway.refuse(request_id, status, code, message)
        return _error(request_id, status, "SMN.0019", message or f"{phrase(status)}.")

    def _keep(self, request: Request, urn: str) -> Published:
        if not urn.startswith("urn:smn:"):
            raise _Refused(400, "SMN.0005")
        if urn not in self._topics:
            raise _Refused(404, "SMN.0006")
        match request.json_or_none():
            case {"message": str(message), "subject": str(subject)}:
                if not 0 < len(message.encode()) <= LARGEST_MESSAGE:
                    raise _Refused(400, "SMN.0018")
                if not 0 < len(subject) <= LONGEST_SUBJECT:
                    raise _Refused(400, "SMN.0020")
                kept = Published(urn, subject, message, uuid.uuid4().hex)
                with self._lock:
                    self._published.append(kept)
                return kept
        raise _Refused(400, "SMN.0018")


def _published(request: Request) -> re.Match[str] | None:
    return _PATH.fullmatch(request.path) if request.method == "POST" else None


def _error(request_id: str, status: int, code: str, message: str) -> Answer:
    body = {"request_id": request_id, "code": code, "message": message}
    return gateway.answer(request_id, status, json.dumps(body).encode())

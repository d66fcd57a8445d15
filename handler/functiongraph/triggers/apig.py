"""FunctionGraph's gateway trigger (APIG): a whole HTTP request inside of an event, and the answer in APIG's own form.

It is the one trigger that is open to the outside, so here the caller proves itself, with the headers of the request
inside. Beside CloudEvents in any mode it may bring canonical data as plain JSON; that event's id is the gateway's own
id of the request, as the gateway never sends one twice by itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlencode

from handler.errors import AutostopError, BadEvent, NotAnEvent, TooLarge, Violation
from handler.inbound import dry_run
from handler.inbound.cloudevents.decode import decode
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.fields import canonical_request, identity, json_object, member, text
from handler.stop.model import StopRequest


@dataclass(frozen=True, slots=True)
class GatewayRequest:
    """One request that came through the gateway.

    Attributes:
        document: the event as the platform sends it.
        source: of a request that is no CloudEvent.
        received: when it was here, on the monotonic clock.
    """

    document: Mapping[str, object]
    source: str
    received: float

    @classmethod
    def is_one(cls, document: Mapping[str, object]) -> bool:
        """Whether an event is a gateway's."""
        return isinstance(document.get("httpMethod"), str) and isinstance(document.get("requestContext"), dict)

    def http(self, max_body: int) -> HttpRequest:
        """The request inside.

        Raises:
            BadEvent: its body is no base64.
            TooLarge: its body has more bytes than `max_body`.
        """
        body = self._body()
        if len(body) > max_body:
            raise TooLarge(f"At most {max_body} bytes are taken.")
        return HttpRequest(
            method=text(self.document, "httpMethod").upper(),
            path=text(self.document, "path") or "/",
            headers={name.lower(): _as_wsgi(value) for name, value in member(self.document, "headers").items()},
            content=body,
            received=self.received,
            query=urlencode(member(self.document, "queryStringParameters"), doseq=True),
        )

    def extract(self, http: HttpRequest, now: datetime) -> StopRequest | None:
        """Canonical data that came as plain JSON; None if the request brings something else, such as a CloudEvent.

        Args:
            now: when it was here (aware); plain data has no time of its own.

        Raises:
            BadEvent: with every flaw.
        """
        media_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if http.method != "POST" or media_type != "application/json" or is_cloudevent(http):
            return None
        request_id = text(member(self.document, "requestContext"), "requestId")
        if not request_id.strip():
            raise BadEvent(Violation("requestContext.requestId", "is missing"))
        asked = canonical_request(
            json_object(http.body), id_=identity(request_id), source=self.source, requested_by="APIG", now=now
        )
        dry = dry_run.requested_beside(http.headers, http.query)
        return replace(asked, time=now, dry_run=asked.dry_run or dry)

    def _body(self) -> bytes:
        said = self.document.get("body")
        if said is None or said == "":
            return b""
        if not isinstance(said, str):
            raise BadEvent(Violation("body", "is no text"))
        if self.document.get("isBase64Encoded") is False:
            return said.encode("utf-8", "replace")
        try:
            return base64.b64decode(said, validate=True)
        except (binascii.Error, ValueError):
            raise BadEvent(Violation("body", "is no base64")) from None


def is_cloudevent(http: HttpRequest) -> bool:
    """Whether a request is a CloudEvent in any mode, and be it a malformed one."""
    try:
        decode(http.headers, http.body)
    except NotAnEvent:
        return False
    except AutostopError:
        return True
    return True


def reply(answer: Answer) -> dict[str, object]:
    """An answer in the form that APIG makes an HTTP answer of."""
    return {
        "statusCode": answer.status,
        "headers": dict(answer.headers),
        "isBase64Encoded": False,
        "body": answer.body.decode(),
    }


def _as_wsgi(value: object) -> str:
    """A header's value as WSGI has it, bytes read as Latin-1; several of one name are joined by a comma."""
    values = value if isinstance(value, list) else [value]
    return ",".join(str(one) for one in values).encode("utf-8", "replace").decode("latin-1")

"""FunctionGraph's gateway trigger (APIG): a whole HTTP request inside of an event, and the answer in APIG's own form.

It is the one trigger that is open to the outside, so its caller is authenticated by the headers of the request inside;
the body is not decoded before that. Beside CloudEvents in any mode it may bring canonical data as plain JSON; that
event's id is the gateway's own id of the request, as the gateway never sends one twice by itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, Self
from urllib.parse import urlencode

from handler.errors import BadEvent, TooLarge, Violation
from handler.inbound import dry_run
from handler.inbound.cloudevents.decode import Delivery, decode, decode_document, essence, is_marked
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.fields import canonical_request, identity, json_object, member, text
from handler.stop.model import StopRequest


class GatewayRequest(NamedTuple):
    """One request through the gateway.

    Attributes:
        method: upper case.
        path: of the API.
        headers: lower-case names; values as WSGI has them.
        query: undecoded.
        request_id: the gateway's; empty if there is none.
        content: the body as in the event.
        encoded: whether `content` is base64.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    query: str
    request_id: str
    content: object
    encoded: bool

    @classmethod
    def of(cls, document: Mapping[str, object]) -> Self | None:
        """Return the request in an event; None if it is not a gateway's."""
        if not isinstance(document.get("httpMethod"), str) or not isinstance(document.get("requestContext"), dict):
            return None
        return cls(
            method=text(document, "httpMethod").upper(),
            path=text(document, "path") or "/",
            headers={name.lower(): _as_wsgi(value) for name, value in member(document, "headers").items()},
            query=urlencode(member(document, "queryStringParameters"), doseq=True),
            request_id=text(member(document, "requestContext"), "requestId"),
            content=document.get("body"),
            encoded=document.get("isBase64Encoded") is not False,
        )

    def http(self, max_body: int, received: float) -> HttpRequest:
        """Return it as an HTTP request, whose body of at most `max_body` bytes is decoded when it is read."""
        return HttpRequest(
            method=self.method,
            path=self.path,
            headers=self.headers,
            content=lambda _: self._body(max_body),
            received=received,
            query=self.query,
        )

    def read(self, http: HttpRequest, source: str, now: datetime) -> Delivery | StopRequest:
        """Parse an authenticated POST: CloudEvents in any mode, or canonical data as plain JSON.

        Args:
            http: this request.
            source: of a request that is not a CloudEvent.
            now: when it arrived (aware); plain data has no time of its own.

        Raises:
            BadEvent: the body cannot be decoded, or plain data is malformed; with every violation.
            NotAnEvent: it is neither.
            TooLarge: the body is larger than allowed.
        """
        if is_marked(http.headers) or essence(http.headers.get("content-type", "")) != "application/json":
            return decode(http.headers, http.body)
        document = json_object(http.body)
        if delivery := decode_document(document):
            return delivery
        if not self.request_id.strip():
            raise BadEvent(Violation("requestContext.requestId", "is missing"))
        id_ = identity(self.request_id)
        request = canonical_request(document, id_=id_, source=source, requested_by="APIG", now=now)
        dry = dry_run.requested_beside(http.headers, http.query)
        return request._replace(time=now, dry_run=request.dry_run or dry)

    def _body(self, max_body: int) -> bytes:
        content = "" if self.content is None else self.content
        if not isinstance(content, str):
            raise BadEvent(Violation("body", "must be text"))
        try:
            body = base64.b64decode(content, validate=True) if self.encoded else content.encode("utf-8", "replace")
        except (binascii.Error, ValueError):
            raise BadEvent(Violation("body", "must be base64")) from None
        if len(body) > max_body:
            raise TooLarge(f"At most {max_body} bytes are taken.")
        return body


def reply(answer: Answer) -> dict[str, object]:
    """Return an answer in APIG's form."""
    return {
        "statusCode": answer.status,
        "headers": dict(answer.headers),
        "isBase64Encoded": False,
        "body": answer.body.decode(),
    }


def _as_wsgi(value: object) -> str:
    """Return a header's value as in WSGI, bytes decoded as Latin-1; several of one name are joined by a comma."""
    values = value if isinstance(value, list) else [value]
    return ",".join(str(one) for one in values).encode("utf-8", "replace").decode("latin-1")

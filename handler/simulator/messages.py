"""A request and its answer as plain data, between the APIs and the HTTP server."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as received.

    Args:
        method: in upper case.
        target: path and query, still percent-encoded.
        headers: name and value in order, names in any case.
        body: the bytes of the body, empty if there was none.
        base_url: scheme, host and port that the caller used, without a slash at the end.
    """

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""
    base_url: str = ""

    @property
    def path(self) -> str:
        """The decoded path, as WSGI servers pass it on."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> list[tuple[str, str]]:
        """Every query parameter in order, also those without a value."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    def header(self, name: str) -> str | None:
        """Return the header's value, several joined by a comma; None if absent."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ",".join(values) if values else None

    def json(self) -> object:
        """Return the decoded body.

        Raises:
            ValueError: the body is empty, not UTF-8 or not JSON.
        """
        return json.loads(self.body)

    def json_or_none(self) -> object:
        """Return the decoded body; None if it is not valid."""
        try:
            return self.json()
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, complete but for `Date` and `Server`.

    Args:
        status: the HTTP status.
        headers: in order, with `Content-Length` where the real service sends it.
        body: the bytes of the body.
        acted: whether the state of the cloud changed (a stop accepted, a token issued or revoked).
        reason: the reason phrase; Keystone's is in upper case, Nova's is not.
        acted_on: the ids of the servers acted on, if the call is about several.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    acted: bool = False
    reason: str = ""
    acted_on: tuple[str, ...] = ()

    @property
    def phrase(self) -> str:
        """The reason phrase: `reason`, or the usual one."""
        return self.reason or phrase(self.status)


def phrase(status: int) -> str:
    """Return the usual reason phrase of a status, "Unknown" for one that HTTP does not define."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"

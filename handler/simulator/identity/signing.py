"""Verification of requests signed with an access key, by the algorithm `SDK-HMAC-SHA256`.

Source: Huawei Cloud's guide to API signing; `tests/simulator` has a known answer.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote, unquote

from handler.simulator.messages import Request

ALGORITHM = "SDK-HMAC-SHA256"

_AUTHORIZATION = re.compile(
    ALGORITHM
    + r" Access=(?P<access>[^,\s]+), ?SignedHeaders=(?P<names>[^,\s]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
_UNSIGNED_BODY = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True)
class Authorization:
    """The `Authorization` header of a signed request.

    Args:
        access: the id of the key.
        names: the signed headers, in lower case.
        signature: 64 hexadecimal digits.
    """

    access: str
    names: tuple[str, ...]
    signature: str

    @classmethod
    def of(cls, request: Request) -> Self | None:
        """Parse the header of a request; None if it has none that is valid."""
        found = _AUTHORIZATION.fullmatch(request.header("Authorization") or "")
        if found is None:
            return None
        return cls(found["access"], tuple(found["names"].lower().split(";")), found["signature"])


def is_signed(request: Request) -> bool:
    """Whether a request is authenticated by a signature; a token takes precedence."""
    return request.header("X-Auth-Token") is None and (request.header("Authorization") or "").startswith(ALGORITHM)


def signature(request: Request, names: tuple[str, ...], secret: str) -> str:
    """Return the signature that a request must have.

    Args:
        request: the request.
        names: the headers that are signed, in lower case and any order.
        secret: the secret of the key.
    """
    canonical = "\n".join(
        (
            request.method,
            _path(request.target.partition("?")[0]),
            _query(request),
            *(f"{name}:{(request.header(name) or '').strip()}" for name in sorted(names)),
            "",
            ";".join(sorted(names)),
            _body(request),
        )
    )
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join((ALGORITHM, request.header("X-Sdk-Date") or "", hashed))
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def moment_of(request: Request) -> float | None:
    """Return the time of a signature, in seconds since the epoch; None if the request has none."""
    try:
        moment = datetime.strptime(request.header("X-Sdk-Date") or "", "%Y%m%dT%H%M%SZ")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC).timestamp()


def _path(path: str) -> str:
    # The signed path ends in a slash, whether or not the path that is sent does.
    encoded = "/".join(_encoded(unquote(segment)) for segment in path.split("/"))
    return encoded if encoded.endswith("/") else encoded + "/"


def _query(request: Request) -> str:
    return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in sorted(request.query))


def _body(request: Request) -> str:
    if request.header("X-Sdk-Content-Sha256") == _UNSIGNED_BODY:
        return _UNSIGNED_BODY
    return hashlib.sha256(request.body).hexdigest()


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")

"""GET from hosts that the settings name, and from no other: a URL in a message is never followed blindly."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection

import requests
import urllib3

from handler.errors import ProducerUnreachable

_LOG = logging.getLogger(__name__)

# One way to read it for every parser: no user, no backslash, no upper-case scheme, no character beyond ASCII.
_URL = re.compile(r"https://([A-Za-z0-9.-]+(?::\d{1,5})?)(/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)", re.ASCII)
_MOST_BYTES = 64 * 1024
_LONGEST_CALL = 4.0

# URL and seconds in; status and body out.
Get = Callable[[str, float], tuple[int, bytes]]


def is_at(url: str, hosts: Collection[str], path: re.Pattern[str] | None = None) -> bool:
    """Whether a URL is https, at one of these hosts, and has such a path.

    Args:
        hosts: lower case, each `host` or `host:port`.
        path: what path and query must match as a whole; None for any.
    """
    parts = _URL.fullmatch(url)
    if parts is None or (path is not None and not path.fullmatch(parts[2])):
        return False
    return parts[1].lower().removesuffix(":443") in {host.removesuffix(":443") for host in hosts}


def get(url: str, seconds: float) -> tuple[int, bytes]:
    """GET a URL; a redirect is an answer like any other, and is not followed.

    Returns:
        Status, and as much of the body as anything sensible has.

    Raises:
        ProducerUnreachable: no answer in time.
    """
    if seconds <= 0:
        raise ProducerUnreachable("There was no time left to ask the producer.")
    try:
        with requests.Session() as wire:
            wire.auth = _no_netrc
            limit = urllib3.Timeout(total=min(seconds, _LONGEST_CALL))
            with wire.get(url, timeout=limit, allow_redirects=False, stream=True) as answer:  # type: ignore[arg-type]
                return answer.status_code, answer.raw.read(_MOST_BYTES, decode_content=True) or b""
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as failure:
        _LOG.warning("the producer gave no answer: %s", type(failure).__name__)
        raise ProducerUnreachable("The producer could not be asked.") from None


def left(until: float) -> float:
    """Seconds until a time on the monotonic clock."""
    return until - time.monotonic()


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request

"""GET from hosts that the settings name, and from no other: a URL in a message is never followed blindly."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection

from handler.errors import Cause, ProducerUnreachable
from handler.http_client import FAILURES, HttpClient, call_failure, host_of

_LOG = logging.getLogger(__name__)

# One way to read it for every parser: no user, no backslash, no upper-case scheme, no character beyond ASCII.
_URL = re.compile(r"https://([A-Za-z0-9.-]+(?::\d{1,5})?)(/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)", re.ASCII)
_MOST_BYTES = 1024 * 1024
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
        Status and body.

    Raises:
        ProducerUnreachable: no answer in time, or one of no sensible size.
    """
    if seconds <= 0:
        raise ProducerUnreachable("There was no time left to ask the producer.")
    # It is asked about once a day, so no connection is kept.
    client = HttpClient(pool=1)
    try:
        answer = client.send("GET", url, headers={}, timeout=min(seconds, _LONGEST_CALL), max_body=_MOST_BYTES)
    except FAILURES as failure:
        cause = Cause("asking the producer", host_of(url), None, call_failure(failure))
        _LOG.warning("the producer gave no answer", extra={"cause": cause._asdict()})
        raise ProducerUnreachable(f"The producer could not be asked ({cause.failure}).", cause=cause) from None
    finally:
        client.close()
    return answer.status, answer.body


def left(until: float) -> float:
    """Seconds until a time on the monotonic clock."""
    return until - time.monotonic()

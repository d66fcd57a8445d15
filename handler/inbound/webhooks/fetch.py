"""GET from the hosts of the settings only, since URLs in messages are untrusted input."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection

from handler.errors import Cause, ProducerUnreachable
from handler.http_client import FAILURES, HttpClient, call_failure, host_of

_LOG = logging.getLogger(__name__)

# URLs that every parser reads alike: no user, no backslash, no upper-case scheme, no character beyond ASCII.
_URL = re.compile(r"https://([A-Za-z0-9.-]+(?::\d{1,5})?)(/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)", re.ASCII)
_MOST_BYTES = 1024 * 1024
_LONGEST_CALL = 4.0

# Takes URL and seconds; returns status and body.
Get = Callable[[str, float], tuple[int, bytes]]


def is_at(url: str, hosts: Collection[str], path: re.Pattern[str] | None = None) -> bool:
    """Return whether a URL is https, at one of these hosts, and has such a path.

    Args:
        url: untrusted input.
        hosts: lower case, each `host` or `host:port`.
        path: what path and query must match as a whole; None for any.
    """
    parts = _URL.fullmatch(url)
    if parts is None or (path is not None and not path.fullmatch(parts[2])):
        return False
    return parts[1].lower().removesuffix(":443") in {host.removesuffix(":443") for host in hosts}


def get(url: str, seconds: float) -> tuple[int, bytes]:
    """GET a URL that was checked, within some seconds; return status and body. Redirects are not followed.

    Raises:
        ProducerUnreachable: no complete response in time, or one that is too large.
    """
    if seconds <= 0:
        raise ProducerUnreachable("There is no time left for a request to the producer.")
    # A request is made about once a day, so no connection is kept.
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

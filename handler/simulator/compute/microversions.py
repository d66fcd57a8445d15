"""Nova's microversions: parsing, comparison and negotiation.

Source: `nova/api/openstack/wsgi.py` (Request.set_api_version_request) and the `microversion_parse` library.
"""

import re
from typing import NamedTuple, Self

from handler.simulator.messages import Headers, Request


class BadMicroversion(Exception):
    """The text is not of the form MAJOR.MINOR."""


class Microversion(NamedTuple):
    """A version of Nova's API; compared as a pair of numbers."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a version.

        Raises:
            BadMicroversion: it is not valid; the message is Nova's.
        """
        if not re.fullmatch(r"[1-9]\d*\.([1-9]\d*|0)", text):
            raise BadMicroversion(
                f"API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
            )
        major, minor = text.split(".")
        return cls(int(major), int(minor))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def headers(self) -> Headers:
        """The headers that name the version of an answer."""
        return (
            ("OpenStack-API-Version", f"compute {self}"),
            ("X-OpenStack-Nova-API-Version", str(self)),
            ("Vary", "OpenStack-API-Version"),
            ("Vary", "X-OpenStack-Nova-API-Version"),
        )


MINIMUM = Microversion(2, 1)


def requested(request: Request, maximum: Microversion) -> Microversion:
    """Return the version that a request asks for, which may be higher than what is supported.

    Without a header that is 2.1, and `latest` is the maximum. The newer header goes before the older one.

    Raises:
        BadMicroversion: the header is not a version.
    """
    text = _standard(request) or _legacy(request)
    if text is None:
        return MINIMUM
    return maximum if text == "latest" else Microversion.parse(text)


def _standard(request: Request) -> str | None:
    for item in reversed((request.header("OpenStack-API-Version") or "").split(",")):
        service, _, version = item.strip().partition(" ")
        if service.lower() == "compute" and version.strip():
            return version.strip()
    return None


def _legacy(request: Request) -> str | None:
    value = request.header("X-OpenStack-Nova-API-Version")
    return None if value is None else value.split(",")[-1].strip()

"""Parsing of paths as Nova's router does it."""

import re
from dataclasses import dataclass
from enum import StrEnum


class Resource(StrEnum):
    """What a request can be addressed to."""

    VERSIONS = "versions"
    VERSION = "version"
    SERVERS = "servers"
    DETAIL = "detail"
    SERVER = "server"
    ACTION = "action"
    RECORDS = "records"
    RECORD = "record"
    METADATA = "metadata"
    METADATA_ITEM = "metadata-item"


@dataclass(frozen=True, slots=True)
class Base:
    """The beginning of a path that is Nova's.

    Args:
        prefix: `/compute` where Nova shares a port by a path of its own, else empty.
        root: `/v2.1`, the old `/v2`, or empty above both.
    """

    prefix: str
    root: str

    @property
    def legacy(self) -> bool:
        """Whether it is the old API, which has no microversions."""
        return self.root == "/v2"


@dataclass(frozen=True, slots=True)
class Route:
    """A parsed path.

    Args:
        resource: what it names.
        base: where it begins.
        project_id: of the path; empty if it has none.
        server_id: as written in the path; empty if it has none.
        request_id: of a recorded action; empty if it has none.
        key: of an entry of the metadata; empty if it has none.
    """

    resource: Resource
    base: Base
    project_id: str = ""
    server_id: str = ""
    request_id: str = ""
    key: str = ""


_BASE = re.compile(r"(?P<prefix>/compute)?(?P<root>/v2(?:\.1)?)?(?=/|$)")
# Several slashes after the version count as one; any other extra slash, also at the end, is not found.
_PATH = re.compile(
    r"/*(?:(?P<project_id>[0-9a-f-]+)/)?servers"
    r"(?:/(?P<detail>detail)|/(?P<server_id>[^/]+)"
    r"(?:/(?P<action>action)|/(?P<metadata>metadata)(?:/(?P<key>[^/]+))?|/(?P<records>os-instance-actions)(?:/(?P<request_id>[^/]+))?)?)?"
)


def base_of(path: str) -> Base | None:
    """Return where a decoded path begins if it is one of Nova's, else None."""
    found = _BASE.match(path)
    return Base(found["prefix"] or "", found["root"] or "") if found and found[0] else None


def route(method: str, path: str) -> Route | None:
    """Return what a decoded path names if the method can be used on it; None for Nova's plain 404."""
    base = base_of(path)
    if base is None:
        return None
    rest = path.removeprefix(base.prefix + base.root)
    if rest in ("", "/"):
        return Route(Resource.VERSION if base.root else Resource.VERSIONS, base)
    found = _PATH.fullmatch(rest)
    if found is None or not base.root:
        return None
    resource = _resource(found)
    if method not in _methods(resource):
        return None
    parts = (found[name] or "" for name in ("project_id", "server_id", "request_id", "key"))
    return Route(resource, base, *parts)


def _resource(found: re.Match[str]) -> Resource:
    if found["action"]:
        return Resource.ACTION
    if found["metadata"]:
        return Resource.METADATA_ITEM if found["key"] else Resource.METADATA
    if found["records"]:
        return Resource.RECORD if found["request_id"] else Resource.RECORDS
    if found["server_id"]:
        return Resource.SERVER
    return Resource.DETAIL if found["detail"] else Resource.SERVERS


def _methods(resource: Resource) -> tuple[str, ...]:
    match resource:
        case Resource.ACTION:
            return ("POST",)
        case Resource.SERVER:
            return ("GET", "DELETE")
        case Resource.METADATA:
            return ("GET", "POST")
        case Resource.METADATA_ITEM:
            return ("DELETE",)
    return ("GET",)

"""The paths of an API as a table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from handler.simulator.calls import CallKind

Handler = TypeVar("Handler")


@dataclass(frozen=True, slots=True)
class Route(Generic[Handler]):
    """What a request asks for.

    Args:
        kind: the operation.
        handler: carries it out.
        names: the segments of the path that the table names, and the groups of its prefix.
    """

    kind: CallKind
    handler: Handler
    names: Mapping[str, str]


class Routes(Generic[Handler]):
    """The paths of an API.

    Args:
        prefix: a regular expression for what all of them begin with.
        table: what is at each method and path, `GET servers/{server_id}`; the first that matches counts. A path is a
            regular expression in which a name in braces stands for one segment.
    """

    def __init__(self, prefix: str, table: Mapping[str, tuple[CallKind, Handler]]) -> None:
        self._table = [
            (method, re.compile(prefix + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), kind, handler)
            for (method, path), (kind, handler) in ((key.split(" "), entry) for key, entry in table.items())
        ]

    def find(self, method: str, path: str) -> Route[Handler] | None:
        """Return the route of a decoded path if the method can be used on it."""
        for allowed, pattern, kind, handler in self._table:
            if method == allowed and (found := pattern.fullmatch(path)):
                return Route(kind, handler, found.groupdict(default=""))
        return None

"""The `selector` of canonical data. Loaded when an event has one.

It is read more strictly than other members: a part that is empty, null or misspelt would select more servers than
its author meant.
"""

from __future__ import annotations

import re

from handler.errors import Violation
from handler.stop.model import Selector

_AT = "data.selector"
_PARTS = frozenset({"tags", "metadata", "name"})
_LONGEST = 255
# A server has no more of them: Nova takes 50 tags, Open Telekom Cloud 128 entries of metadata.
_MOST_TAGS, _MOST_ENTRIES = 50, 128
# A set of a glob, as fnmatch reads it: what comes first after `[` or `[!` belongs to it, even if it is `]`.
_SET = re.compile(r"\[(?:!.|[^!])[^\]]*\]", re.DOTALL)
# What the cloud itself puts on every bare metal server: alone it would select all of them.
_ON_EVERY_ONE = {"__type_baremetal", ("metering.resourcetype", "__type_baremetal")}


def parse(value: object, violations: list[Violation]) -> Selector:
    """Read a selector.

    Args:
        value: of the member, not null.
        violations: receives those found; if there are any, the returned selector must not be used.
    """
    if not isinstance(value, dict):
        violations.append(Violation(_AT, "must be a JSON object"))
        return Selector()
    if not value:
        violations.append(Violation(_AT, "must not be empty: it never selects all servers"))
    if not _PARTS.issuperset(value):
        violations.append(Violation(_AT, "must have no members but tags, metadata and name"))
    found = Selector(
        tags=_tags(value["tags"], violations) if "tags" in value else (),
        metadata=_metadata(value["metadata"], violations) if "metadata" in value else (),
        name=_name(value["name"], violations) if "name" in value else "",
    )
    labels = {*found.tags, *found.metadata}
    if labels and not found.name and labels <= _ON_EVERY_ONE:
        violations.append(Violation(_AT, "must not select every bare metal server"))
    return found


def _tags(value: object, violations: list[Violation]) -> tuple[str, ...]:
    at = f"{_AT}.tags"
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_TAGS:
        violations.append(Violation(at, f"must be an array of 1 to {_MOST_TAGS} tags"))
        return ()
    for index, tag in enumerate(value):
        if message := _message(tag):
            violations.append(Violation(f"{at}[{index}]", message))
    return tuple(tag for tag in value if isinstance(tag, str))


def _metadata(value: object, violations: list[Violation]) -> tuple[tuple[str, str], ...]:
    at = f"{_AT}.metadata"
    if not isinstance(value, dict) or not 0 < len(value) <= _MOST_ENTRIES:
        violations.append(Violation(at, f"must be an object of 1 to {_MOST_ENTRIES} entries"))
        return ()
    for key, entry in value.items():
        # The entry is not named: its key is text of the sender. An empty value is one that servers have.
        if message := _message(key) or (_message(entry) if entry != "" else None):
            violations.append(Violation(at, f"each key and value {message}"))
    return tuple((key, entry) for key, entry in value.items() if isinstance(entry, str))


def _name(value: object, violations: list[Violation]) -> str:
    at = f"{_AT}.name"
    if message := _message(value):
        violations.append(Violation(at, message))
        return ""
    glob = str(value)
    rest = _SET.sub("", glob)
    if "[" in rest:
        violations.append(Violation(at, "must close each ["))
    elif not rest.strip("*?"):
        violations.append(Violation(at, "must have a character that stands for itself"))
    if any(found.startswith("[^") for found in _SET.findall(glob)):
        # It means "none of these" in some shells, and "one of these" to fnmatch.
        violations.append(Violation(at, "must have [! in place of [^"))
    return glob


def _message(value: object) -> str | None:
    """Return the message about a text that no server can have; None if one can."""
    if not isinstance(value, str):
        return "must be a string"
    if not value.strip():
        return "must not be blank"
    return f"must have at most {_LONGEST} characters" if len(value) > _LONGEST else None

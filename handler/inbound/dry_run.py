"""Recognition of dry runs wherever a producer lets people or rules ask for one.

A member called `dry_run`, in any case and with `-` or `_`, counts wherever it is: label, annotation, property,
variable, trait, header or query parameter. A name that is close to it, and a value that is neither true nor false, are
violations: the author of the message expects that nothing is stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from handler.errors import BadEvent, Violation
from handler.inbound import names

_NAME = "dryrun"
_UNREADABLE = "must have true or false as its dry_run"
_MISSPELT = "must have its member spelled dry_run"


def flag(value: object) -> bool | None:
    """Return a boolean, or that of a text; None for every other value."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().casefold()) if isinstance(value, str) else None


def is_name(name: str) -> bool:
    """Return whether a member of this name asks for a dry run."""
    return names.normalized(name) == _NAME


def requested_in(document: object, at: str, violations: list[Violation]) -> bool:
    """Return whether any part of a document asks for a dry run.

    Args:
        document: JSON, at any depth: members by their name, entries with `key` or `name` beside `value` (variables of
            GitLab), and arrays of a name, a number and a value (traits of Aodh).
        at: path of the document in violations.
        violations: receives those found.
    """
    requested = False
    # No recursion: a document may be nested as deep as the parser allows.
    remaining = [document]
    while remaining:
        match remaining.pop():
            case dict() as node:
                found = [(name, value) for name, value in node.items() if isinstance(name, str)]
                if "value" in node:
                    found += [(node[key], node["value"]) for key in ("key", "name") if isinstance(node.get(key), str)]
                remaining += node.values()
            case [str(name), int(), value] as node:
                found = [(name, value)]
                remaining += node
            case list() as node:
                found = []
                remaining += node
            case _:
                continue
        for name, value in found:
            requested |= _read(name, value, at, violations)
    return requested


def requested(document: object, at: str) -> bool:
    """Return whether any part of a document asks for a dry run; see `requested_in`.

    Raises:
        BadEvent: a part is misspelt, or neither true nor false.
    """
    violations: list[Violation] = []
    found = requested_in(document, at, violations)
    if violations:
        raise BadEvent(*dict.fromkeys(violations))
    return found


def requested_beside(headers: Mapping[str, str], query: str) -> bool:
    """Return whether a header, but for attributes of events (`ce-`), or a query parameter asks for a dry run.

    Raises:
        BadEvent: one is misspelt, or neither true nor false.
    """
    found = [(name.removeprefix("x-"), value) for name, value in headers.items() if name[:1] in ("d", "x")]
    if query:
        found += parse_qsl(query, keep_blank_values=True, errors="replace")
    return requested([{name: value} for name, value in found if is_name(name)], "request")


def _read(name: str, value: object, at: str, violations: list[Violation]) -> bool:
    # Few names are as long as this one, so the check costs little.
    if not len(_NAME) - 1 <= len(name) <= 10 * len(_NAME):
        return False
    written = names.normalized(name)
    if written == _NAME:
        read = flag(value)
        if read is None:
            violations.append(Violation(at, _UNREADABLE))
        return read is True
    if written.removesuffix("s") == _NAME or names.one_edit_apart(written, _NAME):
        violations.append(Violation(at, _MISSPELT))
    return False

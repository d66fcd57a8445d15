"""Strict JSON (RFC 8259), which Python's own parser is not."""

from __future__ import annotations

import json
from typing import NoReturn


def loads(raw: bytes | str) -> object:
    """Parse JSON text (RFC 8259).

    Args:
        raw: UTF-8, with or without a byte order mark; or text.

    Raises:
        ValueError: not UTF-8, not JSON, nested too deep, a name twice in one object, NaN or Infinity, or half of a
            surrogate pair. The message states what must be true, and quotes nothing.
    """
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8") from None
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except _NotJson as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("must not be nested so deep") from None
    except ValueError:
        raise ValueError("must be JSON") from None
    _check(document, infinite=True)
    return document


def check(document: object) -> None:
    """Check a value that another JSON parser has read.

    Raises:
        ValueError: it has a value that JSON does not have. The message states what must be true, and quotes nothing.
    """
    _check(document, infinite=False)


def _check(document: object, *, infinite: bool) -> None:
    try:
        # Half of a surrogate pair cannot be encoded as UTF-8, so the result event would fail instead.
        json.dumps(document, ensure_ascii=False, allow_nan=infinite).encode()
    except RecursionError:
        raise ValueError("must not be nested so deep") from None
    except UnicodeEncodeError:
        raise ValueError("must not have half of a surrogate pair") from None
    except ValueError:
        raise ValueError("must have only numbers of JSON") from None
    except TypeError:
        raise ValueError("must be JSON") from None


def loads_text(text: str) -> object:
    """Return the JSON value of a text, or the text itself if it is not JSON.

    A value that is text again, from a sender that encodes JSON twice, is parsed once more.
    """
    value: object = text
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = loads(value)
            except ValueError:
                break
    return value


class _NotJson(Exception):
    """The text is not strict JSON; the message states what must be true."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _NotJson("must not have a name twice in one object")
    return made


def _no_constant(_: str) -> NoReturn:
    raise _NotJson("must have only numbers of JSON")

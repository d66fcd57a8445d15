"""JSON without the liberties that Python's parser takes."""

from __future__ import annotations

import json
from typing import NoReturn


def loads(raw: bytes | str) -> object:
    """Parse JSON text as RFC 8259 has it.

    Args:
        raw: UTF-8 (a byte order mark is passed over), or text.

    Raises:
        ValueError: not UTF-8, not JSON, nested too deep, a name twice in one object, NaN or Infinity, or half of a
            surrogate pair. Its message says which, and quotes nothing.
    """
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8") from None
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except _Objection as objection:
        raise ValueError(str(objection)) from None
    except RecursionError:
        raise ValueError("must not be nested so deep") from None
    except ValueError:
        raise ValueError("must be JSON") from None
    _check(document, infinite=True)
    return document


def check(document: object) -> None:
    """Check a value that another JSON parser has read.

    Raises:
        ValueError: it holds what JSON cannot have. The message says which, and quotes nothing.
    """
    _check(document, infinite=False)


def _check(document: object, *, infinite: bool) -> None:
    try:
        # Half of a surrogate pair cannot be written as UTF-8 again, so it would fail on the way out instead.
        json.dumps(document, ensure_ascii=False, allow_nan=infinite).encode()
    except RecursionError:
        raise ValueError("must not be nested so deep") from None
    except UnicodeEncodeError:
        raise ValueError("must not have half of a surrogate pair") from None
    except ValueError:
        raise ValueError("must not hold a number that JSON does not have") from None
    except TypeError:
        raise ValueError("must be JSON") from None


def loads_text(text: str) -> object:
    """Return the JSON value that a text holds, or the text itself if it holds none.

    A value that is text again, as a sender makes it that encodes JSON twice, is read once more.
    """
    value: object = text
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = loads(value)
            except ValueError:
                break
    return value


class _Objection(Exception):
    pass


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Objection("must not have a name twice in one object")
    return made


def _no_constant(_: str) -> NoReturn:
    raise _Objection("must have only numbers that JSON knows")

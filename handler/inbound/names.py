"""Comparison of names with their usual spellings and misspellings."""

from __future__ import annotations

from collections.abc import Iterable

# Of a shorter name, a single edit makes too many other words.
_SHORTEST = 5


def normalized(name: str) -> str:
    """Return what follows the last slash of a name, without case, punctuation, spaces and invisible characters."""
    last = name.rpartition("/")[2]
    if not last.isascii():
        import unicodedata

        last = unicodedata.normalize("NFKC", last)
    return "".join(character for character in last.casefold() if character.isalnum())


def meant(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that an unknown one is taken for.

    Returns:
        The one that it equals but for case, dashes, underscores or a plural s, or, if that has five letters or more,
        that is one edit away (Damerau-Levenshtein); None if it is close to none.
    """
    written = normalized(name)
    plain = {other: normalized(other) for other in known}
    for other, letters in plain.items():
        if written.removesuffix("s") == letters.removesuffix("s"):
            return other
    for other, letters in plain.items():
        if len(letters) >= _SHORTEST and one_edit_apart(written, letters):
            return other
    return None


def one_edit_apart(one: str, other: str) -> bool:
    """Return whether one insertion, deletion, replacement or swap of neighbours makes one name the other."""
    if one == other:
        return False
    start = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[start:], other[start:]
    swapped = one[:2] == other[:2][::-1] and one[2:] == other[2:]
    return one[1:] == other[1:] or one[1:] == other or one == other[1:] or swapped

"""Which known name a name stands for."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.inbound.names import meant, one_edit_apart

KNOWN = ("server_ids", "server_id", "dry_run", "since", "reason", "for")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Server-IDs", "server_ids"),
        ("serverid", "server_ids"),
        ("dry run", "dry_run"),
        ("DRY\u200b_RUN", "dry_run"),
        ("\uff44\uff52\uff59run", "dry_run"),
        ("example.org/dry-run", "dry_run"),
        ("dryruns", "dry_run"),
        ("drurun", "dry_run"),
        ("drryun", "dry_run"),
        ("sice", "since"),
        ("sincee", "since"),
        ("isnce", "since"),
        ("FOR", "for"),
        ("fors", "for"),
        ("fot", None),
        ("fo", None),
        ("dr_rn", None),
        ("run", None),
        ("", None),
        ("\u00e9", None),
        ("time", None),
    ],
)
def test_a_name_that_is_close_to_a_known_one_is_taken_for_it(name: str, known: str | None) -> None:
    """Case, dashes, underscores and a plural s never count; one edit does not for names of five letters or more."""
    assert meant(name, KNOWN) == known


def distance(one: str, other: str) -> int:
    """The Damerau-Levenshtein distance (optimal string alignment), by its textbook table."""
    table = {(-1, -1): 0}
    table |= {(row, -1): row + 1 for row in range(len(one))} | {
        (-1, column): column + 1 for column in range(len(other))
    }
    for row, column in itertools.product(range(len(one)), range(len(other))):
        costs = [
            table[row - 1, column] + 1,
            table[row, column - 1] + 1,
            table[row - 1, column - 1] + (one[row] != other[column]),
        ]
        if row and column and one[row] == other[column - 1] and one[row - 1] == other[column]:
            costs.append(table[row - 2, column - 2] + 1)
        table[row, column] = min(costs)
    return table[len(one) - 1, len(other) - 1]


WORDS = st.text("abc", max_size=5)


@given(WORDS, WORDS)
def test_one_edit_is_a_distance_of_one(one: str, other: str) -> None:
    """Either way round."""
    assert one_edit_apart(one, other) == one_edit_apart(other, one) == (distance(one, other) == 1)

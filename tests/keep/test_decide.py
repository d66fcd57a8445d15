"""The decision on one server."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.keep.decide import Move, decide, kept_until, written
from handler.keep.model import Reason
from handler.stop.model import Server
from tests.keep.fakes import ID, KEY, NOW, hours

PROTECT = ("autostop", "never")
TIMES = st.integers(-100, 100).map(hours)


def server(vm_state: str = "active", tags: tuple[str, ...] = (), **metadata: str) -> Server:
    """A server with these labels; `keep` stands for the key of a keep-until."""
    named = {KEY if name == "keep" else name: value for name, value in metadata.items()}
    return Server(ID, vm_state, tags=frozenset(tags), metadata=named)


@pytest.mark.parametrize(
    ("shown", "move", "reason"),
    [
        (server(), Move.WRITE, Reason.DRY_RUN),
        (server("error"), Move.WRITE, Reason.DRY_RUN),
        (server(keep=written(hours(1))), Move.WRITE, Reason.DRY_RUN),
        (server(keep=written(hours(2))), Move.LEAVE, Reason.ALREADY_KEPT),
        (server(tags=(f"{KEY}={written(hours(3))}",)), Move.LEAVE, Reason.ALREADY_KEPT),
        (server(keep=written(hours(1)), tags=(f"{KEY}={written(hours(3))}",)), Move.LEAVE, Reason.ALREADY_KEPT),
        (server(keep="soon"), Move.LEAVE, Reason.PROTECTED),
        (server(keep=written(hours(3)), tags=(f"{KEY}=soon",)), Move.LEAVE, Reason.PROTECTED),
        (server(tags=("autostop=never",)), Move.LEAVE, Reason.PROTECTED),
        (server(autostop="Never "), Move.LEAVE, Reason.PROTECTED),
        (server("deleted"), Move.LEAVE, Reason.NOT_FOUND),
        (server()._replace(other_project="theirs"), Move.LEAVE, Reason.NOT_FOUND),
        (server(keep="20261120T230000Z"), Move.LEAVE, Reason.ALREADY_KEPT),
        (server(tags=("autostop.never",)), Move.LEAVE, Reason.PROTECTED),
        (server(tags=(f"{KEY}.{written(hours(3))}",)), Move.LEAVE, Reason.ALREADY_KEPT),
    ],
)
def test_a_keep(shown: Server, move: Move, reason: Reason) -> None:
    """Until two hours from now."""
    decision = decide(shown, hours(2), PROTECT)
    assert (decision.move, decision.reason) == (move, reason)


@pytest.mark.parametrize(
    ("shown", "move", "reason", "keys"),
    [
        (server(), Move.LEAVE, Reason.NOT_KEPT, ()),
        (server(keep=written(hours(-1))), Move.REMOVE, Reason.DRY_RUN, (KEY,)),
        (server(keep=written(hours(1)), autostop="never"), Move.REMOVE, Reason.DRY_RUN, (KEY,)),
        (
            Server(ID, "active", metadata={"Autostop-Keep-Until ": written(hours(1))}),
            Move.REMOVE,
            Reason.DRY_RUN,
            ("Autostop-Keep-Until ",),
        ),
        (server(tags=(f"{KEY}={written(hours(3))}",)), Move.LEAVE, Reason.ALREADY_KEPT, ()),
        (server(keep="soon"), Move.LEAVE, Reason.PROTECTED, ()),
        (server("soft-delete", keep=written(hours(1))), Move.LEAVE, Reason.NOT_FOUND, ()),
    ],
)
def test_a_release(shown: Server, move: Move, reason: Reason, keys: tuple[str, ...]) -> None:
    """It removes entries of the metadata that are understood, whatever the case of their keys."""
    decision = decide(shown, None, PROTECT)
    assert (decision.move, decision.reason, decision.keys) == (move, reason, keys)


@given(st.lists(TIMES, max_size=3), st.lists(TIMES, max_size=3), TIMES)
def test_a_write_is_always_later_than_all_that_is_there(
    entries: list[datetime], tags: list[datetime], until: datetime
) -> None:
    """Whatever tags and entries a server carries."""
    metadata = {f"{KEY}{' ' * number}": written(time) for number, time in enumerate(entries)}
    shown = Server(ID, "active", tags=frozenset(f"{KEY}={written(time)}" for time in tags), metadata=metadata)
    decision = decide(shown, until, PROTECT)
    latest = max([*entries, *tags], default=None)
    assert kept_until(shown) == latest
    assert (decision.move is Move.WRITE) is (latest is None or latest < until)


def test_a_time_is_written_in_utc_and_whole_seconds() -> None:
    """As OpenStack's clients and people read it."""
    assert written(NOW) == "2026-11-20T19:00:00Z"

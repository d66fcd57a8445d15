"""Finding servers on the list: only a whole list counts, and only servers of our own project are on it."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from handler.cloud.servers import Shown, find, slim
from handler.errors import CallDenied, CallRejected, CloudUnexpectedAnswer, CloudUnreachable, ServerNotFound
from handler.stop.model import Server
from tests.cloud.test_servers import IDS, body

OURS = "0123456789abcdef0123456789abcdef"
THEIRS = "f" * 32


def row(number: int, **changes: Any) -> dict[str, object]:
    """The n-th server as a list shows it."""
    return body(IDS[number], **{"name": f"ci-{number}", "tenant_id": OURS, **changes})


def counted(pages: Sequence[Sequence[object] | Exception], *totals: int | None) -> Iterator[Shown]:
    """These pages, and what each says of the list's length; the last such word holds for the rest."""
    words = itertools.chain(totals, itertools.repeat(totals[-1] if totals else None))
    for page, total in zip(pages, words, strict=False):
        if isinstance(page, Exception):
            raise page
        yield Shown(page, None, total)


def found(
    *pages: Sequence[object] | Exception,
    totals: Sequence[int | None] = (),
    wanted: Callable[[Server], bool] = lambda server: bool(server.id),
    project_id: str | None = OURS,
    **more: Any,
) -> list[str | None]:
    """The names of what is found on these pages."""
    return [server.name for server in find(counted(pages, *totals), project_id, wanted, 7, **more)]


def test_every_page_is_observed_at() -> None:
    """To the last one, whatever was found before."""
    assert found([row(0), row(1)], [row(2)], [row(3)]) == ["ci-0", "ci-1", "ci-2", "ci-3"]
    assert found([row(0), row(1)], [row(2)], wanted=lambda server: server.id == IDS[2]) == ["ci-2"]
    assert found() == found([]) == []


def test_what_is_kept_of_a_listed_server_is_enough() -> None:
    """The list is made smaller while it is read."""
    document = json.loads(json.dumps({"servers": [row(0, addresses={}), row(1, tenant_id=THEIRS)]}), object_hook=slim)
    assert "addresses" not in document["servers"][0]
    assert found(document["servers"]) == ["ci-0"]


def test_ids_are_lower_case_and_what_is_listed_twice_is_found_once() -> None:
    """A page may show again what the one before ended with."""
    shouting = row(0, id=IDS[0].upper())
    (server,) = find(counted([[shouting]]), OURS, lambda _: True, 7)
    assert server.id == IDS[0]
    assert found([row(0), row(1)], [row(1), row(2)]) == ["ci-0", "ci-1", "ci-2"]


@pytest.mark.parametrize("now", [{"tags": []}, {"OS-EXT-STS:vm_state": "deleted"}, {"tenant_id": THEIRS}])
def test_the_last_look_at_a_server_counts(now: dict[str, object]) -> None:
    """Listed twice and changed between: it is not stopped for what it no longer is, and is found if it fits by now."""
    fits: Any = {"wanted": lambda server: "night" in server.tags}
    before, after = row(1, tags=["night"]), row(1, **{"tags": ["night"], **now})
    assert found([row(0), before], [after, row(2)], **fits) == []
    assert found([row(0), after], [before, row(2)], **fits) == ["ci-1"]


@pytest.mark.parametrize("gone", ["deleted", "DELETED", "soft-delete", "soft_deleted"])
def test_what_is_deleted_is_not_found(gone: str) -> None:
    """An administrator's list may show it."""
    assert found([row(0, **{"OS-EXT-STS:vm_state": gone}), row(1)]) == ["ci-1"]


def test_servers_of_other_projects_are_not_found(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the login may see; the log has a line, since our own list should not show them."""
    with caplog.at_level(logging.WARNING):
        assert found([row(0, tenant_id=THEIRS), row(1), {"id": IDS[2], "tenant_id": THEIRS}]) == ["ci-1"]
    (line,) = caplog.records
    assert line.getMessage() == "servers of other projects are on the list of ours"
    assert line.__dict__["left_out"] == 2


@pytest.mark.parametrize("written", [OURS.upper(), "01234567-89ab-cdef-0123-456789abcdef"])
def test_a_project_may_be_written_in_another_way(written: str) -> None:
    """With dashes, or in capitals."""
    assert found([row(0)], project_id=written) == found([row(0, tenant_id=written)]) == ["ci-0"]


@pytest.mark.parametrize("project_id", [None, ""])
def test_without_a_project_of_our_own_nothing_is_found(project_id: str | None) -> None:
    """It would be unknown whose servers these are."""
    with pytest.raises(CloudUnexpectedAnswer, match="does not say which project is ours"):
        found([row(0)], project_id=project_id)


@pytest.mark.parametrize(
    "broken",
    [
        "rubbish",
        None,
        {},
        row(1, id="ci-1"),
        row(1, id="../servers"),
        row(1, id=f"{IDS[1]}\n"),
        row(1, id=1),
        row(1, tenant_id=None),
        row(1, locked=None),
        row(1, tags=None),
        row(1, metadata=None),
        row(1, **{"OS-EXT-STS:vm_state": None}),
        row(1, **{"OS-EXT-STS:task_state": 5}),
    ],
)
def test_a_server_that_is_shown_in_part_invalidates_the_list(broken: object) -> None:
    """It could be one of those that are meant."""
    with pytest.raises(CloudUnexpectedAnswer):
        found([row(0), broken, row(2)], wanted=lambda server: server.id == IDS[0])


def test_where_the_api_leaves_the_task_out_it_may_be_missing() -> None:
    """As BMS v1 does when nothing is going on."""
    shown = row(0)
    del shown["OS-EXT-STS:task_state"]
    assert found([shown], idle=None) == ["ci-0"]
    with pytest.raises(CloudUnexpectedAnswer, match="no task_state"):
        found([shown])


@pytest.mark.parametrize("fault", [CloudUnreachable("cut"), CallDenied("no")])
def test_a_page_that_fails_leaves_nothing(fault: Exception) -> None:
    """Half a list would lose servers silently."""
    with pytest.raises(type(fault)) as raised:
        found([row(0)], fault)
    assert raised.value is fault


@pytest.mark.parametrize("kind", [CallRejected, ServerNotFound])
def test_a_page_that_is_called_wrong_can_be_asked_for_again(kind: type[CallRejected]) -> None:
    """The server that it was to begin after may be gone; it says nothing about a server that is wanted."""
    with pytest.raises(CloudUnexpectedAnswer, match="marker") as raised:
        found([row(0)], kind("marker", request_id="req-1", status=400))
    assert (raised.value.request_id, raised.value.status, raised.value.waiting_helps) == ("req-1", 400, True)


def test_a_cloud_that_shows_the_same_page_for_ever_is_not_believed() -> None:
    """It passes over the marker, so that the rest of the list stays unseen."""
    with pytest.raises(CloudUnexpectedAnswer, match="only servers of pages before it"):
        found(*([row(0), row(1)] for _ in range(3)))


def test_a_list_that_never_ends_is_left() -> None:
    """After a hundred pages, and what was found on them is worth nothing."""
    pages = [[row(0, id=f"{number:08x}-0000-4000-8000-000000000000")] for number in range(101)]
    assert len(found(*pages[:100])) == len(found(*pages[:100], [])) == 100
    with pytest.raises(CloudUnexpectedAnswer, match="it goes on after 100 pages"):
        found(*pages)


@pytest.mark.parametrize(
    ("totals", "whole"),
    [
        ((3, 3), True),
        ((2, 2), True),
        ((None, None), True),
        ((2, 3), True),
        ((4, 4), False),
        ((3, 4), False),
        ((4, 3), False),
    ],
)
def test_a_list_that_moves_while_its_pages_are_turned_is_read_again(totals: tuple[int, int], whole: bool) -> None:
    """Where pages are counted, a server that comes or goes pushes another one over their edge."""
    pages = ([row(0), row(1)], [row(2)])
    if whole:
        assert len(found(*pages, totals=totals)) == 3
    else:
        with pytest.raises(CloudUnexpectedAnswer, match="changed while its pages were turned"):
            found(*pages, totals=totals)


def test_a_server_shown_twice_does_not_stand_for_one_that_is_not_shown() -> None:
    """Four were promised, and four rows came."""
    with pytest.raises(CloudUnexpectedAnswer, match="changed"):
        found([row(0), row(1)], [row(1), row(2)], totals=(4, 4))


def test_the_time_is_for_all_pages_together() -> None:
    """However short each of them takes."""
    clock = iter([0.0, 3.0, 6.9, 7.1])
    with pytest.raises(CloudUnreachable, match="out of time between its pages"):
        found([row(0)], [row(1)], [row(2)], monotonic=lambda: next(clock))
    clock = iter([0.0, 3.0, 7.0])
    assert len(found([row(0)], [row(1)], monotonic=lambda: next(clock))) == 2

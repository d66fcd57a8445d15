"""Servers: parsing, reads of requested ids by page or one by one, and the search of the whole list."""

from __future__ import annotations

import itertools
import json
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from handler.cloud import servers
from handler.cloud.servers import Reader, Shown, listed, parse, slim, stamp
from handler.errors import (
    CallDenied,
    CallRejected,
    CloudError,
    CloudFault,
    CloudThrottled,
    CloudUnexpectedAnswer,
    CloudUnreachable,
    EndpointUnusable,
    LoginRefused,
    ServerNotFound,
)
from handler.stop.model import Server
from handler.stop.ports import ReadSingly

OURS = "0123456789abcdef0123456789abcdef"
THEIRS = "f" * 32
THEN = datetime(2026, 11, 20, 18, tzinfo=UTC)
IDS = [str(uuid.UUID(int=number)) for number in range(1, 21)]
VM_STATE, TASK_STATE = "OS-EXT-STS:vm_state", "OS-EXT-STS:task_state"


def body(id_: str, **changes: object) -> dict[str, object]:
    """A server as both APIs show it."""
    shown: dict[str, object] = {
        "id": id_,
        VM_STATE: "active",
        TASK_STATE: None,
        "locked": False,
        "tags": [],
        "metadata": {},
    }
    return shown | changes


def row(number: int, **changes: Any) -> dict[str, object]:
    """The n-th server as a list shows it."""
    return body(IDS[number], **{"name": f"ci-{number}", "tenant_id": OURS, **changes})


class _Project:
    """An endpoint that knows only the project of the login."""

    def __init__(self, id_: str | None) -> None:
        self._id = id_

    def project(self, timeout: float) -> str | None:
        assert timeout == 7
        return self._id


class FakeReader(Reader):
    """Pages and single servers to be read, and what was requested of them.

    Args:
        totals: the length of the list according to each page; the last one counts for the other pages as well.
    """

    def __init__(
        self,
        *pages: Sequence[object] | Exception,
        single: object = None,
        totals: Sequence[int | None] = (None,),
        project_id: str | None = OURS,
    ) -> None:
        super().__init__(None, _Project(project_id))  # type: ignore[arg-type]
        self.pages, self.single, self.totals = pages, single, totals
        self.pages_read = 0
        self.requested: list[str] = []

    def _one(self, id_: str, timeout: float) -> Shown:
        assert timeout == 7
        self.requested.append(id_)
        if isinstance(self.single, Exception):
            raise self.single
        return Shown([self.single or body(id_)], THEN)

    def _pages(self, timeout: float) -> Iterator[Shown]:
        assert timeout == 7
        for page, total in zip(
            self.pages, itertools.chain(self.totals, itertools.repeat(self.totals[-1])), strict=False
        ):
            self.pages_read += 1
            if isinstance(page, Exception):
                raise page
            yield Shown(page, THEN, total)

    def read_all(self, *ids: str) -> dict[str, Any]:
        return dict(self.read(ids, 7))


def found(
    *pages: Sequence[object] | Exception, wanted: Callable[[Server], bool] = lambda _: True, **options: Any
) -> list[str | None]:
    """The names of the servers that are found on these pages."""
    return [server.name for server in FakeReader(*pages, **options).find(wanted, 7)]


# --- reads of requested ids


def test_up_to_four_servers_are_read_one_by_one_and_more_by_pages() -> None:
    """Four calls take as long as a page."""
    assert FakeReader().read_groups(IDS[:4]) == [(id_,) for id_ in IDS[:4]]
    assert FakeReader().read_groups(IDS[:5]) == [IDS[:5]]
    assert FakeReader().read_groups([]) == []


def test_after_a_list_of_seven_pages_seven_servers_are_read_one_by_one() -> None:
    """The number of pages is that of the last read of the list."""
    reader = FakeReader(*([body(id_)] for id_ in IDS[:7]))
    reader.read_all(*IDS[:8])
    assert reader.read_groups(IDS[:7]) == [(id_,) for id_ in IDS[:7]]
    assert reader.read_groups(IDS[:8]) == [IDS[:8]]


def test_only_requested_servers_are_returned_of_a_page() -> None:
    """Whatever else is on it, and in whatever case the ids are written."""
    reader = FakeReader([body(IDS[9]), "random text", {"no": "id"}, *(body(id_.upper()) for id_ in IDS[:5])])
    assert {id_: server.id for id_, server in reader.read_all(*IDS[:5]).items()} == {id_: id_ for id_ in IDS[:5]}
    assert (reader.pages_read, reader.requested) == (1, [])


def test_pages_are_read_until_at_most_one_server_is_missing() -> None:
    """A single read of the last one is cheaper than further pages."""
    reader = FakeReader([body(IDS[0])], [body(id_) for id_ in IDS[1:4]], [body(IDS[4])])
    assert set(reader.read_all(*IDS[:5])) == set(IDS[:5])
    assert (reader.pages_read, reader.requested) == (2, [IDS[4]])


def test_a_server_on_no_page_is_read_by_its_id() -> None:
    """Pages may shift between two reads: only the response for the server itself shows that it does not exist."""
    reader = FakeReader([body(id_) for id_ in IDS[:3]], single=ServerNotFound("gone"))
    result = reader.read_all(*IDS[:6])
    assert sorted(reader.requested) == IDS[3:6]
    assert [type(result[id_]) for id_ in IDS[:6]] == [Server] * 3 + [ServerNotFound] * 3


def test_at_most_a_hundred_pages_are_read() -> None:
    """The servers that were not on them are read by their ids."""
    reader = FakeReader(*([body(IDS[19])] for _ in range(150)))
    assert set(reader.read_all(*IDS[:5])) == set(IDS[:5])
    assert (reader.pages_read, sorted(reader.requested)) == (100, IDS[:5])


@pytest.mark.parametrize("kind", [CallDenied, CallRejected, CloudFault, ServerNotFound, CloudUnexpectedAnswer])
def test_servers_that_a_failed_list_did_not_show_are_to_be_read_one_by_one(kind: type[CloudError]) -> None:
    """From then on no list is read: not permitted, a marker that is deleted, an error in the cloud, or no list."""
    reader = FakeReader([body(IDS[0])], kind("no"))
    result = reader.read_all(*IDS[:5])
    assert isinstance(result[IDS[0]], Server)
    assert [type(result[id_]) for id_ in IDS[1:5]] == [ReadSingly] * 4
    assert reader.requested == []
    assert reader.read_groups(IDS) == [(id_,) for id_ in IDS]


def test_a_list_without_a_response_is_read_once_more() -> None:
    """Many calls would not help a cloud that is down; but a list that fails twice is too long for it."""
    error = CloudUnreachable("cut")
    reader = FakeReader([body(IDS[0])], error)
    result = reader.read_all(*IDS[:5])
    assert isinstance(result[IDS[0]], Server)
    assert [result[id_] for id_ in IDS[1:5]] == [error] * 4
    assert (reader.requested, reader.read_groups(IDS[:5])) == ([], [IDS[:5]])
    assert [type(reader.read_all(*IDS[:5])[id_]) for id_ in IDS[1:5]] == [ReadSingly] * 4
    assert reader.read_groups(IDS[:5]) == [(id_,) for id_ in IDS[:5]]


def test_a_throttled_list_is_read_again() -> None:
    """However often: the cloud asks for fewer calls."""
    reader = FakeReader(CloudThrottled("slow"))
    for _ in range(3):
        assert {type(seen) for seen in reader.read_all(*IDS[:5]).values()} == {CloudThrottled}
    assert reader.read_groups(IDS[:5]) == [IDS[:5]]


@pytest.mark.parametrize("kind", [LoginRefused, EndpointUnusable])
def test_an_error_that_concerns_all_servers_is_raised(kind: type[CloudError]) -> None:
    """On a page as in a single read."""
    with pytest.raises(kind):
        FakeReader(kind("no")).read_all(*IDS[:5])
    with pytest.raises(kind):
        FakeReader(single=kind("no")).read_all(IDS[0])


def test_an_incomplete_body_is_an_error_of_its_server_alone() -> None:
    """On a page as in a single read."""
    result = FakeReader([body(IDS[0], locked=None), *(body(id_) for id_ in IDS[1:5])]).read_all(*IDS[:5])
    assert [type(result[id_]) for id_ in IDS[:5]] == [CloudUnexpectedAnswer] + [Server] * 4
    (alone,) = FakeReader(single=body(IDS[0], tags=None)).read_all(IDS[0]).values()
    assert isinstance(alone, CloudUnexpectedAnswer)


def test_a_peek_returns_the_first_page() -> None:
    """Whatever is on it; an empty project is not an error, a cloud that does not respond is."""
    reader = FakeReader([body(IDS[0]), "random text", body(IDS[1], tags=None)], [body(IDS[2])])
    assert [type(seen) for seen in reader.peek(7)] == [Server, CloudUnexpectedAnswer, CloudUnexpectedAnswer]
    assert reader.pages_read == 1
    assert FakeReader().peek(7) == []
    with pytest.raises(CloudUnreachable):
        FakeReader(CloudUnreachable("cut")).peek(7)


# --- parsing


@pytest.mark.parametrize(
    ("owner", "other"),
    [
        (OURS, None),
        (OURS.upper(), None),
        ("01234567-89ab-cdef-0123-456789abcdef", None),
        (None, None),
        (THEIRS, THEIRS),
        ("two words", "unknown"),
        ("", "unknown"),
        (7, "unknown"),
    ],
)
def test_a_server_of_another_project_is_marked(owner: object, other: str | None) -> None:
    """In a single read and on a page, with the cloud's time of the answer."""
    shown = [body(id_, tenant_id=owner) for id_ in IDS[:5]]
    for reader, ids in ((FakeReader(shown), IDS[:5]), (FakeReader(single=shown[0]), IDS[:1])):
        result = reader.read_all(*ids)
        assert {(seen.other_project, seen.cloud_time) for seen in result.values()} == {(other, THEN)}
    # Without the project of the login nothing can be compared.
    assert parse(shown[0], IDS[0]).other_project is None


@pytest.mark.parametrize(
    ("flavor", "name"),
    [
        ({"original_name": "physical.h2.large", "vcpus": 16}, "physical.h2.large"),
        ({"id": "physical.o2.medium"}, "physical.o2.medium"),
        ({"id": "9d2f8d0e-0d6b-4c59-8b5b-0d9f1e7a6c11", "name": "physical.h2.large"}, "physical.h2.large"),
        ({"id": "physical.h2.large", "name": "H2"}, "physical.h2.large"),
        ({"id": "s3.large.2", "name": "s3"}, "s3"),
        ({"id": 7, "name": ""}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_a_flavor_is_its_name_or_id(flavor: object, name: str) -> None:
    """Whichever of them an API shows; one that begins with `physical.` is preferred."""
    assert parse(body(IDS[0], flavor=flavor), IDS[0]).flavor == name


@pytest.mark.parametrize("document", [{}, {"servers": None}, {"servers": {}}, {"servers": "none"}])
def test_a_list_must_have_servers(document: dict[str, object]) -> None:
    """An empty list is valid: there are none."""
    with pytest.raises(CloudUnexpectedAnswer, match="listing servers: the answer has no list of servers"):
        listed(document)
    assert listed({"servers": []}) == []


def test_a_missing_task_state_is_none_for_bms_and_an_error_for_nova() -> None:
    """BMS v1 leaves it out if no task is running; Nova always has it."""
    shown = row(0)
    del shown[TASK_STATE]
    reader = FakeReader([shown])
    with pytest.raises(CloudUnexpectedAnswer, match="no task_state"):
        reader.find(lambda _: True, 7)
    assert isinstance(reader.peek(7)[0], CloudUnexpectedAnswer)
    reader.idle = None
    assert [server.task_state for server in reader.find(lambda _: True, 7)] == [None]
    assert isinstance(reader.peek(7)[0], Server)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-06-01T10:00:00Z", datetime(2025, 6, 1, 10, tzinfo=UTC)),
        ("2025-06-01T10:00:00", datetime(2025, 6, 1, 10, tzinfo=UTC)),
        ("2025-06-01T10:00:00.500000", datetime(2025, 6, 1, 10, 0, 0, 500000, tzinfo=UTC)),
        ("yesterday", None),
        ("", None),
        (None, None),
        (1748772000, None),
    ],
)
def test_times_of_the_cloud_are_utc(value: object, expected: datetime | None) -> None:
    """With or without a zone; None if it is not a time."""
    assert stamp(value) == expected


def test_a_slim_body_is_parsed_as_the_complete_one() -> None:
    """It has every member that a guard needs."""
    whole = body(
        IDS[0],
        name="db-1",
        flavor={"id": "physical.o2.medium", "links": []},
        updated="2026-11-20T19:00:00Z",
        tags=["autostop=never"],
        metadata={"autostop": "never", "metadata": "x", "tags": "y"},
        addresses={"net": [{"addr": "192.0.2.1"}]},
        **{"OS-SRV-USG:launched_at": "2026-11-20T18:00:00.000000"},
    )
    foreign = row(1, tenant_id=THEIRS, addresses={})
    text = json.dumps({"servers": [whole, foreign], "servers_links": [{"rel": "next", "href": "x"}]})
    read = json.loads(text, object_hook=slim)
    assert parse(read["servers"][0], IDS[0]) == parse(whole, IDS[0])
    assert not [shown for shown in read["servers"] if "addresses" in shown]
    assert read["servers"][1]["tenant_id"] == THEIRS
    assert read["servers_links"] == [{"rel": "next", "href": "x"}]


def test_metadata_is_never_slimmed() -> None:
    """Whatever names a user gave to its entries, or a guard would not see the one that protects."""
    odd = dict.fromkeys(("metadata", "tags", "id", VM_STATE, "autostop"), "x")
    assert json.loads(json.dumps(body(IDS[0], metadata=odd)), object_hook=slim)["metadata"] == odd


# --- the search


def test_every_page_is_searched() -> None:
    """To the last one, whatever was found before."""
    assert found([row(0), row(1)], [row(2)], [row(3)]) == ["ci-0", "ci-1", "ci-2", "ci-3"]
    assert found([row(0), row(1)], [row(2)], wanted=lambda server: server.id == IDS[2]) == ["ci-2"]
    assert found() == found([]) == []


def test_ids_are_lower_case_and_a_server_that_is_listed_twice_is_found_once() -> None:
    """A page may begin with the last server of the page before."""
    (server,) = FakeReader([row(0, id=IDS[0].upper())]).find(lambda _: True, 7)
    assert server.id == IDS[0]
    assert found([row(0), row(1)], [row(1), row(2)]) == ["ci-0", "ci-1", "ci-2"]


@pytest.mark.parametrize("now", [{"tags": []}, {VM_STATE: "deleted"}, {"tenant_id": THEIRS}])
def test_the_last_read_of_a_server_that_is_listed_twice_counts(now: dict[str, object]) -> None:
    """It may have changed between two pages."""
    fits: Any = {"wanted": lambda server: "night" in server.tags}
    before, after = row(1, tags=["night"]), row(1, **{"tags": ["night"], **now})
    assert found([row(0), before], [after, row(2)], **fits) == []
    assert found([row(0), after], [before, row(2)], **fits) == ["ci-1"]


@pytest.mark.parametrize("state", ["deleted", "DELETED", "soft-delete", "soft_deleted"])
def test_deleted_servers_are_not_found(state: str) -> None:
    """The list for an administrator may have them."""
    assert found([row(0, **{VM_STATE: state}), row(1)]) == ["ci-1"]


def test_servers_of_other_projects_are_not_found(caplog: pytest.LogCaptureFixture) -> None:
    """A warning is logged, since the list of one project should not have them."""
    with caplog.at_level(logging.WARNING):
        assert found([row(0, tenant_id=THEIRS), row(1), {"id": IDS[2], "tenant_id": THEIRS}]) == ["ci-1"]
    (line,) = caplog.records
    assert line.getMessage() == "servers of other projects are on the list of ours"
    assert line.__dict__["left_out"] == 2


@pytest.mark.parametrize("written", [OURS.upper(), "01234567-89ab-cdef-0123-456789abcdef"])
def test_a_project_id_may_have_dashes_and_capitals(written: str) -> None:
    """That of the login, and that of a server."""
    assert found([row(0)], project_id=written) == found([row(0, tenant_id=written)]) == ["ci-0"]


_LONG = [[row(0, id=f"{number:08x}-0000-4000-8000-000000000000")] for number in range(101)]


@pytest.mark.parametrize(
    ("pages", "options", "found_"),
    [
        (_LONG[:100], {}, 100),
        ([*_LONG[:100], []], {}, 100),
        # The count may be that of one page, or missing.
        *(([[row(0), row(1)], [row(2)]], {"totals": totals}, 3) for totals in ((3, 3), (2, 2), (None, None), (2, 3))),
    ],
)
def test_a_complete_list_is_searched(pages: list[list[object]], options: dict[str, Any], found_: int) -> None:
    """Of up to a hundred pages, with at least as many servers as it counts."""
    assert len(found(*pages, **options)) == found_


@pytest.mark.parametrize(
    ("pages", "options", "message"),
    [
        *(([[row(0)]], {"project_id": id_}, "does not say which project is ours") for id_ in (None, "")),
        # It could be a matching one.
        *(
            ([[row(0), broken, row(2)]], {"wanted": lambda server: server.id == IDS[0]}, message)
            for broken, message in (
                ("random text", "no id, or no project"),
                (None, "no id, or no project"),
                ({}, "no id, or no project"),
                (row(1, id="ci-1"), "no id, or no project"),
                (row(1, id="../servers"), "no id, or no project"),
                (row(1, id=f"{IDS[1]}\n"), "no id, or no project"),
                (row(1, id=1), "no id, or no project"),
                (row(1, tenant_id=None), "no id, or no project"),
                (row(1, locked=None), "no locked, tags or metadata"),
                (row(1, tags=None), "no locked, tags or metadata"),
                (row(1, metadata=None), "no locked, tags or metadata"),
                (row(1, **{VM_STATE: None}), "no vm_state"),
                (row(1, **{TASK_STATE: 5}), "no task_state"),
            )
        ),
        # The cloud ignores the marker, so that the rest of the list is not read.
        ([[row(0), row(1)]] * 3, {}, "only servers of pages before it"),
        (_LONG, {}, "it goes on after 100 pages"),
        # With numbered pages, a created or deleted server moves another to another page; one on two pages counts once.
        *(
            ([[row(0), row(1)], last], {"totals": totals}, "changed while its pages were turned")
            for last, totals in (
                ([row(2)], (4, 4)),
                ([row(2)], (3, 4)),
                ([row(2)], (4, 3)),
                ([row(1), row(2)], (4, 4)),
            )
        ),
    ],
)
def test_an_incomplete_list_fails_the_search(pages: list[list[object]], options: dict[str, Any], message: str) -> None:
    """It would lose servers silently."""
    with pytest.raises(CloudUnexpectedAnswer, match=message):
        found(*pages, **options)


@pytest.mark.parametrize("error", [CloudUnreachable("cut"), CallDenied("no")])
def test_a_failed_page_fails_the_search(error: Exception) -> None:
    """Half a list would lose servers silently."""
    with pytest.raises(type(error)) as raised:
        found([row(0)], error)
    assert raised.value is error


@pytest.mark.parametrize("kind", [CallRejected, ServerNotFound])
def test_a_rejected_page_can_be_requested_again(kind: type[CallRejected]) -> None:
    """The server of the marker may be deleted; the error is not about a matching server."""
    with pytest.raises(CloudUnexpectedAnswer, match="marker") as raised:
        found([row(0)], kind("marker", request_id="req-1", status=400))
    assert (raised.value.request_id, raised.value.status, raised.value.waiting_helps) == ("req-1", 400, True)


def test_the_timeout_is_for_all_pages_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short each of them takes."""
    monkeypatch.setattr(servers, "monotonic", iter([0.0, 3.0, 6.9, 7.1, 0.0, 3.0, 7.0]).__next__)
    with pytest.raises(CloudUnreachable, match="out of time between its pages"):
        found([row(0)], [row(1)], [row(2)])
    assert len(found([row(0)], [row(1)])) == 2

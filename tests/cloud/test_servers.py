"""Reading many servers: pages joined with the ids that were asked for, or single reads where these are cheaper."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

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
THEN = datetime(2026, 11, 20, 18, tzinfo=UTC)
IDS = [str(uuid.UUID(int=number)) for number in range(1, 21)]


def body(id_: str, **changes: object) -> dict[str, object]:
    """A server as both APIs show it."""
    shown: dict[str, object] = {
        "id": id_,
        "OS-EXT-STS:vm_state": "active",
        "OS-EXT-STS:task_state": None,
        "locked": False,
        "tags": [],
        "metadata": {},
    }
    return {**shown, **changes}


class _Project:
    """An endpoint that only knows the project of the login."""

    def project(self, timeout: float) -> str:
        assert timeout == 7
        return OURS


class FakeCloud(Reader):
    """Pages and single servers to be read, and what was requested of them."""

    def __init__(self, *pages: Sequence[object] | Exception, single: object = None) -> None:
        super().__init__(None, _Project())  # type: ignore[arg-type]
        self.pages, self.single = pages, single
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
        for page in self.pages:
            self.pages_read += 1
            if isinstance(page, Exception):
                raise page
            yield Shown(page, THEN)

    def read_all(self, *ids: str) -> dict[str, Any]:
        return dict(self.read(ids, 7))


def test_a_few_servers_are_read_singly_and_more_by_pages() -> None:
    """Four calls are as quick as a page."""
    reading = FakeCloud()
    assert reading.read_groups(IDS[:4]) == [(id_,) for id_ in IDS[:4]]
    assert reading.read_groups(IDS[:5]) == [IDS[:5]]
    assert reading.read_groups([]) == []


def test_in_a_large_project_single_reads_pay_longer() -> None:
    """After a list of seven pages, seven servers are not worth another one."""
    fake = FakeCloud(*([body(id_)] for id_ in IDS[:7]))
    fake.read_all(*IDS[:8])
    assert fake.read_groups(IDS[:7]) == [(id_,) for id_ in IDS[:7]]
    assert fake.read_groups(IDS[:8]) == [IDS[:8]]


def test_only_what_was_asked_for_comes_out_of_a_page() -> None:
    """Whatever else is on it, and in whatever case the ids are written."""
    page = [body(IDS[9]), "rubbish", {"no": "id"}, *(body(id_.upper()) for id_ in IDS[:5])]
    fake = FakeCloud(page)
    found = fake.read_all(*IDS[:5])
    assert {id_: server.id for id_, server in found.items()} == {id_: id_ for id_ in IDS[:5]}
    assert (fake.pages_read, fake.requested) == (1, [])


def test_pages_are_turned_until_at_most_one_server_is_missing() -> None:
    """The last one is cheaper to read singly than to be looked for on further pages."""
    fake = FakeCloud([body(IDS[0])], [body(id_) for id_ in IDS[1:4]], [body(IDS[4])])
    assert set(fake.read_all(*IDS[:5])) == set(IDS[:5])
    assert (fake.pages_read, fake.requested) == (2, [IDS[4]])


def test_what_is_on_no_page_is_asked_for_singly() -> None:
    """A page may shift while it is turned: only the cloud's own word for it is believed."""
    fake = FakeCloud([body(id_) for id_ in IDS[:3]], single=ServerNotFound("gone"))
    found = fake.read_all(*IDS[:6])
    assert sorted(fake.requested) == IDS[3:6]
    assert {type(found[id_]) for id_ in IDS[:3]} == {Server}
    assert {type(found[id_]) for id_ in IDS[3:6]} == {ServerNotFound}


def test_a_cloud_that_pages_for_ever_is_left_after_a_hundred() -> None:
    """What was not found by then is asked for singly."""
    fake = FakeCloud(*([body(IDS[19])] for _ in range(150)))
    assert set(fake.read_all(*IDS[:5])) == set(IDS[:5])
    assert (fake.pages_read, sorted(fake.requested)) == (100, IDS[:5])


def test_a_page_that_fails_keeps_what_was_found_before() -> None:
    """The others are unknown, and not missing."""
    fault = CloudUnreachable("cut")
    fake = FakeCloud([body(IDS[0])], fault)
    found = fake.read_all(*IDS[:5])
    assert isinstance(found[IDS[0]], Server)
    assert [found[id_] for id_ in IDS[1:5]] == [fault] * 4
    assert fake.requested == []


@pytest.mark.parametrize("kind", [CallDenied, CallRejected, CloudFault, ServerNotFound, CloudUnexpectedAnswer])
def test_what_a_list_that_fails_did_not_show_is_to_be_read_singly(kind: type[CloudError]) -> None:
    """From then on no list is asked for: not permitted, a marker that is gone, an error inside, or no list at all."""
    fake = FakeCloud([body(IDS[0])], kind("no"))
    found = fake.read_all(*IDS[:5])
    assert isinstance(found[IDS[0]], Server)
    assert [found[id_] for id_ in IDS[1:5]] == [ReadSingly()] * 4
    assert fake.requested == []
    assert fake.read_groups(IDS) == [(id_,) for id_ in IDS]


def test_a_list_that_does_not_answer_is_asked_once_more() -> None:
    """Many calls would not help a cloud that is down; but a list that is cut again is too long for it."""
    fault = CloudUnreachable("cut")
    fake = FakeCloud(fault)
    assert set(fake.read_all(*IDS[:5]).values()) == {fault}
    assert fake.read_groups(IDS[:5]) == [IDS[:5]]
    assert set(fake.read_all(*IDS[:5]).values()) == {ReadSingly()}
    assert fake.read_groups(IDS[:5]) == [(id_,) for id_ in IDS[:5]]


def test_a_list_that_is_throttled_is_asked_again() -> None:
    """However often: the cloud wants fewer calls."""
    fake = FakeCloud(CloudThrottled("slow"))
    for _ in range(3):
        assert {type(seen) for seen in fake.read_all(*IDS[:5]).values()} == {CloudThrottled}
    assert fake.read_groups(IDS[:5]) == [IDS[:5]]


@pytest.mark.parametrize("kind", [LoginRefused, EndpointUnusable])
def test_what_concerns_all_is_raised_and_not_reported_of_servers(kind: type[CloudError]) -> None:
    """On a page as in a single read."""
    with pytest.raises(kind):
        FakeCloud(kind("no")).read_all(*IDS[:5])
    with pytest.raises(kind):
        FakeCloud(single=kind("no")).read_all(IDS[0])


@pytest.mark.parametrize(
    ("owner", "other"),
    [
        (OURS, None),
        (OURS.upper(), None),
        ("01234567-89ab-cdef-0123-456789abcdef", None),
        (None, None),
        ("f" * 32, "f" * 32),
        ("two words", "unknown"),
        ("", "unknown"),
        (7, "unknown"),
    ],
)
def test_a_server_of_another_project_is_marked(owner: object, other: str | None) -> None:
    """Singly and on a page, with the time that the cloud's clock showed."""
    shown = [body(id_, tenant_id=owner) for id_ in IDS[:5]]
    for fake in (FakeCloud(shown), FakeCloud(single=shown[0])):
        found = fake.read_all(*IDS[: 5 if fake.pages else 1])
        assert {(seen.other_project, seen.cloud_time) for seen in found.values()} == {(other, THEN)}


def test_without_a_project_of_the_login_no_server_is_anothers() -> None:
    """Nothing could be compared."""
    assert parse(body(IDS[0], tenant_id="f" * 32), IDS[0]).other_project is None


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
def test_a_flavor_is_known_by_its_name(flavor: object, name: str) -> None:
    """Whatever of name and id an API shows; one that says bare metal is enough."""
    assert parse(body(IDS[0], flavor=flavor), IDS[0]).flavor == name


def test_a_body_that_hides_something_is_that_servers_fault_alone() -> None:
    """On a page as in a single read."""
    found = FakeCloud([body(IDS[0], locked=None), *(body(id_) for id_ in IDS[1:5])]).read_all(*IDS[:5])
    assert isinstance(found[IDS[0]], CloudUnexpectedAnswer)
    assert {type(found[id_]) for id_ in IDS[1:5]} == {Server}
    (alone,) = FakeCloud(single=body(IDS[0], tags=None)).read_all(IDS[0]).values()
    assert isinstance(alone, CloudUnexpectedAnswer)


def test_a_peek_shows_the_first_page_only() -> None:
    """Whatever stands on it; an empty project is not a fault, a cloud that does not answer is."""
    fake = FakeCloud([body(IDS[0]), "rubbish", body(IDS[1], tags=None)], [body(IDS[2])])
    assert [type(seen) for seen in fake.peek(7)] == [Server, CloudUnexpectedAnswer, CloudUnexpectedAnswer]
    assert fake.pages_read == 1
    assert FakeCloud().peek(7) == []
    with pytest.raises(CloudError):
        FakeCloud(CloudUnreachable("cut")).peek(7)


@pytest.mark.parametrize("document", [{}, {"servers": None}, {"servers": {}}, {"servers": "none"}])
def test_a_list_without_servers_is_confusing(document: dict[str, object]) -> None:
    """An empty one is not: it says that there are none."""
    with pytest.raises(CloudUnexpectedAnswer, match="listing: the answer has no list of servers"):
        listed(document, "listing")
    assert listed({"servers": []}, "listing") == []


def test_a_task_state_that_is_left_out_means_idle_only_where_the_api_says_so() -> None:
    """BMS v1 leaves it out; Nova always shows it."""
    shown = body(IDS[0])
    del shown["OS-EXT-STS:task_state"]
    assert parse(shown, IDS[0], idle=None).task_state is None
    with pytest.raises(CloudUnexpectedAnswer, match="no task_state"):
        parse(shown, IDS[0])


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
    """With or without a zone; what is not a time is none."""
    assert stamp(value) == expected


def test_a_slim_body_parses_as_the_whole_one() -> None:
    """Nothing that a guard looks at is lost on the way."""
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
    text = json.dumps({"servers": [whole], "servers_links": [{"rel": "next", "href": "x"}]})
    read = json.loads(text, object_hook=slim)
    assert parse(read["servers"][0], IDS[0]) == parse(whole, IDS[0])
    assert "addresses" not in read["servers"][0]
    assert read["servers_links"] == [{"rel": "next", "href": "x"}]


def test_metadata_is_never_slimmed() -> None:
    """Whatever names a user gave to its entries, or a guard would not see the one that protects."""
    names = ("metadata", "tags", "id", "OS-EXT-STS:vm_state", "autostop")
    odd = dict.fromkeys(names, "x")
    assert json.loads(json.dumps(body(IDS[0], metadata=odd)), object_hook=slim)["metadata"] == odd

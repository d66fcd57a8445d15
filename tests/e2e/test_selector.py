"""Events with a selector, from the endpoint to the result, on either API and over real HTTP.

What fits a selector, and what comes of a list, is tested in tests/stop/test_selection.py and tests/cloud/.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from handler import cli
from handler.cloud import servers as servers_module
from handler.simulator import CallKind, Fault, Simulator
from tests.conftest import Function, StartFunction
from tests.e2e.outcomes import came_out, shown, stops
from tests.services.test_stop_servers import post_batch, result_of
from tests.support.events import event

APIS = ("nova", "bms")
CI = {"tags": ["env=ci"]}


@pytest.fixture
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers_module, "PAGE", 3)


def sent(function: Function, selector: object, *, more: Mapping[str, Any] | None = None, **attributes: Any) -> Any:
    """The answer to an event with this selector; its result keeps to the schemas."""
    answer = function.send({"selector": selector, **(more or {})}, **attributes)
    if answer.status_code == 200:
        result_of(answer)
    return answer


def lists(cloud: Simulator) -> int:
    """How often the list was asked for."""
    return cloud.count(CallKind.LIST)


def test_what_the_selector_fits_is_stopped_and_nothing_else(cloud: Simulator, function: Function) -> None:
    """Each part by itself, and all together; one call lists, and no server is read before its stop."""
    both: dict[str, Any] = {"tags": ["env=ci", "team"], "metadata": {"shard": "3"}}
    fits = cloud.add_server("ci-07", **both)
    others = [
        cloud.add_server("ci-08", tags=["env=ci", "team"]),
        cloud.add_server("ci-09", tags=["env=ci"], metadata={"shard": "3"}),
        cloud.add_server("db-07", **both),
        cloud.add_server("Ci-07", **both),
        cloud.add_server("xci-07", **both),
        cloud.add_server("ci-10", tags=["ENV=ci", "team"], metadata={"shard": "3"}),
        cloud.add_server("ci-11", tags=["env=ci", "team"], metadata={"shard": "33"}),
    ]
    selector = {**both, "name": "ci-*"}
    answer = sent(function, selector)
    assert came_out(answer) == {fits: "stopped/confirmed"}
    assert (answer.headers["ce-type"], answer.headers["ce-subject"]) == (
        "io.github.bms-autostop.stop.completed.v1",
        fits,
    )
    assert (answer.json()["request"]["selector"], answer.json()["detail"]) == (selector, None)
    assert {cloud.stops_sent(id_) for id_ in others} == {0}
    assert {cloud.server(id_).vm_state for id_ in others} == {"active"}
    # The second page is empty, and says that the list is whole.
    assert lists(cloud) == 2
    kinds = [call.kind for call in cloud.calls]
    assert CallKind.READ not in kinds[: kinds.index(CallKind.STOP)]


@pytest.mark.parametrize("name", ["机器-7", "'; --%20&name=ci"])
def test_a_name_is_matched_by_the_function_itself(cloud: Simulator, function: Function, name: str) -> None:
    """It never becomes a filter, a pattern or a part of a URL of the cloud's."""
    ids = {each: cloud.add_server(each) for each in ("机器-7", "机器-77", "'; --%20&name=ci", "ci-x")}
    assert came_out(sent(function, {"name": f"{name[:-1]}?"})) == {ids[name]: "stopped/confirmed"}
    assert all("name" not in call.path for call in cloud.calls if call.kind is CallKind.LIST)


def test_every_guard_counts(cloud: Simulator, function: Function) -> None:
    """To be selected is to be asked for, no more. Rows come in the order of names."""
    expected: dict[str, tuple[dict[str, Any], str]] = {
        "a": ({}, "stopped/confirmed"),
        "b": ({"locked": True}, "skipped/locked"),
        "c": ({"tags": ["env=ci", "autostop=never"]}, "skipped/protected"),
        "d": ({"metadata": {"autostop-keep-until": "2999-01-01T00:00:00Z"}}, "skipped/kept-until"),
        "e": ({"vm_state": "stopped"}, "unchanged/already-stopped"),
        "f": ({"vm_state": "paused"}, "failed/wrong-state"),
        "g": ({"vm_state": "error", "launched": False}, "failed/never-launched"),
    }
    ids = {name: cloud.add_server(name, **{"tags": ["env=ci"], **facts}) for name, (facts, _) in expected.items()}
    answer = sent(function, CI)
    assert came_out(answer) == {ids[name]: outcome for name, (_, outcome) in expected.items()}
    assert [row["name"] for row in answer.json()["servers"]] == sorted(expected)
    assert answer.headers["ce-type"].endswith(".stop.failed.v1")
    assert "ce-subject" not in answer.headers
    assert {call.server_id for call in stops(cloud) if call.server_id} <= {ids["a"]}


@pytest.mark.usefixtures("_small_pages")
def test_all_pages_are_turned(cloud: Simulator, function: Function) -> None:
    """What fits may stand on any of them."""
    fits = {cloud.add_server(f"ci-{number}", tags=["env=ci"] if number % 4 == 0 else []) for number in range(12)}
    expected = {id_ for id_ in fits if cloud.server(id_).tags}
    assert set(came_out(sent(function, CI))) == expected
    assert {id_ for id_ in fits if cloud.server(id_).vm_state == "stopped"} == expected
    assert 4 <= lists(cloud) <= 9


@pytest.mark.usefixtures("_small_pages", "quick_retries")
def test_a_list_that_fails_half_way_stops_nothing_and_comes_again(cloud: Simulator, start: StartFunction) -> None:
    """The first page holds servers that fit, and they are left alone; once the list is whole again, all are stopped."""
    ids = [cloud.add_server(f"ci-{number}") for number in range(5)]
    function = start(cloud, AUTOSTOP_DEADLINE="1s", AUTOSTOP_WAIT="0.5s")
    cloud.inject(Fault(on=CallKind.LIST, skip=1, status=503, times=None))
    answer = sent(function, {"name": "ci-*"}, id="night-1")
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (503, "budget-spent")
    assert "Retry-After" in answer.headers
    assert stops(cloud) == []
    cloud.clear_faults()
    assert came_out(sent(function, {"name": "ci-*"}, id="night-1")) == dict.fromkeys(ids, "stopped/confirmed")


def test_a_list_that_shows_servers_of_others_stops_only_ours(cloud: Simulator, function: Function, api: str) -> None:
    """As one for an administrator does: other projects, deleted ones; they match, and were not requested."""
    ours = cloud.add_server("ci-07")
    document = shown(cloud, api)
    strange, gone = cloud.add_server("ci-08", project_id=cloud.other_project_id), cloud.add_server("db-01")
    (row,) = document["servers"]
    document["servers"] += [
        {**row, "id": strange, "name": "ci-08", "tenant_id": cloud.other_project_id},
        {**row, "id": gone, "name": "ci-09", "OS-EXT-STS:vm_state": "deleted", "status": "DELETED"},
    ]
    cloud.inject(Fault(on=CallKind.LIST, status=200, body=json.dumps({**document, "count": 3})))
    assert came_out(sent(function, {"name": "ci-*"})) == {ours: "stopped/confirmed"}
    assert {cloud.server(id_).vm_state for id_ in (strange, gone)} == {"active"}


def test_a_dry_run_only_looks(cloud: Simulator, function: Function) -> None:
    """It says what would be stopped, by one list."""
    runs, rests = cloud.add_server("ci-1"), cloud.add_server("ci-2", vm_state="stopped")
    answer = sent(function, {"name": "ci-*"}, more={"dry_run": True})
    assert came_out(answer) == {runs: "planned/dry-run", rests: "unchanged/already-stopped"}
    assert {call.method for call in cloud.calls if call.kind is not CallKind.LOGIN} == {"GET"}
    # The second page is empty, and says that the list is whole.
    assert lists(cloud) == 2


def test_a_redelivery_stops_nothing_twice_and_finds_what_fits_then(cloud: Simulator, function: Function) -> None:
    """The selector is looked up anew: a server that was tagged in between is stopped by the repeat."""
    first = cloud.add_server("ci-1", tags=["env=ci"])
    answers = [sent(function, CI, id="night-1")]
    later = cloud.add_server("ci-2", tags=["env=ci"])
    answers.append(sent(function, CI, id="night-1"))
    assert came_out(answers[0]) == {first: "stopped/confirmed"}
    assert came_out(answers[1]) == {first: "unchanged/already-stopped", later: "stopped/confirmed"}
    assert answers[0].headers["ce-id"] != answers[1].headers["ce-id"]
    assert answers[0].headers["ce-causationid"] == answers[1].headers["ce-causationid"]
    assert (cloud.stops_sent(first), cloud.stops_sent(later)) == (1, 1)


def test_events_of_a_batch_are_selected_each_for_itself(cloud: Simulator, function: Function) -> None:
    """One names, one selects."""
    named, selected = cloud.add_server("db-1"), cloud.add_server("ci-1")
    asked = [{"server_id": named}, {"selector": {"name": "ci-*"}}, {"selector": {"name": "absent-*"}}]
    answer = post_batch(function, *(event(id=str(number), data=data) for number, data in enumerate(asked)))
    reported = [[row["id"] for row in result["data"]["servers"]] for result in answer.json()]
    assert reported == [[named], [selected], []]


def test_plan_shows_what_a_selector_fits(
    api: str, cloud: Simulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is touched; it is not an error if none fits."""
    for name, value in {**cloud.environ(), "AUTOSTOP_API": api}.items():
        monkeypatch.setenv(name, value)
    server = cloud.add_server("ci-07", updated=time.time() - 3600)
    cloud.add_server("ci-08", vm_state="stopped")

    def planned(glob: str) -> tuple[int, str]:
        code = cli.main(["plan", "--name", glob])
        return code, " ".join(capsys.readouterr().out.split())

    code, output = planned("ci-*")
    assert code == 0
    assert f"ci-07 {server} active planned/dry-run: It would be stopped; it is active." in output
    assert "2 servers: 1 would be stopped, 1 unchanged." in output
    code, output = planned("db-*")
    assert code == 0
    assert "No server of the project fits the selector." in output
    monkeypatch.setenv("AUTOSTOP_MAX_SERVERS", "1")
    code, output = planned("ci-*")
    assert code == 3
    assert "too-many-servers. 2 servers fit the selector; at most 1 are taken at once." in output
    assert stops(cloud) == []

"""Every call that the function makes, times everything that can go wrong with it, over real HTTP.

Each cell is a cloud and a function of its own; all cells of one kind of call run at once. What may come of a cell
stands in the tables; what must hold in all of them, whatever the outcome, is checked by `_broken`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import requests

from handler import rfc3339
from handler.simulator import CallKind, Cut, Fault, Simulator
from handler.stop import run as run_module
from tests.conftest import StartFunction

DEADLINE = 3.5
LIMITS = {"AUTOSTOP_DEADLINE": f"{DEADLINE}s", "AUTOSTOP_WAIT": "2.6s", "AUTOSTOP_CONCURRENCY": "4"}
PAGE = "<html><body>Welcome to the proxy</body></html>"

DONE, TAKEN, AGAIN = "stopped/confirmed", "accepted/accepted", "503"
ERROR, FOUND = "failed/cloud-error", "unchanged/already-stopped"


def faults() -> dict[str, dict[str, Any]]:
    """What can go wrong with one exchange, by name."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    page = {"body": PAGE, "content_type": "text/html"}
    return {
        "cut before": {"cut": Cut.BEFORE},
        "cut after": {"cut": Cut.AFTER},
        "cut in the body": {"cut": Cut.MIDWAY},
        "slow headers": {"delay": 30.0},
        "slow answer": {"hold": 30.0},
        "slow body": {"slow_body": 0.1},
        "200 truncated": {"status": 200, "body": '{"server": {"id": "'},
        "200 truncated, acted": {"status": 200, "body": '{"job_i', "act": True},
        "200 empty": {"status": 200, "body": b""},
        "200 page": {"status": 200, **page},
        "200 page, acted": {"status": 200, "act": True, **page},
        "502 page": {"status": 502, **page},
        "502 page, acted": {"status": 502, "act": True, **page},
        "504 page": {"status": 504, **page},
        "504 page, acted": {"status": 504, "act": True, **page},
        "413 told": {"status": 413, "headers": {"Retry-After": "1"}},
        "429": {"status": 429},
        "429 told": {"status": 429, "headers": {"Retry-After": "1"}},
        "429 dated": {"status": 429, "headers": {"Retry-After": soon}},
        "429 told nonsense": {"status": 429, "headers": {"Retry-After": "soon"}},
        "500": {"status": 500},
        "503": {"status": 503},
        "401": {"status": 401},
    }


_SLOW = ("slow headers", "slow answer", "slow body")
_THROTTLED = ("413 told", "429", "429 told", "429 dated", "429 told nonsense")
# A wait of a second may or may not leave enough of the budget; that it is kept is tested elsewhere.
_TOLD = ("413 told", "429 told", "429 dated")
_ACTED = ("502 page, acted", "504 page, acted")


@dataclass(frozen=True)
class Row:
    """One kind of call.

    Attributes:
        servers: how many one event names.
        once, always: what may come of a fault that strikes once, or every time, unless the other two say otherwise.
        once_but, always_but: the same for single faults.
        dated: the event has a time, so that the history is asked for.
    """

    api: str
    on: CallKind
    servers: int
    always: str
    once: str = DONE
    once_but: Mapping[str, str] | None = None
    always_but: Mapping[str, str] | None = None
    dated: bool = False

    def allowed(self, fault: str, often: str) -> list[str]:
        """What may come of a fault."""
        single, rule = (self.once_but, self.once) if often == "once" else (self.always_but, self.always)
        late = [DONE, TAKEN, AGAIN] if fault in _TOLD and often == "once" else []
        return [*(single or {}).get(fault, rule).split(" or "), *late]


def _each(names: tuple[str, ...], outcome: str) -> dict[str, str]:
    return dict.fromkeys(names, outcome)


# A call that is slow eats the budget, and then nothing that has not been taken may be told.
_LOOK = {"always": AGAIN, "once_but": _each(_SLOW, AGAIN)}
_JOB = f"{DONE} or {TAKEN}"
ROWS = {
    "login": Row("nova", CallKind.LOGIN, 2, AGAIN, once_but={**_each(_SLOW, AGAIN), "401": AGAIN}),
    "read": Row("nova", CallKind.READ, 1, **_LOOK),
    "list": Row("nova", CallKind.LIST, 5, **_LOOK),
    "stop": Row(
        "nova",
        CallKind.STOP,
        1,
        AGAIN,
        once_but={
            # It has no body that could be slow; and Nova's word for a success is its status alone.
            **{"slow headers": AGAIN, "slow answer": AGAIN, "slow body": DONE},
            **_each(("200 truncated", "200 empty", "200 page"), TAKEN),
        },
        always_but={
            **_each(("cut after", "cut in the body", "slow body", *_ACTED), DONE),
            **_each(("200 truncated, acted", "200 page, acted"), DONE),
            **_each(("200 truncated", "200 empty", "200 page"), TAKEN),
            "500": ERROR,
        },
    ),
    "history": Row(
        "nova",
        CallKind.ACTIONS,
        1,
        ERROR,
        once_but=_each(_SLOW, AGAIN),
        # What is late or throttled may come yet.
        always_but=_each((*_SLOW, *_THROTTLED, "401"), AGAIN),
        dated=True,
    ),
    "bms read": Row("bms", CallKind.READ, 1, **_LOOK),
    "bms list": Row("bms", CallKind.LIST, 5, **_LOOK),
    "bms stop": Row(
        "bms",
        CallKind.STOP,
        1,
        AGAIN,
        once_but=_each(_SLOW, AGAIN),
        always_but={
            **_each(("cut after", "cut in the body", "200 truncated, acted", "200 page, acted", *_ACTED), DONE),
            "500": ERROR,
        },
    ),
    "bms batch": Row(
        "bms",
        CallKind.STOP,
        6,
        AGAIN,
        once_but=_each(_SLOW, AGAIN),
        always_but={
            **_each(("cut after", "cut in the body", "200 truncated, acted", "200 page, acted", *_ACTED), DONE),
            "500": ERROR,
        },
    ),
    "job": Row(
        "bms",
        CallKind.JOB,
        2,
        # What the cloud took stays taken, whatever becomes of the questions about it.
        _JOB,
        once=_JOB,
        always_but={**_each(_SLOW, TAKEN), "401": AGAIN},
    ),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again soon."""
    monkeypatch.setitem(run_module.run.__kwdefaults__, "backoff", lambda attempt: 0.01 * 2 ** min(attempt, 4))


@contextmanager
def _clouds(api: str, names: list[str]) -> Iterator[dict[str, Simulator]]:
    with ExitStack() as running:
        make: Callable[..., Simulator] = Simulator.otc if api == "bms" else Simulator
        yield {name: running.enter_context(make(power_off_delay=0.05)) for name in names}


def _at_once(sends: Mapping[str, Callable[[], requests.Response]]) -> dict[str, requests.Response]:
    with ThreadPoolExecutor(len(sends)) as threads:
        coming = {name: threads.submit(send) for name, send in sends.items()}
        return {name: future.result() for name, future in coming.items()}


def _outcomes(answer: requests.Response) -> set[str]:
    if answer.status_code != 200:
        return {str(answer.status_code)}
    return {f"{row['outcome']}/{row['reason']}" for row in answer.json()["servers"]}


def _broken(cloud: Simulator, answer: requests.Response, ids: list[str]) -> list[str]:
    """Which of the rules that hold in every cell were broken."""
    broken = []
    if answer.elapsed.total_seconds() > DEADLINE + 1:
        broken.append(f"answered after {answer.elapsed.total_seconds():.1f} s")
    if answer.status_code == 503 and int(answer.headers["Retry-After"]) < 1:
        broken.append("no time to wait")
    if answer.status_code == 503 and answer.headers["Content-Type"] != "application/problem+json":
        broken.append("no problem document")
    if "Traceback" in answer.text or "Welcome to the proxy" in answer.text:
        broken.append("the answer tells too much")
    for id_ in ids:
        if cloud.stops_taken(id_) > 1:
            broken.append("stopped twice")
        unlooked = False
        for call in cloud.calls:
            if call.kind is CallKind.LIST or (call.kind is CallKind.READ and call.server_id == id_):
                unlooked = False
            elif call.kind is CallKind.STOP and id_ in call.server_ids:
                if unlooked:
                    broken.append("a stop without a look")
                # Nothing was done for a token that is not taken: the same call goes out with a new one.
                unlooked = call.status != 401
    if answer.status_code == 200:
        for row in answer.json()["servers"]:
            off = cloud.server(row["id"]).vm_state == "stopped"
            if (row["outcome"] in ("stopped", "unchanged")) != off and row["outcome"] != "accepted":
                broken.append(f"told as {row['outcome']}, but that is not so")
    return broken


def _assert_cells(
    cells: Mapping[str, tuple[Simulator, list[str], list[str]]],
    answers: Mapping[str, requests.Response],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each cell came out as one of what is allowed for it, and kept all rules."""
    found = {name: sorted(_outcomes(answer)) for name, answer in answers.items()}
    wrong = {
        name: (found[name], allowed) for name, (_, _, allowed) in cells.items() if not {*found[name]} <= {*allowed}
    }
    broken = {name: _broken(cloud, answers[name], ids) for name, (cloud, ids, _) in cells.items()}
    assert (wrong, {name: rules for name, rules in broken.items() if rules}) == ({}, {})
    assert [record.getMessage() for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []


# What names many servers is a lot of work at once, and the time that cells have is short.
@pytest.mark.parametrize(
    ("kind", "waves"),
    [
        (kind, waves)
        for kind, row in ROWS.items()
        for waves in ([("once", "always")] if row.servers < 5 else [("once",), ("always",)])
    ],
)
def test_a_call_that_goes_wrong_ends_as_its_row_says(
    start_function: StartFunction, caplog: pytest.LogCaptureFixture, kind: str, waves: tuple[str, ...]
) -> None:
    """An outcome that is true, or a 503 in time; no second stop without a look, and no bug."""
    row, cells, sends = ROWS[kind], {}, {}
    wrong = {f"{often}: {name}": fault for often in waves for name, fault in faults().items()}
    with _clouds(row.api, [*wrong]) as clouds:
        for name, cloud in clouds.items():
            often, _, fault = name.partition(": ")
            cloud.inject(Fault(on=row.on, times=1 if often == "once" else None, **wrong[name]))
            ids = [cloud.add_server() for _ in range(row.servers)]
            function = start_function(cloud, **LIMITS, AUTOSTOP_API=row.api)
            time = {"time": rfc3339.render(datetime.now(UTC) - timedelta(seconds=30))} if row.dated else {}
            cells[name] = (cloud, ids, row.allowed(fault, often))
            sends[name] = lambda function=function, ids=ids, time=time: function.stop(*ids, **time)
        _assert_cells(cells, _at_once(sends), caplog)
        assert {name for name, cloud in clouds.items() if not cloud.count(row.on)} == set()


@pytest.mark.parametrize("api", ["nova", "bms"])
def test_a_host_that_cannot_be_reached_means_later_again(
    start_function: StartFunction, caplog: pytest.LogCaptureFixture, api: str
) -> None:
    """No name, no listener, no TLS: of IAM and of the API, for one server and for a list; and nothing is stopped."""
    address = "AUTOSTOP_BMS_URL" if api == "bms" else "AUTOSTOP_COMPUTE_URL"
    troubles = ("no name", "refused", "no TLS")
    hosts = [f"{who} {count} {trouble}" for who in ("IAM", "API") for count in (1, 6) for trouble in troubles]
    cells, sends = {}, {}
    with _clouds(api, hosts) as clouds, socket.socket() as unheard:
        # Bound and not listening: whoever connects is refused, and nobody else gets the port meanwhile.
        unheard.bind(("127.0.0.1", 0))
        for name, cloud in clouds.items():
            who, count, what = name.split(" ", 2)
            host = {
                "no name": "http://nowhere.invalid",
                "refused": f"http://127.0.0.1:{unheard.getsockname()[1]}",
                "no TLS": cloud.url.replace("http:", "https:"),
            }[what]
            place = {"OS_AUTH_URL": f"{host}/v3", address: ""} if who == "IAM" else {address: host}
            ids = [cloud.add_server() for _ in range(int(count))]
            function = start_function(cloud, **{**LIMITS, "AUTOSTOP_API": api, **place})
            cells[name] = (cloud, ids, [AGAIN])
            sends[name] = lambda function=function, ids=ids: function.stop(*ids)
        _assert_cells(cells, _at_once(sends), caplog)
        assert {call.kind for cloud in clouds.values() for call in cloud.calls} == {CallKind.LOGIN}


@pytest.mark.parametrize("api", ["nova", "bms"])
@pytest.mark.parametrize("beside", [0, 5])
def test_a_server_that_vanishes_between_look_and_stop_is_not_found(
    start_function: StartFunction, api: str, beside: int
) -> None:
    """The first look still shows it; the others of a batch that the cloud refuses because of it are stopped."""
    with _clouds(api, ["one"]) as clouds:
        cloud = clouds["one"]
        gone, *others = ids = [cloud.add_server() for _ in range(beside + 1)]
        function = start_function(cloud, **LIMITS, AUTOSTOP_API=api)
        page, single = _shown(cloud, api, gone)
        on, body = (CallKind.LIST, page) if beside else (CallKind.READ, single)
        before = len(cloud.calls)
        cloud.delete_server(gone)
        cloud.inject(Fault(on=on, status=200, body=body))
        answer = function.stop(*ids)
        outcomes = {row["id"]: f"{row['outcome']}/{row['reason']}" for row in answer.json()["servers"]}
        assert outcomes == {gone: "failed/not-found", **dict.fromkeys(others, DONE)}
        assert cloud.stops_sent(gone) >= 1
        assert cloud.stops_taken(gone) == 0
        assert {cloud.stops_taken(id_) for id_ in others} <= {1}
        assert len(cloud.calls) - before < 20 + 2 * beside


def _shown(cloud: Simulator, api: str, server: str) -> tuple[str, str]:
    """What the cloud shows of all its servers, and of one."""
    base, project = ("/v1", "baremetalservers") if api == "bms" else ("/v2.1", "servers")
    headers = {"X-Auth-Token": cloud.token(), "OpenStack-API-Version": "compute 2.26"}
    page = requests.get(f"{cloud.url}{base}/{cloud.project_id}/{project}/detail", headers=headers, timeout=10).json()
    (single,) = [body for body in page["servers"] if body["id"] == server]
    return json.dumps(page), json.dumps({"server": single})

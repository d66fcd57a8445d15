"""Every call that the function makes, times everything that can go wrong with it, over real HTTP.

Each cell is a cloud and a function of its own; all cells of one kind of call run at once. What may come of a cell
stands in the tables; what must hold in all of them, whatever the outcome, is checked by `_broken`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import requests

from handler import rfc3339
from handler.simulator import CallKind, Cut, Fault, Simulator
from tests.conftest import StartFunction
from tests.e2e.conftest import set_backoff
from tests.e2e.outcomes import came_out, shown

DEADLINE = 3.5
LIMITS = {"AUTOSTOP_DEADLINE": f"{DEADLINE}s", "AUTOSTOP_WAIT": "2.6s", "AUTOSTOP_CONCURRENCY": "4"}
# So often a cell is tried that may only have lacked time; each time with the few others of its kind.
TRIES = 4
PAGE = "<html><body>Welcome to the proxy</body></html>"

DONE, TAKEN, AGAIN = "stopped/confirmed", "accepted/accepted", "503"
ERROR, FORBIDDEN, FOUND = "failed/cloud-error", "failed/forbidden", "unchanged/already-stopped"


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
        "200 very deep": {"status": 200, "body": "[" * 100_000},
        "200 not gzip": {"status": 200, "body": "no gzip", "headers": {"Content-Encoding": "gzip"}},
        "404 page": {"status": 404, **page},
        "408": {"status": 408},
        "502 page": {"status": 502, **page},
        "502 page, acted": {"status": 502, "act": True, **page},
        "504 page": {"status": 504, **page},
        "504 page, acted": {"status": 504, "act": True, **page},
        "413 timed": {"status": 413, "headers": {"Retry-After": "1"}},
        "429": {"status": 429},
        "429 timed": {"status": 429, "headers": {"Retry-After": "1"}},
        "429 dated": {"status": 429, "headers": {"Retry-After": soon}},
        "429 invalid time": {"status": 429, "headers": {"Retry-After": "soon"}},
        "500": {"status": 500},
        "503": {"status": 503},
        "401": {"status": 401},
    }


_SLOW = ("slow headers", "slow answer", "slow body")
_THROTTLED = ("413 timed", "429", "429 timed", "429 dated", "429 invalid time")
# A wait of a second may or may not leave enough of the budget; that it is kept is tested elsewhere.
_TIMED = ("413 timed", "429 timed", "429 dated")
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
        single, rule = (self.once_but, self.once) if often == "once" else (self.always_but, self.always)
        late = [DONE, TAKEN, AGAIN] if fault in _TIMED and often == "once" else []
        return [*(single or {}).get(fault, rule).split(" or "), *late]


def _each(names: tuple[str, ...], outcome: str) -> dict[str, str]:
    return dict.fromkeys(names, outcome)


# A call that is slow uses up the budget, and then nothing that has not been taken may be reported.
_READ: Any = {"always": AGAIN, "once_but": _each(_SLOW, AGAIN)}
# What a list does not show is read singly; but not while the cloud is overloaded or does not answer.
_LIST: Any = {
    "always": DONE,
    "once_but": _each(_SLOW, AGAIN),
    "always_but": _each((*_SLOW, *_THROTTLED), AGAIN),
}
_JOB = f"{DONE} or {TAKEN}"
_BMS_STOP: Any = {
    "once_but": _each(_SLOW, AGAIN),
    "always_but": {
        **_each(("cut after", "cut in the body", "200 truncated, acted", "200 page, acted", *_ACTED), DONE),
        "408": f"{AGAIN} or {ERROR}",
        "500": ERROR,
        "401": FORBIDDEN,
    },
}
ROWS = {
    "login": Row("nova", CallKind.LOGIN, 2, AGAIN, once_but={**_each(_SLOW, AGAIN), "401": AGAIN}),
    "read": Row("nova", CallKind.READ, 1, **_READ),
    "list": Row("nova", CallKind.LIST, 5, **_LIST),
    "stop": Row(
        "nova",
        CallKind.STOP,
        1,
        AGAIN,
        once_but={
            # It has no body that could be slow; and Nova's word for a success is its status, with an empty body.
            **{"slow headers": AGAIN, "slow answer": AGAIN, "slow body": DONE},
            "200 empty": TAKEN,
        },
        always_but={
            **_each(("cut after", "cut in the body", "slow body", *_ACTED), DONE),
            **_each(("200 truncated, acted", "200 page, acted"), DONE),
            "200 empty": TAKEN,
            "500": ERROR,
            "401": FORBIDDEN,
        },
    ),
    "history": Row(
        "nova",
        CallKind.ACTIONS,
        1,
        ERROR,
        once_but=_each(_SLOW, AGAIN),
        # What is late or throttled may come yet.
        always_but={**_each((*_SLOW, *_THROTTLED), AGAIN), **_each(("401", "404 page"), DONE)},
        dated=True,
    ),
    "bms read": Row("bms", CallKind.READ, 1, **_READ),
    # BMS v1 names an error inside when it answers 413.
    "bms list": Row("bms", CallKind.LIST, 5, **{**_LIST, "always_but": {**_LIST["always_but"], "413 timed": DONE}}),
    "bms stop": Row("bms", CallKind.STOP, 1, AGAIN, **_BMS_STOP),
    "bms batch": Row("bms", CallKind.STOP, 6, AGAIN, **_BMS_STOP),
    "job": Row(
        "bms",
        CallKind.JOB,
        2,
        # What the cloud took stays taken, whatever becomes of the questions about it.
        _JOB,
        once=_JOB,
        always_but=_each(_SLOW, TAKEN),
    ),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again soon."""
    set_backoff(monkeypatch, lambda attempt: 0.01 * 2 ** min(attempt, 4))


@dataclass(frozen=True)
class Cell:
    """One function and its cloud, with something that goes wrong between them.

    Attributes:
        allowed: what may come of it.
        on: the call that it is about: the cell is void if it was never made. None if none comes through.
    """

    cloud: Simulator
    ids: list[str]
    allowed: list[str]
    send: Callable[[], requests.Response]
    on: CallKind | None


def _cloud(api: str) -> Simulator:
    make: Callable[..., Simulator] = Simulator.otc if api == "bms" else Simulator
    return make(power_off_delay=0.05)


def _outcomes(answer: requests.Response) -> set[str]:
    if answer.status_code != 200:
        return {str(answer.status_code)}
    return {f"{row['outcome']}/{row['reason']}" for row in answer.json()["servers"]}


def _broken(cloud: Simulator, answer: requests.Response, ids: list[str]) -> list[str]:
    """Which of the rules that hold in every cell, however late it is, were broken."""
    broken = []
    if answer.status_code == 503 and int(answer.headers["Retry-After"]) < 1:
        broken.append("no time to wait")
    if answer.status_code == 503 and answer.headers["Content-Type"] != "application/problem+json":
        broken.append("no problem document")
    if "Traceback" in answer.text or "Welcome to the proxy" in answer.text:
        broken.append("the answer reveals too much")
    for id_ in ids:
        if cloud.stops_taken(id_) > 1:
            broken.append("stopped twice")
        unread = False
        for call in cloud.calls:
            if call.kind is CallKind.LIST or (call.kind is CallKind.READ and call.server_id == id_):
                unread = False
            elif call.kind is CallKind.STOP and id_ in call.server_ids:
                if unread:
                    broken.append("a stop without a read")
                # Nothing was done for a token that is not taken: the same call goes out with a new one.
                unread = call.status != 401
    if answer.status_code == 200:
        for row in answer.json()["servers"]:
            off = cloud.server(row["id"]).vm_state == "stopped"
            if (row["outcome"] in ("stopped", "unchanged")) != off and row["outcome"] != "accepted":
                broken.append(f"reported as {row['outcome']}, but that is not so")
    return broken


@dataclass(frozen=True)
class Finding:
    """How a cell came out that should have come out otherwise.

    Attributes:
        untrue: what no lack of time excuses.
    """

    outcomes: list[str]
    allowed: list[str]
    late: bool
    untrue: list[str]


def _judge(cell: Cell, answer: requests.Response) -> Finding | None:
    outcomes = _outcomes(answer)
    late = answer.elapsed.total_seconds() > DEADLINE + 1 or (cell.on is not None and not cell.cloud.count(cell.on))
    untrue = [*_broken(cell.cloud, answer, cell.ids), *sorted(outcomes - {*cell.allowed, AGAIN, TAKEN})]
    if TAKEN in outcomes - {*cell.allowed} and not all(cell.cloud.stops_taken(id_) for id_ in cell.ids):
        untrue.append("reported as taken, but that is not so")
    if outcomes <= {*cell.allowed} and not late and not untrue:
        return None
    return Finding(sorted(outcomes), cell.allowed, late, untrue)


def _assert_cells(
    names: Collection[str], make: Callable[[str, Simulator], Cell], api: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each cell came out as one of what is allowed for it, and kept all rules.

    A machine that stands still for a second uses up a cell's budget. What that explains, an end without an outcome or a
    late one, is tried again, in as much time but with few others beside it; what is untrue is not.
    """
    for _ in range(TRIES):
        with ExitStack() as running, ThreadPoolExecutor(len(names)) as threads:
            cells = {name: make(name, running.enter_context(_cloud(api))) for name in names}
            coming = {name: threads.submit(cell.send) for name, cell in cells.items()}
            judged = {name: _judge(cell, coming[name].result()) for name, cell in cells.items()}
        wrong = {name: finding for name, finding in judged.items() if finding}
        names = [*wrong]
        if not wrong or any(finding.untrue for finding in wrong.values()):
            break
    assert wrong == {}
    assert [record.getMessage() for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []


# What names many servers, or is read twice, is a lot of work at once, and the time that cells have is short.
@pytest.mark.parametrize(
    ("kind", "waves"),
    [
        (kind, waves)
        for kind, row in ROWS.items()
        for waves in ([("once", "always")] if row.servers < 5 and not row.dated else [("once",), ("always",)])
    ],
)
def test_a_call_that_fails_ends_as_its_row_says(
    start_function: StartFunction, caplog: pytest.LogCaptureFixture, kind: str, waves: tuple[str, ...]
) -> None:
    """An outcome that is true, or a 503 in time; no second stop without a read, and no bug."""
    row = ROWS[kind]

    def cell(name: str, cloud: Simulator) -> Cell:
        often, _, fault = name.partition(": ")
        cloud.inject(Fault(on=row.on, times=1 if often == "once" else None, **faults()[fault]))
        ids = [cloud.add_server() for _ in range(row.servers)]
        function = start_function(cloud, **LIMITS, AUTOSTOP_API=row.api)
        time = {"time": rfc3339.render(datetime.now(UTC) - timedelta(seconds=30))} if row.dated else {}
        return Cell(cloud, ids, row.allowed(fault, often), lambda: function.stop(*ids, **time), row.on)

    _assert_cells([f"{often}: {name}" for often in waves for name in faults()], cell, row.api, caplog)


@pytest.mark.parametrize("api", ["nova", "bms"])
def test_while_a_host_cannot_be_reached_events_come_again(
    start_function: StartFunction, caplog: pytest.LogCaptureFixture, api: str
) -> None:
    """No name, no listener, no TLS: of IAM and of the API, for one server and for a list; and nothing is stopped."""
    address = "AUTOSTOP_BMS_URL" if api == "bms" else "AUTOSTOP_COMPUTE_URL"
    clouds: list[Simulator] = []

    def cell(name: str, cloud: Simulator) -> Cell:
        who, count, what = name.split(" ", 2)
        host = {
            "no name": "http://nowhere.invalid",
            "refused": f"http://127.0.0.1:{unheard.getsockname()[1]}",
            "no TLS": cloud.url.replace("http:", "https:"),
        }[what]
        place = {"OS_AUTH_URL": f"{host}/v3", address: ""} if who == "IAM" else {address: host}
        clouds.append(cloud)
        ids = [cloud.add_server() for _ in range(int(count))]
        function = start_function(cloud, **{**LIMITS, "AUTOSTOP_API": api, **place})
        return Cell(cloud, ids, [AGAIN], lambda: function.stop(*ids), None if who == "IAM" else CallKind.LOGIN)

    errors = ("no name", "refused", "no TLS")
    hosts = [f"{who} {count} {error}" for who in ("IAM", "API") for count in (1, 6) for error in errors]
    with socket.socket() as unheard:
        # Bound and not listening: connections are refused, and no other process gets the port meanwhile.
        unheard.bind(("127.0.0.1", 0))
        _assert_cells(hosts, cell, api, caplog)
    assert {call.kind for cloud in clouds for call in cloud.calls} == {CallKind.LOGIN}


@pytest.mark.parametrize("api", ["nova", "bms"])
@pytest.mark.parametrize("beside", [0, 5])
def test_a_server_that_vanishes_between_read_and_stop_is_not_found(
    start_function: StartFunction, api: str, beside: int
) -> None:
    """The first read still shows it; the others of a batch that the cloud refuses because of it are stopped."""
    with _cloud(api) as cloud:
        gone, *others = ids = [cloud.add_server() for _ in range(beside + 1)]
        function = start_function(cloud, **LIMITS, AUTOSTOP_API=api)
        on, body = (CallKind.LIST, shown(cloud, api)) if beside else (CallKind.READ, shown(cloud, api, gone))
        before = len(cloud.calls)
        cloud.delete_server(gone)
        cloud.inject(Fault(on=on, status=200, body=json.dumps(body)))
        assert came_out(function.stop(*ids)) == {gone: "failed/not-found", **dict.fromkeys(others, DONE)}
        assert cloud.stops_sent(gone) >= 1
        assert cloud.stops_taken(gone) == 0
        assert {cloud.stops_taken(id_) for id_ in others} <= {1}
        # Before another stop of a server each time its history: it has changed too lately to do without.
        assert len(cloud.calls) - before < 20 + 4 * beside

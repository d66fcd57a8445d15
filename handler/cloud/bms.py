"""Open Telekom Cloud's BMS v1: one stop for up to 1000 servers, whose progress a job tells.

The service answers most of its refusals with HTTP 400 and a code of its own; `faults` knows what they mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

from handler.cloud import error_mapping, servers
from handler.cloud.api_client import Http, Reply
from handler.cloud.endpoint import Endpoint
from handler.errors import CloudError, CloudUnexpectedAnswer, LoginRefused
from handler.stop.evidence import History
from handler.stop.model import Server
from handler.stop.ports import DryRunStop, Pending, StopFailed, Taken

_HEADERS = {"Accept": "application/json"}
_MOST_IN_BATCH = 1000
# A batch that is refused because of one server is sent again in quarters until that one stands alone.
_SPLIT = 4


class BmsReader:
    """Reads servers; has no method that changes anything."""

    api = "bms"

    def __init__(self, http: Http, endpoint: Endpoint) -> None:
        self._http = http
        self._endpoint = endpoint
        self._reading = servers.Reading(self._one, self._pages, idle=None)

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """One by one, or all by pages of the list."""
        return self._reading.groups(ids)

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Server | Pending | StopFailed | CloudError]:
        """`GET /baremetalservers/{id}`, or pages of `GET /baremetalservers/detail`."""
        return self._reading.read(ids, timeout)

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> Sequence[Server]:
        """All pages of `GET /baremetalservers/detail`, with no filter."""
        from handler.cloud.listing import find

        return find(self._counted(timeout), self._endpoint.project(timeout), wanted, timeout, idle=None)

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        """BMS v1 keeps none."""
        del server_id, timeout
        return History(actions=None)

    def peek(self, timeout: float) -> list[Server | CloudError]:
        """The first page of the project's servers."""
        return self._reading.peek(timeout)

    def _one(self, server_id: str, timeout: float) -> object:
        return self._get("reading the server", f"/baremetalservers/{server_id}", timeout).get("server")

    def _pages(self, timeout: float) -> Iterator[Sequence[object]]:
        """The list, page by page."""
        return (page for page, _ in self._counted(timeout))

    def _counted(self, timeout: float) -> Iterator[tuple[Sequence[object], int | None]]:
        """The list, page by page, and how long each says that it is; `offset` counts pages, from 1."""
        what, seen = "listing servers", 0
        for number in count(1):
            document = self._get(what, f"/baremetalservers/detail?limit={servers.PAGE}&offset={number}", timeout)
            page = servers.listed(document, what)
            total = document.get("count")
            total = total if isinstance(total, int) else None
            yield page, total
            seen += len(page)
            if not page or (total is not None and seen >= total):
                return

    def _get(self, what: str, path: str, timeout: float) -> dict[str, object]:
        url = self._endpoint.url(timeout) + path
        return self._http.send(what, "GET", url, timeout=timeout, headers=_HEADERS).json(what, servers.slim)


class BmsCloud(BmsReader):
    """Reads servers and stops them. Made anew for each event: it remembers that event's jobs."""

    one_by_one = False

    def __init__(self, http: Http, endpoint: Endpoint) -> None:
        super().__init__(http, endpoint)
        self._lock = threading.Lock()
        self._jobs: dict[str, str] = {}
        self._batch_size: dict[str, int] = {}

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Batches as large as the cloud takes them, smaller for those that were in a batch that it refused."""
        by_size: dict[int, list[str]] = {}
        for id_ in ids:
            by_size.setdefault(self._batch_size.get(id_, _MOST_IN_BATCH), []).append(id_)
        return [
            members[start : start + size] for size, members in by_size.items() for start in range(0, len(members), size)
        ]

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, Taken | DryRunStop | CloudError]:
        """`POST /baremetalservers/action`; `HARD` is the only type that OTC documents."""
        what = "stopping servers"
        try:
            reply = self._http.send(
                what,
                "POST",
                f"{self._endpoint.url(timeout)}/baremetalservers/action",
                timeout=timeout,
                headers=_HEADERS,
                body={"os-stop": {"type": "HARD", "servers": [{"id": id_} for id_ in ids]}},
            )
        except LoginRefused:
            raise
        except CloudError as fault:
            if len(ids) > 1 and not fault.maybe_acted and fault.concerns_one_server:
                fault.of_many = True
                self._batch_size.update(dict.fromkeys(ids, max(len(ids) // _SPLIT, 1)))
            return dict.fromkeys(ids, fault)
        job_id = _job_id(reply, what)
        if job_id is None:
            # The cloud took something, and does not say what.
            lost = CloudUnexpectedAnswer(
                f"{what}: no job_id in the answer", request_id=reply.request_id, maybe_acted=True
            )
            return dict.fromkeys(ids, lost)
        with self._lock:
            self._jobs.update(dict.fromkeys(ids, job_id))
        return dict.fromkeys(ids, Taken(request_id=reply.request_id, job_id=job_id))

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """One group a job, so that one call tells of all its servers; the others as the reader groups them."""
        by_job: dict[str, list[str]] = {}
        for id_ in ids:
            by_job.setdefault(self._jobs.get(id_, ""), []).append(id_)
        free = by_job.pop("", [])
        return [*by_job.values(), *self._reading.groups(free)]

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Server | Pending | StopFailed | CloudError]:
        """Ask the job while it runs, and the servers themselves once it is done or knows nothing of them."""
        job_id = self._jobs.get(ids[0])
        if job_id is None:
            return super().read(ids, timeout)
        try:
            told = self._job(job_id, timeout)
        except LoginRefused:
            raise
        except CloudError as fault:
            if fault.waiting_helps:
                return dict.fromkeys(ids, fault)
            # A job that can't be asked says nothing about the servers; they can still be looked at.
            told = {}
        answers: dict[str, Server | Pending | StopFailed | CloudError] = {
            id_: answer for id_, answer in told.items() if id_ in set(ids) and answer is not None
        }
        with self._lock:
            for id_ in ids:
                if not isinstance(answers.get(id_), Pending):
                    self._jobs.pop(id_, None)
        rest = [id_ for id_ in ids if id_ not in answers]
        for group in self._reading.groups(rest):
            answers.update(self._reading.read(group, timeout))
        return answers

    def _job(self, job_id: str, timeout: float) -> Mapping[str, Pending | StopFailed | None]:
        """What a job says of each server: Pending, StopFailed, or None where the server itself must be asked.

        The parent's status says nothing of a single server. A child that names no server, and a server that no
        child names, are pending as long as the parent runs.
        """
        what = "asking the job"
        document = self._get(what, f"/jobs/{job_id}", timeout)
        entities = document.get("entities")
        children = entities.get("sub_jobs") if isinstance(entities, dict) else None
        told: dict[str, Pending | StopFailed | None] = {}
        for child in children if isinstance(children, list) else []:
            if isinstance(child, dict):
                inner = child.get("entities")
                id_ = inner.get("server_id") if isinstance(inner, dict) else None
                if isinstance(id_, str):
                    told[id_.lower()] = _verdict(child)
        if _ended(document):
            return told
        with self._lock:
            unnamed = [id_ for id_, job in self._jobs.items() if job == job_id and id_ not in told]
        return {**told, **dict.fromkeys(unnamed, Pending())}


def _ended(job: Mapping[str, object]) -> bool:
    # INIT, RUNNING, and words that nobody has documented: it goes on.
    return job.get("status") in ("SUCCESS", "FAIL")


def _verdict(child: Mapping[str, object]) -> Pending | StopFailed | None:
    if not _ended(child):
        return Pending()
    if child.get("status") == "SUCCESS":
        return None
    return StopFailed(error_mapping.from_job(child.get("error_code")))


def _job_id(reply: Reply, what: str) -> str | None:
    try:
        job_id = reply.json(what).get("job_id")
    except CloudUnexpectedAnswer:
        return None
    return job_id if isinstance(job_id, str) and error_mapping.is_safe(job_id) else None

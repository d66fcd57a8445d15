"""Open Telekom Cloud's BMS v1: one stop for up to 1000 servers, whose progress a job shows.

The service answers most of its refusals with HTTP 400 and a code of its own; see `error_mapping`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

from handler.cloud import error_mapping, servers
from handler.cloud.api_client import Http, Reply
from handler.cloud.endpoint import Endpoint
from handler.cloud.servers import Shown
from handler.errors import CallRejected, CloudError, CloudFault, CloudUnexpectedAnswer, ServerNotFound
from handler.stop.evidence import History
from handler.stop.ports import DryRunStop, Pending, Seen, StopFailed, Taken

_HEADERS = {"Accept": "application/json"}
_MOST_IN_BATCH = 1000
# A batch that is refused because of one server is sent again in quarters until that one is alone.
_SPLIT = 4


_AskHistory = Callable[[str, float], History | CloudError]


class BmsReader(servers.Reader):
    """Reads servers; has no method that writes.

    Args:
        ask_history: reads the history of a server from Nova, which manages the same ones; None if that is not possible.
    """

    api = "bms"
    idle = None

    def __init__(self, http: Http, endpoint: Endpoint, ask_history: _AskHistory | None = None) -> None:
        super().__init__(http, endpoint)
        self._ask_history = ask_history

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        """Read the history from Nova, since BMS v1 has none."""
        return self._ask_history(server_id, timeout) if self._ask_history else History(actions=None)

    def _one(self, server_id: str, timeout: float) -> Shown:
        document, reply = self._get("reading the server", f"/baremetalservers/{server_id}", timeout)
        return Shown([document.get("server")], reply.date)

    def _pages(self, timeout: float) -> Iterator[Shown]:
        """Read the list page by page; `offset` counts pages, from 1.

        `count` may be of the page alone, and a page may be shorter than requested: only an empty page ends the list, or
        an error for a page after the last one.
        """
        seen, total = 0, None
        for number in count(1):
            path = f"/baremetalservers/detail?limit={servers.PAGE}&offset={number}"
            try:
                document, reply = self._get(servers.LISTING, path, timeout, optional=True)
            except (CallRejected, ServerNotFound):
                if total is not None and seen >= total:
                    return
                raise
            page = servers.listed(document)
            named = document.get("count")
            total = named if isinstance(named, int) else None
            yield Shown(page, reply.date, total)
            seen += len(page)
            if not page:
                return

    def _get(self, what: str, path: str, timeout: float, *, optional: bool = False) -> tuple[dict[str, object], Reply]:
        url = self._endpoint.url(timeout) + path
        reply = self._http.send(what, "GET", url, timeout=timeout, headers=_HEADERS, optional=optional)
        return reply.json(what, servers.slim), reply


class BmsCloud(BmsReader):
    """Reads servers and stops them. One instance for each event, since it stores the event's jobs."""

    one_by_one = False

    def __init__(self, http: Http, endpoint: Endpoint, ask_history: _AskHistory | None = None) -> None:
        super().__init__(http, endpoint, ask_history)
        self._lock = threading.Lock()
        self._jobs: dict[str, str] = {}
        self._batch_size: dict[str, int] = {}

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Split the ids into batches as large as the cloud accepts, smaller after a refused batch."""
        by_size: dict[int, list[str]] = {}
        for id_ in ids:
            by_size.setdefault(self._batch_size.get(id_, _MOST_IN_BATCH), []).append(id_)
        return [
            members[start : start + size] for size, members in by_size.items() for start in range(0, len(members), size)
        ]

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, Taken | DryRunStop | CloudError]:
        """Call `POST /baremetalservers/action`; `HARD` is the only type that OTC documents."""
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
        except CloudError as error:
            if error.concerns_all:
                raise
            return self._refused(ids, error)
        job_id = _job_id(reply, what)
        if job_id is None:
            refusal = reply.error(what)
            if refusal is not None:
                return self._refused(ids, refusal)
            # The cloud accepted something, and the answer does not show what.
            lost = CloudUnexpectedAnswer(
                f"{what}: no job_id in the answer", request_id=reply.request_id, maybe_acted=True
            )
            return dict.fromkeys(ids, lost)
        with self._lock:
            self._jobs.update(dict.fromkeys(ids, job_id))
        return dict.fromkeys(ids, Taken(request_id=reply.request_id, job_id=job_id))

    def _refused(self, ids: Sequence[str], error: CloudError) -> Mapping[str, CloudError]:
        """Handle a refused stop; a batch that may be refused because of one server is split."""
        if len(ids) > 1 and not error.maybe_acted and error.concerns_one_server:
            error.of_many = True
            self._batch_size.update(dict.fromkeys(ids, max(len(ids) // _SPLIT, 1)))
        return dict.fromkeys(ids, error)

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Split the ids by job, so that one call is enough for all its servers; the others as the reader does."""
        by_job: dict[str, list[str]] = {}
        for id_ in ids:
            by_job.setdefault(self._jobs.get(id_, ""), []).append(id_)
        free = by_job.pop("", [])
        return [*by_job.values(), *super().read_groups(free)]

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Seen]:
        """Read the job while it runs, and the servers once it has ended or does not list them."""
        job_id = self._jobs.get(ids[0])
        if job_id is None:
            return super().read(ids, timeout)
        try:
            reported = self._job(job_id, timeout)
        except CloudError as error:
            if error.concerns_all:
                raise
            if error.waiting_helps:
                return dict.fromkeys(ids, error)
            # Without the job the servers can still be read.
            reported = {}
        answers: dict[str, Seen] = {
            id_: answer for id_, answer in reported.items() if id_ in set(ids) and answer is not None
        }
        with self._lock:
            for id_ in ids:
                if not isinstance(answers.get(id_), Pending):
                    self._jobs.pop(id_, None)
        rest = [id_ for id_ in ids if id_ not in answers]
        for group in super().read_groups(rest):
            answers.update(super().read(group, timeout))
        return answers

    def _job(self, job_id: str, timeout: float) -> Mapping[str, Pending | StopFailed | None]:
        """Return the state of each server in a job: Pending, StopFailed, or None where the server itself must be read.

        A child that has ended has the result of its server. For the others the parent counts: they are pending as long
        as it runs, and have failed if it has. Its children may be missing, or not name their server.
        """
        what = "asking the job"
        document, reply = self._get(what, f"/jobs/{job_id}", timeout)
        entities = document.get("entities")
        listed = entities.get("sub_jobs") if isinstance(entities, dict) else None
        children = [child for child in listed if isinstance(child, dict)] if isinstance(listed, list) else []
        reported: dict[str, Pending | StopFailed | None] = {}
        nameless: list[Mapping[str, object]] = []
        for child in children:
            inner = child.get("entities")
            id_ = inner.get("server_id") if isinstance(inner, dict) else None
            if not isinstance(id_, str):
                nameless.append(child)
            elif _ended(child):
                reported[id_.lower()] = _verdict(child, reply)
        rest: Pending | StopFailed | None = Pending()
        if _ended(document):
            rest = _verdict_of_all(document, nameless, reply)
        with self._lock:
            others = [id_ for id_, job in self._jobs.items() if job == job_id and id_ not in reported]
        return {**reported, **dict.fromkeys(others, rest)}


def _ended(job: Mapping[str, object]) -> bool:
    # INIT, RUNNING, and any undocumented status: it runs.
    return job.get("status") in ("SUCCESS", "FAIL")


def _verdict(child: Mapping[str, object], reply: Reply) -> StopFailed | None:
    if child.get("status") == "SUCCESS":
        return None
    report = _report(child, reply)
    return StopFailed(error_mapping.from_job(child.get("error_code"), report), report)


def _verdict_of_all(
    job: Mapping[str, object], nameless: Sequence[Mapping[str, object]], reply: Reply
) -> StopFailed | None:
    """Return the result of a job that has ended for the servers that no child of it names.

    The reason may concern one of them alone, so that each server is read before it counts.
    """
    if job.get("status") == "SUCCESS":
        return None
    failed = (child for child in nameless if child.get("status") == "FAIL")
    report = next(filter(None, (_report(one, reply) for one in (job, *failed))), "")
    message = f"stopping servers: the job failed ({report})" if report else "stopping servers: the job failed"
    return StopFailed(CloudFault(message), report)


def _report(job: Mapping[str, object], reply: Reply) -> str:
    inner = job.get("entities")
    # ECS, of the same family, has the reason there.
    more = inner.get("errorcode_message") if isinstance(inner, dict) else None
    return reply.job_report(job.get("error_code"), job.get("fail_reason") or more)


def _job_id(reply: Reply, what: str) -> str | None:
    try:
        job_id = reply.json(what).get("job_id")
    except CloudUnexpectedAnswer:
        return None
    return job_id if isinstance(job_id, str) and error_mapping.is_safe(job_id) else None

"""The jobs by which the BMS API stops servers; their state is computed when it is requested."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from handler.simulator.bms.behavior import BmsBehavior, JobChildren
from handler.simulator.bms.views import message_for
from handler.simulator.compute.store import ServerStore

_OPEN = ("INIT", "RUNNING")


@dataclass(frozen=True, slots=True)
class SubJob:
    """The part of a job for one server.

    Args:
        server_id: in the cloud's spelling, or in the caller's if there is no such server.
        request_id: of the stop in the server's history, and the id of this part.
        error_code: why the stop was not begun; None if it was.
    """

    server_id: str
    request_id: str
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    id: str
    project_id: str
    begun: float
    parts: tuple[SubJob, ...]


@dataclass(frozen=True, slots=True)
class _Progress:
    status: str
    ended: float | None = None
    error_code: str | None = None


class Jobs:
    """All jobs of all projects; `behavior` is used whenever one is shown, so that it can be changed."""

    def __init__(self, store: ServerStore, behavior: BmsBehavior) -> None:
        self._store = store
        self._behavior = behavior
        self._jobs: dict[str, _Job] = {}
        self._ended: dict[str, _Progress] = {}

    def begin(self, project_id: str, parts: Sequence[SubJob]) -> str:
        """Record a job, and return its id."""
        with self._store.lock:
            job = _Job(str(uuid.uuid4()), project_id, self._store.clock(), tuple(parts))
            self._jobs[job.id] = job
            return job.id

    def show(self, job_id: str, project_id: str) -> dict[str, object] | None:
        """Return a job as it is now; None if the project has none of that id."""
        with self._store.lock:
            job = self._jobs.get(job_id)
            if job is None or job.project_id != project_id:
                return None
            progress = [self._progress(job, part) for part in job.parts]
            whole = self._sum(progress)
            children = JobChildren(self._behavior.job_children)
            if children is not JobChildren.LISTED and whole.status == "FAIL":
                whole = replace(whole, error_code=next(p.error_code for p in progress if p.error_code))
            total: dict[str, object] = {"sub_jobs_total": len(job.parts)}
            listed = [self._show_part(job, part, p) for part, p in zip(job.parts, progress, strict=True)]
            entities = {
                JobChildren.LISTED: total | {"sub_jobs": listed},
                JobChildren.NONE: total | {"sub_jobs": []},
                JobChildren.NULL: total | {"sub_jobs": None},
                JobChildren.SERVER_ID: {"server_id": job.parts[0].server_id},
                JobChildren.MISSING: {},
            }[children]
            return self._row(job.id, "baremetalBatchOperate", job.begun, whole) | {"entities": entities}

    def _show_part(self, job: _Job, part: SubJob, progress: _Progress) -> dict[str, object]:
        entities = {"server_id": part.server_id} if self._behavior.job_server_ids else {}
        part_id = part.request_id.removeprefix("req-")
        return self._row(part_id, "baremetalSingleOperate", job.begun, progress) | {"entities": entities}

    def _row(self, id: str, kind: str, begun: float, progress: _Progress) -> dict[str, object]:
        if not self._behavior.job_ends and progress.status not in _OPEN:
            progress = _Progress("RUNNING")
        word = self._behavior.job_word
        return {
            "status": word if word and progress.status in _OPEN else progress.status,
            "job_id": id,
            "job_type": kind,
            "begin_time": _time(begun),
            "end_time": None if progress.ended is None else _time(progress.ended),
            "error_code": progress.error_code,
            "fail_reason": message_for(progress.error_code) if progress.error_code else None,
        }

    def _sum(self, progress: Sequence[_Progress]) -> _Progress:
        statuses = {part.status for part in progress}
        if statuses.intersection(_OPEN):
            return _Progress("INIT" if statuses == {"INIT"} else "RUNNING")
        ended = max(part.ended or 0.0 for part in progress)
        return _Progress(statuses.pop() if len(statuses) == 1 else self._behavior.mixed_status, ended)

    def _progress(self, job: _Job, part: SubJob) -> _Progress:
        if part.error_code:
            return _Progress("FAIL", job.begun, part.error_code)
        # The result is stored, since later actions on the server do not change it.
        if (ended := self._ended.get(part.request_id)) is None:
            progress = self._result(job, part)
            if progress.ended is None:
                return progress
            ended = self._ended[part.request_id] = progress
        return ended

    def _result(self, job: _Job, part: SubJob) -> _Progress:
        server = self._store.get(part.server_id)
        for entry in self._store.actions(part.server_id):
            if entry.request_id == part.request_id and entry.finish_time is not None:
                return _failed(entry.finish_time) if entry.failed else _Progress("SUCCESS", entry.finish_time)
        if server.due and server.due.request_id == part.request_id:
            return _Progress("INIT" if self._store.clock() <= job.begun else "RUNNING")
        # Another action has replaced it.
        if server.deleted:
            return _failed(server.updated, "BMS.0040")
        return _Progress("SUCCESS", server.updated) if server.vm_state == "stopped" else _failed(server.updated)


def _failed(at: float, code: str = "BMS.1007") -> _Progress:
    return _Progress("FAIL", at, code)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

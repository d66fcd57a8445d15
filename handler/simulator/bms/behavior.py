"""Behaviour of the BMS API that Open Telekom Cloud's documents leave open; each can be set at any time."""

from dataclasses import dataclass
from enum import StrEnum


class BatchPolicy(StrEnum):
    """The handling of a batch with a server that cannot be stopped."""

    REJECT_WHOLE = "reject-whole"
    """400 with the code of the first such server, and none is stopped."""
    FAIL_SUB_JOB = "fail-sub-job"
    """200: the others are stopped, and the sub-job of this one has failed."""


class JobChildren(StrEnum):
    """How a job shows its servers."""

    LISTED = "listed"
    """Each by a child with its result."""
    NONE = "none"
    """The list of children is empty."""
    NULL = "null"
    """The list of children is null."""
    MISSING = "missing"
    """There is no list of children."""
    SERVER_ID = "server-id"
    """There is no list of children; the job names its first server."""


@dataclass(slots=True, kw_only=True)
class BmsBehavior:
    """The choices, each by default the most likely one.

    Args:
        batch_policy: a `BatchPolicy`, or its text.
        mixed_status: the status of a job of which some parts failed and others did not: "FAIL" or "SUCCESS".
        missing_status: the status, 400 or 404, with which a GET of a server that is not there answers BMS.0040.
        job_id: whether the answer to a stop names its job.
        job_children: a `JobChildren`, or its text. Where children are not listed, the job has the code and the reason
            of the first of them that failed.
        job_server_ids: whether the parts of a job have the ids of their servers.
        job_ends: whether jobs are ever shown as ended.
        job_word: the status of jobs that have not ended, in place of INIT and RUNNING.
        job_error_wrapped: whether an error about a job is inside an `error` object, as all others are; the documents
            put code and message at the top.
        idle_task_state: whether a server that does nothing has an `OS-EXT-STS:task_state` of null, or none at all.
    """

    batch_policy: str = BatchPolicy.REJECT_WHOLE
    mixed_status: str = "FAIL"
    missing_status: int = 400
    job_id: bool = True
    job_children: str = JobChildren.LISTED
    job_server_ids: bool = True
    job_ends: bool = True
    job_word: str | None = None
    job_error_wrapped: bool = False
    idle_task_state: bool = False

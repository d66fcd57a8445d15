"""What a chat reads of a keep, and the keep results that are read back for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from handler.errors import BadEvent
from handler.inbound.cloudevents.decode import decode
from handler.inbound.cloudevents.result_events import ResultEvent, read
from handler.keep.model import KeepReport
from handler.outbound.chat.chat_message import chat_message
from tests.outbound.chat.reports import CHATS
from tests.support.events import structured
from tests.test_keep_events import RESULTS, sample

ID, ID2, ID3 = (
    "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10",
    "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21",
    "d2b1d3c7-52ce-4f0b-9b3e-2f4a3f6f9b02",
)
TIMES = "From 2026-11-20 19:00:00 UTC to 2026-11-20 19:00:01 UTC."


def reading(document: Any) -> ResultEvent:
    """Read one event in structured mode."""
    (event,) = decode(*structured(document)).events
    return read(event)


def report(name: str) -> KeepReport:
    """The report of a sample."""
    found = reading(sample(name)).report
    assert isinstance(found, KeepReport)
    return found


def plain(name: str) -> list[str]:
    """The plain text of a sample, without blank lines."""
    text: str = CHATS["text"].message(report(name), False, None).decode()
    return [line for line in text.splitlines() if line]


def test_kept_servers_are_reported_with_the_time() -> None:
    """What was not changed has the reason."""
    assert plain("completed.json") == [
        "Asked to keep until 2026-11-20 21:00:00 UTC: 3 servers, of which 2 unchanged, 1 kept.",
        "Asked by: CI job 4711",
        "Reason: Integration tests",
        "Event: job-4711 from /teams/build/ci",
        TIMES,
        "Unchanged (already-kept): 1. The server is already kept at least that long; a keep is never shortened.",
        f"- ci-02 ({ID2}) It is already kept until 2026-11-21T06:00:00Z.",
        "Unchanged (protected): 1. It is protected for good, or its keep-until is not a valid time; "
        "it was left as it is.",
        f"- ci-03 ({ID3}) It is protected by autostop=never, which does not end.",
        "Kept: 1. The keep-until was written and then read back from the cloud.",
        f"- ci-01 ({ID})",
    ]


@pytest.mark.parametrize(("vm_state", "task_state"), [("stopped", None), ("active", "powering-off")])
def test_a_kept_server_that_does_not_run_is_shown_with_its_detail(vm_state: str, task_state: str | None) -> None:
    """Else the requester of the keep would expect a server that runs."""
    document = copy.deepcopy(sample("completed.json"))
    (row,) = (row for row in document["data"]["servers"] if row["reason"] == "kept")
    row |= {"vm_state": vm_state, "task_state": task_state, "detail": f"Its vm_state is {vm_state}."}
    text = CHATS["text"].message(reading(document).report, False, None).decode()
    assert f"- ci-01 ({ID}) Its vm_state is {vm_state}." in text


def test_failures_come_first_in_the_clouds_words() -> None:
    """Each reason with its meaning."""
    lines = plain("failed.json")
    assert lines[0] == "Asked to keep until 2026-11-20 21:00:00 UTC: 5 servers, of which 5 failed."
    assert f"- ci-03 ({ID3}) The cloud refused the change: writing its metadata: HTTP 409 (Cannot" in "\n".join(lines)
    assert [line.partition(":")[0] for line in lines if line.startswith("Failed")] == [
        f"Failed ({reason})" for reason in ("not-found", "forbidden", "conflict", "not-seen", "cloud-error")
    ]


def test_releases_dry_runs_and_refusals_are_reported_as_such() -> None:
    """By the first line."""
    assert plain("released.json")[0] == "Asked to end the keep: 2 servers, of which 1 unchanged, 1 released."
    assert plain("dry-run.json")[0] == (
        "Dry run, nothing was written (keep until 2026-11-20 21:00:00 UTC): 1 server, of which 1 would be changed."
    )
    assert plain("refused-too-old.json")[0] == (
        "Refused as a whole; nothing was written. The event was older than is acted on here."
    )


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", RESULTS)
def test_each_chat_gets_a_message(chat: str, name: str) -> None:
    """With the headline in it, and without the word stopped, which would not be true."""
    body = CHATS[chat].message(report(name), True, None).decode()
    assert chat_message(report(name), 0).headline.partition(":")[0] in body
    assert "stopped" not in body


@pytest.mark.parametrize("name", RESULTS)
def test_every_sample_is_read(name: str) -> None:
    """With every server and its keep."""
    document = sample(name)
    result = reading(document)
    assert (result.source, result.id, result.type) == (document["source"], document["id"], document["type"])
    found = report(name)
    assert [(row.id, row.outcome, row.reason, row.detail) for row in found.servers] == [
        (row["id"], row["outcome"], row["reason"], row["detail"]) for row in document["data"]["servers"]
    ]
    assert found.summary == document["data"]["summary"]


@pytest.mark.parametrize(
    ("name", "change", "at"),
    [
        ("completed.json", lambda data: data["servers"][0].update(outcome="failed"), "data.servers[0].outcome"),
        ("completed.json", lambda data: data["servers"][0].update(reason="confirmed"), "data.servers[0].reason"),
        ("completed.json", lambda data: data["servers"][0].update(keep_until=None), "data.servers[0].keep_until"),
        ("completed.json", lambda data: data["servers"][0].update(keep_until="soon"), "data.servers[0].keep_until"),
        ("completed.json", lambda data: data.update(dry_run=True), "data.dry_run"),
        ("dry-run.json", lambda data: data.update(dry_run=False), "data.dry_run"),
        ("completed.json", lambda data: data.update(refusal="too-old"), "data.servers"),
        ("completed.json", lambda data: data.update(servers=None), "data.servers"),
        ("failed.json", lambda data: data.update(servers=[]), "type"),
        ("completed.json", lambda data: data["servers"].append(7), "data.servers[3]"),
    ],
)
def test_a_result_that_contradicts_itself_is_not_posted(
    name: str, change: Callable[[dict[str, Any]], object], at: str
) -> None:
    """A message could say something untrue."""
    document = copy.deepcopy(sample(name))
    change(document["data"])
    with pytest.raises(BadEvent) as caught:
        reading(document)
    assert at in {violation.at for violation in caught.value.violations}

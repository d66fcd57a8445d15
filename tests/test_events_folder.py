"""events/ is documentation that runs: schemas, samples and the AsyncAPI document agree with each other."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource


def _words(schema: Any) -> set[str]:
    """The words that a part of a schema allows."""
    return set(schema.get("enum", [schema.get("const")]))


EVENTS = Path(__file__).parent.parent / "events"
SCHEMAS = {path.name: json.loads(path.read_text()) for path in sorted((EVENTS / "schemas").glob("*.json"))}
BASE = "https://bms-autostop.github.io/events/schemas/"
# No retrieval function: whatever is not in the folder can't be resolved.
REGISTRY: Registry[Any] = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
)
PREFIX = "io.github.bms-autostop."
INCOMING_TYPES = {
    f"{PREFIX}stop.requested.v1",
    f"{PREFIX}stop.approved.v1",
    "dev.knative.sources.ping",
    "google.cloud.pubsub.topic.v1.messagePublished",
    "CES:Event:SYS.BMS-serverReboot",
}
RESULT_TYPES = {f"{PREFIX}stop.{kind}.v1" for kind in ("completed", "failed", "refused", "planned")}
# What the schemas say: the reasons of each outcome, those that rest on one tag or entry of the metadata, the refusals.
_RULES = SCHEMAS["result.v1.json"]["$defs"]["server"]["allOf"]
REASONS: dict[str, set[str]] = {
    rule["if"]["properties"]["outcome"]["const"]: _words(rule["then"]["properties"]["reason"])
    for rule in _RULES
    if "outcome" in rule["if"]["properties"]
}
(MARKED,) = (_words(rule["if"]["properties"]["reason"]) for rule in _RULES if '"tag"' in json.dumps(rule))
REFUSALS = _words(SCHEMAS["stop.refused.v1.json"]["properties"]["refusal"])
FLEET = {
    "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10",
    "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21",
    "d2b1d3c7-52ce-4f0b-9b3e-2f4a3f6f9b02",
    "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "3d813cbb-47fb-42ba-91df-831e1593ac29",
    "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
    "6fa459ea-ee8a-4ca4-894e-db77e160355e",
}
NOT_TIMES = [
    "2026-11-20T19:00:00",
    "2026-11-20",
    "2026-13-20T19:00:00Z",
    "2026-11-20T19:00:00Z\n",
    "now",
    "",
    1763665200,
]
REFUSED_FOR_AGE = {"outdated.json", "expired.json"}
REQUEST = ("source", "id", "type", "time", "reason", "requested_by", "reply_to", "selector")


def sample(name: str) -> Any:
    """Return a sample."""
    return json.loads((EVENTS / "samples" / name).read_text())


def names(folder: str) -> list[str]:
    """Return the names of the samples in a folder."""
    return sorted(path.name for path in (EVENTS / "samples" / folder).glob("*.json"))


RESULTS = [name for name in names("out") if name != "problem.json"]


def validator(schema: str) -> Draft202012Validator:
    """Return a validator of one of the schemas."""
    return Draft202012Validator({"$ref": BASE + schema}, registry=REGISTRY)


def schema_violations(schema: str, instance: object) -> list[str]:
    """Return the paths and messages of what a schema does not permit."""
    return [f"{error.json_path}: {error.message}" for error in validator(schema).iter_errors(instance)]


def paths(schema: str, instance: object) -> set[str]:
    """Return the paths of what a schema does not permit."""
    return {error.json_path for error in validator(schema).iter_errors(instance)}


def structured(name: str) -> Any:
    """An incoming sample as one structured event or a batch, whichever way it would be sent."""
    event = sample(f"in/{name}")
    if isinstance(event, dict) and set(event) == {"headers", "body"}:
        attributes = {
            key[3:].lower(): value for key, value in event["headers"].items() if key.lower().startswith("ce-")
        }
        return {
            **attributes,
            "datacontenttype": event["headers"]["Content-Type"],
            "data": json.loads(event["body"]),
        }
    return event


def refs(node: object) -> Iterator[str]:
    """Yield the references in a schema."""
    match node:
        case dict():
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from refs(value)
        case list():
            for value in node:
                yield from refs(value)


def evidence(reason: str, **changes: object) -> dict[str, object]:
    """What a server with this reason was judged by."""
    return {
        "observed_at": "2026-11-20T19:00:00.250Z",
        "vm_state": "active",
        "task_state": None,
        "power_state": 1,
        "locked": reason == "locked",
        "launched": reason != "never-launched",
        "flavor": "physical.o2.medium",
        "tag": "autostop=never" if reason in MARKED else None,
        "metadata": None,
        "updated": "2026-11-20T18:00:00.000Z",
        "event_time": "2026-11-20T19:00:00.000Z",
        "clock_tolerance_seconds": 5,
        "history": "not-asked",
        "action": None,
        **changes,
    }


def action(**changes: object) -> dict[str, object]:
    """An entry of a server's history."""
    entry: dict[str, object] = {
        "action": "start",
        "start_time": "2026-11-20T19:01:30.000Z",
        "user_id": None,
        "request_id": None,
        "failed": False,
    }
    return {**entry, **changes}


def without(members: Any, key: str) -> dict[str, Any]:
    """All of them but one."""
    return {name: value for name, value in members.items() if name != key}


def row(outcome: str, reason: str, **changes: object) -> dict[str, object]:
    """A server row that is right for its outcome as far as the states go."""
    seen = reason != "not-found"
    return {
        "id": "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10",
        "name": "ci-07" if seen else None,
        "outcome": outcome,
        "reason": reason,
        "detail": "A sentence.",
        "vm_state": ("stopped" if outcome == "stopped" else "active") if seen else None,
        "task_state": None,
        "previous_vm_state": "active" if outcome in ("stopped", "accepted") else None,
        "request_id": None,
        "job_id": None,
        "evidence": evidence(reason) if seen else None,
        **changes,
    }


# --- schemas


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_is_valid_and_resolves_without_a_network(name: str) -> None:
    """Its `$id` is the public base and its file name, so that relative references work on disk and online."""
    schema = SCHEMAS[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == BASE + name
    resolver = REGISTRY.resolver(base_uri=BASE + name)
    for ref in refs(schema):
        assert resolver.lookup(ref).contents, ref


def test_there_is_a_schema_for_the_data_of_every_own_event() -> None:
    """Each event type of this project has a schema for its data, named after the type."""
    own = {kind.removeprefix(PREFIX) for kind in INCOMING_TYPES | RESULT_TYPES if kind.startswith(PREFIX)}
    assert {f"{kind}.json" for kind in own} <= set(SCHEMAS)


# --- samples in


@pytest.mark.parametrize("name", [name for name in names("in") if name not in ("malformed.json", "batch.json")])
def test_incoming_sample_is_well_formed(name: str) -> None:
    """Each incoming sample, but for the malformed one, is an event that the function takes."""
    assert schema_violations("cloudevent-in.json", structured(name)) == []


@pytest.mark.parametrize("name", names("approval"))
def test_sample_of_an_approval_is_well_formed(name: str) -> None:
    """The request of an agent, and the approval of the plan that it got."""
    assert schema_violations("cloudevent-in.json", sample(f"approval/{name}")) == []
    assert sample("approval/approval.json")["data"]["plan"] == sample("out/planned.json")["data"]["plan"]["token"]


def test_a_batch_with_one_malformed_member_is_malformed() -> None:
    """The sample is well-formed; one bad member invalidates it, and the error names the member."""
    batch = structured("batch.json")
    assert len(batch) > 1
    assert schema_violations("cloudevent-batch-in.json", batch) == []
    assert f"$[{len(batch)}].id" in paths("cloudevent-batch-in.json", [*batch, structured("malformed.json")])


def test_malformed_sample_has_several_faults_at_once() -> None:
    """The malformed sample is wrong in its attributes and in its data, and every violation is found."""
    event = structured("malformed.json")
    assert "source" not in event
    assert {"$", "$.id", "$.time", "$.data.server_ids[1]", "$.data.dry_run"} <= paths("cloudevent-in.json", event)


def test_incoming_samples_cover_the_accepted_types() -> None:
    """There is an incoming sample for every accepted type, and none for another type."""
    events = [event for name in names("in") for event in _members(structured(name))]
    events += [sample(f"approval/{name}") for name in names("approval")]
    assert {event["type"] for event in events} == INCOMING_TYPES


def test_incoming_samples_name_only_servers_of_the_demo() -> None:
    """All ids in incoming samples are those of the demo's fleet, so any sample can be sent to it."""
    text = "".join((EVENTS / "samples" / "in" / name).read_text().lower() for name in names("in"))
    events = [event for name in names("in") for event in _members(structured(name))]
    own = {event["id"] for event in events}
    found = set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text))
    assert found - own == FLEET


def test_only_samples_that_are_to_be_refused_or_malformed_carry_a_time() -> None:
    """A sample that is meant to be acted on has no fixed time, or it would be too old when it is sent."""
    timed = {
        name
        for name in names("in")
        for event in _members(structured(name))
        if event.get("time") or event.get("expirytime")
    }
    assert timed == REFUSED_FOR_AGE | {"malformed.json"}


def _members(event: Any) -> list[Any]:
    return event if isinstance(event, list) else [event]


# --- incoming rules


def _set(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda event: event.update({key: value})


def _data(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda event: event["data"].update({key: value})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_set("specversion", "0.3"), id="old specversion"),
        pytest.param(_set("specversion", None), id="no specversion"),
        *(pytest.param(_set(key, ""), id=f"empty {key}") for key in ("id", "source", "type")),
        *(pytest.param(_set(key, None), id=f"null {key}") for key in ("id", "source", "type")),
        *(
            pytest.param(_set(key, value), id=f"{key} {value!r}")
            for key in ("time", "expirytime")
            for value in NOT_TIMES
        ),
        pytest.param(_set("Upper", "x"), id="attribute name with capitals"),
        pytest.param(_set("with_underscore", "x"), id="attribute name with an underscore"),
        pytest.param(_set("extension", {"a": 1}), id="extension that is an object"),
        pytest.param(_set("subject", ""), id="empty subject"),
        pytest.param(_set("data_base64", "e30="), id="both forms of data"),
        pytest.param(_set("data", "text"), id="data that is text"),
        pytest.param(_set("data", []), id="data that is an array"),
        pytest.param(_data("server_ids", []), id="no ids in the array"),
        pytest.param(_data("server_ids", "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"), id="ids as text"),
        pytest.param(_data("server_ids", ["5f0c1a523d0e4b7a9a550d6f3c2b1a10"]), id="id without dashes"),
        pytest.param(_data("server_ids", ["{5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10}"]), id="id in braces"),
        pytest.param(_data("server_ids", ["5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10\n"]), id="line end"),
        pytest.param(_data("server_id", "ci-07"), id="a name for an id"),
        pytest.param(_data("dry_run", "true"), id="dry_run as text"),
        pytest.param(_data("dry_run", 1), id="dry_run as number"),
        pytest.param(_data("dryRun", True), id="dry_run misspelt"),
        pytest.param(_data("dry-run", False), id="dry_run misspelt with a dash"),
        *(
            pytest.param(_data(name, None), id=f"{name} misspelt")
            for name in ("serverIDs", "server-id", "Reason", "reasons", "replyTo", "SINCE", "selectors")
        ),
        pytest.param(_data("since", "yesterday"), id="since that is not a time"),
        pytest.param(_data("since", {"ci-07": "2026-11-20T19:00:00Z"}), id="since of a name"),
        pytest.param(_data("since", {"5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10": 1}), id="since that is a number"),
        pytest.param(_data("left_out", -1), id="fewer than none left out"),
        pytest.param(_data("approval", "none"), id="an approval of an unknown kind"),
        pytest.param(_data("requester", "ada"), id="a requester without a system"),
        pytest.param(_data("notice_for", "1h"), id="an unknown member"),
        pytest.param(_set("dryrun", "yes"), id="dryrun that is neither true nor false"),
        pytest.param(_data("selector", {"tags": ["ci"]}), id="selector beside ids"),
        pytest.param(_data("reason", "x" * 501), id="long reason"),
        pytest.param(_data("requested_by", "x" * 201), id="long requested_by"),
        pytest.param(_data("reply_to", "x" * 2049), id="long reply_to"),
        pytest.param(_set("id", " "), id="blank id"),
        pytest.param(_set("source", "/ops\n"), id="control character in source"),
        pytest.param(_set("type", "x" * 2049), id="long type"),
    ],
)
def test_malformed_request_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    """An event with one thing wrong is malformed, whatever that thing is."""
    event = structured("stop-request.json")
    change(event)
    assert schema_violations("cloudevent-in.json", event)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_set("time", "2026-11-20T19:00:00.123456789+01:00"), id="time with nanoseconds and an offset"),
        pytest.param(_set("time", "2026-11-20t19:00:00z"), id="time in lower case"),
        pytest.param(_set("time", None), id="null time"),
        pytest.param(_set("subject", "a room"), id="a subject that is not an id"),
        pytest.param(_set("extension", True), id="an extension"),
        pytest.param(_data("server_ids", ["5F0C1A52-3D0E-4B7A-9A55-0D6F3C2B1A10"] * 2), id="upper case, twice"),
        pytest.param(_data("reason", "x" * 500), id="reason of 500 characters"),
        pytest.param(_data("reason", None), id="null reason"),
        pytest.param(_data("added_later", {"a": 1}), id="an unknown member of data"),
        pytest.param(_data("since", "2026-11-20T19:00:00Z"), id="since of all servers"),
        pytest.param(_data("since", dict.fromkeys(FLEET, "2026-11-20T19:00:00Z")), id="since by id"),
        pytest.param(_data("left_out", 3), id="some left out"),
        pytest.param(_set("dryrun", "True"), id="dryrun as text"),
        pytest.param(lambda event: event.pop("data"), id="no data"),
        pytest.param(lambda event: event.update(type="com.example.other", data="text"), id="another type"),
    ],
)
def test_unusual_request_is_well_formed(change: Callable[[dict[str, Any]], None]) -> None:
    """What CloudEvents or the canonical data allow is not called malformed."""
    event = structured("stop-request.json")
    change(event)
    assert schema_violations("cloudevent-in.json", event) == []


# --- samples out


@pytest.mark.parametrize("name", RESULTS)
def test_result_sample_is_well_formed(name: str) -> None:
    """It is an event that the function can send; it counts its rows right and refers to its request."""
    event = sample(f"out/{name}")
    data = event["data"]
    assert schema_violations("cloudevent-out.json", event) == []
    counted = Counter(server["outcome"] for server in data["servers"])
    expected = {outcome: counted[outcome] for outcome in REASONS}
    assert data["summary"] == expected, f"data.summary of events/samples/out/{name} must count its servers"
    ids = [server["id"] for server in data["servers"]]
    assert len(set(ids)) == len(ids)
    assert event["causationid"] == data["request"]["id"]
    if len(ids) == 1:
        assert event["subject"] == ids[0]
    assert data["started_at"] <= data["finished_at"]


def test_result_samples_cover_every_type_outcome_reason_and_refusal() -> None:
    """There is a sample of everything that can come out."""
    events = [sample(f"out/{name}") for name in RESULTS]
    pairs = {(server["outcome"], server["reason"]) for event in events for server in event["data"]["servers"]}
    assert {event["type"] for event in events} == RESULT_TYPES
    expected = {(outcome, reason) for outcome, reasons in REASONS.items() for reason in reasons}
    assert pairs == expected, "a sample in events/samples/out/ must have a server with each reason"
    assert {event["data"]["refusal"] for event in events} == REFUSALS | {None}


def test_no_sample_calls_an_accepted_server_stopped() -> None:
    """An accepted server was not seen stopped, so nothing about it may say that it is."""
    rows = [server for name in RESULTS for server in sample(f"out/{name}")["data"]["servers"]]
    accepted = [server for server in rows if server["outcome"] == "accepted"]
    assert accepted
    for server in accepted:
        assert server["vm_state"] != "stopped"
        assert not server["detail"].startswith("Stopped")


def test_problem_sample_is_well_formed() -> None:
    """The sample of an HTTP error names all violations of the malformed sample."""
    problem = sample("out/problem.json")
    assert schema_violations("problem.json", problem) == []
    found = {violation["at"] for violation in problem["violations"]}
    assert found == {"id", "source", "time", "data.server_ids[1]", "data.dry_run"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda problem: problem.pop("title"), id="no title"),
        pytest.param(lambda problem: problem.update(status=409), id="a status that brokers retry"),
        pytest.param(lambda problem: problem.update(headers={}), id="an echo of headers"),
        pytest.param(lambda problem: problem.pop("violations"), id="a 400 without its violations"),
        pytest.param(lambda problem: problem["violations"][0].update(value="x"), id="an echo of the value"),
        pytest.param(lambda problem: problem.update(violations=["id is empty"]), id="violations as text"),
    ],
)
def test_wrong_problem_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    """A problem document has its fixed members and echoes nothing."""
    problem = sample("out/problem.json")
    change(problem)
    assert schema_violations("problem.json", problem)


# --- result rules


@pytest.mark.parametrize("outcome", REASONS)
def test_reason_goes_with_exactly_one_outcome(outcome: str) -> None:
    """A row is right only if its reason belongs to its outcome."""
    for reason in set.union(*REASONS.values()):
        right = reason in REASONS[outcome]
        assert (schema_violations("result.v1.json#/$defs/server", row(outcome, reason)) == []) is right, reason


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(row("done", "confirmed"), id="an unknown outcome"),
        pytest.param(row("stopped", "because"), id="an unknown reason"),
        pytest.param(row("stopped", "confirmed", vm_state="active"), id="stopped but not seen stopped"),
        pytest.param(row("stopped", "confirmed", previous_vm_state=None), id="stopped from nowhere"),
        pytest.param(row("accepted", "accepted", vm_state="stopped"), id="accepted but seen stopped"),
        pytest.param(row("planned", "dry-run", previous_vm_state="active"), id="planned after a stop"),
        pytest.param(row("failed", "not-found", task_state="deleting"), id="not found, with a task"),
        pytest.param(row("failed", "not-found", vm_state="active"), id="not found, with a state"),
        pytest.param(row("stopped", "confirmed", id="5F0C1A52-3D0E-4B7A-9A55-0D6F3C2B1A10"), id="upper case id"),
        pytest.param(row("stopped", "confirmed", detail=""), id="no sentence"),
        pytest.param(row("stopped", "confirmed", status="SHUTOFF"), id="an unknown member"),
        *(
            pytest.param(without(row("stopped", "confirmed"), key), id=f"no {key}")
            for key in row("stopped", "confirmed")
        ),
    ],
)
def test_wrong_row_is_refused(changed: dict[str, object]) -> None:
    """A server row has exactly its members, and its states fit its outcome."""
    assert schema_violations("result.v1.json#/$defs/server", changed)


@pytest.mark.parametrize(
    ("reason", "changed"),
    [
        *(pytest.param("busy", without(evidence("busy"), key), id=f"no {key}") for key in evidence("busy")),
        *(
            pytest.param("started-since", evidence("", history="found", action=without(action(), key)), id=f"no {key}")
            for key in action()
        ),
        pytest.param("busy", None, id="nothing of a server that was seen"),
        pytest.param("busy", evidence("busy", tags=["a=b"]), id="all tags"),
        pytest.param("busy", evidence("busy", metadata={"a": "b"}), id="all metadata"),
        pytest.param("busy", evidence("busy", tag="autostop=never"), id="a tag that decided nothing"),
        pytest.param("protected", evidence(""), id="protected by nothing"),
        pytest.param("protected", evidence("protected", metadata="autostop=never"), id="two entries that decided"),
        pytest.param("locked", evidence(""), id="locked and not locked"),
        pytest.param("never-launched", evidence(""), id="never launched and launched"),
        pytest.param("busy", evidence("busy", history="found"), id="found without its entry"),
        pytest.param("busy", evidence("busy", action=action()), id="an entry though the history was not read"),
        pytest.param("busy", evidence("busy", history="perhaps"), id="an unknown word for the history"),
        pytest.param("busy", evidence("busy", history="found", action=action(events=[])), id="more of the entry"),
        pytest.param("busy", evidence("busy", observed_at="2026-11-20T19:00:00Z"), id="a time without milliseconds"),
        pytest.param("busy", evidence("busy", clock_tolerance_seconds="5s"), id="a tolerance as text"),
    ],
)
def test_wrong_evidence_is_refused(reason: str, changed: dict[str, object] | None) -> None:
    """Evidence has exactly its members, at most the one entry that decided, and fits the reason."""
    outcome = next(outcome for outcome, reasons in REASONS.items() if reason in reasons)
    assert schema_violations("result.v1.json#/$defs/server", row(outcome, reason, evidence=changed))


@pytest.mark.parametrize(
    ("outcome", "reason", "shown"),
    [
        ("skipped", "started-since", evidence("", history="found", action=action(user_id="u-7"))),
        ("failed", "reverted", evidence("", history="found", action=action(action="stop", failed=True))),
        ("skipped", "protected", evidence("", metadata="autostop=never")),
        ("failed", "cloud-error", None),
        ("failed", "forbidden", None),
        ("failed", "not-found", evidence("not-found")),
        ("stopped", "confirmed", evidence("", flavor=None, updated=None, event_time=None)),
    ],
)
def test_evidence_may_say_more_or_less(outcome: str, reason: str, shown: dict[str, object] | None) -> None:
    """A server may have been there once, and the cloud need not say everything."""
    assert schema_violations("result.v1.json#/$defs/server", row(outcome, reason, evidence=shown)) == []


def test_samples_show_each_kind_of_evidence() -> None:
    """A reader finds a tag, an entry of the metadata, and one of the history."""
    rows = [server for name in RESULTS for server in sample(f"out/{name}")["data"]["servers"]]
    shown = [server["evidence"] for server in rows if server["evidence"]]
    for key in ("tag", "metadata", "action"):
        assert any(one[key] for one in shown)
    assert {one["history"] for one in shown} >= {"not-asked", "none-counts", "found"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"type": f"{PREFIX}stop.done.v1"}, id="an unknown type"),
        pytest.param({"subject": "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"}, id="a subject for many servers"),
        pytest.param({"causation_id": "x"}, id="an attribute name with an underscore"),
        pytest.param({"extension": None}, id="a null extension"),
        pytest.param({"time": "2026-11-20T19:00:00"}, id="a time without zone"),
        pytest.param({"data_base64": "e30="}, id="data as base64"),
    ],
)
def test_wrong_result_attribute_is_refused(change: dict[str, object]) -> None:
    """A result event's attributes keep to their rules."""
    assert schema_violations("cloudevent-out.json", {**sample("out/completed.json"), **change})


@pytest.mark.parametrize("name", ["completed.json", "failed.json", "refused-expired.json"])
def test_result_needs_each_member(name: str) -> None:
    """No attribute, and no member of the data or of its request, may be missing; the request has no others."""
    event = sample(f"out/{name}")
    request = event["data"]["request"]
    for key in ("specversion", "id", "source", "type", "time", "datacontenttype", "causationid"):
        assert schema_violations("cloudevent-out.json", without(event, key)), key
    for key in event["data"]:
        assert schema_violations("cloudevent-out.json", {**event, "data": without(event["data"], key)}), key
    for changed in ({**request, "more": 1}, *(without(request, key) for key in REQUEST)):
        assert schema_violations("cloudevent-out.json", {**event, "data": {**event["data"], "request": changed}})


def test_result_may_carry_extensions_of_the_platform() -> None:
    """What K_CE_OVERRIDES adds is allowed."""
    assert schema_violations("cloudevent-out.json", {**sample("out/completed.json"), "team": "build", "shard": 3}) == []


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(row("unchanged", "already-stopped", previous_vm_state="active"), id="overtaken"),
        pytest.param(row("skipped", "locked", previous_vm_state="active"), id="locked meanwhile"),
        pytest.param(row("failed", "not-found", name="ci-07"), id="deleted meanwhile"),
    ],
)
def test_row_may_have_a_stop_that_the_cloud_refused(seen: dict[str, object]) -> None:
    """A server that changed between our read and our stop keeps the name and state seen first."""
    assert schema_violations("result.v1.json#/$defs/server", seen) == []


def test_a_single_server_has_to_be_the_subject() -> None:
    """A result of exactly one server without subject is refused."""
    event = sample("out/completed-single.json")
    del event["subject"]
    assert schema_violations("cloudevent-out.json", event)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("completed.json", {"more": 1}),
        ("failed.json", {"more": 1}),
        ("refused-expired.json", {"more": 1}),
        ("completed.json", {"api": "ecs"}),
        ("completed.json", {"refusal": "too-old"}),
        ("completed.json", {"servers": []}),
        ("completed.json", {"servers": [row("failed", "busy")]}),
        ("failed.json", {"servers": [row("stopped", "confirmed")]}),
        ("failed.json", {"refusal": "expired"}),
        ("refused-expired.json", {"refusal": None}),
        ("refused-expired.json", {"refusal": "bored"}),
        ("refused-expired.json", {"servers": [row("skipped", "locked")]}),
        ("completed.json", {"dry_run": True}),
        ("completed-dry-run.json", {"dry_run": False}),
        ("completed-none-fit.json", {"detail": None}),
        ("completed.json", {"detail": 3}),
        ("failed.json", {"detail": ""}),
        ("completed.json", {"started_at": "2026-11-20T19:00:00Z"}),
        ("completed.json", {"finished_at": "2026-11-20T19:00:00.000+00:00"}),
    ],
)
def test_wrong_result_data_is_refused(name: str, change: dict[str, object]) -> None:
    """Result data is closed, and refusal, rows and dry run have to fit the event's type."""
    event = sample(f"out/{name}")
    event["data"].update(change)
    event.pop("subject", None)
    assert any(path.startswith("$.data") for path in paths("cloudevent-out.json", event))


@pytest.mark.parametrize(
    ("name", "outcome", "count"),
    [("completed.json", "failed", 1), ("failed.json", "failed", 0), ("refused-expired.json", "skipped", 1)],
)
def test_summary_has_to_fit_the_type(name: str, outcome: str, count: int) -> None:
    """Completed counts no failure, failed at least one, refused nothing at all."""
    event = sample(f"out/{name}")
    event["data"]["summary"][outcome] = count
    assert f"$.data.summary.{outcome}" in paths("cloudevent-out.json", event)


# --- AsyncAPI and README


@pytest.fixture(scope="module")
def asyncapi() -> Any:
    """The AsyncAPI document."""
    return yaml.safe_load((EVENTS / "asyncapi.yaml").read_text())


def _pointed_at(document: Any, pointer: str) -> Any:
    for part in pointer.strip("/").split("/"):
        assert isinstance(document, dict), pointer
        assert part in document, pointer
        document = document[part]
    return document


def test_asyncapi_is_a_3_0_document(asyncapi: Any) -> None:
    """The document names its version of AsyncAPI and has the parts that make it one."""
    assert asyncapi["asyncapi"] == "3.0.0"
    assert {"info", "channels", "operations", "components"} <= set(asyncapi)


def test_asyncapi_refs_have_targets(asyncapi: Any) -> None:
    """Each reference points into the document or to a schema in the folder that has that part."""
    for ref in refs(asyncapi):
        file, _, pointer = ref.partition("#")
        document = asyncapi
        if file:
            assert (EVENTS / file).is_file(), ref
            document = json.loads((EVENTS / file).read_text())
        if pointer:
            assert _pointed_at(document, pointer) is not None


def test_asyncapi_messages_cover_all_types(asyncapi: Any) -> None:
    """Each accepted type and each result type has a message of its name, with the schema of its data."""
    messages = {message["name"]: message for message in asyncapi["components"]["messages"].values()}
    assert set(messages) >= INCOMING_TYPES | RESULT_TYPES
    for kind in RESULT_TYPES | {f"{PREFIX}stop.requested.v1", f"{PREFIX}stop.approved.v1"}:
        assert messages[kind]["payload"]["$ref"] == f"schemas/{kind.removeprefix(PREFIX)}.json"
        assert messages[kind]["headers"]["allOf"][1]["properties"]["ce-type"]["const"] == kind


def test_asyncapi_operations_offer_only_messages_of_their_channel(asyncapi: Any) -> None:
    """An operation, and its reply, lists all messages of the channel that it uses."""
    operations = asyncapi["operations"]
    assert {operation["action"] for operation in operations.values()} == {"receive", "send"}
    parts = [*operations.values(), *(part["reply"] for part in operations.values() if "reply" in part)]
    for part in parts:
        channel = part["channel"]["$ref"]
        expected = {f"{channel}/messages/{name}" for name in _pointed_at(asyncapi, channel[1:])["messages"]}
        assert {message["$ref"] for message in part["messages"]} == expected


def test_readme_names_every_type_outcome_reason_and_refusal() -> None:
    """The README leaves nothing out that can come in or go out."""
    text = (EVENTS / "README.md").read_text()
    words = set(re.findall(r"`([^`\s]+)`", text))
    types = INCOMING_TYPES | {kind.removeprefix(PREFIX) for kind in RESULT_TYPES}
    reasons = {reason for group in REASONS.values() for reason in group}
    assert (types | set(REASONS) | reasons | REFUSALS) - words == set(), "`make readme` writes the table of reasons"

"""Least privilege: what the function calls is what the policies allow, neither more nor less."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from handler.cli.checks.targets import keep_servers, stop_servers
from handler.services.stop_servers import Service
from handler.settings.keep_servers import from_environ as keep_settings
from handler.settings.stop_servers import from_environ
from handler.simulator import Simulator
from handler.simulator.calls import Api, Call
from tests.conftest import ROOT, StartFunction

POLICIES = ROOT / "deploy" / "policies"
CALLS: Mapping[str, Any] = json.loads((POLICIES / "calls.json").read_text())
GONE = "00000000-0000-4000-8000-000000000000"
_NAMED = {"servers": "{server_id}", "baremetalservers": "{server_id}", "jobs": "{job_id}", "topics": "{topic_urn}"}
_WORDS = {"detail", "action"}


def name_of(call: Call) -> str:
    """A call as `calls.json` has it: method, path with names for ids, and the action inside a body."""
    path = call.path.partition("?")[0]
    path = re.sub(r"^(/bms|/identity)?/v\d+(\.\d+)?", "", path)
    path = re.sub(r"^/[0-9a-f]{32}(?=/)", "", path)
    parts = path.split("/")
    for place in range(1, len(parts)):
        if parts[place - 1] in _NAMED and parts[place] not in _WORDS:
            parts[place] = _NAMED[parts[place - 1]]
    inside = f" {' '.join(json.loads(call.body))}" if parts[-1] == "action" else ""
    return f"{call.method} {'/'.join(parts) or '/'}{inside}"


def verbs(actions: Iterable[str]) -> set[str]:
    """What the actions do, without the service and the kind of object."""
    return {action.rpartition(":")[2] for action in actions}


def known(api: str) -> set[str]:
    """The calls of an API that are written down."""
    return {call["call"] for call in CALLS[api]["calls"]}


@contextmanager
def clouds() -> Iterator[tuple[Simulator, Simulator]]:
    """An upstream cloud, and one as Open Telekom Cloud is."""
    with Simulator() as upstream, Simulator.otc() as otc:
        yield upstream, otc


def use_everything(start_function: StartFunction, cloud: Simulator, api: str, *logins: Mapping[str, str]) -> None:
    """Whatever makes a call: one server, many, one that is not there, a dry run, readiness, the doctor."""
    # What one cloud's login needs must not stay for the next one's.
    login = {"OS_PROJECT_DOMAIN_NAME": "", **cloud.environ()}
    function = start_function(cloud, AUTOSTOP_API=api, **login)
    now = datetime.now(UTC).isoformat()
    many = [cloud.add_server(f"many-{number}", updated=0.0) for number in range(6)]
    assert function.stop(cloud.add_server(), time=now).status_code == 200
    assert function.stop(*many, GONE).status_code == 200
    assert function.send({"server_ids": [cloud.add_server()], "dry_run": True}, time=now).status_code == 200
    for each in (login, *logins):
        settings = from_environ({"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_API": api, **each})
        Service(settings).ready()
        assert not [check for check in stop_servers(settings, None, lambda _: None) if check.status == "error"]


def test_every_call_is_written_down_and_every_one_of_them_is_made(start_function: StartFunction) -> None:
    """Over all features, on both APIs, as the clouds themselves recorded it."""
    made: dict[str, set[str]] = {"nova": set(), "bms": set(), "smn": set(), "identity": set()}
    with clouds() as (upstream, otc):
        use_everything(start_function, upstream, "nova")
        # An access key brings no catalogue, and must look up its project.
        key = otc.key_environ(otc.add_access_key())
        use_everything(start_function, otc, "bms", {**key, "AUTOSTOP_BMS_URL": otc.bms_url})
        use_everything(start_function, otc, "nova", {**key, "AUTOSTOP_COMPUTE_URL": f"{otc.url}/v2.1"})
        function = start_function(otc, AUTOSTOP_RESULT_SINK=f"smn:{otc.add_topic()}")
        assert function.stop(otc.add_server()).status_code == 204
        for call in [*upstream.calls, *otc.calls]:
            made["identity" if call.api is Api.KEYSTONE else call.api.value].add(name_of(call))
    assert made == {api: known(api) for api in made}


def test_every_call_of_a_keep_is_written_down_and_every_one_is_made(start_keep: StartFunction) -> None:
    """Keeps, a selector, a dry run, a release, readiness and the doctor, in both modes. None of them stops a server."""
    with clouds() as (upstream, otc):
        for cloud, api in ((upstream, "nova"), (otc, "bms")):
            login = {"OS_PROJECT_DOMAIN_NAME": "", **cloud.environ()}
            keep = start_keep(cloud, AUTOSTOP_API=api, **login)
            ids = [cloud.add_server(tags=["ci"]), GONE]
            for data in ({"for": "1h"}, {"for": "2h", "dry_run": True}, {"release": True}):
                assert keep.send({"server_ids": ids, **data}).status_code == 200
            assert keep.send({"selector": {"tags": ["ci"]}, "for": "1h"}).status_code == 200
            settings = keep_settings({"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_API": api, **login})
            checks = list(keep_servers(settings, lambda _: None))
            assert [check.status for check in checks if check.check != "metadata"] == ["ok", "ok"]
        calls = [call for call in (*upstream.calls, *otc.calls) if call.api is not Api.KEYSTONE]
    assert {name_of(call) for call in calls} == known("keep")
    assert {call.api for call in calls} == {Api.NOVA}


def test_neither_function_has_the_right_of_the_other() -> None:
    """`stop_servers` writes no metadata, and `keep_servers` stops nothing: in calls, policies and rules."""
    writes = {call for api in ("nova", "bms") for call in known(api) if not call.startswith("GET ")}
    assert all(call.startswith("POST ") and call.endswith(" os-stop") for call in writes)
    assert not [call for call in known("keep") if "action" in call]
    for name, foreign in (("nova", "etadata"), ("bms", "etadata"), ("keep", "stop")):
        assert foreign not in (POLICIES / f"{name}.json").read_text()
    stop, keep = ((POLICIES / f"{name}.yaml").read_text() for name in ("nova-upstream", "keep-upstream"))
    assert "metadata" not in stop
    assert ":stop" not in keep


@pytest.mark.parametrize("api", ["nova", "bms", "keep"])
def test_a_policy_holds_exactly_the_actions_of_the_calls(api: str) -> None:
    """In its first statement; in its second what those are documented to want, and nothing that changes a server."""
    document = json.loads((POLICIES / CALLS[api]["policy"]).read_text())
    assert (set(document), document["Version"]) == ({"Version", "Statement"}, "1.1")
    calls, wanted = document["Statement"]
    assert (calls["Effect"], wanted["Effect"]) == ("Allow", "Allow")
    assert calls["Action"] == sorted({call["iam"] for call in CALLS[api]["calls"] if call["iam"]})
    assert wanted["Action"] == CALLS[api]["wanted_by_those"]
    assert verbs(wanted["Action"]) <= {"get", "list", "use"}
    assert verbs(calls["Action"]) == {"get", "list", "setMetadata" if api == "keep" else "stop"}


@pytest.mark.parametrize("api", ["nova", "bms", "keep"])
def test_terraform_grants_what_the_policy_does(api: str) -> None:
    """The agency of FunctionGraph is not an exception."""
    terraform = (ROOT / "deploy" / "functiongraph" / "main.tf").read_text()
    granted = re.search(rf"\n    {api} = \[(.*?)\]", terraform, re.DOTALL)
    assert granted is not None
    first, second = json.loads((POLICIES / f"{api}.json").read_text())["Statement"]
    assert sorted(re.findall('"(.*?)"', granted[1])) == sorted([*first["Action"], *second["Action"]])


def test_the_policy_of_a_topic_publishes_and_no_more() -> None:
    """SMN is another service, so it is a file of its own."""
    document = json.loads((POLICIES / "smn.json").read_text())
    assert [call["iam"] for call in CALLS["smn"]["calls"]] == ["smn:topic:publish"]
    assert document == {"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": ["smn:topic:publish"]}]}


@pytest.mark.parametrize(("api", "role"), [("nova", "autostop"), ("keep", "autostop-keep")])
def test_upstreams_rules_are_those_of_the_calls(api: str, role: str) -> None:
    """And each is for one project only."""
    rules = yaml.safe_load((POLICIES / f"{api}-upstream.yaml").read_text())
    assert set(rules) == {call["upstream"] for call in CALLS[api]["calls"]}
    assert all(rule.endswith(f"or (role:{role} and project_id:%(project_id)s)") for rule in rules.values())
    for name, rule in rules.items():
        assert ("member" in rule) is name.endswith((":stop", ":create", ":delete"))


def test_the_doctor_advises_actions_of_the_policies() -> None:
    """Who follows the doctor and who follows the policies do the same."""
    advised = set(
        re.findall(r"(?:ecs|bms):servers:\w+", (ROOT / "handler" / "cli" / "checks" / "cloud.py").read_text())
    )
    allowed = {call["iam"] for api in ("nova", "bms") for call in CALLS[api]["calls"] if call["iam"]}
    assert advised == allowed


def test_every_file_is_described() -> None:
    """The README of the folder knows them all."""
    reported = (POLICIES / "README.md").read_text()
    assert [path.name for path in POLICIES.iterdir() if f"`{path.name}`" not in reported and path.suffix != ".md"] == []

"""The function that FunctionGraph calls as code: triggers, login, time, results, and what it raises."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from handler import functiongraph
from handler.event_types import STOP_APPROVED
from handler.functiongraph.invocation import NeverPossible, NotHandled
from handler.settings.env import SettingsError
from handler.simulator import CallKind, Fault, Simulator
from tests.conftest import ROOT
from tests.support.capture import Lines, logged
from tests.support.functiongraph import StandIn, alarm, notifications, passage, record, requested, tick, trace
from tests.support.issuer import AUDIENCE, SUBJECT, bearer, claims, rsa_key, token
from tests.support.sink_server import Say, SinkServer
from tests.test_events_folder import schema_violations

GONE = "00000000-0000-4000-8000-000000000000"
COMPLETED = "io.github.bms-autostop.stop.completed.v1"


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    """Nothing of an earlier test is kept, as in a new instance."""
    functiongraph._SHARED.clear()
    yield
    functiongraph._SHARED.clear()


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Everything that is logged."""
    with logged("DEBUG") as lines:
        yield lines


@pytest.fixture
def otc() -> Iterator[Simulator]:
    """Open Telekom Cloud."""
    with Simulator.otc() as cloud:
        yield cloud


def settings(cloud: Simulator, **changes: str) -> dict[str, str]:
    """The function's user variables: no login, and no age, as the events of the tests are of a fixed time."""
    return {
        "AUTOSTOP_INBOUND_AUTH": "none",
        "AUTOSTOP_COMPUTE_URL": cloud.url,
        "AUTOSTOP_SMN_URL": cloud.url,
        "AUTOSTOP_MAX_EVENT_AGE": "0",
        "AUTOSTOP_WAIT": "5s",
        "AUTOSTOP_LOG_LEVEL": "DEBUG",
        **changes,
    }


def stopped_by(event: object, context: StandIn) -> Any:
    """The result event that comes of it, seen to fit its schema and to be JSON."""
    result = functiongraph.handler(event, context)
    assert json.loads(json.dumps(result)) == result
    assert schema_violations("cloudevent-out.json", result) == []
    return result


# --- triggers


def test_a_timer_stops_its_servers(otc: Simulator) -> None:
    """Over the agency's token, with nothing set but the variables of the function."""
    server = otc.add_server("ci-07")
    context = StandIn(settings(otc), cloud=otc)
    result = stopped_by(tick({"server_ids": [server], "reason": "nightly"}), context)
    assert (result["type"], result["subject"], result["data"]["servers"][0]["outcome"]) == (
        COMPLETED,
        server,
        "stopped",
    )
    assert result["data"]["request"]["reason"] == "nightly"
    assert result["data"]["request"]["source"] == "/bms-autostop/functiongraph/bms-stop/timer"
    assert otc.count(CallKind.LOGIN) == 0


def test_a_timer_without_ids_says_so(otc: Simulator) -> None:
    """It is not an error: it is in the result."""
    result = stopped_by(tick(""), StandIn(settings(otc), cloud=otc))
    assert result["data"]["refusal"] == "no-server-ids"
    assert otc.calls == []


def test_an_old_event_is_refused(otc: Simulator) -> None:
    """The producer's time counts, not the platform's."""
    context = StandIn(settings(otc, AUTOSTOP_MAX_EVENT_AGE="15m"), cloud=otc)
    assert stopped_by(tick({"server_id": GONE}), context)["data"]["refusal"] == "too-old"


def test_a_trace_stops_its_server(otc: Simulator) -> None:
    """One that was started though it was to stay off."""
    server = otc.add_server()
    result = stopped_by(trace(resource_id=server), StandIn(settings(otc), cloud=otc))
    assert [row["outcome"] for row in result["data"]["servers"]] == ["stopped"]


def test_the_echo_of_our_own_stop_does_nothing(otc: Simulator) -> None:
    """No result, and no call."""
    context = StandIn(settings(otc), cloud=otc)
    assert functiongraph.handler(trace("stopBareMetalServers"), context) is None
    assert otc.calls == []


def test_each_record_has_its_own_result(otc: Simulator) -> None:
    """Two of three act: two results; the same event again gives results with the same ids."""
    first, second = otc.add_server(), otc.add_server()
    event = notifications(
        record(alarm(first), message_id="a"),
        record(alarm(GONE, alarm_status="ok"), message_id="b"),
        record({"server_id": second}, message_id="c"),
    )
    context = StandIn(settings(otc), cloud=otc)
    results: Any = functiongraph.handler(event, context)
    assert [result["subject"] for result in results] == [first, second]
    again: Any = functiongraph.handler(event, StandIn(settings(otc), cloud=otc))
    assert [result["causationid"] for result in again] == [result["causationid"] for result in results]
    assert [result["data"]["servers"][0]["outcome"] for result in again] == ["unchanged", "unchanged"]
    assert otc.stops_sent(first) == otc.stops_sent(second) == 1


def test_records_that_ask_for_nothing_give_nothing(otc: Simulator) -> None:
    """One or several; while one record alone gives one result and no list."""
    context = StandIn(settings(otc), cloud=otc)
    over = record(alarm(alarm_status="ok"))
    assert functiongraph.handler(notifications(over), context) is None
    assert functiongraph.handler(notifications(over, over), context) is None
    assert stopped_by(notifications(record({"server_id": otc.add_server()})), context)["type"] == COMPLETED


def test_a_cloudevent_is_taken_as_it_is(otc: Simulator) -> None:
    """From callers of the function by the platform's API; also as text."""
    event = requested(otc.add_server())
    result = stopped_by(event, StandIn(settings(otc), cloud=otc))
    again = stopped_by(json.dumps(event), StandIn(settings(otc), cloud=otc))
    assert (result["causationid"], again["causationid"]) == ("1", "1")


# --- the gateway


def test_an_event_of_the_platform_approves_nothing_where_approvers_are_named(otc: Simulator) -> None:
    """The platform authenticates its callers, and does not say which one called; at the gateway they are known."""
    id_ = otc.add_server()
    keys = {"AUTOSTOP_APPROVAL_KEYS": "k" * 32}
    plan = stopped_by(
        {**requested(), "data": {"server_ids": [id_], "approval": "self"}},
        StandIn(settings(otc, **keys), cloud=otc),
    )["data"]["plan"]["token"]
    approval = {**requested(), "type": STOP_APPROVED, "data": {"plan": plan, "approved_by": "slack:T1/U2"}}
    named = {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_APPROVER_TOKENS": "token-that-approves"}
    functiongraph._SHARED.clear()
    with pytest.raises(NeverPossible):
        functiongraph.handler(
            approval, StandIn(settings(otc, **keys, **named, AUTOSTOP_BEARER_TOKENS="token-that-asks-only"), cloud=otc)
        )
    assert otc.stops_taken(id_) == 0
    functiongraph._SHARED.clear()
    assert stopped_by(approval, StandIn(settings(otc, **keys), cloud=otc))["type"] == COMPLETED
    assert otc.stops_taken(id_) == 1


def test_the_gateway_gets_its_answer(otc: Simulator) -> None:
    """The result event in binary mode, in the four members."""
    server = otc.add_server()
    answer: Any = functiongraph.handler(passage({"server_id": server}), StandIn(settings(otc), cloud=otc))
    assert set(answer) == {"statusCode", "headers", "body", "isBase64Encoded"}
    assert (answer["statusCode"], answer["headers"]["ce-type"], answer["isBase64Encoded"]) == (200, COMPLETED, False)
    assert json.loads(answer["body"])["servers"][0]["outcome"] == "stopped"


def test_a_caller_at_the_gateway_authenticates(otc: Simulator) -> None:
    """The gateway is open to the outside: the token is that of the request inside, and is needed for all of it."""
    server = otc.add_server()
    context = StandIn(
        settings(otc, AUTOSTOP_INBOUND_AUTH="bearer", AUTOSTOP_BEARER_TOKENS="marked-bearer-token"), cloud=otc
    )
    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": "dev.knative.sources.ping"}
    for body in ({"server_id": server}, {**event, "data": {"server_id": server}}, "{"):
        refused: Any = functiongraph.handler(passage(body), context)
        assert refused["statusCode"] == 401
        assert refused["headers"]["Content-Type"] == "application/problem+json"
    assert otc.calls == []
    proof = {"authorization": "Bearer marked-bearer-token"}
    taken: Any = functiongraph.handler(passage({"server_id": server}, proof), context)
    assert taken["statusCode"] == 200
    # The platform's own triggers need no credentials.
    assert stopped_by(tick({"server_id": server}), context)["data"]["servers"][0]["outcome"] == "unchanged"


def test_the_gateway_serves_the_whole_endpoint(otc: Simulator) -> None:
    """Handshake, health and own results are answered as over HTTP."""
    context = StandIn(settings(otc, AUTOSTOP_WEBHOOK_ORIGINS="*"), cloud=otc)
    answer: Any = functiongraph.handler(passage(httpMethod="GET", path="/healthz"), context)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"status": "alive"})
    answer = functiongraph.handler(
        passage(httpMethod="OPTIONS", headers={"WebHook-Request-Origin": "x.example"}), context
    )
    assert answer["headers"]["WebHook-Allowed-Origin"] == "*"
    own = {"specversion": "1.0", "id": "1", "source": "/x", "type": COMPLETED}
    answer = functiongraph.handler(passage(own), context)
    assert (answer["statusCode"], answer["body"]) == (204, "")


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (passage("nothing"), 400),
        (passage(body="no base64"), 400),
        (passage("x", {"content-type": "text/plain"}), 415),
        (passage(httpMethod="PUT"), 405),
        (passage(b"x" * 5000), 413),
    ],
)
def test_faults_at_the_gateway_are_answered_and_not_raised(otc: Simulator, event: dict[str, Any], status: int) -> None:
    """What is raised would come out as a 500 of the gateway's."""
    context = StandIn(settings(otc, AUTOSTOP_MAX_BODY="4096"), cloud=otc)
    answer: Any = functiongraph.handler(event, context)
    assert answer["statusCode"] == status


def test_an_error_at_the_gateway_is_answered_and_not_raised(otc: Simulator) -> None:
    """As a 503, also if the call has no time left or no login."""
    event = passage({"server_id": GONE})
    for context in (StandIn(settings(otc)), StandIn(settings(otc), cloud=otc, remaining=0)):
        answer: Any = functiongraph.handler(event, context)
        assert (answer["statusCode"], answer["headers"]["Retry-After"]) in ((503, "60"), (503, "10"))


# --- login


def test_temporary_keys_serve_where_there_is_no_token(otc: Simulator) -> None:
    """Each call is signed with the keys, for the project of the context."""
    server = otc.add_server()
    key = otc.add_access_key(temporary=True)
    result = stopped_by(tick({"server_id": server}), StandIn(settings(otc), cloud=otc, key=key))
    assert result["data"]["servers"][0]["outcome"] == "stopped"
    assert {call.access_key for call in otc.calls} == {key.access}


def test_the_login_follows_the_call(otc: Simulator, lines: Lines) -> None:
    """A token that is over fails its own call alone; the next call brings another, over the same connections."""
    server = otc.add_server()
    event = tick({"server_id": server})
    first = StandIn(settings(otc), cloud=otc)
    stopped_by(event, first)
    otc.revoke_tokens()
    with pytest.raises(NotHandled, match=r"^login-refused: The cloud did not do what was asked"):
        functiongraph.handler(event, first)
    stopped_by(event, StandIn(settings(otc), cloud=otc))
    key = otc.add_access_key(temporary=True)
    stopped_by(event, StandIn(settings(otc), cloud=otc, key=key))
    assert otc.calls[-1].access_key == key.access
    pools = functiongraph._SHARED[0].clouds.client._adapter.poolmanager.pools
    assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118
    assert first.token not in lines.text


def test_without_an_agency_the_error_says_so(otc: Simulator) -> None:
    """Nothing is sent to the cloud."""
    with pytest.raises(NotHandled, match=r"^login-missing: .* give the function an agency"):
        functiongraph.handler(tick({"server_id": GONE}), StandIn(settings(otc)))
    assert otc.calls == []


def test_a_login_of_the_settings_goes_first(otc: Simulator) -> None:
    """The agency's token is not even looked at then."""
    server = otc.add_server()
    context = StandIn({**settings(otc), **otc.environ()}, cloud=otc)
    context.token = "not a token\n"
    stopped_by(tick({"server_id": server}), context)
    assert otc.count(CallKind.LOGIN) == 1


@pytest.mark.parametrize("token", ["marked\r\nX-Evil: 1", "marked secret", "märked"])
def test_a_malformed_token_is_refused_and_not_shown(otc: Simulator, lines: Lines, token: str) -> None:
    """What would refuse it as a header would quote it."""
    context = StandIn(settings(otc), cloud=otc)
    context.token = token
    with pytest.raises(NotHandled, match=r"^login-refused: ") as raised:
        functiongraph.handler(tick({"server_id": GONE}), context)
    assert "marked" not in lines.text + str(raised.value)
    assert otc.calls == []


# --- settings


def test_user_variables_go_before_the_environment(otc: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what only the environment has counts too."""
    monkeypatch.setenv("AUTOSTOP_DRY_RUN", "true")
    monkeypatch.setenv("AUTOSTOP_SOURCE", "/environment")
    server = otc.add_server()
    context = StandIn(settings(otc, AUTOSTOP_SOURCE="/variables"), cloud=otc)
    result = stopped_by(tick({"server_id": server}), context)
    assert (result["source"], result["data"]["dry_run"]) == ("/variables", True)


def test_wrong_settings_are_all_named(otc: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the initializer or by the first event, each time anew; also a misspelt name, which only the platform lists."""
    variables = {**settings(otc), "AUTOSTOP_WAIT": "soon", "AUTOSTOP_DRYRUN": "true"}
    monkeypatch.setenv("RUNTIME_USERDATA", json.dumps(variables))
    context = StandIn(variables, cloud=otc)
    for call in (lambda: functiongraph.initializer(context), lambda: functiongraph.handler(tick(), context)):
        with pytest.raises(SettingsError) as raised:
            call()
        assert [violation.split()[0] for violation in raised.value.violations] == ["AUTOSTOP_WAIT", "AUTOSTOP_DRYRUN"]
    variables["AUTOSTOP_WAIT"] = "5s"
    del variables["AUTOSTOP_DRYRUN"]
    monkeypatch.setenv("RUNTIME_USERDATA", json.dumps(variables))
    functiongraph.initializer(context)
    stopped_by(tick(), context)


@pytest.mark.parametrize("userdata", ["", "no json", "[]", "[" * 100000])
def test_a_strange_list_of_variables_does_no_harm(
    otc: Simulator, monkeypatch: pytest.MonkeyPatch, userdata: str
) -> None:
    """It only helps to find misspelt names."""
    monkeypatch.setenv("RUNTIME_USERDATA", userdata)
    stopped_by(tick(), StandIn(settings(otc), cloud=otc))


# --- time


def test_the_platforms_time_is_the_budget_if_it_is_shorter(otc: Simulator) -> None:
    """A server that is not seen stopped within it comes out as accepted, before the platform ends the process."""
    server = otc.add_server(power_off_delay=600.0)
    context = StandIn(settings(otc, AUTOSTOP_WAIT="20s"), cloud=otc, remaining=1500)
    began = time.monotonic()
    result = stopped_by(tick({"server_id": server}), context)
    assert result["data"]["servers"][0]["outcome"] == "accepted"
    assert time.monotonic() - began < 1.5


def test_a_call_without_time_is_not_begun(otc: Simulator) -> None:
    """It comes again."""
    with pytest.raises(NotHandled, match=r"^budget-spent: "):
        functiongraph.handler(tick({"server_id": GONE}), StandIn(settings(otc), cloud=otc, remaining=0))
    assert otc.calls == []


# --- what is raised


def test_what_can_never_succeed_names_its_faults(otc: Simulator, lines: Lines) -> None:
    """Distinct from transient errors, and without what was sent."""
    with pytest.raises(NeverPossible) as raised:
        functiongraph.handler(tick({"server_ids": ["marked"], "dry_run": "marked"}), StandIn(settings(otc), cloud=otc))
    violations = {"user_event.dry_run: must be true or false", "user_event.server_ids[0]: must be a UUID"}
    assert set(str(raised.value).split("; ")) == violations
    assert "marked" not in lines.text
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("event", [None, [], "text", b"\xff", {"key": "value"}, {"specversion": "0.3"}, 5])
def test_an_event_of_an_unknown_trigger_can_never_succeed(otc: Simulator, event: object) -> None:
    """It is raised, so that the failure destination has it."""
    with pytest.raises(NeverPossible):
        functiongraph.handler(event, StandIn(settings(otc), cloud=otc))


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (float("nan"), "must have only numbers of JSON"),
        ("\ud800", "must not have half of a surrogate pair"),
    ],
)
@pytest.mark.parametrize("event", [requested(), tick(), passage({})])
def test_what_the_platforms_parser_lets_pass_is_refused_here(
    otc: Simulator, event: dict[str, Any], value: object, fault: str
) -> None:
    """The same as in text, whatever kind of event it is."""
    with pytest.raises(NeverPossible, match=rf"^event: {fault}$"):
        functiongraph.handler({**event, "more": [value]}, StandIn(settings(otc), cloud=otc))


def test_a_transient_error_raises_for_all_records(otc: Simulator) -> None:
    """One that must come again is enough; what was done is found unchanged then."""
    first, second = otc.add_server(), otc.add_server()
    otc.inject(Fault(on=CallKind.READ, server_id=second, status=503, times=None))
    event = notifications(record({"server_id": first}), record({"server_id": second}, message_id="b"))
    context = StandIn(settings(otc, AUTOSTOP_DEADLINE="1s", AUTOSTOP_WAIT="0"), cloud=otc)
    with pytest.raises(NotHandled, match=r"^budget-spent: "):
        functiongraph.handler(event, context)
    otc.clear_faults()
    again: Any = functiongraph.handler(event, context)
    assert [result["data"]["servers"][0]["outcome"] for result in again] == ["unchanged", "accepted"]


def test_a_bug_is_a_transient_error_and_not_a_loss(
    otc: Simulator, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has its traceback, the platform only that there was one."""

    def broken(*_: object) -> object:
        raise RuntimeError("marked")

    monkeypatch.setattr("handler.functiongraph.invocation.requests_of", broken)
    with pytest.raises(NotHandled, match=r"^internal-fault: ") as raised:
        functiongraph.handler(tick(), StandIn(settings(otc), cloud=otc))
    assert "marked" not in str(raised.value)
    assert "RuntimeError" in lines.of("a bug kept the event from being handled")[0]["exception"]


def test_the_issuer_is_not_waited_for_beyond_the_time_of_the_call(otc: Simulator) -> None:
    """The platform would end the process, and with it whatever else runs there."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        variables = {
            "AUTOSTOP_INBOUND_AUTH": "oidc",
            "AUTOSTOP_OIDC_ISSUER": url,
            "AUTOSTOP_OIDC_AUDIENCE": AUDIENCE,
            "AUTOSTOP_OIDC_SUBJECTS": SUBJECT,
        }
        content = claims(iss=url, exp=time.time() + 600, iat=time.time(), nbf=time.time())
        event = passage({"server_id": otc.add_server()}, bearer(token(content, rsa_key("first"))))
        context = StandIn(settings(otc, **variables), cloud=otc, remaining=1000)
        began = time.monotonic()
        answer: Any = functiongraph.handler(event, context)
        assert time.monotonic() - began < 4
    assert answer["statusCode"] == 503
    assert json.loads(answer["body"])["type"].endswith(":keys-unreachable")


# --- results


def test_a_sink_gets_the_result_and_so_does_the_platform(otc: Simulator) -> None:
    """The destination for successes has it as well."""
    with SinkServer() as sink:
        context = StandIn(settings(otc, AUTOSTOP_RESULT_SINK=sink.url), cloud=otc)
        result = stopped_by(tick({"server_id": otc.add_server()}), context)
    (got,) = sink.got
    assert (got.headers["ce-id"], got.data) == (result["id"], result["data"])


def test_a_sink_that_takes_nothing_is_a_transient_error(otc: Simulator) -> None:
    """The result is not lost: the event comes again."""
    with SinkServer(Say(400)) as sink:
        context = StandIn(settings(otc, AUTOSTOP_RESULT_SINK=sink.url), cloud=otc)
        with pytest.raises(NotHandled, match=r"^sink-unreachable: The sink refuses the event \(HTTP 400\)\.$"):
            functiongraph.handler(tick(""), context)


def test_a_topic_gets_the_result_with_the_login_of_the_call(otc: Simulator) -> None:
    """Token or keys, whatever the call brought."""
    topic = otc.add_topic()
    variables = settings(otc, AUTOSTOP_RESULT_SINK=f"smn:{topic}")
    result = stopped_by(tick({"server_id": otc.add_server()}), StandIn(variables, cloud=otc))
    key = otc.add_access_key(temporary=True)
    stopped_by(tick(""), StandIn(variables, cloud=otc, key=key))
    first, second = otc.published
    assert (json.loads(first.message), first.topic_urn) == (result, topic)
    assert first.subject == "bms-autostop stop.completed: 1 stopped"
    assert second.subject == "bms-autostop stop.refused: no-server-ids"
    assert otc.calls[-1].access_key == key.access


# --- how it is loaded


_LOAD = """
import importlib, json, sys
sys.path[:] = [place for place in sys.path if place != sys.argv[1]]
sys.path.insert(0, sys.argv[1])
module = importlib.import_module("handler.functiongraph")
assert callable(module.handler) and callable(module.initializer)
print(json.dumps(sorted(sys.modules)))
"""


def test_it_is_loaded_by_name_and_needs_no_framework() -> None:
    """Flask and functions-framework can be left out of the archive."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(ROOT)],
        cwd="/",
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {
        "flask",
        "werkzeug",
        "functions_framework",
        "gunicorn",
        "keystoneauth1",
        "jmespath",
    }
    assert not {name for name in json.loads(done.stdout) if name.startswith("handler.simulator")}

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
from handler.simulator import AccessKey, CallKind, Fault, Simulator
from tests.conftest import ROOT
from tests.support.capture import Lines, logged
from tests.support.functiongraph import StandIn, alarm, notifications, passage, record, requested, tick
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


def new_context(
    cloud: Simulator, *, agency: bool = True, key: AccessKey | None = None, remaining: int = 60000, **changes: str
) -> StandIn:
    """The context of a call: no login but the agency's, and no age, as the events of the tests are of a fixed time."""
    variables = {
        "AUTOSTOP_INBOUND_AUTH": "none",
        "AUTOSTOP_COMPUTE_URL": cloud.url,
        "AUTOSTOP_SMN_URL": cloud.url,
        "AUTOSTOP_MAX_EVENT_AGE": "0",
        "AUTOSTOP_WAIT": "5s",
        "AUTOSTOP_LOG_LEVEL": "DEBUG",
        **changes,
    }
    return StandIn(variables, cloud=cloud if agency else None, key=key, remaining=remaining)


def called(event: object, context: StandIn) -> Any:
    """Call the function."""
    return functiongraph.handler(event, context)


def result_of(event: object, context: StandIn) -> Any:
    """Call the function, and return its result event, which fits its schema and is JSON."""
    result = called(event, context)
    assert json.loads(json.dumps(result)) == result
    assert schema_violations("cloudevent-out.json", result) == []
    return result


def outcomes(result: Any) -> list[str]:
    """Return the outcomes of a result event."""
    return [row["outcome"] for row in result["data"]["servers"]]


# --- triggers


def test_a_timer_stops_its_servers(otc: Simulator) -> None:
    """Over the agency's token, with nothing set but the variables of the function."""
    server = otc.add_server("ci-07")
    result = result_of(tick({"server_ids": [server], "reason": "nightly"}), new_context(otc))
    assert (result["type"], result["subject"], outcomes(result)) == (COMPLETED, server, ["stopped"])
    assert result["data"]["request"]["reason"] == "nightly"
    assert result["data"]["request"]["source"] == "/bms-autostop/functiongraph/bms-stop/timer"
    assert otc.count(CallKind.LOGIN) == 0


def test_a_refusal_is_a_result(otc: Simulator) -> None:
    """No ids, and an event that is too old: the producer's time counts, not the platform's."""
    assert result_of(tick(""), new_context(otc))["data"]["refusal"] == "no-server-ids"
    functiongraph._SHARED.clear()
    old = new_context(otc, AUTOSTOP_MAX_EVENT_AGE="15m")
    assert result_of(tick({"server_id": GONE}), old)["data"]["refusal"] == "too-old"
    assert otc.calls == []


def test_each_record_has_its_own_result(otc: Simulator) -> None:
    """Two of three act: two results; the same event again gives results with the same ids."""
    first, second = otc.add_server(), otc.add_server()
    event = notifications(
        record(alarm(first), message_id="a"),
        record(alarm(GONE, alarm_status="ok"), message_id="b"),
        record({"server_id": second}, message_id="c"),
    )
    results = called(event, new_context(otc))
    assert [result["subject"] for result in results] == [first, second]
    again = called(event, new_context(otc))
    assert [result["causationid"] for result in again] == [result["causationid"] for result in results]
    assert [outcomes(result) for result in again] == [["unchanged"], ["unchanged"]]
    assert otc.stops_sent(first) == otc.stops_sent(second) == 1


def test_records_that_ask_for_nothing_give_nothing(otc: Simulator) -> None:
    """One or several; while one record alone gives one result and no list."""
    context = new_context(otc)
    over = record(alarm(alarm_status="ok"))
    assert called(notifications(over), context) is None
    assert called(notifications(over, over), context) is None
    assert result_of(notifications(record({"server_id": otc.add_server()})), context)["type"] == COMPLETED


def test_a_cloudevent_is_taken_as_it_is(otc: Simulator) -> None:
    """From callers of the function by the platform's API; also as text."""
    event = requested(otc.add_server())
    result = result_of(event, new_context(otc))
    again = result_of(json.dumps(event), new_context(otc))
    assert (result["causationid"], again["causationid"]) == ("1", "1")


# --- the gateway


def test_an_event_of_the_platform_approves_nothing_where_approvers_are_named(otc: Simulator) -> None:
    """The platform authenticates its callers, and does not say which one called; at the gateway they are known."""
    id_ = otc.add_server()
    keys = {"AUTOSTOP_APPROVAL_KEYS": "k" * 32}
    question = {**requested(), "data": {"server_ids": [id_], "approval": "self"}}
    plan = result_of(question, new_context(otc, **keys))["data"]["plan"]["token"]
    approval = {**requested(), "type": STOP_APPROVED, "data": {"plan": plan, "approved_by": "slack:T1/U2"}}
    named = {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_APPROVER_TOKENS": "token-that-approves"}
    functiongraph._SHARED.clear()
    with pytest.raises(NeverPossible):
        called(approval, new_context(otc, **keys, **named, AUTOSTOP_BEARER_TOKENS="token-that-asks-only"))
    assert otc.stops_taken(id_) == 0
    functiongraph._SHARED.clear()
    assert result_of(approval, new_context(otc, **keys))["type"] == COMPLETED
    assert otc.stops_taken(id_) == 1


def test_the_gateway_gets_its_answer(otc: Simulator) -> None:
    """The result event in binary mode, in the four members."""
    server = otc.add_server()
    answer = called(passage({"server_id": server}), new_context(otc))
    assert set(answer) == {"statusCode", "headers", "body", "isBase64Encoded"}
    assert (answer["statusCode"], answer["headers"]["ce-type"], answer["isBase64Encoded"]) == (200, COMPLETED, False)
    assert json.loads(answer["body"])["servers"][0]["outcome"] == "stopped"


def test_a_caller_at_the_gateway_authenticates(otc: Simulator) -> None:
    """The gateway is open to the outside: the token is that of the request inside, and is needed for all of it."""
    server = otc.add_server()
    context = new_context(otc, AUTOSTOP_INBOUND_AUTH="bearer", AUTOSTOP_BEARER_TOKENS="marked-bearer-token")
    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": "dev.knative.sources.ping"}
    for body in ({"server_id": server}, {**event, "data": {"server_id": server}}, "{"):
        refused = called(passage(body), context)
        assert refused["statusCode"] == 401
        assert refused["headers"]["Content-Type"] == "application/problem+json"
    assert otc.calls == []
    credentials = {"authorization": "Bearer marked-bearer-token"}
    taken = called(passage({"server_id": server}, credentials), context)
    assert taken["statusCode"] == 200
    # The platform's own triggers need no credentials.
    assert outcomes(result_of(tick({"server_id": server}), context)) == ["unchanged"]


def test_the_gateway_serves_the_whole_endpoint(otc: Simulator) -> None:
    """Handshake, health and own results are answered as over HTTP."""
    context = new_context(otc, AUTOSTOP_WEBHOOK_ORIGINS="*")
    answer = called(passage(httpMethod="GET", path="/healthz"), context)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"status": "alive"})
    answer = called(passage(httpMethod="OPTIONS", headers={"WebHook-Request-Origin": "x.example"}), context)
    assert answer["headers"]["WebHook-Allowed-Origin"] == "*"
    own = {"specversion": "1.0", "id": "1", "source": "/x", "type": COMPLETED}
    answer = called(passage(own), context)
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
    assert called(event, new_context(otc, AUTOSTOP_MAX_BODY="4096"))["statusCode"] == status


# --- login


def test_temporary_keys_serve_where_there_is_no_token(otc: Simulator) -> None:
    """Each call is signed with the keys, for the project of the context."""
    server = otc.add_server()
    key = otc.add_access_key(temporary=True)
    result = result_of(tick({"server_id": server}), new_context(otc, key=key))
    assert outcomes(result) == ["stopped"]
    assert {call.access_key for call in otc.calls} == {key.access}


def test_the_login_follows_the_call(otc: Simulator, lines: Lines) -> None:
    """A token that is over fails its own call alone; the next call brings another, over the same connections."""
    server = otc.add_server()
    event = tick({"server_id": server})
    first = new_context(otc)
    result_of(event, first)
    otc.revoke_tokens()
    with pytest.raises(NotHandled, match=r"^login-refused: The cloud did not do what was asked"):
        called(event, first)
    result_of(event, new_context(otc))
    key = otc.add_access_key(temporary=True)
    result_of(event, new_context(otc, key=key))
    assert otc.calls[-1].access_key == key.access
    pools = functiongraph._SHARED[0].clouds.client._adapter.poolmanager.pools
    assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118
    assert first.token not in lines.text


def test_a_login_of_the_settings_goes_first(otc: Simulator) -> None:
    """The agency's token is not even looked at then."""
    server = otc.add_server()
    context = new_context(otc, **otc.environ())
    context.token = "not a token\n"
    result_of(tick({"server_id": server}), context)
    assert otc.count(CallKind.LOGIN) == 1


@pytest.mark.parametrize("token", ["marked\r\nX-Evil: 1", "marked secret", "märked"])
def test_a_malformed_token_is_refused_and_not_shown(otc: Simulator, lines: Lines, token: str) -> None:
    """What would refuse it as a header would quote it."""
    context = new_context(otc)
    context.token = token
    with pytest.raises(NotHandled, match=r"^login-refused: ") as raised:
        called(tick({"server_id": GONE}), context)
    assert "marked" not in lines.text + str(raised.value)
    assert otc.calls == []


# --- settings


def test_user_variables_go_before_the_environment(otc: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what only the environment has counts too."""
    monkeypatch.setenv("AUTOSTOP_DRY_RUN", "true")
    monkeypatch.setenv("AUTOSTOP_SOURCE", "/environment")
    server = otc.add_server()
    context = new_context(otc, AUTOSTOP_SOURCE="/variables")
    result = result_of(tick({"server_id": server}), context)
    assert (result["source"], result["data"]["dry_run"]) == ("/variables", True)


def test_wrong_settings_are_all_named(otc: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the initializer or by the first event, each time anew; also a misspelt name, which only the platform lists."""
    context = new_context(otc, AUTOSTOP_WAIT="soon", AUTOSTOP_DRYRUN="true")
    monkeypatch.setenv("RUNTIME_USERDATA", json.dumps(context.userdata))
    for call in (lambda: functiongraph.initializer(context), lambda: called(tick(), context)):
        with pytest.raises(SettingsError) as raised:
            call()
        assert [violation.split()[0] for violation in raised.value.violations] == ["AUTOSTOP_WAIT", "AUTOSTOP_DRYRUN"]
    context = new_context(otc)
    monkeypatch.setenv("RUNTIME_USERDATA", json.dumps(context.userdata))
    functiongraph.initializer(context)
    result_of(tick(), context)


# --- time


def test_the_platforms_time_is_the_budget_if_it_is_shorter(otc: Simulator) -> None:
    """A server that is not seen stopped within it comes out as accepted, before the platform ends the process."""
    server = otc.add_server(power_off_delay=600.0)
    context = new_context(otc, AUTOSTOP_WAIT="20s", remaining=1500)
    began = time.monotonic()
    result = result_of(tick({"server_id": server}), context)
    assert result["data"]["servers"][0]["outcome"] == "accepted"
    assert time.monotonic() - began < 1.5


def test_a_call_without_time_or_login_is_not_begun(otc: Simulator) -> None:
    """It comes again; nothing is sent to the cloud, and the gateway gets a 503."""
    event = {"server_id": GONE}
    for context, name, wait in (
        (new_context(otc, remaining=0), "budget-spent: ", "10"),
        (new_context(otc, agency=False), "login-missing: .* give the function an agency", "60"),
    ):
        with pytest.raises(NotHandled, match=f"^{name}"):
            called(tick(event), context)
        answer = called(passage(event), context)
        assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, wait)
    assert otc.calls == []


# --- what is raised


def test_what_can_never_succeed_names_its_faults(otc: Simulator, lines: Lines) -> None:
    """Distinct from transient errors, and without what was sent."""
    with pytest.raises(NeverPossible) as raised:
        called(tick({"server_ids": ["marked"], "dry_run": "marked"}), new_context(otc))
    violations = {"user_event.dry_run: must be true or false", "user_event.server_ids[0]: must be a UUID"}
    assert set(str(raised.value).split("; ")) == violations
    assert "marked" not in lines.text
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("event", [None, [], "text", b"\xff", {"key": "value"}, {"specversion": "0.3"}, 5])
def test_an_event_of_an_unknown_trigger_can_never_succeed(otc: Simulator, event: object) -> None:
    """It is raised, so that the failure destination has it."""
    with pytest.raises(NeverPossible):
        called(event, new_context(otc))


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
        called({**event, "more": [value]}, new_context(otc))


def test_a_transient_error_raises_for_all_records(otc: Simulator) -> None:
    """One that must come again is enough; what was done is found unchanged then."""
    first, second = otc.add_server(), otc.add_server()
    otc.inject(Fault(on=CallKind.READ, server_id=second, status=503, times=None))
    event = notifications(record({"server_id": first}), record({"server_id": second}, message_id="b"))
    context = new_context(otc, AUTOSTOP_DEADLINE="1s", AUTOSTOP_WAIT="0")
    with pytest.raises(NotHandled, match=r"^budget-spent: "):
        called(event, context)
    otc.clear_faults()
    again = called(event, context)
    assert [outcomes(result) for result in again] == [["unchanged"], ["accepted"]]


def test_a_bug_is_a_transient_error_and_not_a_loss(
    otc: Simulator, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has its traceback, the platform only that there was one."""

    def broken(*_: object) -> object:
        raise RuntimeError("marked")

    monkeypatch.setattr("handler.functiongraph.invocation.requests_of", broken)
    with pytest.raises(NotHandled, match=r"^internal-error: ") as raised:
        called(tick(), new_context(otc))
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
        context = new_context(otc, **variables, remaining=1000)
        began = time.monotonic()
        answer = called(event, context)
        assert time.monotonic() - began < 4
    assert answer["statusCode"] == 503
    assert json.loads(answer["body"])["type"].endswith(":keys-unreachable")


# --- results


def test_a_sink_gets_the_result_and_so_does_the_platform(otc: Simulator) -> None:
    """The destination for successes has it as well."""
    with SinkServer() as sink:
        context = new_context(otc, AUTOSTOP_RESULT_SINK=sink.url)
        result = result_of(tick({"server_id": otc.add_server()}), context)
    (got,) = sink.got
    assert (got.headers["ce-id"], got.data) == (result["id"], result["data"])


def test_a_sink_that_takes_nothing_is_a_transient_error(otc: Simulator) -> None:
    """The result is not lost: the event comes again."""
    with SinkServer(Say(400)) as sink:
        context = new_context(otc, AUTOSTOP_RESULT_SINK=sink.url)
        with pytest.raises(NotHandled, match=r"^sink-unreachable: The sink refuses the event \(HTTP 400\)\.$"):
            called(tick(""), context)


def test_a_topic_gets_the_result_with_the_login_of_the_call(otc: Simulator) -> None:
    """Token or keys, whatever the call brought."""
    topic = otc.add_topic()
    sink = {"AUTOSTOP_RESULT_SINK": f"smn:{topic}"}
    result = result_of(tick({"server_id": otc.add_server()}), new_context(otc, **sink))
    key = otc.add_access_key(temporary=True)
    result_of(tick(""), new_context(otc, key=key, **sink))
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
    modules = json.loads(done.stdout)
    unwanted = {"flask", "werkzeug", "functions_framework", "gunicorn", "keystoneauth1", "jmespath"}
    assert unwanted.isdisjoint(name.partition(".")[0] for name in modules)
    assert not [name for name in modules if name.startswith("handler.simulator")]

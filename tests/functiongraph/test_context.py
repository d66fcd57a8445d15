"""What a call of FunctionGraph brings: a context or headers, read with care, and settings made of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from handler.errors import BudgetSpent
from handler.functiongraph.context import Call, UserData
from handler.settings.env import Secret
from handler.settings.login import LoginKind
from handler.settings.stop_servers import Settings, from_environ
from handler.simulator import AccessKey
from tests.support.functiongraph import StandIn

ENVIRON = {"AUTOSTOP_INBOUND_AUTH": "none", "RUNTIME_PROJECT_ID": "p", "OS_REGION_NAME": "eu-de"}
NO_CONTEXT: Any = object()


class Failing:
    """A context whose every method fails, as some do without an agency."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name) if name.startswith("get") else AttributeError(name)


def settings(**environ: str) -> Settings:
    """Settings of a function that has only its agency."""
    return from_environ({**ENVIRON, **environ})


@pytest.mark.parametrize("context", [NO_CONTEXT, None, Failing()], ids=["no methods", "none", "failing"])
def test_an_empty_context_is_not_an_error(context: Any) -> None:
    """The environment counts then, and the event is handled with whatever login there is."""
    call = Call.of_context(context, {"RUNTIME_FUNC_NAME": "from the environment"})
    assert (call.function, call.seconds) == ("from%20the%20environment", None)
    assert not call.token
    assert not call.access_key
    variables = UserData(context, ENVIRON)
    assert dict(variables) == ENVIRON
    assert (len(variables), variables.get("AUTOSTOP_WAIT")) == (3, None)


def test_the_project_of_the_environment_goes_before_the_contexts() -> None:
    """They are the same; but a test of the function may set one of them."""
    context = StandIn({}, project_id="from-context")
    assert UserData(context, {})["RUNTIME_PROJECT_ID"] == "from-context"
    assert UserData(context, {"RUNTIME_PROJECT_ID": "p"})["RUNTIME_PROJECT_ID"] == "p"


def test_variables_come_from_the_context_then_the_platforms_list_then_the_environment() -> None:
    """An empty one counts as unset."""
    environ = {"A": "environment", "B": "environment", "C": "environment", "RUNTIME_USERDATA": '{"A": "x", "B": 5}'}
    variables = UserData(StandIn({"A": "context", "C": ""}), environ)
    assert [variables[name] for name in "ABC"] == ["context", "5", "environment"]


@pytest.mark.parametrize("userdata", ["", "no json", "[]", "[" * 100000])
def test_an_unreadable_list_of_variables_is_ignored(userdata: str) -> None:
    """It only helps to find misspelt names."""
    variables = UserData(StandIn({"A": "context"}), {"RUNTIME_USERDATA": userdata, "B": "environment"})
    assert (variables["A"], variables["B"]) == ("context", "environment")


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "", "9" * 30])
def test_a_time_out_in_the_headers_that_is_no_number_of_seconds_is_ignored(timeout: str) -> None:
    """The deadline of the settings counts then."""
    assert Call.of_headers({"x-cff-timeout": timeout}, {}).seconds is None


@pytest.mark.parametrize("remaining", ["60000", None, True, "soon"])
def test_a_remaining_time_that_is_no_number_is_passed_over(remaining: Any) -> None:
    """The deadline of the settings counts then."""
    call = Call.of_context(StandIn({}, remaining=remaining), {})
    assert call.seconds is None
    assert call.settings(settings()).deadline == timedelta(seconds=50)


@pytest.mark.parametrize(
    ("seconds", "deadline", "wait"), [(60, 50, 20), (52, 50, 20), (30, 28, 14), (5, 4, 2), (1, 0.8, 0.4)]
)
def test_the_shorter_time_is_the_budget(seconds: float, deadline: float, wait: float) -> None:
    """Less two seconds, or a fifth where that is less; an accepted stop is watched for half of it at most."""
    found = Call(seconds=seconds).settings(settings())
    assert found.deadline.total_seconds() == pytest.approx(deadline)
    assert found.policy.wait.total_seconds() == pytest.approx(wait)


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_is_reported(seconds: float) -> None:
    """Before anything is begun."""
    with pytest.raises(BudgetSpent):
        Call(seconds=seconds).settings(settings())


def test_a_token_goes_before_keys_and_half_a_key_is_none() -> None:
    """Temporary keys are three texts, and no two of them open anything."""
    whole = Call(access_key=Secret("a"), secret_key=Secret("s"), security_token=Secret("t"))
    assert whole.settings(settings()).login.kind is LoginKind.ACCESS_KEY
    assert whole._replace(token=Secret("t")).settings(settings()).login.kind is LoginKind.READY_TOKEN
    for part in ("access_key", "secret_key", "security_token"):
        half: Any = {part: Secret()}
        assert whole._replace(**half).settings(settings()).login.kind is LoginKind.FUNCTIONGRAPH


def test_a_login_of_the_settings_is_left_alone() -> None:
    """Nothing of the call is mixed into it."""
    own = settings(OS_AUTH_TYPE="admin_token", OS_TOKEN="own", OS_PROJECT_ID="p", OS_AUTH_URL="https://iam.example")
    assert Call(token=Secret("other")).settings(own) is own


@pytest.mark.parametrize("word", ["null", " null ", "", " "])
def test_the_word_null_is_nothing(word: str) -> None:
    """In headers and from the context alike."""
    assert not Call.of_headers({"x-cff-auth-token": word}, {}).token
    context = StandIn({}, key=AccessKey(access=word, secret=word, security_token=word))
    context.token = word
    call = Call.of_context(context, {})
    assert not any((call.token, call.access_key, call.secret_key, call.security_token))


def test_secrets_of_a_call_do_not_show() -> None:
    """A call may end in a log line by mistake."""
    headers = {"x-cff-auth-token": "marked", "x-cff-security-access-key": "marked"}
    call = Call.of_headers(headers, {})
    assert "marked" not in repr(call) + repr(call.settings(settings()).login)


def test_a_function_has_the_name_that_the_platform_gives() -> None:
    """Of the environment first, as a header can be forged; and it fits into a URI."""
    headers = {"x-cff-func-name": "a/b?c#ü" + "x" * 200}
    assert Call.of_headers(headers, {"RUNTIME_FUNC_NAME": "own"}).function == "own"
    made = Call.of_headers(headers, {}).function
    assert made.startswith("a%2Fb%3Fc%23%C3%BC")
    assert len(made) == 100

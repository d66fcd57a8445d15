"""The environment as settings: good values, and every fault by its variable's name."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from handler import oidc_settings, values
from handler.oidc_settings import OidcSettings
from handler.settings import (
    VARIABLES,
    CloudLogin,
    InboundAuth,
    LoginKind,
    Secret,
    Settings,
    SettingsError,
    from_environ,
)
from handler.stop.model import Policy
from tests.support.raw_http import HANG, command, environment

PASSWORD = {
    "OS_AUTH_URL": "https://iam.example/v3",
    "OS_USERNAME": "operator",
    "OS_PASSWORD": "password",
    "OS_USER_DOMAIN_NAME": "Default",
    "OS_PROJECT_NAME": "bare-metal",
}
CREDENTIAL = {
    "OS_AUTH_URL": "https://iam.example/v3",
    "OS_APPLICATION_CREDENTIAL_ID": "4f",
    "OS_APPLICATION_CREDENTIAL_SECRET": "secret",
}
LEAST = {"AUTOSTOP_INBOUND_AUTH": "none", **PASSWORD}
MARK = "marked-secret"


def read(**changes: str) -> Settings:
    """Settings from the least that is needed, with changes."""
    return from_environ({**LEAST, **changes})


def faults(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What is wrong with an environment."""
    with pytest.raises(SettingsError) as raised:
        from_environ(environ)
    assert str(raised.value) == "\n".join(raised.value.faults)
    return raised.value.faults


def without(environ: Mapping[str, str], *names: str) -> dict[str, str]:
    """The environment without some variables."""
    return {name: value for name, value in environ.items() if name not in names}


def test_the_defaults_are_those_of_the_table() -> None:
    """With nothing but login and inbound auth, everything is as documented."""
    found = read()
    assert found.policy == Policy(
        protect=("autostop", "never"),
        bare_metal_only=True,
        dry_run=False,
        max_servers=50,
        max_event_age=timedelta(minutes=15),
        clock_tolerance=timedelta(seconds=5),
        wait=timedelta(seconds=20),
    )
    assert (found.inbound_auth, found.bearer_tokens) == (InboundAuth.NONE, ())
    assert (found.deadline, found.concurrency, found.max_body) == (timedelta(seconds=50), 16, 1024 * 1024)
    assert (found.source, found.result_sink, found.extensions) == ("/bms-autostop", None, {})
    assert (found.webhook_origins, found.log_level, found.api) == (frozenset(), "INFO", "nova")
    assert found.compute_url is None
    assert not found.sink_token


def test_each_default_in_the_table_is_the_one_in_the_code() -> None:
    """Setting every variable to its documented default changes nothing."""
    spelled = {variable.name: variable.default.strip("`") for variable in VARIABLES if variable.default.startswith("`")}
    spelled.pop("AUTOSTOP_RESULT_SINK")
    assert len(spelled) > 10
    assert shown(read(**spelled)) == shown(read())


def shown(settings: Settings) -> dict[str, Any]:
    """Settings as something that compares by value."""
    return {field.name: repr(getattr(settings, field.name)) for field in fields(settings)}


def test_settings_are_frozen() -> None:
    """Nobody changes them while the process runs."""
    with pytest.raises(FrozenInstanceError):
        read().deadline = timedelta(0)  # type: ignore[misc]


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_variable_counts_as_unset(empty: str) -> None:
    """As a manifest with an empty value means it."""
    names = {variable.name: empty for variable in VARIABLES if variable.name != "AUTOSTOP_INBOUND_AUTH"}
    assert shown(read(**names, K_SINK=empty, K_CE_OVERRIDES=empty, OS_REGION_NAME=empty)) == shown(read())


# --- one value at a time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("20s", 20),
        ("15m", 900),
        ("1h", 3600),
        ("2d", 172800),
        ("90", 90),
        ("0", 0),
        ("1.5m", 90),
        (" 3 s ", 3),
        ("365d", 31536000),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """A number with a unit, or seconds."""
    assert values.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "s", "-5s", "5 seconds", "1h30m", "5M", "1e3", "inf", "nan", "366d", "9" * 5000, "\u0665s", ".5s", "5.s"],
)
def test_other_durations_are_refused(text: str) -> None:
    """Compound, negative, endless and unknown ones."""
    with pytest.raises(ValueError, match=r"^is "):
        values.duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1", 1), ("65536", 65536), ("1MiB", 1048576), ("512 kib", 524288), ("2MB", 2000000), ("3KB", 3000), ("7b", 7)],
)
def test_sizes_are_read(text: str, count: int) -> None:
    """Bytes, or with a unit in any case."""
    assert values.size(text) == count


@pytest.mark.parametrize("text", ["", "0", "0MiB", "-1", "1.5MiB", "1GiB", "MiB", "1 M", "9" * 5000, "\u0665"])
def test_other_sizes_are_refused(text: str) -> None:
    """A body of no size at all, or of a unit that nobody needs."""
    with pytest.raises(ValueError, match=r"^is no size"):
        values.size(text)


@pytest.mark.parametrize(
    ("words", "value"), [(["true", "1", "yes", "on", "TRUE", " On "], True), (["false", "0", "no", "off", "No"], False)]
)
def test_booleans_are_read(words: list[str], value: bool) -> None:
    """What people write for true and false, in any case."""
    assert {values.boolean(word) for word in words} == {value}


@pytest.mark.parametrize("text", ["", "2", "y", "enabled", "truefalse", "null"])
def test_other_booleans_are_refused(text: str) -> None:
    """A guard must not be off because of a word that nobody foresaw."""
    with pytest.raises(ValueError, match=r"^is neither"):
        values.boolean(text)


@pytest.mark.parametrize("text", ["0", "11", "-1", "1.0", "ten", "", "1e1", "\u0665", "9" * 5000])
def test_numbers_have_their_range(text: str) -> None:
    """Whole numbers within the bounds, and nothing else."""
    parse = values.whole(1, 10)
    assert [parse("1"), parse(" 10 ")] == [1, 10]
    with pytest.raises(ValueError, match=r"^is no whole number from 1 to 10$"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    ["http://sink", "https://sink.example:8443/path?query=1", "http://[::1]:8080/", " http://sink/ ", "HTTP://sink"],
)
def test_urls_are_read(text: str) -> None:
    """Absolute http and https URLs, with whatever path."""
    assert values.http_url(text) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "sink.example",
        "/path",
        "ftp://sink/",
        "http:///path",
        "http://",
        "http://:80/",
        "http://sink:port/",
        "http://sink:99999/",
        "http://[::1",
        "http://si nk/",
        "http://sink/a\nb",
        "http://sink/ü",
        f"http://user:{MARK}@sink/",
        f"http://{MARK}@sink/",
        "smn:urn:smn:eu-de:project:topic",
    ],
)
def test_other_urls_are_refused(text: str) -> None:
    """What would fail at the first call, or shows a password, fails at the start; nothing of it is quoted."""
    with pytest.raises(ValueError, match=r"^(is no|must not)") as raised:
        values.http_url(text)
    assert MARK not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "read_as"),
    [("autostop=never", ("autostop", "never")), (" a = b ", ("a", "b")), ("a=b=c", ("a", "b=c"))],
)
def test_pairs_are_read(text: str, read_as: tuple[str, str]) -> None:
    """Key and value are parted at the first sign."""
    assert values.pair(text) == read_as


@pytest.mark.parametrize("text", ["", "autostop", "=never", "autostop=", " = ", "="])
def test_half_a_pair_is_refused(text: str) -> None:
    """A guard that matches nothing, or everything, is a mistake."""
    with pytest.raises(ValueError, match=r"^is not of the form key=value$"):
        values.pair(text)


@pytest.mark.parametrize("text", ["/bms-autostop", "urn:uuid:4f", "https://a.example/b?c#d", "a"])
def test_a_source_is_a_uri_reference(text: str) -> None:
    """Whatever CloudEvents allows as a source."""
    assert values.uri_reference(text) == text


@pytest.mark.parametrize("text", ["", "a b", "ü", "a\nb", "x" * 1025, '"quoted"', "<a>"])
def test_another_source_is_refused(text: str) -> None:
    """Spaces, quotes and the like have no place in a URI."""
    with pytest.raises(ValueError, match=r"^is no URI reference$"):
        values.uri_reference(text)


def test_a_sink_token_comes_from_one_place() -> None:
    """Which of the two counts could only be guessed."""
    both = {"AUTOSTOP_SINK_TOKEN": "token", "AUTOSTOP_SINK_TOKEN_FILE": "/oidc/token"}
    assert faults({**LEAST, **both}) == ("AUTOSTOP_SINK_TOKEN_FILE: cannot be set beside AUTOSTOP_SINK_TOKEN.",)
    assert read(AUTOSTOP_SINK_TOKEN_FILE="/oidc/token").sink_token_file == "/oidc/token"


@pytest.mark.parametrize("text", ["a b", "a\nb", "ü", "a\x00"])
def test_a_sink_token_must_fit_into_a_header(text: str) -> None:
    """It fails at the start, not with every event, and is not quoted."""
    assert faults({**LEAST, "AUTOSTOP_SINK_TOKEN": text}) == (
        "AUTOSTOP_SINK_TOKEN: has characters that a bearer token cannot have.",
    )


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("{}", {}),
        ('{"extensions": null}', {}),
        ('{"extensions": {}}', {}),
        ('{"extensions": {"team": "build", "a1": "ü x"}}', {"team": "build", "a1": "ü x"}),
        ('{"extensions": {"team": "build"}, "other": 1}', {"team": "build"}),
    ],
)
def test_overrides_are_read(text: str, read_as: dict[str, str]) -> None:
    """K_CE_OVERRIDES as Knative's SinkBinding writes it."""
    assert read(K_CE_OVERRIDES=text).extensions == read_as


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        "null",
        "[]",
        '"text"',
        '{"extensions": ["team"]}',
        '{"extensions": "text"}',
        '{"extensions": {"Team": "x"}}',
        '{"extensions": {"a-b": "x"}}',
        '{"extensions": {"": "x"}}',
        '{"extensions": {"a": 5}}',
        '{"extensions": {"a": null}}',
        '{"extensions": {"a": "\\ud800"}}',
        *(json.dumps({"extensions": {name: "x"}}) for name in ("id", "type", "data", "causationid", "traceparent")),
    ],
)
def test_other_overrides_are_refused(text: str) -> None:
    """Malformed ones, and those that would replace an attribute that means something here."""
    (fault,) = faults({**LEAST, "K_CE_OVERRIDES": text})
    assert fault.startswith("K_CE_OVERRIDES: ")


@pytest.mark.parametrize(
    ("name", "good", "attribute", "value"),
    [
        ("AUTOSTOP_API", "NOVA", "api", "nova"),
        ("AUTOSTOP_COMPUTE_URL", "https://nova.example/v2.1", "compute_url", "https://nova.example/v2.1"),
        ("AUTOSTOP_RESULT_SINK", "http://sink/", "result_sink", "http://sink/"),
        ("AUTOSTOP_SOURCE", "/mine", "source", "/mine"),
        ("AUTOSTOP_DEADLINE", "2m", "deadline", timedelta(minutes=2)),
        ("AUTOSTOP_CONCURRENCY", "3", "concurrency", 3),
        ("AUTOSTOP_MAX_BODY", "2KiB", "max_body", 2048),
        ("AUTOSTOP_WEBHOOK_ORIGINS", "A.example, ,b.example,", "webhook_origins", {"a.example", "b.example"}),
        ("AUTOSTOP_LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ],
)
def test_each_setting_arrives(name: str, good: str, attribute: str, value: object) -> None:
    """A variable sets its attribute."""
    assert getattr(read(**{name: good}), attribute) == value


@pytest.mark.parametrize(
    ("name", "good", "attribute", "value"),
    [
        ("AUTOSTOP_PROTECT", "keep=on", "protect", ("keep", "on")),
        ("AUTOSTOP_BARE_METAL_ONLY", "off", "bare_metal_only", False),
        ("AUTOSTOP_DRY_RUN", "yes", "dry_run", True),
        ("AUTOSTOP_MAX_SERVERS", "1000", "max_servers", 1000),
        ("AUTOSTOP_MAX_EVENT_AGE", "0", "max_event_age", timedelta(0)),
        ("AUTOSTOP_CLOCK_TOLERANCE", "1m", "clock_tolerance", timedelta(minutes=1)),
        ("AUTOSTOP_WAIT", "0", "wait", timedelta(0)),
    ],
)
def test_each_rule_arrives(name: str, good: str, attribute: str, value: object) -> None:
    """A variable sets its rule of the policy."""
    assert getattr(read(**{name: good}).policy, attribute) == value


BAD = {
    "AUTOSTOP_INBOUND_AUTH": "open",
    "AUTOSTOP_API": "ecs",
    "AUTOSTOP_COMPUTE_URL": "nova",
    "AUTOSTOP_RESULT_SINK": "nowhere",
    "AUTOSTOP_SINK_TOKEN": "two words",
    "K_CA_CERTS": "-----BEGIN CERTIFICATE-----",
    "AUTOSTOP_SOURCE": "a b",
    "AUTOSTOP_DRY_RUN": "maybe",
    "AUTOSTOP_BARE_METAL_ONLY": "maybe",
    "AUTOSTOP_PROTECT": "autostop",
    "AUTOSTOP_MAX_SERVERS": "0",
    "AUTOSTOP_MAX_EVENT_AGE": "soon",
    "AUTOSTOP_CLOCK_TOLERANCE": "bit",
    "AUTOSTOP_WAIT": "long",
    "AUTOSTOP_DEADLINE": "late",
    "AUTOSTOP_CONCURRENCY": "257",
    "AUTOSTOP_MAX_BODY": "big",
    "AUTOSTOP_LOG_LEVEL": "loud",
    "K_SINK": "nowhere",
    "K_CE_OVERRIDES": "{",
    "OS_AUTH_URL": "iam",
    "OS_INSECURE": "maybe",
    "OS_AUTH_TYPE": "v3kerberos",
    "AUTOSTOP_DRYRUN": "true",
}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_value_is_one_fault_with_its_name(name: str) -> None:
    """And nothing else is said to be wrong."""
    (fault,) = faults({**LEAST, name: BAD[name]})
    assert fault.startswith(f"{name}: ")
    assert fault.endswith((".", "?"))


def test_all_faults_are_told_at_once() -> None:
    """Nobody has to start the process once for each mistake."""
    named = [fault.partition(":")[0] for fault in faults({**LEAST, **BAD})]
    assert sorted(named) == sorted(BAD)


def test_an_empty_environment_names_all_that_is_needed() -> None:
    """From nothing to a working set in one go."""
    assert [fault.partition(":")[0] for fault in faults({})] == [
        "AUTOSTOP_INBOUND_AUTH",
        "OS_AUTH_URL",
        "OS_USERNAME",
        "OS_PASSWORD",
        "OS_USER_DOMAIN_NAME",
        "OS_PROJECT_NAME",
    ]


def test_inbound_auth_must_be_said_out_loud() -> None:
    """There is no default, and the fault says what each choice means."""
    (fault,) = faults(PASSWORD)
    assert fault == (
        "AUTOSTOP_INBOUND_AUTH: must be set: `bearer` (with AUTOSTOP_BEARER_TOKENS), `oidc` (with "
        "AUTOSTOP_OIDC_ISSUER), or `none` to let anybody who reaches this function stop servers."
    )


@pytest.mark.parametrize("tokens", ["", ",", " , "])
def test_bearer_needs_a_token(tokens: str) -> None:
    """An empty list would let nobody in, or be mistaken for everybody."""
    (fault,) = faults({**LEAST, "AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": tokens})
    assert fault.startswith("AUTOSTOP_BEARER_TOKENS: must hold at least one token")


def test_bearer_tokens_are_a_list() -> None:
    """Comma-separated, so that they can rotate; blanks around them are none of theirs."""
    found = read(AUTOSTOP_INBOUND_AUTH="Bearer", AUTOSTOP_BEARER_TOKENS=" one,two ,, three ")
    assert [token.reveal() for token in found.bearer_tokens] == ["one", "two", "three"]
    assert found.inbound_auth is InboundAuth.BEARER


@pytest.mark.parametrize(
    ("wait", "deadline", "fault"),
    [
        ("50s", "50s", "AUTOSTOP_WAIT: must be shorter than AUTOSTOP_DEADLINE."),
        ("1m", "50s", "AUTOSTOP_WAIT: must be shorter than AUTOSTOP_DEADLINE."),
        ("0", "0", "AUTOSTOP_DEADLINE: must be at least 1s."),
        ("0", "999ms", "AUTOSTOP_DEADLINE: must be at least 1s."),
    ],
)
def test_the_wait_fits_into_the_deadline(wait: str, deadline: str, fault: str) -> None:
    """A budget that cannot hold is refused."""
    assert faults({**LEAST, "AUTOSTOP_WAIT": wait, "AUTOSTOP_DEADLINE": deadline}) == (fault,)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("AUTOSTOP_DRYRUN", " Did you mean AUTOSTOP_DRY_RUN?"),
        ("AUTOSTOP_MAX_SERVER", " Did you mean AUTOSTOP_MAX_SERVERS?"),
        ("AUTOSTOP_PROTECTED", " Did you mean AUTOSTOP_PROTECT?"),
        ("AUTOSTOP_QQQQQQQQQQQQQQQQ", ""),
    ],
)
def test_an_unknown_name_is_a_fault_with_a_hint(name: str, hint: str) -> None:
    """A misspelt guard would silently be off."""
    assert faults({**LEAST, name: MARK}) == (f"{name}: there is no such setting.{hint}",)


@pytest.mark.parametrize(
    "name",
    [
        "AUTOSTOP_SERVICE_HOST",
        "AUTOSTOP_SERVICE_PORT",
        "AUTOSTOP_SERVICE_PORT_HTTP",
        "AUTOSTOP_PORT",
        "AUTOSTOP_PORT_80_TCP",
        "AUTOSTOP_PORT_80_TCP_PROTO",
        "AUTOSTOP_PORT_80_TCP_PORT",
        "AUTOSTOP_PORT_80_TCP_ADDR",
        "AUTOSTOP_EVENT_DISPLAY_SERVICE_HOST",
    ],
)
def test_service_links_of_kubernetes_are_no_settings(name: str) -> None:
    """A service of that name in the namespace must not keep the function from starting."""
    assert shown(read(**{name: "tcp://10.0.0.1:80"})) == shown(read())


def test_names_of_others_are_none_of_our_business() -> None:
    """Only names with the prefix are checked."""
    assert shown(read(PATH="/bin", OS_FOO="x", K_SERVICE="x", K_REVISION="y", MY_AUTOSTOP_X="z")) == shown(read())


# --- the sink


def test_k_sink_serves_where_no_sink_is_set() -> None:
    """A SinkBinding is enough; an explicit sink goes before it."""
    assert read(K_SINK="http://broker/").result_sink == "http://broker/"
    assert read(K_SINK="http://broker/", AUTOSTOP_RESULT_SINK="http://sink/").result_sink == "http://sink/"


def test_an_empty_k_ce_overrides_is_none() -> None:
    """Knative sets it to an empty text when there are none."""
    assert read(K_CE_OVERRIDES="").extensions == {}


# --- the login


def test_a_password_logs_in() -> None:
    """The names that openrc files have."""
    login = read(OS_REGION_NAME="eu-de", OS_INTERFACE="internalURL", OS_CACERT="/ca.pem").login
    assert (login.kind, login.auth_url) == (LoginKind.PASSWORD, "https://iam.example/v3")
    assert (login.username, login.password.reveal(), login.user_domain_name) == ("operator", "password", "Default")
    assert (login.project_name, login.project_domain_name) == ("bare-metal", "Default")
    assert (login.region, login.interface, login.verify) == ("eu-de", "internal", "/ca.pem")


def test_ids_serve_for_names() -> None:
    """A user id needs no domain, a project id no name."""
    environ = without(LEAST, "OS_USERNAME", "OS_USER_DOMAIN_NAME", "OS_PROJECT_NAME")
    login = from_environ({**environ, "OS_USER_ID": "u1", "OS_PROJECT_ID": "p1"}).login
    assert (login.user_id, login.project_id, login.username, login.project_name) == ("u1", "p1", None, None)


def test_older_names_serve_too() -> None:
    """OS_TENANT_NAME, OS_DOMAIN_* and OS_ENDPOINT_TYPE as OTC's openrc files write them."""
    environ = without(LEAST, "OS_USER_DOMAIN_NAME", "OS_PROJECT_NAME")
    older = {"OS_TENANT_NAME": "eu-de", "OS_DOMAIN_NAME": "OTC1", "OS_ENDPOINT_TYPE": "publicURL"}
    login = from_environ({**environ, **older}).login
    assert (login.project_name, login.user_domain_name, login.project_domain_name) == ("eu-de", "OTC1", "OTC1")
    assert login.interface == "public"
    login = from_environ({**without(LEAST, "OS_USER_DOMAIN_NAME"), "OS_DOMAIN_ID": "d1"}).login
    assert (login.user_domain_id, login.project_domain_id) == ("d1", "d1")


def test_a_token_logs_in() -> None:
    """As a platform hands one to a function; it counts if there is no password, or if it is asked for."""
    environ = without(LEAST, "OS_USERNAME", "OS_PASSWORD", "OS_USER_DOMAIN_NAME")
    login = from_environ({**environ, "OS_TOKEN": "token"}).login
    assert (login.kind, login.token.reveal()) == (LoginKind.TOKEN, "token")
    assert read(OS_TOKEN="token").login.kind is LoginKind.PASSWORD
    assert read(OS_TOKEN="token", OS_AUTH_TYPE="token").login.kind is LoginKind.TOKEN


def test_an_application_credential_logs_in() -> None:
    """By id alone, or by name with its user; it needs no project."""
    login = from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **CREDENTIAL}).login
    assert (login.kind, login.application_credential_id) == (LoginKind.APPLICATION_CREDENTIAL, "4f")
    assert login.application_credential_secret.reveal() == "secret"
    named = {**without(CREDENTIAL, "OS_APPLICATION_CREDENTIAL_ID"), "OS_APPLICATION_CREDENTIAL_NAME": "stopper"}
    login = from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **named, "OS_USERNAME": "operator"}).login
    assert (login.application_credential_name, login.username) == ("stopper", "operator")


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("password", LoginKind.PASSWORD),
        ("v3password", LoginKind.PASSWORD),
        ("V3Password", LoginKind.PASSWORD),
        ("token", LoginKind.TOKEN),
        ("v3token", LoginKind.TOKEN),
        ("v3applicationcredential", LoginKind.APPLICATION_CREDENTIAL),
    ],
)
def test_the_kind_of_login_can_be_named(word: str, kind: LoginKind) -> None:
    """By the names that keystoneauth has for it."""
    assert read(**CREDENTIAL, OS_TOKEN="token", OS_AUTH_TYPE=word).login.kind is kind


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        (without(PASSWORD, "OS_AUTH_URL"), ["OS_AUTH_URL"]),
        (without(PASSWORD, "OS_USERNAME"), ["OS_USERNAME"]),
        (without(PASSWORD, "OS_PASSWORD"), ["OS_PASSWORD"]),
        (without(PASSWORD, "OS_USER_DOMAIN_NAME"), ["OS_USER_DOMAIN_NAME"]),
        (without(PASSWORD, "OS_PROJECT_NAME"), ["OS_PROJECT_NAME"]),
        ({"OS_AUTH_URL": "https://iam.example/v3", "OS_AUTH_TYPE": "token"}, ["OS_TOKEN", "OS_PROJECT_NAME"]),
        (without(CREDENTIAL, "OS_APPLICATION_CREDENTIAL_ID"), ["OS_APPLICATION_CREDENTIAL_ID", "OS_USERNAME"]),
        (
            {"OS_AUTH_URL": "https://iam.example/v3", "OS_AUTH_TYPE": "v3applicationcredential"},
            ["OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_SECRET", "OS_USERNAME"],
        ),
    ],
)
def test_what_a_login_lacks_is_named(environ: dict[str, str], missing: list[str]) -> None:
    """Each kind of login has its needs."""
    found = faults({"AUTOSTOP_INBOUND_AUTH": "none", **environ})
    assert [fault.partition(":")[0] for fault in found] == missing


@pytest.mark.parametrize(("text", "verify"), [("true", False), ("false", "/ca.pem"), ("", "/ca.pem")])
def test_insecure_goes_before_a_certificate(text: str, verify: bool | str) -> None:
    """OS_INSECURE switches the check off, said out loud."""
    assert read(OS_INSECURE=text, OS_CACERT="/ca.pem").login.verify == verify
    assert read().login.verify is True


# --- secrets


def _secret_environ() -> dict[str, str]:
    names = ["OS_PASSWORD", "OS_TOKEN", "OS_APPLICATION_CREDENTIAL_SECRET", "AUTOSTOP_SINK_TOKEN"]
    tokens = {"AUTOSTOP_BEARER_TOKENS": f"{MARK}-1,{MARK}-2", "AUTOSTOP_INBOUND_AUTH": "bearer"}
    tokens["OS_AUTH_TYPE"] = "password"
    return {**LEAST, **dict.fromkeys(names, MARK), **tokens}


def test_secrets_do_not_show() -> None:
    """Neither by repr, str, format, nor by way of the objects that hold them."""
    found = from_environ(_secret_environ())
    secrets = [found.login.password, found.login.token, found.sink_token, *found.bearer_tokens]
    assert all(secret and MARK in secret.reveal() for secret in secrets)
    for thing in (found, found.login, found.bearer_tokens, asdict(found), *secrets):
        assert MARK not in f"{thing!r} {thing!s} {thing} {[thing]}"
    assert repr(Secret()) == "Secret()"
    assert not Secret()
    assert is_dataclass(CloudLogin)


def test_a_copy_of_a_secret_is_as_silent() -> None:
    """Copying does not turn it into text."""
    assert repr(copy.deepcopy(Secret(MARK))) == "Secret(***)"
    assert copy.deepcopy(Secret(MARK)).reveal() == MARK
    assert pickle.loads(pickle.dumps(Secret(MARK))).reveal() == MARK


def test_faults_show_no_values() -> None:
    """A value in the wrong variable may be a password, so none is quoted."""
    environ = {**dict.fromkeys(BAD, f"{MARK} {MARK}"), "OS_PASSWORD": MARK, "AUTOSTOP_PASSWORD": MARK}
    found = "\n".join(faults(environ))
    assert len(found.splitlines()) >= len(BAD) - 2
    assert MARK not in found


# --- the process


def _start(tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(0),
        env=environment(**environ),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=HANG * 3,
        check=False,
    )


def test_the_process_refuses_to_start(tmp_path: Path) -> None:
    """Exit code 1, every fault by name on stderr, no traceback and no secret."""
    ended = _start(tmp_path, **{**LEAST, **BAD, "OS_PASSWORD": MARK})
    assert ended.returncode == 1
    assert ended.stderr.startswith("bms-autostop does not start:\n")
    assert {line.strip().partition(":")[0] for line in ended.stderr.splitlines()[1:]} == set(BAD)
    assert MARK not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_process_does_not_start_open_by_accident(tmp_path: Path) -> None:
    """Without AUTOSTOP_INBOUND_AUTH nothing listens."""
    ended = _start(tmp_path, **PASSWORD)
    assert ended.returncode == 1
    assert "AUTOSTOP_INBOUND_AUTH: must be set" in ended.stderr


# --- callers with tokens of an issuer

OIDC = {
    **PASSWORD,
    "AUTOSTOP_INBOUND_AUTH": "oidc",
    "AUTOSTOP_OIDC_ISSUER": "https://issuer.example",
    "AUTOSTOP_OIDC_AUDIENCE": "https://function.example, second",
    "AUTOSTOP_OIDC_SUBJECTS": "system:serviceaccount:ops:nightly, trigger@project.iam.gserviceaccount.com,",
}


def test_oidc_is_read() -> None:
    """Issuer, audiences and subjects; the leeway is the tolerance for clocks."""
    assert from_environ(OIDC).oidc == OidcSettings(
        issuer="https://issuer.example",
        audiences=frozenset({"https://function.example", "second"}),
        subjects=frozenset({"system:serviceaccount:ops:nightly", "trigger@project.iam.gserviceaccount.com"}),
        leeway=timedelta(seconds=5),
    )
    assert read().oidc is None


@pytest.mark.parametrize(("tolerance", "leeway"), [("0", 0), ("500ms", 0.5), ("30s", 30), ("1m", 60), ("2d", 60)])
def test_a_token_is_never_good_for_long_after_its_end(tolerance: str, leeway: float) -> None:
    """A tolerance for clocks may be large; of it a minute counts for tokens."""
    oidc = from_environ({**OIDC, "AUTOSTOP_CLOCK_TOLERANCE": tolerance}).oidc
    assert oidc is not None
    assert oidc.leeway == timedelta(seconds=leeway)


@pytest.mark.parametrize("empty", ["", " ", ",", " , "])
@pytest.mark.parametrize("name", ["AUTOSTOP_OIDC_ISSUER", "AUTOSTOP_OIDC_AUDIENCE", "AUTOSTOP_OIDC_SUBJECTS"])
def test_oidc_needs_an_issuer_an_audience_and_somebody_who_may_call(name: str, empty: str) -> None:
    """Nobody on the list is a mistake, and not everybody."""
    told = faults({**OIDC, name: empty})
    assert {fault.partition(":")[0] for fault in told} == {name}
    assert any("must be set" in fault for fault in told)


def test_all_that_oidc_needs_is_told_at_once() -> None:
    """One start for all three."""
    named = [fault.partition(":")[0] for fault in faults({**PASSWORD, "AUTOSTOP_INBOUND_AUTH": "oidc"})]
    assert named == ["AUTOSTOP_OIDC_ISSUER", "AUTOSTOP_OIDC_AUDIENCE", "AUTOSTOP_OIDC_SUBJECTS"]


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example",
        "https://issuer.example/a/",
        "http://127.0.0.1:8000",
        "http://localhost",
        "http://[::1]/",
    ],
)
def test_an_issuer_is_reached_safely(url: str) -> None:
    """By https, or on this machine."""
    for name in ("AUTOSTOP_OIDC_ISSUER", "AUTOSTOP_OIDC_JWKS_URL"):
        assert from_environ({**OIDC, name: url}).oidc is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example",
        "http://10.0.0.1/",
        "http://127.0.0.1.evil.example",
        "ftp://issuer.example",
        "accounts.google.com",
        "https://",
        "https://user:word@issuer.example",
    ],
)
def test_another_issuer_is_refused(url: str) -> None:
    """What could be changed on its way, or fails with the first event, fails at the start."""
    for name in ("AUTOSTOP_OIDC_ISSUER", "AUTOSTOP_OIDC_JWKS_URL"):
        (fault,) = faults({**OIDC, name: url})
        assert fault.startswith(f"{name}: ")


@pytest.mark.parametrize("url", ["https://issuer.example/?a=b", "https://issuer.example/#a"])
def test_an_issuer_has_no_query(url: str) -> None:
    """Nothing could be put behind it."""
    assert faults({**OIDC, "AUTOSTOP_OIDC_ISSUER": url}) == (
        "AUTOSTOP_OIDC_ISSUER: must have neither query nor fragment.",
    )


def test_with_the_keys_from_elsewhere_an_issuer_is_only_a_name() -> None:
    """As an old cluster has it."""
    for place in ("https://10.0.0.1:6443/openid/v1/jwks", "file:///keys/jwks.json"):
        oidc = from_environ(
            {**OIDC, "AUTOSTOP_OIDC_ISSUER": "kubernetes/serviceaccount", "AUTOSTOP_OIDC_JWKS_URL": place}
        ).oidc
        assert oidc is not None
        assert (oidc.issuer, oidc.jwks_url) == ("kubernetes/serviceaccount", place)


@pytest.mark.parametrize("place", ["file:keys.json", "file://host/keys.json", "file:"])
def test_a_file_of_keys_has_a_whole_path(place: str) -> None:
    """On this machine."""
    (fault,) = faults({**OIDC, "AUTOSTOP_OIDC_JWKS_URL": place})
    assert fault.startswith("AUTOSTOP_OIDC_JWKS_URL: is no URL of a file")


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_oidc_needs_its_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault says how to get it."""
    real = oidc_settings.find_spec
    monkeypatch.setattr(oidc_settings, "find_spec", lambda name: None if name == missing else real(name))
    (fault,) = faults(OIDC)
    assert "pip install 'bms-autostop[oidc]'" in fault


def test_settings_of_oidc_do_no_harm_without_it() -> None:
    """One Secret can serve several deployments."""
    assert read(**{name: value for name, value in OIDC.items() if name.startswith("AUTOSTOP_OIDC")}).oidc is None

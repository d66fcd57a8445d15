"""The settings of `stop_servers`: good values, and every violation by its variable's name."""

from __future__ import annotations

import json
import subprocess
from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from pathlib import Path

import pytest

from handler.settings import declared
from handler.settings.common import Callers, InboundAuth, SinkSettings
from handler.settings.stop_servers import AnnounceMode, StopLimit
from handler.stop.model import Approver, Policy
from tests.settings.environments import LEAST, MARK, URN, names, read, violations
from tests.support.process import HANG, environment, function_command


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
    assert found.callers == Callers(InboundAuth.NONE, (), None, frozenset())
    assert (found.deadline, found.concurrency, found.max_body) == (timedelta(seconds=50), 16, 1024 * 1024)
    assert (found.source, found.sink, found.result_topic, found.extensions) == ("/bms-autostop", None, None, {})
    assert (found.log_level, found.api, found.compute_url, found.event_types) == ("INFO", "nova", None, {})
    assert found.stop_limit == StopLimit(200, timedelta(minutes=10))
    assert found.announce is AnnounceMode.OFF


def test_each_default_in_the_table_is_the_one_in_the_code() -> None:
    """Setting every variable to its documented default changes nothing."""
    spelled = {setting.name: setting.default for setting in declared() if setting.default}
    assert len(spelled) > 10
    assert repr(read(**spelled)) == repr(read())


def test_settings_are_frozen() -> None:
    """They do not change while the process runs."""
    with pytest.raises(FrozenInstanceError):
        read().deadline = timedelta(0)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        SinkSettings("http://sink/").url = ""  # type: ignore[misc]


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_variable_counts_as_unset(empty: str) -> None:
    """As a manifest with an empty value means it."""
    unset = {setting.name: empty for setting in declared() if setting.name not in LEAST}
    assert repr(read(**unset)) == repr(read())


# --- one value at a time


@pytest.mark.parametrize("text", ["/bms-autostop", "urn:uuid:4f", "https://a.example/b?c#d", "a"])
def test_a_source_is_a_uri_reference(text: str) -> None:
    """Whatever CloudEvents allows as a source."""
    assert read(AUTOSTOP_SOURCE=text).source == text


@pytest.mark.parametrize("text", ["a b", "ü", "a\nb", "x" * 1025, '"quoted"', "<a>"])
def test_another_source_is_refused(text: str) -> None:
    """Spaces, quotes and the like have no place in a URI."""
    assert violations({**LEAST, "AUTOSTOP_SOURCE": text}) == ("AUTOSTOP_SOURCE must be a URI reference.",)


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
    (found,) = violations({**LEAST, "K_CE_OVERRIDES": text})
    assert found.startswith("K_CE_OVERRIDES must ")


@pytest.mark.parametrize(
    ("name", "good", "attribute", "value"),
    [
        ("AUTOSTOP_API", "NOVA", "api", "nova"),
        ("AUTOSTOP_COMPUTE_URL", "https://nova.example/v2.1", "compute_url", "https://nova.example/v2.1"),
        ("AUTOSTOP_SOURCE", "/mine", "source", "/mine"),
        ("AUTOSTOP_DEADLINE", "2m", "deadline", timedelta(minutes=2)),
        ("AUTOSTOP_CONCURRENCY", "3", "concurrency", 3),
        ("AUTOSTOP_MAX_BODY", "2KiB", "max_body", 2048),
        ("AUTOSTOP_LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ],
)
def test_each_setting_arrives(name: str, good: str, attribute: str, value: object) -> None:
    """A variable sets its attribute."""
    assert getattr(read(**{name: good}), attribute) == value


RULES = [
    ("AUTOSTOP_PROTECT", "keep=on", "protect", ("keep", "on")),
    ("AUTOSTOP_ONLY", "autostop=yes", "only", ("autostop", "yes")),
    ("AUTOSTOP_BARE_METAL_ONLY", "off", "bare_metal_only", False),
    ("AUTOSTOP_DRY_RUN", "yes", "dry_run", True),
    ("AUTOSTOP_MAX_SERVERS", "1000", "max_servers", 1000),
    ("AUTOSTOP_MAX_EVENT_AGE", "0", "max_event_age", timedelta(0)),
    ("AUTOSTOP_CLOCK_TOLERANCE", "1m", "clock_tolerance", timedelta(minutes=1)),
    ("AUTOSTOP_WAIT", "0", "wait", timedelta(0)),
]


@pytest.mark.parametrize(("name", "good", "attribute", "value"), RULES)
def test_each_rule_arrives(name: str, good: str, attribute: str, value: object) -> None:
    """A variable sets its rule of the policy."""
    assert getattr(read(**{name: good}).policy, attribute) == value


def test_every_rule_is_tested_above() -> None:
    """And its default at the top of this file."""
    rules = {field.name for field in fields(Policy)}
    assert {attribute for _, _, attribute, _ in RULES} == rules, "RULES must have a row for each field of Policy"


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
    "AUTOSTOP_ONLY": "autostop",
    "AUTOSTOP_STOP_LIMIT": "many",
    "AUTOSTOP_ANNOUNCE": "maybe",
    "AUTOSTOP_MAX_SERVERS": "0",
    "AUTOSTOP_BEARER_TOKENS": "short",
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


def test_all_violations_are_reported_at_once() -> None:
    """Each is named once."""
    found = violations({**LEAST, **BAD})
    assert sorted(names(found)) == sorted(BAD)
    assert all(" must " in each and each.endswith(".") for each in found)


def test_an_empty_environment_names_all_that_is_needed() -> None:
    """From nothing to a working set in one go."""
    assert names(violations({})) == [
        "AUTOSTOP_INBOUND_AUTH",
        "OS_AUTH_URL",
        "OS_USERNAME",
        "OS_PASSWORD",
        "OS_USER_DOMAIN_NAME",
        "OS_PROJECT_NAME",
    ]


@pytest.mark.parametrize("tokens", ["", ",", " , "])
def test_bearer_needs_a_token(tokens: str) -> None:
    """An empty list would permit no caller, or be mistaken for all."""
    (found,) = violations({**LEAST, "AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": tokens})
    assert found.startswith("AUTOSTOP_BEARER_TOKENS must hold at least one token")


def test_bearer_tokens_are_a_list() -> None:
    """Comma-separated for rotation; blanks around them are not part of them."""
    tokens = [f"{number}-token-of-this-test" for number in ("first", "second", "third")]
    spelled = f" {tokens[0]},{tokens[1]} ,, {tokens[2]} "
    found = read(AUTOSTOP_INBOUND_AUTH="Bearer", AUTOSTOP_BEARER_TOKENS=spelled).callers
    assert [token.reveal() for token in found.bearer_tokens] == tokens
    assert found.inbound_auth is InboundAuth.BEARER


def test_origins_are_a_list() -> None:
    """In any case."""
    assert read(AUTOSTOP_WEBHOOK_ORIGINS="A.example, ,b.example,").callers.webhook_origins == {"a.example", "b.example"}


@pytest.mark.parametrize(
    ("wait", "deadline", "violation"),
    [
        ("50s", "50s", "AUTOSTOP_WAIT must be shorter than AUTOSTOP_DEADLINE."),
        ("1m", "50s", "AUTOSTOP_WAIT must be shorter than AUTOSTOP_DEADLINE."),
        ("0", "0", "AUTOSTOP_DEADLINE must be at least 1s."),
        ("0", "999ms", "AUTOSTOP_DEADLINE must be at least 1s."),
    ],
)
def test_the_wait_fits_into_the_deadline(wait: str, deadline: str, violation: str) -> None:
    """A budget that cannot hold is refused."""
    assert violations({**LEAST, "AUTOSTOP_WAIT": wait, "AUTOSTOP_DEADLINE": deadline}) == (violation,)


@pytest.mark.parametrize(
    ("environ", "limit"),
    [
        ({"AUTOSTOP_STOP_LIMIT": "50/10m"}, StopLimit(50, timedelta(minutes=10))),
        ({"AUTOSTOP_STOP_LIMIT": " 900 / 1h "}, StopLimit(900, timedelta(hours=1))),
        ({"AUTOSTOP_STOP_LIMIT": "0"}, None),
        ({"AUTOSTOP_MAX_SERVERS": "10"}, StopLimit(40, timedelta(minutes=10))),
        ({"AUTOSTOP_MAX_SERVERS": "10", "AUTOSTOP_STOP_LIMIT": "10/1s"}, StopLimit(10, timedelta(seconds=1))),
    ],
)
def test_the_stop_limit_is_read(environ: dict[str, str], limit: StopLimit | None) -> None:
    """A number of servers within a time; without one four full events in ten minutes."""
    assert read(**environ).stop_limit == limit


@pytest.mark.parametrize("text", ["200", "0/10m", "200/0", "200/", "/10m", "-1/10m", "200/10m/2", "200 per 10m", "off"])
def test_another_stop_limit_is_refused(text: str) -> None:
    """A limit that would never or always hold is a mistake."""
    assert violations({**LEAST, "AUTOSTOP_STOP_LIMIT": text}) == (
        "AUTOSTOP_STOP_LIMIT must be a number of servers within a time such as 200/10m, or 0.",
    )


def test_the_stop_limit_leaves_room_for_one_event() -> None:
    """An event of the largest size could never be handled otherwise."""
    small = {"AUTOSTOP_MAX_SERVERS": "51", "AUTOSTOP_STOP_LIMIT": "50/10m"}
    assert violations({**LEAST, **small}) == ("AUTOSTOP_STOP_LIMIT must be 0, or at least AUTOSTOP_MAX_SERVERS.",)


# --- the sink


def test_k_sink_serves_where_no_sink_is_set() -> None:
    """A SinkBinding is enough; an explicit sink goes before it."""
    assert repr(read(K_SINK="http://broker/").sink) == repr(SinkSettings("http://broker/"))
    both = read(K_SINK="http://broker/", AUTOSTOP_RESULT_SINK="http://sink/")
    assert repr(both.sink) == repr(SinkSettings("http://sink/"))


def test_a_sink_token_comes_from_one_place() -> None:
    """Which of the two counts could only be guessed."""
    file = {"AUTOSTOP_RESULT_SINK": "http://sink/", "AUTOSTOP_SINK_TOKEN_FILE": "/oidc/token"}
    assert violations({**LEAST, **file, "AUTOSTOP_SINK_TOKEN": "token-of-this-test"}) == (
        "AUTOSTOP_SINK_TOKEN_FILE must not be set beside AUTOSTOP_SINK_TOKEN.",
    )
    found = read(**file).sink
    assert found is not None
    assert found.token_file == "/oidc/token"


@pytest.mark.parametrize("text", ["a b", "a\nb", "ü", "a\x00"])
def test_a_sink_token_must_fit_into_a_header(text: str) -> None:
    """It fails at the start, not with every event, and is not quoted."""
    assert violations({**LEAST, "AUTOSTOP_SINK_TOKEN": text}) == (
        "AUTOSTOP_SINK_TOKEN must have visible ASCII characters only.",
    )


def test_a_topic_can_be_the_sink_of_results() -> None:
    """Instead of a URL, and before the one that the platform sets."""
    found = read(AUTOSTOP_RESULT_SINK=f" smn:{URN} ", K_SINK="http://broker/", AUTOSTOP_SMN_URL="https://s/")
    assert (found.result_topic, found.sink, found.smn_url) == (URN, None, "https://s/")


@pytest.mark.parametrize(
    "text", ["smn:", f"smn:smn:{URN}", "smn:bms-results", f"smn:{URN}/../x", f"smn:{URN} x", "smn:urn:smn:a:b"]
)
def test_a_malformed_topic_is_named(text: str) -> None:
    """It would end in a path."""
    assert violations({**LEAST, "AUTOSTOP_RESULT_SINK": text}) == (
        "AUTOSTOP_RESULT_SINK must be of the form smn:urn:smn:<region>:<project id>:<topic>.",
    )


def test_the_platforms_sink_is_not_a_topic() -> None:
    """Knative knows only URLs."""
    assert violations({**LEAST, "K_SINK": f"smn:{URN}"}) == ("K_SINK must be an http or https URL.",)


def test_results_must_fit_into_a_message() -> None:
    """More servers in one event than that are refused at the start, and not after they were stopped."""
    topic = {"AUTOSTOP_RESULT_SINK": f"smn:{URN}"}
    assert read(**topic, AUTOSTOP_MAX_SERVERS="150").policy.max_servers == 150
    (found,) = violations({**LEAST, **topic, "AUTOSTOP_MAX_SERVERS": "151"})
    assert found.startswith("AUTOSTOP_MAX_SERVERS must be at most 150 with")
    assert read(AUTOSTOP_MAX_SERVERS="151").policy.max_servers == 151


# --- the process


def test_the_process_refuses_to_start(tmp_path: Path) -> None:
    """Exit code 1, every violation by name on stderr, no traceback and no secret."""
    ended = subprocess.run(
        function_command(0),
        env=environment(**{**LEAST, **BAD, "OS_PASSWORD": MARK}),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=HANG * 3,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("bms-autostop does not start:\n")
    assert {line.split()[0] for line in ended.stderr.splitlines()[1:]} == set(BAD)
    assert MARK not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


KEY = "k" * 32


@pytest.mark.parametrize(
    ("environ", "above", "approver"),
    [
        ({}, None, None),
        ({"AUTOSTOP_APPROVAL": "off"}, None, None),
        ({"AUTOSTOP_APPROVAL": "Always", "AUTOSTOP_APPROVAL_KEYS": KEY}, 0, Approver.OTHER),
        ({"AUTOSTOP_APPROVAL": "above:5", "AUTOSTOP_APPROVAL_KEYS": KEY}, 5, Approver.OTHER),
        (
            {"AUTOSTOP_APPROVAL": "above: 5", "AUTOSTOP_APPROVER": "self", "AUTOSTOP_APPROVAL_KEYS": KEY},
            5,
            Approver.SELF,
        ),
        ({"AUTOSTOP_APPROVER": "other", "AUTOSTOP_APPROVAL_KEYS": KEY}, None, Approver.OTHER),
    ],
)
def test_which_events_need_an_approval(environ: dict[str, str], above: int | None, approver: Approver | None) -> None:
    """In doubt another person must agree."""
    approval = read(**environ).approval
    assert (approval.above, approval.approver) == (above, approver)


@pytest.mark.parametrize(
    ("environ", "names_"),
    [
        ({"AUTOSTOP_APPROVAL": "on"}, ["AUTOSTOP_APPROVAL"]),
        ({"AUTOSTOP_APPROVAL": "above:"}, ["AUTOSTOP_APPROVAL"]),
        ({"AUTOSTOP_APPROVAL": "above:-1"}, ["AUTOSTOP_APPROVAL"]),
        ({"AUTOSTOP_APPROVAL": "above"}, ["AUTOSTOP_APPROVAL"]),
        ({"AUTOSTOP_APPROVAL": "always:5"}, ["AUTOSTOP_APPROVAL"]),
        ({"AUTOSTOP_APPROVAL": "always"}, ["AUTOSTOP_APPROVAL_KEYS"]),
        ({"AUTOSTOP_APPROVAL": "above:5"}, ["AUTOSTOP_APPROVAL_KEYS"]),
        ({"AUTOSTOP_APPROVER": "self"}, ["AUTOSTOP_APPROVAL_KEYS"]),
        ({"AUTOSTOP_APPROVER": "nobody", "AUTOSTOP_APPROVAL_KEYS": KEY}, ["AUTOSTOP_APPROVER"]),
        ({"AUTOSTOP_APPROVAL_KEYS": "k" * 31}, ["AUTOSTOP_APPROVAL_KEYS"]),
        ({"AUTOSTOP_APPROVAL_KEYS": f"{KEY},{'k' * 31}"}, ["AUTOSTOP_APPROVAL_KEYS"]),
        ({"AUTOSTOP_APPROVAL_TTL": "999ms"}, ["AUTOSTOP_APPROVAL_TTL"]),
        ({"AUTOSTOP_APPROVAL_TTL": "61m"}, ["AUTOSTOP_APPROVAL_TTL"]),
        ({"AUTOSTOP_APPROVER_TOKENS": KEY}, ["AUTOSTOP_APPROVER_TOKENS"]),
        ({"AUTOSTOP_APPROVER_SUBJECTS": "a"}, ["AUTOSTOP_APPROVER_SUBJECTS"]),
        (
            {
                "AUTOSTOP_INBOUND_AUTH": "bearer",
                "AUTOSTOP_BEARER_TOKENS": KEY,
                "AUTOSTOP_APPROVER_SUBJECTS": "a",
                "AUTOSTOP_APPROVER_TOKENS": ",",
            },
            ["AUTOSTOP_APPROVER_TOKENS", "AUTOSTOP_APPROVER_SUBJECTS"],
        ),
    ],
)
def test_settings_of_approvals_that_contradict_each_other_are_refused(
    environ: dict[str, str], names_: list[str]
) -> None:
    """A deployment in which approvals cannot work must not start."""
    assert names(violations({**LEAST, **environ})) == names_


def test_a_plan_can_be_approved_for_at_least_a_second_and_at_most_an_hour() -> None:
    """Fifteen minutes, if nothing is said."""
    assert read().approval.ttl == timedelta(minutes=15)
    assert read(AUTOSTOP_APPROVAL_TTL="1s").approval.ttl == timedelta(seconds=1)
    assert read(AUTOSTOP_APPROVAL_TTL="1h").approval.ttl == timedelta(hours=1)


def test_approvers_may_call() -> None:
    """With OIDC the subjects that may approve are among those that may call."""
    oidc = {
        "AUTOSTOP_INBOUND_AUTH": "oidc",
        "AUTOSTOP_OIDC_ISSUER": "https://issuer.example",
        "AUTOSTOP_OIDC_AUDIENCE": "us",
        "AUTOSTOP_OIDC_SUBJECTS": "broker",
        "AUTOSTOP_APPROVER_SUBJECTS": "webhooks",
    }
    callers = read(**oidc).callers
    assert callers.oidc is not None
    assert callers.oidc.subjects == {"broker", "webhooks"}
    assert callers.approver_subjects == {"webhooks"}
    assert callers.names_approvers


@pytest.mark.parametrize("mode", [AnnounceMode.BEST_EFFORT, AnnounceMode.REQUIRED])
def test_announcements_need_a_sink(mode: AnnounceMode) -> None:
    """A URL, that of Knative, or a topic; without one the process does not start."""
    for sink in (
        {"AUTOSTOP_RESULT_SINK": "http://sink/"},
        {"K_SINK": "http://sink/"},
        {"AUTOSTOP_RESULT_SINK": f"smn:{URN}"},
    ):
        assert read(AUTOSTOP_ANNOUNCE=mode.value, **sink).announce is mode
    assert violations({**LEAST, "AUTOSTOP_ANNOUNCE": mode.value}) == (
        "AUTOSTOP_ANNOUNCE needs a sink: AUTOSTOP_RESULT_SINK or K_SINK.",
    )

"""The settings of `stop_servers`: defaults, values, and every violation by the name of its variable."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from operator import attrgetter
from pathlib import Path

import pytest

from handler.settings import declared
from handler.settings.common import Callers, InboundAuth, SinkSettings
from handler.settings.stop_servers import AnnounceMode, ApprovalSettings, StopLimit
from handler.stop.model import Approver, Policy
from tests.settings.environments import LEAST, MARK, URN, names, read, violations
from tests.support.process import HANG, environment, function_command

KEY = "k" * 32
TOPIC = {"AUTOSTOP_RESULT_SINK": f"smn:{URN}"}
MINUTE = timedelta(minutes=1)


def test_the_defaults_are_those_of_the_table() -> None:
    """With nothing but login and inbound auth, everything is as documented."""
    found = read()
    assert found.policy == Policy(
        protect=("autostop", "never"),
        bare_metal_only=True,
        dry_run=False,
        max_servers=50,
        max_event_age=15 * MINUTE,
        clock_tolerance=timedelta(seconds=5),
        wait=timedelta(seconds=20),
    )
    assert found.callers == Callers(InboundAuth.NONE, (), None, frozenset())
    assert (found.deadline, found.concurrency, found.max_body) == (timedelta(seconds=50), 16, 1024 * 1024)
    assert (found.source, found.sink, found.result_topic, found.extensions) == ("/bms-autostop", None, None, {})
    assert (found.log_level, found.api, found.compute_url, found.event_types) == ("INFO", "nova", None, {})
    assert (found.stop_limit, found.announce) == (StopLimit(200, 10 * MINUTE), AnnounceMode.OFF)
    assert found.approval == ApprovalSettings(ttl=15 * MINUTE)


def test_each_documented_default_is_that_of_the_code() -> None:
    """A variable that is set to its documented default changes nothing."""
    defaults = {setting.name: setting.default for setting in declared() if setting.default}
    assert len(defaults) > 10
    assert repr(read(**defaults)) == repr(read())


def test_settings_are_frozen() -> None:
    """They do not change while the process runs."""
    with pytest.raises(AttributeError):
        read().deadline = timedelta(0)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        SinkSettings("http://sink/").url = ""  # type: ignore[misc]


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_variable_counts_as_unset(empty: str) -> None:
    """As in a manifest with an empty value."""
    unset = {setting.name: empty for setting in declared() if setting.name not in LEAST}
    assert repr(read(**unset)) == repr(read())


# --- values

POLICY = [
    ("AUTOSTOP_PROTECT", "keep=on", "policy.protect", ("keep", "on")),
    ("AUTOSTOP_ONLY", "autostop=yes", "policy.only", ("autostop", "yes")),
    ("AUTOSTOP_BARE_METAL_ONLY", "off", "policy.bare_metal_only", False),
    ("AUTOSTOP_DRY_RUN", "yes", "policy.dry_run", True),
    ("AUTOSTOP_MAX_SERVERS", "1000", "policy.max_servers", 1000),
    ("AUTOSTOP_MAX_EVENT_AGE", "0", "policy.max_event_age", timedelta(0)),
    ("AUTOSTOP_CLOCK_TOLERANCE", "1m", "policy.clock_tolerance", MINUTE),
    ("AUTOSTOP_WAIT", "0", "policy.wait", timedelta(0)),
]
VALUES = [
    *POLICY,
    ("AUTOSTOP_API", "NOVA", "api", "nova"),
    ("AUTOSTOP_COMPUTE_URL", "https://nova.example/v2.1", "compute_url", "https://nova.example/v2.1"),
    ("AUTOSTOP_BMS_URL", "https://bms.example/v1", "bms_url", "https://bms.example/v1"),
    ("AUTOSTOP_SMN_URL", "https://smn.example/v2", "smn_url", "https://smn.example/v2"),
    ("AUTOSTOP_DEADLINE", "2m", "deadline", 2 * MINUTE),
    ("AUTOSTOP_DEADLINE", "1s", "deadline", timedelta(seconds=1)),
    ("AUTOSTOP_CONCURRENCY", "3", "concurrency", 3),
    ("AUTOSTOP_MAX_BODY", "2KiB", "max_body", 2048),
    ("AUTOSTOP_LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ("AUTOSTOP_WEBHOOK_ORIGINS", "A.example, ,b.example,", "callers.webhook_origins", {"a.example", "b.example"}),
    *(
        ("AUTOSTOP_SOURCE", source, "source", source)
        for source in ("/mine", "urn:uuid:4f", "https://a.example/b?c#d", "a")
    ),
    ("AUTOSTOP_STOP_LIMIT", "50/10m", "stop_limit", StopLimit(50, 10 * MINUTE)),
    ("AUTOSTOP_STOP_LIMIT", " 900 / 1h ", "stop_limit", StopLimit(900, 60 * MINUTE)),
    ("AUTOSTOP_STOP_LIMIT", "0", "stop_limit", None),
    ("AUTOSTOP_MAX_SERVERS", "10", "stop_limit", StopLimit(40, 10 * MINUTE)),
    ("AUTOSTOP_APPROVAL_TTL", "1s", "approval.ttl", timedelta(seconds=1)),
    ("AUTOSTOP_APPROVAL_TTL", "1h", "approval.ttl", 60 * MINUTE),
    # As Knative's SinkBinding writes them.
    ("K_CE_OVERRIDES", "{}", "extensions", {}),
    ("K_CE_OVERRIDES", '{"extensions": null}', "extensions", {}),
    ("K_CE_OVERRIDES", '{"extensions": {"team": "build", "a1": "ü x"}}', "extensions", {"team": "build", "a1": "ü x"}),
    ("K_CE_OVERRIDES", '{"extensions": {"team": "build"}, "other": 1}', "extensions", {"team": "build"}),
]


@pytest.mark.parametrize(("name", "text", "attribute", "value"), VALUES)
def test_a_variable_sets_an_attribute(name: str, text: str, attribute: str, value: object) -> None:
    """Of the settings, or of one of their parts."""
    assert attrgetter(attribute)(read(**{name: text})) == value


def test_every_field_of_the_policy_has_a_setting() -> None:
    """Its default is at the top of this file."""
    expected = {f"policy.{name}" for name in Policy._fields}
    assert {attribute for _, _, attribute, _ in POLICY} == expected, "POLICY must have a row for each field of Policy"


def test_bearer_tokens_are_a_list() -> None:
    """Comma-separated for rotation; blanks around them are not part of them."""
    tokens = [f"{number}-token-of-this-test" for number in ("first", "second", "third")]
    text = f" {tokens[0]},{tokens[1]} ,, {tokens[2]} "
    found = read(AUTOSTOP_INBOUND_AUTH="Bearer", AUTOSTOP_BEARER_TOKENS=text).callers
    assert [token.reveal() for token in found.bearer_tokens] == tokens
    assert found.inbound_auth is InboundAuth.BEARER


@pytest.mark.parametrize(
    ("environ", "url", "token_file", "topic"),
    [
        ({"K_SINK": "http://broker/"}, "http://broker/", "", None),
        ({"K_SINK": "http://broker/", "AUTOSTOP_RESULT_SINK": "http://sink/"}, "http://sink/", "", None),
        (
            {"AUTOSTOP_RESULT_SINK": "http://sink/", "AUTOSTOP_SINK_TOKEN_FILE": "/token"},
            "http://sink/",
            "/token",
            None,
        ),
        ({"K_SINK": "http://broker/", "AUTOSTOP_RESULT_SINK": f" smn:{URN} "}, None, None, URN),
        ({**TOPIC, "AUTOSTOP_MAX_SERVERS": "150"}, None, None, URN),
        ({"AUTOSTOP_MAX_SERVERS": "151"}, None, None, None),
    ],
)
def test_results_go_to_a_url_or_a_topic(
    environ: Mapping[str, str], url: str | None, token_file: str | None, topic: str | None
) -> None:
    """The sink of the settings comes before that of Knative's SinkBinding."""
    found = read(**environ)
    assert found.result_topic == topic
    assert (found.sink and found.sink.url, found.sink and found.sink.token_file) == (url, token_file)


@pytest.mark.parametrize(
    ("environ", "above", "approver"),
    [
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
    """By another person unless the settings permit the requester."""
    approval = read(**environ).approval
    assert (approval.above, approval.approver) == (above, approver)


def test_approvers_may_call() -> None:
    """With OIDC the subjects that may approve are among those that may call."""
    callers = read(
        AUTOSTOP_INBOUND_AUTH="oidc",
        AUTOSTOP_OIDC_ISSUER="https://issuer.example",
        AUTOSTOP_OIDC_AUDIENCE="us",
        AUTOSTOP_OIDC_SUBJECTS="broker",
        AUTOSTOP_APPROVER_SUBJECTS="webhooks",
    ).callers
    assert callers.oidc is not None
    assert callers.oidc.subjects == {"broker", "webhooks"}
    assert callers.approver_subjects == {"webhooks"}
    assert callers.names_approvers


# --- violations

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
    """One start shows them all."""
    assert names(violations({})) == [
        "AUTOSTOP_INBOUND_AUTH",
        "OS_AUTH_URL",
        "OS_USERNAME",
        "OS_PASSWORD",
        "OS_USER_DOMAIN_NAME",
        "OS_PROJECT_NAME",
    ]


REFUSED = {
    "AUTOSTOP_SOURCE must be a URI reference.": [
        {"AUTOSTOP_SOURCE": text} for text in ("ü", "a\nb", "x" * 1025, '"quoted"', "<a>")
    ],
    "K_CE_OVERRIDES must be JSON.": [{"K_CE_OVERRIDES": "[" * 100_000}],
    'K_CE_OVERRIDES must be of the form {"extensions": {...}}.': [
        {"K_CE_OVERRIDES": text}
        for text in ("null", "[]", '"text"', '{"extensions": ["team"]}', '{"extensions": "text"}')
    ],
    "K_CE_OVERRIDES must name only attributes that can be extensions here.": [
        {"K_CE_OVERRIDES": json.dumps({"extensions": {name: "x"}})}
        for name in ("Team", "a-b", "", "id", "type", "data", "causationid", "traceparent")
    ],
    "K_CE_OVERRIDES must have text as the value of each extension.": [
        {"K_CE_OVERRIDES": f'{{"extensions": {{"a": {value}}}}}'} for value in ("5", "null", '"\\ud800"')
    ],
    "AUTOSTOP_BEARER_TOKENS must hold at least one token with AUTOSTOP_INBOUND_AUTH=bearer.": [
        {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": text} for text in ("", ",", " , ")
    ],
    "AUTOSTOP_WAIT must be shorter than AUTOSTOP_DEADLINE.": [
        {"AUTOSTOP_WAIT": "50s", "AUTOSTOP_DEADLINE": "50s"},
        {"AUTOSTOP_WAIT": "1m", "AUTOSTOP_DEADLINE": "50s"},
    ],
    "AUTOSTOP_DEADLINE must be at least 1s.": [
        {"AUTOSTOP_WAIT": "0", "AUTOSTOP_DEADLINE": "0"},
        {"AUTOSTOP_WAIT": "0", "AUTOSTOP_DEADLINE": "999ms"},
    ],
    "AUTOSTOP_STOP_LIMIT must be a number of servers within a time such as 200/10m, or 0.": [
        {"AUTOSTOP_STOP_LIMIT": text}
        for text in ("200", "0/10m", "200/0", "200/", "/10m", "-1/10m", "200/10m/2", "200 per 10m", "off")
    ],
    # An event of the largest size could never be handled.
    "AUTOSTOP_STOP_LIMIT must be 0, or at least AUTOSTOP_MAX_SERVERS.": [
        {"AUTOSTOP_MAX_SERVERS": "51", "AUTOSTOP_STOP_LIMIT": "50/10m"}
    ],
    "AUTOSTOP_SINK_TOKEN_FILE must not be set beside AUTOSTOP_SINK_TOKEN.": [
        {"AUTOSTOP_SINK_TOKEN_FILE": "/token", "AUTOSTOP_SINK_TOKEN": "token-of-this-test"}
    ],
    "AUTOSTOP_SINK_TOKEN must have visible ASCII characters only.": [
        {"AUTOSTOP_SINK_TOKEN": text} for text in ("a b", "a\nb", "ü", "a\x00")
    ],
    "AUTOSTOP_RESULT_SINK must be of the form smn:urn:smn:<region>:<project id>:<topic>.": [
        {"AUTOSTOP_RESULT_SINK": text}
        for text in ("smn:", f"smn:smn:{URN}", "smn:bms-results", f"smn:{URN}/../x", f"smn:{URN} x", "smn:urn:smn:a:b")
    ],
    "K_SINK must be an http or https URL.": [{"K_SINK": f"smn:{URN}"}],
    "AUTOSTOP_MAX_SERVERS must be at most 150 with an SMN topic as the sink: no message holds more.": [
        {**TOPIC, "AUTOSTOP_MAX_SERVERS": "151"}
    ],
    "AUTOSTOP_ANNOUNCE needs a sink: AUTOSTOP_RESULT_SINK or K_SINK.": [
        {"AUTOSTOP_ANNOUNCE": mode} for mode in ("best-effort", "required")
    ],
    "AUTOSTOP_APPROVAL must be off, always, or above:N with a number of servers up to 1000.": [
        {"AUTOSTOP_APPROVAL": text} for text in ("on", "above:", "above:-1", "above:1001", "above", "always:5")
    ],
    "AUTOSTOP_APPROVAL_KEYS must be set if AUTOSTOP_APPROVAL is not off: plans are signed with it.": [
        {"AUTOSTOP_APPROVAL": "always"},
        {"AUTOSTOP_APPROVAL": "above:5"},
    ],
    "AUTOSTOP_APPROVAL_KEYS must be set with AUTOSTOP_APPROVER: plans are signed with it.": [
        {"AUTOSTOP_APPROVER": "self"}
    ],
    "AUTOSTOP_APPROVER must be one of self, other.": [{"AUTOSTOP_APPROVER": "nobody", "AUTOSTOP_APPROVAL_KEYS": KEY}],
    "AUTOSTOP_APPROVAL_KEYS must have keys of at least 32 characters.": [
        {"AUTOSTOP_APPROVAL_KEYS": "k" * 31},
        {"AUTOSTOP_APPROVAL_KEYS": f"{KEY},{'k' * 31}"},
    ],
    "AUTOSTOP_APPROVAL_TTL must be a duration from 1s to 1h.": [
        {"AUTOSTOP_APPROVAL_TTL": "999ms"},
        {"AUTOSTOP_APPROVAL_TTL": "61m"},
    ],
    "AUTOSTOP_APPROVER_TOKENS must be set only with AUTOSTOP_INBOUND_AUTH=bearer.": [{"AUTOSTOP_APPROVER_TOKENS": KEY}],
    "AUTOSTOP_APPROVER_SUBJECTS must be set only with AUTOSTOP_INBOUND_AUTH=oidc.": [
        {"AUTOSTOP_APPROVER_SUBJECTS": "a"}
    ],
    "AUTOSTOP_APPROVER_TOKENS must name at least one caller.": [
        {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": KEY, "AUTOSTOP_APPROVER_TOKENS": ","}
    ],
}


@pytest.mark.parametrize("violation", REFUSED)
def test_an_invalid_or_contradicting_value_is_refused(violation: str) -> None:
    """When the function starts, and not with the first event."""
    for environ in REFUSED[violation]:
        assert violations({**LEAST, **environ}) == (violation,), environ


@pytest.mark.parametrize("sink", [{"AUTOSTOP_RESULT_SINK": "http://sink/"}, {"K_SINK": "http://sink/"}, TOPIC])
def test_announcements_go_to_any_sink(sink: Mapping[str, str]) -> None:
    """A URL, that of Knative, or a topic."""
    assert read(AUTOSTOP_ANNOUNCE="required", **sink).announce is AnnounceMode.REQUIRED
    assert read(AUTOSTOP_ANNOUNCE="best-effort", **sink).announce is AnnounceMode.BEST_EFFORT


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

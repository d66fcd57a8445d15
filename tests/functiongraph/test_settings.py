"""The settings that FunctionGraph and SMN brought: a login kind of its own, the region, topics as sinks."""

from __future__ import annotations

import pytest

from handler import settings, webhook_settings
from handler.login_settings import LoginKind
from handler.settings import Settings, SettingsError

URN = "urn:smn:eu-de:0a1b2c3d4e5f40718293a4b5c6d7e8f9:bms-results"
ON_IT = {"RUNTIME_PROJECT_ID": "0a1b2c3d4e5f40718293a4b5c6d7e8f9", "OS_REGION_NAME": "eu-de"}
OUTSIDE = {"OS_AUTH_TYPE": "admin_token", "OS_TOKEN": "t", "OS_PROJECT_ID": "p", "AUTOSTOP_COMPUTE_URL": "http://n/"}


def read(**environ: str) -> Settings:
    """The settings that these variables make."""
    return settings.from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **environ})


def wrong(**environ: str) -> list[str]:
    """The faults that these variables have."""
    with pytest.raises(SettingsError) as raised:
        read(**environ)
    return list(raised.value.faults)


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("eu-de", "https://iam.eu-de.otc.t-systems.com/v3"),
        ("eu-nl", "https://iam.eu-nl.otc.t-systems.com/v3"),
        ("eu-ch2", "https://iam-pub.eu-ch2.sc.otc.t-systems.com/v3"),
    ],
)
def test_on_functiongraph_no_login_is_a_login(region: str, url: str) -> None:
    """Project and region are enough: each call brings the rest."""
    login = read(**{**ON_IT, "OS_REGION_NAME": region}).login
    assert (login.kind, login.auth_url, login.project_id) == (
        LoginKind.FUNCTIONGRAPH,
        url,
        ON_IT["RUNTIME_PROJECT_ID"],
    )


def test_what_is_set_goes_before_what_is_derived() -> None:
    """Another project, another address."""
    login = read(**ON_IT, OS_PROJECT_ID="other", OS_AUTH_URL="https://iam.example/v3").login
    assert (login.kind, login.auth_url, login.project_id) == (
        LoginKind.FUNCTIONGRAPH,
        "https://iam.example/v3",
        "other",
    )
    assert read(**ON_IT, OS_AUTH_URL="").login.auth_url.startswith("https://iam.eu-de.")


def test_an_explicit_url_needs_no_region() -> None:
    """There is nothing to derive then."""
    project = {"RUNTIME_PROJECT_ID": "p"}
    assert read(**project, AUTOSTOP_COMPUTE_URL="http://n/").login.auth_url == ""
    assert read(**project, AUTOSTOP_BMS_URL="http://n/", OS_AUTH_TYPE="functiongraph").login.auth_url == ""
    assert wrong(**project) == ["OS_REGION_NAME: must be set on FunctionGraph, which does not tell it, such as eu-de."]
    for region in ("eu de", "EU-DE", "evil.example/", "a" * 41):
        assert wrong(**project, OS_REGION_NAME=region) == ["OS_REGION_NAME: is no name of a region, such as eu-de."]


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("OS_USERNAME", "OS_PASSWORD"),
        ("OS_USER_ID", "OS_PASSWORD"),
        ("OS_PASSWORD", "OS_USERNAME"),
        ("OS_ACCESS_KEY", "OS_PASSWORD"),
        ("OS_SECRET_KEY", "OS_ACCESS_KEY"),
        ("OS_TOKEN", "OS_AUTH_URL"),
        ("OS_APPLICATION_CREDENTIAL_ID", "OS_PASSWORD"),
        ("OS_APPLICATION_CREDENTIAL_SECRET", "OS_APPLICATION_CREDENTIAL_ID"),
    ],
)
def test_half_of_another_login_is_not_the_agencys(name: str, missing: str) -> None:
    """Whoever sets it means another login, and is told what is missing of that."""
    assert missing in [fault.partition(":")[0] for fault in wrong(**ON_IT, **{name: "x"})]


def test_elsewhere_no_login_is_a_fault() -> None:
    """Unless it is said, and then the project must be."""
    assert any(fault.startswith("OS_PASSWORD") for fault in wrong(OS_REGION_NAME="eu-de"))
    faults = wrong(OS_REGION_NAME="eu-de", OS_AUTH_TYPE="functiongraph")
    assert faults == ["RUNTIME_PROJECT_ID: must be set for this kind of login."]
    assert "OS_AUTH_TYPE: is none of" in wrong(OS_AUTH_TYPE="lambda", **ON_IT)[0]


def test_a_topic_can_be_the_sink_of_results() -> None:
    """Instead of a URL, and before the one that the platform sets."""
    found = read(**OUTSIDE, AUTOSTOP_RESULT_SINK=f" smn:{URN} ", K_SINK="http://broker/", AUTOSTOP_SMN_URL="https://s/")
    assert (found.result_topic, found.result_sink, found.smn_url) == (URN, None, "https://s/")
    assert read(**OUTSIDE).result_topic is None


@pytest.mark.parametrize(
    "text", ["smn:", f"smn:smn:{URN}", "smn:bms-results", f"smn:{URN}/../x", f"smn:{URN} x", "smn:urn:smn:a:b"]
)
def test_a_malformed_topic_is_named(text: str) -> None:
    """It would end in a path."""
    assert wrong(**OUTSIDE, AUTOSTOP_RESULT_SINK=text) == [
        "AUTOSTOP_RESULT_SINK: is not of the form smn:urn:smn:<region>:<project id>:<topic>."
    ]


def test_the_platforms_sink_is_no_topic() -> None:
    """Knative knows only URLs."""
    assert wrong(**OUTSIDE, K_SINK=f"smn:{URN}") == ["K_SINK: is no http or https URL."]


def test_results_must_fit_into_a_message() -> None:
    """More servers in one event than that are refused at the start, and not after they were stopped."""
    topic = {**OUTSIDE, "AUTOSTOP_RESULT_SINK": f"smn:{URN}"}
    assert read(**topic, AUTOSTOP_MAX_SERVERS="150").policy.max_servers == 150
    assert wrong(**topic, AUTOSTOP_MAX_SERVERS="151")[0].startswith("AUTOSTOP_MAX_SERVERS: must be at most 150 with")
    assert read(**OUTSIDE, AUTOSTOP_MAX_SERVERS="151").policy.max_servers == 151


def test_webhooks_cannot_post_to_a_topic() -> None:
    """They have no login, and say so at the start."""
    with pytest.raises(SettingsError) as raised:
        webhook_settings.from_environ({"AUTOSTOP_EVENT_SINK": f"smn:{URN}"})
    assert raised.value.faults == ("AUTOSTOP_EVENT_SINK: cannot be an SMN topic: webhooks have no login at the cloud.",)

"""The settings of the login: each kind by its `OS_*` variables, and that of FunctionGraph."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from handler.settings import login as login_settings
from handler.settings.env import Secret
from handler.settings.login import CloudLogin, LoginKind
from handler.settings.stop_servers import from_environ
from tests.settings import environments
from tests.settings.environments import CREDENTIAL, PASSWORD, names, without

URL = {"OS_AUTH_URL": "https://iam.example/v3"}
PROJECT = {"OS_PROJECT_NAME": "bare-metal"}
FUNCTIONGRAPH = {"RUNTIME_PROJECT_ID": "0a1b2c3d4e5f40718293a4b5c6d7e8f9", "OS_REGION_NAME": "eu-de"}
CREDENTIAL_BY_NAME = {
    **without(CREDENTIAL, "OS_APPLICATION_CREDENTIAL_ID"),
    "OS_APPLICATION_CREDENTIAL_NAME": "stopper",
    "OS_USERNAME": "operator",
}


def login_of(environ: Mapping[str, str]) -> CloudLogin:
    """The login that these variables make."""
    return from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **environ}).login


def violations(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The violations of these variables."""
    return environments.violations({"AUTOSTOP_INBOUND_AUTH": "none", **environ})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {**PASSWORD, "OS_REGION_NAME": "eu-de", "OS_INTERFACE": "internalURL", "OS_CACERT": "/ca.pem"},
            {
                "kind": LoginKind.PASSWORD,
                "auth_url": "https://iam.example/v3",
                "username": "operator",
                "password": "password",
                "user_domain_name": "Default",
                "project_name": "bare-metal",
                "project_domain_name": "Default",
                "region": "eu-de",
                "interface": "internal",
                "verify": "/ca.pem",
            },
        ),
        # A user id needs no domain, and a project id no name.
        (
            {**URL, "OS_PASSWORD": "password", "OS_USER_ID": "u1", "OS_PROJECT_ID": "p1"},
            {"user_id": "u1", "project_id": "p1", "username": None, "project_name": None, "verify": True},
        ),
        # The names in older openrc files.
        (
            {
                **without(PASSWORD, "OS_USER_DOMAIN_NAME", "OS_PROJECT_NAME"),
                "OS_TENANT_NAME": "eu-de",
                "OS_DOMAIN_NAME": "OTC1",
                "OS_ENDPOINT_TYPE": "publicURL",
            },
            {
                "project_name": "eu-de",
                "user_domain_name": "OTC1",
                "project_domain_name": "OTC1",
                "interface": "public",
            },
        ),
        (
            {**without(PASSWORD, "OS_USER_DOMAIN_NAME"), "OS_DOMAIN_ID": "d1"},
            {"user_domain_id": "d1", "project_domain_id": "d1"},
        ),
        ({**URL, **PROJECT, "OS_TOKEN": "token"}, {"kind": LoginKind.TOKEN, "token": "token"}),
        ({**PASSWORD, "OS_TOKEN": "token"}, {"kind": LoginKind.PASSWORD}),
        (
            CREDENTIAL,
            {
                "kind": LoginKind.APPLICATION_CREDENTIAL,
                "application_credential_id": "4f",
                "application_credential_secret": "secret",
            },
        ),
        (CREDENTIAL_BY_NAME, {"application_credential_name": "stopper", "username": "operator"}),
        # OS_INSECURE comes before a CA bundle.
        ({**PASSWORD, "OS_INSECURE": "true", "OS_CACERT": "/ca.pem"}, {"verify": False}),
        ({**PASSWORD, "OS_INSECURE": "false", "OS_CACERT": "/ca.pem"}, {"verify": "/ca.pem"}),
    ],
)
def test_a_login_has_what_its_variables_say(environ: dict[str, str], expected: dict[str, object]) -> None:
    """By the names of openrc files."""
    login = login_of(environ)
    found = {name: getattr(login, name) for name in expected}
    assert {name: value.reveal() if isinstance(value, Secret) else value for name, value in found.items()} == expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("password", LoginKind.PASSWORD),
        ("v3password", LoginKind.PASSWORD),
        ("V3Password", LoginKind.PASSWORD),
        ("token", LoginKind.TOKEN),
        ("v3token", LoginKind.TOKEN),
        ("v3applicationcredential", LoginKind.APPLICATION_CREDENTIAL),
    ],
)
def test_os_auth_type_selects_the_kind_of_login(text: str, kind: LoginKind) -> None:
    """By the names of keystoneauth."""
    assert login_of({**PASSWORD, **CREDENTIAL, "OS_TOKEN": "token", "OS_AUTH_TYPE": text}).kind is kind


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        *((without(PASSWORD, name), [name]) for name in PASSWORD),
        ({**URL, "OS_AUTH_TYPE": "token"}, ["OS_TOKEN", "OS_PROJECT_NAME"]),
        ({**URL, "OS_AUTH_TYPE": "admin_token"}, ["OS_TOKEN", "OS_PROJECT_ID"]),
        ({**URL, "OS_AUTH_TYPE": "aksk"}, ["OS_ACCESS_KEY", "OS_SECRET_KEY", "OS_PROJECT_NAME"]),
        (without(CREDENTIAL, "OS_APPLICATION_CREDENTIAL_ID"), ["OS_APPLICATION_CREDENTIAL_ID", "OS_USERNAME"]),
        (
            {**URL, "OS_AUTH_TYPE": "v3applicationcredential"},
            ["OS_APPLICATION_CREDENTIAL_ID", "OS_APPLICATION_CREDENTIAL_SECRET", "OS_USERNAME"],
        ),
        ({"OS_REGION_NAME": "eu-de", "OS_AUTH_TYPE": "functiongraph"}, ["RUNTIME_PROJECT_ID"]),
    ],
)
def test_the_missing_variables_of_a_login_are_named(environ: dict[str, str], missing: list[str]) -> None:
    """Each kind of login needs others."""
    assert names(violations(environ)) == missing


@pytest.mark.parametrize(
    ("environ", "beside"),
    [
        (PASSWORD, "OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME"),
        (CREDENTIAL, "OS_APPLICATION_CREDENTIAL_ID, OS_APPLICATION_CREDENTIAL_SECRET"),
        ({**FUNCTIONGRAPH, "OS_AUTH_TYPE": "functiongraph"}, "OS_AUTH_TYPE"),
    ],
)
def test_an_entry_of_clouds_yaml_must_not_be_set_beside_another_login(environ: dict[str, str], beside: str) -> None:
    """It would not be known which of the two is meant."""
    assert violations({**environ, "OS_CLOUD": "production"}) == (f"OS_CLOUD must not be set beside {beside}.",)


def test_an_entry_of_clouds_yaml_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The domain of the project is that of the entry, and not that of the user."""
    environ = {"OS_CLOUD": "production", "OS_USER_DOMAIN_NAME": "Default"}
    assert violations(environ) == (
        "OS_CLOUD needs the extra `clouds`: pip install '.[clouds]' in a clone, or 'FILE.whl[clouds]'.",
    )
    monkeypatch.setattr(login_settings, "find_spec", lambda _: True)
    login = login_of(environ)
    assert (login.kind, login.cloud, login.project_domain_name) == (LoginKind.CLOUDS_YAML, "production", None)


# --- FunctionGraph


@pytest.mark.parametrize(
    ("environ", "url", "project"),
    [
        ({}, "https://iam.eu-de.otc.t-systems.com/v3", FUNCTIONGRAPH["RUNTIME_PROJECT_ID"]),
        ({"OS_REGION_NAME": "eu-nl", "OS_PROJECT_ID": "p"}, "https://iam.eu-nl.otc.t-systems.com/v3", "p"),
        ({"OS_REGION_NAME": "eu-ch2", "OS_PROJECT_ID": "p"}, "https://iam-pub.eu-ch2.sc.otc.t-systems.com/v3", "p"),
        ({"OS_AUTH_URL": "https://iam.example/v3", "OS_PROJECT_ID": "p"}, "https://iam.example/v3", "p"),
        ({"OS_AUTH_URL": "", "OS_PROJECT_ID": "p"}, "https://iam.eu-de.otc.t-systems.com/v3", "p"),
        # With an explicit URL of the API nothing is derived.
        ({"OS_REGION_NAME": "", "OS_PROJECT_ID": "p", "AUTOSTOP_COMPUTE_URL": "http://n/"}, "", "p"),
        (
            {
                "OS_REGION_NAME": "",
                "OS_PROJECT_ID": "p",
                "AUTOSTOP_BMS_URL": "http://n/",
                "OS_AUTH_TYPE": "functiongraph",
            },
            "",
            "p",
        ),
    ],
)
def test_on_functiongraph_each_call_has_its_login(environ: dict[str, str], url: str, project: str) -> None:
    """Project and region are enough; explicit values come before derived ones."""
    login = login_of({**FUNCTIONGRAPH, **environ})
    assert (login.kind, login.auth_url, login.project_id) == (LoginKind.FUNCTIONGRAPH, url, project)


@pytest.mark.parametrize("region", ["", "eu de", "EU-DE", "evil.example/", "a" * 41])
def test_on_functiongraph_the_region_is_needed(region: str) -> None:
    """The host of IAM is derived from it."""
    must = "must be the name of a region" if region else "must be set on FunctionGraph"
    assert violations({**FUNCTIONGRAPH, "OS_REGION_NAME": region}) == (f"OS_REGION_NAME {must}, such as eu-de.",)


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
def test_on_functiongraph_a_part_of_another_login_means_that_login(name: str, missing: str) -> None:
    """The rest of it is missing."""
    assert missing in names(violations({**FUNCTIONGRAPH, name: "x"}))


def test_elsewhere_a_login_is_needed() -> None:
    """A region alone is none."""
    assert "OS_PASSWORD" in names(violations({"OS_REGION_NAME": "eu-de"}))

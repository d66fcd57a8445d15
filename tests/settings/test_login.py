"""The settings of the login: each kind by its `OS_*` variables, and FunctionGraph's own."""

from __future__ import annotations

import pytest

from handler.settings import login as login_settings
from handler.settings.login import CloudLogin, LoginKind
from handler.settings.stop_servers import from_environ
from tests.settings.environments import CREDENTIAL, LEAST, PASSWORD, names, read, violations, without


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
    """As a platform passes one to a function; it counts if there is no password, or if it is asked for."""
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
    assert names(violations({"AUTOSTOP_INBOUND_AUTH": "none", **environ})) == missing


@pytest.mark.parametrize(("text", "verify"), [("true", False), ("false", "/ca.pem"), ("", "/ca.pem")])
def test_insecure_goes_before_a_certificate(text: str, verify: bool | str) -> None:
    """OS_INSECURE switches the check off, explicitly."""
    assert read(OS_INSECURE=text, OS_CACERT="/ca.pem").login.verify == verify
    assert read().login.verify is True


@pytest.mark.parametrize(
    ("environ", "beside"),
    [
        (PASSWORD, "OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME"),
        (CREDENTIAL, "OS_APPLICATION_CREDENTIAL_ID, OS_APPLICATION_CREDENTIAL_SECRET"),
        ({"OS_AUTH_TYPE": "functiongraph", "RUNTIME_PROJECT_ID": "p", "OS_REGION_NAME": "eu-de"}, "OS_AUTH_TYPE"),
    ],
)
def test_an_entry_of_clouds_yaml_is_not_ignored(environ: dict[str, str], beside: str) -> None:
    """Beside another login nothing says which of the two is meant."""
    found = violations({"AUTOSTOP_INBOUND_AUTH": "none", **environ, "OS_CLOUD": "production"})
    assert found == (f"OS_CLOUD must not be set beside {beside}.",)


def test_an_entry_of_clouds_yaml_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to get it; the domain of the project is the entry's, and not that of the user."""
    environ = {"AUTOSTOP_INBOUND_AUTH": "none", "OS_CLOUD": "production", "OS_USER_DOMAIN_NAME": "Default"}
    assert violations(environ) == (
        "OS_CLOUD needs the extra `clouds`: pip install '.[clouds]' in a clone, or 'FILE.whl[clouds]'.",
    )
    monkeypatch.setattr(login_settings, "find_spec", lambda _: True)
    login = from_environ(environ).login
    assert (login.kind, login.cloud, login.project_domain_name) == (LoginKind.CLOUDS_YAML, "production", None)


# --- FunctionGraph

ON_IT = {"RUNTIME_PROJECT_ID": "0a1b2c3d4e5f40718293a4b5c6d7e8f9", "OS_REGION_NAME": "eu-de"}


def on_functiongraph(**environ: str) -> CloudLogin:
    """The login that these variables make."""
    return from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **environ}).login


def wrong(**environ: str) -> tuple[str, ...]:
    """What is wrong with these variables."""
    return violations({"AUTOSTOP_INBOUND_AUTH": "none", **environ})


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
    login = on_functiongraph(**{**ON_IT, "OS_REGION_NAME": region})
    assert (login.kind, login.auth_url, login.project_id) == (
        LoginKind.FUNCTIONGRAPH,
        url,
        ON_IT["RUNTIME_PROJECT_ID"],
    )


def test_what_is_set_goes_before_what_is_derived() -> None:
    """Another project, another address."""
    login = on_functiongraph(**ON_IT, OS_PROJECT_ID="other", OS_AUTH_URL="https://iam.example/v3")
    assert (login.kind, login.auth_url, login.project_id) == (
        LoginKind.FUNCTIONGRAPH,
        "https://iam.example/v3",
        "other",
    )
    assert on_functiongraph(**ON_IT, OS_AUTH_URL="").auth_url.startswith("https://iam.eu-de.")


def test_an_explicit_url_needs_no_region() -> None:
    """There is nothing to derive then."""
    project = {"RUNTIME_PROJECT_ID": "p"}
    assert on_functiongraph(**project, AUTOSTOP_COMPUTE_URL="http://n/").auth_url == ""
    assert on_functiongraph(**project, AUTOSTOP_BMS_URL="http://n/", OS_AUTH_TYPE="functiongraph").auth_url == ""
    assert wrong(**project) == ("OS_REGION_NAME must be set on FunctionGraph, such as eu-de.",)
    for region in ("eu de", "EU-DE", "evil.example/", "a" * 41):
        assert wrong(**project, OS_REGION_NAME=region) == (
            "OS_REGION_NAME must be the name of a region, such as eu-de.",
        )


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
    """It means another login, of which the rest is missing."""
    assert missing in names(wrong(**ON_IT, **{name: "x"}))


def test_elsewhere_no_login_is_a_fault() -> None:
    """Unless it is set, and then the project must be."""
    assert "OS_PASSWORD" in names(wrong(OS_REGION_NAME="eu-de"))
    found = wrong(OS_REGION_NAME="eu-de", OS_AUTH_TYPE="functiongraph")
    assert found == ("RUNTIME_PROJECT_ID must be set for this kind of login.",)
    assert "OS_AUTH_TYPE must be one of" in wrong(OS_AUTH_TYPE="lambda", **ON_IT)[0]

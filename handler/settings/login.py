"""The login at the cloud, by the `OS_*` variables that OpenStack's own clients read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from importlib.util import find_spec
from typing import Any, NamedTuple, assert_never

from handler.settings.env import Env, Secret, Setting, boolean, header_secret, header_value, http_url, needs_extra


class LoginKind(StrEnum):
    """How the function logs in."""

    PASSWORD = "password"
    TOKEN = "token"
    APPLICATION_CREDENTIAL = "application_credential"
    READY_TOKEN = "ready_token"
    ACCESS_KEY = "access_key"
    CLOUDS_YAML = "clouds_yaml"
    FUNCTIONGRAPH = "functiongraph"


# Values of `OS_AUTH_TYPE`, beside a leading `v3`. `admin_token` is keystoneauth's name for a token that is used
# as it is; keystoneauth has no name for access keys.
_KINDS = {
    "password": LoginKind.PASSWORD,
    "token": LoginKind.TOKEN,
    "applicationcredential": LoginKind.APPLICATION_CREDENTIAL,
    "admin_token": LoginKind.READY_TOKEN,
    "aksk": LoginKind.ACCESS_KEY,
    "functiongraph": LoginKind.FUNCTIONGRAPH,
}


class CloudLogin(NamedTuple):
    """The login at the cloud; the names are those of the `OS_*` variables."""

    kind: LoginKind
    auth_url: str
    username: str | None = None
    user_id: str | None = None
    user_domain_name: str | None = None
    user_domain_id: str | None = None
    password: Secret = Secret()
    token: Secret = Secret()
    application_credential_id: str | None = None
    application_credential_name: str | None = None
    application_credential_secret: Secret = Secret()
    access_key: str | None = None
    secret_key: Secret = Secret()
    security_token: Secret = Secret()
    cloud: str | None = None
    project_id: str | None = None
    project_name: str | None = None
    project_domain_name: str | None = None
    project_domain_id: str | None = None
    region: str | None = None
    interface: str = "public"
    verify: bool | str = True


def _auth_type(text: str) -> LoginKind:
    kind = _KINDS.get(text.lower().removeprefix("v3"))
    if kind is None:
        raise ValueError("must be one of password, token, v3applicationcredential, admin_token, aksk, functiongraph")
    return kind


AUTH_TYPE = Setting(
    "OS_AUTH_TYPE",
    _auth_type,
    "`password`, `token`, `v3applicationcredential`, `admin_token`, `aksk` or `functiongraph`",
    unset="by what else is set",
)
AUTH_URL = Setting(
    "OS_AUTH_URL",
    http_url,
    "URL of Keystone (IAM), such as `https://iam.eu-de.otc.t-systems.com/v3`",
    unset="none; on FunctionGraph that of the region",
)
USERNAME = Setting("OS_USERNAME", str, "user to log in with a password")
USER_ID = Setting("OS_USER_ID", str, "the same by id")
PASSWORD = Setting("OS_PASSWORD", Secret, "the user's password", secret=True)
USER_DOMAIN_NAME = Setting("OS_USER_DOMAIN_NAME", str, "domain of the user", unset="`OS_DOMAIN_NAME`")
USER_DOMAIN_ID = Setting("OS_USER_DOMAIN_ID", str, "the same by id", unset="`OS_DOMAIN_ID`")
DOMAIN_NAME = Setting("OS_DOMAIN_NAME", str, "domain of the user, as older openrc files name it")
DOMAIN_ID = Setting("OS_DOMAIN_ID", str, "the same by id")
TOKEN = Setting("OS_TOKEN", header_secret, "token to log in with, or with `admin_token` to use as it is", secret=True)
CREDENTIAL_ID = Setting("OS_APPLICATION_CREDENTIAL_ID", str, "application credential to log in with")
CREDENTIAL_NAME = Setting("OS_APPLICATION_CREDENTIAL_NAME", str, "the same by name, beside the user")
CREDENTIAL_SECRET = Setting("OS_APPLICATION_CREDENTIAL_SECRET", Secret, "the credential's secret", secret=True)
ACCESS_KEY = Setting("OS_ACCESS_KEY", header_value, "access key (AK) to sign requests with")
SECRET_KEY = Setting("OS_SECRET_KEY", Secret, "the secret key (SK) to it", secret=True)
SECURITY_TOKEN = Setting("OS_SECURITY_TOKEN", header_secret, "security token of temporary keys", secret=True)
CLOUD = Setting("OS_CLOUD", str, "entry of clouds.yaml (extra `clouds`); must agree with what is set here")
PROJECT_NAME = Setting("OS_PROJECT_NAME", str, "project of the servers", unset="`OS_TENANT_NAME`")
PROJECT_ID = Setting("OS_PROJECT_ID", str, "the same by id", unset="none; on FunctionGraph `RUNTIME_PROJECT_ID`")
TENANT_NAME = Setting("OS_TENANT_NAME", str, "the project, as older openrc files name it")
PROJECT_DOMAIN_NAME = Setting("OS_PROJECT_DOMAIN_NAME", str, "domain of the project", unset="that of the user")
PROJECT_DOMAIN_ID = Setting("OS_PROJECT_DOMAIN_ID", str, "the same by id", unset="that of the user")
REGION_NAME = Setting(
    "OS_REGION_NAME", str, "region of the servers, such as `eu-de`", unset="the only one of the catalogue"
)
INTERFACE = Setting("OS_INTERFACE", str, "interface in the catalogue", unset="`OS_ENDPOINT_TYPE`, else `public`")
ENDPOINT_TYPE = Setting("OS_ENDPOINT_TYPE", str, "the interface, as older openrc files name it")
CACERT = Setting("OS_CACERT", str, "CA bundle for the cloud's certificates", unset="certifi's")
INSECURE = Setting("OS_INSECURE", boolean, "do not check the cloud's certificates", "false")
RUNTIME_PROJECT_ID = Setting("RUNTIME_PROJECT_ID", str, "project of the function; set by FunctionGraph")

# Each of these means another login than that of the function's agency.
_OTHER_LOGINS: tuple[Setting[Any], ...] = (
    USERNAME,
    USER_ID,
    PASSWORD,
    TOKEN,
    ACCESS_KEY,
    SECRET_KEY,
    CREDENTIAL_ID,
    CREDENTIAL_NAME,
    CREDENTIAL_SECRET,
)


def read_login(env: Env, *, url_is_set: bool) -> CloudLogin:
    """Read the login at the cloud.

    Args:
        env: the environment.
        url_is_set: whether the URL of the API is set, so that the catalogue is not needed.
    """
    kind = _kind(env)
    interface = env.optional(INTERFACE) or env.optional(ENDPOINT_TYPE) or "public"
    login = CloudLogin(
        kind=kind,
        auth_url=(env.optional(AUTH_URL) if env.text(AUTH_URL) else _default_url(env, kind, url_is_set)) or "",
        username=env.optional(USERNAME),
        user_id=env.optional(USER_ID),
        user_domain_name=env.optional(USER_DOMAIN_NAME) or env.optional(DOMAIN_NAME),
        user_domain_id=env.optional(USER_DOMAIN_ID) or env.optional(DOMAIN_ID),
        password=env.secret(PASSWORD),
        token=env.secret(TOKEN),
        application_credential_name=env.optional(CREDENTIAL_NAME),
        application_credential_id=env.optional(CREDENTIAL_ID),
        application_credential_secret=env.secret(CREDENTIAL_SECRET),
        access_key=env.optional(ACCESS_KEY),
        secret_key=env.secret(SECRET_KEY),
        security_token=env.secret(SECURITY_TOKEN),
        cloud=env.optional(CLOUD),
        project_name=env.optional(PROJECT_NAME) or env.optional(TENANT_NAME),
        project_id=env.optional(PROJECT_ID),
        project_domain_name=env.optional(PROJECT_DOMAIN_NAME),
        project_domain_id=env.optional(PROJECT_DOMAIN_ID),
        region=env.optional(REGION_NAME),
        interface=interface.removesuffix("URL"),
        verify=False if env.value(INSECURE) else env.optional(CACERT) or True,
    )
    if kind is not LoginKind.CLOUDS_YAML:
        login = login._replace(
            project_domain_name=login.project_domain_name or login.user_domain_name,
            project_domain_id=login.project_domain_id or login.user_domain_id,
        )
    if kind is LoginKind.FUNCTIONGRAPH:
        login = login._replace(project_id=login.project_id or env.optional(RUNTIME_PROJECT_ID))
    for setting, found in _needed(env, login).items():
        if not found:
            env.note(setting, "must be set for this kind of login")
    if kind is LoginKind.CLOUDS_YAML:
        if find_spec("openstack") is None:
            env.note(CLOUD, needs_extra("clouds"))
    elif env.text(CLOUD):
        beside = [setting.name for setting in (*_OTHER_LOGINS, PROJECT_NAME, PROJECT_ID) if env.text(setting)]
        env.note(CLOUD, f"must not be set beside {', '.join(beside) or AUTH_TYPE.name}")
    return login


def _needed(env: Env, login: CloudLogin) -> Mapping[Setting[Any], object]:
    """Return the settings that a kind of login needs, each with what sets it or stands in for it."""
    user, project = login.username or login.user_id, {PROJECT_NAME: login.project_name or login.project_id}
    match login.kind:
        case LoginKind.PASSWORD:
            domain = login.user_id or login.user_domain_name or login.user_domain_id
            return {USERNAME: user, PASSWORD: env.text(PASSWORD), USER_DOMAIN_NAME: domain, **project}
        case LoginKind.TOKEN:
            return {TOKEN: env.text(TOKEN), **project}
        case LoginKind.APPLICATION_CREDENTIAL:
            id_ = login.application_credential_id
            return {
                CREDENTIAL_ID: id_ or login.application_credential_name,
                CREDENTIAL_SECRET: env.text(CREDENTIAL_SECRET),
                USERNAME: id_ or user,
            }
        case LoginKind.READY_TOKEN:
            return {TOKEN: env.text(TOKEN), PROJECT_ID: login.project_id}
        case LoginKind.ACCESS_KEY:
            return {ACCESS_KEY: env.text(ACCESS_KEY), SECRET_KEY: env.text(SECRET_KEY), **project}
        case LoginKind.CLOUDS_YAML:
            return {}
        case LoginKind.FUNCTIONGRAPH:
            return {RUNTIME_PROJECT_ID: login.project_id}
        case unreachable:
            assert_never(unreachable)


def _kind(env: Env) -> LoginKind:
    """Return the kind of login that `OS_AUTH_TYPE` names, or that the other variables make."""
    if env.text(AUTH_TYPE):
        return env.optional(AUTH_TYPE) or LoginKind.PASSWORD
    for setting, kind in (
        (CREDENTIAL_SECRET, LoginKind.APPLICATION_CREDENTIAL),
        (PASSWORD, LoginKind.PASSWORD),
        (SECRET_KEY, LoginKind.ACCESS_KEY),
        (TOKEN, LoginKind.TOKEN),
        (CLOUD, LoginKind.CLOUDS_YAML),
    ):
        if env.text(setting):
            return kind
    if env.text(RUNTIME_PROJECT_ID) and not any(map(env.text, _OTHER_LOGINS)):
        return LoginKind.FUNCTIONGRAPH
    return LoginKind.PASSWORD


def _default_url(env: Env, kind: LoginKind, url_is_set: bool) -> str | None:
    """Return the URL of IAM if it can be derived; it is not needed without a login if the API's URL is set."""
    if kind is LoginKind.FUNCTIONGRAPH and env.text(REGION_NAME):
        return _iam_of_region(env)
    no_login = kind in (LoginKind.READY_TOKEN, LoginKind.FUNCTIONGRAPH) or (
        kind is LoginKind.ACCESS_KEY and env.text(PROJECT_ID)
    )
    if kind is LoginKind.CLOUDS_YAML or (url_is_set and no_login):
        return None
    if kind is LoginKind.FUNCTIONGRAPH:
        env.note(REGION_NAME, "must be set on FunctionGraph, such as eu-de")
    else:
        env.note(AUTH_URL, "must be set, such as https://iam.eu-de.otc.t-systems.com/v3")
    return None


def _iam_of_region(env: Env) -> str | None:
    """Return the URL of Open Telekom Cloud's IAM in the region, from whose host those of other services follow."""
    region = env.text(REGION_NAME) or ""
    if not re.fullmatch(r"[a-z0-9-]{1,40}", region, re.ASCII):
        env.note(REGION_NAME, "must be the name of a region, such as eu-de")
        return None
    # The Swiss cloud is separate, and has another domain.
    iam, domain = ("iam-pub", "sc.otc") if region == "eu-ch2" else ("iam", "otc")
    return f"https://{iam}.{region}.{domain}.t-systems.com/v3"

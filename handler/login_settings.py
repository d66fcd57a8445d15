"""The `OS_*` variables: who logs in where."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec

from handler.values import Reading, Secret, boolean, http_url, token


class LoginKind(StrEnum):
    """How the function logs in."""

    PASSWORD = "password"
    TOKEN = "token"
    APPLICATION_CREDENTIAL = "application_credential"
    READY_TOKEN = "ready_token"
    ACCESS_KEY = "access_key"
    CLOUDS_YAML = "clouds_yaml"
    FUNCTIONGRAPH = "functiongraph"


# What `OS_AUTH_TYPE` may say, beside a leading `v3`. `admin_token` is keystoneauth's name for a token that is used
# as it is; for access keys nobody has a name yet.
_NAMES = {
    "password": LoginKind.PASSWORD,
    "token": LoginKind.TOKEN,
    "applicationcredential": LoginKind.APPLICATION_CREDENTIAL,
    "admin_token": LoginKind.READY_TOKEN,
    "aksk": LoginKind.ACCESS_KEY,
    "functiongraph": LoginKind.FUNCTIONGRAPH,
}
# Any of these says that somebody else than the function's agency is to log in.
_OTHERS = (
    "OS_USERNAME",
    "OS_USER_ID",
    "OS_PASSWORD",
    "OS_TOKEN",
    "OS_ACCESS_KEY",
    "OS_SECRET_KEY",
    "OS_APPLICATION_CREDENTIAL_ID",
    "OS_APPLICATION_CREDENTIAL_NAME",
    "OS_APPLICATION_CREDENTIAL_SECRET",
    "OS_CLOUD",
)
_REGION = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CloudLogin:
    """Who logs in where; the names are those of the `OS_*` variables."""

    kind: LoginKind
    auth_url: str
    username: str | None = None
    user_id: str | None = None
    user_domain_name: str | None = None
    user_domain_id: str | None = None
    password: Secret = field(default_factory=Secret)
    token: Secret = field(default_factory=Secret)
    application_credential_id: str | None = None
    application_credential_name: str | None = None
    application_credential_secret: Secret = field(default_factory=Secret)
    access_key: str | None = None
    secret_key: Secret = field(default_factory=Secret)
    security_token: Secret = field(default_factory=Secret)
    cloud: str | None = None
    project_id: str | None = None
    project_name: str | None = None
    project_domain_name: str | None = None
    project_domain_id: str | None = None
    region: str | None = None
    interface: str = "public"
    verify: bool | str = True


def read_login(reading: Reading) -> CloudLogin:
    """Read the `OS_*` variables; what is wrong or missing is noted in `reading`."""
    kind = _kind(reading)
    url = _auth_url(reading, kind)
    user = (reading.get("OS_USERNAME"), reading.get("OS_USER_ID"))
    user_domain = (
        reading.get("OS_USER_DOMAIN_NAME") or reading.get("OS_DOMAIN_NAME"),
        reading.get("OS_USER_DOMAIN_ID") or reading.get("OS_DOMAIN_ID"),
    )
    project = (reading.get("OS_PROJECT_NAME") or reading.get("OS_TENANT_NAME"), reading.get("OS_PROJECT_ID"))
    if kind is LoginKind.FUNCTIONGRAPH:
        project = (project[0], project[1] or reading.get("RUNTIME_PROJECT_ID"))
    project_domain = (
        reading.get("OS_PROJECT_DOMAIN_NAME") or user_domain[0],
        reading.get("OS_PROJECT_DOMAIN_ID") or user_domain[1],
    )
    credential = (
        reading.get("OS_APPLICATION_CREDENTIAL_NAME"),
        reading.get("OS_APPLICATION_CREDENTIAL_ID"),
    )
    match kind:
        case LoginKind.PASSWORD:
            reading.need("OS_USERNAME", *user)
            reading.need("OS_PASSWORD", reading.get("OS_PASSWORD"))
            if not user[1]:
                reading.need("OS_USER_DOMAIN_NAME", *user_domain)
        case LoginKind.TOKEN:
            reading.need("OS_TOKEN", reading.get("OS_TOKEN"))
        case LoginKind.APPLICATION_CREDENTIAL:
            reading.need("OS_APPLICATION_CREDENTIAL_ID", *credential)
            reading.need("OS_APPLICATION_CREDENTIAL_SECRET", reading.get("OS_APPLICATION_CREDENTIAL_SECRET"))
            if not credential[1]:
                reading.need("OS_USERNAME", *user)
        case LoginKind.READY_TOKEN:
            reading.need("OS_TOKEN", reading.get("OS_TOKEN"))
            reading.need("OS_PROJECT_ID", project[1])
        case LoginKind.ACCESS_KEY:
            reading.need("OS_ACCESS_KEY", reading.get("OS_ACCESS_KEY"))
            reading.need("OS_SECRET_KEY", reading.get("OS_SECRET_KEY"))
        case LoginKind.CLOUDS_YAML:
            if find_spec("openstack") is None:
                reading.faults.append("OS_CLOUD: needs the extra `clouds`: pip install 'bms-autostop[clouds]'.")
        case LoginKind.FUNCTIONGRAPH:
            reading.need("RUNTIME_PROJECT_ID", project[1])
    if kind in (LoginKind.PASSWORD, LoginKind.TOKEN, LoginKind.ACCESS_KEY):
        reading.need("OS_PROJECT_NAME", *project)
    insecure = reading.value("OS_INSECURE", boolean, False)
    return CloudLogin(
        kind=kind,
        auth_url=url or "",
        username=user[0],
        user_id=user[1],
        user_domain_name=user_domain[0],
        user_domain_id=user_domain[1],
        password=Secret(reading.get("OS_PASSWORD") or ""),
        token=Secret(reading.value("OS_TOKEN", token, "")),
        application_credential_name=credential[0],
        application_credential_id=credential[1],
        application_credential_secret=Secret(reading.get("OS_APPLICATION_CREDENTIAL_SECRET") or ""),
        access_key=reading.value("OS_ACCESS_KEY", token, None),
        secret_key=Secret(reading.get("OS_SECRET_KEY") or ""),
        security_token=Secret(reading.value("OS_SECURITY_TOKEN", token, "")),
        cloud=reading.get("OS_CLOUD"),
        project_name=project[0],
        project_id=project[1],
        project_domain_name=project_domain[0],
        project_domain_id=project_domain[1],
        region=reading.get("OS_REGION_NAME"),
        interface=(reading.get("OS_INTERFACE") or reading.get("OS_ENDPOINT_TYPE") or "public").removesuffix("URL"),
        verify=False if insecure else reading.get("OS_CACERT") or True,
    )


def _kind(reading: Reading) -> LoginKind:
    """What `OS_AUTH_TYPE` names, or else what the other variables make likely."""
    word = reading.get("OS_AUTH_TYPE")
    if word is None:
        if reading.get("OS_APPLICATION_CREDENTIAL_SECRET"):
            return LoginKind.APPLICATION_CREDENTIAL
        if reading.get("OS_PASSWORD"):
            return LoginKind.PASSWORD
        if reading.get("OS_SECRET_KEY"):
            return LoginKind.ACCESS_KEY
        if reading.get("OS_TOKEN"):
            return LoginKind.TOKEN
        if reading.get("RUNTIME_PROJECT_ID") and not any(reading.get(name) for name in _OTHERS):
            return LoginKind.FUNCTIONGRAPH
        return LoginKind.CLOUDS_YAML if reading.get("OS_CLOUD") else LoginKind.PASSWORD
    kind = _NAMES.get(word.strip().lower().removeprefix("v3"))
    if kind is None:
        reading.faults.append(
            "OS_AUTH_TYPE: is none of password, token, v3applicationcredential, admin_token, aksk, functiongraph."
        )
    return kind or LoginKind.PASSWORD


def _auth_url(reading: Reading, kind: LoginKind) -> str | None:
    """Where IAM is. It can be left out where the API's own URL is given and no login has to be made there."""
    url: str | None = reading.value("OS_AUTH_URL", http_url, None)
    if url is not None or reading.get("OS_AUTH_URL") or kind is LoginKind.CLOUDS_YAML:
        return url
    explicit = reading.get("AUTOSTOP_COMPUTE_URL") or reading.get("AUTOSTOP_BMS_URL")
    if kind is LoginKind.FUNCTIONGRAPH:
        if reading.get("OS_REGION_NAME"):
            url = _iam_of_region(reading)
        elif not explicit:
            reading.faults.append(
                "OS_REGION_NAME: must be set on FunctionGraph, which does not tell it, such as eu-de."
            )
        return url
    no_login = kind is LoginKind.READY_TOKEN or (kind is LoginKind.ACCESS_KEY and reading.get("OS_PROJECT_ID"))
    if not (explicit and no_login):
        reading.faults.append("OS_AUTH_URL: must be set, such as https://iam.eu-de.otc.t-systems.com/v3.")
    return url


def _iam_of_region(reading: Reading) -> str | None:
    """Where Open Telekom Cloud's IAM is in the region: its host tells those of the other services."""
    region = reading.get("OS_REGION_NAME") or ""
    if not _REGION.fullmatch(region):
        reading.faults.append("OS_REGION_NAME: is no name of a region, such as eu-de.")
        return None
    # The Swiss cloud is one of its own, and has another domain.
    iam, domain = ("iam-pub", "sc.otc") if region == "eu-ch2" else ("iam", "otc")
    return f"https://{iam}.{region}.{domain}.t-systems.com/v3"

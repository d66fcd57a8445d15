"""A token from version 3 of Keystone, or from OTC's IAM, which has the same API: `POST /v3/auth/tokens`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from handler import rfc3339
from handler.cloud import error_mapping
from handler.cloud.auth.login import LOGIN_TIMEOUT, CatalogEntry, IdentityLogin, Token, identity_url
from handler.settings.env import Secret
from handler.settings.login import CloudLogin, LoginKind


class KeystoneLogin(IdentityLogin):
    """Logs in by password, by another token, or by an application credential, without version discovery."""

    def _obtain(self) -> Token:
        status, headers, body = self._client.send(
            "POST",
            f"{identity_url(self._login.auth_url)}/auth/tokens",
            headers={"Accept": "application/json", "Content-Type": "application/json"},
            body=json.dumps({"auth": asked(self._login)}).encode(),
            timeout=LOGIN_TIMEOUT,
        )
        if not 200 <= status < 300:
            login = self._login
            sent = (login.password, login.token, login.application_credential_secret)
            raise error_mapping.from_login_answer(status, headers, body, [secret.reveal() for secret in sent])
        return granted(headers["X-Subject-Token"], json.loads(body)["token"])


def asked(login: CloudLogin) -> dict[str, object]:
    """Return the `auth` member of the request.

    A credential is bound to its project; a scope beside it is an error upstream.
    """
    user = _named(login.user_id, login.username, login.user_domain_id, login.user_domain_name)
    match login.kind:
        case LoginKind.APPLICATION_CREDENTIAL:
            credential: dict[str, object] = {"secret": login.application_credential_secret.reveal()}
            if login.application_credential_id:
                credential["id"] = login.application_credential_id
            else:
                credential |= {"name": login.application_credential_name, "user": user}
            return {"identity": {"methods": ["application_credential"], "application_credential": credential}}
        case LoginKind.TOKEN:
            identity: dict[str, object] = {"methods": ["token"], "token": {"id": login.token.reveal()}}
        case _:
            secret = {"user": {**user, "password": login.password.reveal()}}
            identity = {"methods": ["password"], "password": secret}
    project = _named(login.project_id, login.project_name, login.project_domain_id, login.project_domain_name)
    return {"identity": identity, "scope": {"project": project}}


def granted(token: str, document: Mapping[str, object]) -> Token:
    """Parse the document of a token.

    Args:
        document: the `token` member of the answer.
        token: the token itself.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not valid.
    """
    project, roles = document.get("project"), document.get("roles")
    return Token(
        project_id=str(project["id"]) if isinstance(project, dict) else None,
        catalogue=tuple(_places(document.get("catalog"))),
        token=Secret(token),
        expires_in=expires_in(str(document["issued_at"]), str(document["expires_at"])),
        roles=tuple(str(role["name"]) for role in roles) if isinstance(roles, list) else (),
    )


def expires_in(issued_at: str, expires_at: str) -> float:
    """Return the seconds until a new token should be renewed: two minutes, or a fifth of its life, before its end.

    Both its times are the cloud's, so the result does not depend on the local clock.
    """
    life = (rfc3339.parse(expires_at) - rfc3339.parse(issued_at)).total_seconds()
    return life - min(120.0, life / 5)


def _named(id_: str | None, name: str | None, domain_id: str | None, domain_name: str | None) -> dict[str, object]:
    """Return a user or a project by its id, or else by its name and domain."""
    if id_:
        return {"id": id_}
    domain = {"id": domain_id} if domain_id else {"name": domain_name} if domain_name else None
    return {"name": name, **({"domain": domain} if domain else {})}


def _places(catalogue: object) -> Iterator[CatalogEntry]:
    for service in catalogue if isinstance(catalogue, list) else ():
        for endpoint in service.get("endpoints", ()):
            kind, interface = service.get("type"), endpoint.get("interface")
            region = endpoint.get("region_id") or endpoint.get("region")
            yield CatalogEntry(*(str(text or "") for text in (kind, interface, region, endpoint.get("url"))))

"""The part of Keystone v3 that a login needs: version documents; issuing, checking and revoking of tokens.

Statuses, headers, bodies and wording are those of Keystone 30 (OpenStack 2026.1) behind its own Flask app.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from handler.simulator.calls import CallKind
from handler.simulator.faults import Fault
from handler.simulator.identity.catalog import Catalog
from handler.simulator.identity.model import ApplicationCredential, Denied, Identity, Project, Token, User
from handler.simulator.messages import Answer, Headers, Request, phrase

_Found = TypeVar("_Found", User, Project, ApplicationCredential)

_TOKENS = "/v3/auth/tokens"
_KINDS = {
    ("POST", _TOKENS): CallKind.LOGIN,
    ("DELETE", _TOKENS): CallKind.REVOKE,
    ("GET", ""): CallKind.VERSION,
    ("GET", "/v3"): CallKind.VERSION,
}
_MALFORMED = (
    "The server could not comply with the request since it is either malformed or otherwise incorrect. "
    "The client is assumed to be in error."
)
_NO_SUCH_PATH = b"""<!doctype html>
<html lang=en>
<title>404 Not Found</title>
<h1>Not Found</h1>
<p>The requested URL was not found on the server. \
If you entered the URL manually please check your spelling and try again.</p>
"""


class _BadRequest(Exception):
    """The body of a login is not valid."""


class Keystone:
    """Answers requests to `/` and `/v3`.

    Args:
        otc: whether it behaves as Open Telekom Cloud's IAM: a project without a domain is looked up in the user's own,
            and projects can be listed by name.
    """

    def __init__(self, identity: Identity, catalog: Catalog, *, otc: bool) -> None:
        self._identity = identity
        self._catalog = catalog
        self._otc = otc
        self._with_token: dict[tuple[str, str], Callable[[Request, Token], Answer]] = {
            ("GET", _TOKENS): self._inspect,
            ("HEAD", _TOKENS): self._inspect,
            ("DELETE", _TOKENS): self._inspect,
            ("GET", "/v3/auth/catalog"): self._show_catalog,
            ("GET", "/v3/auth/projects"): self._list_projects,
        }
        if otc:
            self._with_token["GET", "/v3/projects"] = self._list_projects

    def identify(self, request: Request) -> tuple[CallKind, list[str]]:
        """Return the operation that a request asks for; it is about no server."""
        return _KINDS.get((request.method, request.path.rstrip("/")), CallKind.OTHER), []

    def answer(self, request: Request, _request_id: str) -> Answer:
        """Carry out a request, and return Keystone's answer."""
        path = request.path.rstrip("/")
        match request.method, path:
            case "GET", "":
                document = {"versions": {"values": [_version(request.base_url)]}}
                return _reply(300, document, (("Location", f"{request.base_url}/v3/"),))
            case "GET", "/v3":
                return _reply(200, {"version": _version(request.base_url)})
            case "POST", "/v3/auth/tokens":
                return self._log_in(request)
        handler = self._with_token.get((request.method, path))
        if handler is None:
            return _answer(404, _NO_SUCH_PATH, "text/html; charset=utf-8")
        token = self._identity.check(request.header("X-Auth-Token"))
        return handler(request, token) if token else _error(request, 401)

    def refuse(self, request: Request, _id: str, status: int, message: str | None, _fault: Fault) -> Answer:
        """Return the error of an injected fault in Keystone's form."""
        return _error(request, status, message)

    def _log_in(self, request: Request) -> Answer:
        try:
            token = self._issue(request)
        except _BadRequest as bad:
            return _error(request, 400, f"{bad} {_MALFORMED}")
        except Denied:
            return _error(request, 401)
        subject = (("X-Subject-Token", token.id),)
        brief = any(name == "nocatalog" for name, _ in request.query)
        return _reply(201, self._document(token, brief), subject, acted=True)

    def _issue(self, request: Request) -> Token:
        try:
            body = request.json()
        except ValueError:
            raise _BadRequest("Expecting to find valid JSON in request body.") from None
        auth = _object(body, "auth", "request body")
        identity = _object(auth, "identity", "auth")
        methods = identity.get("methods")
        if not isinstance(methods, list) or not methods:
            raise _BadRequest("Expecting to find methods in identity.")
        scope = auth.get("scope")
        match methods:
            case ["password"]:
                given = _object(_object(identity, "password", "identity"), "user", "password")
                user = self._user(given)
                if given.get("password") != user.password:
                    raise Denied
                return self._identity.issue(user, self._scope(scope, user), ("password",))
            case ["token"]:
                parent = self._identity.check(_object(identity, "token", "identity").get("id"))
                if parent is None or parent.application_credential is not None:
                    raise Denied
                how = tuple(dict.fromkeys(("token", *parent.methods)))
                return self._identity.issue(parent.user, self._scope(scope, parent.user), how, parent=parent)
            case ["application_credential"] if scope is None:
                found = self._credential(_object(identity, "application_credential", "identity"))
                return self._identity.issue(found.user, found.project, ("application_credential",), credential=found)
        raise Denied

    def _user(self, given: Mapping[str, Any]) -> User:
        if "id" not in given:
            self._check_domain(given)
        return _named(self._identity.users.values(), given)

    def _check_domain(self, given: Mapping[str, Any]) -> None:
        asked, domain = _object(given, "domain", "user"), self._identity.domain
        if asked.get("id") != domain.id and asked.get("name") != domain.name:
            raise Denied

    def _scope(self, scope: object, user: User) -> Project | None:
        if scope is None:
            return user.default_project
        if scope == "unscoped" or (isinstance(scope, dict) and "unscoped" in scope):
            return None
        if not isinstance(scope, dict) or not isinstance(scope.get("project"), dict):
            # No user here has a role on a domain or on the system.
            raise Denied
        given = scope["project"]
        if "id" not in given and ("domain" in given or not self._otc):
            self._check_domain(given)
        return _named(self._identity.projects, given)

    def _credential(self, given: Mapping[str, Any]) -> ApplicationCredential:
        candidates = self._identity.application_credentials
        if "id" not in given:
            user = self._user(_object(given, "user", "application_credential"))
            candidates = [credential for credential in candidates if credential.user is user]
        credential = _named(candidates, given)
        if credential.secret != given.get("secret"):
            raise Denied
        return credential

    def _inspect(self, request: Request, caller: Token) -> Answer:
        subject = self._identity.check(request.header("X-Subject-Token"))
        if subject is None:
            return _error(request, 404, "Failed to validate token")
        if not caller.admin and caller.user.id != subject.user.id:
            verb = "revoke" if request.method == "DELETE" else "validate"
            message = f"You are not authorized to perform the requested action: identity:{verb}_token."
            return _error(request, 403, message)
        if request.method == "DELETE":
            self._identity.revoke(subject.id)
            return Answer(204, (("Vary", "X-Auth-Token"), _new_id()), acted=True, reason="NO CONTENT")
        return _reply(200, self._document(subject, brief=False), (("X-Subject-Token", subject.id),))

    def _show_catalog(self, request: Request, token: Token) -> Answer:
        links = {"next": None, "self": f"{request.base_url}/v3/auth/catalog", "previous": None}
        return _reply(200, {"catalog": self._catalog.entries(token), "links": links})

    def _list_projects(self, request: Request, token: Token) -> Answer:
        given = dict(request.query)
        projects = [
            {
                "id": project.id,
                "name": project.name,
                "domain_id": project.domain.id,
                "parent_id": project.domain.id,
                "description": "",
                "enabled": True,
                "is_domain": False,
                "links": {"self": f"{request.base_url}/v3/projects/{project.id}"},
            }
            for project in self._identity.projects
            if project.id in token.user.roles and given.get("name", project.name) == project.name
        ]
        links = {"next": None, "self": f"{request.base_url}{request.target}", "previous": None}
        return _reply(200, {"projects": projects, "links": links})

    def _document(self, token: Token, brief: bool) -> dict[str, object]:
        document: dict[str, object] = {
            "methods": list(token.methods),
            "user": _described(token.user) | {"password_expires_at": None},
            "audit_ids": list(token.audit_ids),
            "expires_at": _time(token.expires_at),
            "issued_at": _time(token.issued_at),
        }
        if token.project:
            document["project"] = _described(token.project)
            document["is_domain"] = False
            document["roles"] = [{"id": self._identity.role_ids[role], "name": role} for role in token.roles]
            if not brief:
                document["catalog"] = self._catalog.entries(token)
        if credential := token.application_credential:
            document["application_credential"] = {"id": credential.id, "name": credential.name, "restricted": True}
        return {"token": document}


def _object(parent: object, key: str, where: str) -> Mapping[str, Any]:
    child = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(child, dict):
        raise _BadRequest(f"Expecting to find {key} in {where}.")
    return child


def _named(candidates: Iterable[_Found], given: Mapping[str, Any]) -> _Found:
    """Return the candidate that is named by its id, or else by its name."""
    key = "id" if "id" in given else "name"
    for candidate in candidates:
        if getattr(candidate, key) == given.get(key):
            return candidate
    raise Denied


def _described(owner: User | Project) -> dict[str, object]:
    domain = {"id": owner.domain.id, "name": owner.domain.name}
    return {"domain": domain, "id": owner.id, "name": owner.name}


def _time(seconds: float) -> str:
    # Whole seconds: Fernet tokens have no fraction, so Keystone shows none.
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _version(base_url: str) -> dict[str, object]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{base_url}/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


def _error(request: Request, status: int, message: str | None = None) -> Answer:
    """Return an error; the message is the usual one of the status unless given."""
    title = phrase(status)
    usual = "The request you have made requires authentication." if status == 401 else f"{title}."
    error = {"error": {"code": status, "message": message or usual, "title": title}}
    body = json.dumps(error, separators=(",", ":")).encode() + b"\n"
    challenge = (("WWW-Authenticate", f'Keystone uri="{request.base_url}/v3"'),) if status == 401 else ()
    return _answer(status, body, "application/json", challenge)


def _reply(status: int, document: object, extra: Headers = (), acted: bool = False) -> Answer:
    return _answer(status, json.dumps(document).encode(), "application/json", extra, acted)


def _answer(status: int, body: bytes, content_type: str, extra: Headers = (), acted: bool = False) -> Answer:
    headers = (
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        *extra,
        ("Vary", "X-Auth-Token"),
        _new_id(),
    )
    return Answer(status, headers, body, acted, reason=phrase(status).upper())


def _new_id() -> tuple[str, str]:
    return "x-openstack-request-id", f"req-{uuid.uuid4()}"

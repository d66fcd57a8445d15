"""OTC's access keys, permanent and temporary, and their request signature, `SDK-HMAC-SHA256`.

One HMAC with the secret key over a digest of the canonical request; no key is derived. Only the headers that are
listed in the signature are signed, so that a proxy may add its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from handler.cloud import error_mapping
from handler.cloud.auth.login import LOGIN_TIMEOUT, IdentityLogin, Token, identity_url
from handler.errors import CloudUnexpectedAnswer

_ALGORITHM = "SDK-HMAC-SHA256"


class AccessKeyAuth(IdentityLogin):
    """An access key. Only the project's id is requested, if the settings have the project's name."""

    renewable = False

    def _obtain(self) -> Token:
        project_id = self._login.project_id or self._look_up()
        return Token(project_id=project_id, signer=self._signer(project_id).sign)

    def _signer(self, project_id: str) -> Signer:
        login = self._login
        key, secret, security_token = login.access_key or "", login.secret_key.reveal(), login.security_token.reveal()
        return Signer(key, secret, security_token=security_token, project_id=project_id)

    def _look_up(self) -> str:
        """Call `GET /v3/projects?name=`: IAM lists the projects that the key can read."""
        name = self._login.project_name or ""
        url = f"{identity_url(self._login.auth_url)}/projects?name={quote(name, safe='')}"
        headers = {"Accept": "application/json"}
        headers |= self._signer("").sign("GET", url, headers, None)
        status, received, body = self._client.send("GET", url, headers=headers, timeout=LOGIN_TIMEOUT)
        if not 200 <= status < 300:
            raise error_mapping.from_login_answer(status, received, body, error_mapping.carried(headers))
        projects = json.loads(body).get("projects", [])
        ids = [project["id"] for project in projects if project.get("name") == name]
        if len(ids) != 1 or not isinstance(ids[0], str):
            raise CloudUnexpectedAnswer(f"logging in: the key sees {len(ids)} projects of that name")
        return ids[0]


class Signer:
    """Signs each request when it is sent, so that a repeated one has a new date.

    Args:
        security_token: of a temporary key; empty for a permanent one.
        project_id: sent as `X-Project-Id`, which OTC requires for sub-projects; empty to leave it out.
        now: wall time, aware; the cloud refuses one that differs by more than 15 minutes.
    """

    def __init__(
        self,
        access_key: str,
        secret_key: str,
        *,
        security_token: str = "",
        project_id: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._access_key = access_key
        self._secret_key = secret_key.encode()
        self._security_token = security_token
        self._project_id = project_id
        self._now = now

    def sign(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, str]:
        """Return the headers to add: date, signature, and those that these need.

        Args:
            method: in upper case.
            url: of the request.
            body: of the request, or None.
            headers: of the request so far, in any case.
        """
        parts = urlsplit(url)
        default_port = {"https": 443, "http": 80}.get(parts.scheme)
        host = parts.hostname or ""
        added = {
            "Host": host if parts.port in (None, default_port) else f"{host}:{parts.port}",
            "X-Sdk-Date": self._now().astimezone(UTC).strftime("%Y%m%dT%H%M%SZ"),
        }
        if self._project_id:
            added["X-Project-Id"] = self._project_id
        if self._security_token:
            added["X-Security-Token"] = self._security_token
        covered = {name.lower(): value.strip() for name, value in added.items()}
        covered |= {name.lower(): value.strip() for name, value in headers.items() if name.lower() == "content-type"}
        signed = ";".join(sorted(covered))
        canonical = "\n".join(
            (
                method.upper(),
                canonical_path(parts.path),
                canonical_query(parts.query),
                "".join(f"{name}:{covered[name]}\n" for name in sorted(covered)),
                signed,
                hashlib.sha256(body or b"").hexdigest(),
            )
        )
        text = f"{_ALGORITHM}\n{added['X-Sdk-Date']}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(self._secret_key, text.encode(), hashlib.sha256).hexdigest()
        authorization = f"{_ALGORITHM} Access={self._access_key}, SignedHeaders={signed}, Signature={signature}"
        return {**added, "Authorization": authorization}


def canonical_path(path: str) -> str:
    """Return the path with each segment percent-encoded, and a slash at the end."""
    encoded = "/".join(quote(unquote(segment), safe="-_.~") for segment in path.split("/"))
    return encoded if encoded.endswith("/") else f"{encoded}/"


def canonical_query(query: str) -> str:
    """Return the query sorted by name, then value; an empty value keeps its equals sign."""
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)

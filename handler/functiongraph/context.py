"""The context of one call of FunctionGraph: settings, credentials, and the time that is left.

The platform gives a function's agency a token and temporary keys that are valid for 24 hours, and passes the present
ones with each call; so a call logs in with its own, and they are not kept after it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from handler.errors import BudgetSpent, LoginRefused
from handler.settings.env import Secret, header_value
from handler.settings.login import CloudLogin, LoginKind
from handler.settings.stop_servers import Settings

if TYPE_CHECKING:
    from handler.settings.keep_servers import KeepSettings

_LOG = logging.getLogger(__name__)

# The platform ends the process at the end of the time, so the answer must be sent before.
_MARGIN = 2.0
_LARGEST_MARGIN = 0.2
_LONGEST_NAME = 100


class Call(NamedTuple):
    """One call.

    Attributes:
        function: the function's name, encoded for a path; empty if it is not known.
        seconds: how long the platform lets it run from now on; None if that is not known.
        token: of the agency; empty if there is none.
        access_key, secret_key, security_token: the agency's temporary keys; empty if there are none.
    """

    function: str = ""
    seconds: float | None = None
    token: Secret = Secret()
    access_key: Secret = Secret()
    secret_key: Secret = Secret()
    security_token: Secret = Secret()

    @classmethod
    def of_context(cls, context: object, environ: Mapping[str, str]) -> Call:
        """Return the call of a function that was uploaded as code."""
        left = _call_method(context, "getRemainingTimeInMilliSeconds")
        known = isinstance(left, int | float) and not isinstance(left, bool)
        return cls(
            function=_name(_text(_call_method(context, "getFunctionName")) or environ.get("RUNTIME_FUNC_NAME", "")),
            seconds=float(str(left)) / 1000 if known else None,
            token=_secret(_call_method(context, "getToken")),
            access_key=_secret(_call_method(context, "getSecurityAccessKey")),
            secret_key=_secret(_call_method(context, "getSecuritySecretKey")),
            security_token=_secret(_call_method(context, "getSecurityToken")),
        )

    @classmethod
    def of_headers(cls, headers: Mapping[str, str], environ: Mapping[str, str]) -> Call:
        """Return the call of a container; the project and the region in its headers are constants, and not used."""
        timeout = headers.get("x-cff-timeout", "").strip()
        known = timeout.isascii() and timeout.isdigit() and 0 < len(timeout) < 10 and int(timeout) > 0
        return cls(
            function=_name(environ.get("RUNTIME_FUNC_NAME", "") or headers.get("x-cff-func-name", "")),
            seconds=float(timeout) if known else None,
            token=_secret(headers.get("x-cff-auth-token")),
            access_key=_secret(headers.get("x-cff-security-access-key")),
            secret_key=_secret(headers.get("x-cff-security-secret-key")),
            security_token=_secret(headers.get("x-cff-security-token")),
        )

    def settings(self, settings: Settings) -> Settings:
        """Return the settings for this call: with its login, if no other is set, and within its time.

        Raises:
            BudgetSpent: there is no time left.
            LoginRefused: its credentials are not valid.
        """
        if settings.login.kind is LoginKind.FUNCTIONGRAPH:
            settings = settings._replace(login=self.login(settings.login))
        left = self.budget(settings)
        if left <= 0:
            raise BudgetSpent("The platform has left this call no time.")
        if left >= settings.deadline.total_seconds():
            return settings
        budget = timedelta(seconds=left)
        policy = settings.policy._replace(wait=min(settings.policy.wait, budget / 2))
        return settings._replace(deadline=budget, policy=policy)

    def budget(self, settings: Settings | KeepSettings) -> float:
        """Return the seconds that it may take; zero or less if none are left."""
        deadline = settings.deadline.total_seconds()
        if self.seconds is None:
            return deadline
        return min(deadline, self.seconds - min(_MARGIN, self.seconds * _LARGEST_MARGIN))

    def login(self, login: CloudLogin) -> CloudLogin:
        """Return the login with the credentials of the call; the given one if it has none.

        Raises:
            LoginRefused: they are not valid.
        """
        keys = (self.access_key, self.secret_key, self.security_token)
        for secret in (self.token, *keys):
            try:
                _ = secret and header_value(secret.reveal())
            except ValueError:
                # It would be sent in a header, and the library that refuses it there quotes it.
                raise LoginRefused("logging in: the token or the keys of this call are malformed") from None
        if self.token:
            return login._replace(kind=LoginKind.READY_TOKEN, token=self.token)
        if all(keys):
            return login._replace(
                kind=LoginKind.ACCESS_KEY,
                access_key=self.access_key.reveal(),
                secret_key=self.secret_key,
                security_token=self.security_token,
            )
        return login


class UserData(Mapping[str, str]):
    """The environment of a function: user variables of the context first, then those of the process."""

    def __init__(self, context: object, environ: Mapping[str, str]) -> None:
        self._context = context
        project = _text(_call_method(context, "getProjectID"))
        # The context cannot list the variables; `RUNTIME_USERDATA` does, so that a misspelt one is reported.
        self._environ = {
            **({"RUNTIME_PROJECT_ID": project} if project else {}),
            **environ,
            **_listed(environ.get("RUNTIME_USERDATA", "")),
        }

    def __getitem__(self, name: str) -> str:
        given = _call_method(self._context, "getUserData", name)
        return given if isinstance(given, str) and given else self._environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def _listed(userdata: str) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in json.loads(userdata).items()}
    except (ValueError, RecursionError, AttributeError):
        return {}


def _call_method(context: object, method: str, *arguments: str) -> object:
    """Return the result of a method of the platform's context; None if it is missing or fails, as without an agency."""
    try:
        return getattr(context, method)(*arguments)
    except Exception as failure:
        _LOG.debug("the context does not answer", extra={"method": method, "detail": type(failure).__name__})
        return None


def _text(value: object) -> str:
    # The platform writes `null` for an empty value.
    text = value.strip() if isinstance(value, str) else ""
    return "" if text == "null" else text


def _secret(value: object) -> Secret:
    return Secret(_text(value))


def _name(text: str) -> str:
    return quote(text, safe="")[:_LONGEST_NAME]

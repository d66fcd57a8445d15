"""One login for the whole process: shared by all events, renewed before it expires, one attempt at a time.

::

    Login
    ├── IdentityLogin  with an identity service over HTTP
    │   ├── KeystoneLogin  password, token or application credential: a token from Keystone or OTC's IAM (keystone.py)
    │   └── AccessKeyAuth  OTC access key: no token, every request is signed (aksk.py)
    ├── PluginLogin    an entry of clouds.yaml (clouds_yaml.py)
    ├── StaticToken    a token from outside, such as that of FunctionGraph's agency
    └── NoLogin        on FunctionGraph, a call without token and keys
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from handler.cloud import error_mapping
from handler.errors import CallFailure, CloudError, CloudUnreachable, LoginMissing, LoginRefused
from handler.http_client import HttpClient, host_of
from handler.settings.env import Secret
from handler.settings.login import CloudLogin

LOGIN_TIMEOUT = 10.0
# OTC locks a key for five minutes after five wrong signatures in a row; so a refused login is not repeated for a time.
REFUSED_HOLD = 60.0
# Any other failure counts for all waiting callers, or each of them would try again.
_FAILED_HOLD = 0.5


Sign = Callable[[str, str, Mapping[str, str], bytes | None], Mapping[str, str]]
"""Returns the headers that sign a request of a method, URL, headers and body."""


class CatalogEntry(NamedTuple):
    """One endpoint of the service catalogue; members that it does not have are empty."""

    service_type: str
    interface: str
    region: str
    url: str


class Token(NamedTuple):
    """The credentials of requests.

    Attributes:
        project_id: its project; None if that is not known.
        catalogue: the service catalogue of the login, or None.
        token: sent as `X-Auth-Token`; empty if requests are signed instead.
        signer: signs a request, or None.
        expires_in: seconds after which it should be renewed.
        roles: names of the roles; empty if they are not known.
    """

    project_id: str | None
    catalogue: tuple[CatalogEntry, ...] | None = None
    token: Secret = Secret()
    signer: Sign | None = None
    expires_in: float = float("inf")
    roles: tuple[str, ...] = ()


class Login(ABC):
    """Returns the current token, and gets a new one if needed; one attempt at a time.

    All callers that wait for an attempt get its result.

    Attributes:
        host: of the identity service, for messages; None if it calls none.
    """

    renewable = True
    host: str | None = None

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # The token and its renewal time in one tuple, since it is read without the lock.
        self._current: tuple[Token, float] | None = None
        self._failure: CloudError | None = None
        self._held_until = float("-inf")

    @abstractmethod
    def _obtain(self) -> Token:
        """Log in. Any exception is mapped by `error_mapping.from_login`."""

    def access(self, timeout: float) -> Token:
        """Return the current token.

        Args:
            timeout: seconds to wait for an attempt of another thread.

        Raises:
            LoginRefused: the cloud refused, now or less than `REFUSED_HOLD` seconds ago.
            CloudError: the login failed, now or a moment ago.
        """
        # Without the lock, which each call would need: the token was valid a moment ago, as with the lock.
        known = self._good()
        if known is not None:
            return known
        with self._alone(timeout):
            known = self._good()
            if known is not None:
                return known
            if self._failure is not None and self._monotonic() < self._held_until:
                raise self._failure.with_traceback(None)
            return self._attempt()

    def drop(self, refused: Token, timeout: float) -> None:
        """Discard a token that the cloud rejects, unless another thread has replaced it."""
        with self._alone(timeout):
            if self._current is not None and self._current[0] is refused:
                self._current = None

    def hold(self, failure: LoginRefused, timeout: float) -> None:
        """Refuse further attempts for `REFUSED_HOLD` seconds."""
        with self._alone(timeout):
            self._current = None
            self._refuse(failure)

    def _good(self) -> Token | None:
        """Return the token if it need not be renewed; else None."""
        current = self._current
        return current[0] if current is not None and self._monotonic() < current[1] else None

    @contextmanager
    def _alone(self, timeout: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=timeout):
            busy = CloudUnreachable("logging in: another attempt is still under way", failure=CallFailure.TIMEOUT)
            busy.host = self.host
            raise busy
        try:
            yield
        finally:
            self._lock.release()

    def _attempt(self) -> Token:
        began = self._monotonic()
        try:
            access = self._obtain()
        except Exception as cause:
            failure = cause if isinstance(cause, CloudError) else error_mapping.from_login(cause)
            failure.host = failure.host or self.host
            self._refuse(failure)
            if failure is cause:
                raise
            raise failure from cause
        self._current, self._failure = (access, began + access.expires_in), None
        return access

    def _refuse(self, failure: CloudError) -> None:
        self._failure = failure
        hold = min(max(failure.retry_after or 0.0, _FAILED_HOLD), REFUSED_HOLD)
        self._held_until = self._monotonic() + (REFUSED_HOLD if isinstance(failure, LoginRefused) else hold)


class IdentityLogin(Login):
    """Gets its credentials from the identity service over HTTP."""

    def __init__(self, login: CloudLogin, client: HttpClient, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(monotonic)
        self._login = login
        self._client = client
        self.host = host_of(login.auth_url)


class StaticToken(Login):
    """A token from outside, which cannot be renewed."""

    renewable = False

    def __init__(self, token: Secret, project_id: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(monotonic)
        self._given = Token(project_id=project_id, token=token)

    def _obtain(self) -> Token:
        return self._given


class NoLogin(Login):
    """No credentials: FunctionGraph passes them with each call, and this call had none."""

    renewable = False

    def _obtain(self) -> Token:
        raise LoginMissing(
            "This call brought neither a token nor temporary keys: give the function an agency (and a container the "
            "keys in its headers), or set the OS_ variables of a login."
        )


def identity_url(auth_url: str) -> str:
    """Return the URL of version 3 of the identity API, without a slash at its end."""
    return auth_url.rstrip("/").removesuffix("/v3") + "/v3"

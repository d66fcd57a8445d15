"""One login for the whole process: shared by all events, renewed before it ends, never hammered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keystoneauth1 import access as ksa_access
from keystoneauth1 import session as ksa_session
from keystoneauth1.identity import v3

from handler.cloud import faults
from handler.errors import CloudError, CloudUnreachable, LoginRefused
from handler.settings import CloudLogin, LoginKind

# OTC locks a key for five minutes after five wrong signatures in a row; a refused login is not tried for a while.
REFUSED_HOLD = 60.0


def plugin(login: CloudLogin) -> v3.Auth:
    """The keystoneauth plugin for these settings. Version 3 is named, so nothing is spent on discovery."""
    scope = {
        "project_id": login.project_id,
        "project_name": login.project_name,
        "project_domain_id": login.project_domain_id,
        "project_domain_name": login.project_domain_name,
    }
    match login.kind:
        case LoginKind.PASSWORD:
            return v3.Password(
                login.auth_url,
                password=login.password.reveal(),
                username=login.username,
                user_id=login.user_id,
                user_domain_id=login.user_domain_id,
                user_domain_name=login.user_domain_name,
                **scope,
            )
        case LoginKind.TOKEN:
            return v3.Token(login.auth_url, login.token.reveal(), **scope)
        case LoginKind.APPLICATION_CREDENTIAL:
            # A credential is bound to its project; naming a scope beside it is an error upstream.
            return v3.ApplicationCredential(
                login.auth_url,
                application_credential_secret=login.application_credential_secret.reveal(),
                application_credential_id=login.application_credential_id,
                application_credential_name=login.application_credential_name,
                username=login.username,
                user_id=login.user_id,
                user_domain_id=login.user_domain_id,
                user_domain_name=login.user_domain_name,
            )


class Login:
    """Hands out the current token, and gets a new one when it must; one attempt at a time.

    Whoever waits while an attempt runs gets what that attempt brings, good or bad.
    """

    def __init__(
        self,
        auth: v3.Auth,
        session: ksa_session.Session,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._auth = auth
        self._session = session
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._access: ksa_access.AccessInfoV3 | None = None
        self._attempts = 0
        self._failure: CloudError | None = None
        self._held_until = float("-inf")

    def access(self, timeout: float) -> ksa_access.AccessInfoV3:
        """The current access: token, project and catalogue.

        Args:
            timeout: seconds to wait for an attempt that somebody else has under way.

        Raises:
            LoginRefused: the cloud refused, now or less than `REFUSED_HOLD` seconds ago.
            CloudError: no token could be had.
        """
        attempts_before = self._attempts
        with self._alone(timeout):
            if self._access is not None and not _ends_soon(self._access):
                return self._access
            shared = self._attempts != attempts_before
            if self._failure is not None and (shared or self._monotonic() < self._held_until):
                raise self._failure.with_traceback(None)
            return self._attempt()

    def renew(self, refused: str, timeout: float) -> None:
        """Drop the token `refused`, unless somebody has done so already."""
        with self._alone(timeout):
            if self._access is not None and self._access.auth_token == refused:
                self._access = None

    @contextmanager
    def _alone(self, timeout: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=timeout):
            raise CloudUnreachable("logging in: another attempt is still under way")
        try:
            yield
        finally:
            self._lock.release()

    def _attempt(self) -> ksa_access.AccessInfoV3:
        self._attempts += 1
        try:
            self._access = self._auth.get_auth_ref(self._session)
        except Exception as failure:
            self._failure = faults.from_login(failure)
            if isinstance(self._failure, LoginRefused):
                self._held_until = self._monotonic() + REFUSED_HOLD
            raise self._failure from failure
        self._failure = None
        return self._access


def _ends_soon(access: ksa_access.AccessInfoV3) -> bool:
    """Whether the token should be renewed now: with two minutes left, or a fifth of its life if that is less."""
    life = (access.expires - access.issued).total_seconds() if access.issued else 600.0
    return bool(access.will_expire_soon(min(120.0, life / 5)))

"""Authentication of the caller, and the consent that a webhook sender asks for."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_never

from handler.errors import CallerForbidden, Unauthenticated
from handler.settings.common import Callers, InboundAuth

if TYPE_CHECKING:
    from handler.inbound.auth.oidc import TokenVerifier


def authenticate(headers: Mapping[str, str], callers: Callers, until: float = float("inf")) -> bool:
    """Authenticate the caller.

    Args:
        headers: names in lower case.
        callers: the settings.
        until: how long keys may be waited for, on the monotonic clock: the end of the event's budget.

    Returns:
        Whether the caller may send approvals.

    Raises:
        Unauthenticated: with `bearer`, no token or another one; with `oidc`, none or one that is not valid.
        CallerForbidden: with `oidc`, a valid token of a subject that may not call.
        KeysUnreachable: with `oidc`, whether the token is valid cannot be determined now.
    """
    match callers.inbound_auth:
        case InboundAuth.NONE:
            return not callers.names_approvers
        case InboundAuth.BEARER:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            sent = token.strip().encode("latin-1", "replace")
            # Every token is compared, so that the time taken does not depend on how much of one is right.
            hits = [hmac.compare_digest(sent, known.reveal().encode()) for known in callers.bearer_tokens]
            approvers = [hmac.compare_digest(sent, known.reveal().encode()) for known in callers.approver_tokens]
            if scheme.lower() != "bearer" or not any(hits + approvers):
                raise Unauthenticated("A bearer token that is accepted here is required.")
            return not callers.names_approvers or any(approvers)
        case InboundAuth.OIDC:
            names = _oidc(callers).check(headers, until)
            return not callers.names_approvers or not names.isdisjoint(callers.approver_subjects)
        case unknown:
            assert_never(unknown)


def ready(callers: Callers) -> None:
    """Check that callers can be authenticated.

    Raises:
        KeysUnreachable: with `oidc`, no keys of the issuer are known, and none could be fetched.
    """
    if callers.inbound_auth is InboundAuth.OIDC:
        _oidc(callers).ready()


def _oidc(callers: Callers) -> TokenVerifier:
    # PyJWT and cryptography are loaded only where they are used.
    from handler.inbound.auth.oidc import verifier_for

    assert callers.oidc is not None
    return verifier_for(callers.oidc)


def consent(headers: Mapping[str, str], callers: Callers) -> dict[str, str]:
    """Answer the handshake of the CloudEvents webhook profile.

    Returns:
        The headers of the response. Without `WebHook-Request-Origin` it is no handshake, and they have the allowed
        methods only. The callback URL that a sender may offer is not called: consent is given in the response.

    Raises:
        CallerForbidden: the origin may not subscribe.
    """
    allow = {"Allow": "POST, OPTIONS"}
    origin = headers.get("webhook-request-origin")
    if origin is None:
        return allow
    named = next((known for known in callers.webhook_origins if known == origin.strip().lower()), None)
    if named is None and "*" not in callers.webhook_origins:
        raise CallerForbidden("This origin may not subscribe.")
    rate = headers.get("webhook-request-rate", "").strip()
    granted = str(int(rate)) if rate.isascii() and rate.isdigit() and 0 < len(rate) < 10 and int(rate) else "*"
    return {**allow, "WebHook-Allowed-Origin": named or "*", "WebHook-Allowed-Rate": granted}

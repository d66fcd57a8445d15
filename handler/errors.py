"""Every situation that keeps an event from being handled, as one tree.

::

    AutostopError
    ├── BadEvent             the event can never succeed
    ├── NotAnEvent           neither a CloudEvent nor another form that is accepted
    ├── TooLarge             the body is over the limit
    ├── RequestLineTooLong   the request line is over the limit
    ├── HeadersTooLarge      a header line, or all of them, are over the limit
    ├── WrongMethod          neither POST nor the handshake
    ├── Unauthenticated      the caller is not authenticated
    ├── CallerForbidden      the caller is not permitted to do this
    └── RetryableError       sending the event again can help
        ├── BudgetSpent      not every server was handled in time
        ├── EventInProgress  the same event is being handled, and enough deliveries of it wait
        ├── StopLimitReached this process has sent enough stops for now
        ├── ApprovalNotConfigured  the event needs an approval, and there is no key to sign its plan with
        ├── NotAnnounced     the stops could not be announced before the first of them
        ├── BodyIncomplete   the connection ended or stalled inside the body
        ├── ShuttingDown     this process takes no more events
        ├── ReadinessUnknown the first readiness check has no result yet
        ├── SinkUnreachable  an event could not be delivered to the sink
        ├── ProducerUnreachable  a certificate or a confirmation of a producer is not available
        ├── KeysUnreachable  the issuer's keys are not available
        ├── ChatUnreachable  a chat did not accept a message
        ├── InternalError    a bug of this project
        └── CloudError       the cloud did not do what was asked
            ├── CloudUnreachable  no usable answer
            ├── CloudThrottled    the cloud asks for fewer requests
            ├── CloudUnexpectedAnswer  not a response of this call
            │   └── EndpointUnusable  the URL of the API is not usable
            ├── LoginRefused      the cloud refused the login
            │   ├── LoginMissing  the platform passed no credentials
            │   └── InsecureEndpoint  the token would be sent unencrypted
            ├── CallDenied        logged in, but this call is not permitted
            ├── ServerNotFound    there is no such server
            ├── StateConflict     the server's present state does not permit the call
            ├── CloudFault        an internal error of the cloud
            └── CallRejected      the cloud calls the request invalid

Messages name settings, attributes and situations; they never carry text that a caller sent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class CallFailure(StrEnum):
    """Why a call has no response that can be used."""

    NO_SUCH_HOST = "no-such-host"
    CONNECTION_REFUSED = "connection-refused"
    NO_CONNECTION = "no-connection"
    TIMEOUT = "timeout"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    TLS_ERROR = "tls-error"
    PROXY_ERROR = "proxy-error"
    CONNECTION_LOST = "connection-lost"
    CA_FILE_UNREADABLE = "ca-file-unreadable"
    NO_TOKEN_IN_FILE = "no-token-in-file"
    UNEXPECTED_RESPONSE = "unexpected-response"
    NO_RESPONSE = "no-response"


class Cause(NamedTuple):
    """The failed call that caused an error, without text from outside: problem documents and logs show it as it is.

    Attributes:
        call: what was called, such as `reading the server`.
        host: `host` or `host:port`; None if it is not known.
        status: of the HTTP response; None if there was none, or if its status is not the failure.
        failure: a `CallFailure`, or the name of an error, if the status is None.
    """

    call: str
    host: str | None
    status: int | None
    failure: str | None

    def __str__(self) -> str:
        where = f" at {self.host}" if self.host else ""
        return f"{self.call}{where}: {self.failure if self.status is None else f'HTTP {self.status}'}"


class AutostopError(Exception):
    """An event cannot be handled.

    Attributes:
        name: a stable identifier for logs, problem documents, metrics and `/readyz`.
        fix: one sentence for the log on what to do; empty if the message has it.
    """

    name = "internal-error"
    fix = ""

    def log_fields(self) -> dict[str, object]:
        """Return the fields of its log line: `problem`, `detail`, and `cause` and `fix` if there are any."""
        return {"problem": self.name, "detail": str(self), **({"fix": self.fix} if self.fix else {})}


class Violation(NamedTuple):
    """One requirement that an event does not meet.

    Attributes:
        at: where, as a dotted path from the event's root (`data.server_ids[3]`); batch members begin with `[n]`.
        message: what must be true there, without the offending value.
    """

    at: str
    message: str


class BadEvent(AutostopError):
    """The event is malformed or has an unknown value: it can never succeed."""

    name = "bad-event"

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{violation.at}: {violation.message}" for violation in violations))
        self.violations = violations


class NotAnEvent(AutostopError):
    """The request is neither a CloudEvent nor another form that is accepted."""

    name = "not-an-event"


class TooLarge(AutostopError):
    """The body is larger than `AUTOSTOP_MAX_BODY`."""

    name = "too-large"


class RequestLineTooLong(AutostopError):
    """The request line is longer than the limit."""

    name = "request-line-too-long"


class HeadersTooLarge(AutostopError):
    """A header line, or all header lines together, are longer than the limit."""

    name = "headers-too-large"


class WrongMethod(AutostopError):
    """The request is neither a POST nor, where there is one, the OPTIONS handshake.

    Attributes:
        allow: the methods that are served.
    """

    name = "wrong-method"

    def __init__(self, message: str, *, allow: str = "POST, OPTIONS") -> None:
        super().__init__(message)
        self.allow = allow


class Unauthenticated(AutostopError):
    """The caller is not authenticated."""

    name = "unauthenticated"


class CallerForbidden(AutostopError):
    """The caller is authenticated, or need not be, but is not permitted to do this."""

    name = "caller-forbidden"


class RetryableError(AutostopError):
    """The event was not handled, and sending it again can help.

    Attributes:
        retry_after: seconds to wait that the other side asked for, or None if it gave none.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self._cause = cause

    @property
    def cause(self) -> Cause | None:
        """The failed call that caused it; None if none did."""
        return self._cause

    def log_fields(self) -> dict[str, object]:
        """Return the fields of its log line: `problem`, `detail`, and `cause` and `fix` if there are any."""
        cause = self.cause
        return {**super().log_fields(), **({"cause": cause._asdict()} if cause else {})}


class BudgetSpent(RetryableError):
    """The event's time budget ended before every server was handled.

    Args:
        last: the last failure of a call to the cloud for a server that was not handled, or None.
    """

    name = "budget-spent"

    def __init__(self, message: str, *, last: CloudError | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after, cause=last.cause if last else None)
        self.fix = last.fix if last else "Send fewer servers in one event, or raise AUTOSTOP_DEADLINE."


class EventInProgress(RetryableError):
    """The same event is being handled by this process, and the most deliveries that may wait for it do."""

    name = "event-in-progress"


class StopLimitReached(RetryableError):
    """The stop limit of this process does not permit stops of all servers of the event; nothing was sent."""

    name = "stop-limit-reached"


class ApprovalNotConfigured(RetryableError):
    """The event needs an approval, and this deployment has no key to sign its plan with; nothing was sent."""

    name = "approval-not-configured"


class NotAnnounced(RetryableError):
    """The stops of the event could not be announced, and nothing is stopped without it (`AUTOSTOP_ANNOUNCE`)."""

    name = "not-announced"
    fix = "Check whether the sink of results runs, its URL (AUTOSTOP_RESULT_SINK or K_SINK), and the way to it."


class BodyIncomplete(RetryableError):
    """The connection ended, or timed out, before the whole body was received."""

    name = "body-incomplete"


class ShuttingDown(RetryableError):
    """This process shuts down and accepts no events; another one may accept the event at once."""

    name = "shutting-down"


class ReadinessUnknown(RetryableError):
    """A readiness check is under way, and there is no recent result of an earlier one."""

    name = "readiness-unknown"


class Acceptance(StrEnum):
    """Whether a sink that did not respond with success has accepted the event."""

    NOT_TAKEN = "not-taken"
    UNKNOWN = "unknown"


class SinkUnreachable(RetryableError):
    """An event could not be delivered to the sink.

    Attributes:
        acceptance: whether the sink may have accepted the event nevertheless.
    """

    name = "sink-unreachable"
    fix = (
        "Check whether the sink runs, its URL (AUTOSTOP_RESULT_SINK, AUTOSTOP_EVENT_SINK or K_SINK), and the way to it."
    )

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        acceptance: Acceptance = Acceptance.UNKNOWN,
        cause: Cause | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, cause=cause)
        self.acceptance = acceptance


class ProducerUnreachable(RetryableError):
    """A request to a producer failed, for its certificate or the confirmation of a subscription."""

    name = "producer-unreachable"
    fix = "Allow outbound HTTPS to the host of the producer."


class KeysUnreachable(RetryableError):
    """The issuer's keys are not available, so the caller's token cannot be verified."""

    name = "keys-unreachable"
    fix = "Check AUTOSTOP_OIDC_ISSUER and AUTOSTOP_OIDC_JWKS_URL, and the way to that host: bms-autostop doctor."


class ChatUnreachable(RetryableError):
    """A chat did not accept a message, or did not respond."""

    name = "chat-unreachable"


class InternalError(RetryableError):
    """A bug of this project; the log has the traceback."""

    name = "internal-error"


class CloudError(RetryableError):
    """The cloud did not do what was asked.

    Its message begins with the call in a few words and a colon: `reading the server: HTTP 500`.

    Attributes:
        call: that beginning of the message.
        host: `host` or `host:port` that was called; None if it is not known.
        failure: why there was no response; None if there was one.
        request_id: the cloud's id for the failed request (`req-...`), for its support; None if there was none.
        status: the HTTP status, or None if there was no response.
        waiting_helps: whether the same call may succeed later.
        maybe_acted: whether the cloud may have acted although no success was reported.
        concerns_one_server: whether it is about a server rather than the cloud.
        concerns_all: whether it ends the event at once, since every other call would fail in the same way.
        of_many: whether it was the response for several servers without naming one.
        contradicts_status: it is from an error document whose HTTP status was 2xx, so it is no certain refusal.
    """

    name = "cloud-error"
    fix = "Check the cloud's status page. If it lasts, give its support the request id."
    waiting_helps = True
    concerns_one_server = False
    concerns_all = False

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        maybe_acted: bool = False,
        failure: CallFailure | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.call = message.partition(":")[0]
        self.host: str | None = None
        self.failure = failure
        self.request_id = request_id
        self.status = status
        self.maybe_acted = maybe_acted
        self.of_many = False
        self.contradicts_status = False

    @property
    def cause(self) -> Cause:
        """The failed call."""
        failure = None if self.status is not None else self.failure or self.name
        return Cause(self.call, self.host, self.status, failure)


class CloudUnreachable(CloudError):
    """No usable response: no connection, a timeout, a lost connection, or a gateway without its backend."""

    name = "cloud-unreachable"
    fix = "Check the host, DNS, proxy, firewall and the cloud's status page: bms-autostop doctor says how far one gets."


class CloudThrottled(CloudError):
    """The cloud asks for fewer requests, perhaps with `Retry-After`."""

    name = "cloud-throttled"
    fix = "Lower AUTOSTOP_CONCURRENCY or the number of instances, or spread the schedules."


class CloudUnexpectedAnswer(CloudError):
    """Not a response of this call: the wrong host, URL or version, or a body that is not JSON."""

    name = "cloud-unexpected-answer"
    fix = "Check OS_AUTH_URL, OS_REGION_NAME and AUTOSTOP_COMPUTE_URL or AUTOSTOP_BMS_URL: bms-autostop doctor."


class EndpointUnusable(CloudUnexpectedAnswer):
    """The URL of the API cannot be used until the settings or the catalogue change.

    Its message names settings, services and regions only.
    """

    name = "endpoint-unusable"
    waiting_helps = False
    concerns_all = True


class LoginRefused(CloudError):
    """The cloud refused the login; another attempt with the same credentials could lock the account."""

    name = "login-refused"
    fix = "Check user, password or key, and the project, in the OS_* settings: bms-autostop doctor says which is wrong."
    waiting_helps = False
    concerns_all = True


class LoginMissing(LoginRefused):
    """There are no credentials: the platform should have passed them with the call."""

    name = "login-missing"
    fix = "Give the function an agency."


class InsecureEndpoint(LoginRefused):
    """The login is over https, and the catalogue names an http URL: the token must not be sent there."""

    name = "insecure-endpoint"
    fix = "Have the catalogue corrected, or set the URL of the API."


class CallDenied(CloudError):
    """Logged in, but not permitted to make this call."""

    name = "call-denied"
    fix = (
        "Allow the call in the role or policy of the login (deploy/policies). The action of a stop is named by "
        "bms-autostop doctor --server ID."
    )
    concerns_one_server = True
    waiting_helps = False


class ServerNotFound(CloudError):
    """There is no such server in this project."""

    name = "server-not-found"
    concerns_one_server = True
    waiting_helps = False


class StateConflict(CloudError):
    """The server's present state does not permit the call; the next read shows why."""

    name = "state-conflict"
    concerns_one_server = True


class CloudFault(CloudError):
    """An internal error of the cloud (HTTP 500), which may have acted."""

    name = "cloud-fault"
    concerns_one_server = True


class CallRejected(CloudError):
    """The cloud calls the request invalid; the same request will fail again."""

    name = "call-rejected"
    fix = "Check AUTOSTOP_API and the URLs: the cloud must have that API."
    concerns_one_server = True
    waiting_helps = False

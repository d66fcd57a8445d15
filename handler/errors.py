"""Every situation that keeps an event from being handled, as one tree.

::

    AutostopError
    ├── BadEvent             the event can never succeed
    ├── NotAnEvent           neither a CloudEvent nor a form we know
    ├── TooLarge             the body is over the limit
    ├── RequestLineTooLong   the request line is over the limit
    ├── HeadersTooLarge      a header line, or all of them, are over the limit
    ├── WrongMethod          neither POST nor the handshake
    ├── CallerUnproven       the caller did not prove itself
    ├── CallerForbidden      the caller may not do this
    └── PassingTrouble       sending the event again can help
        ├── BudgetSpent      not every server was handled in time
        ├── EventInProgress  the same event is being handled, and enough deliveries of it wait
        ├── StopLimitReached this process has sent enough stops for now
        ├── BodyIncomplete   the connection ended or stalled inside the body
        ├── ShuttingDown     this process takes no more events
        ├── ReadinessUnknown the first readiness check has no result yet
        ├── SinkUnreachable  an event of ours could not be handed over
        ├── ProducerUnreachable  what a message needs of its producer could not be had
        ├── KeysUnreachable  the keys that a caller's token is checked with could not be had
        ├── ChatUnreachable  a chat does not take a message just now
        ├── InternalFault    a bug of ours
        └── CloudError       the cloud did not do what was asked
            ├── CloudUnreachable  no usable answer
            ├── CloudThrottled    told to come back later
            ├── CloudConfused     an answer that makes no sense here
            │   └── EndpointUnusable  there is no telling where the API is
            ├── LoginRefused      the cloud refused the login
            │   ├── LoginMissing  there is nothing to log in with
            │   └── InsecureEndpoint  the token would be sent unencrypted
            ├── CallDenied        logged in, but this call is not permitted
            ├── ServerNotFound    the cloud knows no such server
            ├── StateConflict     the server's state forbids it just now
            ├── CloudFault        the cloud failed inside
            └── CallRejected      the cloud calls our request wrong

Messages name settings, attributes and situations; they never carry text that a caller sent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class AutostopError(Exception):
    """Something keeps an event from being handled.

    Attributes:
        name: a stable word for logs, problem documents, metrics and `/readyz`.
    """

    name = "internal-fault"


class Violation(NamedTuple):
    """One thing that is wrong with an event.

    Attributes:
        at: where, as a dotted path from the event's root (`data.server_ids[3]`); batch members begin with `[n]`.
        fault: what is wrong there, in a few words, without the offending value.
    """

    at: str
    fault: str


class BadEvent(AutostopError):
    """The event is malformed or asks for something unknown: it can never succeed."""

    name = "bad-event"

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{violation.at}: {violation.fault}" for violation in violations))
        self.violations = violations


class NotAnEvent(AutostopError):
    """The request is neither a CloudEvent nor another form that is accepted."""

    name = "not-an-event"


class TooLarge(AutostopError):
    """The body is larger than `AUTOSTOP_MAX_BODY`."""

    name = "too-large"


class RequestLineTooLong(AutostopError):
    """The request line is longer than what is accepted."""

    name = "request-line-too-long"


class HeadersTooLarge(AutostopError):
    """A header line, or all header lines together, are longer than what is accepted."""

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
    """The caller did not prove who it is."""

    name = "unauthenticated"


class CallerForbidden(AutostopError):
    """The caller is known, or need not be, but may not do this."""

    name = "caller-forbidden"


class RetryableError(AutostopError):
    """The event was not handled, and sending it again can help.

    Attributes:
        retry_after: seconds the other side asked us to wait, or None if it said nothing.
    """

    name = "trouble"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BudgetSpent(RetryableError):
    """The event's time budget ended before every server was handled."""

    name = "budget-spent"


class EventInProgress(RetryableError):
    """The same event is being handled by this process, and as many deliveries as may wait for it do."""

    name = "event-in-progress"


class StopLimitReached(RetryableError):
    """The stop limit of this process leaves too little room for the servers of the event; nothing was sent."""

    name = "stop-limit-reached"


class BodyIncomplete(RetryableError):
    """The connection ended, or stood still, before the whole body was here."""

    name = "body-incomplete"


class ShuttingDown(RetryableError):
    """This process is being ended and begins nothing new; another one may take the event at once."""

    name = "shutting-down"


class ReadinessUnknown(RetryableError):
    """A readiness check is under way, and there is no recent result of an earlier one."""

    name = "readiness-unknown"


class Acceptance(StrEnum):
    """What is known of an event for which a sink did not answer with success."""

    NOT_TAKEN = "not-taken"
    UNKNOWN = "unknown"


class SinkUnreachable(RetryableError):
    """An event of ours could not be handed to the sink.

    Attributes:
        acceptance: whether the sink may have taken the event all the same.
    """

    name = "sink-unreachable"

    def __init__(
        self, message: str, *, retry_after: float | None = None, acceptance: Acceptance = Acceptance.UNKNOWN
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.acceptance = acceptance


class ProducerUnreachable(RetryableError):
    """What a producer's message needs from the producer itself could not be had: its certificate, a confirmation."""

    name = "producer-unreachable"


class KeysUnreachable(RetryableError):
    """The issuer's keys, which a caller's token is checked with, could not be had: nobody knows who calls."""

    name = "keys-unreachable"


class ChatUnreachable(RetryableError):
    """A chat does not take a message just now, or did not answer."""

    name = "chat-unreachable"


class InternalFault(RetryableError):
    """A bug of ours got in the way; the log has the traceback."""

    name = "internal-fault"


class CloudError(RetryableError):
    """The cloud did not do what was asked.

    Attributes:
        request_id: the cloud's id for the failed request (`req-...`), for its support; None if it gave none.
        status: the HTTP status, or None if no answer came.
        waiting_helps: whether the same call may succeed later.
        maybe_acted: whether the cloud may have acted although no success was reported.
        concerns_one_server: whether it speaks of a server rather than of the cloud.
        concerns_all: whether it ends the event at once, since every other call would meet it too.
        of_many: it was the answer for several servers, and which of them it means is not known.
    """

    name = "cloud-error"
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
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.request_id = request_id
        self.status = status
        self.maybe_acted = maybe_acted
        self.of_many = False


class CloudUnreachable(CloudError):
    """No usable answer: no connection, a time-out, a cut line, or a gateway speaking for a missing backend."""

    name = "cloud-unreachable"


class CloudThrottled(CloudError):
    """The cloud wants fewer requests and perhaps said when to come back."""

    name = "cloud-throttled"


class CloudUnexpectedAnswer(CloudError):
    """An answer that makes no sense for this call: wrong host, wrong URL, wrong version, or no JSON."""

    name = "cloud-unexpected-answer"


class EndpointUnusable(CloudUnexpectedAnswer):
    """The address of the API cannot be used until the settings or the catalogue change.

    Its message names settings, services and regions only.
    """

    name = "endpoint-unusable"
    waiting_helps = False
    concerns_all = True


class LoginRefused(CloudError):
    """The cloud refused the login; trying the same credentials again at once only locks them."""

    name = "login-refused"
    waiting_helps = False
    concerns_all = True


class LoginMissing(LoginRefused):
    """There is nothing to log in with: the platform was to hand it over with the call, and did not."""

    name = "login-missing"


class InsecureEndpoint(LoginRefused):
    """The login is over https, and the catalogue names an http URL: the token must not be sent there."""

    name = "insecure-endpoint"


class CallDenied(CloudError):
    """Logged in, but not permitted to make this call."""

    name = "call-denied"
    concerns_one_server = True
    waiting_helps = False


class ServerNotFound(CloudError):
    """The cloud knows no such server in this project."""

    name = "server-not-found"
    concerns_one_server = True
    waiting_helps = False


class StateConflict(CloudError):
    """The server's present state forbids the call; reading it again tells why."""

    name = "state-conflict"
    concerns_one_server = True


class CloudFault(CloudError):
    """The cloud failed inside (HTTP 500) and does not say whether it acted."""

    name = "cloud-fault"
    concerns_one_server = True


class CallRejected(CloudError):
    """The cloud calls our request wrong; the same request will be wrong again."""

    name = "call-rejected"
    concerns_one_server = True
    waiting_helps = False

"""GitLab's pipeline webhook: a scheduled pipeline is the clock, and a variable of it names the servers.

GitLab sends each change of a pipeline's state, so only `success` is acted on, which comes once a run. A run has an id,
and the time at which it finished distinguishes one that was started again; a redelivery repeats both. That is also the
event's time, since users can have GitLab send an old delivery again, which it signs and sends as of now. The signing
token, which newer versions have, signs the delivery's id and time as Standard Webhooks do; the plain token
authenticates the sender alone.

Variables of GitLab are usually in capitals, so neither case nor an `s` at the end of the name counts.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime

from handler import rfc3339
from handler.errors import BadEvent, Unauthenticated, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound import dry_run
from handler.inbound.http.request import HttpRequest
from handler.inbound.skip import Skip
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.fields import (
    LONGEST_REASON,
    LONGEST_REQUESTER,
    cut,
    identity,
    json_body,
    member,
    server_ids,
    text,
)
from handler.inbound.webhooks.model import Alarm, Notification
from handler.stop.model import StopRequest

# The form of Ruby's times, in the time zone of the instance.
_RUBYS = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) (?:UTC|([+-]\d\d)(\d\d))", re.ASCII)


class Gitlab(Alarm[Notification]):
    """Authenticated by its token, by a signature, or both: what is set must be valid."""

    def verify(self, delivery: HttpRequest, now: datetime) -> Notification:
        """Check the header `X-Gitlab-Token`, then the signature over id, time and body."""
        token = self._settings.gitlab_token
        sent = delivery.headers.get("x-gitlab-token", "").encode("latin-1", "replace")
        if token and not signatures.is_one_of(sent, [token]):
            raise Unauthenticated("The token of this webhook is required.")
        time = self._signed(delivery, now) if self._settings.gitlab_signing_token else now
        return Notification(json_body(delivery), time, delivery.body)

    def _signed(self, delivery: HttpRequest, now: datetime) -> datetime:
        key = base64.b64decode(self._settings.gitlab_signing_token.reveal().removeprefix("whsec_"))
        id_, written = (delivery.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp"))
        time = signatures.unix_time(written)
        mac = signatures.signature(key, f"{id_}.{written}.".encode("latin-1", "replace"), delivery.unauthenticated_body)
        expected = f"v1,{base64.b64encode(mac).decode()}"
        # There is one for each key while keys are changed; every one is compared.
        hits = [signatures.same(one, expected) for one in delivery.headers.get("webhook-signature", "").split(" ")]
        if not any(hits):
            raise Unauthenticated("A valid signature is required.")
        return signatures.fresh(time, now)

    def gate(self, message: Notification) -> Skip | None:
        """Skip what is not a pipeline that has succeeded and names a server."""
        if message.document.get("object_kind") != "pipeline":
            return Skip("it is not about a pipeline")
        if _pipeline(message).get("status") != "success":
            return Skip("the pipeline has not succeeded, or not yet")
        return None if self._variables(message) else Skip("the pipeline names no server")

    def extract(self, message: Notification) -> StopRequest:
        """Take the ids from the value of the variable."""
        pipeline, project = _pipeline(message), member(message.document, "project")
        number = pipeline.get("id")
        if not isinstance(number, int):
            raise BadEvent(Violation("object_attributes.id", "must be a number"))
        name = text(project, "path_with_namespace")
        user = text(member(message.document, "user"), "username")
        return StopRequest(
            source=self._source,
            id=identity("gitlab", str(project.get("id", name)), str(number), text(pipeline, "finished_at")),
            type=STOP_REQUESTED,
            server_ids=server_ids(self._variables(message)),
            time=_time(message),
            dry_run=dry_run.requested(message.document, "body"),
            reason=cut(f"GitLab pipeline {number} of {name}" if name else f"GitLab pipeline {number}", LONGEST_REASON),
            requested_by=cut(f"GitLab: {user}" if user else "GitLab", LONGEST_REQUESTER),
        )

    def _variables(self, message: Notification) -> list[tuple[str, object]]:
        """Return the values of the variables that name servers, with their places."""
        label = self._settings.id_label.casefold()
        variables = _pipeline(message).get("variables")
        return [
            (f"object_attributes.variables[{index}].value", variable.get("value"))
            for index, variable in enumerate(variables if isinstance(variables, list) else [])
            if isinstance(variable, dict) and text(variable, "key").casefold() in (label, f"{label}s")
        ]


def _pipeline(message: Notification) -> Mapping[str, object]:
    """Return the pipeline; empty if the message is about something else."""
    return member(message.document, "object_attributes")


def _time(message: Notification) -> datetime:
    """Return when the pipeline ended, not after the time of the message; the latter if there is no other."""
    written = text(_pipeline(message), "finished_at")
    if found := _RUBYS.fullmatch(written):
        day, clock, hours, minutes = found.groups()
        written = f"{day}T{clock}{f'{hours}:{minutes}' if hours else 'Z'}"
    try:
        return min(rfc3339.parse(written), message.now)
    except ValueError:
        return message.now


producer = Gitlab

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from handler import rfc3339
from handler.errors import BadEvent, Unauthenticated, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound import dry_run
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
from handler.inbound.webhooks.model import Alarm, WebhookRequest
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest

# The form of Ruby's times, in the time zone of the instance.
_RUBYS = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) (?:UTC|([+-]\d\d)(\d\d))", re.ASCII)


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification, and when it was sent, or received if that is not signed."""

    document: Mapping[str, object]
    sent: datetime

    @property
    def pipeline(self) -> Mapping[str, object]:
        """The pipeline; empty if the message is about something else."""
        return member(self.document, "object_attributes")

    def variables(self, label: str) -> list[tuple[str, object]]:
        """Return the values of the variable of this name, with their places."""
        names = (label.casefold(), f"{label.casefold()}s")
        return [(at, value) for at, key, value in self._variables() if key.casefold() in names]

    def time(self) -> datetime:
        """Return when the pipeline ended, not after the time of the message; the latter if there is no other."""
        written = text(self.pipeline, "finished_at")
        if found := _RUBYS.fullmatch(written):
            day, clock, hours, minutes = found.groups()
            written = f"{day}T{clock}{f'{hours}:{minutes}' if hours else 'Z'}"
        try:
            return min(rfc3339.parse(written), self.sent)
        except ValueError:
            return self.sent

    def _variables(self) -> Iterator[tuple[str, str, object]]:
        variables = self.pipeline.get("variables")
        for index, variable in enumerate(variables if isinstance(variables, list) else []):
            if isinstance(variable, dict):
                yield f"object_attributes.variables[{index}].value", text(variable, "key"), variable.get("value")


class Gitlab(Alarm):
    """Authenticated by its token, by a signature, or both: what is set must be valid."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        self._token = settings.gitlab_token
        self._key = base64.b64decode(settings.gitlab_signing_token.reveal().removeprefix("whsec_"))
        self._label = settings.id_label
        self._source = source

    def verify(self, delivery: WebhookRequest) -> Notification:
        """Check the header `X-Gitlab-Token`, then the signature over id, time and body."""
        sent = delivery.headers.get("x-gitlab-token", "").encode("latin-1", "replace")
        if self._token and not signatures.is_one_of(sent, [self._token]):
            raise Unauthenticated("The token of this webhook is required.")
        time = self._signed(delivery) if self._key else delivery.now
        return Notification(json_body(delivery), time)

    def _signed(self, delivery: WebhookRequest) -> datetime:
        id_, written = (delivery.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp"))
        time = signatures.unix_time(written)
        mac = signatures.signature(
            self._key, f"{id_}.{written}.".encode("latin-1", "replace"), delivery.unauthenticated_body
        )
        expected = f"v1,{base64.b64encode(mac).decode()}"
        # There is one for each key while keys are changed; every one is compared.
        hits = [signatures.same(one, expected) for one in delivery.headers.get("webhook-signature", "").split(" ")]
        if not any(hits):
            raise Unauthenticated("A valid signature is required.")
        return signatures.fresh(time, delivery.now)

    def gate(self, message: Notification) -> Skip | None:
        """Skip what is not a pipeline that has succeeded and names a server."""
        if message.document.get("object_kind") != "pipeline":
            return Skip("it is not about a pipeline")
        if message.pipeline.get("status") != "success":
            return Skip("the pipeline has not succeeded, or not yet")
        return None if message.variables(self._label) else Skip("the pipeline names no server")

    def extract(self, message: Notification) -> StopRequest:
        """Take the ids from the value of the variable."""
        pipeline, project = message.pipeline, member(message.document, "project")
        number = pipeline.get("id")
        if not isinstance(number, int):
            raise BadEvent(Violation("object_attributes.id", "must be a number"))
        name = text(project, "path_with_namespace")
        user = text(member(message.document, "user"), "username")
        return StopRequest(
            source=self._source,
            id=identity("gitlab", str(project.get("id", name)), str(number), text(pipeline, "finished_at")),
            type=STOP_REQUESTED,
            server_ids=server_ids(message.variables(self._label)),
            time=message.time(),
            dry_run=dry_run.requested(message.document, "body"),
            reason=cut(f"GitLab pipeline {number} of {name}" if name else f"GitLab pipeline {number}", LONGEST_REASON),
            requested_by=cut(f"GitLab: {user}" if user else "GitLab", LONGEST_REQUESTER),
        )


producer = Gitlab

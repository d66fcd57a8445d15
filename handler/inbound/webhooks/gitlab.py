"""GitLab's pipeline webhook: a scheduled pipeline is the clock, and a variable of it names the servers.

GitLab tells of each change of a pipeline's state, so only `success` acts, which comes once a run. A run has an id, and
the time at which it finished tells one that was started again from the one before; a redelivery repeats both. That
is also the event's time, since anybody can have GitLab send an old delivery again, which it signs and sends as of now.
The signing token, which newer versions have, signs the delivery's id and time in the manner of Standard Webhooks; the
plain token proves the sender alone.

GitLab writes variables in capitals by custom, so case does not count, nor an `s` at the end of the name.
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

# Ruby's way of writing a time, in the time zone of the instance.
_RUBYS = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) (?:UTC|([+-]\d\d)(\d\d))", re.ASCII)


@dataclass(frozen=True, slots=True)
class Notification:
    """What GitLab says, and when it was sent, or else received if that is not signed."""

    document: Mapping[str, object]
    sent: datetime

    @property
    def pipeline(self) -> Mapping[str, object]:
        """The pipeline itself; empty if the message is about something else."""
        return member(self.document, "object_attributes")

    def variables(self, label: str) -> list[tuple[str, object]]:
        """The values of the variable of this name, and where each stands."""
        names = (label.casefold(), f"{label.casefold()}s")
        return [(at, value) for at, key, value in self._variables() if key.casefold() in names]

    def time(self) -> datetime:
        """When the pipeline ended, and no later than the message; that of the message if it does not say."""
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
    """Proves itself by its token, by a signature, or both: whatever is set must be right."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        self._token = settings.gitlab_token
        self._key = base64.b64decode(settings.gitlab_signing_token.reveal().removeprefix("whsec_"))
        self._label = settings.id_label
        self._source = source

    def verify(self, delivery: WebhookRequest) -> Notification:
        """The header `X-Gitlab-Token`, then the signature over id, time and body."""
        sent = delivery.headers.get("x-gitlab-token", "").encode("latin-1", "replace")
        if self._token and not signatures.is_one_of(sent, [self._token]):
            raise Unauthenticated("The token of this webhook is needed.")
        time = self._signed(delivery) if self._key else delivery.now
        return Notification(json_body(delivery), time)

    def _signed(self, delivery: WebhookRequest) -> datetime:
        id_, written = (delivery.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp"))
        time = signatures.unix_time(written)
        mac = signatures.signature(
            self._key, f"{id_}.{written}.".encode("latin-1", "replace"), delivery.unauthenticated_body
        )
        expected = f"v1,{base64.b64encode(mac).decode()}"
        # One a key, while keys are changed; every one is compared.
        hits = [signatures.same(one, expected) for one in delivery.headers.get("webhook-signature", "").split(" ")]
        if not any(hits):
            raise Unauthenticated("The signature is missing or wrong.")
        return signatures.fresh(time, delivery.now)

    def gate(self, message: Notification) -> Skip | None:
        """Only a pipeline that has succeeded, and that names a server."""
        if message.document.get("object_kind") != "pipeline":
            return Skip("it is not about a pipeline")
        if message.pipeline.get("status") != "success":
            return Skip("the pipeline has not succeeded, or not yet")
        return None if message.variables(self._label) else Skip("the pipeline names no server")

    def extract(self, message: Notification) -> StopRequest:
        """The variable's value: one id or several."""
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

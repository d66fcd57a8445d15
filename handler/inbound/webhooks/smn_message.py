"""The message of an SMN notification: an alarm of Cloud Eye, or canonical data as JSON text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from handler.event_types import STOP_REQUESTED
from handler.inbound import dry_run
from handler.inbound.extract.canonical import is_canonical
from handler.inbound.skip import Skip
from handler.inbound.webhooks.cloudeye import CloudEyeAlarm
from handler.inbound.webhooks.fields import both, canonical_request, identity, json_object
from handler.stop.model import StopRequest


@dataclass(frozen=True, slots=True)
class SmnMessage:
    """One notification.

    Attributes:
        message_id: of SMN; a redelivery has the same.
        text: of the message.
        time: when it was first sent (aware).
        source: of the stop request.
        now: when it was received (aware).
    """

    message_id: str
    text: str
    time: datetime
    source: str
    now: datetime

    def gate(self) -> Skip | None:
        """Skip alarms of Cloud Eye that do not fire, and what is neither an alarm nor canonical data.

        Raises:
            BadEvent: the text is not a JSON object.
        """
        document = self._document()
        if CloudEyeAlarm.is_one(document):
            return CloudEyeAlarm(document).gate()
        if is_canonical(document):
            return None
        return Skip("neither an alarm nor a stop request")

    def extract(self) -> StopRequest:
        """Make the stop request of the alarm of Cloud Eye, or of canonical data.

        Raises:
            BadEvent: it is malformed; with every violation.
        """
        document, id_ = self._document(), identity(self.message_id)
        if not CloudEyeAlarm.is_one(document):
            request = canonical_request(document, id_=id_, source=self.source, requested_by="SMN", now=self.now)
        else:
            alarm = CloudEyeAlarm(document)
            ids, since = both(alarm.server_ids, lambda: alarm.since(self.now))
            request = StopRequest(
                source=self.source,
                id=id_,
                type=STOP_REQUESTED,
                server_ids=ids,
                dry_run=dry_run.requested(document, "message"),
                since=since,
                reason=alarm.reason(),
                requested_by="Cloud Eye",
                correlationid=alarm.alarm_id(),
            )
        return replace(request, time=self.time)

    def _document(self) -> Mapping[str, object]:
        return json_object(self.text, "message")

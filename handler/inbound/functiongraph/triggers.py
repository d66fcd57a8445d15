"""From an event of FunctionGraph to stop requests, whichever trigger it is from, but for the gateway's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from handler.errors import BadEvent, Flaw
from handler.inbound.functiongraph.cts import Trace
from handler.inbound.functiongraph.smn import Notification
from handler.inbound.functiongraph.timer import Tick
from handler.inbound.webhooks.model import Nothing
from handler.stop.model import StopRequest

_LOG = logging.getLogger(__name__)


class Said(Protocol):
    """What one trigger says."""

    def gate(self) -> Nothing | None:
        """Say whether there is anything to act on; None if there is.

        Raises:
            BadEvent: it is malformed.
        """

    def extract(self) -> StopRequest:
        """Make the stop request.

        Raises:
            BadEvent: it is malformed; with every flaw.
        """


def requests_of(document: Mapping[str, object], source: str) -> list[StopRequest]:
    """What an event asks for: all of its records or, if one is malformed, none.

    Args:
        document: the event as the platform sends it.
        source: what the `source` of each request begins with.

    Raises:
        BadEvent: with every flaw of every record.
    """
    prefixed = "record" in document
    requests: dict[tuple[str, str], StopRequest] = {}
    flaws: list[Flaw] = []
    for index, said in enumerate(_all_said(document, source)):
        prefix = f"record[{index}]." if prefixed else ""
        try:
            nothing = said.gate()
            if nothing is not None:
                _LOG.info("trigger ignored", extra={"trigger": type(said).__name__.lower(), "detail": nothing.why})
                continue
            asked = said.extract()
        except BadEvent as bad:
            flaws += [Flaw(f"{prefix}{flaw.at}", flaw.fault) for flaw in bad.flaws]
            continue
        # The same message twice in one event is a repeat.
        if requests.setdefault((asked.source, asked.id), asked) != asked:
            flaws.append(Flaw(f"{prefix}smn.message_id", "names another message of this event too"))
    if flaws:
        raise BadEvent(*flaws)
    return list(requests.values())


def _all_said(document: Mapping[str, object], source: str) -> Sequence[Said]:
    if Tick.is_one(document):
        return [Tick(document, f"{source}/timer")]
    if Trace.is_one(document):
        return [Trace(document, f"{source}/cts")]
    if "record" in document:
        return Notification.all_of(document, f"{source}/smn")
    raise BadEvent(Flaw("event", "is of no trigger that is known here, nor a CloudEvent"))

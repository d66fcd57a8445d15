"""What one delivery of an event was shown by the cloud, and what it sent."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handler.simulator import Action
from handler.simulator.compute.servers import ServerState
from handler.stop.model import StopRequest
from handler.stop.prepare import PreparedRequest
from tests.harness.prove.approvals import NO_RULES, Announce, ApprovalRules
from tests.harness.prove.events import Event

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the settings of the function and its login say, as far as it varies.

    Attributes:
        only: `key=value` that a server must carry (`AUTOSTOP_ONLY`), or None.
        stop_limit: most servers that one process sends stops for within a window, and its seconds; or None.
    """

    project_id: str
    only: str | None = None
    stop_limit: tuple[int, float] | None = None
    approval: ApprovalRules = NO_RULES
    announce: Announce = Announce.OFF


@dataclass(frozen=True, slots=True)
class Observation:
    """A server as the cloud showed it: `at` is in seconds since the epoch."""

    at: float
    state: ServerState
    actions: tuple[Action, ...]


@dataclass(slots=True)
class StopSent:
    """A stop that was sent, for one server.

    Attributes:
        at: when, in seconds since the epoch.
        basis: the read that it rests on, or None.
        taken_at: when the cloud took it, or None.
        request_id: of the recorded stop, if taken.
        status: the HTTP status that came back; None if none did.
        error_document: the answer had a 2xx status and an error document.
        late: it was delayed on the way, and the cloud took it only after the function had given up on it.
    """

    at: float
    basis: Observation | None
    taken_at: float | None = None
    request_id: str | None = None
    status: int | None = None
    error_document: bool = False
    late: bool = False

    @property
    def may_be_taken(self) -> bool:
        """Whether the function has reason to hold that the cloud took it."""
        return self.status is None or 200 <= self.status < 300 or self.status in (502, 504)

    @property
    def known_taken(self) -> bool:
        return self.taken_at is not None and self.status is not None and self.status < 300

    @property
    def accepted(self) -> bool:
        """Whether the function got the answer that the cloud accepted it."""
        return self.status is not None and self.status < 300 and not self.error_document

    @property
    def unclear(self) -> bool:
        """Whether it got no answer, or one that leaves open what the cloud did; 503 says that it did nothing."""
        return self.status is None or self.error_document or (self.status >= 500 and self.status != 503)


class Command:
    """One event in one delivery; or a delivery of several, which has a command for each of them as its parts.

    Args:
        process: the process of the function that handles it.
        over_limit: the events of the delivery name too many servers together.
        fewest, most: between these is the number of servers that the delivery is about.

    Attributes:
        event: the event; None if there are several, or none to act on.
        began: when the delivery began, in seconds since the epoch.
        latest: for each server the last of them, unless a stop was sent since.
        attempted: for each server when its stop was first attempted, whether it was sent or not.
        renewing: servers whose stop was answered 401 and is sent again with a new token, as part of the same attempt.
        without_history: servers whose history the cloud does not show.
        unreadable_history: servers of whose history an entry could not be read.
        newest_shown: for each server the request id of the newest entry of its history that was shown.
        last_login: when a login last timed out.
        announcements: ids of announcements, and of servers in those that were tried and taken.
        posted: results that the sink took, as headers and body.
        run_by: the command whose run of the event this one shares; itself unless it waited for another delivery.
    """

    def __init__(
        self,
        events: Sequence[Event],
        began: float,
        deployment: Deployment,
        process: int = 0,
        *,
        over_limit: bool = False,
        fewest: int = 0,
        most: int = 0,
    ) -> None:
        self.number = next(_numbers)
        self.event = events[0] if len(events) == 1 else None
        self.began = began
        self.deployment = deployment
        self.process = process
        self.over_limit = over_limit
        self.fewest, self.most = fewest, most
        self.parts = (
            {
                event.key: Command([event], began, deployment, process, over_limit=over_limit, fewest=fewest, most=most)
                for event in events
            }
            if len(events) > 1
            else {}
        )
        self.observations: dict[str, list[Observation]] = {}
        self.latest: dict[str, Observation | None] = {}
        self.stops: dict[str, list[StopSent]] = {}
        self.attempted: dict[str, float] = {}
        self.renewing: set[str] = set()
        self.without_history: set[str] = set()
        self.unreadable_history: set[str] = set()
        self.newest_shown: dict[str, str] = {}
        self.failing: set[str] = set()
        self.last_login = float("-inf")
        self.announcements: dict[str, set[str]] = {}
        self.posted: list[tuple[Mapping[str, str], bytes]] = []
        self.run_by = self

    def part(self, item: Any) -> Command:
        """Return the command of one of several requests; of anything else, such as a result, the whole."""
        if isinstance(item, PreparedRequest):
            item = item.asked
        return self.parts[(item.source, item.id)] if isinstance(item, StopRequest) else self

    def of(self, event: Event) -> Command:
        return self.parts.get(event.key, self)

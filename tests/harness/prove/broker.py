"""A broker that delivers at least once: it delays, duplicates and reorders, loses acknowledgements, and gives up."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.harness.prove.events import Message

# As in a Knative Trigger with `retry: 6`: the first delivery and six more.
MAX_DELIVERIES = 7
# What a broker delivers again (Knative's delivery contract), beside every 5xx.
_RETRIED = frozenset({404, 408, 409, 429})


@dataclass(slots=True, eq=False)
class Copy:
    """One copy of a message on its way.

    Attributes:
        tries: how often it was delivered.
        statuses: what those deliveries were answered with; None for no answer.
    """

    message: Message
    tries: int = 0
    statuses: list[int | None] = field(default_factory=list)


class Broker:
    """Holds copies of messages until they are acknowledged or given up.

    Attributes:
        published: every message, in order.
        waiting: copies to be delivered, in any order.
        acknowledged: copies that were answered 2xx.
        dead: copies that were given up.
    """

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.waiting: list[Copy] = []
        self.acknowledged: list[Copy] = []
        self.dead: list[Copy] = []

    def publish(self, message: Message) -> None:
        """Take in a message."""
        self.published.append(message)
        self.waiting.append(Copy(message))

    def duplicate(self, number: int) -> None:
        """Deliver a message once more that was published at any time before."""
        self.waiting.append(Copy(self.published[number % len(self.published)]))

    def take(self, number: int) -> Copy:
        """Begin the delivery of a copy."""
        copy = self.waiting.pop(number % len(self.waiting))
        copy.tries += 1
        return copy

    def give_up(self, copy: Copy) -> None:
        """Move a waiting copy to the dead letters."""
        self.waiting.remove(copy)
        self.dead.append(copy)

    def settle(self, copy: Copy, status: int | None) -> None:
        """Note the end of a delivery.

        Args:
            status: None if no answer came, or it was lost.
        """
        copy.statuses.append(status)
        if status is not None and 200 <= status < 300:
            self.acknowledged.append(copy)
        elif (status is None or status >= 500 or status in _RETRIED) and copy.tries < MAX_DELIVERIES:
            self.waiting.append(copy)
        else:
            self.dead.append(copy)

"""The endpoint of `keep_servers`: one HTTP request in, one response out."""

from __future__ import annotations

from datetime import UTC, datetime

from handler.inbound.cloudevents.decode import Delivery
from handler.inbound.endpoints.stop_servers import EventEndpoint, collect
from handler.inbound.extract.keep import extract_keep
from handler.keep.model import KeepRequest
from handler.settings.keep_servers import KeepSettings


class KeepEndpoint(EventEndpoint[KeepRequest, KeepSettings]):
    """Answers requests to `keep_servers`."""

    def _requests(self, delivery: Delivery, dry: bool, approver: bool) -> list[KeepRequest]:
        del approver  # Keeps have no approvals.
        now, max_keep = datetime.now(UTC), self._settings.policy.max_keep
        return collect(delivery, lambda event: extract_keep(event, max_keep, now), self._on_skip, dry=dry)

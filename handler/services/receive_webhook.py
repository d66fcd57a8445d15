"""The composition root of `receive_webhook`: from settings to an endpoint. No cloud, no login."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, assert_never

from handler.errors import Acceptance, SinkUnreachable
from handler.http_client import HttpClient
from handler.inbound.endpoints.receive_webhook import WebhookEndpoint
from handler.inbound.webhooks.registry import switched_on
from handler.keep.model import KeepRequest
from handler.outbound import logs
from handler.outbound.keep import keep_request_event
from handler.outbound.result import binary, people
from handler.outbound.sink import Sink
from handler.outbound.stop_request import stop_request_event
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest

if TYPE_CHECKING:
    from handler.telemetry import Telemetry

_LOG = logging.getLogger(__name__)


class WebhookService:
    """What one process shares: the producers that are switched on, and the connections to the sink.

    Args:
        telemetry: measures the calls to the sink; None if it is off.
    """

    def __init__(self, settings: WebhookSettings, telemetry: Telemetry | None = None) -> None:
        self._settings = settings
        new_client = telemetry.http_client("sink") if telemetry else HttpClient
        self._sink = Sink(settings.sink, once=True, new_client=new_client)
        self._keep_sink = Sink(settings.keep_sink, once=True, new_client=new_client)
        self._producers = switched_on(settings)

    def endpoint(self) -> WebhookEndpoint:
        """Return the endpoint of `receive_webhook`."""
        if not self._producers:
            _LOG.warning("no webhook is switched on")
        return WebhookEndpoint(self._producers, self.hand_on, dry_run=self._settings.dry_run)

    def hand_on(self, request: StopRequest | KeepRequest, deadline: float) -> None:
        """Send a request to its sink before the deadline, on the monotonic clock.

        Raises:
            SinkUnreachable: the sink did not confirm that it accepted it.
        """
        extra: dict[str, object] = {
            **logs.about(request),
            "server_ids": request.server_ids,
            "dry_run": request.dry_run,
            "requested_by": request.requested_by,
            **(people(request) if isinstance(request, StopRequest) else {}),
        }
        if isinstance(request, KeepRequest):
            return self._hand_on_keep(request, extra, deadline)
        try:
            self._sink.send(*binary(stop_request_event(request, self._settings.extensions)), deadline)
        except SinkUnreachable as error:
            extra |= error.log_fields()
            match error.acceptance:
                case Acceptance.NOT_TAKEN:
                    _LOG.warning("stop request not handed on", extra=extra)
                case Acceptance.UNKNOWN:
                    _LOG.warning("stop request sent, not known whether it was taken", extra=extra)
                case unknown:
                    assert_never(unknown)
            raise
        _LOG.info("stop request handed on", extra=extra)
        return None

    def _hand_on_keep(self, request: KeepRequest, extra: dict[str, object], deadline: float) -> None:
        try:
            self._keep_sink.send(*binary(keep_request_event(request, self._settings.extensions)), deadline)
        except SinkUnreachable as error:
            extra |= error.log_fields()
            _LOG.warning("keep request not handed on", extra=extra)
            raise
        _LOG.info("keep request handed on", extra=extra)

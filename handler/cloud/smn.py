"""Publishing to a topic of Open Telekom Cloud's Simple Message Notification.

`POST /v2/{project_id}/notifications/topics/{topic_urn}/publish`; its answer has a `message_id` if SMN accepted it.
"""

from __future__ import annotations

import time

from handler.cloud.api_client import Http
from handler.cloud.endpoint import Endpoint
from handler.errors import CloudUnexpectedAnswer

_WHAT = "publishing the result"
_HEADERS = {"Accept": "application/json"}


class Topic:
    """One topic, with the login that stops servers."""

    def __init__(self, http: Http, endpoint: Endpoint, urn: str) -> None:
        self._http = http
        self._endpoint = endpoint
        self._urn = urn

    def url(self, timeout: float) -> str:
        """Return the URL that messages are posted to.

        Raises:
            CloudError: it is not known, or the login failed.
        """
        return f"{self._endpoint.url(timeout)}/notifications/topics/{self._urn}/publish"

    def publish(self, subject: str, message: str, timeout: float) -> None:
        """Publish a message, once.

        Args:
            subject: at most 512 characters.
            message: at most 256 KB as UTF-8.
            timeout: seconds.

        Raises:
            CloudError: SMN did not accept it, or the answer was lost.
        """
        until = time.monotonic() + timeout
        url = self.url(timeout)
        body = {"subject": subject, "message": message}
        reply = self._http.send(_WHAT, "POST", url, timeout=until - time.monotonic(), headers=_HEADERS, body=body)
        id_ = reply.json(_WHAT).get("message_id")
        if not isinstance(id_, str) or not id_:
            # A proxy may answer in SMN's place, and the message would be lost.
            raise CloudUnexpectedAnswer(f"{_WHAT}: the answer has no message_id", request_id=reply.request_id)

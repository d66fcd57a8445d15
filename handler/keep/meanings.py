"""Each reason in one plain sentence, for documents and chats; a run does not import it."""

from __future__ import annotations

from collections.abc import Mapping

from handler.keep.model import Reason

MEANINGS: Mapping[Reason, str] = {
    Reason.KEPT: "The keep-until was written and then read back from the cloud.",
    Reason.RELEASED: "The keep-until was removed, and then no longer seen.",
    Reason.ALREADY_KEPT: "The server is already kept at least that long; a keep is never shortened.",
    Reason.NOT_KEPT: "There was no keep to end.",
    Reason.PROTECTED: "It is protected for good, or its keep-until is not a valid time; it was left as it is.",
    Reason.NOT_FOUND: "The cloud knows no such server in this project, or it has been deleted.",
    Reason.FORBIDDEN: "The login may not read the server or may not write its metadata.",
    Reason.CONFLICT: "The cloud refused the change in the server's present state, such as error or locked.",
    Reason.NOT_SEEN: "The change was sent, but was not seen on the server afterwards.",
    Reason.CLOUD_ERROR: "The cloud failed for this server.",
    Reason.DRY_RUN: "The keep would have been written or removed; it was a dry run.",
}

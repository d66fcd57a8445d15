"""Microsoft Teams outgoing webhooks.

The whole activity is signed, and the time and the id of the message are in it: an old message is refused, and a replay
within the window is the same event. Message ids are unique within a conversation, so both make the event's id. There is
no URL for later messages.

The HTML of a message is converted to text. Code, list items, quotations, struck-out text and links get the marks that
the chats without HTML use for them, so that the grammar accepts or refuses them alike. An unknown element stays in the
text, and is refused as any unknown word.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping
from datetime import datetime

from handler import rfc3339
from handler.errors import Unauthenticated
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer, json_answer
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.chat import Chat, ChatCommand, people, person
from handler.inbound.webhooks.fields import json_object, member, text
from handler.inbound.webhooks.grammar import normalized, parse
from handler.settings.receive_webhook import WebhookSettings

_TAG = re.compile(r"""(</?[A-Za-z](?:[^<>"']|"[^"]*"|'[^']*')*>)""")
_NAME = re.compile(r"</?([a-z][a-z0-9]*)(?=[\s/>])")
_HREF = re.compile(r"""\bhref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
# A reply with a quotation begins with an empty element in place of the quoted message.
_PLACEHOLDER = re.compile(r"<quoted\b[^<>]*(?:/>|>\s*</quoted\s*>)", re.IGNORECASE)
_STRUCK_OUT = "~~"
_HIDDEN_BY_STYLE = re.compile(r"\bstyle\s*=.*(?:line-through|display\s*:\s*none|visibility\s*:\s*hidden)", re.I | re.S)
# Text in place of the beginning and the end of an element.
_MARKS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("b", "em", "font", "i", "span", "strong", "u"), ("", "")),
    **dict.fromkeys(("br", "div", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "ul"), ("\n", "\n")),
    **dict.fromkeys(("table", "tbody", "thead", "tr"), ("\n", "\n")),
    **dict.fromkeys(("td", "th"), (" ", " ")),
    **dict.fromkeys(("blockquote", "quoted"), ("\n> ", "\n")),
    **dict.fromkeys(("del", "s", "strike"), (_STRUCK_OUT, _STRUCK_OUT)),
    "code": ("`", "`"),
    "li": ("\n- ", "\n"),
    "pre": ("\n`", "`\n"),
}


class Teams(Chat):
    """Authenticated by a signature over the body. Teams waits 5 seconds."""

    name = "Teams"
    patience = 3.5

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        super().__init__(settings, source, settings.teams_people)

    def verify(self, delivery: HttpRequest, now: datetime) -> ChatCommand:
        """Check the signature over exactly these bytes, and that the message is of the last five minutes."""
        scheme, _, signed = delivery.headers.get("authorization", "").partition(" ")
        key = base64.b64decode(self._settings.teams_secret.reveal())
        mac = base64.b64encode(signatures.signature(key, delivery.unauthenticated_body)).decode("ascii")
        if not signatures.same(signed.strip(), mac) or scheme.lower() != "hmac":
            raise Unauthenticated("A valid signature is required.")
        activity = json_object(delivery.body)
        try:
            time = signatures.fresh(rfc3339.parse(text(activity, "timestamp")), now)
        except ValueError:
            raise Unauthenticated("The time of the message must be an RFC 3339 timestamp.") from None
        author, typed = member(activity, "from"), text(activity, "text")
        conversation = text(member(activity, "conversation"), "id")
        name, command = plain_text(typed)
        return ChatCommand(
            identity=(conversation, text(activity, "id") or mac),
            command=parse(command, name),
            users=people(text(author, "aadObjectId"), text(author, "id")),
            channels=_channels(activity, conversation),
            who=f"{text(author, 'name')} {text(author, 'aadObjectId') or text(author, 'id')}",
            time=time,
            ignored_because=_ignored_because(activity, author),
            in_thread=True,
            person=person(
                "teams", text(member(activity, "channelData", "tenant"), "id"), text(author, "aadObjectId").lower()
            ),
        )

    def reply(self, words: str, _command: ChatCommand) -> Answer:
        """Return a response that is a reply in the conversation."""
        return json_answer(200, {"type": "message", "text": words.replace("\n", "\n\n")})


def _channels(activity: Mapping[str, object], conversation: str) -> frozenset[str]:
    channel = text(member(activity, "channelData", "channel"), "id")
    # A conversation is one thread of a channel: the channel's id, then the message that began it.
    return people(channel, text(member(activity, "channelData"), "teamsChannelId"), conversation.partition(";")[0])


def _ignored_because(activity: Mapping[str, object], author: Mapping[str, object]) -> str:
    if activity.get("type") != "message":
        return "no message"
    return "sent by a bot" if author.get("role") == "bot" or text(author, "id").startswith("28:") else ""


def plain_text(markup: str) -> tuple[str, str]:
    """Convert the HTML of a message to text.

    Args:
        markup: the activity's `text`.

    Returns:
        The name in the mention with which the message begins, empty if it begins otherwise, and the text without that
        mention. Other mentions stay in the text as `@name`.
    """
    name: list[str] = []
    text: list[str] = []
    target, at_start = text, True
    for index, piece in enumerate(_TAG.split(_PLACEHOLDER.sub(" ", markup))):
        if index % 2 == 0:
            shown = html.unescape(piece)
        elif (tag := _NAME.match(piece.lower())) and tag[1] == "at":
            opens = piece[1] != "/"
            shown = "@" if opens and not at_start else ""
            target = name if opens and at_start else text
            at_start = at_start and opens
        else:
            shown = _mark(piece, tag[1] if tag else "")
        target.append(shown)
        # The mention itself is still the start, which ends with it.
        at_start = at_start and (target is name or not normalized(shown).strip())
    return "".join(name), "".join(text)


def _mark(tag: str, element: str) -> str:
    """Return the text in place of a tag."""
    closes = tag[1] == "/"
    if element == "a":
        # As in Slack: the address, which may have another id than the text, and the text.
        href = _HREF.search(tag)
        return ">" if closes else f"<{html.unescape(next(filter(None, href.groups()), '')) if href else ''}|"
    if element not in _MARKS:
        return tag
    mark = _MARKS[element][closes]
    return f"{mark}{_STRUCK_OUT}" if _HIDDEN_BY_STYLE.search(html.unescape(tag)) else mark


producer = Teams

"""Conversion of the HTML of a message in Microsoft Teams to text.

Code, list items, quotations, struck-out text and links get the marks that the chats without HTML use for them, so that
the grammar accepts or refuses them alike. An unknown element stays in the text, and is refused as any unknown word.
"""

from __future__ import annotations

import html
import re

from handler.inbound.webhooks.grammar import normalized

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

"""Texts from the environment as values, one parser a kind, and a reader that collects what is wrong with them.

A parser raises ValueError whose message follows the variable's name: "is no duration such as 20s". No message quotes
the value, which may be a secret in the wrong place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_SIZES = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "KIB": 1024, "MIB": 1024**2}
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_CORE_ATTRIBUTES = {
    "id",
    "source",
    "type",
    "specversion",
    "time",
    "subject",
    "datacontenttype",
    "dataschema",
    "data",
}
_OWN_EXTENSIONS = {"causationid", "correlationid", "traceparent", "tracestate"}
SMN_TOPIC = re.compile(r"urn:smn:[A-Za-z0-9_-]+:[A-Za-z0-9]+:[A-Za-z0-9_-]+", re.ASCII)
_URI_REFERENCE = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+", re.ASCII)


class Secret:
    """A text that shows itself only when asked by name."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(***)" if self._text else "Secret()"


def duration(text: str) -> timedelta:
    """`500ms`, `20s`, `15m`, `1h`, `2d`, or plain seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", text.strip(), re.ASCII)
    if match is None:
        raise ValueError("is no duration such as 20s, 15m or 1h")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > 365 * 86400:
        raise ValueError("is longer than a year")
    return timedelta(seconds=seconds)


def size(text: str) -> int:
    """`1MiB`, `512KiB`, `2MB`, or plain bytes."""
    match = re.fullmatch(r"(\d{1,12})\s*([A-Za-z]*)", text.strip(), re.ASCII)
    if match is None or match[2].upper() not in _SIZES or int(match[1]) == 0:
        raise ValueError("is no size such as 1MiB or 65536")
    return int(match[1]) * _SIZES[match[2].upper()]


def boolean(text: str) -> bool:
    """`true` or `false`, and what people write for them."""
    word = text.strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("is neither true nor false")


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser for whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"is no whole number from {low} to {high}")
        return int(text)

    return parse


def http_url(text: str) -> str:
    """An absolute http or https URL without credentials in it."""
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
    except ValueError:
        raise ValueError("is no valid URL") from None
    if not re.fullmatch(r"[\x21-\x7e]+", text.strip()):
        # urlsplit takes line breaks out, and leaves spaces in; either would fail at the first call only.
        raise ValueError("is no valid URL")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no http or https URL")
    if parts.username or parts.password:
        raise ValueError("must not carry credentials")
    return text.strip()


def smn_topic(text: str) -> str:
    """`smn:` and the URN of a topic of Open Telekom Cloud's Simple Message Notification; gives the URN."""
    urn = text.strip().removeprefix("smn:")
    if not SMN_TOPIC.fullmatch(urn):
        raise ValueError("is not of the form smn:urn:smn:<region>:<project id>:<topic>")
    return urn


def token(text: str) -> str:
    """A bearer token: what can stand in a header after `Bearer `."""
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("has characters that a bearer token cannot have")
    return text


def pair(text: str) -> tuple[str, str]:
    """`key=value`."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip() or not value.strip():
        raise ValueError("is not of the form key=value")
    return key.strip(), value.strip()


def uri_reference(text: str) -> str:
    """What a CloudEvent may have as `source`."""
    if not _URI_REFERENCE.fullmatch(text) or len(text) > 1024:
        raise ValueError("is no URI reference")
    return text


def choice(*words: str) -> Callable[[str], str]:
    """A parser for one of `words`, in any case."""

    def parse(text: str) -> str:
        found = next((word for word in words if word.lower() == text.strip().lower()), None)
        if found is None:
            raise ValueError(f"is none of {', '.join(words)}")
        return found

    return parse


def overrides(text: str) -> dict[str, str]:
    """`K_CE_OVERRIDES`: `{"extensions": {name: text}}`, or nothing at all."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    found = document.get("extensions") or {} if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ValueError('is not of the form {"extensions": {...}}')
    for name, value in found.items():
        if not re.fullmatch(r"[a-z0-9]{1,64}", name) or name in _CORE_ATTRIBUTES | _OWN_EXTENSIONS:
            raise ValueError("names an attribute that cannot be an extension here")
        if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
            raise ValueError("has an extension that is no text")
    return found


def certificates(text: str) -> str:
    """One certificate or several as PEM text."""
    import ssl

    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError("holds no certificate as PEM text") from None
    return text


def event_types(text: str) -> dict[str, str]:
    """`type; type=JMESPath`: each type with its path, or with an empty text.

    A semicolon, as a path may hold every other sign that lists are separated by.
    """
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, sign, path = (part.strip() for part in entry.partition("="))
        if not re.fullmatch(r"[\x21-\x7e]{1,1024}", name) or (sign and not path):
            raise ValueError("is not of the form type; type=JMESPath")
        if name in found:
            raise ValueError("names a type twice")
        if path:
            import jmespath

            try:
                jmespath.compile(path)
            except jmespath.exceptions.JMESPathError:
                raise ValueError("has a path that is no JMESPath") from None
        found[name] = path
    return found


class Reading:
    """One pass over the environment that collects faults instead of stopping at the first. Empty counts as unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.faults: list[str] = []

    def get(self, name: str) -> str | None:
        return self.environ.get(name, "").strip() or None

    def need(self, name: str, *values: str | None) -> None:
        if not any(values):
            self.faults.append(f"{name}: must be set for this kind of login.")

    def parts(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in (self.get(name) or "").split(",") if part.strip())

    def secrets(self, name: str) -> tuple[Secret, ...]:
        return tuple(Secret(part) for part in self.parts(name))

    def value(self, name: str, parse: Callable[[str], Any], default: Any) -> Any:
        text = self.get(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as fault:
            self.faults.append(f"{name}: {fault}.")
            return default

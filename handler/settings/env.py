"""Reading of settings from the environment: all violations are reported at once, by name, and none quotes a value.

A value in the wrong variable may be a password. A parser raises ValueError with what must be true of the value; the
message follows the variable's name: "must be a duration such as 20s".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from string import ascii_letters
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
Value = TypeVar("Value", covariant=True)
Word = TypeVar("Word", bound=str)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_SIZES = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "KIB": 1024, "MIB": 1024**2}
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_SHORTEST_SECRET = 16
_SHORTEST_KEY = 32
_PLACEHOLDER = r"changeme|password|secret|example|<.*>|\$\{.*\}|\$\(.*\)|\{\{.*\}\}"
# Kubernetes describes each service of the namespace in variables of these forms; one may be called `autostop`.
_SERVICE_LINK = r"_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"


class SettingsError(Exception):
    """The settings are not valid.

    Attributes:
        violations: one sentence each, beginning with the variable's name and without its value.
    """

    def __init__(self, *violations: str) -> None:
        super().__init__("\n".join(violations))
        self.violations = violations


def needs_extra(extra: str) -> str:
    """Return how to install a missing extra, for `Env.note`: the project is not in a package index."""
    return f"needs the extra `{extra}`: pip install '.[{extra}]' in a clone, or 'FILE.whl[{extra}]'"


class Secret:
    """A text that `repr`, `str` and `format` do not show."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(***)" if self._text else "Secret()"


class Setting(NamedTuple, Generic[Value]):
    """The declaration of one setting.

    Attributes:
        name: of the environment variable.
        parse: returns the value of a text that is not empty, or of `default`.
        description: one phrase in Markdown, for the tables.
        default: text that counts if the variable is not set; empty for none.
        unset: what counts then, in Markdown, if that is not `default`.
        targets: which of `handler.settings.TARGETS` read it; empty: those that read what its module declares.
        secret: whether the value must be kept secret.
    """

    name: str
    parse: Callable[[str], Value]
    description: str
    default: str = ""
    unset: str = ""
    targets: tuple[str, ...] = ()
    secret: bool = False

    @property
    def shown_default(self) -> str:
        """What counts if the variable is not set, in Markdown."""
        return self.unset or (f"`{self.default}`" if self.default else "none")


class For:
    """Declares settings that only these targets of a module read."""

    def __init__(self, *targets: str) -> None:
        self._targets = targets

    def __call__(
        self,
        name: str,
        parse: Callable[[str], T],
        description: str,
        default: str = "",
        *,
        unset: str = "",
        secret: bool = False,
    ) -> Setting[T]:
        """Declare a setting."""
        return Setting(name, parse, description, default, unset, self._targets, secret)


class Env:
    """One reading of the environment. A variable that is empty or blank counts as unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._read: set[str] = set()
        self._violations: list[str] = []

    def text(self, setting: Setting[Any]) -> str | None:
        """Return the text of the variable without blanks around it; None if it is unset."""
        self._read.add(setting.name)
        return self._environ.get(setting.name, "").strip() or None

    def optional(self, setting: Setting[T]) -> T | None:
        """Return the value; None if the variable is unset, or its text is not valid, which is recorded."""
        text = self.text(setting)
        if text is None:
            return None
        try:
            return setting.parse(text)
        except ValueError as violation:
            self.note(setting, str(violation))
            return None

    def value(self, setting: Setting[T]) -> T:
        """Return the value, or the default where `optional` finds none."""
        found = self.optional(setting)
        return setting.parse(setting.default) if found is None else found

    def secret(self, setting: Setting[Secret]) -> Secret:
        """Return the secret; an empty one where `optional` finds none."""
        return self.optional(setting) or Secret()

    def note(self, setting: Setting[Any], violation: str) -> None:
        """Record a violation of a setting."""
        self._violations.append(f"{setting.name} {violation}.")

    def finish(self, declared: Callable[[], Iterable[Setting[Any]]]) -> None:
        """Check that every variable with our prefix is a setting of some target, and that no violation was recorded.

        A misspelt guard would silently be off. Settings of other targets are permitted: one image and one Secret can
        serve all of them.

        Args:
            declared: lists the settings of all targets; called only if there are variables that were not read.

        Raises:
            SettingsError: with all violations.
        """
        strange = [name for name in self._environ if name.startswith("AUTOSTOP_") and name not in self._read]
        if strange:
            from difflib import get_close_matches

            known = [setting.name for setting in declared()]
            for name in sorted(set(strange).difference(known)):
                if not re.search(_SERVICE_LINK, name):
                    near = get_close_matches(name, known, 1)
                    hint = f"; the nearest is {near[0]}" if near else ""
                    self._violations.append(f"{name} must be the name of a setting{hint}.")
        if self._violations:
            raise SettingsError(*dict.fromkeys(self._violations))


def _split(text: str) -> tuple[str, str]:
    """Split a number and its unit, without a regular expression, which would have to be compiled at each start."""
    number = text.strip().rstrip(ascii_letters)
    return number.strip(), text.strip()[len(number) :]


def _is_number(text: str) -> bool:
    return len(text) <= 12 and text.isascii() and text.isdigit()


def duration(text: str) -> timedelta:
    """Parse `500ms`, `20s`, `15m`, `1h`, `2d`, or plain seconds."""
    number, unit = _split(text)
    whole_part, point, rest = number.partition(".")
    if unit not in _UNITS or not _is_number(whole_part) or (point and not _is_number(rest)):
        raise ValueError("must be a duration such as 20s, 15m or 1h")
    seconds = float(number) * _UNITS[unit]
    if seconds > 365 * 86400:
        raise ValueError("must be at most a year")
    return timedelta(seconds=seconds)


def size(text: str) -> int:
    """Parse `1MiB`, `512KiB`, `2MB`, or plain bytes."""
    number, unit = _split(text)
    if unit.upper() not in _SIZES or not _is_number(number) or int(number) == 0:
        raise ValueError("must be a size such as 1MiB or 65536")
    return int(number) * _SIZES[unit.upper()]


def boolean(text: str) -> bool:
    """Parse `true` or `false`, and what is often written for them."""
    word = text.strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("must be true or false")


def whole(low: int, high: int) -> Callable[[str], int]:
    """Make a parser for whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not _is_number(text.strip()) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def choice(*known: Word) -> Callable[[str], Word]:
    """Make a parser for one of these words, in any case."""

    def parse(text: str) -> Word:
        for word in known:
            if word.lower() == text.strip().lower():
                return word
        raise ValueError(f"must be one of {', '.join(known)}")

    return parse


def words(text: str) -> tuple[str, ...]:
    """Split a comma-separated list; empty items are left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def word_set(text: str) -> frozenset[str]:
    """Split a comma-separated list whose order does not matter."""
    return frozenset(words(text))


def pair(text: str) -> tuple[str, str]:
    """Parse `key=value`."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip() or not value.strip():
        raise ValueError("must be of the form key=value")
    return key.strip(), value.strip()


def http_url(text: str) -> str:
    """Parse an absolute http or https URL without credentials in it."""
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
    except ValueError:
        raise ValueError("must be a valid URL") from None
    if not re.fullmatch(r"[\x21-\x7e]+", text.strip()):
        # urlsplit takes line breaks out, and leaves spaces in; either would fail at the first call only.
        raise ValueError("must be a valid URL")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL")
    if parts.username or parts.password:
        raise ValueError("must not have credentials in it")
    return text.strip()


def header_value(text: str) -> str:
    """Parse a value that can be in a header, as a token or a key."""
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("must have visible ASCII characters only")
    return text


def header_secret(text: str) -> Secret:
    """Parse a secret that can be in a header, and that is issued elsewhere."""
    return Secret(header_value(text))


def long_secret(text: str) -> Secret:
    """Parse a secret of at least 16 characters that is not a placeholder of a template."""
    not_a_placeholder(text)
    if len(text) < _SHORTEST_SECRET:
        raise ValueError(f"must have at least {_SHORTEST_SECRET} characters")
    return Secret(text)


def long_secrets(text: str) -> tuple[Secret, ...]:
    """Parse a comma-separated list of such secrets."""
    not_a_placeholder(text)
    return tuple(map(long_secret, words(text)))


def signing_keys(text: str) -> tuple[Secret, ...]:
    """Parse a comma-separated list of keys that texts are signed with, each of at least 32 characters."""
    found = long_secrets(text)
    if any(len(key.reveal()) < _SHORTEST_KEY for key in found):
        raise ValueError(f"must have keys of at least {_SHORTEST_KEY} characters")
    return found


def bearer_token(text: str) -> Secret:
    """Parse a bearer token: such a secret that can be in a header."""
    not_a_placeholder(text)
    return long_secret(header_value(text))


def base64_secret(text: str) -> Secret:
    """Parse a key in base64: at least 16 bytes. The secret is the text, not the bytes."""
    from base64 import b64decode

    not_a_placeholder(text)
    try:
        key = b64decode(text, validate=True)
    except ValueError:
        raise ValueError("must be base64") from None
    if len(key) < _SHORTEST_SECRET:
        raise ValueError(f"must be of at least {_SHORTEST_SECRET} bytes")
    return Secret(text)


def not_a_placeholder(text: str) -> None:
    """Refuse the placeholder of a template in place of a secret."""
    if re.fullmatch(_PLACEHOLDER, text.strip(), re.IGNORECASE | re.DOTALL):
        raise ValueError("must be a secret, not a placeholder for one")

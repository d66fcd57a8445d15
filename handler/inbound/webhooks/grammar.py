"""The commands that people type into a chat: a closed grammar, with free text only after `because`.

A stop can cut power, so a text that is not understood as a whole asks for nothing: what the grammar does not have is
neither skipped nor taken for a remark. Before it is read, a text is brought into Unicode normalization form KC and
loses its format characters (category Cf), which are invisible and are pasted along.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from handler import rfc3339
from handler.stop.model import UUID

HELP = (
    "stop ID[, ID ...] [--dry-run] [because REASON]: stop these servers\n"
    "plan ID[, ID ...]: a dry run, which shows what a stop would do\n"
    "keep ID[, ID ...] DURATION|until TIME [because REASON]: do not stop them before then\n"
    "release ID[, ID ...]: end a keep\n"
    "approve TOKEN: approve a plan\n"
    "help: this text\n"
    "An ID is the UUID of a server, a DURATION is like 30m, 2h or 1d."
)


class Verb(StrEnum):
    """The first word of a command."""

    STOP = "stop"
    PLAN = "plan"
    KEEP = "keep"
    RELEASE = "release"
    APPROVE = "approve"
    HELP = "help"


@dataclass(frozen=True, slots=True)
class StopCommand:
    """`stop` and `plan`.

    Attributes:
        server_ids: lower case, at least one, no duplicates, in the order typed.
        dry_run: `plan`, or a stop with the option `--dry-run`.
        reason: empty if none was given.
    """

    server_ids: tuple[str, ...]
    dry_run: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KeepCommand:
    """`keep`: the servers must not be stopped for a while.

    Attributes:
        server_ids: as for a stop.
        duration: how long from now, or None.
        until: the time it ends (aware, UTC), or None; exactly one of the two is set.
        reason: empty if none was given.
    """

    server_ids: tuple[str, ...]
    duration: timedelta | None = None
    until: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseCommand:
    """`release`: end a keep."""

    server_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ApproveCommand:
    """`approve`: carry out the plan of the token."""

    token: str


@dataclass(frozen=True, slots=True)
class HelpCommand:
    """`help`, or no text at all."""


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A text that is not a command.

    Attributes:
        quoted: the part that was not understood, on one line and not long; untrusted input.
        example: a line that would be understood and would stop nothing.
    """

    quoted: str
    example: str


Command = StopCommand | KeepCommand | ReleaseCommand | ApproveCommand | HelpCommand

_EXAMPLE_ID = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"
_EXAMPLES = {
    Verb.STOP: f"stop {_EXAMPLE_ID} --dry-run because no longer needed",
    Verb.PLAN: f"plan {_EXAMPLE_ID}",
    Verb.KEEP: f"keep {_EXAMPLE_ID} 2h because tests are running",
    Verb.RELEASE: f"release {_EXAMPLE_ID}",
    Verb.APPROVE: "approve TOKEN",
    Verb.HELP: f"plan {_EXAMPLE_ID}",
}
_LONGEST_QUOTE = 60

_MARK_BEFORE_VERB = re.compile(r"[:,•-]\s*")
_VERB = re.compile(rf"(`*)({'|'.join(Verb)})\1(?:\s*:|(?!\S))", re.IGNORECASE)
_CODE = re.compile(r"(`+)([^`]+)\1")
_BECAUSE = re.compile(r"(?<!\S)because(?!\S)", re.IGNORECASE)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_TOKEN = re.compile(r"[A-Za-z0-9._~=-]{1,2000}")

# What may enclose an id or all of them, and what closes it: code marks, brackets, and the quotation marks
# of English, French, German and its neighbours.
_CLOSING = {
    "`": "`",
    "(": ")",
    "[": "]",
    "{": "}",
    "<": ">",
    '"': '"',
    "'": "'",
    "\u201c": "\u201d",
    "\u201d": "\u201d",
    "\u201e": "\u201c\u201d",
    "\u2018": "\u2019",
    "\u2019": "\u2019",
    "\u201a": "\u2018\u2019",
    "\u00ab": "\u00bb",
    "\u00bb": "\u00ab\u00bb",
    "\u2039": "\u203a",
    "\u203a": "\u2039\u203a",
}
_BRACKETS = frozenset("([{<")
_OPENING = re.escape("".join(_CLOSING.keys() - {"<"}))
_ITEM = re.compile(
    # A quotation in a chat begins with `>`, so no space is allowed between `<` and what it encloses.
    rf"(?:(?P<bullet>[-•*]|[0-9]{{1,3}}[.)])\s+)?(?P<opening>(?:[{_OPENING}]\s*|<){{0,8}})(?P<id>{UUID.pattern})",
    re.ASCII | re.IGNORECASE,
)
_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")
_MOST_ENCLOSINGS = 6

# In the name of a command: nothing but dry runs can be asked for.
_ONLY_PLANS = re.compile(r"plan(?![a-z])|dry[^a-z]*run")
# Latin beside Greek, Cyrillic or Armenian letters in one word: one may be taken for another. Ohm and micro are signs.
_FOREIGN = "[\u0370-\u03a8\u03aa-\u03bb\u03bd-\u058f]"
_MIXED_ALPHABETS = re.compile(f"[A-Za-z]{_FOREIGN}|{_FOREIGN}[A-Za-z]")


class _UnknownError(Exception):
    """The text has a part that the grammar does not have."""


def normalized(text: str) -> str:
    """Return the text in Unicode normalization form KC, without format characters."""
    return "".join(char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")


def parse(text: str, name: str = "", *, begins_with_name: bool = False) -> Command | NotUnderstood:
    """Parse what was typed.

    Args:
        text: as typed, markup of the chat already turned into text.
        name: the name of the command, trigger word or mention. If it has a verb as a whole word (`/bms-stop`), that
            verb may be left out, and of the others only `plan` and `help` are taken. With `plan` or `dry-run` in it,
            only dry runs can be asked for.
        begins_with_name: whether the chat leaves the name in the text; then the text must begin with it.
    """
    name = normalized(name).strip().lower()
    line = normalized(text).strip()
    only_plans = bool(_ONLY_PLANS.search(name))
    verbs = (set(re.findall("[a-z]+", name)) & set(Verb)) - {Verb.HELP}
    if only_plans:
        allowed = {Verb.PLAN, Verb.HELP}
        implied = Verb.PLAN if verbs <= {Verb.STOP, Verb.PLAN} else None
    else:
        allowed = {Verb(verb) for verb in verbs} | {Verb.PLAN, Verb.HELP} if verbs else set(Verb)
        implied = Verb(verbs.pop()) if len(verbs) == 1 else None
    example = implied or (Verb.PLAN if only_plans else Verb.STOP)
    try:
        if begins_with_name:
            line = _after(name, line)
        typed, rest = _verb(line)
        verb = typed or (implied if rest else Verb.HELP)
        if verb is None:
            raise _UnknownError(rest)
        if verb not in allowed:
            raise _UnknownError(line)
        example = verb
        return _command(verb, rest)
    except _UnknownError as error:
        return NotUnderstood(_shortened(str(error) or line), _EXAMPLES[example])


def _after(name: str, line: str) -> str:
    """Return the line after the name with which it must begin."""
    rest = line[len(name) :]
    joined = name[-1:].isalnum() and rest[:1].isalnum()
    if joined or line[: len(name)].lower() != name:
        raise _UnknownError(line)
    return rest.strip()


def _verb(line: str) -> tuple[Verb | None, str]:
    """Return the verb, None if the line does not begin with one, and the rest of the line."""
    line = _without_code_marks(line)
    mark = _MARK_BEFORE_VERB.match(line)
    inner = _without_code_marks(line[mark.end() :] if mark else line)
    found = _VERB.match(inner)
    if found:
        return Verb(found[2].lower()), inner[found.end() :].strip()
    # A hyphen or bullet here belongs to the first of a list of ids.
    return None, inner if mark and mark[0][0] in ":," else line


def _command(verb: Verb, rest: str) -> Command:
    match verb:
        case Verb.STOP:
            rest, reason = _reason(rest)
            words = rest.rsplit(maxsplit=1)
            dry_run = len(words) == 2 and _is_dry_run(_without_code_marks(words[1]))
            return StopCommand(_server_ids(words[0] if dry_run else rest), dry_run, reason)
        case Verb.PLAN:
            return StopCommand(_server_ids(rest), dry_run=True)
        case Verb.KEEP:
            return _keep(*_reason(rest))
        case Verb.RELEASE:
            return ReleaseCommand(_server_ids(rest))
        case Verb.APPROVE:
            token = _without_code_marks(rest)
            if not _TOKEN.fullmatch(token):
                raise _UnknownError(rest or verb)
            return ApproveCommand(token)
        case Verb.HELP:
            if rest:
                raise _UnknownError(rest)
            return HelpCommand()
        case _:
            assert_never(verb)


def _keep(rest: str, reason: str) -> KeepCommand:
    words = rest.rsplit(maxsplit=2)
    last = _without_code_marks(words[-1]) if words else ""
    if duration := _DURATION.fullmatch(last):
        ids = _server_ids(rest[: -len(words[-1])])
        return KeepCommand(ids, duration=timedelta(**{_UNITS[duration[2]]: int(duration[1])}), reason=reason)
    if len(words) == 3 and words[1].lower() == "until":
        try:
            until = rfc3339.parse(last)
        except ValueError:
            raise _UnknownError(last) from None
        return KeepCommand(_server_ids(words[0]), until=until, reason=reason)
    raise _UnknownError(rest or Verb.KEEP)


def _reason(rest: str) -> tuple[str, str]:
    """Return what precedes `because`, and the reason after it; empty if there is none.

    Raises:
        _UnknownError: the reason is empty, or has something in it that may be meant as an id or as a dry run.
    """
    found = _BECAUSE.search(rest)
    if not found:
        return rest, ""
    reason = rest[found.end() :].strip()
    # Without accents, strokes and invisible characters between the letters.
    plain = unicodedata.normalize("NFKD", reason).encode("ascii", "ignore").decode().lower()
    _, dry, after = plain.partition("dry")
    suspect = _like_an_id(plain) or ("dry run" if dry and "run" in after else "") or _mixed_alphabets(reason)
    if suspect or not reason:
        raise _UnknownError(suspect or found[0])
    return rest[: found.start()].rstrip(), reason


def _like_an_id(reason: str) -> str:
    """Return the first part of a reason that may be a part of an id, with a digit and a letter; or empty."""
    for found in re.finditer("[0-9a-f]{4,}(?:-[0-9a-f]{4,})*", reason):
        digits = found[0].replace("-", "")
        if len(digits) >= 8 and not digits.isalpha() and not digits.isdigit():
            return found[0]
    found_id = UUID.search(reason)
    return found_id[0] if found_id else ""


def _mixed_alphabets(reason: str) -> str:
    return next((word for word in reason.split() if _MIXED_ALPHABETS.search(word)), "")


def _server_ids(text: str) -> tuple[str, ...]:
    """Return the ids of a list of ids alone, which may be enclosed as a whole.

    Raises:
        _UnknownError: there is anything else in it, or nothing.
    """
    text = text.strip()
    for _ in range(_MOST_ENCLOSINGS):
        try:
            return _items(text)
        except _UnknownError:
            if len(text) < 2 or text[-1] not in _CLOSING.get(text[0], ""):
                raise
        text = text[1:-1].strip()
    raise _UnknownError(text)


def _items(text: str) -> tuple[str, ...]:
    """Return the ids of a list that is not enclosed as a whole.

    Raises:
        _UnknownError: with the rest of the list from where it is not understood.
    """
    ids: dict[str, None] = {}
    forms: set[tuple[bool, bool]] = set()
    position, new_line = 0, True
    while item := _ITEM.match(text, position):
        end = _closed(text, item.end(), item["opening"])
        # Brackets may hold a remark about the id before them, and a hyphen may mean "without": either they are
        # at each id or at none.
        forms.add((bool(item["bullet"]), not _BRACKETS.isdisjoint(item["opening"])))
        if end is None or len(forms) > 1 or (item["bullet"] and not new_line):
            break
        ids[item["id"].lower()] = None
        if end == len(text):
            return tuple(ids)
        separator = _SEPARATOR.match(text, end)
        if not separator:
            break
        position, new_line = separator.end(), "\n" in separator[0]
    raise _UnknownError(text[position:])


def _closed(text: str, position: int, opening: str) -> int | None:
    """Return where the text continues after everything that was opened is closed in turn; None if it is not."""
    for mark in reversed("".join(opening.split())):
        if mark != "<":
            while text[position : position + 1].isspace():
                position += 1
        if position == len(text) or text[position] not in _CLOSING[mark]:
            return None
        position += 1
    return position


def _without_code_marks(text: str) -> str:
    """Return the text without code marks around it, if it is one piece of code."""
    found = _CODE.fullmatch(text)
    return found[2].strip() if found else text


def _is_dry_run(word: str) -> bool:
    """Return whether it is `dry-run` or `dryrun` after any number of dashes, as chats make one dash of two hyphens."""
    with_hyphens = "".join("-" if unicodedata.category(char) == "Pd" or char == "\u2212" else char for char in word)
    return bool(re.fullmatch("-*dry-?run", with_hyphens, re.IGNORECASE))


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_QUOTE else f"{line[: _LONGEST_QUOTE - 1]}…"

"""The chat grammar: what it understands, and what no text can achieve."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.inbound.webhooks.grammar import (
    ApproveCommand,
    Command,
    HelpCommand,
    KeepCommand,
    NotUnderstood,
    ReleaseCommand,
    StopCommand,
    parse,
)
from tests.inbound.webhooks.chat_texts import TEXTS
from tests.inbound.webhooks.receiver import ONE, THREE, TWO

IDS = (ONE, TWO, THREE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"stop {ONE}", StopCommand((ONE,))),
        (f"STOP\t{ONE.upper()}\n{TWO} ", StopCommand((ONE, TWO))),
        (f"stop {TWO}, {ONE}, {TWO}", StopCommand((TWO, ONE))),
        (f"stop {ONE} because  it's\n5 \u2013 too hot ", StopCommand((ONE,), reason="it's\n5 \u2013 too hot")),
        (f"stop {ONE} because because", StopCommand((ONE,), reason="because")),
        (f"stop {ONE} --dry-run because idle", StopCommand((ONE,), dry_run=True, reason="idle")),
        (f"plan {ONE} {TWO}", StopCommand((ONE, TWO), dry_run=True)),
        (f"keep {ONE} 2h", KeepCommand((ONE,), duration=timedelta(hours=2))),
        (f"keep {ONE}, {TWO} 30m because tests", KeepCommand((ONE, TWO), timedelta(minutes=30), reason="tests")),
        (f"keep ({ONE} {TWO}) `1d`", KeepCommand((ONE, TWO), duration=timedelta(days=1))),
        (
            f"keep {ONE} until 2026-12-24T08:00:00+01:00",
            KeepCommand((ONE,), until=datetime(2026, 12, 24, 7, tzinfo=UTC)),
        ),
        (f"Release: {ONE};{TWO}", ReleaseCommand((ONE, TWO))),
        ("approve v1.K1.aB-_9=", ApproveCommand("v1.K1.aB-_9=")),
        ("approve `v1.k1`", ApproveCommand("v1.k1")),
        ("help", HelpCommand()),
        ("Help:", HelpCommand()),
        ("", HelpCommand()),
        (" \u200b\n", HelpCommand()),
    ],
)
def test_a_command_is_understood(text: str, expected: Command) -> None:
    """Each verb with what belongs to it."""
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        (f"stop {ONE} too hot", "too hot"),
        (f"stop {ONE} not {TWO}", f"not {TWO}"),
        (f"stop {ONE} because {TWO} is hot", TWO),
        (f"stop {ONE} because this is a dry   run", "dry run"),
        (f"stop {ONE} because", "because"),
        (f"stop {ONE},", f"stop {ONE},"),
        ("stop", "stop"),
        ("please stop\nall", "please stop all"),
        (f"keep {ONE}", ONE),
        (f"keep {ONE} 0h", f"{ONE} 0h"),
        (f"keep {ONE} 2H", f"{ONE} 2H"),
        (f"keep {ONE} 1w", f"{ONE} 1w"),
        (f"keep {ONE} 999999d", f"{ONE} 999999d"),
        (f"keep {ONE} \u0663h", f"{ONE} \u0663h"),
        (f"keep {ONE} until 2026-12-24T08:00:00", "2026-12-24T08:00:00"),
        (f"keep {ONE} until tomorrow", "tomorrow"),
        (f"keep {ONE} --dry-run 2h", "--dry-run"),
        (f"keep {ONE} 2h because of {TWO}", TWO),
        ("keep 2h", "keep 2h"),
        ("keep", "keep"),
        (f"release {ONE} because done", "because done"),
        ("approve", "approve"),
        ("approve one two", "one two"),
        ("x" * 70, "x" * 59 + "\u2026"),
    ],
)
def test_what_is_not_understood_is_quoted(text: str, quoted: str) -> None:
    """From where it is not understood, on one line, and short."""
    found = parse(text)
    assert isinstance(found, NotUnderstood)
    assert found.quoted == quoted


@pytest.mark.parametrize("verb", ["stop", "plan", "keep", "release", "approve", "help", "halt"])
@pytest.mark.parametrize("name", ["", "/bms-stop", "/bms-plan", "/bms-keep", "/bms-keep-dry-run"])
def test_the_example_is_understood_and_stops_nothing(verb: str, name: str) -> None:
    """Also if it is copied unchanged."""
    found = parse(f"{verb} ?", name)
    assert isinstance(found, NotUnderstood)
    example = parse(found.example, name)
    assert not isinstance(example, NotUnderstood)
    assert not isinstance(example, StopCommand) or example.dry_run


# --- texts that follow the grammar


QUOTES = "\u201c\u201d \u2018\u2019 \u201e\u201c \u201a\u2018 \u00ab\u00bb \u00bb\u00ab \u2039\u203a \u203a\u2039"
PAIRS = ("()", "[]", "{}", '""', "''", "``", *QUOTES.split())
REASONS = (
    "idle",
    "too hot",
    "no longer needed",
    "OPS-1234",
    "since 2026-11-20",
    "it's 5 \u2013 ok",
    "(weekend)",
    "plan",
)
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u202e\u180e"


@dataclass(frozen=True)
class Typed:
    """A text and the command that it is."""

    text: str
    command: Command
    name: str = ""


def _noise(draw: st.DrawFn, text: str) -> str:
    """The same text with what is pasted along: invisible characters, no-break spaces, full-width letters."""
    places = draw(st.lists(st.tuples(st.integers(0, len(text)), st.sampled_from(INVISIBLE)), max_size=4))
    for at, char in places:
        text = text[:at] + char + text[at:]
    if draw(st.booleans()):
        text = text.replace(" ", draw(st.sampled_from(["\u00a0", "\u3000", "\u2003 "])))
    if draw(st.integers(0, 4)) == 0:
        text = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)
    return text


def _any_case(draw: st.DrawFn, word: str) -> str:
    return draw(st.sampled_from([word, word.upper(), word.capitalize()]))


@st.composite
def id_lists(draw: st.DrawFn) -> tuple[str, tuple[str, ...]]:
    """A list of ids in any of its forms, and the ids."""
    ids = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=4))
    written = [draw(st.sampled_from([id_, id_.upper()])) for id_ in ids]
    form = draw(st.sampled_from(["plain", "list", "each", "all"]))
    if form == "each":
        pair = draw(st.sampled_from(PAIRS))
        written = [f"{pair[0]}{id_}{pair[1]}" for id_ in written]
    if form == "list":
        bullet = draw(st.sampled_from(["- ", "\u2022 ", "* ", "1. "]))
        separator = draw(st.sampled_from(["\n", ",\n"]))
        text = "\n" + separator.join(bullet + id_ for id_ in written)
    else:
        text = written[0]
        for id_ in written[1:]:
            text += draw(st.sampled_from([" ", ", ", ",", ";", " ; ", "\n", "\t"])) + id_
    if form == "all":
        opening, closing = draw(st.sampled_from([*PAIRS, ("```\n", "\n```"), ('["', '"]')] if len(ids) == 1 else PAIRS))
        text = f"{opening}{text}{closing}"
    return text, tuple(dict.fromkeys(ids))


FLAGS = ("--dry-run", "\u2014dry-run", "\u2013dry-run", "dry-run", "DRYRUN", "\u2212\u2e3adryrun", "`--dry-run`")


@st.composite
def commands(draw: st.DrawFn, *, real_stops: bool = False) -> Typed:
    """A text that follows the grammar.

    Args:
        real_stops: only stops that are not dry runs.
    """
    listed, ids = draw(id_lists())
    reason = draw(st.sampled_from(("", *REASONS)))
    because = f" {_any_case(draw, 'because')} {reason}" if reason else ""
    verb = draw(st.sampled_from(["stop"] if real_stops else ["stop", "stop", "plan", "keep", "release"]))
    tail = because
    command: Command
    match verb:
        case "stop":
            flag = draw(st.sampled_from(("",) if real_stops else ("", "", "", *FLAGS)))
            tail = (f" {flag}" if flag else "") + because
            command = StopCommand(ids, bool(flag), reason)
        case "plan":
            tail, command = "", StopCommand(ids, dry_run=True)
        case "keep":
            minutes = draw(st.integers(1, 99999))
            tail, command = f" {minutes}m{because}", KeepCommand(ids, timedelta(minutes=minutes), reason=reason)
        case _:
            tail, command = "", ReleaseCommand(ids)
    name = draw(st.sampled_from(["", "/bms", f"/bms-{verb}"]))
    if verb in name and draw(st.booleans()):
        text = f"{listed}{tail}"
    else:
        gap = "" if listed.startswith("\n") else " "
        before = draw(st.sampled_from(["", "", ": ", ", ", "- ", "\u2022 ", ":"]))
        text = f"{before}{_any_case(draw, verb)}{draw(st.sampled_from(['', ':', ' :']))}{gap}{listed}{tail}"
        if "`" not in text and draw(st.integers(0, 3)) == 0:
            text = f"`{text}`"
    return Typed(_noise(draw, text), command, name)


@given(commands())
def test_every_text_that_follows_the_grammar_is_understood(typed: Typed) -> None:
    """In any typography."""
    expected = typed.command
    if isinstance(expected, StopCommand | KeepCommand) and expected.reason:
        found = parse(typed.text, typed.name)
        assert isinstance(found, StopCommand | KeepCommand)
        # Which spaces and dashes a reason has is not its meaning.
        assert found.reason.split() == unicodedata.normalize("NFKC", expected.reason).split()
        typed = Typed(typed.text, replace(expected, reason=found.reason), typed.name)
    assert parse(typed.text, typed.name) == typed.command


@given(commands())
def test_a_command_written_out_is_understood_as_the_same_command(typed: Typed) -> None:
    """What was understood can be repeated as a line of the grammar."""
    found = parse(typed.text, typed.name)
    assert not isinstance(found, NotUnderstood)
    assert parse(_written(found)) == found


def _written(command: Command) -> str:
    match command:
        case StopCommand(ids, dry_run, reason):
            return f"stop {', '.join(ids)}{' --dry-run' * dry_run}{' because ' * bool(reason)}{reason}"
        case KeepCommand(ids, duration, None, reason):
            assert duration is not None
            minutes = duration // timedelta(minutes=1)
            return f"keep {' '.join(ids)} {minutes}m{' because ' * bool(reason)}{reason}"
        case ReleaseCommand(ids):
            return f"release {';'.join(ids)}"
    raise AssertionError(command)


# --- texts that do not


REMARKS = (
    "too hot",
    "and",
    "&",
    "please",
    "idle",
    "ci-08",
    "ticket 5c9fd0d6",
    "5c9fd0d6-2f3b",
    "\u2026",
    "...",
    "because",
)
NEGATIONS = ("not", "except", "but not", "don't", "no, wait", "keep", "!", "~", "-", "must stay on", "is off already")
DRY_RUNS = (
    "--dry-run",
    "\u2014dry-run",
    "dry-run",
    "dry run",
    "--dry_run",
    "dry_run=true",
    "\u00ab--dry-run\u00bb",
    "\u201e--dry-run\u201c",
    "\u00b4--dry-run\u00b4",
    "dry\u200b-run",
    "dry\u00adrun",
    "dry\nrun",
    "\uff0d\uff0d\uff44\uff52\uff59\uff0d\uff52\uff55\uff4e",
    "d\u0335ry-run",
    "DRY\u2011RUN?",
    "dry-run\u2026",
    "(as dry-run)",
    "no dry-run",
    "dry it, then run it",
)
MARKS = (*"()[]`\"'\u201e\u201c\u201d\u00ab\u00bb<>*|", "```", "~~")
GLUE = ("", " ", " ", " ", ", ", ",", ";", "\n", "\n- ", "\n> ", "\u200b", "\u00a0", ": ", "/", ".")
NAMES = ("", "/bms", "/bms-stop", "/bms-plan", "/bms-stop-dry-run")
ALL_IDS = (*IDS, ONE.upper(), f"{TWO[:9]}\u200b{TWO[9:]}", TWO[:-1], TWO.replace("-", ""), f"{THREE}0", f"x{THREE}")

_words = st.sampled_from(
    [*ALL_IDS, *ALL_IDS, "stop", "plan", "stop", "because", *REMARKS, *NEGATIONS, *DRY_RUNS, *MARKS, *INVISIBLE]
)


def _as_read(text: str) -> str:
    """What a person sees, written down without the code under test."""
    seen = unicodedata.normalize("NFKC", text)
    return "".join(char for char in seen if unicodedata.category(char) != "Cf")


def _cannot_stop_more_than_it_lists(text: str, name: str) -> None:
    """Assert of a text that it is not a stop, or a dry run, or a stop of the ids that stand whole in its list."""
    found = parse(text, name)
    if not isinstance(found, StopCommand) or found.dry_run:
        return
    seen = _as_read(text)
    without_marks = "".join(char for char in unicodedata.normalize("NFD", seen) if not unicodedata.combining(char))
    assert not re.search("dry.*run", without_marks, re.IGNORECASE | re.DOTALL)
    listed, because, reason = _split_at_because(seen)
    # Nothing but the verb, ids, and what may stand around and between them.
    tokens = [
        token
        for token in re.split(r"[\s,;:()\[\]{}<\"'`\u2018-\u201f\u00ab\u00bb\u2039\u203a\u2022]+", listed)
        if token
    ]
    # A list item may begin with a dash, a star, or a number.
    marks = re.compile(r"[-*>]|\d{1,3}\.?")
    tokens = [token.rstrip(">").lower() for token in tokens if not marks.fullmatch(token)]
    if tokens[0] == "stop":
        tokens = tokens[1:]
    assert tuple(dict.fromkeys(tokens)) == found.server_ids
    assert set(found.server_ids) <= set(IDS)
    assert not re.search(r"(?:^|\n)\s*>", listed)
    assert because or not reason
    runs = re.findall("[0-9a-f]{8,}", reason.lower())
    assert not any(re.search("[0-9]", run) and re.search("[a-f]", run) for run in runs)


def _split_at_because(seen: str) -> tuple[str, str, str]:
    found = re.search(r"\sbecause\s", seen, re.IGNORECASE)
    return (seen[: found.start()], found[0], seen[found.end() :]) if found else (seen, "", "")


@settings(max_examples=300)
@given(st.lists(st.tuples(_words, st.sampled_from(GLUE)), max_size=12), st.sampled_from(NAMES), st.booleans())
def test_no_text_stops_what_it_does_not_list(words: list[tuple[str, str]], name: str, verb_first: bool) -> None:
    """Words, marks and noise in any order."""
    text = "".join(part for word in words for part in word)
    _cannot_stop_more_than_it_lists(f"stop {ONE} {text}" if verb_first else text, name)


@settings(max_examples=200)
@given(commands(real_stops=True), st.data())
def test_nothing_added_to_a_command_makes_it_stop_more(typed: Typed, data: st.DataObject) -> None:
    """One or two things put anywhere into a text that follows the grammar."""
    words = re.split("(\\s+)", typed.text)
    for _ in range(data.draw(st.integers(1, 2))):
        # Also in the middle of a word, but more often between two.
        at, inside = data.draw(st.integers(0, len(words))), data.draw(st.integers(0, 3)) == 0
        added = [data.draw(st.sampled_from(GLUE)), data.draw(_words), data.draw(st.sampled_from(GLUE))]
        if inside and at < len(words):
            cut = data.draw(st.integers(0, len(words[at])))
            words[at : at + 1] = [words[at][:cut], *added, words[at][cut:]]
        else:
            words[at:at] = added
    text = "".join(words)
    _cannot_stop_more_than_it_lists(text, data.draw(st.sampled_from([typed.name, *NAMES])))


@given(commands(real_stops=True), st.sampled_from(DRY_RUNS), st.sampled_from(GLUE), st.data())
def test_a_command_with_something_like_a_dry_run_in_it_stops_nothing(
    typed: Typed, dry_run: str, glue: str, data: st.DataObject
) -> None:
    """Wherever it is, in the reason as well."""
    words = re.split("(\\s+)", typed.text)
    at = data.draw(st.integers(0, len(words)))
    text = "".join([*words[:at], glue, dry_run, glue, *words[at:]])
    found = parse(text, typed.name)
    assert not isinstance(found, StopCommand) or found.dry_run


@given(
    st.text() | st.sampled_from([text for text, _ in TEXTS]),
    st.text(max_size=12) | st.sampled_from(NAMES),
    st.booleans(),
)
def test_no_text_and_no_name_raises(text: str, name: str, begins_with_name: bool) -> None:
    """And what is quoted of it is one short line."""
    found = parse(text, name, begins_with_name=begins_with_name)
    if isinstance(found, NotUnderstood):
        assert found.quoted or not _as_read(text).strip()
        assert len(found.quoted) <= 60
        assert "\n" not in found.quoted


@pytest.mark.parametrize("filler", ["dry", "`", "-", "because ", " ", f"({ONE} ", "<", "5c9f-", "\u201e", f"{ONE},"])
def test_a_long_text_is_read_in_a_moment(filler: str) -> None:
    """With a wide margin: the time must not grow with the square of the length."""
    started = datetime.now(UTC)
    parse(f"stop {ONE} {filler * (50_000 // len(filler))} because {filler * (50_000 // len(filler))}")
    assert datetime.now(UTC) - started < timedelta(seconds=20)

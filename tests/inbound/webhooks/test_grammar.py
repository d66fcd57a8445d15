"""What people type: a stop is a power cut, so a slip of the hand is never one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.inbound.webhooks.grammar import Command, Misunderstood, parse
from tests.inbound.webhooks.scene import ONE, THREE, TWO


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"stop {ONE}", Command((ONE,), False, "")),
        (f"  STOP\t{ONE.upper()}\n{TWO} ", Command((ONE, TWO), False, "")),
        (f"stop {ONE} {TWO} {ONE}", Command((ONE, TWO), False, "")),
        (f"stop `{ONE}`, '{TWO}', <{THREE}>.", Command((ONE, TWO, THREE), False, "")),
        (f"stop\u00a0{ONE}", Command((ONE,), False, "")),
        (f"stop {ONE} idle since 2026-11-20 18:00", Command((ONE,), False, "idle since 2026-11-20 18:00")),
        (f"stop {ONE} - it's 5 \u2013 too hot", Command((ONE,), False, "- it's 5 \u2013 too hot")),
        (f"stop {ONE} state-of-the-art OPS-1234", Command((ONE,), False, "state-of-the-art OPS-1234")),
        (f"plan {ONE}", Command((ONE,), True, "")),
        (f"Plan {ONE} {TWO} tonight", Command((ONE, TWO), True, "tonight")),
        (f"stop {ONE} --dry-run", Command((ONE,), True, "")),
        (f"stop --dry-run {ONE} {TWO}", Command((ONE, TWO), True, "")),
        (f"stop {ONE} --dry-run {TWO} why not", Command((ONE, TWO), True, "why not")),
        (f"stop {ONE} too hot --dry-run", Command((ONE,), True, "too hot")),
        (f"plan {ONE} --dry-run", Command((ONE,), True, "")),
    ],
)
def test_a_command_is_understood(text: str, expected: Command) -> None:
    """Verb, ids, flag wherever it stands, and the rest is the reason."""
    assert parse(text) == expected


@pytest.mark.parametrize(
    "flag",
    [
        "--dry-run",
        "\u2014dry-run",
        "\u2013dry\u2011run",
        "-dry-run",
        "--dryrun",
        "--DRY-RUN",
        "--dry_run",
        "dry-run",
        "`--dry-run`",
    ],
)
def test_a_rehearsal_is_understood_however_its_dashes_came_out(flag: str) -> None:
    """A phone that makes one dash of two must not make a power cut of a rehearsal."""
    assert parse(f"stop {ONE} {flag}") == Command((ONE,), True, "")


@pytest.mark.parametrize("text", ["", "  ", "help", "HELP", "help me", f"help {ONE}"])
def test_help_is_given(text: str) -> None:
    """Also to who types nothing."""
    assert parse(text) == Misunderstood()


@pytest.mark.parametrize(
    "text",
    [
        "halt",
        f"start {ONE}",
        f"stopp {ONE}",
        f"kill {ONE}",
        ONE,
        f"please stop {ONE}",
        "stop",
        "stop all",
        "stop bms-01",
        "plan",
        "stop --dry-run",
        f"stop all {ONE}",
        f"stop {ONE} and {TWO}",
        f"stop {ONE} because {TWO} replaced it",
        f"stop {ONE} {TWO[:-1]}",
        f"stop {ONE} {TWO}0",
        f"stop {ONE} {TWO[:23]}",
        f"stop {ONE} {TWO[:8]}",
        f"stop {ONE} too hot, and {TWO[:-1]}",
        f"stop {ONE} {TWO.replace('-', '')}",
        f"stop {ONE} {TWO.replace('-', chr(0x2013))}",
        f"stop {ONE} {TWO.replace('c', 'o', 1)}",
        f"stop {ONE}{TWO}",
        f"stop {ONE} --dry",
        f"stop {ONE} --dry run",
        f"stop {ONE} dry run",
        f"stop {ONE} --dry-run=false",
        f"stop {ONE} \u2014force",
        f"stop {ONE} -n",
        f"stop {ONE} --whatif",
    ],
)
def test_what_is_no_command_is_explained(text: str) -> None:
    """An unknown word, no server, an id that is none or stands too late, an option that does not exist."""
    found = parse(text)
    assert isinstance(found, Misunderstood)
    assert found.why


@pytest.mark.parametrize("name", ["/bms-stop", "stop", "/STOP", "stop:", "bms stop"])
def test_a_command_called_stop_needs_no_verb(name: str) -> None:
    """Ids alone are enough where the name says it; a verb still counts."""
    assert parse(f"{ONE} {TWO} why", name) == Command((ONE, TWO), False, "why")
    assert parse(f"stop {ONE}", name) == Command((ONE,), False, "")
    assert parse(f"plan {ONE}", name) == Command((ONE,), True, "")
    assert parse("", name) == Misunderstood()
    assert isinstance(parse(f"now {ONE}", name), Misunderstood)


@pytest.mark.parametrize("name", ["/bms", "/autostop", "nonstop", "", "/stop-plan"])
def test_any_other_command_needs_its_verb(name: str) -> None:
    """A server's id alone says nothing about what to do with it."""
    assert isinstance(parse(ONE, name), Misunderstood)


def test_a_command_called_plan_rehearses() -> None:
    """The name's verb is as good as a typed one."""
    assert parse(ONE, "/bms-plan") == Command((ONE,), True, "")


@given(st.text(), st.sampled_from(["", "/bms-stop", "/bms"]))
def test_no_text_surprises_it(text: str, name: str) -> None:
    """Whatever is typed is understood or not, and nothing else; and without an id there is nothing to stop."""
    found = parse(text, name)
    assert isinstance(found, Misunderstood) or found.server_ids


@given(st.lists(st.sampled_from([ONE, TWO, "--dry-run", "why", "-", "2026-11-20", "stop", "plan"])))
def test_a_rehearsal_never_becomes_a_stop(words: list[str]) -> None:
    """Wherever the flag stands."""
    found = parse(f"stop {' '.join(words)}")
    if isinstance(found, Command):
        assert found.dry_run == ("--dry-run" in words)
        assert set(found.server_ids) == {ONE, TWO} & set(words)

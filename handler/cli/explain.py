"""`bms-autostop explain`: the meaning of a word of a result, a log line or a problem document, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from handler.cli.exit_codes import CommandError, Exit
from handler.terminal import terminal_width, wrap

_PACKAGE = Path(__file__).parent.parent
_ACTION = "what to do"
# The column of the words, the one beside it, and the kind of the word with what is in that.
_KINDS = {
    "reason": ("outcome", "reason of the outcome {}"),
    "keep reason": ("outcome", "reason of the outcome {} of a keep"),
    "refusal": ("", "refusal of the event as a whole"),
    "problem": ("answer", "problem, answered with {}"),
    "failure": ("", "failure of a call"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of one of the runbook's tables, for one of its words.

    Attributes:
        kind: `reason`, `keep reason`, `refusal`, `problem` or `failure`.
        word: such as `already-stopping`.
        beside: the outcome of a reason, the HTTP status of a problem; else empty.
        action: what to do.
    """

    kind: str
    word: str
    beside: str
    action: str


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    del ctx, param
    words = dict.fromkeys(entry.word for entry in entries())
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


@click.command(epilog="Exit code: 0, or 2 if the word is not known.")
@click.argument("word", shell_complete=_complete)
def explain(word: str) -> int:
    """Say what a reason, refusal or problem means, and what to do.

    WORD is such as already-stopping, too-old or budget-spent: what a row of a result, a log line or a problem document
    has as its `reason`, `refusal` or `problem`, or as the `failure` of its `cause`.
    """
    known = entries()
    # The type of a problem document, which ends in the word, is accepted, too.
    named = re.search(r"[a-z]+(-[a-z]+)*$", word.strip().lower())
    wanted = named[0] if named else word
    found = [entry for entry in known if entry.word == wanted]
    if not found:
        near = get_close_matches(wanted, {entry.word for entry in known}, n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}?" if near else "Known words are in the runbook, deploy/README.md."
        raise CommandError(Exit.USAGE, f"Not a reason, refusal or problem: {word!r}.", [hint])
    width = terminal_width()
    for entry in found:
        click.secho(f"{entry.word} ({_KINDS[entry.kind][1].format(entry.beside)})", bold=True)
        for text in (_meaning(entry), entry.action.replace("`", "")):
            click.echo("\n".join(wrap(text, width, "  ")))
    return Exit.OK


def entries() -> tuple[Entry, ...]:
    """Read the runbook, `deploy/README.md`: inside the package once it is installed, beside it in a checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for place in (_PACKAGE / "_deploy" / "README.md", _PACKAGE.parent / "deploy" / "README.md"):
        if place.is_file():
            return tuple(_parse(place.read_text(encoding="utf-8").splitlines()))
    raise FileNotFoundError("the runbook deploy/README.md is not installed")


def _parse(lines: Sequence[str]) -> Iterator[Entry]:
    header: list[str] = []
    for line in lines:
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
            continue
        row = dict(zip(header, cells, strict=False))
        kind = next((kind for kind in _KINDS if kind in row), None)
        if kind is None or _ACTION not in row:
            continue
        for word in re.findall(r"`([a-z-]+)`", row[kind]):
            yield Entry(kind, word, row.get(_KINDS[kind][0], ""), row[_ACTION])


def _meaning(entry: Entry) -> str:
    """Return the meaning of the word in one sentence; empty if it is in the runbook only."""
    from handler.keep.model import Reason as KeepReason
    from handler.stop.model import Reason, Refusal

    meanings: dict[str, Mapping[str, str]] = {
        "reason": {reason: reason.meaning for reason in Reason},
        "keep reason": {reason: reason.meaning for reason in KeepReason},
        "refusal": {refusal: refusal.meaning for refusal in Refusal},
        "problem": dict(_problems()),
    }
    return meanings.get(entry.kind, {}).get(entry.word, "")


def _problems() -> Iterator[tuple[str, str]]:
    """Yield the name of each error and the first line of its description."""
    from handler.errors import AutostopError

    classes = [AutostopError]
    for one in classes:
        classes += one.__subclasses__()
        if one.__doc__:
            yield one.name, one.__doc__.partition("\n")[0]

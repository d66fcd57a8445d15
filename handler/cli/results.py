"""The `data` of a result event as text: of a plan, or from a function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from handler.terminal import Row, counted, escape, table, wrap

_COLOURS = {
    "planned": "green",
    "stopped": "green",
    "kept": "green",
    "released": "green",
    "accepted": "yellow",
    "unchanged": "cyan",
    "skipped": "cyan",
    "failed": "red",
}
# Members that the server's own line shows.
_IN_ROW = frozenset({"vm_state", "task_state"})


@dataclass(frozen=True, slots=True)
class Result:
    """The shown members of a result's data.

    Attributes:
        refusal, detail: escaped.
        servers: the rows as they came.
    """

    refusal: str
    detail: str
    servers: tuple[Mapping[str, Any], ...]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Parse the data as far as possible; it may be from another version of the function."""
        rows = data.get("servers")
        servers = tuple(row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
        return cls(_text(data.get("refusal")), _text(data.get("detail")), servers)

    @property
    def failed(self) -> bool:
        """Whether at least one server failed."""
        return any(server.get("outcome") == "failed" for server in self.servers)


def lines(results: Sequence[Result], width: int, *, verbose: bool, planned: bool) -> Iterator[str]:
    """Lay out results as text, one after the other.

    With `verbose` the evidence of each server is shown; `planned` says that nothing was sent.
    """
    for number, result in enumerate(results, start=1):
        if len(results) > 1:
            yield from wrap(f"Event {number} of {len(results)}", width)
        if result.refusal:
            verb = "would be" if planned else "was"
            text = f"The event {verb} refused as a whole: {result.refusal}. {result.detail}"
            yield from wrap(f"{text} `bms-autostop explain {result.refusal}` says what to do.", width)
        elif result.servers:
            rows = [_row(server, verbose) for server in result.servers]
            yield from table(("NAME", "SERVER", "STATE", "RESULT"), rows, width)
        elif result.detail:
            yield from wrap(result.detail, width)
        if len(results) > 1:
            yield ""


def summary(results: Sequence[Result], planned: str = "would be stopped") -> str:
    """Return the number of servers of each outcome in one line, with `planned` for those of a dry run."""
    counts = Counter(_text(server.get("outcome")) for result in results for server in result.servers)
    total = sum(counts.values())
    parts = [f"{number} {planned if name == 'planned' else name}" for name, number in sorted(counts.items())]
    refused = sum(1 for result in results if result.refusal)
    if refused:
        parts.append(f"{counted(refused, 'event')} refused")
    return f"{counted(total, 'server')}{': ' if parts else ''}{', '.join(parts)}."


def _row(server: Mapping[str, Any], verbose: bool) -> Row:
    id_, name, state, task, outcome, reason, detail = (
        _text(server.get(member)) for member in ("id", "name", "vm_state", "task_state", "outcome", "reason", "detail")
    )
    cells = (name or "-", id_, (state or "-") + (f" ({task})" if task else ""))
    notes: tuple[str, ...] = ()
    if verbose:
        evidence = server.get("evidence")
        shown = [*_pairs(evidence)] if isinstance(evidence, dict) else []
        notes = (", ".join(shown) or "never seen, so there is no evidence",)
    return Row(cells, f"{outcome}/{reason}:", detail, _COLOURS.get(outcome), notes)


def _pairs(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield each member by its name in the result event, without null and what the server's own line shows."""
    for name, value in row.items():
        match value:
            case _ if value is None or name in _IN_ROW:
                continue
            case dict():
                yield from _pairs(value, f"{prefix}{escape(name)}.")
            case bool():
                yield f"{prefix}{escape(name)}={'yes' if value else 'no'}"
            case _:
                yield f"{prefix}{escape(name)}={_text(value)}"


def _text(value: object) -> str:
    return "" if value is None else escape(str(value))

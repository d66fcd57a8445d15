"""A report as text for a person at a terminal: one line a server, and under it what it was judged by."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from handler.outbound.result import evidence_row
from handler.stop.evidence import Evidence
from handler.stop.model import Outcome, Report

_INDENT = "    "
_WIDTH = 120
# The server's own line shows them.
_ABOVE = frozenset({"vm_state", "task_state"})


def table(report: Report) -> str:
    """What an event would do, as `bms-autostop plan` prints it."""
    if report.refusal:
        why = f" {report.detail}" if report.detail else ""
        return f"The event would be refused as a whole: {report.refusal}.{why}"
    if report.detail:
        return report.detail
    lines = [f"{'server':<38}{'name':<16}{'state':<22}would be"]
    for server in report.servers:
        state = f"{server.vm_state or '-'}{f' ({server.task_state})' if server.task_state else ''}"
        would = "stopped" if server.outcome is Outcome.PLANNED else f"{server.outcome}/{server.reason}"
        lines.append(f"{server.id:<38}{server.name or '-':<15} {state:<21} {would}: {server.detail}")
        lines += _facts(server.evidence)
    return "\n".join(lines)


def _facts(evidence: Evidence | None) -> list[str]:
    if evidence is None:
        return [f"{_INDENT}never seen, so there is no evidence"]
    row = evidence_row(evidence)
    told = ", ".join(_pairs({name: value for name, value in row.items() if name not in _ABOVE}))
    return textwrap.wrap(
        told, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
    )


def _pairs(row: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Each member by the name that the result event gives it; what is not there is left out."""
    for name, value in row.items():
        match value:
            case None:
                continue
            case Mapping():
                yield from _pairs(value, f"{name}.")
            case bool():
                yield f"{prefix}{name}={'yes' if value else 'no'}"
            case str():
                # Anybody may have written a tag; nothing in it may reach the terminal as a command.
                yield f"{prefix}{name}={value if value.isprintable() else ascii(value)}"
            case _:
                yield f"{prefix}{name}={value}"

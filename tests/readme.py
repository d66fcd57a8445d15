"""`python -m tests.readme`: write the tables of README.md and deploy/settings.md from the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from handler.settings import TARGETS, declared
from handler.stop.meanings import MEANINGS
from handler.stop.model import Reason
from tests.conftest import ROOT

README = ROOT / "README.md"
SETTINGS = ROOT / "deploy" / "settings.md"
_ABOUT_SETTINGS = """\
# Settings

Environment variables, read once when the process starts. If any is not valid, or begins with `AUTOSTOP_` and stands not
here, the process does not start, and names all of them. An empty variable counts as unset. What one function reads
does no harm to the others. Secrets are marked with *. Written by `make settings` from `handler/settings/`.
"""


def _settings(target: str) -> Iterator[str]:
    """The settings of ours that are the target's alone, or that it reads as the first of several."""
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for setting in declared():
        if setting.targets[0] == target and setting.name.startswith("AUTOSTOP_"):
            yield f"| `{setting.name}` | {setting.shown_default} | {setting.description} |"


def settings_page() -> str:
    """The text of deploy/settings.md: every setting, under the functions that read it."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for setting in declared():
        mark = " *" if setting.secret else ""
        groups.setdefault(setting.targets, []).append(
            f"| `{setting.name}`{mark} | {setting.shown_default} | {setting.description} |"
        )
    sections = [
        f"\n## {', '.join(f'`{target}`' for target in targets)}\n\n| variable | default | meaning |\n|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
        for targets, rows in sorted(groups.items(), key=lambda group: (-len(group[0]), TARGETS.index(group[0][0])))
    ]
    return _ABOUT_SETTINGS + "".join(sections)


def _reasons() -> Iterator[str]:
    yield "| outcome | reason | why |"
    yield "|---|---|---|"
    for reason in Reason:
        yield f"| `{reason.outcome}` | `{reason}` | {MEANINGS[reason]} |"


# The name of each table, as its markers have it.
TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "settings": lambda: _settings("stop_servers"),
    "webhook settings": lambda: _settings("receive_webhook"),
    "notify settings": lambda: _settings("notify_chat"),
    "reasons": _reasons,
}


def written(text: str) -> str:
    """The README with its tables as the code has them; everything outside their markers stays as it is.

    Raises:
        ValueError: the markers of a table are missing, or are there more than once.
    """
    for name, table in TABLES.items():
        lines = "\n".join(table())
        marked = re.compile(rf"(<!-- {name}: [^\n]* -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
        text, found = marked.subn(lambda match, lines=lines: f"{match[1]}{lines}{match[2]}", text)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"the README has {found} tables of {name}, not one")
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
    SETTINGS.write_text(settings_page())

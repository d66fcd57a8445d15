"""`python -m tests.readme`: write the table of reasons in events/README.md, and deploy/settings.md, from the code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from handler.settings import TARGETS, declared
from handler.stop.model import Reason
from tests.conftest import ROOT

EVENTS = ROOT / "events" / "README.md"
SETTINGS = ROOT / "deploy" / "settings.md"
_REASONS = re.compile(r"(<!-- reasons: [^\n]* -->\n).*?(<!-- end of reasons -->)", re.DOTALL)
_ABOUT_SETTINGS = """\
# Settings

Environment variables, read once when the process starts. If any is not valid, or begins with `AUTOSTOP_` and is not
listed here, the process does not start, and names all of them. An empty variable counts as unset. A function ignores
what only others read. Secrets are marked with *. Written by `make settings` from `handler/settings/`.

Durations are written `500ms`, `20s`, `15m`, `1h`. `AUTOSTOP_DEADLINE` must be shorter than the sender's time-out, or
the sender repeats what is still being done; an event that names many busy servers uses all of it. `AUTOSTOP_WAIT` is
explained in [README.md](../README.md#your-cloud), the login in [authentication.md](authentication.md).
"""


def settings_page() -> str:
    """Return the text of deploy/settings.md: every setting, under the functions that read it."""
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
        yield f"| `{reason.outcome}` | `{reason}` | {reason.meaning} |"


def with_reasons(text: str) -> str:
    """Return events/README.md with the table of reasons that the code has; the rest is not changed.

    Raises:
        ValueError: the markers of the table are not there exactly once.
    """
    lines = "".join(f"{line}\n" for line in _reasons())
    text, found = _REASONS.subn(lambda match: f"{match[1]}{lines}{match[2]}", text)
    if found != 1:
        raise ValueError(f"events/README.md has {found} tables of reasons, not one")
    return text


if __name__ == "__main__":
    EVENTS.write_text(with_reasons(EVENTS.read_text()))
    SETTINGS.write_text(settings_page())

"""`python -m tests.readme`: write the tables of the README that come from the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from handler.notify_variables import NOTIFY_VARIABLES
from handler.settings import VARIABLES
from handler.shared_settings import Variable
from handler.stop.meanings import MEANINGS
from handler.stop.model import Reason
from handler.webhook_variables import WEBHOOK_VARIABLES
from tests.conftest import ROOT

README = ROOT / "README.md"


def _settings(variables: Iterable[Variable] = VARIABLES) -> Iterator[str]:
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for variable in variables:
        yield f"| `{variable.name}` | {variable.default} | {variable.meaning} |"


def _reasons() -> Iterator[str]:
    yield "| outcome | reason | why |"
    yield "|---|---|---|"
    for reason in Reason:
        yield f"| `{reason.outcome}` | `{reason}` | {MEANINGS[reason]} |"


# The name of each table, as its markers have it.
TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "settings": _settings,
    "webhook settings": lambda: _settings(WEBHOOK_VARIABLES),
    "notify settings": lambda: _settings(NOTIFY_VARIABLES),
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

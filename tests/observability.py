"""`python -m tests.observability`: have promtool check the alerting rules, their tests, and the dashboard's queries."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "observability"
# What Grafana puts in place of its variables.
_VARIABLES = {"$__rate_interval": "5m", "$__range": "2d", "$job": ".*"}


def alerts() -> list[dict[str, Any]]:
    """The alerting rules."""
    return [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels."""
    return list(json.loads((FOLDER / "dashboard.json").read_text())["panels"])


def queries() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard with the title of its panel, as Prometheus gets it."""
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for variable, value in _VARIABLES.items():
                query = query.replace(variable, value)
            yield panel["title"], query


def main() -> int:
    """Run promtool.

    Returns:
        0 if it finds nothing wrong, else what it returned; 2 if it is not there.
    """
    promtool = shutil.which("promtool")
    if promtool is None:
        print("promtool is missing; it comes with Prometheus (Debian: apt-get install prometheus)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        recorded = [
            {"record": f"panel:{re.sub('[^a-z]+', '_', title.lower())}_{number}", "expr": query}
            for number, (title, query) in enumerate(queries())
        ]
        as_rules = Path(folder) / "dashboard.yaml"
        as_rules.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
        for arguments in (
            ["check", "rules", str(FOLDER / "alerts.yaml"), str(as_rules)],
            ["test", "rules", *map(str, sorted(FOLDER.glob("*.test.yaml")))],
        ):
            done = subprocess.run([promtool, *arguments], check=False)
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())

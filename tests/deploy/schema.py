"""check-jsonschema with the schemas that it brings along: nothing is fetched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def schema_says(name: str, *files: Path) -> str:
    """What is wrong with files, by one of the vendored schemas; empty if nothing is."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", "--verbose", *map(str, files)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""

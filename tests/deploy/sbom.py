"""`make sbom`: the parts of image and zip with their licences and dependencies, as CycloneDX.

cyclonedx-bom reads an environment that holds what requirements.lock names and nothing else. What it leaves out is
added: the project's version, and a licence that a package states as free text only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from handler import __version__
from tests.support.process import ROOT

Sbom = dict[str, Any]


def missing(sbom: Mapping[str, Any]) -> Iterator[str]:
    """Say what is missing: a licence, a version, or a way from the project to a component."""
    root = sbom["metadata"]["component"]
    edges = {each["ref"]: each.get("dependsOn", []) for each in sbom["dependencies"]}
    reached, waiting = set(), [root["bom-ref"]]
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += edges.get(ref, [])
    for component in [root, *sbom["components"]]:
        name = component["name"]
        if not component.get("licenses"):
            yield f"{name}: no licence"
        if not component.get("version"):
            yield f"{name}: no version"
        if component["bom-ref"] not in reached:
            yield f"{name}: nothing depends on it"


def completed(sbom: Sbom) -> Sbom:
    """Add the project's version, and licences that a package states as free text."""
    sbom["metadata"]["component"]["version"] = __version__
    for component in sbom["components"]:
        if not component.get("licenses"):
            try:
                text = metadata(component["name"])["License"]
            except PackageNotFoundError:
                continue
            if text:
                component["licenses"] = [{"license": {"name": text}}]
    return sbom


def _collect(folder: Path) -> Sbom:
    python = folder / "environment" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(python)]
    locked = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "requirements.lock")]
    written = folder / "sbom.json"
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "-o", str(written)]
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", str(folder / "environment")],
        [*pip, "install", *locked],
        [str(Path(sys.executable).with_name("cyclonedx-py")), "environment", "--validate", *options, str(python)],
    ):
        subprocess.run(command, check=True)
    found: Sbom = json.loads(written.read_text())
    return found


def main(target: Path) -> int:
    """Write the list; the exit code is 1 if something is missing in it."""
    print("Installing requirements.lock into an environment of its own (about 20 s)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        sbom = completed(_collect(Path(folder)))
    wrong = list(missing(sbom))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(sbom, indent=2, sort_keys=True) + "\n")
    edges = sum(len(each.get("dependsOn", [])) for each in sbom["dependencies"])
    print(f"{target}: {len(sbom['components'])} components, {edges} dependencies")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

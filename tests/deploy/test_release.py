"""`make release-check` and `make sbom`: what they compare and demand is compared and demanded."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import release, sbom

SBOM: dict[str, Any] = {
    "metadata": {"component": {"name": "root", "bom-ref": "root", "version": "1", "licenses": [{}]}},
    "components": [
        {"name": "a", "bom-ref": "a", "version": "1", "licenses": [{}]},
        {"name": "b", "bom-ref": "b", "version": "1", "licenses": [{}]},
    ],
    "dependencies": [{"ref": "root", "dependsOn": ["a"]}, {"ref": "a", "dependsOn": ["b"]}, {"ref": "b"}],
}


def test_differences_are_files_with_another_digest_and_files_of_one_build() -> None:
    """In either direction."""
    assert release.differences({"a": "1", "b": "1"}, {"a": "1", "b": "1"}) == []
    assert release.differences({"a": "1", "b": "1", "c": "1"}, {"a": "2", "b": "1", "d": "1"}) == ["a", "c", "d"]


def test_builds_differ_in_everything_that_could_get_into_a_file() -> None:
    """Folder, file times, permissions, clock, zone and hash seed."""
    first, second = release.CONDITIONS
    for name in ("folder", "mtime", "mode", "ahead", "zone", "seed"):
        assert getattr(first, name) != getattr(second, name)


def test_clock_of_a_build_is_read_by_the_programs_it_starts(tmp_path: Path) -> None:
    """A program started with the folder on PYTHONPATH is that many seconds ahead."""
    (tmp_path / "sitecustomize.py").write_text(release._CLOCK.format(ahead=400 * 86400))
    done = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) > time.time() + 399 * 86400


def test_complete_list_has_nothing_missing() -> None:
    """Each component has a version and a licence, and the project depends on it, directly or not."""
    assert list(sbom.missing(SBOM)) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda it: it["components"][1].pop("licenses"), "b: no licence"),
        (lambda it: it["components"][0].pop("version"), "a: no version"),
        (lambda it: it["metadata"]["component"].pop("version"), "root: no version"),
        (lambda it: it["dependencies"][1].pop("dependsOn"), "b: nothing depends on it"),
    ],
)
def test_what_is_missing_in_a_list_is_found(change: Any, found: str) -> None:
    """One line for each."""
    broken = copy.deepcopy(SBOM)
    change(broken)
    assert list(sbom.missing(broken)) == [found]


def test_licence_in_free_text_is_added() -> None:
    """Protobuf states its licence only so; a component that is not installed here stays without."""
    component = {"name": "protobuf", "bom-ref": "p", "version": "1"}
    unknown = {"name": "not-installed-here", "bom-ref": "n", "version": "1"}
    completed = sbom.completed(copy.deepcopy({**SBOM, "components": [component, unknown]}))
    assert completed["components"][0]["licenses"] == [{"license": {"name": "3-Clause BSD License"}}]
    assert "licenses" not in completed["components"][1]
    assert completed["metadata"]["component"]["version"]

"""`make release-check`, `make sbom` and `make audit`: what they compare and require is compared and required."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import audit, release, sbom

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
    assert all(one != other for one, other in zip(*release.CONDITIONS, strict=True))


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
    """Each component has a version and a licence, and the project depends on it, directly or not."""
    assert list(sbom.missing(SBOM)) == []
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


# --- audit

_LOCK = """\
click==8.3.0 \\
    --hash=sha256:aa
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:bb
PyJWT[crypto]==2.15.0 \\
    --hash=sha256:cc
"""
_CLICK: dict[str, Any] = {"name": "click", "version": "8.3.0", "vulns": []}
_JWT: dict[str, Any] = {"name": "pyjwt", "version": "2.15.0", "vulns": []}
_SKIPPED = {"name": "pyjwt", "skip_reason": "Dependency not found on PyPI and could not be audited: pyjwt (2.15.0)"}


def test_a_lock_passes_if_all_that_can_be_installed_here_was_looked_up() -> None:
    """What is for another platform is named."""
    found = audit.audit_of(_LOCK, {"dependencies": [_CLICK, _JWT]})
    assert found.passed
    assert found.lines() == [
        "2 of 2 versions looked up, 0 vulnerable",
        "    not looked up, since they are for another platform or Python: colorama 0.4.6",
    ]


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (_SKIPPED, "    not looked up, since the database does not answer for them: pyjwt 2.15.0"),
        ({**_JWT, "vulns": [{"id": "PYSEC-2026-1"}]}, "    pyjwt 2.15.0: PYSEC-2026-1"),
    ],
    ids=["unknown", "vulnerable"],
)
def test_a_lock_does_not_pass_with_a_version_that_is_unknown_or_vulnerable(entry: dict[str, Any], line: str) -> None:
    """pip-audit itself calls a lock clean of which the database knows nothing."""
    found = audit.audit_of(_LOCK, {"dependencies": [_CLICK, entry]})
    assert not found.passed
    assert line in found.lines()


def test_a_lock_does_not_pass_if_nothing_was_looked_up() -> None:
    """As when pip-audit reports no dependency at all."""
    assert not audit.audit_of(_LOCK, {"dependencies": []}).passed

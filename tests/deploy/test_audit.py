"""An audit says what it could not look up, and does not pass without it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.audit import judge

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
    audit = judge(_LOCK, {"dependencies": [_CLICK, _JWT]})
    assert audit.passed
    assert audit.lines() == [
        "2 of 2 versions looked up, 0 vulnerable",
        "    not looked up, since they are for another platform or Python: colorama 0.4.6",
    ]


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (_SKIPPED, "    not looked up, since the database does not answer for them: pyjwt 2.15.0"),
        ({**_JWT, "vulns": [{"id": "PYSEC-2026-1"}]}, "    pyjwt 2.15.0: PYSEC-2026-1"),
    ],
    ids=["unknown", "vulnerable"],
)
def test_a_lock_does_not_pass_with_a_version_that_is_unknown_or_vulnerable(found: dict[str, Any], line: str) -> None:
    """pip-audit itself calls a lock clean of which the database knows nothing."""
    audit = judge(_LOCK, {"dependencies": [_CLICK, found]})
    assert not audit.passed
    assert line in audit.lines()


def test_a_lock_does_not_pass_if_nothing_was_looked_up() -> None:
    """As when pip-audit reports no dependency at all."""
    assert not judge(_LOCK, {"dependencies": []}).passed

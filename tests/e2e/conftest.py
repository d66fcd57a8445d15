"""What the tests of the whole function share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from handler.stop import run as run_module


def set_backoff(monkeypatch: pytest.MonkeyPatch, backoff: Callable[[int], float]) -> None:
    """Have calls repeated after these seconds, by the number of the attempt."""
    defaults = run_module.run.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "backoff", backoff)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are repeated soon."""
    set_backoff(monkeypatch, lambda attempt: 0.002 * 2 ** min(attempt, 7))

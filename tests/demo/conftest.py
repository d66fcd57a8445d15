"""What the tests of both demos share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from handler.demo import chat, stop
from tests.conftest import serving


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The functions run in this process, which is faster."""
    with serving(monkeypatch) as serve:

        @contextmanager
        def function(target: str, environ: Mapping[str, str]) -> Iterator[str]:
            yield serve(target, environ)

        monkeypatch.setattr(chat, "function", function)
        monkeypatch.setattr(stop, "function", function)
        yield

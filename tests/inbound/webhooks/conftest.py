"""Fixtures of the tests of one producer."""

from __future__ import annotations

import pytest

from tests.inbound.webhooks.authentication import receiver
from tests.inbound.webhooks.receiver import Receiver


@pytest.fixture
def here(request: pytest.FixtureRequest) -> Receiver:
    """`receive_webhook` with the settings of the sample of the producer at `PATH` of the module."""
    return receiver(request.module.PATH)

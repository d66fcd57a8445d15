"""One call, made by a thread that may have started late."""

from __future__ import annotations

import pytest

from handler.stop.calls import CompletedCall, Step, call
from tests.stop.fakes import ID, START, FakeExecutor, Script, ScriptedCloud


@pytest.mark.parametrize("late", [0.0, 2.5])
@pytest.mark.parametrize("probe", [True, False])
def test_a_call_whose_time_is_up_is_not_made_and_brings_nothing(late: float, probe: bool) -> None:
    """The run may still take it in; it then learns nothing of the server."""
    executor = FakeExecutor()
    cloud = ScriptedCloud({ID: Script("active")}, executor)
    completed = call(Step.STOP, (ID,), cloud, executor.monotonic, START - late, probe=probe)
    assert completed == CompletedCall(Step.STOP, (ID,), START, {}, probe=probe)
    assert cloud.calls == []

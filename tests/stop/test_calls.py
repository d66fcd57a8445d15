"""One call, made by a hand that may have come late."""

from __future__ import annotations

import pytest

from handler.stop.calls import Ended, call
from handler.stop.steps import Step
from tests.stop.fakes import ID, START, HeldCrew, Script, ScriptedCloud


@pytest.mark.parametrize("late", [0.0, 2.5])
@pytest.mark.parametrize("witness", [True, False])
def test_a_call_whose_time_is_up_is_not_made_and_brings_nothing(late: float, witness: bool) -> None:
    """The run may still take it in; it then learns nothing of the server."""
    crew = HeldCrew()
    cloud = ScriptedCloud({ID: Script("active")}, crew)
    ended = call(Step.STOP, (ID,), cloud, crew.monotonic, START - late, witness=witness)
    assert ended == Ended(Step.STOP, (ID,), START, {}, witness=witness)
    assert cloud.calls == []

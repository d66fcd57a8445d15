"""The settings of `keep_servers`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from handler.settings.keep_servers import from_environ
from tests.settings.environments import LEAST, URN, names, violations


def test_the_defaults() -> None:
    """A keep may end a day ahead; the guards are those of a stop."""
    settings = from_environ(LEAST)
    assert settings.policy.max_keep == timedelta(hours=24)
    limits = settings.policy.limits
    assert (limits.max_servers, limits.max_event_age) == (50, timedelta(minutes=15))
    assert limits.protect == ("autostop", "never")
    assert (settings.sink, settings.result_topic, settings.deadline) == (None, None, timedelta(seconds=50))


def test_nova_is_called_in_every_mode() -> None:
    """`AUTOSTOP_API` is not read."""
    settings = from_environ({**LEAST, "AUTOSTOP_API": "bms", "AUTOSTOP_COMPUTE_URL": "https://nova.example/v2.1"})
    assert (settings.api, settings.compute_url, settings.bms_url) == ("nova", "https://nova.example/v2.1", None)


@pytest.mark.parametrize("value", ["59s", "0", "soon"])
def test_the_longest_keep_is_a_minute_or_longer(value: str) -> None:
    """Anything else is refused."""
    assert names(violations({**LEAST, "AUTOSTOP_MAX_KEEP": value}, from_environ)) == ["AUTOSTOP_MAX_KEEP"]


def test_results_go_to_a_url_or_to_a_topic() -> None:
    """A message of SMN holds no more than so many servers."""
    assert from_environ({**LEAST, "AUTOSTOP_RESULT_SINK": f"smn:{URN}"}).result_topic == URN
    sink = from_environ({**LEAST, "K_SINK": "http://broker/"}).sink
    assert sink is not None
    assert sink.url == "http://broker/"
    found = violations({**LEAST, "AUTOSTOP_RESULT_SINK": f"smn:{URN}", "AUTOSTOP_MAX_SERVERS": "500"}, from_environ)
    assert names(found) == ["AUTOSTOP_MAX_SERVERS"]

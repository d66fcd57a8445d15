"""Grafana: repeats with and without a signed time; the alerts are read as Alertmanager's are."""

from __future__ import annotations

import pytest

from tests.inbound.webhooks.authentication import (
    BY_SIGNATURE,
    KEY,
    SENT,
    BySignature,
    encoded,
    sample,
    send_body,
)
from tests.inbound.webhooks.receiver import JSON, NOW, Receiver, refused

PATH = "/grafana"
BODY = encoded(PATH, sample(PATH))
PLAIN, TIMED = BY_SIGNATURE["grafana"], BY_SIGNATURE["grafana-timed"]


def test_with_a_signed_time_a_repeat_is_another_event_and_a_redelivery_is_not(here: Receiver) -> None:
    """The time distinguishes them."""
    for at in (0, 0, 60):
        send_body(here, PATH, sample(PATH), int(SENT) + at)
    first, again, repeat = (request.id for request in here.handed)
    assert first == again != repeat


def test_without_one_a_repeat_has_the_id_of_the_first() -> None:
    """They cannot be distinguished; another start of the alarm can."""
    here = Receiver(**{"AUTOSTOP_ID_LABEL": "instance_id", **PLAIN.environ})
    for hour in ("12", "12", "17"):
        body = encoded(PATH, sample(PATH, **{"alerts.0.startsAt": f"2026-11-20T{hour}:00:00Z"}))
        assert here.post(PATH, body, {**JSON, **PLAIN.sign(body, 0, KEY)}).status == 200
    first, again, other = (request.id for request in here.handed)
    assert first == again != other
    assert here.handed[0].time == NOW


@pytest.mark.parametrize(("set_", "sent"), [(TIMED, PLAIN), (PLAIN, TIMED)], ids=["timed", "plain"])
def test_a_signature_without_the_time_is_none_with_it(set_: BySignature, sent: BySignature) -> None:
    """Nor the other way round."""
    here = Receiver(**set_.environ)
    refused(here.post(PATH, BODY, {**JSON, "x-grafana-time": SENT, **sent.sign(BODY, int(SENT), KEY)}), 401)
    assert here.handed == []

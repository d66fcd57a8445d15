"""SMN: signature, certificate, topic, time; the confirmation of a subscription; Cloud Eye's alarms inside."""

from __future__ import annotations

import base64
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from handler.errors import ProducerUnreachable
from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.authentication import SMN
from tests.inbound.webhooks.fake_smn import (
    CERT_URL,
    CONFIRM_URL,
    SENT,
    TOPIC,
    FakeSmn,
    certificate,
    new_key,
    string_to_sign,
)
from tests.inbound.webhooks.receiver import JSON, NOW, ONE, THREE, TWO, Receiver, flip, refused

ONE_LINE = {"message_id": "x", "subject": "x", "timestamp": SENT, "topic_urn": TOPIC}
RDS = "3d39c18788b54a919bab633874c159dfin01"


def receiver(smn: FakeSmn, **changes: Any) -> Receiver:
    """SMN switched on, and no other producer."""
    return Receiver(get=smn.get, **{"AUTOSTOP_SMN_TOPICS": f"{TOPIC}-other, {TOPIC}", **changes})


@pytest.fixture
def here() -> Receiver:
    """SMN switched on, with nothing left of the test before."""
    SMN.asked.clear()
    SMN.served = {CERT_URL: (200, certificate(SMN.key)), CONFIRM_URL: (200, b"ok")}
    return receiver(SMN)


def alarm(**changes: Any) -> dict[str, Any]:
    """The alarm of Cloud Eye about an idle server; a change given as None is left out."""
    document = {
        "message_type": "alarm",
        "alarm_id": "al1795190000000Xy9Zk2Qw3",
        "alarm_name": "bms-idle",
        "alarm_status": "alarm",
        "time": 1795197600000,
        "namespace": "SERVICE.BMS",
        "metric_name": "cpu_usage",
        "dimension": f"instance_id:{ONE}",
        "sms_content": f"server {TWO} is idle",
        "template_variable": {"IsAlarm": True, "IsCycleTrigger": False, "ResourceId": ONE, "AlarmId": THREE},
        **changes,
    }
    return {name: value for name, value in document.items() if value is not None}


def details(**changes: Any) -> dict[str, Any]:
    """An alarm with other details."""
    return alarm(template_variable={**alarm()["template_variable"], **changes})


def headers(message: dict[str, Any]) -> dict[str, str]:
    """The headers that come with a message."""
    return {
        **JSON,
        "X-SMN-MESSAGE-TYPE": message["type"],
        "x-smn-message-id": message["message_id"],
        "X-Smn-Topic-Urn": message["topic_urn"],
    }


def send(here: Receiver, message: dict[str, Any]) -> Answer:
    """Send a message with its headers."""
    return here.post("/smn", message, headers(message))


def test_canonical_data_is_handed_on(here: Receiver) -> None:
    """A publisher to the topic may send it, by the rules of canonical data."""
    send(here, SMN.notification({"server_ids": [TWO.upper(), ONE], "dry_run": True, "reason": "night"}))
    request = here.only()
    assert (request.server_ids, request.dry_run, request.reason) == ((TWO, ONE), True, "night")
    found = refused(send(here, SMN.notification({"server_ids": ["x"], "dryRun": True})), 400)
    assert [violation["at"] for violation in found["violations"]] == ["data.server_ids[0]", "data.dry_run"]


@pytest.mark.parametrize(
    ("message", "beside"),
    [
        (alarm(dry_run="true"), {}),
        (alarm(), {"message_attributes": {"dry_run": "true"}}),
        ({"server_ids": [ONE]}, {"message_attributes": {"Dry-Run": "true"}}),
    ],
)
def test_an_alarm_may_be_a_dry_run(here: Receiver, message: dict[str, Any], beside: dict[str, Any]) -> None:
    """By a member of the message, or an attribute beside it."""
    assert send(here, SMN.notification(message, **beside)).status == 200
    assert here.only().dry_run is True


@pytest.mark.parametrize("subject", ["", None, "ü\u2028 [Alarm]"])
def test_a_subject_may_be_anything(here: Receiver, subject: str | None) -> None:
    """Empty or absent it is left out of what is signed."""
    assert send(here, SMN.notification(alarm(), subject=subject)).status == 200
    message = SMN.notification(alarm(), subject=subject)
    if not subject:
        del message["subject"]
    assert send(here, message).status == 200


def test_the_values_are_what_json_says_not_how_it_is_written(here: Receiver) -> None:
    """Escapes in the body do not count."""
    message = SMN.notification(alarm(alarm_name="grün < 2 %"))
    body = json.dumps(message).replace("<", "\\u003c").replace("/", "\\/")
    assert here.post("/smn", body, headers(message)).status == 200
    assert here.only().reason == "Cloud Eye alarm grün < 2 %: cpu_usage"


def test_the_certificate_is_fetched_once(here: Receiver) -> None:
    """And kept."""
    for _ in range(3):
        send(here, SMN.notification(alarm()))
    assert (len(here.handed), SMN.asked) == (3, [CERT_URL])


def test_a_repeat_of_an_alarm_is_another_event(here: Receiver) -> None:
    """It is a message of its own."""
    for message in (SMN.notification(alarm()), SMN.notification(alarm(), message_id="another")):
        send(here, message)
    assert [request.id for request in here.handed] == ["bf94b63a5dfb475994d3ac34664e24f2", "another"]


@pytest.mark.parametrize(
    "message",
    [
        alarm(alarm_status="ok"),
        alarm(alarm_status="insufficient_data"),
        alarm(alarm_status="Alarm"),
        alarm(alarm_status=None),
        alarm(alarm_status=5),
        details(IsAlarm=False),
        alarm(metric_name="osShutdown", namespace="SYS.BMS"),
        alarm(event_name="osShutdown"),
        details(EventName="serverShutdown"),
        alarm(dimension=None, template_variable=None),
        alarm(namespace="SYS.RDS", dimension=f"rds_instance_id:{RDS}", template_variable={"ResourceId": RDS}),
        alarm(namespace="SYS.RDS", dimension=f"rds_instance_id:{ONE}"),
        alarm(namespace="SYS.EVS", dimension=f"disk_name:{TWO}-volume"),
        alarm(namespace="SYS.ELB", dimension=f"lbaas_instance_id:{ONE}"),
        alarm(namespace="SYS.WAF"),
        alarm(namespace="SERVICE.OBS", dimension=None),
        alarm(namespace="MINE.APP", dimension=f"volume:{ONE}"),
        alarm(namespace="MINE.APP", dimension=None),
        alarm(namespace=None, dimension=f"disk_name:{ONE}"),
        alarm(namespace=None, dimension=None),
        {"hello": ONE},
        {},
    ],
)
def test_nothing_to_act_on_is_204(here: Receiver, message: dict[str, Any]) -> None:
    """A recovery, an unknown state, an echo of a stop, no resource, or something else, whatever UUID it has."""
    assert send(here, SMN.notification(message)).status == 204
    assert here.handed == []


@pytest.mark.parametrize(
    ("message", "at"),
    [
        (alarm(dimension=f"instance_id:{TWO}"), "message.dimension"),
        (details(ResourceId=TWO), "message.dimension"),
        (alarm(dimension=f"disk:{ONE}"), "message.dimension"),
        (alarm(dimension=f"instance_id:{ONE},instance_id:{TWO}"), "message.dimension"),
        (alarm(dimension=ONE), "message.dimension"),
        (alarm(dimension=[{"name": "instance_id", "value": ONE}]), "message.dimension"),
        (details(ResourceId="bms-db-01"), "message.template_variable.ResourceId"),
        (details(ResourceId=f"{ONE},{TWO}"), "message.dimension"),
        (alarm(time=1795204800000), "message.time"),
        (alarm(time="soon"), "message.time"),
        (alarm(time={}), "message.time"),
        ("no json", "message"),
        ("[1]", "message"),
        ('"text"', "message"),
    ],
)
def test_what_is_malformed_or_disagrees_is_400(here: Receiver, message: object, at: str) -> None:
    """Two places name the resource; if they do not agree, the message is refused."""
    found = refused(send(here, SMN.notification(message)), 400)
    assert [violation["at"] for violation in found["violations"]] == [at]
    assert here.handed == []


@pytest.mark.parametrize(
    "message",
    [
        alarm(dimension=None),
        alarm(namespace="SYS.BMS", dimension=None),
        alarm(namespace="AGT.ECS"),
        alarm(namespace="MINE.APP"),
        alarm(namespace=None),
        alarm(template_variable=None),
        details(ResourceId=""),
        details(ResourceId=ONE.upper()),
        alarm(dimension=f"instance_id:{ONE},mount_point:abc"),
        alarm(dimension=f"disk:sda; instance_id: {ONE.upper()}"),
    ],
)
def test_an_alarm_about_a_server_names_it_in_one_place_or_both(here: Receiver, message: dict[str, Any]) -> None:
    """By its namespace, or by the dimension where that has none, it is about a server."""
    assert send(here, SMN.notification(message)).status == 200
    assert here.only().server_ids == (ONE,)


# --- the subscription


def test_a_subscription_is_confirmed(here: Receiver) -> None:
    """By a GET of its URL, after that of the certificate."""
    answer = send(here, SMN.confirmation())
    assert (answer.status, answer.body, here.handed) == (200, b"", [])
    assert SMN.asked == [CERT_URL, CONFIRM_URL]


def test_it_may_be_confirmed_for_two_days(here: Receiver) -> None:
    """And not later."""
    here.later(hours=47)
    assert send(here, SMN.confirmation()).status == 200
    here.later(hours=2)
    refused(send(here, SMN.confirmation()), 401)
    assert SMN.asked == [CERT_URL, CONFIRM_URL]


@pytest.mark.parametrize("served", [(302, b""), (404, b""), (500, b""), ProducerUnreachable("x")])
def test_a_confirmation_that_fails_is_503(here: Receiver, served: Any) -> None:
    """So that SMN sends it again; a redirect is not a confirmation and is not followed."""
    SMN.served[CONFIRM_URL] = served
    found = refused(send(here, SMN.confirmation()), 503)
    assert found["type"] == "urn:bms-autostop:problem:producer-unreachable"
    assert SMN.asked == [CERT_URL, CONFIRM_URL]


@pytest.mark.parametrize(
    "url",
    [
        CONFIRM_URL.replace("https://", "http://"),
        CONFIRM_URL.replace("console.otc", "console.evil"),
        CONFIRM_URL.replace("https://", "https://user@"),
        CONFIRM_URL.replace("https://", "https://evil.example\\@"),
        CONFIRM_URL.replace(".t-systems.com", ".t-systems.com@evil.example"),
        CONFIRM_URL.replace(".t-systems.com", ".t-systems.com.evil.example"),
        CONFIRM_URL.replace(".t-systems.com", ".t-systems.com:8443"),
        CONFIRM_URL.replace("https://", "HTTPS://"),
        "//console.otc.t-systems.com/x",
        "https://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "",
    ],
)
def test_a_subscription_elsewhere_is_never_confirmed(here: Receiver, url: str) -> None:
    """However well it is signed; nothing but the certificate is fetched."""
    refused(send(here, SMN.confirmation(subscribe_url=url)), 403)
    assert SMN.asked == [CERT_URL]


@pytest.mark.parametrize(
    "url", [CONFIRM_URL.replace("https://", "https:\n//"), CONFIRM_URL + "\nx", CONFIRM_URL + "\r"]
)
def test_a_subscription_whose_url_has_a_line_break_is_401(here: Receiver, url: str) -> None:
    """Nothing is fetched for it, not even the certificate."""
    refused(send(here, SMN.confirmation(subscribe_url=url)), 401)
    assert SMN.asked == []


@pytest.mark.usefixtures("here")
def test_the_hosts_are_settings() -> None:
    """For a cloud that is called otherwise."""
    cert, confirm = "https://smn.cloud.example:8443/smn/SMN_1.pem", "https://cloud.example/confirm?a=b"
    SMN.served |= {cert: SMN.served[CERT_URL], confirm: (204, b"")}
    here = receiver(
        SMN, AUTOSTOP_SMN_CERT_HOSTS="SMN.cloud.example:8443", AUTOSTOP_SMN_CONFIRM_HOSTS="cloud.example:443"
    )
    assert send(here, SMN.confirmation(signing_cert_url=cert, subscribe_url=confirm)).status == 200
    refused(send(here, SMN.confirmation(signing_cert_url=CERT_URL, subscribe_url=confirm)), 401)
    assert SMN.asked == [cert, confirm]


@pytest.mark.parametrize("kind", ["UnsubscribeConfirmation", "Something"])
def test_other_messages_are_taken_and_nothing_is_fetched_for_them(here: Receiver, kind: str) -> None:
    """Also `UnsubscribeConfirmation`, whose URL would subscribe again."""
    answer = send(here, SMN.confirmation(type=kind))
    assert (answer.status, here.handed, SMN.asked) == (200, [], [CERT_URL])


# --- forgery


@pytest.mark.parametrize("kind", ["notification", "confirmation"])
def test_one_changed_bit_of_what_is_signed_is_401(here: Receiver, kind: str) -> None:
    """Or of the signature; the last character of it too, part of which means nothing. Nothing is confirmed."""
    message = SMN.notification(alarm()) if kind == "notification" else SMN.confirmation()
    for name in ("message", "message_id", "subject", "subscribe_url", "timestamp", "topic_urn", "type", "signature"):
        for at in range(len(message.get(name, ""))):
            assert here.post("/smn", {**message, name: flip(message[name], at)}, JSON).status == 401
    assert here.handed == []
    assert set(SMN.asked) <= {CERT_URL}


def test_lines_cannot_be_moved_from_one_field_to_another(here: Receiver) -> None:
    """The signed text has no lengths in it: a message may look like the fields after it, and must not become them."""
    alone = json.dumps({"server_ids": [ONE]})
    signed = SMN.notification(f"{alone}\nmessage_id\nforged\nsubject\nx", message_id="real", subject="")
    forged = {**signed, "message": alone, "message_id": "forged", "subject": "x\nmessage_id\nreal"}
    assert string_to_sign(forged) == string_to_sign(signed)
    refused(here.post("/smn", forged, JSON), 401)
    assert (here.handed, SMN.asked) == ([], [])


@pytest.mark.parametrize("name", ["X-SMN-MESSAGE-TYPE", "x-smn-message-id", "X-Smn-Topic-Urn"])
def test_one_changed_bit_of_a_header_is_401(here: Receiver, name: str) -> None:
    """They are not signed, but must agree with what is. Without them it goes as well."""
    message = SMN.notification(alarm())
    good = headers(message)
    for at in range(len(good[name])):
        assert here.post("/smn", message, {**good, name: flip(good[name], at)}).status == 401
    assert here.handed == []
    assert here.post("/smn", message, JSON).status == 200


@pytest.mark.parametrize(
    "url",
    [
        CERT_URL.replace("https://", "http://"),
        CERT_URL.replace("otc", "evil"),
        CERT_URL.replace("https://", "https://evil.example@"),
        CERT_URL.replace("https://smn.eu-de.otc.t-systems.com", "https://smn.eu-de.otc.t-systems.com.evil.example"),
        CERT_URL.replace(".com/", ".com:8443/"),
        CERT_URL.replace(".com/", ".com./"),
        CERT_URL.replace(".com/", ".com\\@evil.example/"),
        CERT_URL.replace("/smn/", "/smn/../"),
        CERT_URL.replace("/smn/", "/redirect/"),
        CERT_URL.replace("/smn/", "//evil.example/smn/"),
        CERT_URL + "?x=.pem",
        CERT_URL + "#x",
        CERT_URL + "\n",
        CERT_URL.replace(".pem", ".exe"),
        CERT_URL.replace("smn.eu-de", "\u017fmn.eu-de"),
        "https://smn.eu-de.otc.t-systems.com",
        "x",
        "https://[::1]/smn/SMN_1.pem",
    ],
)
def test_a_certificate_from_elsewhere_is_never_fetched(here: Receiver, url: str) -> None:
    """Signed with a key that would fit it or not: no request leaves."""
    refused(here.post("/smn", SMN.notification(alarm(), signing_cert_url=url), JSON), 401)
    assert (here.handed, SMN.asked) == ([], [])


def test_one_changed_bit_of_the_certificates_url_is_401(here: Receiver) -> None:
    """It is not signed, but then there is no certificate; and no request to another host."""
    message = SMN.notification(alarm())
    for at in range(len(CERT_URL)):
        forged = {**message, "signing_cert_url": flip(CERT_URL, at)}
        assert here.post("/smn", forged, JSON).status == 401
    assert here.handed == []
    assert all(url.startswith("https://smn.eu-de.otc.t-systems.com/smn/SMN_") for url in SMN.asked)


@pytest.mark.parametrize(
    ("served", "status"),
    [
        ((404, b""), 401),
        ((302, b""), 401),
        ((200, b""), 401),
        ((200, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 401),
        ((500, b""), 503),
        ((503, b""), 503),
        ((429, b""), 503),
        (ProducerUnreachable("x"), 503),
    ],
)
def test_a_certificate_that_cannot_be_had_is_not_a_pass(here: Receiver, served: Any, status: int) -> None:
    """What is there and is none is 401; a transient error is 503, and is tried again."""
    good = SMN.served[CERT_URL]
    SMN.served[CERT_URL] = served
    refused(send(here, SMN.notification(alarm())), status)
    assert here.handed == []
    SMN.served[CERT_URL] = good
    assert send(here, SMN.notification(alarm())).status == 200


def test_another_key_is_401(here: Receiver) -> None:
    """The one that signed must be the one in the certificate."""
    message = SMN.notification(alarm())
    refused(send(here, SMN.sign(message, new_key())), 401)
    assert here.handed == []


@pytest.mark.parametrize(
    ("since", "days"), [(datetime(2026, 11, 21, tzinfo=UTC), 365), (datetime(2025, 1, 1, tzinfo=UTC), 365)]
)
def test_a_certificate_that_is_not_valid_now_is_401(here: Receiver, since: datetime, days: int) -> None:
    """Not yet, or no longer."""
    SMN.served[CERT_URL] = (200, certificate(SMN.key, since, days))
    refused(send(here, SMN.notification(alarm())), 401)
    assert here.handed == []


def test_a_kept_certificate_runs_out(here: Receiver) -> None:
    """Its validity is checked each time, not only when it is fetched."""
    SMN.served[CERT_URL] = (200, certificate(SMN.key, NOW - timedelta(days=1), 1))
    message = SMN.notification(alarm(), timestamp=SENT)
    SMN.served[CERT_URL] = (200, certificate(SMN.key, NOW - timedelta(hours=23), 1))
    assert send(here, message).status == 200
    here.later(hours=2)
    refused(send(here, SMN.notification(alarm(), timestamp="2026-11-20T20:00:00Z")), 401)
    assert SMN.asked == [CERT_URL]


def test_a_short_or_elliptic_curve_key_is_401(here: Receiver) -> None:
    """However well it signs."""
    weak = new_key(1024)
    SMN.served[CERT_URL] = (200, certificate(weak))
    refused(send(here, SMN.sign(SMN.notification(alarm()), weak)), 401)
    SMN.served[CERT_URL] = (200, certificate(ec.generate_private_key(ec.SECP256R1())))
    refused(send(here, SMN.notification(alarm())), 401)
    assert here.handed == []


@pytest.mark.parametrize(
    "changes",
    [
        {"topic_urn": f"{TOPIC}-third"},
        {"signature_version": "v2"},
        {"timestamp": "2026-11-20T17:00:04Z"},
        {"timestamp": "2026-11-20T18:05:06Z"},
        {"timestamp": "2026-11-20 18:00:00"},
        *({name: f"{value}{end}"} for name, value in ONE_LINE.items() for end in "\n\r"),
    ],
)
def test_what_is_well_signed_may_still_be_refused(here: Receiver, changes: dict[str, str]) -> None:
    """Another topic or version, too old, from the future, or with a line break; before anything is fetched."""
    refused(here.post("/smn", SMN.notification(alarm(), **changes), JSON), 401)
    assert (here.handed, SMN.asked) == ([], [])


@pytest.mark.parametrize("timestamp", ["2026-11-20T17:00:05Z", "2026-11-20T18:05:05Z", "2026-11-20T19:00:00+01:00"])
def test_there_is_room_for_redeliveries(here: Receiver, timestamp: str) -> None:
    """They keep the first time, so an hour is allowed for."""
    assert send(here, SMN.notification(alarm(), timestamp=timestamp)).status == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(
            ["type", "message", "message_id", "topic_urn", "timestamp", "signature", "signing_cert_url"],
            [None, "", 5, ["x"]],
        ),
        ("subject", 5),
    ],
)
def test_a_field_that_is_missing_or_no_text_is_401(here: Receiver, name: str, value: object) -> None:
    """Nothing is fetched."""
    refused(here.post("/smn", {**SMN.notification(alarm()), name: value}, JSON), 401)
    assert (here.handed, SMN.asked) == ([], [])


@pytest.mark.parametrize("signature", ["!", "AAAA", base64.b64encode(b"x" * 256).decode(), "é"])
def test_what_is_not_a_signature_is_401(here: Receiver, signature: str) -> None:
    """Of whatever length."""
    refused(here.post("/smn", {**SMN.notification(alarm()), "signature": signature}, JSON), 401)
    assert here.handed == []

"""How each producer authenticates, one row each, and its samples, for the tables of the other tests of webhooks."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cloudevents.conversion import to_dict

from handler.errors import Acceptance
from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.registry import SWITCHES
from handler.outbound.stop_request import stop_request_event
from tests.inbound.webhooks.fake_smn import TOPIC, FakeSmn
from tests.inbound.webhooks.receiver import NOW, Receiver, basic, bearer, form, fresh_secret, mac
from tests.test_events_folder import EVENTS

Sent = tuple[bytes, dict[str, str], str]
"""Body, headers and query."""

GOLDEN = EVENTS / "samples" / "webhooks"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
SAMPLES: list[dict[str, Any]] = [json.loads((GOLDEN / f"{name}.json").read_text()) for name in NAMES]
SECRET = fresh_secret()
KEY = SECRET.encode()
AS_BASE64 = base64.b64encode(KEY).decode()
SENT = str(int(NOW.timestamp()) - 5)
"""When a message is signed, in seconds since the epoch."""


class ByPath(dict[str, dict[str, Any]]):
    """A sample for each path."""

    def __missing__(self, path: str) -> dict[str, Any]:
        raise AssertionError(f"events/samples/webhooks/ must have a sample of {path} that has an event")


ACTS = ByPath({pair["path"]: pair for pair in reversed(SAMPLES) if pair["event"]})
"""For each path a sample that is handed on."""
SENDS_FORMS = {pair["path"] for pair in SAMPLES if "urlencoded" in pair["headers"].get("content-type", "")}
"""Paths of producers whose body is a form; else it is JSON."""


# --- tokens


@dataclass(frozen=True)
class ByToken:
    """How one producer sends a token.

    Attributes:
        path: of the producer.
        setting: holds the token.
        show: changes body, headers and query so that they hold this token.
    """

    path: str
    setting: str
    show: Callable[[str], tuple[Mapping[str, Any], dict[str, str], str]]

    @property
    def is_in_body(self) -> bool:
        """Whether the body must be read before the caller is authenticated."""
        return bool(self.show(SECRET)[0])


def in_headers(make: Callable[[str], dict[str, str]]) -> Callable[[str], Any]:
    """Send a token in headers."""
    return lambda token: ({}, make(token), "")


def in_query(token: str) -> Any:
    """Send a token in the query."""
    return {}, {}, f"token={quote(token)}"


def in_body(token: str) -> Any:
    """Send a token in the body."""
    return {"token": token}, {}, ""


# Of several rows with one path the first is what the samples are sent with.
BY_TOKEN = {
    "alertmanager": ByToken("/alertmanager", "AUTOSTOP_ALERTMANAGER_TOKEN", in_headers(bearer)),
    "alertmanager-basic": ByToken("/alertmanager", "AUTOSTOP_ALERTMANAGER_TOKEN", in_headers(basic)),
    "grafana": ByToken("/grafana", "AUTOSTOP_GRAFANA_TOKEN", in_headers(bearer)),
    "grafana-basic": ByToken("/grafana", "AUTOSTOP_GRAFANA_TOKEN", in_headers(basic)),
    "aodh": ByToken("/aodh", "AUTOSTOP_AODH_TOKEN", in_query),
    "azure": ByToken("/azure-monitor", "AUTOSTOP_AZURE_TOKEN", in_headers(bearer)),
    "azure-query": ByToken("/azure-monitor", "AUTOSTOP_AZURE_TOKEN", in_query),
    "eventbridge": ByToken("/eventbridge", "AUTOSTOP_EVENTBRIDGE_TOKEN", in_headers(bearer)),
    "eventbridge-basic": ByToken("/eventbridge", "AUTOSTOP_EVENTBRIDGE_TOKEN", in_headers(basic)),
    "gitlab": ByToken("/gitlab", "AUTOSTOP_GITLAB_TOKEN", in_headers(lambda token: {"x-gitlab-token": token})),
    "mattermost": ByToken("/mattermost", "AUTOSTOP_MATTERMOST_TOKENS", in_body),
    "mattermost-header": ByToken(
        "/mattermost", "AUTOSTOP_MATTERMOST_TOKENS", in_headers(lambda token: {"authorization": f"Token {token}"})
    ),
    "rocketchat": ByToken("/rocketchat", "AUTOSTOP_ROCKETCHAT_TOKENS", in_body),
}


# --- signatures


@dataclass(frozen=True)
class BySignature:
    """How one producer signs.

    Attributes:
        path: of the producer.
        environ: its settings, with the key.
        sign: makes the headers that authenticate a body sent at a time (seconds since the epoch), with a key.
        covers_time: the signature covers the time.
    """

    path: str
    environ: Mapping[str, Any]
    sign: Callable[[bytes, int, bytes], dict[str, str]]
    covers_time: bool = True


def _grafana(body: bytes, _: int, key: bytes) -> dict[str, str]:
    return {"x-grafana-alerting-signature": mac(key, body).hex()}


def _timed_grafana(body: bytes, at: int, key: bytes) -> dict[str, str]:
    signed = mac(key, f"{at}:".encode() + body).hex()
    return {"x-grafana-alerting-signature": signed, "x-grafana-time": str(at)}


def _gitlab(body: bytes, at: int, key: bytes) -> dict[str, str]:
    id_ = "0b9ee6a1-7ba3-4f8e-bd0e-5a8f4bd0a001"
    made = base64.b64encode(mac(key, f"{id_}.{at}.".encode() + body)).decode()
    return {"webhook-id": id_, "webhook-timestamp": str(at), "webhook-signature": f"v1,{made}"}


def _slack(body: bytes, at: int, key: bytes) -> dict[str, str]:
    signed = "v0=" + mac(key, f"v0:{at}:".encode() + body).hex()
    return {"x-slack-request-timestamp": str(at), "x-slack-signature": signed}


def _teams(body: bytes, _: int, key: bytes) -> dict[str, str]:
    return {"authorization": "HMAC " + base64.b64encode(mac(key, body)).decode()}


_GRAFANA = {"AUTOSTOP_GRAFANA_HMAC_SECRET": SECRET}
BY_SIGNATURE = {
    "grafana": BySignature("/grafana", _GRAFANA, _grafana, covers_time=False),
    "grafana-timed": BySignature(
        "/grafana", {**_GRAFANA, "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER": "X-Grafana-Time"}, _timed_grafana
    ),
    "gitlab": BySignature("/gitlab", {"AUTOSTOP_GITLAB_SIGNING_TOKEN": f"whsec_{AS_BASE64}"}, _gitlab),
    "slack": BySignature("/slack", {"AUTOSTOP_SLACK_SIGNING_SECRET": SECRET}, _slack),
    "teams": BySignature("/teams", {"AUTOSTOP_TEAMS_SECRET": AS_BASE64}, _teams, covers_time=False),
}

# SMN signs with a certificate, in the body.
SMN = FakeSmn()
_SMN = {"AUTOSTOP_SMN_TOPICS": TOPIC}


# --- all producers


Authentication = ByToken | BySignature | None


class _Table(dict[str, Authentication]):
    def __missing__(self, path: str) -> Authentication:
        table = "BY_TOKEN or BY_SIGNATURE in tests/inbound/webhooks/authentication.py"
        raise AssertionError(f"{table} must have a row for {path}")


AUTHENTICATION = _Table()
"""For each path how its samples are sent; None stands for SMN."""
_ROWS: list[ByToken | BySignature] = [*BY_TOKEN.values(), *BY_SIGNATURE.values()]
for _row in _ROWS:
    AUTHENTICATION.setdefault(_row.path, _row)
# The ids in Grafana's samples are those of a signed time.
AUTHENTICATION |= {"/smn": None, "/grafana": BY_SIGNATURE["grafana-timed"]}


def _environ(way: Authentication) -> Mapping[str, str]:
    match way:
        case ByToken():
            return {way.setting: SECRET}
        case BySignature():
            return way.environ
        case None:
            return _SMN


BODY_AUTHENTICATES = {
    path for path, way in AUTHENTICATION.items() if way is None or (isinstance(way, ByToken) and way.is_in_body)
}
"""Paths whose credentials are in the document itself, so that no other bytes are authenticated."""
ENVIRON: dict[str, Any] = {"AUTOSTOP_EVENT_SINK": "http://sink.example/"}
"""Switches every producer on."""
for _path in SWITCHES.keys() & AUTHENTICATION.keys():
    ENVIRON |= _environ(AUTHENTICATION[_path])


def encoded(path: str, document: Any) -> bytes:
    """Return a body as the producer writes it."""
    return form(document) if path in SENDS_FORMS else json.dumps(document).encode()


def authenticated(path: str, document: Any, at: int = int(SENT)) -> Sent:
    """Return what the producer sends, authenticated.

    Args:
        path: of the producer.
        document: of the body.
        at: when it is signed, in seconds since the epoch.

    Returns:
        Body, headers and query.
    """
    match AUTHENTICATION[path]:
        case ByToken() as way:
            changes, headers, query = way.show(SECRET)
            return encoded(path, {**document, **changes} if changes else document), headers, query
        case BySignature():
            return authenticated_bytes(path, encoded(path, document), at)
        case None:
            message = document["message"]
            # Kept as JSON in the sample, so that it can be read; text in the request.
            text = message if isinstance(message, str) else json.dumps(message)
            return json.dumps(SMN.sign({**document, "message": text})).encode(), {}, ""


def authenticated_bytes(path: str, body: bytes, at: int = int(SENT)) -> Sent:
    """Return any bytes as a body, with the credentials of the producer in headers or query."""
    match AUTHENTICATION[path]:
        case ByToken() as way if not way.is_in_body:
            _, headers, query = way.show(SECRET)
            return body, headers, query
        case BySignature() as way:
            return body, way.sign(body, at, KEY), ""
        case _:
            raise ValueError(f"{path} authenticates in its body")


# --- samples


def receiver(path: str, *, down: bool | Acceptance = False, **environ: Any) -> Receiver:
    """Return `receive_webhook` with every producer switched on, and the settings of the sample of one."""
    return Receiver(down=down, get=SMN.get, **{**ENVIRON, **ACTS[path]["settings"], **environ})


def places(tree: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return every place in a document as the way to it; the document itself is not one."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in inner for place in ((*way, key), *places(value, (*way, key)))]


def at(tree: Any, way: Iterable[Any]) -> Any:
    """Return the value at a place."""
    for key in way:
        tree = tree[key]
    return tree


def sample(path: str, **changes: Any) -> dict[str, Any]:
    """Return the body of the sample of a producer with changes, by the paths of members such as `alerts.0.status`."""
    body: dict[str, Any] = copy.deepcopy(ACTS[path]["body"])
    for place, value in changes.items():
        *way, last = (int(name) if name.isdigit() else name for name in place.split("."))
        at(body, way)[last] = value
    return body


def send(here: Receiver, path: str, **changes: Any) -> Answer:
    """Send the sample of a producer with changes to its body."""
    return send_body(here, path, sample(path, **changes))


def send_body(here: Receiver, path: str, document: Any, at: int = int(SENT), query: str = "") -> Answer:
    """Send a document as the producer does, with more parameters in the query; bytes are sent as they are."""
    sent = authenticated_bytes if isinstance(document, bytes) else authenticated
    body, headers, token = sent(path, document, at)
    return here.post(path, body, {**ACTS[path]["headers"], **headers}, query=f"{token}{query}")


def result_of(pair: Mapping[str, Any]) -> tuple[Answer, list[dict[str, Any]]]:
    """Send a sample; return the answer, and the events that were handed on."""
    here = Receiver(get=SMN.get, **{**ENVIRON, **pair["settings"]})
    body, headers, query = authenticated(pair["path"], pair["body"])
    answer = here.post(pair["path"], body, {**pair["headers"], **headers}, query=query)
    return answer, [dict(to_dict(stop_request_event(request, {}))) for request in here.handed]

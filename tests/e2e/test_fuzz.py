"""Random input over the real HTTP stack: never a 500, a hang or an echo, and never a stop."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.simulator import Simulator
from handler.simulator.calls import CallKind
from tests.support.events import STOP
from tests.support.raw_http import MAX_BODY, FunctionProcess, request, statuses

# The server answers these and no others, whatever is sent.
ALLOWED = {100, 200, 204, 400, 401, 403, 405, 413, 415, 503}
SERVER = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"


class Target:
    """The running function, the cloud behind it, and a server there that must keep running."""

    def __init__(self, process: FunctionProcess, cloud: Simulator) -> None:
        self.process = process
        self.cloud = cloud

    def throw(self, sent: bytes, mark: str) -> list[int]:
        """Send bytes that ask for nothing valid, see that they do no harm, and return the answers' statuses."""
        answer = self.process.exchange(sent)
        found = statuses(answer)
        assert set(found) <= ALLOWED, answer
        assert mark.encode() not in answer
        assert self.cloud.count(CallKind.STOP) == 0
        return found


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One process and one cloud for all examples."""
    with Simulator() as cloud:
        cloud.add_server("untouched", id=SERVER)
        with FunctionProcess(cloud, tmp_path_factory.mktemp("fuzz")) as process:
            yield Target(process, cloud)


def marked() -> st.SearchStrategy[str]:
    """A token that no answer has by chance."""
    return st.builds(lambda: f"mark{secrets.token_hex(8)}")


TOKEN = st.text(
    "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", min_size=1, max_size=20
)
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
MEDIA_TYPES = st.sampled_from(
    [
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/cloudevents+xml",
        "application/json",
        "application/json; charset=utf-16",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        ";",
        "",
    ]
)
NAMES = st.sampled_from(
    [
        "ce-id",
        "ce-source",
        "ce-type",
        "ce-specversion",
        "ce-time",
        "ce-subject",
        "ce-expirytime",
        "ce-traceparent",
        "traceparent",
        "Authorization",
        "Cookie",
        "Connection",
        "Upgrade",
        "Expect",
        "Accept-Encoding",
        "Content-Encoding",
        "X-Forwarded-Proto",
        "X-Forwarded-For",
        "X-HTTP-Method-Override",
        "Function-Execution-Id",
        "X-Cloud-Trace-Context",
        "SCRIPT_NAME",
        "PATH_INFO",
        "Range",
        "If-Match",
        "WebHook-Request-Origin",
        "WebHook-Request-Rate",
        "Host",
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=12)
    | st.sampled_from([SERVER, STOP, "1.0", "2026-11-20T19:00:00Z"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["id", "source", "type", "specversion", "time", "data", "data_base64", "server_ids", "dry_run"]
            )
            | st.text(max_size=8),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=100)
@given(body=st.binary(max_size=600), media_type=MEDIA_TYPES, mark=marked(), chunked=st.booleans())
def test_any_bytes_as_a_body(target: Target, body: bytes, media_type: str, mark: str, chunked: bool) -> None:
    """A body of any bytes, under any media type, has one answer that reveals nothing of it."""
    body += mark.encode()
    headers = {"Content-Type": media_type}
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert len(target.throw(request(headers=headers, body=body), mark)) == 1


@settings(max_examples=100)
@given(headers=st.dictionaries(TOKEN | NAMES, VALUE, max_size=8), media_type=MEDIA_TYPES, mark=marked())
def test_any_headers(target: Target, headers: dict[str, str], media_type: str, mark: str) -> None:
    """Headers of any name and value that HTTP allows, each with the mark, come to nothing."""
    framing = {"content-length", "transfer-encoding", "content-type", "host"}
    sent = {name: f"{value}{mark}" for name, value in headers.items() if name.lower() not in framing}
    # specversion is marked as well, so that no event can come out whole.
    sent.update({"Content-Type": media_type, "ce-specversion": mark, "Content-Length": "2", mark: mark})
    found = target.throw(request(headers=sent, body=b"{}"), mark)
    assert found in ([400], [405], [413], [415], [100, 400])


@settings(max_examples=60)
@given(
    method=st.sampled_from(["GET", "HEAD", "OPTIONS", "PUT", "POST", "TRACE", "CONNECT", "PRI"]) | TOKEN,
    path=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60),
    query=st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=30),
    mark=marked(),
)
def test_any_method_and_target(target: Target, method: str, path: str, query: str, mark: str) -> None:
    """No method and no path is a way in or a way to crash."""
    target.throw(request(method, f"/{path}{mark}?{query}{mark}", {"Content-Type": "text/plain"}, mark.encode()), mark)
    target.throw(request(method, f"{path}{mark}", {}, b""), mark)


@settings(max_examples=100)
@given(document=JSON, media_type=MEDIA_TYPES, mark=marked())
def test_any_json_that_is_not_a_whole_event(target: Target, document: object, media_type: str, mark: str) -> None:
    """JSON that has the words of an event in the wrong places stops nothing."""
    for body in (
        {"specversion": "1.0", "id": mark, "source": mark, "type": STOP, "data": {"server_ids": [mark], "a": document}},
        {"specversion": "1.0", "id": mark, "source": mark, "type": mark, "data": document},
        [{"specversion": "1.0", "id": document, "source": mark, "type": STOP, "data": {"server_ids": [SERVER]}}, mark],
    ):
        sent = request(headers={"Content-Type": media_type}, body=json.dumps(body).encode()[: MAX_BODY + 1])
        assert target.throw(sent, mark) in ([400], [413], [415])


@settings(max_examples=60)
@given(noise=st.binary(max_size=300), cut=st.integers(0, 200), at=st.integers(0, 200), mark=marked())
def test_any_bytes_on_the_line(target: Target, noise: bytes, cut: int, at: int, mark: str) -> None:
    """Noise alone, and a good request with noise in it or cut short, end the exchange in good order."""
    target.throw(noise + mark.encode(), mark)
    headers = {"Content-Type": "text/plain", "ce-id": mark, "ce-specversion": mark}
    good = request(headers=headers, body=mark.encode() * 3)
    target.throw(good[: min(cut, len(good) - 1)], mark)
    target.throw(good[:at] + noise + good[at:], mark)


def test_it_is_as_alive_as_before(target: Target) -> None:
    """After all that the function still works, its log is still JSON without a traceback, and nothing was stopped."""
    assert statuses(target.process.exchange(request("GET", "/readyz"))) == [200]
    assert target.cloud.server(SERVER).vm_state == "active"
    lines = target.process.log_lines()
    assert not [line for line in lines if line["level"] == "ERROR" or "exception" in line]
    # What a malformed event calls itself is reported, so that its sender can be found; nothing else that was sent is.
    for line in lines:
        for name in ("event_source", "event_id", "event_type"):
            line.pop(name, None)
    assert not re.search(r"mark[0-9a-f]{16}", json.dumps(lines))

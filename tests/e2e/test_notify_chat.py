"""The whole `notify_chat`: loaded by functions-framework, over real HTTP, from a result event to a chat."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import BadEvent, ChatUnreachable
from handler.event_types import STOP_FAILED, STOP_REQUESTED
from handler.inbound.cloudevents.result_events import ResultEvent
from handler.inbound.http.request import HttpRequest
from handler.outbound.result import binary, result_event
from handler.services.notify_chat import NotifyService
from handler.settings.notify_chat import NotifySettings, from_environ
from handler.simulator import Simulator
from handler.stop.model import Reason, Report
from tests.conftest import serving
from tests.inbound.webhooks.receiver import fresh_secret
from tests.outbound.chat.reports import reported
from tests.support.capture import logged
from tests.support.issuer import Issuer, bearer, claims, rsa_key, token
from tests.support.sink_server import Say, SinkServer
from tests.test_events_folder import RESULTS, sample, schema_violations

Serve = Callable[[str, Mapping[str, str]], str]
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
TOKEN = fresh_secret()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A way to serve a target."""
    with serving(monkeypatch) as serve:
        yield serve


def notify(serve: Serve, *chats: SinkServer, **environ: str) -> str:
    """Serve `notify_chat` with a webhook of Slack, if there is a chat."""
    urls = {"AUTOSTOP_NOTIFY_SLACK_URL": f"{chats[0].url}/webhook"} if chats else {}
    return serve("notify_chat", {"AUTOSTOP_INBOUND_AUTH": "none", **urls, **environ})


def post(url: str, document: Any) -> requests.Response:
    """Send an event in structured mode, or a batch."""
    return requests.post(url, json=document, headers=BATCH if isinstance(document, list) else STRUCTURED, timeout=30)


def at(chat: SinkServer) -> str:
    """The origin of a chat that runs here."""
    return chat.url.removesuffix("/results")


def command(report: Report, chat: SinkServer) -> Report:
    """The same report, asked for by a command whose answer goes there."""
    return reported(*(row.reason for row in report.servers), reply_to=f"{at(chat)}/commands/T/1/very-secret")


def send(url: str, report: Report, more: Mapping[str, str] | None = None) -> requests.Response:
    """Send a report as `stop_servers` does, with further headers."""
    headers, body = binary(result_event(report, source="/bms-autostop", extensions={}))
    return requests.post(url, data=body, headers={**headers, **(more or {})}, timeout=30)


def problem(answer: requests.Response, status: int) -> Any:
    """The problem document of an answer."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert schema_violations("problem.json", answer.json()) == []
    return answer.json()


REPORT = reported(Reason.CONFIRMED, Reason.BUSY)


def test_a_result_is_reported_by_the_configured_webhook(serve: Serve) -> None:
    """204 and nothing else, once the chat has taken the message; the log has one line of it."""
    with SinkServer(Say(200, body=b"ok")) as chat, logged() as lines:
        answer = send(notify(serve, chat), REPORT)
    assert (answer.status_code, answer.content) == (204, b"")
    (got,) = chat.got
    assert got.path == "/results/webhook"
    assert got.data["text"] == "Asked to stop: 2 servers, of which 1 failed, 1 stopped."
    (line,) = lines.of("result posted")
    assert (line["chat"], line["reply"], line["event_source"]) == ("slack", False, "/bms-autostop")
    assert line["event_type"] == "io.github.bms-autostop.stop.failed.v1"


def test_every_sample_is_reported(serve: Serve) -> None:
    """In structured mode too."""
    with SinkServer() as chat:
        url = notify(serve, chat)
        for number, name in enumerate(RESULTS):
            document = {**sample(f"out/{name}"), "id": f"sample-{number}"}
            assert post(url, document).status_code == 204, name
    assert len(chat.got) == len(RESULTS)


def test_a_command_is_answered_where_it_was_typed(serve: Serve) -> None:
    """And not by the webhook as well."""
    with SinkServer() as webhook, SinkServer() as slack:
        url = notify(serve, webhook, AUTOSTOP_SLACK_HOSTS=at(slack))
        assert send(url, command(REPORT, slack)).status_code == 204
    assert [got.path for got in slack.got] == ["/commands/T/1/very-secret"]
    assert slack.got[0].data["response_type"] == "in_channel"
    assert webhook.got == []


def test_an_address_that_is_not_allowed_is_never_asked(serve: Serve) -> None:
    """The webhook gets the message instead."""
    with SinkServer() as webhook, SinkServer() as other:
        url = notify(serve, webhook)
        assert send(url, command(REPORT, other)).status_code == 204
    assert (other.got, len(webhook.got)) == ([], 1)


def test_an_expired_address_is_replaced_by_the_webhook(serve: Serve) -> None:
    """Slack's is good for 30 minutes and 5 posts."""
    with SinkServer() as webhook, SinkServer(Say(404)) as slack, logged() as lines:
        url = notify(serve, webhook, AUTOSTOP_SLACK_HOSTS=at(slack))
        assert send(url, command(REPORT, slack)).status_code == 204
    assert (len(slack.got), len(webhook.got)) == (1, 1)
    assert "very-secret" not in lines.text


def test_an_event_that_no_chat_accepts_becomes_a_dead_letter(serve: Serve) -> None:
    """400: a broker does not send it again, and keeps it as a dead letter."""
    with SinkServer(Say(404)) as chat, logged() as lines:
        answer = send(notify(serve, chat), REPORT)
    document = problem(answer, 400)
    assert document["violations"] == [{"at": "event", "message": "must be accepted by a chat; the log has the reason"}]
    (line,) = lines.of("result not posted")
    assert (line["level"], line["problem"], line["detail"]) == ("WARNING", "chat-refused", "Every chat refuses it.")
    assert "/webhook" not in lines.text + answer.text


@pytest.mark.parametrize("shown", [Say(429, {"Retry-After": "7"}), Say(500), Say(0)])
def test_a_transient_error_is_503_and_the_next_time_it_is_reported(serve: Serve, shown: Say) -> None:
    """The webhook of the same chat is not asked instead: it would have the same error, or post it twice."""
    with SinkServer() as webhook, SinkServer(shown) as slack, logged() as lines:
        url = notify(serve, webhook, AUTOSTOP_SLACK_HOSTS=at(slack))
        first, second = send(url, command(REPORT, slack)), send(url, command(REPORT, slack))
    document = problem(first, 503)
    assert document["type"] == "urn:bms-autostop:problem:chat-unreachable"
    assert first.headers["Retry-After"] == ("7" if shown.headers else "10")
    assert (second.status_code, len(slack.got), webhook.got) == (204, 2, [])
    (line,) = lines.of("result not posted")
    assert line["problem"] == "chat-unreachable"
    assert "very-secret" not in lines.text + first.text


def test_the_same_result_is_reported_once_by_one_process(serve: Serve) -> None:
    """A redelivery is a success and no second message, whenever it was made; another result is posted."""
    later = REPORT._replace(finished_at=REPORT.finished_at + timedelta(days=1))
    with SinkServer() as chat, logged() as lines:
        url = notify(serve, chat)
        answers = [send(url, report) for report in (REPORT, REPORT, reported(Reason.BUSY, id="event-2"), later)]
    assert [answer.status_code for answer in answers] == [204] * 4
    assert len(chat.got) == 2
    assert len(lines.of("result posted before")) == 2


@pytest.mark.parametrize(("reply_to", "level"), [("", "INFO"), ("https://elsewhere.example/x", "WARNING")])
def test_without_a_chat_the_log_says_so(serve: Serve, reply_to: str, level: str) -> None:
    """A schedule without a channel is not an error; a user who asked and gets no answer is a warning."""
    with logged() as lines:
        assert send(notify(serve), reported(Reason.BUSY, reply_to=reply_to)).status_code == 204
    (line,) = lines.of("result not posted")
    assert (line["level"], line["detail"]) == (level, "No chat is set for it.")
    assert "elsewhere" not in lines.text
    assert len(lines.of("no webhook of a chat is set")) == 1


def test_callers_authenticate(serve: Serve) -> None:
    """As at `stop_servers`, by either method; nothing is posted for others. It is ready once the issuer's keys are."""
    now = int(time.time())
    with Issuer() as issuer, SinkServer() as chat:
        claimed = claims(iss=issuer.url, iat=now, nbf=now, exp=now + 600)
        tokens = {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": TOKEN}
        for number, (environ, opens) in enumerate(
            ((tokens, bearer(TOKEN)), (issuer.environ(), bearer(token(claimed, rsa_key("first"), "one"))))
        ):
            url = notify(serve, chat, **environ)
            assert requests.get(f"{url}/readyz", timeout=30).status_code == 200
            problem(send(url, REPORT), 401)
            assert len(chat.got) == number
            assert send(url, REPORT, opens).status_code == 204
            assert len(chat.got) == number + 1


def test_it_is_not_ready_without_the_issuers_keys(serve: Serve) -> None:
    """No caller could be authenticated."""
    with Issuer() as issuer:
        environ = issuer.environ()
    document = problem(requests.get(f"{notify(serve, **environ)}/readyz", timeout=30), 503)
    assert document["type"] == "urn:bms-autostop:problem:keys-unreachable"


def test_health_handshake_and_other_methods(serve: Serve) -> None:
    """The same front as before the other targets."""
    url = notify(serve, AUTOSTOP_WEBHOOK_ORIGINS="broker.example", AUTOSTOP_MAX_BODY="2KiB")
    assert [requests.get(f"{url}/{path}", timeout=30).status_code for path in ("healthz", "readyz")] == [200, 200]
    shake = requests.options(url, headers={"WebHook-Request-Origin": "broker.example"}, timeout=30)
    assert (shake.status_code, shake.headers["WebHook-Allowed-Origin"]) == (200, "broker.example")
    problem(requests.options(url, headers={"WebHook-Request-Origin": "evil.example"}, timeout=30), 403)
    problem(requests.put(url, timeout=30), 405)
    problem(requests.post(url, data=b"x" * 2049, timeout=30), 413)
    problem(requests.post(url, data=b"x", headers={"Content-Type": "text/plain"}, timeout=30), 415)


def test_a_dead_lettered_copy_is_not_reported_again(serve: Serve) -> None:
    """The broker made it because reporting it did not work; it would go round in circles."""
    with SinkServer() as chat, logged() as lines:
        document = {**sample("out/failed.json"), "knativeerrorcode": "400"}
        answer = post(notify(serve, chat), document)
    assert (answer.status_code, chat.got) == (204, [])
    (line,) = lines.of("event ignored")
    assert line["detail"] == "dead-lettered copy"


def test_what_is_not_a_result_is_refused_with_every_violation(serve: Serve) -> None:
    """A stop request sent to the wrong function is refused."""
    with SinkServer() as chat:
        url = notify(serve, chat)
        wrong = post(url, {**sample("in/dry-run.json"), "id": ""})
    assert {violation["at"] for violation in problem(wrong, 400)["violations"]} == {"id", "type"}
    assert chat.got == []


def test_a_batch_is_reported_one_by_one(serve: Serve) -> None:
    """And the same event twice in it is reported once."""
    events = [sample("out/completed.json"), sample("out/failed.json"), sample("out/completed.json")]
    with SinkServer() as chat:
        answer = post(notify(serve, chat), events)
    assert (answer.status_code, len(chat.got)) == (204, 2)


def test_a_batch_is_all_or_nothing_at_the_endpoint(serve: Serve) -> None:
    """One malformed member, or two events under one name, and nothing is reported."""
    good, other = sample("out/completed.json"), sample("out/failed.json")
    with SinkServer() as chat:
        url = notify(serve, chat)
        bad = post(url, [good, {**other, "data": None, "time": "now"}])
        two = requests.post(url, json=[good, {**other, "id": good["id"]}], headers=BATCH, timeout=30)
    assert {violation["at"] for violation in problem(bad, 400)["violations"]} == {"[1].data", "[1].time"}
    assert {violation["at"] for violation in problem(two, 400)["violations"]} == {"[1].id"}
    assert chat.got == []


def test_of_a_batch_that_comes_again_only_the_rest_is_reported(serve: Serve) -> None:
    """Each is tried, and those that were reported are remembered."""
    events = [{**sample("out/completed.json"), "id": f"e-{number}"} for number in range(3)]
    with SinkServer(Say(200), Say(503), Say(200)) as chat:
        url = notify(serve, chat)
        first = post(url, events)
        second = post(url, events)
    problem(first, 503)
    assert (second.status_code, len(chat.got)) == (204, 4)


def settings(chat: SinkServer, **environ: str) -> NotifySettings:
    """Settings with a webhook of plain text."""
    return from_environ({"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_NOTIFY_TEXT_URL": chat.url, **environ})


def results(count: int) -> list[ResultEvent]:
    """So many results."""
    return [ResultEvent("/s", f"e-{number}", STOP_FAILED, REPORT) for number in range(count)]


@contextmanager
def posting(answer: Say) -> Iterator[tuple[SinkServer, NotifyService, Callable[[], Future[None]], threading.Event]]:
    """A chat whose first answer waits for the event, a service, and a way to post a result in a thread."""
    release = threading.Event()
    with SinkServer(replace(answer, after=release)) as chat, ThreadPoolExecutor(8) as threads:
        service = NotifyService(settings(chat))
        yield chat, service, lambda: threads.submit(service.post, results(1), time.monotonic() + 60), release


def test_a_transient_error_comes_before_a_refusal() -> None:
    """A batch with both must come again, or what would be reported later would be lost."""
    with SinkServer(Say(404), Say(503)) as chat, pytest.raises(ChatUnreachable):
        NotifyService(settings(chat)).post(results(2), 1e9)
    with SinkServer(Say(404), Say(200)) as chat, pytest.raises(BadEvent) as caught:
        NotifyService(settings(chat)).post(results(2), 1e9)
    assert len(caught.value.violations) == 1
    assert len(chat.got) == 2


def test_when_the_budget_is_spent_the_rest_comes_again() -> None:
    """What was reported until then stays reported."""
    clock = iter([0.0, 0.0, 9.0, 9.0, 9.0, 9.0, 20.0, 20.0])
    with SinkServer() as chat:
        made = NotifyService(settings(chat, AUTOSTOP_DEADLINE="10s"), monotonic=lambda: next(clock))
        with pytest.raises(ChatUnreachable, match="no time left"):
            made.post(results(4), 0.0)
    assert len(chat.got) == 3


def test_the_memory_of_what_was_reported_has_an_end() -> None:
    """The process may live for months; what was reported last is what comes again."""
    with SinkServer() as chat:
        made = NotifyService(settings(chat))
        for result in results(1002):
            assert made._posted.claim(result, 0.0)
            made._posted.release(result, posted=True)
        first, *_, last = results(1002)
        made.post([last], 1e9)
        assert chat.got == []
        made.post([first], 1e9)
        assert len(chat.got) == 1
        assert len(made._posted._posted) == 1000


def test_identical_results_that_come_together_are_posted_once() -> None:
    """The others wait until it is known whether it was posted, and are repeats then."""
    with logged() as lines, posting(Say(200)) as (chat, _, start, release):
        posts = [start() for _ in range(8)]
        chat.wait(1)
        release.set()
        for each in posts:
            each.result(60)
    assert len(chat.got) == 1
    assert (len(lines.of("result posted")), len(lines.of("result posted before"))) == (1, 7)


def test_a_result_that_could_not_be_posted_is_posted_by_the_delivery_that_waits() -> None:
    """Nothing is lost if the first one fails."""
    with posting(Say(503)) as (chat, _, start, release):
        first = start()
        chat.wait(1)
        second = start()
        release.set()
        with pytest.raises(ChatUnreachable):
            first.result(60)
        second.result(60)
    assert len(chat.got) == 2


def test_a_delivery_does_not_wait_for_another_one_beyond_its_time() -> None:
    """It must come again; what is posted by then is known."""
    with posting(Say(200)) as (chat, service, start, release):
        first = start()
        chat.wait(1)
        # The deadline of the settings is over by then.
        with pytest.raises(ChatUnreachable, match="not posted in time"):
            service.post(results(1), time.monotonic() - 60)
        release.set()
        first.result(60)
        service.post(results(1), time.monotonic())
    assert len(chat.got) == 1


@given(
    st.binary(max_size=200)
    | st.from_type(str).map(str.encode)
    | st.sampled_from(RESULTS).map(lambda name: json.dumps(sample(f"out/{name}")).encode()),
    st.sampled_from(["application/cloudevents+json", "application/cloudevents-batch+json", "application/json", ""]),
    st.integers(0, 2000),
    st.binary(max_size=3),
)
def test_whatever_is_sent_the_answer_is_one_of_those_that_are_written_down(
    body: bytes, kind: str, where: int, put: bytes
) -> None:
    """Any bytes, and any change of a real result: no 500, no traceback, and no chat is asked in vain."""
    changed = body[:where] + put + body[where + 1 :]
    endpoint = NotifyService(from_environ({"AUTOSTOP_INBOUND_AUTH": "none"})).endpoint()
    for sent in (body, changed):
        answer = endpoint.answer(HttpRequest("POST", "/", {"content-type": kind}, sent, 0.0))
        assert answer.status in (204, 400, 413, 415)
        if answer.status != 204:
            assert schema_violations("problem.json", json.loads(answer.body)) == []


def test_from_a_command_to_its_answer(serve: Serve, cloud: Simulator) -> None:
    """`stop_servers` sends its result to `notify_chat`, which answers where the command was typed."""
    server = cloud.add_server("ci-07")
    with SinkServer() as slack:
        notifier = notify(serve, AUTOSTOP_SLACK_HOSTS=at(slack))
        stop = serve("stop_servers", {"AUTOSTOP_RESULT_SINK": notifier, **cloud.environ()})
        data = {"server_ids": [server], "reply_to": f"{at(slack)}/commands/T/1/x"}
        event = {"specversion": "1.0", "id": "1", "source": "/s", "type": STOP_REQUESTED}
        answer = post(stop, {**event, "data": data})
    assert answer.status_code == 204
    (got,) = slack.got
    assert got.data["text"] == "Asked to stop: 1 server, of which 1 stopped."
    assert re.search(rf"ci-07 \({server}\)", got.body.decode())

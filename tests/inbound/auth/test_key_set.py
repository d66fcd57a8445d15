"""The issuer's keys: fetched once for all, kept, rotated, and what happens while they cannot be fetched."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from jwt import PyJWK

from handler.errors import KeysUnreachable
from handler.inbound.auth.key_set import Keys
from tests.support.capture import logged
from tests.support.issuer import jwk, rsa_key

ONE = PyJWK(jwk(rsa_key("first"), "one"), "RS256")
TWO = PyJWK(jwk(rsa_key("second"), "two"), "RS256")


class Server:
    """A key server that the test turns on and off, and a clock that the test sets."""

    def __init__(self, *names: str) -> None:
        self.now = 1000.0
        self.has = set(names)
        self.down: Exception | None = None
        self.fetched = 0
        self.seconds: list[float] = []
        self.keys = Keys(self.fetch, self.monotonic)

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def fetch(self, seconds: float) -> Mapping[str, PyJWK]:
        """Return the keys, or raise the error."""
        assert 0 < seconds <= 5
        self.seconds.append(seconds)
        self.fetched += 1
        if self.down is not None:
            raise self.down
        return {name: ONE if name == "one" else TWO for name in self.has}


def unreachable(keys: Keys, kid: str) -> float:
    """Whether there is the key cannot be determined now; how long to wait."""
    with pytest.raises(KeysUnreachable) as raised:
        keys.find(kid)
    assert raised.value.retry_after is not None
    return raised.value.retry_after


def test_keys_are_fetched_once_and_kept() -> None:
    """For ten minutes; then they are fetched again."""
    server = Server("one", "two")
    keys = server.keys
    assert (keys.find("one"), keys.find("two"), keys.find("one")) == (ONE, TWO, ONE)
    assert server.fetched == 1
    server.now += 599
    assert (keys.find("one"), server.fetched) == (ONE, 1)
    server.now += 2
    assert (keys.find("one"), server.fetched) == (ONE, 2)


def test_a_new_key_is_fetched_when_it_is_first_used() -> None:
    """Rotation: the new key is accepted at once, and the old one as long as the issuer has it."""
    server = Server("one")
    keys = server.keys
    keys.find("one")
    server.now += 1
    server.has = {"one", "two"}
    assert (keys.find("two"), keys.find("one"), server.fetched) == (TWO, ONE, 2)
    server.has = {"two"}
    server.now += 601
    assert (keys.find("two"), keys.find("one"), server.fetched) == (TWO, None, 3)


def test_many_unknown_keys_do_not_cause_many_requests() -> None:
    """One fetch in three seconds. In between an unknown key may be a new one: a 503."""
    server = Server("one")
    keys = server.keys
    keys.find("one")
    server.now += 1
    assert keys.find("forged-1") is None
    assert server.fetched == 2
    for _ in range(29):
        server.now += 0.1
        assert 0 < unreachable(keys, f"forged-{server.now}") <= 3
        assert keys.find("forged-1") is None
        assert keys.find("one") == ONE
    assert server.fetched == 2
    server.now += 0.2
    assert keys.find("forged-2") is None
    assert server.fetched == 3


def test_a_key_that_appears_during_a_flood_is_not_called_wrong() -> None:
    """Its first use comes too early, and is not lost."""
    server = Server("one")
    keys = server.keys
    assert keys.find("forged") is None
    server.has = {"one", "two"}
    server.now += 1
    server.now += unreachable(keys, "two")
    assert keys.find("two") == TWO


def test_a_key_server_that_is_down_is_not_a_verdict() -> None:
    """Neither pass nor refusal, but a 503; keys are fetched again after ten seconds, and not before."""
    server = Server("one")
    server.down = KeysUnreachable("down")
    keys = server.keys
    assert unreachable(keys, "one") == 10
    for _ in range(9):
        server.now += 1
        assert unreachable(keys, "one") < 10
    assert server.fetched == 1
    server.now += 1
    server.down = None
    assert (keys.find("one"), server.fetched) == (ONE, 2)


def test_what_is_known_counts_for_an_hour_while_the_key_server_is_down() -> None:
    """A fetched key is accepted; for another there is no verdict, even if it was unknown before."""
    server = Server("one")
    keys = server.keys
    keys.find("one")
    server.now += 1
    assert keys.find("forged") is None
    server.down = KeysUnreachable("down")
    began = server.now
    while server.now - began < 3590:
        server.now += 11
        assert keys.find("one") == ONE
        unreachable(keys, "forged")
        unreachable(keys, "two")
    server.now += 11
    unreachable(keys, "one")
    assert server.fetched < 340


def test_the_key_server_may_say_when_to_come_back() -> None:
    """Within a minute: no caller is locked out for longer because of one answer."""
    for reported, waited in ((0.0, 10), (30.0, 30), (3600.0, 60), (None, 10)):
        server = Server("one")
        server.down = KeysUnreachable("down", retry_after=reported)
        assert unreachable(server.keys, "one") == waited


def test_an_unusable_answer_does_not_cause_many_requests_either() -> None:
    """Whatever is raised, the next try waits."""
    server = Server("one")
    server.down = RuntimeError("bug")
    keys = server.keys
    with pytest.raises(RuntimeError):
        keys.find("one")
    unreachable(keys, "one")
    assert server.fetched == 1


def test_no_caller_waits_for_keys_beyond_its_budget() -> None:
    """The fetch is cut short for the caller that began it; without time left there is none, and no pause after it."""
    server = Server("one")
    keys = server.keys
    for left in (0.0, -1.0):
        with pytest.raises(KeysUnreachable):
            keys.find("one", server.now + left)
    assert server.fetched == 0
    assert keys.find("one", server.now + 1.5) == ONE
    assert server.seconds == [1.5]
    server.now += 601
    assert keys.find("one", server.now + 100) == ONE
    assert server.seconds == [1.5, 5.0]
    assert keys.find("one", server.now - 1) == ONE


def test_who_waits_for_another_callers_fetch_leaves_in_time() -> None:
    """With the time of its own event."""
    server = Server("one")
    keys = server.keys
    with keys._alone(server.now + 1), pytest.raises(KeysUnreachable, match="takes too long"):
        keys.find("one", server.now + 0.01)
    assert keys.find("one") == ONE


def test_why_keys_were_not_renewed_stands_in_the_log() -> None:
    """Once a try."""
    server = Server("one")
    server.down = KeysUnreachable("The key server gave no response.")
    keys = server.keys
    with logged() as lines:
        unreachable(keys, "one")
        unreachable(keys, "one")
    (line,) = lines.all
    assert line["message"] == "the issuer's keys were not renewed"
    assert line["detail"] == "The key server gave no response."
    assert (line["level"], line["problem"]) == ("WARNING", "keys-unreachable")


def test_ready_means_that_keys_are_here() -> None:
    """They are fetched if need be, but not as long as the cached ones count."""
    server = Server("one")
    server.down = KeysUnreachable("down")
    keys = server.keys
    for _ in range(3):
        with pytest.raises(KeysUnreachable):
            keys.ready()
    assert server.fetched == 1
    server.down = None
    server.now += 11
    keys.ready()
    server.down = KeysUnreachable("down")
    server.now += 3599
    keys.ready()
    assert (keys.find("one"), server.fetched) == (ONE, 3)
    server.now += 11
    with pytest.raises(KeysUnreachable):
        keys.ready()


class Slow(Server):
    """A key server that answers when the test lets it; each reading of the clock is counted."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.requested = threading.Event()
        self.answer = threading.Event()
        self.readings = threading.Semaphore(0)

    def monotonic(self) -> float:
        """Count the reading."""
        self.readings.release()
        return self.now

    def fetch(self, seconds: float) -> Mapping[str, PyJWK]:
        """Wait, then answer a second later."""
        self.requested.set()
        assert self.answer.wait(20)
        self.now += 1.0
        return super().fetch(seconds)


def test_two_events_at_once_fetch_once() -> None:
    """A caller that arrives while another fetches gets the result of that: the key, or that there is none."""
    server = Slow("one")
    keys = server.keys
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(keys.find, "one")
        assert server.requested.wait(20)
        others = [pool.submit(keys.find, kid) for kid in ("one", "one", "forged-1", "forged-2")]
        # Two readings by the caller that fetches, one by each of the others when it arrives.
        for _ in range(2 + len(others)):
            assert server.readings.acquire(timeout=20)
        server.answer.set()
        assert first.result(20) == ONE
        assert [other.result(20) for other in others] == [ONE, ONE, None, None]
    assert server.fetched == 1


def test_who_has_a_key_does_not_wait_for_newer_ones() -> None:
    """A slow key server holds up one event at most."""
    server = Slow("one")
    server.answer.set()
    keys = server.keys
    keys.find("one")
    server.answer.clear()
    server.requested.clear()
    server.now += 601
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(keys.find, "one")
        assert server.requested.wait(20)
        assert keys.find("one") == ONE
        assert not renewing.done()
        server.answer.set()
        assert renewing.result(20) == ONE


def test_no_caller_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller without a key gets a 503."""
    monkeypatch.setattr("handler.inbound.auth.key_set._LONGEST_WAIT", 0.01)
    server = Slow("one")
    keys = server.keys
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(keys.find, "one")
        assert server.requested.wait(20)
        with pytest.raises(KeysUnreachable, match="takes too long"):
            keys.find("one")
        with pytest.raises(KeysUnreachable, match="takes too long"):
            keys.ready()
        server.answer.set()
        assert fetching.result(20) == ONE

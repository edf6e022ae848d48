"""Limits of connections and of handshakes a second, with time as the test says.

What must not live here: answers to clients (asyncio/test_admission.py).
"""

from __future__ import annotations

import random

import pytest

from tidegate import limits
from tidegate.limits import ADDRESS, RATE, RETRY_AFTER, Limiter, share


def test_shares() -> None:
    """A worker's share of a limit is at least its part, and never more than all of it."""
    assert share(10, 1) == 10
    assert share(1, 8) == 1
    assert share(10, 8) == 5
    assert share(1000, 2) == 548
    assert all(limit / workers <= share(limit, workers) <= limit for limit in (1, 7, 100) for workers in (1, 2, 64))


def test_a_client_within_its_limit_is_hardly_ever_rejected() -> None:
    chance = random.Random(1)
    workers, limit, rejected = 8, 20, 0
    for _ in range(1000):
        spread = [chance.randrange(workers) for _ in range(limit)]
        rejected += max(map(spread.count, range(workers))) > share(limit, workers)
    assert rejected <= 20


def test_connections_of_everybody() -> None:
    now = [3]
    limiter = Limiter(connections=3, of_all=lambda: now[0])
    assert not limiter.full()
    now[0] = 4
    assert limiter.full()
    assert not Limiter(of_all=lambda: 10**9).full()


def test_connections_of_an_address() -> None:
    limiter = Limiter(per_address=2)
    assert limiter.by_address
    assert limiter.enter(b"a", 0) is None
    assert limiter.enter(b"a", 0) is None
    assert limiter.enter(b"a", 0) == (ADDRESS, RETRY_AFTER)
    assert limiter.enter(b"b", 0) is None
    limiter.leave(b"a", 1)
    assert limiter.enter(b"a", 1) is None
    for _ in range(2):
        limiter.leave(b"a", 2)
    limiter.leave(b"b", 2)
    assert limiter.remembered == 0


def test_rate_of_an_address() -> None:
    limiter = Limiter(rate=2, burst=3)
    assert [limiter.enter(b"a", 10.0) for _ in range(4)] == [None, None, None, (RATE, 1)]
    assert limiter.enter(b"b", 10.0) is None
    assert limiter.enter(b"a", 10.4) == (RATE, 1)
    assert limiter.enter(b"a", 10.5) is None
    assert limiter.enter(b"a", 10.5) == (RATE, 1)
    assert [limiter.enter(b"a", 99.0) for _ in range(4)] == [None, None, None, (RATE, 1)]


def test_a_slow_rate_says_when_to_come_again() -> None:
    limiter = Limiter(rate=0.1)
    assert limiter.enter(b"a", 0) is None
    assert limiter.enter(b"a", 0) == (RATE, 10)
    assert limiter.enter(b"a", 4) == (RATE, 6)
    assert limiter.enter(b"a", 10) is None


def test_a_rate_is_shared_in_equal_parts() -> None:
    workers = [Limiter(rate=8, workers=4) for _ in range(4)]
    assert sum(worker.enter(b"a", second) is None for worker in workers for second in range(100)) <= 8 * 100 + 32
    patient = Limiter(rate=8, workers=4)
    assert all(patient.enter(b"a", turn / 2) is None for turn in range(100))


def test_a_rejection_for_one_limit_costs_nothing_of_the_other() -> None:
    limiter = Limiter(per_address=1, rate=1, burst=2)
    assert limiter.enter(b"a", 0) is None
    assert limiter.enter(b"a", 0) == (ADDRESS, RETRY_AFTER)
    limiter.leave(b"a", 0)
    assert limiter.enter(b"a", 0) is None


def test_addresses_are_forgotten() -> None:
    limiter = Limiter(rate=1, burst=1)
    for turn in range(1000):
        key = turn.to_bytes(4, "big")
        assert limiter.enter(key, turn) is None
        limiter.leave(key, turn)
    assert limiter.remembered <= 2


def test_addresses_that_may_not_be_forgotten_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEPT", 100)
    limiter = Limiter(rate=0.001, burst=1)
    for turn in range(1000):
        key = turn.to_bytes(4, "big")
        assert limiter.enter(key, turn / 1000) is None
        assert limiter.enter(key, turn / 1000) is not None
        limiter.leave(key, turn / 1000)
    assert limiter.remembered <= 101


def test_who_is_rejected_all_the_time_is_not_forgotten_and_not_let_in() -> None:
    limiter = Limiter(rate=1, burst=1)
    let_in = 0
    for turn in range(1000):
        if limiter.enter(b"a", turn / 100) is None:
            let_in += 1
            limiter.leave(b"a", turn / 100)
    assert 9 <= let_in <= 11

"""Pings and their pongs (RFC 6455 sections 5.5.2 and 5.5.3); the time is an argument."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.exceptions import ConcurrencyError
from tidegate.keepalive import Pings


def future() -> asyncio.Future[float]:
    return asyncio.get_running_loop().create_future()


async def test_a_pong_tells_the_latency() -> None:
    pings, waiter = Pings(), future()
    assert pings.add(b"one", waiter, 10.0) == b"one"
    assert len(pings) == 1
    assert pings.acknowledge(b"one", 10.25) == 0.25
    assert waiter.result() == 0.25
    assert len(pings) == 0


async def test_a_pong_acknowledges_earlier_pings_too() -> None:
    pings, waiters = Pings(), [future() for _ in range(3)]
    for number, waiter in enumerate(waiters):
        pings.add(b"%d" % number, waiter, float(number))
    assert pings.acknowledge(b"1", 5.0) == 4.0
    assert [waiter.done() for waiter in waiters] == [True, True, False]
    assert waiters[0].result() == 5.0
    assert list(pings.waiters()) == [waiters[2]]


def test_a_pong_nobody_waits_for() -> None:
    pings = Pings()
    pings.add(b"one", None, 0.0)
    assert pings.acknowledge(b"two", 1.0) is None
    assert len(pings) == 1


def test_the_same_payload_twice() -> None:
    pings = Pings()
    pings.add(b"one", None, 0.0)
    with pytest.raises(ConcurrencyError) as caught:
        pings.add(b"one", None, 0.0)
    assert str(caught.value) == "already waiting for a pong with the same data"
    assert pings.acknowledge(b"one", 0.0) == 0.0
    pings.add(b"one", None, 0.0)


def test_payloads_of_our_own_are_four_bytes_and_differ() -> None:
    pings = Pings()
    payloads = {pings.add(None, None, 0.0) for _ in range(1000)}
    assert {len(payload) for payload in payloads} == {4}
    assert len(payloads) == len(pings) == 1000


async def test_pings_whose_waiter_gave_up_are_forgotten() -> None:
    pings = Pings()
    for number in range(100):
        waiter = future()
        payload = pings.add(b"%d" % number, waiter, 0.0)
        waiter.cancel()
        pings.abandon(payload, waiter)
        assert len(pings) == 0
    assert pings.acknowledge(b"99", 1.0) is None


async def test_the_latest_ping_answers_earlier_ones_whoever_gave_up() -> None:
    pings, waits = Pings(), future()
    pings.add(b"first", waits, 0.0)
    for number in range(100):
        waiter = future()
        payload = pings.add(b"%d" % number, waiter, 1.0)
        waiter.cancel()
        pings.abandon(payload, waiter)
        assert len(pings) == 2
    assert pings.acknowledge(b"99", 5.0) == 4.0
    assert waits.result() == 5.0
    assert len(pings) == 0


async def test_a_ping_that_was_answered_is_not_abandoned() -> None:
    pings, waiter = Pings(), future()
    pings.add(b"one", waiter, 0.0)
    pings.acknowledge(b"one", 1.0)
    pings.add(b"one", None, 2.0)
    pings.abandon(b"one", waiter)
    assert len(pings) == 1


async def test_a_waiter_that_gave_up_is_left_alone() -> None:
    pings, waiter = Pings(), future()
    pings.add(b"one", waiter, 0.0)
    waiter.cancel()
    assert list(pings.waiters()) == []
    assert pings.acknowledge(b"one", 1.0) == 1.0

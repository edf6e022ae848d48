"""Tests of tidegate.bus.nats_channel."""

from __future__ import annotations

import random

from tidegate.bus.nats_channel import HELD, NatsChannel
from tidegate.bus.nats_reads import Place
from tidegate.channels import Message, Position


def message(sequence: int, previous: int) -> Message:
    return Message("c", b"", position=Position("e", sequence), previous=previous)


def offsets(messages: object) -> list[int]:
    return [one.position.offset for one in messages]  # type: ignore[attr-defined]


def channel(told: int) -> NatsChannel:
    found = NatsChannel("c", None, "s")
    found.tell(Place(told, told))
    return found


def test_one_that_was_overtaken_comes_first() -> None:
    one = channel(10)
    assert offsets(one.take(message(12, 10))) == [12]
    assert offsets(one.take(message(20, 15))) == []
    assert one.waits
    assert offsets(one.take(message(23, 20))) == []
    assert offsets(one.take(message(15, 12))) == [15, 20, 23]
    assert not one.waits
    assert one.place == Place(23, 10)


def test_any_exchange_is_put_right() -> None:
    chance = random.Random(7)
    for _ in range(100):
        one = channel(0)
        messages = [message(number, number - 1) for number in range(1, 30)]
        for _ in range(5):
            at = chance.randrange(28)
            messages[at], messages[at + 1] = messages[at + 1], messages[at]
        got = [found for each in messages for found in one.take(each)]
        assert offsets(got) == list(range(1, 30))


def test_one_that_is_lost_holds_up_nothing_for_ever() -> None:
    one = channel(0)
    assert offsets(one.take(message(3, 2))) == []
    assert offsets(one.take(message(2, 1))) == []
    assert offsets(one.release()) == [2, 3]
    assert offsets(one.take(message(4, 3))) == [4]
    for number in range(6, 6 + HELD):
        assert one.take(message(number, number - 1)) == ()
    assert offsets(one.take(message(200, 199))) == [*range(6, 6 + HELD), 200]


def test_before_it_is_told_where_it_is_nothing_waits() -> None:
    one = NatsChannel("c", None, "s")
    assert one.place is None
    assert offsets(one.take(message(7, 5))) == [7]
    one.tell(Place(6, 6))
    assert offsets(one.take(message(9, 7))) == [9]


def test_a_new_link_begins_anew() -> None:
    one = channel(0)
    assert one.take(message(3, 2)) == ()
    assert offsets(one.renew()) == [3]
    assert offsets(one.take(message(9, 8))) == [9]

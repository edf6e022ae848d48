"""Tests of tidegate.bus.tail."""

from __future__ import annotations

from tidegate.bus.tail import OVERHEAD, TAIL_BYTES, TAIL_MESSAGES, Tail, offset_of, place_before
from tidegate.channels import Message, Position


def message(offset: int, size: int = 0, previous: int | None = None) -> Message:
    return Message("c", bytes(size), position=Position("e", offset), previous=previous)


def tail(*messages: Message, start: int = 0) -> Tail:
    made = Tail(Position("e", start))
    for one in messages:
        made.append(one)
    return made


def offsets(messages: list[Message] | None) -> list[int] | None:
    return None if messages is None else [offset_of(one) for one in messages]


def test_after_gives_all_that_came_after_a_place() -> None:
    made = tail(message(6), message(7), message(8), start=5)
    assert [offsets(made.after(Position("e", place))) for place in (5, 6, 8, 9)] == [[6, 7, 8], [7, 8], [], []]


def test_after_gives_nothing_where_something_is_gone_or_unknown() -> None:
    made = tail(message(6), start=5)
    assert made.after(Position("e", 4)) is None
    assert made.after(Position("f", 6)) is None


def test_the_oldest_go_by_number() -> None:
    made = tail(*(message(offset) for offset in range(1, TAIL_MESSAGES + 3)))
    assert made.start == ("e", 2)
    assert offsets(made.after(made.start)) == list(range(3, TAIL_MESSAGES + 3))


def test_the_oldest_go_by_bytes_and_the_last_one_stays() -> None:
    size = TAIL_BYTES // 3 - OVERHEAD
    made = tail(*(message(offset, size) for offset in range(1, 6)))
    assert offsets(made.after(made.start)) == [3, 4, 5]
    made.append(message(6, 2 * TAIL_BYTES))
    assert offsets(made.after(made.start)) == [6]
    made.append(message(7))
    assert offsets(made.after(made.start)) == [7]


def test_last_gives_fewer_only_where_there_are_no_more() -> None:
    assert offsets(tail(message(1), message(2)).last(5)) == [1, 2]
    assert tail(message(6), start=5).last(2) is None
    assert offsets(tail(message(6), message(7), start=5).last(1)) == [7]


def test_the_place_before_a_message() -> None:
    assert place_before(message(6)) == ("e", 5)
    assert place_before(message(6, previous=2)) == ("e", 2)

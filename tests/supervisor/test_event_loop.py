"""The supervisor's event loop: descriptors and moments, in their order, and what callbacks may do meanwhile.

What must not live here: signals and children.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tidegate.supervisor.event_loop import EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.close()


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    pipes = [os.pipe() for _ in range(3)]
    yield pipes
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_it_calls_back_what_is_readable(loop: EventLoop, pipes: list[tuple[int, int]]) -> None:
    called = []
    for number, (reader, _) in enumerate(pipes):
        loop.add_reader(reader, lambda number=number: called.append(number))  # type: ignore[misc]
    os.write(pipes[1][1], b"x")
    loop.run_once()
    assert called == [1]


def test_the_first_comes_first(loop: EventLoop, pipes: list[tuple[int, int]]) -> None:
    called = []
    for number, (reader, writer) in enumerate(pipes):
        loop.add_reader(reader, lambda number=number: called.append(number), first=number == 2)  # type: ignore[misc]
        os.write(writer, b"x")
    loop.run_once()
    assert called[0] == 2
    assert sorted(called) == [0, 1, 2]


def test_what_is_forgotten_in_a_turn_is_not_called_in_it(loop: EventLoop, pipes: list[tuple[int, int]]) -> None:
    called = []

    def forget_all(number: int) -> None:
        called.append(number)
        for reader, _ in pipes:
            loop.remove_reader(reader)
        loop.remove_reader(pipes[0][0])

    for number, (reader, writer) in enumerate(pipes):
        loop.add_reader(reader, lambda number=number: forget_all(number))  # type: ignore[misc]
        os.write(writer, b"x")
    loop.run_once()
    assert len(called) == 1


def test_a_number_that_is_used_again_waits_for_the_next_turn(loop: EventLoop, pipes: list[tuple[int, int]]) -> None:
    """As when a child ends and its successor's pipe gets the same descriptor."""
    called = []

    def replace() -> None:
        called.append("old")
        for reader, _ in pipes[1:]:
            loop.remove_reader(reader)
            loop.add_reader(reader, lambda: called.append("new"))

    for _, writer in pipes:
        os.write(writer, b"x")
    loop.add_reader(pipes[0][0], replace, first=True)
    for reader, _ in pipes[1:]:
        loop.add_reader(reader, lambda: called.append("stale"))
    loop.run_once()
    assert called == ["old"]
    loop.remove_reader(pipes[0][0])
    loop.run_once()
    assert called == ["old", "new", "new"]


def test_timers_are_called_once_in_their_order(loop: EventLoop) -> None:
    called: list[str] = []
    loop.call_later(0.02, lambda: called.append("third"))
    loop.call_later(0, lambda: called.append("first"))
    loop.call_later(0, lambda: called.append("second"))
    loop.run_once()
    assert called == ["first", "second"]
    loop.run_once()
    assert called == ["first", "second", "third"]


def test_a_cancelled_timer_is_not_called_and_not_waited_for(loop: EventLoop) -> None:
    called: list[str] = []
    cancelled = loop.call_later(0.001, lambda: called.append("never"))
    other = loop.call_later(0, lambda: other_cancels())

    def other_cancels() -> None:
        called.append("cancels")
        cancelled.cancel()
        other.cancel()

    loop.call_later(0.002, lambda: called.append("last"))
    while "last" not in called:
        loop.run_once()
    assert called == ["cancels", "last"]


def test_a_callback_may_set_a_timer(loop: EventLoop) -> None:
    called: list[int] = []

    def again() -> None:
        called.append(len(called))
        if len(called) < 3:
            loop.call_later(0, again)

    loop.call_later(0, again)
    while len(called) < 3:
        loop.run_once()
    assert called == [0, 1, 2]

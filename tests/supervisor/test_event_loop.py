"""The supervisor's poll: descriptors and moments, in their order, and what callbacks may do meanwhile.

What must not live here: signals and children.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tidegate.supervisor.event_loop import Poll


@pytest.fixture
def poll() -> Iterator[Poll]:
    poll = Poll()
    yield poll
    poll.close()


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    pipes = [os.pipe() for _ in range(3)]
    yield pipes
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_it_calls_back_what_is_readable(poll: Poll, pipes: list[tuple[int, int]]) -> None:
    called = []
    for number, (reader, _) in enumerate(pipes):
        poll.watch(reader, lambda number=number: called.append(number))  # type: ignore[misc]
    os.write(pipes[1][1], b"x")
    poll.turn()
    assert called == [1]


def test_the_first_comes_first(poll: Poll, pipes: list[tuple[int, int]]) -> None:
    called = []
    for number, (reader, writer) in enumerate(pipes):
        poll.watch(reader, lambda number=number: called.append(number), first=number == 2)  # type: ignore[misc]
        os.write(writer, b"x")
    poll.turn()
    assert called[0] == 2
    assert sorted(called) == [0, 1, 2]


def test_what_is_forgotten_in_a_turn_is_not_called_in_it(poll: Poll, pipes: list[tuple[int, int]]) -> None:
    called = []

    def forget_all(number: int) -> None:
        called.append(number)
        for reader, _ in pipes:
            poll.forget(reader)
        poll.forget(pipes[0][0])

    for number, (reader, writer) in enumerate(pipes):
        poll.watch(reader, lambda number=number: forget_all(number))  # type: ignore[misc]
        os.write(writer, b"x")
    poll.turn()
    assert len(called) == 1


def test_a_number_that_is_used_again_in_a_turn_waits_for_the_next(poll: Poll, pipes: list[tuple[int, int]]) -> None:
    """As when a child ends and its successor's pipe gets the same descriptor."""
    called = []

    def replace() -> None:
        called.append("old")
        for reader, _ in pipes[1:]:
            poll.forget(reader)
            poll.watch(reader, lambda: called.append("new"))

    for _, writer in pipes:
        os.write(writer, b"x")
    poll.watch(pipes[0][0], replace, first=True)
    for reader, _ in pipes[1:]:
        poll.watch(reader, lambda: called.append("stale"))
    poll.turn()
    assert called == ["old"]
    poll.forget(pipes[0][0])
    poll.turn()
    assert called == ["old", "new", "new"]


def test_timers_are_called_once_in_their_order(poll: Poll) -> None:
    called: list[str] = []
    poll.after(0.02, lambda: called.append("third"))
    poll.after(0, lambda: called.append("first"))
    poll.after(0, lambda: called.append("second"))
    poll.turn()
    assert called == ["first", "second"]
    poll.turn()
    assert called == ["first", "second", "third"]


def test_a_cancelled_timer_is_not_called_and_not_waited_for(poll: Poll) -> None:
    called: list[str] = []
    cancelled = poll.after(0.001, lambda: called.append("never"))
    other = poll.after(0, lambda: other_cancels())

    def other_cancels() -> None:
        called.append("cancels")
        cancelled.cancel()
        other.cancel()

    poll.after(0.002, lambda: called.append("last"))
    while "last" not in called:
        poll.turn()
    assert called == ["cancels", "last"]


def test_a_callback_may_set_a_timer(poll: Poll) -> None:
    called: list[int] = []

    def again() -> None:
        called.append(len(called))
        if len(called) < 3:
            poll.after(0, again)

    poll.after(0, again)
    while len(called) < 3:
        poll.turn()
    assert called == [0, 1, 2]

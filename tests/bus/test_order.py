"""Tests of tidegate.bus.order: what is given, dropped, held and repaired."""

from __future__ import annotations

import pytest

from tests.bus.desk import Worker
from tidegate.bus import order
from tidegate.bus.base import Slice
from tidegate.bus.topics import Request
from tidegate.channels import Channel, Gap, Message, Position
from tidegate.exceptions import BusDown


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_messages_are_given_as_they_come(worker: Worker) -> None:
    member = worker.join()
    worker.publish(3)
    worker.deliver()
    assert member.got == [1, 2, 3]
    assert worker.reads == []


def test_a_duplicate_is_dropped_and_counted(worker: Worker) -> None:
    member = worker.join()
    worker.publish(2)
    worker.engine.wire *= 2
    worker.deliver()
    assert member.got == [1, 2]
    assert worker.topics.counts.duplicates == 2


def test_what_was_lost_is_read_before_what_came(worker: Worker) -> None:
    member = worker.join()
    worker.publish(3, lost=True)
    worker.publish()
    worker.deliver()
    assert member.got == []
    worker.work()
    assert member.got == [1, 2, 3, 4]
    assert len(worker.reads) == 1
    assert (worker.topics.counts.repaired, worker.topics.counts.told) == (1, 0)


def test_what_comes_late_is_given_without_the_read(worker: Worker) -> None:
    member = worker.join()
    worker.publish(3)
    worker.engine.wire.sort(key=lambda message: message.payload, reverse=True)
    worker.deliver()
    assert member.got == [1, 2, 3]
    worker.work()
    assert member.got == [1, 2, 3]


def test_one_read_for_all_members(worker: Worker) -> None:
    members = [worker.join() for _ in range(50)]
    worker.publish(1, lost=True)
    worker.publish(5)
    worker.deliver()
    worker.work()
    assert all(member.got == [1, 2, 3, 4, 5, 6] for member in members)
    assert len(worker.reads) == 1


def test_a_hole_that_history_cannot_close_is_told_once() -> None:
    worker = Worker(Channel(history=2))
    member = worker.join()
    worker.publish(5, lost=True)
    worker.publish()
    worker.deliver()
    worker.work()
    assert member.got == [Gap("c", worker.place(0), worker.place(4), "trimmed"), 5, 6]
    assert worker.topics.counts.told == 1
    assert worker.topics.counts.repaired == 0


def test_a_hole_that_nothing_is_stored_of_is_told(worker: Worker) -> None:
    member = worker.join()
    worker.publish(3, lost=True)
    worker.engine.channels["c"].first = 3
    worker.again()
    worker.work()
    assert member.got == [Gap("c", worker.place(0), worker.place(3), "trimmed")]


def test_another_epoch_is_told_and_goes_on_from_its_beginning(worker: Worker) -> None:
    member = worker.join()
    worker.publish(2)
    worker.deliver()
    before = worker.place(2)
    worker.engine.lose_history("c")
    worker.publish(3)
    worker.deliver()
    worker.work()
    assert member.got == [1, 2, Gap("c", before, worker.place(0), "epoch"), 1, 2, 3]


def test_what_is_left_of_an_older_epoch_changes_nothing(worker: Worker) -> None:
    member = worker.join()
    worker.publish()
    late, worker.engine.wire = worker.engine.wire, []
    worker.engine.lose_history("c")
    worker.publish()
    worker.deliver()
    worker.work()
    told = list(member.got)
    worker.engine.wire = late
    worker.deliver()
    worker.work()
    assert member.got == told
    assert not worker.topics._topics["c"].repairing


def test_an_engine_that_lost_its_end_is_another_history(worker: Worker) -> None:
    """A failover to a replica that was behind: numbers are used again, and what has them is not a duplicate."""
    member = worker.join()
    worker.publish(5)
    worker.deliver()
    del worker.engine.channels["c"].messages[3:]
    worker.again()
    worker.work()
    worker.publish(2)
    worker.deliver()
    assert member.got == [1, 2, 3, 4, 5, Gap("c", worker.place(5), worker.place(3), "epoch"), 4, 5]


def test_a_reading_of_many_slices(worker: Worker) -> None:
    worker = Worker(slice_messages=10)
    member = worker.join()
    worker.publish(35, lost=True)
    worker.publish()
    worker.deliver()
    worker.work()
    assert member.got == list(range(1, 37))
    assert len(worker.reads) == 4


def test_what_is_held_is_bounded_and_what_was_dropped_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    monkeypatch.setattr(order, "HELD_MESSAGES", 3)
    member = worker.join()
    worker.publish(1, lost=True)
    worker.publish(2)
    worker.deliver()
    (read,) = worker.topics.take()
    part = worker.engine.result(read)
    worker.publish(1, lost=True)
    worker.publish(20)
    worker.deliver()
    assert len(worker.topics._topics["c"]._held) == 3
    worker.topics.done(read, part, worker.now)
    worker.work()
    assert member.got == list(range(1, 25))


def test_what_was_dropped_is_read_though_what_is_held_has_no_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(gapless=True)
    monkeypatch.setattr(order, "HELD_MESSAGES", 3)
    member = worker.join()
    worker.publish(1, lost=True)
    worker.publish()
    worker.deliver()
    (read,) = worker.topics.take()
    part = worker.engine.result(read)
    worker.publish(10)
    worker.deliver()
    worker.topics.done(read, part, worker.now)
    worker.work()
    assert member.got == list(range(1, 13))


def test_what_is_held_is_bounded_in_bytes() -> None:
    worker = Worker()
    worker.join()
    topic = worker.topics._topics["c"]
    for offset in range(2, 10):
        topic.arrive(Message("c", bytes(300_000), position=worker.place(offset)))
    assert topic._held_bytes <= order.HELD_BYTES
    assert len(topic._held) == 3


def failing_reads(worker: Worker, times: int) -> list[Request]:
    """Let that many reads fail, and return the requests of the next moment."""
    requests = worker.topics.take()
    for _ in range(times):
        assert len(requests) == 1
        worker.fail(requests, BusDown("no answer"))
        assert worker.topics.take() == []
        requests = worker.wait(10.0)
    return requests


def test_a_read_that_fails_is_tried_again_later(worker: Worker) -> None:
    member = worker.join()
    worker.publish(1, lost=True)
    worker.publish()
    worker.deliver()
    (read,) = failing_reads(worker, 2)
    worker.topics.done(read, worker.engine.result(read), worker.now)
    assert member.got == [1, 2]


def test_reads_that_go_on_failing_end_in_a_notice(worker: Worker) -> None:
    member = worker.join()
    worker.publish(1, lost=True)
    worker.publish(1)
    worker.publish(1, lost=False)
    worker.deliver()
    failing_reads(worker, order.FAILURES)
    assert member.got == [Gap("c", worker.place(0), worker.place(1), "unread"), 2, 3]
    worker.publish()
    worker.deliver()
    assert member.got[-1] == 4


def test_checks_that_go_on_failing_end_without_one(worker: Worker) -> None:
    member = worker.join()
    worker.topics._topics["c"].repair()
    failing_reads(worker, order.FAILURES)
    assert member.got == []
    assert not worker.topics._topics["c"].repairing


def test_an_engine_that_reads_less_than_it_delivers_is_believed_in_what_it_delivers(worker: Worker) -> None:
    member = worker.join()
    worker.publish(1, lost=True)
    worker.publish()
    worker.deliver()
    requests = worker.topics.take()
    for _ in range(order.ATTEMPTS):
        (read,) = requests
        worker.topics.done(read, Slice([], worker.place(0), True), worker.now)
        requests = worker.wait(10.0)
    assert member.got == [Gap("c", worker.place(0), worker.place(1), "trimmed"), 2]


def test_what_comes_of_an_epoch_that_is_never_read_is_believed_at_last(worker: Worker) -> None:
    member = worker.join()
    worker.topics.deliver([Message("c", b"", position=Position("new", 4))])
    failing_reads(worker, order.FAILURES)
    assert member.got == [Gap("c", worker.place(0), Position("new", 3), "epoch"), 4]


def test_without_history_messages_are_given_as_they_come() -> None:
    worker = Worker(Channel())
    member = worker.join()
    worker.publish(2)
    worker.deliver()
    assert member.got == [b"1", b"2"]


def test_a_history_that_another_worker_declares_is_followed() -> None:
    """In a hand-over the older generation may have another policy."""
    worker = Worker(Channel())
    member = worker.join()
    worker.topics.deliver([Message("c", b"", position=Position("e", offset)) for offset in (5, 6, 6, 7)])
    assert member.got == [5, 6, 7]
    worker.topics.deliver([Message("c", b"plain")])
    assert member.got == [5, 6, 7, b"plain"]


def test_a_position_that_moved_without_messages_is_no_hole(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a channel has numbers of a stream in which others are."""
    member = worker.join()
    epoch = worker.place(0).epoch
    monkeypatch.setattr(worker.engine, "top", lambda channel: Position(epoch, 7))
    monkeypatch.setattr(worker.engine, "read", lambda *_: Slice([], Position(epoch, 7), True))
    worker.again()
    worker.work()
    assert member.got == []
    assert worker.topics.position("c") == Position(epoch, 7)
    assert (len(worker.reads), worker.topics.counts.told) == (1, 0)
    worker.topics.deliver([Message("c", b"", position=Position(epoch, 9), previous=7)])
    assert member.got == [9]

"""Tests of tidegate.bus.topic: joins, what is given of what was missed, and who has no room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.bus.desk import Member, Worker
from tidegate.bus import topic
from tidegate.bus.base import Slice, State
from tidegate.bus.members import MemberTable
from tidegate.bus.order import TURN
from tidegate.channels import Channel, Gap, Message, Position
from tidegate.exceptions import BusDown, BusError


@pytest.fixture
def worker() -> Worker:
    """One with a subscribed channel of 100 messages, of which the tail has the last 64."""
    worker = Worker(Channel(history=80))
    worker.join()
    worker.publish(100)
    worker.deliver()
    return worker


def summary(member: Member) -> tuple[Any, ...]:
    joined = member.joined
    return joined.resumed, joined.position.offset if joined.position else None, joined.missed


# Since.


def test_a_new_member_is_given_what_comes(worker: Worker) -> None:
    member = worker.join()
    worker.publish()
    worker.deliver()
    assert member.joined == ("c", worker.place(100), "new", 0, None)
    assert member.got == [101]


def test_nothing_was_missed(worker: Worker) -> None:
    member = worker.join(worker.place(100))
    assert summary(member) == ("full", 100, 0)
    assert member.got == []


def test_nothing_was_missed_though_nothing_is_stored() -> None:
    """Position and top are the same: that is full, however old the last message is."""
    worker = Worker()
    worker.publish(5)
    worker.engine.channels["c"].first = 5
    member = worker.join(worker.place(5))
    assert summary(member) == ("full", 5, 0)


def test_what_is_in_the_tail_costs_no_read(worker: Worker) -> None:
    member = worker.join(str(worker.place(97)))
    assert summary(member) == ("full", 97, 3)
    assert member.got == [98, 99, 100]
    assert worker.reads == []
    worker.publish()
    worker.deliver()
    assert member.got == [98, 99, 100, 101]


def test_what_is_not_in_the_tail_is_read(worker: Worker) -> None:
    member = worker.join(worker.place(25))
    assert summary(member) == ("full", 25, 75)
    assert member.got == list(range(26, 101))
    assert len(worker.reads) == 1


def test_what_is_trimmed_is_failed(worker: Worker) -> None:
    member = worker.join(worker.place(19))
    assert summary(member) == ("failed", 100, 0)
    worker.publish()
    worker.deliver()
    assert member.got == [101]
    assert summary(worker.join(worker.place(21))) == ("full", 21, 80)


@pytest.mark.parametrize("since", ["", "nonsense", "e1.-1", "\ud800.1", "e1." + "9" * 100, "e1.1\n", "other.5"])
def test_what_is_no_place_of_the_channel_is_failed(worker: Worker, since: str) -> None:
    member = worker.join(since)
    assert summary(member) == ("failed", 100, 0)
    worker.publish()
    worker.deliver()
    assert member.got == [101]


@pytest.mark.parametrize("since", [5, object(), b"e1.5", ("e1", 5.5), Position("a b", -1)])
def test_what_is_not_even_a_text_is_failed(worker: Worker, since: Any) -> None:
    assert summary(worker.join(since)) == ("failed", 100, 0)


def test_a_place_of_the_future_is_failed_once_the_engine_does_not_know_it(worker: Worker) -> None:
    member = worker.join(worker.place(105), work=False)
    assert member.answer is None
    worker.work()
    assert summary(member) == ("failed", 100, 0)
    assert len(worker.reads) == 1


def test_a_place_that_this_worker_has_yet_to_reach_is_full(worker: Worker) -> None:
    """Its client was at a worker that is faster."""
    worker.publish(5)
    member = worker.join(worker.place(103))
    assert summary(member) == ("full", 103, 2)
    worker.deliver()
    assert member.got == [104, 105]


def test_a_place_of_an_epoch_that_this_worker_has_yet_to_hear_of_is_full(worker: Worker) -> None:
    worker.engine.lose_history("c")
    worker.publish(5)
    member = worker.join(worker.place(3))
    assert summary(member) == ("full", 3, 2)
    worker.deliver()
    assert member.got == [4, 5]


def test_a_check_that_began_before_a_join_does_not_count_for_it(worker: Worker) -> None:
    first = worker.join(worker.place(200), work=False)
    (read,) = worker.topics.take()
    part = worker.engine.result(read)
    worker.publish(5)
    second = worker.join(worker.place(103), work=False)
    worker.topics.done(read, part, worker.now)
    assert summary(first) == ("failed", 100, 0)
    worker.work()
    assert summary(second) == ("full", 103, 2)


def test_unknown_places_of_many_are_one_check(worker: Worker) -> None:
    members = [worker.join(f"unknown.{number}", work=False) for number in range(1000)]
    worker.work()
    assert len(worker.reads) == 1
    assert all(member.joined.resumed == "failed" for member in members)


def test_resumes_of_many_are_two_reads() -> None:
    """As after a restart: nothing is in the tail, and each client has its own place."""
    worker = Worker(Channel(history=200))
    worker.publish(100)
    members = [worker.join(worker.place(50 + number % 50), work=False) for number in range(1000)]
    worker.work()
    assert all(member.joined.resumed == "full" for member in members)
    assert all(member.got == list(range(51 + number % 50, 101)) for number, member in enumerate(members))
    assert len(worker.reads) <= 2
    assert worker.subscribes() == 1


def test_resumes_of_many_take_turns() -> None:
    """In each turn of the event loop only so many messages are given, and what comes meanwhile is given last."""
    worker = Worker(Channel(history=200))
    worker.publish(100)
    members = [worker.join(worker.place(0), work=False) for _ in range(50)]
    (subscribe,) = worker.topics.take()
    worker.topics.done(subscribe, worker.engine.result(subscribe), worker.now)
    (read,) = worker.topics.take()
    worker.topics.serve()
    worker.topics.done(read, worker.engine.result(read), worker.now)
    assert sum(len(member.got) for member in members) == TURN
    worker.topics.leave("c", members.pop(20), worker.now)
    assert worker.topics.serve()
    assert sum(len(member.got) for member in members) == 2 * TURN
    worker.publish(2)
    worker.deliver()
    worker.work()
    assert all(member.got == list(range(1, 103)) for member in members)
    assert worker.turns > 5
    assert not worker.topics.serve()


def test_more_than_a_read_gives_is_failed() -> None:
    worker = Worker(Channel(history=5000))
    worker.publish(2000)
    members = [worker.join(worker.place(place), work=False) for place in (0, 999, 1000)]
    worker.work()
    assert [member.joined.resumed for member in members] == ["failed", "failed", "full"]
    assert len(members[2].got) == 1000


def test_what_comes_while_it_is_read_follows(worker: Worker) -> None:
    member = worker.join(worker.place(25), work=False)
    (read,) = worker.topics.take()
    worker.publish(3)
    worker.deliver()
    part = worker.engine.result(read)
    worker.publish(3)
    worker.deliver()
    worker.topics.done(read, part, worker.now)
    assert summary(member) == ("full", 25, 81)
    assert member.got == list(range(26, 107))


def test_a_read_that_fails_is_a_join_that_may_be_tried_again(worker: Worker) -> None:
    member = worker.join(worker.place(25), work=False)
    worker.fail(worker.topics.take(), BusDown("no answer"))
    assert member.joined == ("c", worker.place(100), "failed", 0, topic.RETRY_AFTER)
    again = worker.join(worker.place(25))
    worker.work(1.0)
    assert summary(again) == ("full", 25, 75)


def test_reads_that_fail_are_not_made_again_at_once(worker: Worker) -> None:
    worker.join(worker.place(25), work=False)
    worker.fail(worker.topics.take(), BusDown("no answer"))
    worker.join(worker.place(25), work=False)
    assert worker.topics.take() == []
    assert len(worker.wait(1.0)) == 1


def test_a_join_does_not_wait_for_ever(worker: Worker) -> None:
    members = [worker.join(worker.place(25), work=False), worker.join("other.1", work=False)]
    worker.topics.take()
    worker.wait(topic.JOIN_TIMEOUT - 0.1)
    assert [member.answer for member in members] == [None, None]
    worker.wait(0.2)
    assert all(member.joined.resumed == "failed" and member.joined.retry_after for member in members)


def test_a_channel_without_history_cannot_be_resumed() -> None:
    worker = Worker(Channel())
    assert worker.join().joined == ("c", None, "new", 0, None)
    assert worker.join("e.5").joined == ("c", None, "failed", 0, None)


# The last messages.


def test_the_last_messages_of_the_tail(worker: Worker) -> None:
    member = worker.join(last=3)
    assert summary(member) == ("new", 97, 3)
    assert member.got == [98, 99, 100]
    assert worker.reads == []


def test_the_last_messages_that_have_to_be_read(worker: Worker) -> None:
    member = worker.join(last=70, work=False)
    worker.publish(2)
    worker.deliver()
    worker.work()
    assert summary(member) == ("new", 32, 70)
    assert member.got == list(range(33, 103))


def test_there_may_be_fewer() -> None:
    worker = Worker()
    worker.publish(2)
    assert summary(worker.join(last=5)) == ("new", 0, 2)
    assert summary(Worker().join(last=5)) == ("new", 0, 0)


def test_the_last_messages_in_place_of_all_are_partial(worker: Worker) -> None:
    member = worker.join(worker.place(3), last=2)
    assert summary(member) == ("partial", 98, 2)
    assert member.got == [99, 100]
    assert summary(worker.join("nonsense", last=1)) == ("partial", 99, 1)
    assert summary(worker.join(worker.place(95), last=1)) == ("full", 95, 5)


def test_partial_with_nothing_is_failed() -> None:
    assert summary(Worker().join("nonsense", last=2)) == ("failed", 0, 0)


# The latest message.


@pytest.fixture
def price() -> Worker:
    """A channel of which only the last message matters."""
    worker = Worker(Channel(history=1, recover="latest"))
    worker.publish(5)
    return worker


def test_every_join_gets_the_latest(price: Worker) -> None:
    assert summary(price.join()) == ("new", 4, 1)
    assert price.join().got == [5]
    assert len(price.reads) == 2


def test_a_resume_gets_the_latest_unless_it_has_it(price: Worker) -> None:
    members = [price.join(price.place(place)) for place in (2, 4, 5)]
    price.join()
    assert [summary(member)[0] for member in members[1:]] == ["full", "full"]
    assert [member.got for member in members] == [[5], [5], []]


def test_a_resume_from_an_unknown_place_gets_the_latest_and_is_failed(price: Worker) -> None:
    member = price.join("other.3")
    assert summary(member) == ("failed", 4, 1)
    assert member.got == [5]


def test_what_is_older_than_the_latest_need_not_come(price: Worker) -> None:
    """Neither a read nor a notice, and the newest at once."""
    member = price.join(price.place(5))
    reads = len(price.reads)
    price.publish(2, lost=True)
    price.publish()
    price.deliver()
    assert member.got == [8]
    price.publish(2, lost=True)
    price.again()
    price.work()
    assert member.got == [8, 10]
    assert len(price.reads) == reads + 1
    assert price.topics.counts.told == 0


class PassingOver(MemberTable):
    """Does not give messages to those without room."""

    def fan_out(self, message: Message, latest: bool) -> dict[Any, bool]:
        return {member: False for member in self if not (member.room and member.deliver(message))}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("table", "got"), [(MemberTable, [6, 9]), (PassingOver, [9])])
def test_who_has_no_room_gets_the_latest_when_there_is(table: Callable[[], MemberTable], got: list[int]) -> None:
    """Whether or not it has taken the one that found no room; once."""
    worker = Worker(Channel(history=1, recover="latest"), members=table)
    worker.publish(5)
    member, other = worker.join(worker.place(5)), worker.join(worker.place(5))
    member.room = False
    worker.publish(4)
    worker.deliver()
    assert member.got == got[:-1]
    before = worker.topics.counts.delivered
    assert before == 4 + len(got) - 1
    member.room = True
    worker.topics.drained("c", member)
    worker.topics.drained("c", member)
    assert (member.got, other.got) == (got, [6, 7, 8, 9])
    worker.publish()
    worker.deliver()
    assert (member.got[-1], other.got[-1]) == (10, 10)
    assert worker.topics.counts.delivered == before + 3


def test_a_latest_that_is_not_stored_any_more_is_failed(price: Worker) -> None:
    price.engine.channels["c"].first = 5
    assert summary(price.join(price.place(3))) == ("failed", 5, 0)
    assert summary(price.join()) == ("new", 5, 0)


def test_an_epoch_that_ends_while_the_latest_is_read_is_failed(price: Worker) -> None:
    price.join()
    price.topics.leave("c", price.topics.members_of("c")[0], price.now)
    price.work(60.0)
    since = price.place(3)
    member = price.join(since, work=False)
    (subscribe,) = price.topics.take()
    price.topics.done(subscribe, price.engine.result(subscribe), price.now)
    price.engine.lose_history("c")
    price.publish()
    price.deliver()
    price.work()
    assert summary(member) == ("failed", 0, 1)
    assert member.got == [1]


def test_a_latest_that_is_read_before_it_comes_is_given_to_all(price: Worker) -> None:
    first = price.join()
    price.topics.leave("c", first, price.now)
    price.work(60.0)
    member = price.join(price.place(5), work=False)
    other = price.join(work=False)
    (subscribe,) = price.topics.take()
    price.topics.done(subscribe, price.engine.result(subscribe), price.now)
    price.publish()
    price.work()
    assert summary(other) == ("new", 5, 1)
    assert (member.got, other.got) == ([6], [6])
    price.deliver()
    assert (member.got, other.got) == ([6], [6])


def test_another_epoch_is_told_though_only_the_latest_matters(price: Worker) -> None:
    member = price.join(price.place(5))
    before = price.place(5)
    price.engine.lose_history("c")
    price.publish(3)
    price.deliver()
    price.work()
    assert member.got[0] == Gap("c", before, price.place(0), "epoch")
    assert member.got[-1] == 3


def test_who_is_slow_gets_only_the_newest(price: Worker) -> None:
    member = price.join(price.place(5))
    other = price.join(price.place(5))
    member.room = False
    price.publish(10)
    price.deliver()
    assert member.got == [6]
    assert other.got == list(range(6, 16))
    member.room = True
    price.topics.drained("c", member)
    assert member.got == [6, 15]
    price.publish()
    price.deliver()
    assert member.got == [6, 15, 16]


def test_room_without_anything_new_gives_nothing(price: Worker) -> None:
    member = price.join(price.place(5))
    member.room = False
    price.publish()
    price.deliver()
    member.room = True
    price.topics.drained("c", member)
    price.topics.drained("c", member)
    assert member.got == [6]


# Room.


def test_what_was_missed_is_given_as_there_is_room(worker: Worker) -> None:
    member = Member()
    member.room = False
    worker.join(worker.place(98), member=member)
    assert member.got == [99]
    worker.publish(3)
    worker.deliver()
    assert member.got == [99]
    worker.topics.drained("c", member)
    assert member.got == [99, 100]
    member.room = True
    worker.topics.drained("c", member)
    assert member.got == [99, 100, 101, 102, 103]


def test_who_can_take_nothing_of_what_it_missed_is_asked_again(worker: Worker) -> None:
    """Other channels of the same connection may have taken the room, before the first message as well as later."""
    member = Member()
    member.waits = True
    worker.join(worker.place(98), member=member)
    assert member.joined.resumed == "full"
    worker.topics.drained("c", member)
    assert member.got == []
    member.waits = False
    worker.topics.drained("c", member)
    assert member.got == [99, 100]


def test_who_waits_for_room_is_given_the_latest_of_then(price: Worker) -> None:
    member = Member()
    member.waits = True
    price.join(None, member=member)
    price.publish(3)
    price.deliver()
    member.waits = False
    price.topics.drained("c", member)
    price.work()
    assert member.got == [8]


def test_who_falls_out_of_the_tail_is_given_it_by_reading(worker: Worker) -> None:
    member = Member()
    member.room = False
    worker.join(worker.place(99), member=member)
    worker.publish(70)
    worker.deliver()
    member.room = True
    worker.topics.drained("c", member)
    worker.work()
    assert member.got == list(range(100, 171))
    assert len(worker.reads) == 1


def test_who_falls_out_of_history_is_told(worker: Worker) -> None:
    member = Member()
    member.room = False
    worker.join(worker.place(99), member=member)
    worker.publish(150)
    worker.deliver()
    member.room = True
    worker.topics.drained("c", member)
    worker.work()
    assert member.got == [100, Gap("c", worker.place(100), worker.place(170), "trimmed"), *range(171, 251)]


def test_who_is_given_what_it_missed_waits_while_the_engine_is_away(worker: Worker) -> None:
    member = Member()
    member.room = False
    worker.join(worker.place(99), member=member)
    worker.publish(70)
    worker.deliver()
    member.room = True
    worker.topics.drained("c", member)
    requests = worker.topics.take()
    worker.topics.told(State("down", reason="cut"), worker.now)
    worker.fail(requests, BusDown("cut"))
    assert worker.wait(60.0) == []
    worker.topics.told(State("again"), worker.now)
    worker.work()
    assert member.got == list(range(100, 171))


def test_reads_that_go_on_failing_are_told_to_who_waits(worker: Worker) -> None:
    member = Member()
    member.room = False
    worker.join(worker.place(99), member=member)
    worker.publish(70)
    worker.deliver()
    member.room = True
    worker.topics.drained("c", member)
    for _ in range(20):
        worker.fail([request for request in worker.wait(1.0) if hasattr(request, "after")], BusDown("no answer"))
    assert member.got == [100, Gap("c", worker.place(100), worker.place(170), "unread")]


def test_a_notice_reaches_who_has_no_room(worker: Worker) -> None:
    member = Member()
    member.room = False
    worker.join(worker.place(98), member=member)
    before = worker.place(99)
    worker.engine.lose_history("c")
    worker.publish()
    worker.deliver()
    worker.work()
    assert member.got == [99, Gap("c", before, worker.place(0), "epoch")]
    worker.topics.drained("c", member)
    assert member.got[2:] == [1]


def test_an_epoch_that_ends_while_is_read_what_was_missed_is_told_once(worker: Worker) -> None:
    member = Member()
    member.room = False
    worker.join(worker.place(99), member=member)
    before = worker.place(100)
    worker.publish(70)
    worker.deliver()
    member.room = True
    worker.topics.drained("c", member)
    (request,) = worker.topics.take()
    worker.engine.lose_history("c")
    worker.topics.done(request, worker.engine.result(request), worker.now)
    worker.work()
    assert member.got == [100, Gap("c", before, worker.place(0), "epoch")]
    worker.publish()
    worker.deliver()
    assert member.got[2:] == [1]


# Who comes and goes.


def test_an_excluded_sender_is_not_given_its_own_of_what_it_missed(worker: Worker) -> None:
    worker.publish(1, sender="me", exclude=True)
    worker.publish(1, sender="me")
    worker.deliver()
    member = worker.join(worker.place(100), member=Member("me"))
    assert member.got == [102]
    other = worker.join(worker.place(100), member=Member("other"))
    assert other.got == [101, 102]


def test_joining_again_begins_anew(worker: Worker) -> None:
    member = worker.join()
    worker.join(worker.place(98), member=member)
    worker.publish()
    worker.deliver()
    assert member.got == [99, 100, 101]
    assert len(worker.topics._topics["c"]) == 2


def test_joining_again_while_a_join_waits_answers_both(worker: Worker) -> None:
    answers: list[Any] = []
    member = Member()
    worker.topics.join("c", member, answers.append, worker.now, worker.place(25))
    worker.topics.join("c", member, answers.append, worker.now, worker.place(30))
    worker.work()
    assert [answer.position.offset for answer in answers] == [30, 30]


def test_leaving_before_the_answer_is_an_answer(worker: Worker) -> None:
    member = worker.join(worker.place(25), work=False)
    assert worker.topics.leave("c", member, worker.now)
    assert isinstance(member.answer, BusError)
    assert str(member.answer) == "c was left before it was joined"
    worker.work()
    assert member.got == []


def test_leaving_while_it_is_given_what_it_missed(worker: Worker) -> None:
    class Leaver(Member):
        def deliver(self, message: Message) -> bool:
            super().deliver(message)
            worker.topics.leave("c", self, worker.now)
            return True

    member = worker.join(worker.place(90), member=Leaver())
    assert member.got == [91]
    assert not worker.topics.leave("c", member, worker.now)


def test_the_answer_comes_before_the_first_message(worker: Worker) -> None:
    order: list[Any] = []

    class Recorder(Member):
        def deliver(self, message: Message) -> bool:
            order.append(message.position)
            return True

    worker.topics.join("c", Recorder(), order.append, worker.now, worker.place(99))
    assert order == [("c", worker.place(99), "full", 1, None), worker.place(100)]


def test_resumes_are_counted(worker: Worker) -> None:
    worker.join(worker.place(98))
    worker.join("nonsense")
    counts = worker.topics.counts
    assert counts.resumes == {"new": 1, "full": 1, "partial": 0, "failed": 1}
    assert counts.resumed_messages == 2


def test_a_place_at_which_nothing_is_is_one_to_resume_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether this worker has come to it, or began after it."""
    worker = Worker()
    epoch = worker.place(0).epoch
    number = 7
    monkeypatch.setattr(worker.engine, "top", lambda channel: Position(epoch, number))
    monkeypatch.setattr(worker.engine, "read", lambda *_: Slice([], Position(epoch, number), True))
    worker.join()
    number = 12
    for since in (3, 7, 9, 12):
        member = worker.join(Position(epoch, since), member=Member(f"since {since}"))
        assert (member.joined.resumed, member.joined.missed, member.got) == ("full", 0, [])
    worker.topics.deliver([Message("c", b"", position=Position(epoch, 15), previous=12)])
    assert member.got == [15]

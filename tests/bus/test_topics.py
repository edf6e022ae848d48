"""Tests of tidegate.bus.topics: subscriptions, turns to read, checks, the engine's state."""

from __future__ import annotations

import pytest

from tests.bus.desk import Member, Worker
from tidegate.bus import topic
from tidegate.bus import topics as module
from tidegate.bus.base import State
from tidegate.bus.topics import Read, Subscribe, Tops, Unsubscribe
from tidegate.channels import Channel, Gap
from tidegate.exceptions import BusDown, TooManyChannels


def kinds(requests: list[module.Request]) -> list[str]:
    return [type(request).__name__ for request in requests]


# Subscriptions.


def test_joins_of_one_moment_are_one_subscription() -> None:
    worker = Worker()
    members = [worker.join(work=False) for _ in range(3)]
    (request,) = worker.topics.take()
    assert isinstance(request, Subscribe)
    assert request.channels == ["c"]
    assert [member.answer for member in members] == [None] * 3
    worker.topics.done(request, worker.engine.result(request), worker.now)
    assert all(member.joined.resumed == "new" for member in members)


def test_subscriptions_of_many_channels_are_in_batches() -> None:
    worker = Worker()
    for number in range(module.BATCH + 3):
        member = Member()
        worker.topics.join(f"x{number}", member, member.done, worker.now)
    assert [len(request.channels) for request in worker.topics.take()] == [module.BATCH, 3]  # type: ignore[union-attr]


def test_messages_that_come_before_the_confirmation_are_kept() -> None:
    worker = Worker()
    new, old = worker.join(work=False), worker.join(worker.place(0), work=False)
    (request,) = worker.topics.take()
    tops = worker.engine.result(request)
    worker.publish(3)
    worker.deliver()
    worker.topics.done(request, tops, worker.now)
    assert (new.joined.position, new.got) == (worker.place(3), [])
    assert (old.joined.position, old.got) == (worker.place(0), [1, 2, 3])


def test_a_channel_stays_subscribed_for_a_while() -> None:
    worker = Worker()
    member = worker.join()
    assert worker.topics.leave("c", member, worker.now)
    assert worker.wait(module.LINGER - 0.1) == []
    worker.publish(2)
    worker.deliver()
    again = worker.join(worker.place(1))
    assert again.got == [2]
    worker.work(module.LINGER * 2)
    assert worker.subscribes() == 1


def test_a_channel_that_nobody_is_in_is_unsubscribed() -> None:
    worker = Worker()
    member = worker.join()
    worker.topics.leave("c", member, worker.now)
    requests = worker.wait(module.LINGER)
    assert "Unsubscribe" in kinds(requests)
    for request in requests:
        worker.topics.done(request, worker.engine.result(request), worker.now)
    assert (len(worker.topics), worker.engine.subscribed) == (0, set())


def test_nothing_is_left_of_a_channel_that_is_unsubscribed() -> None:
    worker = Worker()
    member = worker.join()
    worker.publish()
    worker.deliver()
    worker.again()
    worker.topics.leave("c", member, worker.now)
    worker.work(2 * module.LINGER)
    topics = worker.topics
    assert (len(topics), topics._timers, topics._suspects, topics._active) == (0, [], {}, {})
    assert not any(topics._slots)


def test_the_moment_of_unsubscribing_is_not_the_same_everywhere() -> None:
    moments = []
    for random in (0.0, 1.0):
        worker = Worker(random=lambda random=random: random, gapless=True)
        worker.topics.leave("c", worker.join(), worker.now)
        moments.append((worker.topics.deadline() or 0.0) - worker.now)
    assert moments == pytest.approx([0.8 * module.LINGER, 1.2 * module.LINGER])


def test_who_joins_while_a_channel_is_unsubscribed_gets_a_new_subscription() -> None:
    worker = Worker(gapless=True)
    worker.topics.leave("c", worker.join(), worker.now)
    (request,) = worker.wait(module.LINGER)
    assert isinstance(request, Unsubscribe)
    member = worker.join(work=False)
    assert worker.topics.take() == []
    worker.topics.done(request, worker.engine.result(request), worker.now)
    worker.publish(2)
    worker.work()
    worker.publish()
    worker.deliver()
    assert (member.joined.position, member.got) == (worker.place(2), [3])


def test_what_comes_while_a_channel_is_unsubscribed_is_dropped() -> None:
    worker = Worker(gapless=True)
    worker.topics.leave("c", worker.join(), worker.now)
    worker.wait(module.LINGER)
    worker.publish()
    worker.deliver()
    assert worker.topics.position("c") == worker.place(0)


def test_a_subscription_that_fails_is_told_to_who_joins() -> None:
    worker = Worker()
    members = [worker.join(work=False) for _ in range(2)]
    worker.fail(worker.topics.take(), BusDown("refused", 3.0))
    for member in members:
        assert isinstance(member.answer, BusDown)
        assert member.answer.retry_after == 3.0
    worker.work()
    assert len(worker.topics) == 0
    assert worker.join().joined.resumed == "new"


def test_a_subscription_that_came_too_late_is_ended() -> None:
    """The engine did it, and the answer was lost."""
    worker = Worker()
    worker.join(work=False)
    (request,) = worker.topics.take()
    worker.engine.result(request)
    worker.topics.done(request, BusDown("no answer"), worker.now)
    again = worker.join(work=False)
    (request,) = worker.topics.take()
    assert isinstance(request, Unsubscribe)
    worker.topics.done(request, worker.engine.result(request), worker.now)
    assert worker.engine.subscribed == set()
    worker.work()
    assert again.joined.resumed == "new"
    assert worker.engine.subscribed == {"c"}


def test_a_channel_that_is_left_and_joined_all_the_time_has_one_timer() -> None:
    worker = Worker(gapless=True)
    for _ in range(1000):
        worker.topics.leave("c", worker.join(), worker.now)
        worker.now += 0.001
    assert len(worker.topics._timers) == 1
    assert kinds(worker.wait(module.LINGER - 0.5)) == []
    assert kinds(worker.wait(1.0)) == ["Unsubscribe"]


def test_who_joins_again_from_within_the_failure_is_subscribed() -> None:
    worker = Worker()
    second = Member()
    member = Member()
    worker.topics.join("c", member, lambda answer: worker.topics.join("c", second, second.done, worker.now), worker.now)
    worker.fail(worker.topics.take(), BusDown("refused"))
    worker.work()
    assert second.joined.resumed == "new"


def test_a_join_waits_for_an_engine_that_is_away_for_a_moment() -> None:
    worker = Worker()
    worker.topics.told(State("down", reason="refused", retry_after=2.0), worker.now)
    first = worker.join(work=False)
    assert worker.wait(topic.PATIENCE / 2) == []
    second = worker.join(work=False)
    assert worker.wait(topic.PATIENCE / 2) == []
    assert isinstance(first.answer, BusDown)
    assert (first.answer.reason, first.answer.retry_after) == ("refused", 2.0)
    assert second.answer is None
    worker.topics.told(State("up"), worker.now)
    worker.work()
    assert second.joined.resumed == "new"


def test_channels_that_nobody_waits_for_any_more_are_forgotten_while_the_engine_is_away() -> None:
    worker = Worker()
    worker.topics.told(State("down"), worker.now)
    worker.topics.leave("c", worker.join(work=False), worker.now)
    impatient = Member()
    worker.topics.join("d", impatient, impatient.done, worker.now)
    worker.wait(topic.PATIENCE)
    assert isinstance(impatient.answer, BusDown)
    assert len(worker.topics) == 0
    worker.topics.told(State("up"), worker.now)
    assert worker.topics.take() == []


def test_a_join_that_the_link_took_along_is_made_again() -> None:
    worker = Worker()
    early, late = worker.join(work=False), Member()
    (request,) = worker.topics.take()
    worker.now += topic.PATIENCE
    worker.join(member=late, work=False)
    worker.topics.told(State("down", reason="cut"), worker.now)
    worker.fail([request], BusDown("cut"))
    assert isinstance(early.answer, BusDown)
    (request,) = worker.topics.take()
    assert isinstance(request, Unsubscribe)
    worker.topics.done(request, None, worker.now)
    assert worker.topics.take() == []
    worker.topics.told(State("again"), worker.now)
    worker.work()
    assert late.joined.resumed == "new"


def test_many_joins_that_wait_for_the_engine_are_looked_at_together() -> None:
    worker = Worker()
    worker.topics.told(State("down"), worker.now)
    members = []
    for _ in range(1000):
        members.append(worker.join(work=False))
        worker.now += 0.0005
    assert len(worker.topics._timers) == 1
    worker.work(topic.PATIENCE + module.GLANCE)
    assert all(isinstance(member.answer, BusDown) for member in members)


def test_a_join_whose_read_the_link_took_along_is_read_again() -> None:
    worker = Worker(gapless=True)
    worker.publish(100)
    worker.join()
    member = worker.join(worker.place(10), work=False)
    (read,) = worker.topics.take()
    assert isinstance(read, Read)
    worker.topics.told(State("down"), worker.now)
    worker.fail([read], BusDown("cut"))
    assert member.answer is None
    worker.topics.told(State("again"), worker.now)
    worker.work(1.0)
    assert (member.joined.resumed, member.joined.missed) == ("full", 90)


def test_a_subscribed_channel_can_be_joined_while_the_engine_is_away() -> None:
    worker = Worker()
    worker.join()
    worker.publish(3)
    worker.deliver()
    worker.topics.told(State("down"), worker.now)
    assert worker.join(worker.place(1), work=False).got == [2, 3]


def test_channels_of_a_worker_are_limited() -> None:
    worker = Worker(limit=1)
    worker.join()
    with pytest.raises(TooManyChannels, match="a worker may join at most 1 channels"):
        worker.topics.join("d", Member(), lambda answer: None, worker.now)
    worker.join()


def test_what_is_known_of_a_channel() -> None:
    worker = Worker()
    member = worker.join()
    worker.publish()
    worker.deliver()
    topics = worker.topics
    assert (topics.members("c"), topics.position("c"), topics.members_of("c")) == (1, worker.place(1), [member])
    assert (topics.members("x"), topics.position("x"), topics.members_of("x")) == (0, None, [])
    assert topics.snapshot() == {"c": 1}


# Turns to read.


def test_reads_are_limited_and_take_turns() -> None:
    worker = Worker()
    worker.engine.policies = {f"x{number}": Channel(history=100) for number in range(module.READS + 4)}
    worker.topics._policies._default = Channel(history=100)
    members = {}
    for name in worker.engine.policies:
        worker.engine.lose_history(name)
        for _ in range(70):
            worker.engine.publish(name)
        members[name] = Member()
        first = worker.engine.channels[name].messages[0].position
        worker.topics.join(name, members[name], members[name].done, worker.now, first)
    (subscribe,) = worker.topics.take()
    worker.topics.done(subscribe, worker.engine.result(subscribe), worker.now)
    reads = worker.topics.take()
    assert kinds(reads) == ["Read"] * module.READS
    for read in reads:
        worker.topics.done(read, worker.engine.result(read), worker.now)
    assert len(worker.topics.take()) == 4


def test_an_answer_that_comes_when_nobody_is_left_is_dropped() -> None:
    worker = Worker(gapless=True)
    worker.publish(70)
    member = worker.join(worker.place(0), work=False)
    (subscribe,) = worker.topics.take()
    worker.topics.done(subscribe, worker.engine.result(subscribe), worker.now)
    (read,) = worker.topics.take()
    worker.topics.leave("c", member, worker.now)
    for request in worker.wait(module.LINGER):
        worker.topics.done(request, worker.engine.result(request), worker.now)
    worker.topics.done(read, worker.engine.result(read), worker.now)
    assert (len(worker.topics), worker.topics._reading) == (0, 0)


# Checks.


def test_a_loss_at_the_end_is_found_within_seconds() -> None:
    worker = Worker()
    member = worker.join()
    worker.publish()
    worker.deliver()
    worker.publish(1, lost=True)
    worker.work(module.CHECK + module.GRACE)
    assert member.got == [1, 2]


def test_a_message_on_its_way_is_no_loss() -> None:
    worker = Worker()
    member = worker.join()
    worker.publish()
    worker.deliver()
    worker.publish()
    worker.work(module.CHECK + module.GRACE / 2)
    worker.deliver()
    worker.work(module.GRACE)
    assert member.got == [1, 2]
    assert worker.reads == []


def test_an_idle_channel_is_checked_once_a_minute() -> None:
    worker = Worker()
    member = worker.join()
    worker.publish(1, lost=True)
    worker.work(module.CHECK * module.IDLE_ROUNDS + module.GRACE)
    assert member.got == [1]
    assert sum(isinstance(request, Tops) for request in worker.asked) == 1


def test_a_channel_that_was_repairing_when_it_was_due_is_checked_again_later() -> None:
    worker = Worker()
    member = worker.join()
    worker.publish()
    worker.deliver()
    worker.topics._topics["c"].repair()
    repair = worker.topics.take()
    worker.wait(module.CHECK)
    for request in repair:
        worker.topics.done(request, worker.engine.result(request), worker.now)
    worker.publish()
    worker.deliver()
    worker.publish(1, lost=True)
    worker.work(module.CHECK + module.GRACE)
    assert member.got == [1, 2, 3]


def test_an_engine_without_gaps_is_not_checked() -> None:
    worker = Worker(gapless=True)
    worker.join()
    worker.publish()
    worker.deliver()
    worker.work(200.0)
    assert kinds(worker.asked) == ["Subscribe"]
    assert worker.topics.deadline() is None


def test_after_a_loss_of_the_link_all_is_checked_at_once() -> None:
    worker = Worker(gapless=True)
    member = worker.join()
    worker.publish(2, lost=True)
    worker.again()
    worker.work()
    assert member.got == [1, 2]
    assert kinds(worker.asked) == ["Subscribe", "Tops", "Read"]


def test_a_check_of_those_that_fails_is_made_again() -> None:
    worker = Worker(gapless=True)
    member = worker.join()
    worker.publish(2, lost=True)
    worker.again()
    worker.fail(worker.topics.take(), BusDown("no answer"))
    worker.work(module.GRACE)
    assert member.got == [1, 2]


def test_a_confirmation_of_a_link_that_is_gone_is_checked() -> None:
    worker = Worker(gapless=True)
    member = worker.join(work=False)
    (request,) = worker.topics.take()
    tops = worker.engine.result(request)
    worker.publish(2, lost=True)
    worker.again()
    worker.topics.done(request, tops, worker.now)
    worker.work()
    assert member.got == [1, 2]


def test_without_history_a_loss_of_the_link_is_told() -> None:
    worker = Worker(Channel())
    member = worker.join()
    worker.again()
    assert member.got == [Gap("c", None, None, "link")]


def test_repairs_wait_while_the_engine_is_away() -> None:
    worker = Worker(gapless=True)
    member = worker.join()
    worker.publish(1, lost=True)
    worker.publish()
    worker.deliver()
    worker.topics.told(State("down"), worker.now)
    assert worker.wait(1000.0) == []
    worker.topics.told(State("again"), worker.now)
    worker.work()
    assert member.got == [1, 2]


def test_a_read_that_the_link_took_along_is_made_again() -> None:
    worker = Worker(gapless=True)
    member = worker.join()
    worker.publish(1, lost=True)
    worker.publish()
    worker.deliver()
    requests = worker.topics.take()
    assert isinstance(requests[0], Read)
    for _ in range(20):
        worker.topics.told(State("down"), worker.now)
        worker.fail(requests, BusDown("cut"))
        worker.topics.told(State("up"), worker.now)
        requests = worker.topics.take()
        assert kinds(requests) == ["Read"]
    worker.topics.done(requests[0], worker.engine.result(requests[0]), worker.now)
    worker.work()
    assert member.got == [1, 2]

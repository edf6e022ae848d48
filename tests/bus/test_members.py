"""Tests of tidegate.bus.members: the table in Python."""

from __future__ import annotations

import sys

from tests.bus.desk import Member
from tidegate.bus.members import MemberTable
from tidegate.channels import Gap, Message

HELLO = Message("c", b"hello")


def table(*members: Member) -> MemberTable:
    made = MemberTable()
    for member in members:
        made.add(member)
    return made


def test_a_message_goes_to_all_and_those_without_room_are_returned() -> None:
    one, two = Member(), Member()
    two.room = False
    assert table(one, two).fan_out(HELLO, False) == {two: True}
    assert one.got == two.got == [b"hello"]


def test_the_sender_is_left_out_if_it_is_to_be() -> None:
    one, two = Member("w.1"), Member("w.2")
    members = table(one, two)
    members.fan_out(Message("c", b"a", sender="w.1"), False)
    members.fan_out(Message("c", b"b", sender="w.1", exclude=True), False)
    assert (one.got, two.got) == ([b"a"], [b"a", b"b"])


def test_members_come_and_go() -> None:
    one, two = Member(), Member()
    members = table(one, two)
    assert members.discard(one)
    assert not members.discard(one)
    assert (one in members, two in members, list(members), len(members)) == (False, True, [two], 1)


def test_a_room_that_was_full_costs_no_more_than_one_that_was_not() -> None:
    """A dict does not shrink by itself, and going through it takes as long as when it was large."""
    members = [Member() for _ in range(10_000)]
    made = table(*members)
    for member in members[1:]:
        made.discard(member)
    assert list(made) == members[:1]
    assert sys.getsizeof(made._members) < 10_000


def test_who_leaves_while_a_message_is_given_gets_nothing() -> None:
    class Leaver(Member):
        def deliver(self, message: Message) -> bool:
            members.discard(two)
            return super().deliver(message)

        def gap(self, gap: Gap) -> None:
            members.discard(three)
            super().gap(gap)

    one, two, three = Leaver(), Member(), Member()
    members = table(one, two, three)
    members.fan_out(HELLO, False)
    gap = Gap("c", None, None, "link")
    members.tell(gap)
    assert (one.got, two.got, three.got) == ([b"hello", gap], [], [b"hello"])

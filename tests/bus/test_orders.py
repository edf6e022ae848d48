"""Tests of tidegate.bus.orders: what processes tell each other about members."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from tests.bus.desk import Member, Worker
from tidegate.bus.orders import Obedient, Order
from tidegate.channels import Message


class Told:
    """A worker with two members, who have names, and the member that takes orders."""

    def __init__(self) -> None:
        self.worker = Worker()
        self.ada, self.bob = Member("ada"), Member("bob")
        for member in (self.ada, self.bob):
            self.worker.join(member=member)
        self.seen: list[str] = []
        logger = logging.getLogger("tidegate.bus")
        self.obedient = Obedient(self.worker.topics, lambda _, member: member.sender, self._nudged, logger)

    def _nudged(self, channels: Sequence[str]) -> None:
        self.seen += channels

    def obey(self, order: Order | bytes) -> None:
        payload = order if isinstance(order, bytes) else order.encode()
        message = Message("tg:control", payload)
        assert self.obedient.can_take(message)
        assert self.obedient.deliver(message)


def test_members_are_closed() -> None:
    told = Told()
    told.obey(Order(close="c", code=4001, reason="out"))
    told.obey(Order(close="other", code=4002))
    assert told.ada.got == told.bob.got == [(4001, "out")]


def test_members_are_removed_by_their_names_or_all_of_them() -> None:
    told = Told()
    told.obey(Order(leave="c", member="bob"))
    assert (told.ada.got, told.bob.got) == ([], ["c"])
    told.obey(Order(leave="c"))
    assert (told.ada.got, told.bob.got) == (["c"], ["c", "c"])


def test_channels_with_other_names() -> None:
    told = Told()
    told.obey(Order(seen=["a", "b"]))
    told.obey(Order(close="c"))
    assert told.seen == ["a", "b"]


def test_an_order_that_makes_no_sense_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    told.obey(b"nonsense")
    told.obey(b'{"later": 1}')
    assert [record.getMessage()[:37] for record in caplog.records] == ["an order of the bus makes no sense: J"]

"""What a bus records of itself: times in the row of the process, and lines that are not written too often."""

import asyncio
import logging
import time

import pytest

from tidegate._core.counters import BOUNDS, Row, use
from tidegate.bus import records
from tidegate.bus.base import State
from tidegate.bus.order import Counts
from tidegate.bus.records import Line, Records
from tidegate.channels import Message, Position
from tidegate.exceptions import BusBusy, BusDown, BusError

LOGGER = logging.getLogger("tests.records")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def test_publications_are_counted_by_what_became_of_them() -> None:
    row = Row()
    before = use(row)
    try:
        counts = Counts()
        own = Records(counts, LOGGER)
    finally:
        use(before)
    now = time.monotonic()
    own.published(now, None)
    assert sum(row.words("bus_publish")) == 0  # without history nothing is waited for
    own.published(now, Position("e", 1))
    assert sum(row.words("bus_publish")[:-1]) == 1
    for error in (BusBusy("c", 1.0), BusDown("away"), BusDown("away", uncertain=True), BusError("too long")):
        own.published(now, error)
    assert counts.published == 2
    assert counts.failures == {"busy": 1, "down": 1, "uncertain": 1, "refused": 1}


async def test_lag_and_fan_out_are_measured() -> None:
    row = Row()
    before = use(row)
    try:
        own = Records(Counts(), LOGGER)
    finally:
        use(before)
    now = time.time()
    sent = [Message("c", b"", True, None, "", now - lag) for lag in (0.3, 0.3, 2.0)]
    own.delivered([*sent, Message("c", b"", True, None, "", now + 5)], now)  # by a clock that is ahead
    lag = dict(zip((*BOUNDS["bus_lag"], "more"), row.words("bus_lag"), strict=False))
    assert {bound: count for bound, count in lag.items() if count} == {0.0001: 1, 0.5: 2, 2.5: 1}
    assert sum(row.words("bus_fanout")[:-1]) == 1


async def test_states_are_told_with_what_is_done(caplog: pytest.LogCaptureFixture) -> None:
    counts = Counts()
    own = Records(counts, LOGGER)
    with caplog.at_level(logging.INFO, LOGGER.name):
        own.told(State("up", 1))
        assert own.is_up
        own.told(State("down", 1, "the hub has ended"))
        assert (own.is_up, own.reason) == (False, "the hub has ended")
        own.told(State("again", 2))
        assert (own.is_up, own.reason) == (True, "")
    up, down, again = said(caplog)
    assert up == "the bus is up"
    assert down == "the bus is down: the hub has ended; publishes wait or fail until it is up again"
    assert again.startswith("the bus is up again after 0.0")
    assert again.endswith(" s; what was missed is read from the history, if any")
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]
    assert counts.changes == {"up": 1, "down": 1, "again": 1}
    own.end()


async def test_a_bus_that_was_never_there_is_down(caplog: pytest.LogCaptureFixture) -> None:
    own = Records(Counts(), LOGGER)
    own.told(State("down", 0, "refused"))
    assert said(caplog) == ["the bus is down: refused; publishes wait or fail until it is up again"]
    own.told(State("down", 0, "still refused"))
    assert len(said(caplog)) == 1
    assert own.reason == "still refused"
    own.end()


async def test_a_bus_that_flaps_is_told_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "INTERVAL", 0.2)
    own = Records(Counts(), LOGGER)
    with caplog.at_level(logging.INFO, LOGGER.name):
        own.told(State("up", 1))
        for generation in range(2, 50):
            own.told(State("down", generation, "cut"))
            own.told(State("again", generation))
        assert len(said(caplog)) == 3
        while len(said(caplog)) < 4:
            await asyncio.sleep(0.01)
    assert said(caplog)[3].startswith("the bus is up again")  # what is so now
    assert said(caplog)[3].endswith("(94 changes since the last line)")
    own.end()


async def test_silence_is_an_outage_until_there_is_an_answer() -> None:
    """Whatever the state of the link says."""
    own = Records(Counts(), LOGGER)
    own.heard("no answer")
    assert own.reason == "it is not started"
    own.told(State("up", 1))
    began = own.changed_at
    own.heard("no answer")
    assert (own.is_up, own.reason) == (False, "no answer")
    assert own.changed_at >= began
    since = own.changed_at
    own.heard("no answer")
    assert own.changed_at == since
    own.heard()
    assert (own.is_up, own.reason) == (True, "")
    own.end()


async def test_losses_and_slow_members_are_told_with_their_number(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts()
    own = Records(counts, LOGGER)
    own.told(State("up", 1))
    caplog.clear()
    own.told(State("again", 2, "it was too fast"))
    own.slow()
    for _ in range(5):
        own.slow()
        own.told(State("again", 3))
    lost, slow = said(caplog)
    assert lost == "the bus may have lost messages: it was too fast; they are read from the history, if any"
    assert slow.startswith("1 client was too slow for what channels bring, and closed with 1013")
    own.end()
    assert said(caplog)[2].endswith("(5 times)")
    assert said(caplog)[3].startswith("5 clients were too slow")
    assert counts.closes["slow"] == 6


async def test_a_line_is_written_at_once_and_then_with_how_often_it_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "INTERVAL", 0.05)
    written: list[int] = []
    line = Line(written.append)
    line.due()
    assert written == [1]
    line.due()
    line.due()
    assert written == [1]
    while len(written) < 2:
        await asyncio.sleep(0.01)
    assert written == [1, 2]
    line.end()
    line.end()
    assert written == [1, 2]

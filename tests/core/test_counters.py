"""What a process counts: rows count exactly, and nothing is written where it does not belong."""

import itertools
import math
import re
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidegate
from tests.core.processes import in_child
from tidegate._core import counters
from tidegate._core.counters import (
    BOUNDS,
    CLOSE_CODES,
    FIELDS,
    HANDSHAKE_RESULTS,
    INITIATORS,
    LIMITS,
    RESULT_OF_STATUS,
    BusState,
    Row,
)
from tidegate._core.scoreboard import Scoreboard
from tidegate._core.snapshot import DAEMON_COUNTERS, SLOT_COUNTERS

CLOSES_PER_INITIATOR = FIELDS["closes"].size // len(INITIATORS)
HISTOGRAMS = [name for name, field in FIELDS.items() if field.kind == "histogram"]


# The layout


def test_fields_tile_the_row() -> None:
    place = 0
    for field in FIELDS.values():
        assert field.offset == place
        place += field.size


def test_gauges_come_last() -> None:
    kinds = [field.kind for field in FIELDS.values()]
    assert kinds == sorted(kinds, key=lambda kind: kind == "gauge")


def test_bounds_rise_and_fit() -> None:
    assert sorted(BOUNDS) == sorted(HISTOGRAMS)
    for name, bounds in BOUNDS.items():
        assert list(bounds) == sorted(set(bounds))
        assert len(bounds) + 2 <= FIELDS[name].size


def test_each_status_has_a_result_that_is_counted() -> None:
    assert set(RESULT_OF_STATUS.values()) <= set(HANDSHAKE_RESULTS)


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.kind == "counter"])
def test_each_word_of_a_counter_is_counted_by_its_names(name: str) -> None:
    """And by nothing else: a row has what `Field.places` says, whatever the table of counters.h has."""
    field = FIELDS[name]
    assert set(field.places) == set(itertools.product(*field.names))
    for names, place in field.places.items():
        row = Row()
        row.inc(name, *names)
        row.inc(name, *names, by=6)
        assert [i for i, count in enumerate(row.words(name)) if count] == [place]
        assert sum(sum(row.words(other)) for other in FIELDS) == 7


def test_names_in_the_source_are_in_the_table() -> None:
    """What is counted or observed by its name, wherever that is done."""
    source = "".join(path.read_text(encoding="utf-8") for path in Path(tidegate.__file__).parent.rglob("*.py"))
    counted = set(re.findall(r"\.inc(?:_slot)?\((?:[\w.]+, )?\s*\"(\w+)\"", source))
    observed = set(re.findall(r"\.observe\(\s*\"(\w+)\"", source))
    assert "pong_timeouts" in counted
    assert "ping_rtt" in observed
    known = {**DAEMON_COUNTERS, **SLOT_COUNTERS, **FIELDS}
    assert {known[name].kind for name in counted} == {"counter"}
    assert {FIELDS[name].kind for name in observed} == {"histogram"}


# One row


def test_new_row_is_empty() -> None:
    row = Row()
    assert row.heartbeat == 0
    assert all(set(row.words(name)) == {0} for name in FIELDS)


def test_life_of_a_connection() -> None:
    row = Row()

    def gauges() -> tuple[int, ...]:
        return tuple(row.words(f"connections_{state}")[0] for state in ("handshaking", "open", "closing"))

    row.accepted()
    assert gauges() == (1, 0, 0)
    row.handshake("ok", 0.001)
    row.opened()
    assert gauges() == (0, 1, 0)
    row.closing()
    assert gauges() == (0, 0, 1)
    row.closed(1000, "remote", 5.0)
    assert gauges() == (0, 0, 0)
    row.accepted()
    row.handshake("ok", 0.001)
    row.opened()
    row.closed(1006, "abort", 5.0, "open")
    assert gauges() == (0, 0, 0)
    assert row.words("connections_accepted") == (2,)


@pytest.mark.parametrize(
    ("code", "name"),
    [(1000, "1000"), (1006, "1006"), (1015, "1015"), (3000, "3xxx"), (3999, "3xxx"), (4000, "4xxx"), (4999, "4xxx")]
    + [(code, "other") for code in (-1, 0, 999, 1016, 2000, 2999, 5000, 65535)],
)
@pytest.mark.parametrize("initiator", INITIATORS)
def test_close_codes_fold(code: int, name: str, initiator: str) -> None:
    row = Row()
    row.opened()
    row.closed(code, initiator, 1, state="open")
    place = INITIATORS.index(initiator) * CLOSES_PER_INITIATOR + CLOSE_CODES.index(name)
    assert [i for i, count in enumerate(row.words("closes")) if count] == [place]


@pytest.mark.parametrize("result", HANDSHAKE_RESULTS)
def test_handshake_results(result: str) -> None:
    row = Row()
    row.accepted()
    row.handshake(result, 0.002)
    assert row.words("handshakes")[HANDSHAKE_RESULTS.index(result)] == 1
    assert sum(row.words("handshakes")) == sum(row.words("handshake_duration")[:-1]) == 1


def test_pong_timeout() -> None:
    row = Row()
    row.inc("pong_timeouts")
    assert row.words("pong_timeouts") == (1,)


@pytest.mark.parametrize("limit", LIMITS)
def test_limit_rejections(limit: str) -> None:
    row = Row()
    row.inc("limit_rejections", limit)
    assert [i for i, count in enumerate(row.words("limit_rejections")) if count] == [LIMITS.index(limit)]


def test_lines_of_the_log_that_were_lost() -> None:
    row = Row()
    row.inc("log_messages_dropped", by=3)
    row.inc("log_messages_dropped", by=2)
    assert row.words("log_messages_dropped") == (5,)
    board = Scoreboard.create(rows=1, slots=1)
    board.log_messages_dropped = 7
    assert board.log_messages_dropped == board.read().log_messages_dropped == 7


def test_connections_of_all_rows() -> None:
    alone = Row()
    alone.accepted()
    assert alone.connections_of_all == 1
    board = Scoreboard.create(4, 2)
    rows = [board.row(board.assign(slot)) for slot in (0, 1, 1)]
    for row in rows:
        row.accepted()
        row.accepted()
        row.handshake("ok", 0.001)
        row.opened()
    rows[2].closing()
    assert [row.connections_of_all for row in rows] == [6, 6, 6]
    board.retire(1, "crash")
    assert board.connections == rows[0].connections_of_all == 4


def test_tick() -> None:
    """A tick is the heartbeat and a value of the lag of the event loop."""
    row = Row()
    row.tick(12.5, 0.02)
    assert row.heartbeat == 12.5
    assert row.words("event_loop_lag")[bisect_left(BOUNDS["event_loop_lag"], 0.02)] == 1


OBSERVERS = {
    "handshake_duration": lambda row, seconds: row.handshake("ok", seconds),
    "connection_duration": lambda row, seconds: row.closed(1000, "local", seconds),
    "ping_rtt": lambda row, seconds: row.observe("ping_rtt", seconds),
    "event_loop_lag": lambda row, seconds: row.tick(0, seconds),
    "gc_pause": lambda row, seconds: row.observe("gc_pause", seconds),
}


@given(st.sampled_from(sorted(OBSERVERS)), st.lists(st.floats(0, 1e6) | st.sampled_from([0.0001, 0.001, 1, 5, 86400])))
def test_histograms_equal_a_model(name: str, values: list[float]) -> None:
    row = Row()
    for value in values:
        OBSERVERS[name](row, value)
    bounds = BOUNDS[name]
    buckets = Counter(bisect_left(bounds, value) for value in values)
    *counted, ticks = row.words(name)
    assert counted == [buckets[i] for i in range(len(counted))]
    assert abs(ticks - sum(round(value * FIELDS[name].ticks) for value in values)) <= len(values)


@pytest.mark.parametrize(
    ("value", "bucket", "seconds"), [(-1.0, 0, 0), (math.nan, 0, 0), (math.inf, 16, 1e9), (1e300, 16, 1e9)]
)
def test_impossible_durations_harm_nothing(value: float, bucket: int, seconds: float) -> None:
    row = Row()
    row.observe("ping_rtt", value)
    words = row.words("ping_rtt")
    assert words[bucket] == 1
    assert words[-1] == seconds * FIELDS["ping_rtt"].ticks


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda row: row.handshake("great", 1), "handshakes has no 'great': it must be one of ok, bad_request"),
        (lambda row: row.closed(1000, "them", 1), "closes has no 'them': it must be one of local, remote, abort"),
        (lambda row: row.closed(1000, "local", 1, "shut"), "unknown state 'shut': it must be one of open, closing"),
        (lambda row: row.inc("limit_rejections", "x"), "limit_rejections has no 'x': it must be one of daemon, "),
        (lambda row: row.inc("closes", "local", "999"), "closes has no '999': it must be one of 1000, "),
        (lambda row: row.inc("closes", "local"), "closes has words with 2 names, not 1"),
        (lambda row: row.inc("pong_timeouts", "x"), "pong_timeouts has words with 0 names, not 1"),
        (lambda row: row.inc("ping_rtt"), "unknown counter 'ping_rtt': it must be one of connections_accepted, "),
        (lambda row: row.inc("colour"), "unknown counter 'colour': it must be one of connections_accepted, "),
        (lambda row: row.observe("closes", 1), "unknown histogram 'closes': it must be one of handshake_duration, "),
        (lambda row: row.words("colour"), "unknown field 'colour': it must be one of connections_accepted"),
    ],
)
def test_unknown_names_are_refused_and_count_nothing(call, message: str) -> None:
    row = Row()
    with pytest.raises(ValueError, match=message):
        call(row)
    assert all(set(row.words(name)) == {0} for name in FIELDS)


# The current row


def test_default_row_is_private_and_counts() -> None:
    before = counters.current().words("pong_timeouts")[0]
    counters.current().inc("pong_timeouts")
    assert counters.current().words("pong_timeouts") == (before + 1,)


def test_use() -> None:
    """The row to count in is exchanged, and nothing but a row is one."""
    row = Row()
    before = counters.use(row)
    try:
        assert counters.current() is row
    finally:
        assert counters.use(before) is row
    assert counters.current() is before
    with pytest.raises(TypeError):
        counters.use(None)  # type: ignore[arg-type]


def test_forked_child_does_not_write_to_its_parents_row() -> None:
    board = Scoreboard.create()
    before = counters.use(board.row(board.assign(0)))
    try:
        assert in_child(lambda: counters.current().inc("pong_timeouts")) == 0
        assert board.read().counts.words("pong_timeouts") == (0,)
        counters.current().inc("pong_timeouts")
        assert board.read().counts.words("pong_timeouts") == (1,)
    finally:
        counters.use(before)


def test_forked_child_keeps_a_private_row() -> None:
    row = Row()
    before = counters.use(row)

    def child() -> None:
        assert counters.current() is row

    try:
        assert in_child(child) == 0
    finally:
        counters.use(before)


# The bus


def test_the_bus_of_a_process_is_what_was_set() -> None:
    row = Row()
    assert row.bus is None
    state = BusState("redis", False, True, 12.5, "Verbindung verweigert: ü")
    row.bus = state
    assert row.bus == state
    row.bus = BusState("local", True, False, 13.0, "")
    assert row.bus == BusState("local", True, False, 13.0, "")
    with pytest.raises(ValueError, match="amqp"):
        row.bus = BusState("amqp", True, False, 13.0, "")


def test_a_long_reason_is_cut_between_characters() -> None:
    row = Row()
    row.bus = BusState("local", False, False, 0.0, "x" + "ü" * 200)
    assert row.bus is not None
    assert row.bus.reason == "x" + "ü" * 63


def test_a_window_of_the_bus_begins_with_the_one_before() -> None:
    row = Row()
    row.inc("bus_published", by=5)
    row.observe("bus_lag", 0.5)
    row.begin_window(10.0)
    row.inc("bus_published", by=2)
    at, published, lag = row.bus_window
    assert (at, published, sum(lag)) == (10.0, 2, 0)
    row.begin_window(20.0)
    row.observe("bus_lag", 0.5)
    assert (row.bus_window[0], row.bus_window[1], sum(row.bus_window[2])) == (10.0, 2, 1)
    row.begin_window(30.0)
    assert (row.bus_window[0], row.bus_window[1], sum(row.bus_window[2])) == (20.0, 0, 1)


def test_a_gauge_is_set_by_its_name() -> None:
    row = Row()
    row.set("bus_members", 7)
    assert row.words("bus_members") == (7,)
    with pytest.raises(ValueError, match="unknown gauge 'bus_published'"):
        row.set("bus_published", 1)


def test_fan_out_is_measured_with_the_lag_of_each_message() -> None:
    row = Row()
    now = time.time()
    row.fanned_out([SimpleNamespace(time=now - 0.003), SimpleNamespace(time=now - 0.003)], now)
    *lags, seconds = row.words("bus_lag")
    assert (sum(lags), round(seconds / 1e6)) == (2, 6)
    assert sum(row.words("bus_fanout")[:-1]) == 1

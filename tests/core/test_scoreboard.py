"""The scoreboard: rows count exactly, reads are consistent, sums never go backwards."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import PATIENCE
from tidegate._core import scoreboard
from tidegate._core.scoreboard import (
    BOUNDS,
    CLOSE_CODES,
    EXIT_REASONS,
    FIELDS,
    HANDSHAKE_RESULTS,
    INITIATORS,
    LIMITS,
    RESULT_OF_STATUS,
    STAGES,
    Row,
    Scoreboard,
)

CLOSES_PER_INITIATOR = FIELDS["closes"].size // len(INITIATORS)
HISTOGRAMS = [name for name, field in FIELDS.items() if field.kind == "histogram"]
LASTING = [name for name, field in FIELDS.items() if field.kind != "gauge"]
SEQUENCE_OFFSET = 5 * 8  # of the header's sequence: scoreboard.h


def run(code: str, *arguments: object, fds: tuple[int, ...] = (), **options: object) -> "subprocess.Popen[str]":
    """Starts Python code in another process that has the scoreboard's descriptor."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, pass_fds=fds, text=True, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]


def in_child(action) -> int:
    """Runs an action in a forked child; its exit status: 0 if it returned."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


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


def test_closed_sets_fit() -> None:
    assert len(HANDSHAKE_RESULTS) <= FIELDS["handshakes"].size
    assert len(CLOSE_CODES) <= CLOSES_PER_INITIATOR
    assert set(RESULT_OF_STATUS.values()) <= set(HANDSHAKE_RESULTS)


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
    row.pong_timeout()
    assert row.words("pong_timeouts") == (1,)


@pytest.mark.parametrize("limit", LIMITS)
def test_limit_rejections(limit: str) -> None:
    row = Row()
    row.limit_rejection(limit)
    assert [i for i, count in enumerate(row.words("limit_rejections")) if count] == [LIMITS.index(limit)]
    with pytest.raises(ValueError, match="unknown limit 'x': it must be one of daemon, "):
        row.limit_rejection("x")


def test_lines_of_the_log_that_were_lost() -> None:
    row = Row()
    row.log_dropped(3)
    row.log_dropped(2)
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
    row = Row()
    row.tick(12.5, 0.02)
    assert row.heartbeat == 12.5
    assert row.words("event_loop_lag")[bisect_left(BOUNDS["event_loop_lag"], 0.02)] == 1


OBSERVERS = {
    "handshake_duration": lambda row, seconds: row.handshake("ok", seconds),
    "connection_duration": lambda row, seconds: row.closed(1000, "local", seconds),
    "ping_rtt": lambda row, seconds: row.ping_rtt(seconds),
    "event_loop_lag": lambda row, seconds: row.tick(0, seconds),
    "gc_pause": lambda row, seconds: row.collected(0, seconds),
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
    row.ping_rtt(value)
    words = row.words("ping_rtt")
    assert words[bucket] == 1
    assert words[-1] == seconds * FIELDS["ping_rtt"].ticks


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda row: row.handshake("great", 1), "unknown handshake result 'great': it must be one of ok, bad_request"),
        (lambda row: row.closed(1000, "them", 1), "unknown initiator 'them': it must be one of local, remote, abort"),
        (lambda row: row.closed(1000, "local", 1, "shut"), "unknown state 'shut': it must be one of open, closing"),
        (lambda row: row.slow_consumer("wait"), "unknown action 'wait': it must be one of close"),
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
    before = scoreboard.current().words("pong_timeouts")[0]
    scoreboard.current().pong_timeout()
    assert scoreboard.current().words("pong_timeouts") == (before + 1,)


def test_use() -> None:
    row = Row()
    before = scoreboard.use(row)
    try:
        assert scoreboard.current() is row
    finally:
        assert scoreboard.use(before) is row
    assert scoreboard.current() is before
    with pytest.raises(TypeError):
        scoreboard.use(None)  # type: ignore[arg-type]


def test_forked_child_does_not_write_to_its_parents_row() -> None:
    board = Scoreboard.create()
    before = scoreboard.use(board.row(board.assign(0)))
    try:
        assert in_child(lambda: scoreboard.current().pong_timeout()) == 0
        assert board.read().counts.words("pong_timeouts") == (0,)
        scoreboard.current().pong_timeout()
        assert board.read().counts.words("pong_timeouts") == (1,)
    finally:
        scoreboard.use(before)


def test_forked_child_keeps_a_private_row() -> None:
    row = Row()
    before = scoreboard.use(row)

    def child() -> None:
        assert scoreboard.current() is row

    try:
        assert in_child(child) == 0
    finally:
        scoreboard.use(before)


# The shared file


@pytest.fixture(params=["memfd", "anonymous"])
def board(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Scoreboard:
    if request.param == "anonymous":
        monkeypatch.delattr(os, "memfd_create")
    board = Scoreboard.create(rows=8, slots=4)
    assert (board.fd < 0) == (request.param == "anonymous")
    return board


def test_new_scoreboard(board: Scoreboard) -> None:
    assert (board.rows, board.slots) == (8, 4)
    snapshot = board.read()
    assert snapshot.pid == board.pid == os.getpid()
    assert snapshot.started_at == board.started_at
    assert snapshot.ticked_at == board.ticked_at
    assert abs(board.started_at - time.time()) < 60
    assert 0 <= snapshot.taken_at - snapshot.ticked_at < 60
    assert (snapshot.desired, snapshot.ready, snapshot.draining, snapshot.slots) == (0, False, False, ())
    assert all(set(snapshot.counts.words(name)) == {0} for name in FIELDS)


def test_facts(board: Scoreboard) -> None:
    board.desired = 3
    board.ready = True
    board.draining = True
    board.tick(77.5)
    snapshot = board.read()
    assert (board.desired, board.ready, board.draining, board.ticked_at) == (3, True, True, 77.5)
    assert (snapshot.desired, snapshot.ready, snapshot.draining, snapshot.ticked_at) == (3, True, True, 77.5)


def test_a_workers_life(board: Scoreboard) -> None:
    i = board.assign(2, generation=7)
    assert [slot.index for slot in board.read().slots] == [0, 1, 2]
    (worker,) = board.read().slots[2].workers
    assert (worker.row, worker.slot, worker.generation, worker.pid, worker.stage) == (i, 2, 7, 0, "starting")
    assert board.read().slots[2].spawns == 0

    board.spawn(i, 4321)
    for stage in STAGES:
        board.stage(i, stage)
        (worker,) = board.read().slots[2].workers
        assert (worker.pid, worker.stage) == (4321, stage)
        assert abs(worker.started_at - time.time()) < 60

    row = board.row(i)
    row.accepted()
    row.tick(5.5, 0.001)
    slot = board.read().slots[2]
    assert slot.workers[0].counts.heartbeat == 5.5
    assert slot.counts.words("connections_handshaking") == (1,)
    assert slot.counts.heartbeat == 0

    board.retire(i, "crash")
    slot = board.read().slots[2]
    assert (slot.spawns, slot.workers) == (1, ())
    assert {reason: count for reason, count in slot.exits.items() if count} == {"crash": 1}
    assert tuple(slot.exits) == EXIT_REASONS
    assert slot.counts.words("connections_accepted") == (1,)
    assert slot.counts.words("connections_handshaking") == (0,)
    assert board.row(i).heartbeat == 0


def test_retire_without_a_reason_counts_no_exit(board: Scoreboard) -> None:
    board.retire(board.assign(0))
    assert set(board.read().slots[0].exits.values()) == {0}


def test_two_generations_in_a_slot(board: Scoreboard) -> None:
    old, new = board.assign(0, 1, pid=11), board.assign(0, 2, pid=12)
    board.row(old).accepted()
    board.row(new).accepted()
    slot = board.read().slots[0]
    assert [(worker.pid, worker.generation) for worker in slot.workers] == [(11, 1), (12, 2)]
    assert slot.counts.words("connections_handshaking") == (2,)
    board.retire(old, "reload")
    slot = board.read().slots[0]
    assert [worker.pid for worker in slot.workers] == [12]
    assert slot.counts.words("connections_handshaking") == (1,)
    assert slot.counts.words("connections_accepted") == (2,)


def test_backoff(board: Scoreboard) -> None:
    board.assign(1)
    board.backoff(1, 99.5)
    assert [slot.backoff_until for slot in board.read().slots] == [0, 99.5]


def test_rows_are_used_again_and_run_out(board: Scoreboard) -> None:
    assert [board.assign(0) for _ in range(8)] == list(range(8))
    with pytest.raises(RuntimeError, match="all 8 rows of the scoreboard are assigned"):
        board.assign(0)
    board.retire(3)
    assert board.assign(1) == 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda board: board.row(8), IndexError, "rows 0 to 7, not 8"),
        (lambda board: board.assign(4), ValueError, "slots 0 to 3, not 4"),
        (lambda board: board.backoff(4, 0), ValueError, "slots 0 to 3, not 4"),
        (lambda board: board.spawn(0, 1), ValueError, "row 0 is not assigned"),
        (lambda board: board.stage(0, "ready"), ValueError, "row 0 is not assigned"),
        (lambda board: board.retire(0), ValueError, "row 0 is not assigned"),
        (lambda board: board.retire(8), ValueError, "row 8 is not assigned"),
        (
            lambda board: board.stage(board.assign(0), "lost"),
            ValueError,
            "unknown stage 'lost'.*starting, booted, ready",
        ),
        (lambda board: board.retire(board.assign(0), "bored"), ValueError, "unknown exit reason 'bored'.*stopped"),
        (lambda board: board.accept_queue(4, 0, 0), ValueError, "slots 0 to 3, not 4"),
        (lambda board: Scoreboard(), TypeError, "create"),
        (lambda board: Scoreboard.create(rows=2, slots=3), ValueError, "not 3 slots and 2 rows"),
        (lambda board: Scoreboard.create(rows=2, slots=0), ValueError, "not 0 slots and 2 rows"),
    ],
)
def test_wrong_calls(board: Scoreboard, call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(board)
    board.read()


def test_close_keeps_the_memory(board: Scoreboard) -> None:
    row = board.row(board.assign(0))
    board.close()
    board.close()
    assert board.fd == -1
    row.accepted()
    assert board.read().counts.words("connections_accepted") == (1,)
    del board
    row.accepted()
    assert row.words("connections_accepted") == (2,)


def test_a_killed_workers_row_can_be_read(board: Scoreboard) -> None:
    i = board.assign(0)
    ready, told = os.pipe()

    def child() -> None:
        scoreboard.use(board.row(i))
        for _ in range(3):
            scoreboard.current().accepted()
        scoreboard.current().tick(8.5, 0)
        os.write(told, b"!")
        signal.pause()

    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(1)
    try:
        assert os.read(ready, 1) == b"!"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)
    (worker,) = board.read().slots[0].workers
    assert worker.counts.heartbeat == 8.5
    assert worker.counts.words("connections_accepted") == (3,)
    board.retire(i, "signal")
    assert board.read().counts.words("connections_accepted") == (3,)


def test_untouched_rows_cost_nothing() -> None:
    board = Scoreboard.create()
    row = board.row(board.assign(0))
    row.accepted()
    board.read()
    board.retire(0)
    board.read()
    assert os.fstat(board.fd).st_size > 3_000_000
    # header, directory, slot and row: 4 KiB each, or one page each where pages are larger
    assert os.fstat(board.fd).st_blocks * 512 <= (48 + 4 * 4) * 1024 * (os.sysconf("SC_PAGESIZE") // 4096)


def test_the_file_cannot_be_cut() -> None:
    board = Scoreboard.create()
    with pytest.raises(PermissionError):
        os.ftruncate(board.fd, 0)


# Attaching


def test_attach() -> None:
    board = Scoreboard.create(rows=8, slots=4)
    i = board.assign(3, pid=5)
    board.row(i).accepted()
    other = Scoreboard.attach(os.dup(board.fd))
    board.close()
    assert (other.rows, other.slots, other.pid) == (8, 4, os.getpid())
    assert other.read().slots[3].workers[0].pid == 5
    other.row(i).accepted()
    assert board.read().counts.words("connections_accepted") == (2,)
    other.close()


@pytest.mark.parametrize(
    ("offset", "content", "message"),
    [
        (0, b"x", "is no scoreboard: it starts with other bytes"),
        (8, b"\xff", "has layout 255, and this tidegate reads"),
        (16, b"\x01", "should hold .* bytes, and holds"),
        (24, b"\x07", "should hold .* bytes, and holds"),
        (24, b"\xff\xff\xff\xff", "should hold .* bytes, and holds"),
        (32, b"\xff\xff\xff\xff", "should hold .* bytes, and holds"),
    ],
)
def test_attach_refuses_what_is_no_scoreboard(offset: int, content: bytes, message: str) -> None:
    board = Scoreboard.create(rows=8, slots=4)
    os.pwrite(board.fd, content, offset)
    with pytest.raises(ValueError, match=message):
        Scoreboard.attach(board.fd)
    board.close()


def test_attach_refuses_a_short_file() -> None:
    fd = os.memfd_create("short")
    os.write(fd, b"TIDEGATE")
    with pytest.raises(ValueError, match=f"file descriptor {fd} is no scoreboard: it holds 8 bytes"):
        Scoreboard.attach(fd)
    os.close(fd)


# Sums never go backwards


class Model:
    """A scoreboard, and beside it what it should say: for each slot its live rows, counts and open connections."""

    def __init__(self) -> None:
        self.board = Scoreboard.create(rows=12, slots=4)
        self.live: dict[int, list[int]] = {slot: [] for slot in range(4)}
        self.counts: Counter[tuple[int, str]] = Counter()
        self.opened: Counter[int] = Counter()

    def assign(self, slot: int, seconds: float) -> None:
        if sum(map(len, self.live.values())) < self.board.rows:
            self.live[slot].append(self.board.assign(slot))

    def retire(self, slot: int, seconds: float) -> None:
        if self.live[slot]:
            i = self.live[slot].pop(int(seconds) % len(self.live[slot]))
            self.board.retire(i, "stopped")
            self.counts[slot, "exits"] += 1
            del self.opened[i]

    def open(self, slot: int, seconds: float) -> None:
        for i in self.live[slot][-1:]:
            row = self.board.row(i)
            row.accepted()
            row.handshake("ok", seconds)
            row.opened()
            self.counts.update({(slot, "connections_accepted"): 1, (slot, "handshake_duration"): 1})
            self.opened[i] += 1

    def close(self, slot: int, seconds: float) -> None:
        for i in self.live[slot][-1:]:
            self.board.row(i).closed(1000, "local", seconds, "open")
            self.counts[slot, "connection_duration"] += 1
            self.opened[i] -= 1

    def ping(self, slot: int, seconds: float) -> None:
        for i in self.live[slot]:
            self.board.row(i).ping_rtt(seconds)
            self.counts[slot, "ping_rtt"] += 1


STEP = st.tuples(
    st.sampled_from([Model.assign, Model.retire, Model.open, Model.close, Model.ping]),
    st.integers(0, 3),
    st.floats(0, 100),
)


@given(st.lists(STEP, max_size=60))
def test_sums_equal_a_model(steps: list[tuple[object, int, float]]) -> None:
    """Any order of assignments, counts and retirements: slot by slot, sums are those of a simple model."""
    model = Model()
    for step, slot, seconds in steps:
        step(model, slot, seconds)  # type: ignore[operator]
    snapshot = model.board.read()
    for slot in snapshot.slots:
        live = model.live[slot.index]
        assert slot.counts.words("connections_accepted") == (model.counts[slot.index, "connections_accepted"],)
        for name in ("handshake_duration", "connection_duration", "ping_rtt"):
            assert sum(slot.counts.words(name)[:-1]) == model.counts[slot.index, name]
        assert slot.exits["stopped"] == model.counts[slot.index, "exits"]
        assert slot.counts.words("connections_open") == (sum(model.opened[i] for i in live),)
        assert [worker.row for worker in slot.workers] == sorted(live)
    for name, field in FIELDS.items():
        columns = [slot.counts.words(name) for slot in snapshot.slots]
        assert snapshot.counts.words(name) == tuple(map(sum, zip(*columns, strict=True))) or not columns
        assert len(snapshot.counts.words(name)) == field.size
    model.board.close()


READER = """
import sys
from tidegate._core.scoreboard import FIELDS, Scoreboard
board = Scoreboard.attach(int(sys.argv[1]))
counting = board.row(int(sys.argv[2]))
names = [name for name, field in FIELDS.items() if field.kind != "gauge" and name != "pong_timeouts"]
places = [*range(3), None]
before = {}
while True:
    snapshot = board.read(10)
    for place in places:
        counts = snapshot.counts if place is None else snapshot.slots[place].counts
        for name in names:
            now = counts.words(name)
            assert all(a <= b for a, b in zip(before.get((place, name), now), now)), (place, name)
            before[place, name] = now
    counting.pong_timeout()
    if snapshot.draining:
        print(sum(before[None, "handshakes"]))
        break
"""


def test_a_reader_in_another_process_never_sees_a_sum_shrink() -> None:
    """The supervisor retires a thousand rows, beside live ones, while another process reads as fast as it can."""
    board = Scoreboard.create(rows=16, slots=4)
    mine = board.assign(3)
    rows = [board.assign(slot) for slot in (0, 1, 2, 0, 1, 2)]
    chance = random.Random(1)
    reader = run(READER, board.fd, mine, fds=(board.fd,))
    try:
        retired = counted = 0
        while retired < 1000:
            for i in rows:
                row = board.row(i)
                row.accepted()
                row.handshake("ok", chance.random())
                row.closed(chance.choice([1000, 1001, 3000]), "local", chance.random() * 1e6, "open")
                row.ping_rtt(chance.random() / 3)
                row.tick(1, chance.random() / 7)
                counted += 1
            place = chance.randrange(len(rows))
            board.retire(rows[place], "reload")
            rows[place] = board.assign(place % 3)
            retired += 1
            if retired % 10 == 0:  # let the reader keep up, so that reads and retirements mix to the end
                seen = board.row(mine).words("pong_timeouts")
                while board.row(mine).words("pong_timeouts") == seen and reader.poll() is None:
                    board.retire(board.assign(3))
        board.draining = True
        output, _ = reader.communicate(timeout=PATIENCE)
    finally:
        reader.kill()
        reader.wait()
    assert reader.returncode == 0
    assert int(output) == counted
    assert board.row(mine).words("pong_timeouts")[0] >= 100


def test_readers_give_up_on_a_supervisor_that_died_while_writing() -> None:
    board = Scoreboard.create()
    before = board.read()
    sequence = os.pread(board.fd, 8, SEQUENCE_OFFSET)
    os.pwrite(board.fd, b"\x01", SEQUENCE_OFFSET)
    with pytest.raises(TimeoutError, match=rf"the supervisor \(pid {os.getpid()}\) was writing for 0.01 s"):
        board.read(0.01)
    os.pwrite(board.fd, sequence, SEQUENCE_OFFSET)
    assert board.read().pid == before.pid


def test_sums_do_not_depend_on_the_order_of_adding() -> None:
    """Of doubles they would: 0.1 + 0.2 + 0.3 is another number than 0.3 + 0.2 + 0.1."""
    board = Scoreboard.create()
    rows = [board.assign(0) for _ in range(3)]
    for i, seconds in zip(rows, (0.1, 0.2, 0.3), strict=True):
        board.row(i).ping_rtt(seconds)
    before = board.read().counts.words("ping_rtt")
    for i in reversed(rows):
        board.retire(i)
        assert board.read().counts.words("ping_rtt") == before
    assert before[-1] == 600_000_000

"""Reads of the scoreboard are consistent, and sums never go backwards."""

import os
import random
import subprocess
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.cases_scoreboard import read_until_draining
from tests.support import programs
from tests.support.patience import PATIENCE
from tidegate._core.counters import (
    FIELDS,
)
from tidegate._core.scoreboard import Scoreboard

SEQUENCE_OFFSET = 5 * 8  # of the header's sequence: scoreboard.h


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
            self.board.row(i).observe("ping_rtt", seconds)
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


def test_a_reader_in_another_process_never_sees_a_sum_shrink() -> None:
    """The supervisor retires a thousand rows, beside live ones, while another process reads as fast as it can."""
    board = Scoreboard.create(rows=16, slots=4)
    mine = board.assign(3)
    rows = [board.assign(slot) for slot in (0, 1, 2, 0, 1, 2)]
    chance = random.Random(1)
    command = programs.program(read_until_draining, str(board.fd), str(mine))
    reader = subprocess.Popen(
        command, env=programs.environment(), pass_fds=(board.fd,), text=True, stdout=subprocess.PIPE
    )
    try:
        retired = counted = 0
        while retired < 1000:
            for i in rows:
                row = board.row(i)
                row.accepted()
                row.handshake("ok", chance.random())
                row.closed(chance.choice([1000, 1001, 3000]), "local", chance.random() * 1e6, "open")
                row.observe("ping_rtt", chance.random() / 3)
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
        board.row(i).observe("ping_rtt", seconds)
    before = board.read().counts.words("ping_rtt")
    for i in reversed(rows):
        board.retire(i)
        assert board.read().counts.words("ping_rtt") == before
    assert before[-1] == 600_000_000

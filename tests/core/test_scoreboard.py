"""The shared file: rows are taken and given back, what does not fit is refused."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import tidegate
from tests.core.rebuild import need_a_compiler
from tidegate._core import counters
from tidegate._core.counters import FIELDS
from tidegate._core.scoreboard import LAYOUT, Scoreboard
from tidegate._core.snapshot import EXIT_REASONS, STAGES

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
    """What the supervisor writes about itself is what readers read."""
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
    """A slot that backs off says until when."""
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
        (
            lambda board: board.retire(board.assign(0), "bored"),
            ValueError,
            "exits has no 'bored': it must be one of stopped",
        ),
        (
            lambda board: board.inc("spawns"),
            ValueError,
            "unknown counter 'spawns': it must be one of reloads, upgrades",
        ),
        (lambda board: board.inc("reloads", "bad"), ValueError, "reloads has no 'bad': it must be one of success, "),
        (lambda board: board.inc_slot(0, "reloads"), ValueError, "unknown counter 'reloads': .* spawns, exits"),
        (lambda board: board.inc_slot(4, "spawns"), ValueError, "slots 0 to 3, not 4"),
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
        counters.use(board.row(i))
        for _ in range(3):
            counters.current().accepted()
        counters.current().tick(8.5, 0)
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
    """Another process that has the descriptor reads and counts in the same memory."""
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
        (0, b"x", "is not a scoreboard: it starts with other bytes"),
        (8, b"\xff" + bytes(7), "has layout 255, and this tidegate reads"),
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
    with pytest.raises(ValueError, match=f"file descriptor {fd} is not a scoreboard: it holds 8 bytes"):
        Scoreboard.attach(fd)
    os.close(fd)


# The number of the layout

PROGRAM = """
#include <inttypes.h>
#include <stdio.h>
#include "scoreboard.h"
int main(void) { printf("%" PRIu64 " %zu", tg_layout(), tg_size(2, 1)); }
"""
HEADERS = Path(tidegate.__file__).parent / "_core"


def layout_of(folder: Path, before: str, after: str) -> int:
    """The number that a program computes whose headers have `after` in place of `before`."""
    for name in ("counters.h", "scoreboard.h"):
        text = (HEADERS / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace(before, after), encoding="utf-8")
    (folder / "layout.c").write_text(PROGRAM, encoding="utf-8")
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-o", "layout", "layout.c"], cwd=folder, check=True)
    told = subprocess.run(["./layout"], cwd=folder, capture_output=True, text=True, check=True).stdout
    return int(told.split()[0])


@pytest.mark.slow
def test_a_program_with_the_same_table_has_the_same_layout(tmp_path: Path) -> None:
    need_a_compiler()
    assert layout_of(tmp_path, "", "") == LAYOUT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('X(pong_timeouts, , "")', 'X(pong_timeouts, , "") X(ping_timeouts, , "")'),
        ('X(pong_timeouts, , "")', 'X(ping_timeouts, , "")'),
        ('X(bytes, [2], "received sent")', 'X(bytes, [3], "received sent")'),
        ("X(gc_pause, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS)", "X(gc_pause, TG_LAGS, TG_LAG_BOUNDS, TG_NANOSECONDS)"),
        ("X(gc_pause, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS)", "X(gc_pause, TG_DURATIONS, TG_BOUNDS, TG_BYTES)"),
        ("0.0001, 0.00025,", "0.0002, 0.00025,"),
        ("X(uint64_t, send_queue_max_bytes)", "X(uint64_t, send_queue_most_bytes)"),
        ("uint64_t ready, draining;", "uint64_t draining, ready;"),
        ('X(spawns, , "")', 'X(spawns, , "") X(respawns, , "")'),
        ('X(upgrades, [TG_OUTCOMES], "success failure")', 'X(updates, [TG_OUTCOMES], "success failure")'),
        ("    X(exits, [16],", "    X(exits, [18],"),
    ],
)
def test_a_program_with_another_table_has_another_layout(before: str, after: str, tmp_path: Path) -> None:
    """So it does not take this one's memory for its own."""
    need_a_compiler()
    assert any(before in (HEADERS / name).read_text(encoding="utf-8") for name in ("counters.h", "scoreboard.h"))
    assert layout_of(tmp_path, before, after) != LAYOUT


@pytest.mark.slow
def test_a_name_added_to_a_closed_set_is_no_other_layout(tmp_path: Path) -> None:
    need_a_compiler()
    assert layout_of(tmp_path, "daemon descriptors address rate", "daemon descriptors address rate origin") == LAYOUT

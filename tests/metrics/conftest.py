"""A scoreboard as a daemon in service has it: two slots, one of them in a handover, and one worker that crashed.

What must not live here: anything but fixtures.
"""

import time

import pytest

from tidegate._core.scoreboard import Scoreboard


@pytest.fixture
def board() -> Scoreboard:
    board = Scoreboard.create()
    board.desired = 2
    crashed = board.assign(0, generation=1)
    board.spawn(crashed, 100)
    board.row(crashed).accepted()
    board.row(crashed).handshake("ok", 0.5)
    board.retire(crashed, "crash")
    for slot, generation, stage in ((0, 1, "draining"), (0, 2, "ready"), (1, 2, "ready")):
        i = board.assign(slot, generation)
        board.spawn(i, 101 + i)
        board.stage(i, stage)
        row = board.row(i)
        for _ in range(3):
            row.accepted()
            row.handshake("ok", 0.002)
            row.opened()
        row.accepted()
        row.handshake("forbidden", 0.0001)
        row.accepted()
        row.closing()
        row.closed(1001, "local", 12)
        row.closed(4321, "remote", 100_000, state="open")
        row.observe("ping_rtt", 0.03)
        row.inc("pong_timeouts")
        row.tick(time.monotonic(), 0.0002)
    board.ready = True
    return board

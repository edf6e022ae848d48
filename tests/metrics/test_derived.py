"""What is known about a daemon: each fact, at each turn of its life."""

import platform
import time

from tidegate import __version__
from tidegate._core.scoreboard import Scoreboard
from tidegate._core.snapshot import STAGES
from tidegate.metrics import derived


def test_build_info(board: Scoreboard) -> None:
    (((version, python, uvloop), value),) = derived.build_info(board.read())
    assert (version, python, value) == (__version__, platform.python_version(), 1)
    assert uvloop[0].isdigit()


def test_the_supervisors_facts(board: Scoreboard) -> None:
    board.draining = True
    board.tick(time.monotonic() - 5)
    snapshot = board.read()
    assert list(derived.start_time(snapshot)) == [((), board.started_at)]
    assert list(derived.desired(snapshot)) == [((), 2)]
    assert list(derived.draining(snapshot)) == [((), 1)]
    ((_, age),) = derived.tick_age(snapshot)
    assert 5 <= age < 65


def test_a_tick_after_the_read_is_no_negative_age(board: Scoreboard) -> None:
    board.tick(time.monotonic() + 5)
    board.row(board.assign(2)).tick(time.monotonic() + 5, 0)
    assert list(derived.tick_age(board.read())) == [((), 0)]
    assert (("2",), 0) in list(derived.heartbeat_age(board.read()))


def test_stages_in_a_handover(board: Scoreboard) -> None:
    found = dict(derived.stages(board.read()))
    assert {labels for labels, value in found.items() if value} == {("0", "draining"), ("0", "ready"), ("1", "ready")}
    assert len(found) == 2 * (len(STAGES) + 1)


def test_the_newest_worker_speaks_for_its_slot(board: Scoreboard) -> None:
    snapshot = board.read()
    assert list(derived.worker_generation(snapshot)) == [(("0",), 2), (("1",), 2)]
    started = [max(worker.started_at for worker in slot.workers) for slot in snapshot.slots]
    assert [value for _, value in derived.worker_start_time(snapshot)] == started
    assert abs(started[0] - time.time()) < 60


def test_spawns_and_exits(board: Scoreboard) -> None:
    assert list(derived.counted("spawns")(board.read())) == [(("0",), 3), (("1",), 1)]
    assert [labels for labels, value in derived.counted("exits")(board.read()) if value] == [("0", "crash")]


def test_the_heartbeat_is_that_of_the_slots_slowest_worker_that_has_one() -> None:
    board = Scoreboard.create()
    now = time.monotonic()
    for beat in (now - 50, now, None):  # the last one is booting
        i = board.assign(0)
        if beat is not None:
            board.row(i).tick(beat, 0)
    ((labels, age),) = derived.heartbeat_age(board.read())
    assert labels == ("0",)
    assert 50 <= age < 110


def test_a_slot_in_backoff() -> None:
    board = Scoreboard.create()
    board.retire(board.assign(0), "boot_failed")
    board.backoff(0, time.monotonic() + 100)
    snapshot = board.read()
    assert derived.in_backoff(snapshot.slots[0], snapshot)
    assert [labels for labels, value in derived.stages(snapshot) if value] == [("0", "backoff")]
    assert list(derived.worker_start_time(snapshot)) == list(derived.heartbeat_age(snapshot)) == []


def test_a_slot_no_longer_in_backoff() -> None:
    board = Scoreboard.create()
    board.retire(board.assign(0), "boot_failed")
    board.backoff(0, time.monotonic() - 1)
    assert not any(value for _, value in derived.stages(board.read()))
    board.backoff(0, time.monotonic() + 100)
    board.assign(0)
    assert [labels for labels, value in derived.stages(board.read()) if value] == [("0", "starting")]


def test_ready(board: Scoreboard) -> None:
    """Readiness follows from ready slots, and ends with draining."""
    assert derived.ready_slots(board.read()) == 2
    assert derived.is_ready(board.read())
    assert list(derived.ready(board.read())) == [((), 1)]
    board.ready = False
    assert not derived.is_ready(board.read())
    board.ready = board.draining = True
    assert not derived.is_ready(board.read())


def test_the_hash_of_the_configuration() -> None:
    board = Scoreboard.create()
    assert list(derived.config_hash(board.read())) == []
    board.config_hash = 0xABC
    assert list(derived.config_hash(board.read())) == [(("0000000000000abc",), 1)]


def test_the_most_connections_that_there_may_be(board: Scoreboard) -> None:
    assert list(derived.connections_max(board.read())) == []
    for slot in board.read().slots:
        for worker in slot.workers:
            board.row(worker.row).connections_max = 1000 + worker.row, None
    newest = [max(slot.workers, key=lambda worker: worker.started_at).row for slot in board.read().slots]
    assert list(derived.connections_max(board.read())) == [((), sum(1000 + row for row in newest))]
    board.row(newest[0]).connections_max = 1000, 300
    assert list(derived.connections_max(board.read())) == [((), 300)]


def test_the_fullest_queue_of_a_slot_is_that_of_its_workers(board: Scoreboard) -> None:
    for slot in board.read().slots:
        for worker in slot.workers:
            board.row(worker.row).send_queues(1, 100, 10 + worker.row)
    most = [max(worker.row for worker in slot.workers) for slot in board.read().slots]
    assert list(derived.send_queue_max(board.read())) == [(("0",), 10 + most[0]), (("1",), 10 + most[1])]

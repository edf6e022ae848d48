"""The supervisor's decisions, with children that are a few lines of Python, who tell and end as a case wants it.

Each case runs a supervisor in a process of its own, for signals and children belong to a whole process.
What must not live here: real workers (tests/process).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.supervisor.staged import supervise

ALL_READY = "stop_when(lambda: main.complete)\n"


def test_all_ready_and_stopped(tmp_path: Path) -> None:
    log = supervise(tmp_path, "worker = obedient\n" + ALL_READY)
    for words in ("started", "worker 0 (pid", "worker 1 (pid", "listening on unix:socket", "ready: 2 of 2", "SIGTERM"):
        assert words in log
    assert log.count("exited with status 0") == 2
    assert "stopped with status 0" in log


def test_without_descriptors_of_processes(tmp_path: Path) -> None:
    """As on macOS: SIGCHLD says that somebody has ended."""
    log = supervise(
        tmp_path,
        """
        del os.pidfd_open
        def worker(config, slot, sockets, row, pipe):
            if slot == 0 and not os.path.exists("died"):
                open("died", "x")
                return 9
            return obedient(config, slot, sockets, row, pipe)
        stop_when(lambda: main.complete)
        """,
    )
    assert "exited with status 9: the next one follows" in log


def test_a_report_may_come_byte_by_byte(tmp_path: Path) -> None:
    supervise(
        tmp_path,
        """
        def worker(config, slot, sockets, row, pipe):
            for byte in b'{"stage":"starting"}\\n{"stage":"ready"}\\n':
                pipe.send(bytes([byte]))
                time.sleep(0.001)
            return until_told(Pipe(pipe, Order))
        stop_when(lambda: main.complete)
        """,
    )


def test_what_is_no_report_is_left_out(tmp_path: Path) -> None:
    supervise(
        tmp_path,
        """
        def worker(config, slot, sockets, row, pipe):
            pipe.sendall(b'hello\\n{"stage":"flying"}\\n[]\\n\\n' + bytes(range(256)) + b'\\n')
            pipe.sendall(b'x' * 300_000 + b'\\n')
            pipe.sendall(b'{"stage":"ready","error":null,"exit":null,"more":1}\\n')
            return until_told(Pipe(pipe, Order))
        stop_when(lambda: main.complete)
        """,
    )


def test_a_worker_that_dies_before_anything(tmp_path: Path) -> None:
    log = supervise(tmp_path, "def worker(*arguments): os._exit(5)\n", status=1)
    assert log.count("exited with status 5") >= 6
    assert "no worker has become ready in 3 attempts" in log


def test_one_worker_that_is_ready_keeps_the_daemon_up(tmp_path: Path) -> None:
    log = supervise(
        tmp_path,
        """
        def worker(config, slot, sockets, row, pipe):
            return 5 if slot else obedient(config, slot, sockets, row, pipe)
        stop_when(lambda: main.pool.workers[1].backoff.failures >= 4)
        """,
    )
    assert log.count("exited with status 5") >= 4


@pytest.mark.parametrize("status", [3, 4])
def test_a_worker_that_says_why_it_cannot_begin(tmp_path: Path, status: int) -> None:
    program = f"""
        def worker(config, slot, sockets, row, pipe):
            Pipe(pipe, Order).send(Report("gone", "no database", {status}), wait=True)
            return {status}
    """
    log = supervise(tmp_path, program, status=status)
    assert log.count("no database") == 1
    assert log.count("exited with status") + log.count("SIGTERM") <= 2


def test_a_long_error_arrives_whole(tmp_path: Path) -> None:
    program = """
        def worker(config, slot, sockets, row, pipe):
            Pipe(pipe, Order).send(Report("gone", "long" * 10_000 + " story", 3), wait=True)
            return 3
    """
    assert "long story" in supervise(tmp_path, program, status=3)


def test_forks_that_fail_for_a_while(tmp_path: Path) -> None:
    log = supervise(
        tmp_path,
        """
        worker, fork, failures = obedient, os.fork, iter(range(3))
        def failing():
            for _ in failures:
                raise BlockingIOError(11, "no process to be had")
            return fork()
        os.fork = failing
        stop_when(lambda: main.complete)
        """,
    )
    assert log.count("no process to be had") == 3


def test_forks_that_always_fail(tmp_path: Path) -> None:
    program = """
        worker = obedient
        def failing():
            raise BlockingIOError(11, "no process to be had")
        os.fork = failing
    """
    assert "no worker has become ready" in supervise(tmp_path, program, status=1)


def test_a_stop_between_two_forks(tmp_path: Path) -> None:
    """The signal comes while the first worker is being forked; nobody is ever ready."""
    log = supervise(
        tmp_path,
        """
        fork = os.fork
        def worker(*arguments): time.sleep(1000)
        def interrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            return fork()
        os.fork = interrupted
        """,
    )
    assert "is ready" not in log


def test_a_stop_before_anything_is_forked(tmp_path: Path) -> None:
    log = supervise(
        tmp_path,
        """
        worker = None
        def no_fork(): raise AssertionError
        os.fork = no_fork
        bind = Listeners.bind
        def binding(*arguments):
            os.kill(os.getpid(), signal.SIGINT)
            bind(*arguments)
        Listeners.bind = binding
        """,
    )
    assert "SIGINT: stopping" in log


def test_a_child_is_told_to_end_the_moment_it_is_forked(tmp_path: Path) -> None:
    """Its signals still wait then: it must not lose the order, nor hand it to its parent."""
    log = supervise(
        tmp_path,
        """
        fork = os.fork
        def worker(*arguments): time.sleep(1000)
        def hurried():
            pid = fork()
            if pid:
                os.kill(pid, signal.SIGTERM)
            return pid
        os.fork = hurried
        stop_when(lambda: main.pool.workers[0].backoff.failures >= 2)
        """,
    )
    assert log.count("was killed by signal 15 (SIGTERM)") >= 2


def test_orders_grow_with_each_signal(tmp_path: Path) -> None:
    """The worker says with its status what it has heard; each order makes it wait for the next."""
    log = supervise(
        tmp_path,
        """
        settings["workers"] = 1
        def worker(config, slot, sockets, row, pipe):
            end, heard = Pipe(pipe, Order), []
            end.send(Report("ready"))
            while Level.CUT not in heard:
                select.select([end], [], [])
                for order in end.receive():
                    heard.append(order.end)
                    if order.end != Level.CUT:
                        os.kill(os.getppid(), signal.SIGTERM)
            return 100 * heard[0] + 10 * heard[1] + heard[2]
        stop_when(lambda: main.complete)
        """,
    )
    assert "exited with status 123" in log


def test_a_worker_that_hears_nothing_is_killed_in_the_end(tmp_path: Path) -> None:
    log = supervise(
        tmp_path,
        """
        settings["graceful_timeout"] = 0.1
        module.LAST_WORDS = 0.1
        def worker(config, slot, sockets, row, pipe):
            Pipe(pipe, Order).send(Report("ready"))
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(1000)
        stop_when(lambda: main.complete)
        """,
    )
    assert log.count("has not ended in time: it is killed") == 2


def test_a_worker_that_is_gone_but_stays(tmp_path: Path) -> None:
    log = supervise(
        tmp_path,
        """
        settings["workers"] = 1
        pool.LAST_WORDS = 0.1
        def worker(config, slot, sockets, row, pipe):
            end = Pipe(pipe, Order)
            end.send(Report("ready"))
            if not os.path.exists("stayed"):
                open("stayed", "x")
                end.send(Report("gone"))
                time.sleep(1000)
            return until_told(end)
        stop_when(lambda: main.pool.workers[0].backoff.failures == 1 and main.pool.workers[0].ready)
        """,
    )
    assert "was killed by signal 9 (SIGKILL)" in log


def test_a_worker_that_drains_by_itself_has_a_successor_meanwhile(tmp_path: Path) -> None:
    log = supervise(
        tmp_path,
        """
        settings["workers"] = 1
        def worker(config, slot, sockets, row, pipe):
            end = Pipe(pipe, Order)
            end.send(Report("ready"))
            if not os.path.exists("drained"):
                open("drained", "x")
                end.send(Report("draining"))
            return until_told(end)
        stop_when(lambda: len(main.pool.workers[0].children) == 2 and main.pool.workers[0].ready)
        """,
    )
    assert "drains without an order: the next one follows at once" in log
    assert log.count("exited with status 0") == 2


def test_a_fault_of_its_own_leaves_nobody_behind(tmp_path: Path) -> None:
    program = """
        worker = obedient
        def fault(): raise RuntimeError("a fault")
        module.Supervisor._tick = lambda self: self.poll.after(0.2, fault)
    """
    with pytest.raises(AssertionError, match="Traceback"):  # which this log has, and should
        supervise(tmp_path, program, status=1)


def test_a_storm_of_signals(tmp_path: Path) -> None:
    log = supervise(
        tmp_path,
        """
        worker = obedient
        turn, turns = module.Poll.turn, iter(range(10**9))
        supervisor = os.getpid()
        def stormy(poll):
            turn(poll)
            if os.getpid() == supervisor and not main.pool.level:
                for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, signal.SIGTTOU):
                    os.kill(supervisor, number)
                if next(turns) == 50:
                    os.kill(supervisor, signal.SIGTERM)
        module.Poll.turn = stormy
        """,
    )
    assert "SIGHUP" in log


def test_counts_of_the_scoreboard(tmp_path: Path) -> None:
    supervise(
        tmp_path,
        """
        settings["workers"] = 1
        deaths = iter([9, 15])
        def worker(config, slot, sockets, row, pipe):
            number = len(os.listdir())
            open(f"life-{number}", "x")
            row.accepted()
            if number == 1:
                return 7
            if number == 2:
                Pipe(pipe, Order).send(Report("ready"))
                os.kill(os.getpid(), 9)
            return obedient(config, slot, sockets, row, pipe)
        def done():
            snapshot = main.pool.scoreboard.read()
            (slot,) = snapshot.slots
            if not main.pool.workers[0].ready or slot.spawns < 3:
                return False
            assert snapshot.ready and snapshot.desired == 1 and not snapshot.draining
            assert {reason: n for reason, n in slot.exits.items() if n} == {"boot_failed": 1, "oom_suspect": 1}
            assert [worker.stage for worker in slot.workers] == ["ready"]
            assert slot.workers[0].pid == main.pool.workers[0].current.pid
            assert snapshot.counts.words("connections_accepted") == (3,)
            assert time.monotonic() - snapshot.ticked_at < 5
            return True
        stop_when(done)
        """,
    )

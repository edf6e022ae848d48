"""What the supervisor enters in the scoreboard: its operations, drains, queues, and the time of those that have ended.

What must not live here: real workers and clients (tests/process/test_process_metrics.py).
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.supervisor.staged import supervise

STAGE = """
module.TICK = 0.05

def busy(config, slot, sockets, row, pipe):
    # Takes a fifth of a second, then does as it is told: by its number, it does not end.
    end = Pipe(pipe, Order)
    end.send(Report("booted"))
    for sock in sockets:
        sock.listen(7)
    while time.process_time() < 0.2:
        pass
    while not end.ended:
        select.select([end], [], [])
        for order in end.receive():
            if order.serve:
                end.send(Report("ready"))
            if order.end:
                if slot == 1:
                    time.sleep(20)
                end.send(Report("draining"))
                end.send(Report("gone"))
                return 0
    return 0

def read():
    return main.pool.scoreboard.read()

def counts(words):
    return {outcome: sum(found[:-1]) for outcome, found in words.items()}

settings.update(settle=0.0, graceful_timeout=0.0, drain=0.0)
module.LAST_WORDS = pool.LAST_WORDS = 0.5
worker = busy
"""


def stage(tmp_path: Path, program: str, status: int = 0) -> str:
    return supervise(tmp_path, STAGE + textwrap.dedent(program), status)


def test_a_reload_and_its_drains(tmp_path: Path) -> None:
    """One worker ends as it is told to, and one must be killed."""
    program = """
    asked = []

    def done():
        if main.complete and not asked:
            asked.append(main.operations.request("reload"))
        snapshot = read()
        if counts(snapshot.drain_duration) != {"success": 1, "failure": 1}:
            return False
        assert snapshot.reloads == {"success": 1, "failure": 0}
        assert counts(snapshot.reload_duration) == snapshot.reloads
        assert snapshot.last_reload == "success"
        assert abs(time.time() - snapshot.last_reload_at) < 60
        assert all(0.2 <= slot.cpu_seconds < 5 for slot in snapshot.slots)
        return True

    stop_when(done)
    """
    stage(tmp_path, program)


def test_a_reload_that_fails(tmp_path: Path) -> None:
    """What ends with it was never ready: that is no drain."""
    program = """
    asked = []
    first = busy

    def worker(config, slot, sockets, row, pipe):
        return 1 if asked else first(config, slot, sockets, row, pipe)

    def done():
        if main.complete and not asked:
            asked.append(main.operations.request("reload"))
        snapshot = read()
        if not any(snapshot.reloads.values()):
            return False
        assert snapshot.reloads == {"success": 0, "failure": 1}
        assert snapshot.last_reload == "failure"
        assert counts(snapshot.drain_duration) == {"success": 0, "failure": 0}
        return True

    stop_when(done)
    """
    stage(tmp_path, program)


def test_an_upgrade_counts_as_that_alone(tmp_path: Path) -> None:
    program = """
    def done():
        if not main.complete:
            return False
        main._on_operation_end("upgrade", True, 3.0)
        main._on_operation_end("scale", True, 3.0)
        snapshot = read()
        assert snapshot.upgrades == {"success": 1, "failure": 0}
        assert snapshot.reloads == {"success": 0, "failure": 0}
        assert snapshot.last_reload == "success"
        return True

    stop_when(done)
    """
    stage(tmp_path, program)


def test_lines_that_the_program_before_an_upgrade_has_lost_are_kept(tmp_path: Path) -> None:
    program = """
    def done():
        if not main.complete:
            return False
        main.pool.scoreboard.log_messages_dropped = 5
        module.logs.lost = lambda: 2
        main.accounts = main.accounts.__class__(main.pool, main.metric_files)
        for _ in range(2):
            main.accounts.look()
            assert read().log_messages_dropped == 7
        return True

    stop_when(done)
    """
    stage(tmp_path, program)


def test_queues(tmp_path: Path) -> None:
    """Each slot's own, of all addresses; and, as (None), those that all share, if the system tells of them."""
    program = """
    from tidegate.config.bind import Fd, Tcp

    shared = socket.create_server(("127.0.0.1", 0), backlog=5)
    place = shared.getsockname()
    settings.update(bind=(Tcp("127.0.0.1", 0), Tcp("127.0.0.1", 0), Unix("socket"), Fd(shared.detach())), backlog=7)
    clients = []

    def done():
        if not main.complete:
            return False
        if not clients:
            clients.extend(socket.create_connection(place) for _ in range(3))
            for listener in main.pool.listeners._listeners[:2]:
                clients.extend(socket.create_connection(("127.0.0.1", listener.port)) for _ in range(4))
        snapshot = read()
        if sum(slot.accept_queue[0] for slot in snapshot.slots) + snapshot.accept_queue[0] < len(clients):
            return False
        assert [slot.accept_queue[1] for slot in snapshot.slots] == [14, 14]
        assert snapshot.accept_queue == (3, 7)
        main.pool.retire([main.pool.workers[-1]])
        main.pool.retired.pop().current.kill(signal.SIGKILL)
        main.accounts.look()
        assert read().slots[1].accept_queue == (0, 0)
        main.pool.retired.append(main.pool.workers[0].__class__(1, main.pool.generation))
        return True

    stop_when(done)
    """
    stage(tmp_path, program)

"""What is done on request, with workers of a few lines: the order of things, and what becomes of failures.

What must not live here: real workers and clients (tests/process/test_reload.py, test_scale.py).
"""

from __future__ import annotations

from pathlib import Path

from tests.supervisor.staged import supervise

# A worker that boots, serves when it is told to and ends when it is told to; `ask` asks for things, to the last answer.
STAGE = """
from tidegate.config.errors import ConfigError
import msgspec

def patient(config, slot, sockets, row, pipe):
    end = Pipe(pipe, Order)
    end.send(Report("booted"))
    while not end.ended:
        select.select([end], [], [])
        for order in end.receive():
            if order.serve:
                end.send(Report("ready"))
            if order.end:
                end.send(Report("draining"))
                end.send(Report("gone"))
                return 0
    return 0

answers = []
def tell(name):
    def tell(done, text):
        if done is not None:
            answers.append((name, done, text))
            print(name, done, text, file=sys.stderr)
    return tell

def ask(*names):
    asked = []
    def begin():
        if main.complete and not asked:
            asked.append(True)
            for name, arguments in names:
                main.operations.request(name, tell(name), **arguments)
        return len(answers) == len(names) and not main.operations.current and not main.pool.retired
    stop_when(begin)

settings.update(settle=0.0)
worker = patient
"""


def stage(tmp_path: Path, program: str, status: int = 0) -> str:
    import textwrap

    return supervise(tmp_path, STAGE + textwrap.dedent(program), status)


def test_a_reload(tmp_path: Path) -> None:
    log = stage(tmp_path, 'ask(("reload", {}))\n')
    assert "reload True generation 2 serves with 2 workers" in log
    assert log.index("generation 2 serves") < log.index("generation 1 has ended")


def test_a_reload_reads_the_settings_again(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        load = lambda: Config(**{**settings, "workers": 3})
        ask(("reload", {}))
        """,
    )
    assert "generation 2 serves with 3 workers" in log
    log = stage(
        tmp_path,
        """
        load = lambda: Config(**{**settings, "workers": 1})
        ask(("reload", {}))
        """,
    )
    assert "generation 2 serves with 1 worker" in log


def test_a_number_of_workers_that_an_operator_chose_outlives_a_reload(tmp_path: Path) -> None:
    log = stage(tmp_path, 'ask(("scale", {"workers": 4}), ("reload", {}))\n')
    assert "generation 2 serves with 4 workers" in log


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        def load():
            raise ConfigError("--drain", "x", "seconds")
        ask(("reload", {}))
        """,
    )
    assert "reload False --drain 'x' is not allowed: give seconds" in log
    assert log.count("is ready after") == 2


def test_settings_that_a_reload_cannot_change(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        load = lambda: Config(**{**settings, "bind": (Unix("another"),)})
        ask(("reload", {}))
        """,
    )
    assert "reload False" in log
    assert "--bind" in log
    assert log.count("is ready after") == 2


def test_the_second_successor_fails(tmp_path: Path) -> None:
    """Then the first goes, too, without ever having had a client."""
    log = stage(
        tmp_path,
        """
        def worker(config, slot, sockets, row, pipe):
            if os.path.exists("complete") and slot == 1:
                Pipe(pipe, Order).send(Report("gone", "no database", 3), wait=True)
                return 3
            return patient(config, slot, sockets, row, pipe)
        settings["workers"] = 3
        ask(("reload", {}))
        turn = module.Poll.turn
        def marking(poll):
            turn(poll)
            if main.complete and not os.path.exists("complete"):
                open("complete", "x")
        module.Poll.turn = marking
        """,
    )
    assert "reload False worker 1" in log
    assert "no database" in log
    assert log.count("is ready after") == 3


def test_without_anybody_who_can_be_forked(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        fork = os.fork
        def failing():
            if main.complete:
                raise BlockingIOError(11, "no process to be had")
            return fork()
        os.fork = failing
        ask(("reload", {}), ("scale", {"workers": 3}))
        """,
    )
    assert "reload False worker 0 could not be forked: no process to be had" in log
    assert "scale False worker 2 could not be forked" in log


def test_one_at_a_time_in_the_order_asked_for(tmp_path: Path) -> None:
    log = stage(tmp_path, 'ask(("scale", {"workers": 3}), ("reload", {}), ("reload", {}), ("scale", {"workers": 1}))\n')
    told = [line for line in log.splitlines() if line.startswith(("scale ", "reload "))]
    assert told == [
        "scale True 3 workers",
        "reload True generation 2 serves with 3 workers",
        "reload True generation 2 serves with 3 workers",  # one for both
        "scale True 1 worker",
    ]


def test_by_force(tmp_path: Path) -> None:
    """What is under way is given up for it."""
    log = stage(
        tmp_path,
        """
        def worker(config, slot, sockets, row, pipe):
            if os.path.exists("stuck"):
                os.unlink("stuck")
                time.sleep(20)
            return patient(config, slot, sockets, row, pipe)
        asked = []
        def begin():
            if main.complete and not asked:
                open("stuck", "x")
                asked.append(1)
                main.operations.request("reload", tell("first"))
            if asked == [1] and not os.path.exists("stuck"):
                asked.append(2)
                main.operations.request("reload", tell("second"), force=True)
            return len(answers) == 2 and not main.operations.current
        stop_when(begin)
        """,
    )
    assert "first False reload was asked for, with force" in log
    assert "second True generation 2 serves" in log


def test_stopping_ends_what_is_under_way(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        def worker(config, slot, sockets, row, pipe):
            if os.path.exists("stuck"):
                time.sleep(20)
            return patient(config, slot, sockets, row, pipe)
        def begin():
            if main.complete and not main.operations.current:
                open("stuck", "x")
                main.operations.request("reload", tell("reload"))
                main.operations.request("scale", tell("scale"), workers=3)
            return main.operations.current is not None
        stop_when(begin)
        """,
    )
    assert "reload False the daemon is stopping" in log
    assert "scale False the daemon is stopping" in log


def test_nothing_is_begun_when_the_daemon_stops(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        end = module.Supervisor._end
        def ending(self, *arguments):
            end(self, *arguments)
            self.operations.request("reload", tell("late"))
        module.Supervisor._end = ending
        stop_when(lambda: main.complete)
        """,
    )
    assert "late False the daemon is stopping" in log


def test_numbers_of_workers_that_cannot_be(tmp_path: Path) -> None:
    log = stage(tmp_path, 'ask(("scale", {"workers": 0}), ("scale", {"workers": 257}))\n')
    assert "scale False 0 workers are not possible: give a number from 1 to 256" in log
    assert "scale False 257 workers are not possible" in log


def test_recycling(tmp_path: Path) -> None:
    log = stage(
        tmp_path,
        """
        asked = []
        def begin():
            if main.complete and not asked:
                asked.append(main.pool.workers[1].current)
                main.operations.request("recycle", tell("recycle"), handle=asked[0], why="recycle_age")
                main.operations.request("recycle", tell("again"), handle=asked[0], why="recycle_age")
            if len(answers) == 2 and not main.operations.current:
                exits = main.pool.scoreboard.read().slots[1].exits
                print({why: count for why, count in exits.items() if count}, file=sys.stderr)
                return True
        stop_when(begin)
        """,
    )
    assert "recycle True worker 1" in log
    assert "again True" in log  # it had been, by then
    assert "{'recycle_age': 1}" in log
    assert log.count("is ready after") == 3

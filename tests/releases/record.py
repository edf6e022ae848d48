"""What this release says to another one across an upgrade in place, written in the way that its processes write it.

    STATE               what the supervisor leaves to the next program, with every field in use
    REPORTS, COMMANDS     words between the supervisor and its children
    REQUESTS, ANSWERS   words of the control socket
    written             one of those as its bytes, by its name
    settings_of_today   how each setting is called on the command line and in the environment
    memory, reading     a scoreboard's words, and what a reader makes of them
    left_by_a_daemon    what a real supervisor leaves, with the type of each value in its place
    shape               the same of any JSON, but for the words that are a part of the form

`python -m tests.releases.record` writes into recorded/ what is not there yet. A file that is there is what a release
wrote that is in use: it is never written again. When the scoreboard's layout changes, the file of the new one is added.

What must not live here: what has to be equal (test_recorded.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from websockets.sync.client import connect

from tests.support.harness import ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE
from tidegate._core import counters, snapshot
from tidegate._core.counters import FIELDS, Row
from tidegate._core.scoreboard import Scoreboard
from tidegate.config.schema import settings
from tidegate.ipc import control_protocol, handover_state
from tidegate.ipc.control_protocol import Answer, Drain, Reload, Request, Scale, Status, Stop, Upgrade
from tidegate.ipc.handover_state import ChildState, HandoverState, ListenerState, SlotState
from tidegate.ipc.pipe import Command, Pipe, Report, StopMode

FOLDER = Path(__file__).parent / "recorded"

WORKER = ChildState(
    pid=101,
    pipe=11,
    line=b'{"stage":"re',
    generation=3,
    row=4,
    stage="ready",
    stop_mode=StopMode.NONE,
    why="stopped",
    failure=None,
    born=1000.5,
    ready_at=1001.25,
)
LEAVING = ChildState(
    pid=102,
    pipe=12,
    generation=2,
    row=5,
    stage="draining",
    stop_mode=StopMode.CLOSE,
    stopping_since=1002.5,
    why="recycle_memory",
    failure=Report("gone", "no database", 3),
    born=900.0,
    ready_at=None,
)
PLACES: tuple[tuple[str, str, tuple[int | str, ...]], ...] = (
    ("TcpListener", "127.0.0.1:8765", (2, "127.0.0.1", 8765)),
    ("TcpListener", "[::1]:8765", (10, "::1", 8765, 0, 0)),
    ("UnixListener", "unix:/run/tidegate/socket", ("/run/tidegate/socket",)),
    ("FdListener", "fd://3 (0.0.0.0:80)", (3,)),
)
LISTENERS = [
    ListenerState(
        kind=kind,
        name=name,
        place=place,
        sockets={0: 20 + number, 3: 30 + number} if kind == "TcpListener" else {0: 20 + number},
        numbered=[3, 0] if kind == "TcpListener" else [],
        lock=40 + number if kind != "FdListener" else None,
        file=(66, 1234) if kind == "UnixListener" else None,
    )
    for number, (kind, name, place) in enumerate(PLACES)
]
STATE = HandoverState(
    version="0.1.0",
    fixed={"bind": "127.0.0.1:8765, unix:/run/tidegate/socket", "user": "none"},
    workers=2,
    generation=3,
    slots=[SlotState(index=0, current=WORKER, leaving=[LEAVING], failures=1)],
    retired=[SlotState(index=3, current=None, leaving=[LEAVING], failures=0)],
    admin=SlotState(index=None, current=msgspec.structs.replace(WORKER, row=None), leaving=[], failures=0),
    listeners=LISTENERS,
    admin_sockets=[50],
    scoreboard=51,
    drained=True,
    control=msgspec.structs.replace(LISTENERS[2], name="unix:/run/tidegate/control.sock"),
    clients=[52],
    metrics="/dev/shm/tidegate-metrics-100-abcdefgh",
)

REPORTS = {
    "starting": Report("starting"),
    "booted": Report("booted"),
    "ready": Report("ready"),
    "draining": Report("draining"),
    "gone": Report("gone"),
    "gone, and why": Report("gone", "no database", 3),
}
COMMANDS = {
    "serve": Command(serve=True),
    "drain": Command(StopMode.GRACEFUL),
    "drain, and leave the queue": Command(StopMode.GRACEFUL, leave_queue=True),
    "close": Command(StopMode.CLOSE),
    "cut": Command(StopMode.ABORT),
    "rest": Command(drain=True),
    "adopt": Command(adopt=3, sockets=2),
    "release": Command(release=3),
    "reopen": Command(reopen=True),
}
REQUESTS: dict[str, Request] = {
    "status": Status(),
    "reload": Reload(),
    "reload, with force": Reload(force=True),
    "scale": Scale(4),
    "drain": Drain(),
    "stop": Stop(),
    "stop, and drain": Stop("drain"),
    "stop, and close": Stop("close"),
    "stop, and cut": Stop("cut"),
    "upgrade": Upgrade(),
}
ANSWERS = {
    "progress": Answer(text="generation 2 boots"),
    "accepted": Answer(accepted=True),
    "done": Answer(True, "generation 2 serves with 2 workers"),
    "not done": Answer(False, "the daemon is stopping"),
    "status": Answer(True, status=msgspec.Raw(b'{"workers":2}')),
}


def on_the_pipe(word: Report | Command) -> str:
    """The line by which one end of a pipe tells the other."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert Pipe(ours, Report).send(word)
        return theirs.recv(4096).decode()


def written() -> dict[str, dict[str, str]]:
    """Every word, by its kind and its name, as it goes from one process to another."""
    return {
        "reports": {name: on_the_pipe(word) for name, word in REPORTS.items()},
        "orders": {name: on_the_pipe(word) for name, word in COMMANDS.items()},
        "requests": {name: control_protocol.encode(word).decode() for name, word in REQUESTS.items()},
        "answers": {name: control_protocol.encode(word).decode() for name, word in ANSWERS.items()},
    }


def state() -> Any:
    """What the supervisor leaves."""
    number = handover_state.write(STATE)
    try:
        return json.loads(os.pread(number, 2**20, 0))
    finally:
        os.close(number)


def settings_of_today() -> dict[str, list[str]]:
    """Setting -> its option and its variable: the next release is started with the same ones."""
    return {name: [setting.flag, setting.environment] for name, setting in settings().items()}


# The scoreboard.

SETS = (
    "HANDSHAKE_RESULTS",
    "CLOSE_CODES",
    "INITIATORS",
    "DIRECTIONS",
    "OPCODES",
    "LIMITS",
    "SLOW_ACTIONS",
    "GC_GENERATIONS",
    "STAGES",
    "EXIT_REASONS",
    "OUTCOMES",
)
_WORD = struct.Struct("=Q")


def words_of(board: Scoreboard) -> dict[int, int]:
    """Offset in bytes -> word, of those that are not zero."""
    memory = os.pread(board.fd, os.fstat(board.fd).st_size, 0)
    return {8 * i: word for i, (word,) in enumerate(_WORD.iter_unpack(memory)) if word}


def layout_of_today() -> int:
    """The number of the layout: the second word of the memory, after the one that tells that it is a scoreboard."""
    board = Scoreboard.create(1, 1)
    layout = words_of(board)[8]
    board.close()
    return layout


def sets_of_today() -> dict[str, list[str]]:
    """The closed sets of names, whose numbers are in the memory."""
    return {name: list(getattr(counters, name, None) or getattr(snapshot, name)) for name in SETS}


def filled(sets: Mapping[str, Sequence[str]]) -> Scoreboard:
    """A scoreboard in which all that can be is something else: three workers in two slots, one has ended.

    The names are those of `sets`: more may be added to them at any time.
    """
    board = Scoreboard.create(3, 2)
    for slot in (0, 1, 1):
        row = board.assign(slot, 7)
        board.spawn(row, 1000 + row)
    _fill(board, board.row(0))
    for row in (1, 2):
        _handshakes(board.row(row), sets)
        _closes(board.row(row), sets)
        _live(board.row(row), sets)
    for row, stage in enumerate(("ready", "draining")):
        board.stage(row, stage)
    for number, reason in enumerate(sets["EXIT_REASONS"]):
        for _ in range(number + 1):
            board.retire(2, reason, 0.5)
            board.assign(1, 8)
    board.retire(2)
    board.desired, board.ready, board.draining = 5, True, True
    board.log_messages_dropped, board.config_hash = 6, 2**63 + 1
    for done in (True, False):
        board.reloaded(done, 1.5)
        board.upgraded(done)
        board.drained(done, 20.0)
    board.retire_admin(2.5)
    board.accept_queue(None, 11, 128)
    board.accept_queue(1, 12, 256)
    board.backoff(0, 12345.5)
    board.tick(54321.5)
    return board


def _fill(board: Scoreboard, row: Row) -> None:
    """Write a number of its own into every word of a row, also of those that are counted by native code alone."""
    before = words_of(board)
    row.accepted()
    base = min(offset for offset, word in words_of(board).items() if before.get(offset) != word)
    for field in FIELDS.values():
        for i in range(field.size):
            os.pwrite(board.fd, _WORD.pack(1000 + field.offset + i), base + 8 * (field.offset + i))
    row.send_queues(3, 4, 5)
    row.connections_max = (900, 800)


def _handshakes(row: Row, sets: Mapping[str, Sequence[str]]) -> None:
    """Each result another number of times."""
    for number, result in enumerate(sets["HANDSHAKE_RESULTS"]):
        for _ in range(number + 1):
            row.accepted()
            row.handshake(result, 0.003)


def _closes(row: Row, sets: Mapping[str, Sequence[str]]) -> None:
    for number, initiator in enumerate(sets["INITIATORS"]):
        for code in (*range(1000, 1016), 3999, 4999, 5000):
            for _ in range(number + code % 7 + 1):
                row.opened()
                row.closed(code, initiator, 70.0, "open")


def _live(row: Row, sets: Mapping[str, Sequence[str]]) -> None:
    """What else a worker counts by its name, and what it measures."""
    for number, limit in enumerate(sets["LIMITS"]):
        for _ in range(number + 1):
            row.inc("limit_rejections", limit)
    for action in sets["SLOW_ACTIONS"]:
        row.inc("slow_consumers", action)
    for generation in range(3):
        for _ in range(generation + 1):
            row.inc("gc_collections", str(generation))
            row.observe("gc_pause", 0.02)
    row.observe("ping_rtt", 0.3)
    row.inc("pong_timeouts")
    row.inc("log_messages_dropped", by=9)
    row.tick(54320.5, 0.004)
    row.send_queues(1, 2, 3)
    row.connections_max = (700, None)
    row.opened()
    row.opened()
    row.closing()


def reading(board: Scoreboard) -> Any:
    """What a reader sees, by the names that it has for it."""
    return _told(board.read())


def _told(value: Any) -> Any:
    if isinstance(value, Row):
        fields = {name: list(value.words(name)) for name in FIELDS}
        own = {name: _told(getattr(value, name)) for name in ("heartbeat", "send_queue_max_bytes", "connections_max")}
        return fields | own
    if isinstance(value, tuple | list):
        return [_told(item) for item in value]
    if isinstance(value, dict):
        return {name: _told(item) for name, item in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    names = [name for name in dir(type(value)) if not name.startswith("_") and name != "taken_at"]
    return {name: _told(getattr(value, name)) for name in names}


def memory(sets: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """All that is to be known of the present layout, by the names of `sets` or all that there are."""
    sets = sets or sets_of_today()
    first = filled(sets)
    time.sleep(0.01)  # the clock goes on: what it says is told from the rest
    second = filled(sets)
    one, other = words_of(first), words_of(second)
    changing = {offset for offset in one if one[offset] != other[offset]}
    return {
        "layout": layout_of_today(),
        "size": os.fstat(first.fd).st_size,
        "fields": {name: [field.offset, field.size, field.kind] for name, field in FIELDS.items()},
        "bounds": {name: list(field.bounds) for name, field in FIELDS.items() if field.bounds},
        "ticks": {name: field.ticks for name, field in FIELDS.items() if field.ticks},
        "sets": sets,
        "words": {str(offset): word for offset, word in one.items()},
        "changing": sorted(changing | {offset for offset, word in one.items() if word == os.getpid()}),
        "reading": reading(first),
    }


# A daemon.

SPY = """
import os
task, form, number = (os.environ.get("TIDEGATE_UPGRADE") or "none 0 0").split()
if task != "none":
    state = os.pread(int(number), 2**20, 0)
    with open(os.path.join(os.environ["SPY"], f"{task}-{form}.json"), "wb") as file:
        file.write(state)
"""


def left_by_a_daemon() -> Any:
    """The form of what a supervisor leaves: to the program that checks whether it could take over, and to that one."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as clients:
        # Python imports it before it runs the next program.
        Path(folder, "sitecustomize.py").write_text(SPY, encoding="utf-8")
        control = Path(folder, "control.sock")
        options = ("--bind", f"unix:{folder}/socket", "--control", str(control), "--graceful-timeout", "1000")
        with Daemon(ECHO, *options, workers=2, drain=900, env={"PYTHONPATH": folder, "SPY": folder}) as daemon:
            for _ in range(20):
                clients.enter_context(connect(daemon.uri, proxy=None, open_timeout=PATIENCE))
            first, _ = daemon.workers()
            daemon.signal(signal.SIGTERM, first)  # it leaves, and another one takes its slot
            wait_until(lambda: daemon.log.count("is ready after") == 4, "a successor")
            ask = [sys.executable, "-m", "tidegate", "upgrade", "--control", str(control)]
            with subprocess.Popen(ask, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
                wait_until(lambda: "has taken over from" in daemon.log, "the next program")
                daemon.stop(signal.SIGQUIT)
        # Both are in format 1.
        check, take = (shape(json.loads(Path(folder, f"{task}-1.json").read_bytes())) for task in ("check", "take"))
        assert check == take
        return take


# The form of it.

EXACT = ("kind", "stage", "why")


def shape(value: Any, name: str = "") -> Any:
    """The names and the types in it, in their places."""
    if isinstance(value, dict):
        return {key: shape(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return value if value is None or name in EXACT else type(value).__name__


def save(name: str, make: Callable[[], Any]) -> None:
    """Record it, unless that has been done."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
        print(f"recorded: {path.name}")


def recorded(name: str) -> Any:
    """What was recorded under this name."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


SAMPLES: Final[Mapping[str, Callable[[], Any]]] = {
    "state": state,
    "words": written,
    "settings": settings_of_today,
    "state_of_a_daemon": left_by_a_daemon,
    f"scoreboard-{layout_of_today()}": memory,
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for sample, make in SAMPLES.items():
        save(sample, make)

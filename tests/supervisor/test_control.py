"""The control socket in a loop of its own: its file, who may ask, what clients may do to it, what they are told.

What must not live here: real operations and commands (tests/process/test_control.py), other users (there too).
"""

from __future__ import annotations

import contextlib
import inspect
import os
import resource
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
import pytest

from tests.support.patience import PATIENCE
from tidegate._core.scoreboard import Scoreboard
from tidegate.ipc import control_protocol
from tidegate.ipc.control_protocol import Request
from tidegate.ipc.pipe import StopMode
from tidegate.supervisor import control as module
from tidegate.supervisor.control import Control
from tidegate.supervisor.declarations import Declarations
from tidegate.supervisor.event_loop import EventLoop
from tidegate.supervisor.operations import Operations
from tidegate.supervisor.sockets.addresses import AddressError


class Asked:
    """Knows those that are `known`, and is told by the case how they end."""

    def __init__(self) -> None:
        self.known = ("reload", "scale", "drain")
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.tell: list[Callable[[bool | None, str], None]] = []
        self.current: str | None = None
        self.at_once: tuple[bool, str] | None = None

    def knows(self, name: str) -> bool:
        return name in self.known

    def request(self, name: str, tell: Callable[[bool | None, str], None], **arguments: Any) -> None:
        self.asked.append((name, arguments))
        self.tell.append(tell)
        if self.at_once is not None:
            tell(*self.at_once)


class Stage:
    """Where a control socket can be, and be asked."""

    def __init__(self, path: Path) -> None:
        self.loop = EventLoop()
        self.operations = Asked()
        self.scoreboard = Scoreboard.create(rows=1, slots=1)
        self.left = 3
        self.stopped: list[StopMode] = []
        self.path = path
        self.control = Control(self, self.operations, self.stop, self.describe)  # type: ignore[arg-type]
        self.broken = False
        self.bus: str | None = "redis://:secret@127.0.0.1/1"
        self.declarations = Declarations(list)
        self._sockets: list[socket.socket] = []

    def describe(self, snapshot: Any, now: float) -> object:
        if self.broken:
            raise RuntimeError("out of order")
        return {"pid": snapshot.pid, "now": now > 0}

    def stop(self, mode: StopMode, why: str) -> None:
        self.stopped.append(mode)

    def connections(self) -> int:
        return self.left

    def turn_until(self, condition: Callable[[], Any]) -> None:
        turns = 0
        while not condition():
            self.loop.call_later(0.005, lambda: None)
            self.loop.run_once()
            turns += 1
            assert turns < 4000

    def client(self, data: bytes = b"") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.path))
        self._sockets.append(sock)
        sock.sendall(data)
        return sock

    def received(self, sock: socket.socket, number: int | None = None) -> list[Any]:
        """So many answers, or all up to the end of the connection."""
        data = bytearray()
        sock.setblocking(False)

        def ended() -> bool:
            while number is None or data.count(b"\n") < number:
                try:
                    got = sock.recv(65536)
                except BlockingIOError:
                    return False
                except ConnectionResetError:
                    return True
                if not got:
                    return True
                data.extend(got)
            return True

        self.turn_until(ended)
        return [msgspec.json.decode(line) for line in data.splitlines()]

    def ask(self, data: bytes) -> list[Any]:
        return self.received(self.client(data))

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self.control.close(0)
        self.scoreboard.close()
        self.loop.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path / "control.sock")
    stage.control.open(str(stage.path))
    yield stage
    stage.close()


STATUS = b'{"command":"status"}\n'
RELOAD = b'{"command":"reload"}\n'


# The file.


def test_the_file_is_ours_alone_and_goes_with_us(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        stage = Stage(tmp_path / "control.sock")
        stage.control.open(str(stage.path))
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(stage.path.stat().st_mode) == 0o600
    stage.close()
    assert not stage.path.exists()


def test_without_a_path_there_is_none(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "control.sock")
    stage.control.open(None)
    stage.control.close_in_child()
    stage.close()
    assert not list(tmp_path.iterdir())


def test_it_is_found_after_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path / "control.sock")
    monkeypatch.chdir(tmp_path)
    stage.control.open("control.sock")
    assert stage.control.path == str(stage.path)
    monkeypatch.chdir("/")
    stage.close()
    assert not stage.path.exists()


def test_a_file_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    stage = Stage(tmp_path / "control.sock")
    stage.control.open(str(stage.path))
    assert stage.ask(STATUS)[0]["done"] is True
    stage.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_somebody_has_removed(stage: Stage, replaced: bool, caplog: pytest.LogCaptureFixture) -> None:
    stage.path.unlink()
    if replaced:
        stage.path.write_text("somebody else's")
    for _ in range(3):
        stage.control.renew_file()
    (record,) = caplog.records
    if replaced:
        assert "has been removed: " in record.getMessage()
        stage.path.unlink()
        return
    assert record.getMessage() == f"{stage.path}, the control socket, had been removed: it has been made again"
    assert stage.path.stat().st_mode & 0o777 == 0o600
    assert stage.ask(STATUS)[0]["done"] is True


def test_another_daemon_keeps_its_socket(stage: Stage) -> None:
    other = Stage(stage.path)
    with pytest.raises(AddressError, match=r"unix:.*control.sock could not be bound: it is given twice"):
        other.control.open(str(stage.path))
    other.close()
    assert stage.ask(STATUS)[0]["done"] is True


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "a file of that name exists and is not a socket"),
        ("nothing/control.sock", "no such file or directory"),
        ("long" * 40, "path too long"),
    ],
)
def test_a_path_that_cannot_be(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("kept")
    stage = Stage(tmp_path / name)
    mask = os.umask(0o022)
    os.umask(mask)
    with pytest.raises(AddressError, match=reason):
        stage.control.open(str(stage.path))
    assert os.umask(mask) == mask
    stage.close()
    assert (tmp_path / "file").read_text() == "kept"


def test_somebody_elses_file_stays(stage: Stage) -> None:
    stage.path.unlink()
    stage.path.write_text("mine")
    stage.control.close(0)
    assert stage.path.read_text() == "mine"


def test_a_child_closes_what_it_has_and_touches_nothing(stage: Stage) -> None:
    stage.client()
    stage.turn_until(lambda: stage.control._clients)
    before = len(os.listdir("/proc/self/fd"))
    stage.control.close_in_child()
    assert before - len(os.listdir("/proc/self/fd")) == 3  # the listener, its lock, the client
    assert stage.path.exists()
    stage.control._listener = None
    stage.control._clients.clear()


# Requests.


def test_status(stage: Stage) -> None:
    """The answer has the daemon's status as an object, and the operation under way as text."""
    stage.operations.current = "reload"
    (answer,) = stage.ask(STATUS)
    assert answer == {"done": True, "text": "reload is under way", "status": {"pid": os.getpid(), "now": True}}


def test_a_status_that_cannot_be_told(stage: Stage) -> None:
    stage.broken = True
    assert stage.ask(STATUS) == [{"done": False, "text": "the status could not be read: RuntimeError: out of order"}]


def test_a_daemon_without_status(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "control.sock")
    stage.control = Control(stage, stage.operations, stage.stop)  # type: ignore[arg-type]
    stage.control.open(str(stage.path))
    assert stage.ask(STATUS) == [{"done": False, "text": "this daemon has no status"}]
    stage.close()


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        (RELOAD, ("reload", {"force": False})),
        (b'{"command":"reload","force":true}\n', ("reload", {"force": True})),
        (b'{"command":"scale","workers":7}\n', ("scale", {"workers": 7})),
        (b'{"command":"drain"}\n', ("drain", {})),
    ],
)
def test_operations(stage: Stage, line: bytes, asked: tuple[str, dict[str, Any]]) -> None:
    """A request is accepted at once; its client receives progress and the end, and nothing after that."""
    client = stage.client(line)
    assert stage.received(client, 1) == [{"accepted": True}]
    assert stage.operations.asked == [asked]
    (tell,) = stage.operations.tell
    tell(None, "begins")
    tell(True, "is done")
    tell(None, "is of no interest any more")
    assert stage.received(client) == [{"text": "begins"}, {"done": True, "text": "is done"}]
    assert not stage.control._clients


def test_what_is_decided_at_once(stage: Stage) -> None:
    stage.operations.at_once = (False, "the configuration is wrong")
    assert stage.ask(RELOAD) == [{"done": False, "text": "the configuration is wrong"}]


def test_two_who_ask_for_the_same(stage: Stage) -> None:
    one, other = stage.client(RELOAD), stage.client(RELOAD)
    assert stage.received(one, 1) == stage.received(other, 1) == [{"accepted": True}]
    stage.operations.tell[1](False, "no")
    stage.operations.tell[0](True, "yes")
    assert stage.received(one) == [{"done": True, "text": "yes"}]
    assert stage.received(other) == [{"done": False, "text": "no"}]


def test_an_operation_that_there_is_not(stage: Stage) -> None:
    (answer,) = stage.ask(b'{"command":"upgrade"}\n')
    assert answer["done"] is False
    assert answer["text"].startswith("upgrade is not possible with this daemon, which is tidegate ")


EXAMPLES: dict[type[Request], Request] = {
    control_protocol.Status: control_protocol.Status(),
    control_protocol.Reload: control_protocol.Reload(force=True),
    control_protocol.Scale: control_protocol.Scale(4),
    control_protocol.Drain: control_protocol.Drain(),
    control_protocol.Stop: control_protocol.Stop("close"),
    control_protocol.Upgrade: control_protocol.Upgrade(),
    control_protocol.Bus: control_protocol.Bus(),
}


@pytest.mark.parametrize("kind", get_args(Request))
def test_every_request_has_something_that_does_it(stage: Stage, kind: type[Request]) -> None:
    """Its own: none is taken for another one."""
    name = kind.__struct_config__.tag
    stage.operations.known = ("reload", "scale", "drain", "upgrade")
    answer = stage.received(stage.client(control_protocol.encode(EXAMPLES[kind])), 1)[0]
    assert "is not possible" not in answer.get("text", "")
    done = {
        "reload": [("reload", {"force": True})],
        "scale": [("scale", {"workers": 4})],
        "drain": [("drain", {})],
        "upgrade": [("upgrade", {})],
    }
    assert stage.operations.asked == done.get(str(name), [])
    assert stage.stopped == ([StopMode.CLOSE] if kind is control_protocol.Stop else [])
    assert ("status" in answer) == (kind is control_protocol.Status)


def test_the_operations_that_requests_ask_for_are_there() -> None:
    """With these arguments."""
    operations = Operations(*[cast("Any", None)] * 6)
    for kind, name in module._OPERATIONS.items():
        assert operations.knows(name)
        given = {field.name for field in msgspec.structs.fields(kind)} - {"force"}
        assert list(inspect.signature(operations._table[name]).parameters)[1:][: len(given)] == sorted(given)


class Dance(control_protocol._Request, frozen=True, tag="dance"):
    """A request for which there is no operation."""


def test_a_request_that_nothing_does_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_protocol, "read_request", lambda line: Dance())
    (answer,) = stage.ask(b"dance\n")
    assert answer["done"] is False
    assert answer["text"].startswith("dance is not possible with this daemon, which is tidegate ")
    assert stage.operations.asked == stage.stopped == []


@pytest.mark.parametrize(
    ("how", "mode"), [("drain", StopMode.GRACEFUL), ("close", StopMode.CLOSE), ("cut", StopMode.ABORT)]
)
@pytest.mark.parametrize("status", [0, 1])
def test_stop(stage: Stage, how: str, mode: StopMode, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client of a stop receives how many connections are left, and at last the exit status."""
    monkeypatch.setattr(module, "GLANCE", 0.01)
    client = stage.client(b'{"command":"stop","how":"%s"}\n' % how.encode())
    assert stage.received(client, 2) == [{"accepted": True}, {"text": "stopping, connections left: 3"}]
    stage.left = 1
    assert stage.received(client, 1) == [{"text": "stopping, connections left: 1"}]
    assert stage.stopped == [mode]
    waiting = stage.client(RELOAD)
    stage.received(waiting, 1)
    stage.control.close(status)
    assert stage.received(client) == [{"done": status == 0, "text": f"stopped with status {status}"}]
    assert stage.received(waiting) == [{"done": False, "text": "the daemon has stopped"}]


# What clients do.


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not JSON"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "one request for each connection"),
        (b"hello\n", "not JSON"),
        (b"\n", "not JSON"),
        (STATUS + STATUS, "one request for each connection"),
        (b'{"command":"stop"}\n' * 5000, "one request for each connection"),
        (b"x" * 5000, "4096 bytes at most"),
        (b'{"command":"sotp"}\n', "did you mean stop?"),
    ],
)
def test_what_is_no_request(stage: Stage, data: bytes, words: str) -> None:
    client = stage.client()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.setblocking(False)
        client.send(data)
    (answer,) = stage.received(client)
    assert answer["done"] is False
    assert words in answer["text"]
    assert not stage.stopped
    assert stage.ask(STATUS)[0]["done"] is True


def test_byte_by_byte(stage: Stage) -> None:
    client = stage.client()
    for byte in STATUS:
        client.sendall(bytes([byte]))
        stage.loop.run_once()
    assert stage.received(client)[0]["done"] is True


def test_an_end_is_as_good_as_the_end_of_a_line(stage: Stage) -> None:
    client = stage.client(RELOAD.strip())
    client.shutdown(socket.SHUT_WR)
    assert stage.received(client, 1) == [{"accepted": True}]
    stage.operations.tell[0](True, "done")
    assert stage.received(client) == [{"done": True, "text": "done"}]


def test_who_says_nothing_is_let_go(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.05)
    started = stage.client(b'{"command":')
    assert stage.received(stage.client()) == [{"done": False, "text": "no request came within 0.05 s"}]
    assert stage.received(started)[0]["done"] is False
    assert not stage.control._clients


@pytest.mark.parametrize("data", [b"", b"{", RELOAD])
def test_who_vanishes_is_forgotten(stage: Stage, data: bytes) -> None:
    client = stage.client(data)
    stage.turn_until(lambda: stage.control._clients and (data != RELOAD or stage.operations.tell))
    client.close()
    stage.turn_until(lambda: not stage.control._clients)
    for tell in stage.operations.tell:  # what was asked for went on
        tell(None, "goes on")
        tell(True, "is done")
    assert stage.ask(STATUS)[0]["done"] is True


def test_who_goes_on_talking_is_dropped(stage: Stage) -> None:
    client = stage.client(RELOAD)
    stage.received(client, 1)
    client.sendall(b"and another thing")
    assert stage.received(client) == []
    assert not stage.control._clients
    stage.operations.tell[0](True, "done")


def test_who_reads_slowly_gets_everything(stage: Stage) -> None:
    client = stage.client(RELOAD)
    stage.received(client, 1)
    for _ in range(40):
        stage.operations.tell[0](None, "x" * 20_000)
    stage.operations.tell[0](True, "done")
    assert stage.control._clients
    answers = stage.received(client)
    assert len(answers) == 41
    assert answers[-1] == {"done": True, "text": "done"}
    assert not stage.control._clients


def test_who_does_not_read_is_dropped(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    client = stage.client(RELOAD)
    stage.received(client, 1)
    for _ in range(100):
        stage.operations.tell[0](None, "x" * 20_000)
    assert not stage.control._clients  # for there would be no end to it
    monkeypatch.setattr(module, "SILENCE", 0.05)
    client = stage.client(RELOAD)
    stage.received(client, 1)
    for _ in range(40):
        stage.operations.tell[1](None, "x" * 20_000)
    assert stage.control._clients
    stage.turn_until(lambda: not stage.control._clients)
    assert stage.ask(STATUS)[0]["done"] is True


def test_many_at_once(stage: Stage) -> None:
    clients = []
    for _ in range(module.CLIENTS):
        clients.append(stage.client(RELOAD))
        stage.received(clients[-1], 1)
    (answer,) = stage.ask(STATUS)
    assert answer == {"done": False, "text": f"{module.CLIENTS} clients are connected already: try again in a moment"}
    for tell in stage.operations.tell:
        tell(True, "done")
    assert all(stage.received(client) == [{"done": True, "text": "done"}] for client in clients)
    assert stage.ask(STATUS)[0]["done"] is True


def test_without_descriptors_it_waits(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXHAUSTED", 0.1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = stage.client(STATUS)
    with socket.socket() as probe:
        highest = probe.fileno()
    holes = [os.dup(0)]
    while holes[-1] < highest:
        holes.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (holes[-1] + 1, hard))
    try:
        turns = []
        stage.loop.call_later(0.05, lambda: turns.append(-1))
        while -1 not in turns:
            stage.loop.run_once()
            turns.append(1)
        assert len(turns) < 10  # and not as often as the processor can
        assert not stage.control._clients
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for hole in holes:
            os.close(hole)
    assert stage.received(client)[0]["done"] is True


# Where the bus is.


def test_who_wants_to_publish_is_told_where_and_by_what(stage: Stage) -> None:
    request = control_protocol.encode(control_protocol.Bus())
    assert stage.ask(request) == [{"done": True, "bus": {"url": "redis://:secret@127.0.0.1/1"}}]
    stage.declarations.current = msgspec.Raw(b'{"channels":{"h:":{}}}')
    (answer,) = stage.ask(request)
    assert answer["bus"]["declares"] == {"channels": {"h:": {}}}
    stage.bus = None
    (answer,) = stage.ask(request)
    assert answer == {"done": False, "text": "the daemon has no socket for other processes: restart it"}

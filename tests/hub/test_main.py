"""The hub's process: it reports, takes links and other processes, ends as it should, and begins anew where it must.

What must not live here: requests (test_requests.py), what a broker makes of it (tests/bus/test_local.py).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.processes import Hubs
from tests.support.harness import require, wait_until
from tests.support.patience import PATIENCE
from tidegate._core.journal import Journal, make_memory
from tidegate.bus.link import Decoder, Frame, Hello, Kind, Policy, acknowledgements, encode, pack_json
from tidegate.hub import main as module
from tidegate.hub.main import attach
from tidegate.ipc.pipe import Command, Report, StopMode


@pytest.fixture
def hubs() -> Iterator[Hubs]:
    hubs = Hubs()
    hubs.start()
    yield hubs
    hubs.close()


def ask(link: socket.socket, *frames: Frame) -> list[Frame]:
    """Send frames, and one that is answered; return what came with that answer, and before it."""
    link.settimeout(PATIENCE)
    link.sendall(b"".join(map(encode, [*frames, Frame(Kind.UNSUBSCRIBE, sequence=9_999)])))
    decoder = Decoder()
    found: list[Frame] = []
    while all(frame.sequence != 9_999 for frame in found):
        data = link.recv(1 << 16)
        assert data, "the link has ended"
        found += decoder.feed(data)
    return [frame for frame in found if frame.sequence != 9_999]


def hello(publisher: int) -> Frame:
    return Frame(Kind.HELLO, payload=pack_json(Hello(1, publisher, "worker", 1, {"": Policy(100)})))


OPEN = Frame(Kind.OPEN, channel=1, payload=b"c")


def test_it_reports_that_it_turns(hubs: Hubs) -> None:
    reports: list[Report] = []
    wait_until(lambda: reports.extend(hubs.pipe.receive()) or len(reports) >= 2, "two reports")
    assert reports[:2] == [Report("ready"), Report("ready")]


def test_it_ends_at_sigterm_and_sends_what_it_has_to_send(hubs: Hubs) -> None:
    link = hubs.link()
    ask(link, hello(1), OPEN)
    os.kill(hubs.pid, signal.SIGSTOP)
    link.sendall(b"".join(encode(Frame(Kind.PUBLISH, channel=1, sequence=n)) for n in range(1, 100)))
    os.kill(hubs.pid, signal.SIGCONT)
    stored: list[int] = []
    decoder = Decoder()
    while not stored:
        for frame in decoder.feed(link.recv(1 << 16)):
            stored += [each.sequence for each in acknowledgements(frame.payload)]
    assert hubs.end() == 0
    assert link.recv(1) == b""
    journal = Journal.attach(os.dup(hubs.journal))
    assert journal.topic("c").top >= len(stored)


def test_it_ends_with_its_supervisor(hubs: Hubs) -> None:
    hubs.pipe.close()
    assert hubs.wait() == 0
    hubs.start()


def test_signals_to_the_whole_group_are_left_to_the_supervisor(hubs: Hubs) -> None:
    ask(hubs.link(), hello(1))  # it has begun
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        os.kill(hubs.pid, number)
    ask(hubs.link(), hello(2))
    assert not hubs.ended()


def test_it_goes_on_with_the_journal_of_the_one_before(hubs: Hubs) -> None:
    link = hubs.link()
    ask(link, hello(1), OPEN, Frame(Kind.PUBLISH, channel=1, sequence=7, payload=b"m"))
    assert hubs.end(signal.SIGKILL) == -signal.SIGKILL
    assert link.recv(1) == b""
    hubs.start()
    (_, answer) = ask(hubs.link(), hello(1), OPEN, Frame(Kind.PUBLISH, channel=1, sequence=7, payload=b"m"))
    assert [each.offset for each in acknowledgements(answer.payload)] == [1]


def test_a_signal_to_all_processes_leaves_its_end_to_the_supervisor(hubs: Hubs) -> None:
    """It knows when the workers have ended, whose links end before they do."""
    link = hubs.link()
    ask(link, hello(1), OPEN, Frame(Kind.PUBLISH, channel=1, sequence=7, payload=b"m"))
    os.kill(hubs.pid, signal.SIGTERM)
    assert ask(link, Frame(Kind.PUBLISH, channel=1, sequence=8))[0].kind == Kind.STORED
    link.close()
    (_, answer) = ask(hubs.link(), hello(2), OPEN, Frame(Kind.PUBLISH, channel=1, sequence=1))
    assert [each.offset for each in acknowledgements(answer.payload)] == [3]
    assert hubs.end() == 0


def test_a_successor_waits_for_its_predecessor(hubs: Hubs) -> None:
    """As at an upgrade: one that writes the journal goes on until it has ended."""
    first, pipe = hubs.pid, hubs.pipe
    link = hubs.link()
    ask(link, hello(1), OPEN, Frame(Kind.PUBLISH, channel=1, sequence=7, payload=b"m"))
    hubs.start()
    second = hubs.link()
    assert ask(link, Frame(Kind.PUBLISH, channel=1, sequence=8))[0].kind == Kind.STORED
    pipe.send(Command(stop=StopMode.GRACEFUL))
    os.waitpid(first, 0)
    pipe.close()
    (_, answer) = ask(second, hello(2), OPEN, Frame(Kind.PUBLISH, channel=1, sequence=1))
    assert [each.offset for each in acknowledgements(answer.payload)] == [3]


def test_a_journal_that_cannot_be_gone_on_with_begins_anew_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    file = make_memory(1 << 17)
    os.pwrite(file, b"something else", 0)
    with caplog.at_level(logging.INFO, "tidegate"):
        journal = attach(file)
    assert journal.topics == {}
    assert [record.getMessage() for record in caplog.records] == [
        "this is no journal: it starts with other bytes: it begins anew, and no position from before can be resumed",
        "the journal has 0 messages of 0 channels",
    ]


def test_a_journal_that_another_process_writes_all_the_time_is_an_error(hubs: Hubs) -> None:
    ask(hubs.link(), hello(1))
    with pytest.raises(BlockingIOError):
        attach(hubs.journal, patience=0.05)


def test_other_processes_connect_to_a_path(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "hub"))
    listener.listen()
    hubs = Hubs(listener=listener)
    hubs.start()
    ask(hubs.link(), hello(1))
    outside = [socket.socket(socket.AF_UNIX) for _ in range(module.OUTSIDE)]
    for number, sock in enumerate(outside, 10):
        sock.connect(str(tmp_path / "hub"))
        assert ask(sock, hello(number))[0].kind == Kind.WELCOME
    with socket.socket(socket.AF_UNIX) as another:
        another.settimeout(PATIENCE)
        another.connect(str(tmp_path / "hub"))
        assert another.recv(1) == b""
    for sock in outside:
        sock.close()
    hubs.close()
    listener.close()


def test_who_says_nothing_takes_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for workers, which may be blocked."""
    monkeypatch.setattr(module, "TICK", 0.01)
    monkeypatch.setattr(module, "GREETING", 0.02)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "hub"))
    listener.listen()
    hubs = Hubs(listener=listener)
    hubs.start()
    worker = hubs.link()
    ask(hubs.link(), hello(1))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(PATIENCE)
        silent.connect(str(tmp_path / "hub"))
        with silent.makefile("rb") as stream:
            (frame,) = Decoder().feed(stream.read())
    assert (frame.kind, frame.payload) == (Kind.TROUBLE, b"it has not said in time who it is")
    assert ask(worker, hello(2))[0].kind == Kind.WELCOME
    hubs.close()
    listener.close()


def test_a_process_of_another_user_is_not_linked(tmp_path: Path) -> None:
    """Root is; so the hub is another user's here."""
    listener = socket.socket(socket.AF_UNIX)
    path = str(tmp_path / "hub")
    listener.bind(path)
    listener.listen()
    here, there = socket.socketpair()
    require(os.geteuid() == 0, "root, to become another user,")
    child = os.fork()
    if not child:
        status = 1
        try:
            for folder in (tmp_path, *tmp_path.parents):
                os.chmod(folder, folder.stat().st_mode | 0o011)
            os.chmod(path, 0o777)
            os.setuid(65534)
            here.recv(1)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(path)
                status = 0 if sock.recv(1) == b"" else 2
        finally:
            os._exit(status)
    hubs = Hubs(listener=listener)
    hubs.start()
    there.send(b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    hubs.close()
    for sock in (listener, here, there):
        sock.close()


def test_links_come_several_at_once_and_the_log_is_reopened(hubs: Hubs) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    hubs.pipe.send(Command(sockets=3, link=True), [there for _, there in pairs])
    hubs.pipe.send(Command(reopen=True))
    for number, (ours, theirs) in enumerate(pairs):
        theirs.close()
        assert ask(ours, hello(number))[0].kind == Kind.WELCOME
        ours.close()


def test_the_socket_for_other_processes_is_replaced(tmp_path: Path) -> None:
    """As when its file has been removed; who is linked stays so."""
    listener, other = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    for sock, name in ((listener, "hub"), (other, "other")):
        sock.bind(str(tmp_path / name))
        sock.listen()
    hubs = Hubs(listener=listener)
    hubs.start()
    ask(hubs.link(), hello(1))
    with socket.socket(socket.AF_UNIX) as before, socket.socket(socket.AF_UNIX) as after:
        before.connect(str(tmp_path / "hub"))
        ask(before, hello(2))
        assert hubs.pipe.send(Command(sockets=1, listen=True), [other])
        after.connect(str(tmp_path / "other"))
        assert ask(after, hello(3))[0].kind == Kind.WELCOME
        assert [frame.kind for frame in ask(before, Frame(Kind.COUNT, sequence=1, payload=b"c"))] == [Kind.COUNTED]
    hubs.close()
    listener.close()
    other.close()

"""Words over a pipe: whole, in parts, too many, and when the other end is gone.

What must not live here: what either side makes of a word.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.ipc.pipe import Command, Pipe, Report, StopMode


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_words_go_both_ways(ends: tuple[socket.socket, socket.socket]) -> None:
    supervisor, worker = Pipe(ends[0], Report), Pipe(ends[1], Command)
    assert worker.send(Report("ready"))
    assert worker.send(Report("gone", "no database\nat all", 3))
    assert supervisor.receive() == [Report("ready"), Report("gone", "no database\nat all", 3)]
    assert supervisor.receive() == []
    assert supervisor.send(Command(StopMode.CLOSE))
    assert worker.receive() == [Command(StopMode.CLOSE)]
    assert not supervisor.ended


def test_the_form_on_the_wire(ends: tuple[socket.socket, socket.socket]) -> None:
    Pipe(ends[0], Command).send(Report("ready"))
    Pipe(ends[0], Command).send(Command(StopMode.GRACEFUL))
    assert ends[1].recv(4096) == b'{"stage":"ready"}\n{"end":1}\n'


def test_the_form_that_others_may_write(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].send(b'{"stage": "ready", "error": null, "exit": null, "since": 3}\n')
    assert Pipe(ends[0], Report).receive() == [Report("ready")]


@given(st.lists(st.binary(max_size=20), max_size=20), st.lists(st.integers(1, 30), min_size=1, max_size=50))
def test_reports_are_found_among_anything_and_in_any_parts(junk: list[bytes], cuts: list[int]) -> None:
    report = b'{"stage":"ready"}\n'
    data = b"".join(line.replace(b"\n", b"").replace(b"{", b"") + b"\n" + report for line in junk)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pipe, found, number = Pipe(ours, Report), [], 0
        while data:
            cut = cuts[number % len(cuts)]
            theirs.send(data[:cut])
            data, number = data[cut:], number + 1
            found += pipe.receive()
    assert found == [Report("ready")] * len(junk)


def test_the_last_words_come_before_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    pipe = Pipe(ends[0], Report)
    Pipe(ends[1], Command).send(Report("gone"))
    ends[1].send(b'{"stage":"rea')
    ends[1].close()
    assert pipe.receive() == [Report("gone")]
    assert pipe.ended
    assert pipe.receive() == []


def test_an_end_that_left_words_unread(ends: tuple[socket.socket, socket.socket]) -> None:
    pipe = Pipe(ends[0], Report)
    pipe.send(Command(StopMode.GRACEFUL))
    ends[1].close()
    pipe.receive()
    assert pipe.ended
    assert not pipe.send(Command(StopMode.CLOSE))


def test_nobody_waits_for_an_end_that_does_not_read(ends: tuple[socket.socket, socket.socket]) -> None:
    pipe = Pipe(ends[0], Report)
    sent = 0
    while pipe.send(Command(StopMode.GRACEFUL)):
        sent += 1
    assert sent > 100
    with pytest.raises(BlockingIOError):
        ends[0].send(b"x" * 100_000, socket.MSG_DONTWAIT)


def test_a_word_that_has_gone_off_in_part_spoils_no_other(ends: tuple[socket.socket, socket.socket]) -> None:
    supervisor, admin = Pipe(ends[0], Report), Pipe(ends[1], Command)
    long = Command(declares=msgspec.Raw(b'"' + b"x" * 60_000 + b'"'))
    sent = 0
    while supervisor.send(long):
        sent += 1
    assert supervisor._torn
    words = admin.receive()
    assert supervisor.send(Command(reopen=True))
    assert supervisor.send(Command(drain=True))
    assert words + admin.receive() == [*[long] * sent, Command(reopen=True), Command(drain=True)]


def test_an_error_of_megabytes_is_shortened_and_not_lost(ends: tuple[socket.socket, socket.socket]) -> None:
    supervisor = Pipe(ends[0], Report)
    assert Pipe(ends[1], Command).send(Report("gone", "first" + "\0" * 8_000_000 + "last", 3))
    (report,) = supervisor.receive()
    assert report.error is not None
    assert (report.exit, report.error[:5], report.error[-4:]) == (3, "first", "last")


def test_a_line_without_an_end_is_given_up(ends: tuple[socket.socket, socket.socket]) -> None:
    pipe = Pipe(ends[0], Report)
    for _ in range(2 * Pipe.LONGEST // 50_000):
        ends[1].send(b"x" * 50_000)
        assert pipe.receive() == []
    assert len(pipe.line) <= Pipe.LONGEST
    ends[1].send(b'\n{"stage":"ready"}\n')
    assert pipe.receive() == [Report("ready")]

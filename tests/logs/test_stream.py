"""Where the log goes: files, pipes, sockets, terminals; that nothing waits, and nobody else notices.

What must not live here: queues (test_writers.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.logs import cases_stream
from tests.support import programs
from tidegate.logs.stream import Output


def fill(stderr: int) -> int:
    """How much goes to this standard error while nobody reads it."""
    done = programs.run(cases_stream.fill, input="", stderr=stderr)
    assert done.returncode == 0
    return int(done.stdout)


def is_blocking(fd: int) -> bool:
    return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_full_pipe_does_not_block_and_stays_blocking_for_others() -> None:
    reader, writer = os.pipe()
    try:
        assert fill(writer) >= 4096
        assert is_blocking(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_full_socket_does_not_block_and_stays_blocking_for_others() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert fill(theirs.fileno()) >= 1000
        assert is_blocking(theirs.fileno())


def test_a_terminal_that_nobody_reads_does_not_block() -> None:
    ours, theirs = pty.openpty()
    try:
        assert fill(theirs) >= 1000
        assert is_blocking(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("kernel", ["knows", "does not know"])
def test_a_pipe_that_cannot_be_opened_anew_is_asked_before_each_write(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    kept = os.dup(2)
    opened = os.open

    def forbidden(path: str, *arguments: int, **named: int) -> int:
        if path == "/proc/self/fd/2":
            raise PermissionError(errno.EACCES, "of somebody else")
        return opened(path, *arguments, **named)

    try:
        os.dup2(writer, 2)
        monkeypatch.setattr(os, "open", forbidden)
        if kernel == "does not know":
            monkeypatch.setattr(os, "RWF_NOWAIT", 1 << 30)
        output = Output()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    written = 0
    while more := output.write(b"x" * 10_000):
        assert more <= 4096
        written += more
    assert written >= 4096
    monkeypatch.setattr(output, "wait", lambda seconds: kernel == "knows")  # somebody else was faster
    assert output.write(b"x") == 0
    monkeypatch.undo()
    os.read(reader, 8192)
    assert output.write(b"again") == 5
    output.close()
    os.close(reader)
    os.close(writer)


def test_without_standard_error_lines_go_nowhere() -> None:
    program = "from tidegate.logs.stream import Output; print(Output().write(b'x'))"
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "{sys.executable}" -c "{program}" 2>&-'], capture_output=True, check=True, timeout=30
    )
    assert done.stdout == b"1\n"


def test_a_file_is_appended_to_and_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    output = Output(str(path))
    assert output.write(b"after\n") == 6
    assert path.read_bytes() == b"before\nafter\n"
    output.close()
    path.unlink()
    Output(str(path)).close()
    assert path.stat().st_mode & 0o007 == 0


def test_a_file_is_opened_anew_under_the_same_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = Output("log")
    number = output.fileno()
    output.write(b"one\n")
    os.rename("log", "log.1")
    output.write(b"two\n")
    monkeypatch.chdir("/")
    output.reopen()
    assert output.fileno() == number
    assert not os.get_inheritable(number)
    output.write(b"three\n")
    assert (tmp_path / "log.1").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "log").read_bytes() == b"three\n"
    output.close()


def test_a_file_that_cannot_be_opened_anew_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log"
    path.parent.mkdir()
    output = Output(str(path))
    path.parent.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        output.reopen()
    assert output.write(b"on\n") == 3
    assert (tmp_path / "elsewhere" / "log").read_bytes() == b"on\n"
    output.close()


def test_a_full_disk_and_a_reader_that_is_gone_are_errors(tmp_path: Path) -> None:
    full = Output("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        full.write(b"x")
    full.close()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="No such device"):  # nobody reads it: opening would have waited
        Output(str(fifo))
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    output = Output(str(fifo))
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        output.write(b"x")
    output.close()


@pytest.mark.parametrize("path", ["/", "/nowhere/log"])
def test_a_path_that_cannot_be_opened(path: str) -> None:
    with pytest.raises(OSError, match=path):
        Output(path)

"""The admin process's life: its title, signals, pipe and end."""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from tests.admin.process import Admin
from tests.support.patience import PATIENCE
from tidegate.admin import main
from tidegate.process.forks import LEFT_TO_SUPERVISOR


def test_title(admin: Admin) -> None:
    """The process is called as `ps` shows it, whatever started the daemon."""
    assert Path(f"/proc/{admin.pid}/cmdline").read_bytes().rstrip(b"\0") == b"tidegate: admin"


def test_sigterm_ends_it(admin: Admin) -> None:
    os.kill(admin.pid, signal.SIGTERM)
    assert admin.wait() == 0


def test_it_ends_with_the_supervisor(admin: Admin) -> None:
    admin.pipe.close()
    assert admin.wait() == 0


def test_it_ends_with_a_supervisor_that_left_words_unread(admin: Admin) -> None:
    """Then the end is ECONNRESET, not an end of file."""
    admin.pipe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    admin.pipe.send(b"never read\n")
    admin.pipe.close()
    assert admin.wait() == 0


@pytest.mark.parametrize("number", LEFT_TO_SUPERVISOR)
def test_other_signals_are_the_supervisors(admin: Admin, number: signal.Signals) -> None:
    os.kill(admin.pid, number)
    assert admin.get("/livez")[0] == 200


def test_signals_are_no_longer_masked(admin: Admin) -> None:
    status = Path(f"/proc/{admin.pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:")]
    assert int(mask, 16) == 0


def test_orders_other_than_for_the_log_are_ignored(admin: Admin) -> None:
    """It ends by SIGTERM; and what is no order at all is none of its concern either."""
    admin.pipe.send(b'{"end":1}\n{"serve":true}\nnonsense\n')
    assert admin.get("/livez")[0] == 200


def test_a_client_that_sends_nothing_does_not_delay_the_end(admin: Admin) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", admin.ports[0]))) as idle:
        assert admin.get("/livez")[0] == 200  # the idle one has been accepted before
        os.kill(admin.pid, signal.SIGTERM)
        assert admin.wait() == 0
        idle.settimeout(PATIENCE)
        assert idle.recv(65536).startswith(b"HTTP/1.1 503 ")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the admin process wait for a request for as long as a slow machine needs to send it."""
    monkeypatch.setattr(main, "ASK_SECONDS", PATIENCE)


@pytest.mark.usefixtures("patient")
def test_who_connected_before_the_end_is_answered(admin: Admin) -> None:
    """At an upgrade the next admin process accepts already: a scrape that this one has taken is not refused."""
    with socket.create_connection(("127.0.0.1", admin.ports[0]), timeout=PATIENCE) as scrape:
        scrape.sendall(b"GET /livez HTTP/1.1\r\n")
        assert admin.get("/livez")[0] == 200  # it has been accepted before
        os.kill(admin.pid, signal.SIGTERM)
        with contextlib.suppress(ConnectionError):
            while True:  # until nobody listens any more: the end has begun
                socket.create_connection(("127.0.0.1", admin.ports[0]), timeout=PATIENCE).close()
        scrape.sendall(b"Host: localhost\r\n\r\n")
        assert scrape.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert admin.wait() == 0


@pytest.mark.slow
def test_scrapes_leave_nothing_behind(admin: Admin) -> None:
    process = psutil.Process(admin.pid)
    for _ in range(20):
        admin.get("/metrics")
    before = process.num_fds(), process.memory_info().rss
    for _ in range(100):
        admin.get("/metrics")
    deadline = time.monotonic() + 30
    while process.num_fds() > before[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.num_fds() <= before[0]
    assert process.memory_info().rss - before[1] < 2 * 2**20

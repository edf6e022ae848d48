"""What reaches a service manager: a real datagram socket, by its path and by an abstract name.

What must not live here: when the daemon tells something (tests/process/test_service.py).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.systemd import NotifySocket
from tidegate.supervisor.system.sd_notify import Notify


@pytest.fixture
def notify(manager: NotifySocket) -> Iterator[Notify]:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    notify = Notify.from_environment(environment)
    assert environment == {}, "what starts later could speak for the daemon"
    yield notify
    notify.close()


def test_the_life_of_a_daemon(notify: Notify, manager: NotifySocket) -> None:
    assert notify.enabled
    assert notify.watchdog_interval == 1.5
    assert notify.watchdog_seconds == 3
    before = time.monotonic_ns() // 1000
    notify.starting(65)
    notify.ready("2 of 2 workers ready")
    notify.watchdog()
    notify.reloading(0.5)
    notify.ready("2 of 2 workers ready")
    notify.stopping(37)
    told = manager.datagrams()
    stamp = told[3].pop(1)
    assert told == [
        ["EXTEND_TIMEOUT_USEC=65000000", "STATUS=starting"],
        ["READY=1", "STATUS=2 of 2 workers ready"],
        ["WATCHDOG=1"],
        ["RELOADING=1", "EXTEND_TIMEOUT_USEC=500000", "STATUS=reloading"],
        ["READY=1", "STATUS=2 of 2 workers ready"],
        ["STOPPING=1", "EXTEND_TIMEOUT_USEC=37000000", "STATUS=stopping"],
    ]
    name, _, microseconds = stamp.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000


def test_a_file_is_given_to_the_manager(notify: Notify, manager: NotifySocket) -> None:
    here, there = os.pipe()
    assert notify.store("tidegate-journal", there)
    data, files, _, _ = socket.recv_fds(manager.socket, 4096, 16)  # room for credentials, too
    assert data == b"FDSTORE=1\nFDNAME=tidegate-journal"
    os.write(files[0], b"the same pipe")
    assert os.read(here, 100) == b"the same pipe"
    for number in (here, there, *files):
        os.close(number)
    manager.socket.close()
    assert not notify.store("tidegate-journal", 0)
    assert not Notify().store("tidegate-journal", 0)


def test_a_status_is_told_when_it_changes(notify: Notify, manager: NotifySocket) -> None:
    notify.ready("1 of 2")
    notify.status("1 of 2")
    notify.status("2 of 2")
    notify.status("2 of 2")
    assert manager.datagrams() == [["READY=1", "STATUS=1 of 2"], ["STATUS=2 of 2"]]


def test_a_status_is_no_assignment(notify: Notify, manager: NotifySocket) -> None:
    notify.status("a failure:\nREADY=1\n")
    assert manager.datagrams() == [["STATUS=a failure: READY=1"]]


def test_a_manager_that_does_not_read_is_not_waited_for_and_gets_the_state_later(
    notify: Notify, manager: NotifySocket
) -> None:
    for number in range(10_000):
        notify.status(str(number))
    notify.stopping(1)
    assert not notify.flush()
    assert ["STOPPING=1", "EXTEND_TIMEOUT_USEC=1000000", "STATUS=stopping"] not in manager.datagrams()
    assert notify.flush()
    assert manager.datagrams() == [["STOPPING=1", "EXTEND_TIMEOUT_USEC=1000000", "STATUS=stopping"]]


def test_only_the_last_state_waits(notify: Notify, manager: NotifySocket) -> None:
    manager.socket.close()
    notify.ready("ready")
    notify.stopping(1)
    if not manager.address.startswith("@"):
        os.unlink(manager.address)
    again = NotifySocket(manager.address)
    with again.socket:
        notify.watchdog()
        assert [datagram[0] for datagram in again.datagrams()] == ["STOPPING=1", "WATCHDOG=1"]


def test_nobody_there_is_one_warning(notify: Notify, manager: NotifySocket, caplog: pytest.LogCaptureFixture) -> None:
    manager.socket.close()
    with caplog.at_level(logging.WARNING):
        notify.ready("ready")
        notify.watchdog()
        notify.status("still")
    (record,) = caplog.records
    assert "cannot be notified: " in record.message


def test_without_a_manager_nothing_happens() -> None:
    notify = Notify.from_environment({"WATCHDOG_USEC": "1000000"})
    assert not notify.enabled
    assert notify.watchdog_interval is notify.watchdog_seconds is None
    notify.starting(1)
    notify.ready("ready")
    notify.reloading()
    notify.status("text")
    notify.watchdog()
    notify.stopping(1)
    assert notify.flush()
    notify.close()


@pytest.mark.parametrize("address", ["relative", "@", "/", "vsock:2:1234", "/" + "x" * 200])
def test_an_address_that_is_none(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not Notify.from_environment({"NOTIFY_SOCKET": address}).enabled
    assert "neither an absolute path nor @NAME" in caplog.text


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_whose_watchdog_it_is(variables: dict[str, str], seconds: float | None) -> None:
    notify = Notify.from_environment({"NOTIFY_SOCKET": "@nobody", **variables})
    assert notify.watchdog_seconds == seconds
    assert notify.environment == {"NOTIFY_SOCKET": "@nobody", **variables}
    notify.close()

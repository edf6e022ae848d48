"""The lock on an address: who may have it a second time, and when it is free again.

What must not live here: addresses that are bound under such a lock (test_listeners.py); another user's lock is there
as well, since the address itself must keep a second daemon away then.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.supervisor.sockets import address_lock as module
from tidegate.supervisor.sockets.address_lock import AddressLock

NAME = f"test/{os.getpid()}"


@contextlib.contextmanager
def locked() -> Iterator[AddressLock]:
    lock = AddressLock.on(NAME)
    assert lock is not None
    try:
        yield lock
    finally:
        lock.release()


def test_a_lock_is_there_once_until_it_is_released() -> None:
    with locked(), pytest.raises(OSError, match="it is given twice"):
        AddressLock.on(NAME)
    with locked():
        pass


def test_a_lock_whose_queue_is_full_is_still_a_lock() -> None:
    with locked(), contextlib.ExitStack() as stack:
        for _ in range(4):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(f"\0tidegate/{NAME}")
        with pytest.raises(OSError, match="it is given twice"):  # whose it is was found out all the same
            AddressLock.on(NAME)


def test_a_lock_that_is_taken_over_is_the_same() -> None:
    with locked() as before:
        after = AddressLock.restore(os.dup(before.fileno()))
    assert not os.get_inheritable(after.fileno())
    with pytest.raises(OSError, match="it is given twice"):
        AddressLock.on(NAME)
    after.release()
    with locked():
        pass


def test_a_lock_by_a_locked_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    with locked(), pytest.raises(OSError, match="another tidegate has it"):
        AddressLock.on(NAME)
    with locked():
        pass

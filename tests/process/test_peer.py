"""Which process is at the other end of a socket.

What must not live here: what it may do there (tests/supervisor/test_control.py).
"""

from __future__ import annotations

import os
import socket
import sys

import pytest

from tidegate.process.peer import credentials


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no SO_PEERCRED")
def test_a_unix_socket_knows_its_peer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert credentials(ours) == (os.getpid(), os.geteuid(), os.getegid())


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert credentials(ours) == (-1, -1, -1)

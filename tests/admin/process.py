"""The admin process as the supervisor makes it: a forked child that has its sockets and the scoreboard.

What must not live here: test cases and fixtures.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from tests.support.patience import PATIENCE
from tidegate._core.scoreboard import Scoreboard


@dataclass
class Admin:
    """An admin process that runs, from outside. `pipe` is the supervisor's end."""

    board: Scoreboard
    pid: int
    ports: list[int]
    pipe: socket.socket
    status: int | None = field(default=None)

    def get(
        self, path: str, method: str = "GET", port: int | None = None, body: Any = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request on a connection of its own: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.ports[0], timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def wait(self) -> int:
        """Waits for its end: its exit status, negative for a signal."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


def start(
    board: Scoreboard,
    listeners: int = 1,
    token: str | None = None,
    names: Collection[str] = (),
    files: int | None = None,
    publish: str | None = None,
    bus: str | None = None,
) -> Admin:
    """Forks an admin process that may open so many files, with signals masked across the fork."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(listeners)]
    ours, theirs = socket.socketpair()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            ours.close()
            if files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
            from tidegate.admin.main import run
            from tidegate.config.schema import AdminAccess

            status = run(board, sockets, theirs, AdminAccess(token, frozenset(names), publish), (), bus)
        finally:
            os._exit(status)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    admin = Admin(board, pid, [sock.getsockname()[1] for sock in sockets], ours)
    for sock in sockets:
        sock.close()
    return admin

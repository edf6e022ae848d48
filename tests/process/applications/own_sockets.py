"""Has sockets and a handler of a signal of its own, which a child that it forks has as well."""

from __future__ import annotations

import os
import signal
import socket
import time

ours, theirs = socket.socketpair()
listener = socket.create_server(("127.0.0.1", 0))
signal.signal(signal.SIGUSR1, lambda *_: ours.send(b"heard"))


async def handler(websocket):
    if not (pid := os.fork()):
        ours.send(b"x")
        for _ in range(600):
            time.sleep(0.1)
        os._exit(0)
    assert theirs.recv(1) == b"x"
    await websocket.send(str(listener.getsockname()[1]))
    os.kill(pid, signal.SIGUSR1)
    await websocket.send(theirs.recv(5).decode())
    os.kill(pid, signal.SIGKILL)

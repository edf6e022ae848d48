"""The service manager's side, played by a test: what it is told, and the sockets that it hands over.

    NotifySocket    what comes to NOTIFY_SOCKET, and from whom
    activate()      a daemon that is started with listening sockets, as systemd does it

What must not live here: test cases; systemd itself (tests/deploy/test_systemd.py).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support import programs
from tests.support.harness import wait_until


class NotifySocket:
    """The other end of NOTIFY_SOCKET, which knows who speaks."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[tuple[int, dict[str, str]]] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        if not address.startswith("@"):
            os.chmod(address, 0o777)  # as systemd's, so that whoever a daemon has become may write
        self.socket.setblocking(False)

    def hear(self) -> list[tuple[int, dict[str, str]]]:
        """Every message so far: the sender's process id, and the assignments."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(12))
                (pid,) = {int.from_bytes(item[2][:4], sys.byteorder) for item in ancillary}
                self.messages.append((pid, dict(line.split("=", 1) for line in data.decode().splitlines())))
        return self.messages

    def datagrams(self) -> list[list[str]]:
        """The lines of every message that has come since."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(65536).decode().splitlines())
        return found

    def values(self, name: str) -> list[str]:
        return [message[name] for _, message in self.hear() if name in message]

    def wait(self, name: str, accept: Callable[[str], bool] = lambda value: True) -> str:
        """The first accepted value of an assignment, once it has come."""
        found = wait_until(lambda: [v for v in self.values(name) if accept(v)], f"{name} of {self.messages}")
        return found[0]

    def forget(self) -> None:
        self.hear()
        self.messages.clear()


def listening(count: str, names: str, *command: str) -> None:
    """Become a command that is told of so many sockets, from descriptor 3 up."""
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=count)
    if names:
        os.environ["LISTEN_FDNAMES"] = names
    os.execv(command[0], command)


def activate(directory: Path, sockets: list[socket.socket], names: str, *options: str) -> subprocess.Popen[bytes]:
    """As systemd does it: descriptors from 3 up, in a process that keeps its number."""
    (directory / "application.py").write_text(
        "import os\nasync def handler(websocket):\n"
        "    await websocket.send(str({name for name in os.environ if name.startswith('LISTEN_')} or 'none'))\n"
        "    await websocket.wait_closed()\n"
    )
    serve = [sys.executable, "-m", "tidegate", "serve", "application:handler", "--admin", "none", *options]
    command = programs.program(listening, str(len(sockets)), names, *serve)
    saved = [sock.dup() for sock in sockets]
    # The numbers from 3 up may be in use here: a shell puts the descriptors in their places.
    places = " ".join(f"{3 + index}<&{sock.fileno()}" for index, sock in enumerate(saved))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" {places}', "bash", *command],
            cwd=directory,
            env=programs.environment(),
            pass_fds=[sock.fileno() for sock in saved],
            stderr=log,
        )
    for sock in saved:
        sock.close()
    return process

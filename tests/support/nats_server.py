"""A nats-server of a test's own: on a free port, with a folder for JetStream, stopped at the end.

What must not live here: tests.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.patience import PATIENCE

__all__ = ["NatsServer", "nats_cluster", "nats_server"]

COMMAND = "nats-server"


class NatsServer:
    """One server after the other, on one port.

    Parameters:
        folder: where its settings, its log and what it stores are.
        settings: more lines of its settings.
        jetstream: whether it stores.
    """

    def __init__(self, folder: Path, settings: Sequence[str] = (), jetstream: bool = True) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.port = _free_port()
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f'listen: "127.0.0.1:{self.port}"', "max_payload: 4MB", *settings]
        if jetstream:
            lines.append(f'jetstream {{ store_dir: "{self.store}", max_mem: 256MB, max_file: 1GB }}')
        (folder / "settings").write_text("\n".join(lines))

    @property
    def url(self) -> str:
        """Where it is, without a bus."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return once it is ready."""
        with self.log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen([COMMAND, "-c", str(self.folder / "settings")], stderr=log)
        deadline = time.monotonic() + PATIENCE
        while b"Server is ready" not in self.log.read_bytes()[begin:]:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it, with a signal."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            process.wait(PATIENCE)

    def forget(self) -> None:
        """Kill it, and start it again without what it has stored."""
        self.end(signal.SIGKILL)
        shutil.rmtree(self.store)
        self.start()


@contextmanager
def nats_cluster(folder: Path) -> Iterator[list[NatsServer]]:
    """Run three servers that store each message on all of them."""
    ports = [_free_port() for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    servers = [
        NatsServer(
            folder / f"s{number}",
            [
                f"server_name: s{number}",
                f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{routes}], no_advertise: true }}',
            ],
        )
        for number, port in enumerate(ports)
    ]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.end()


@contextmanager
def nats_server(folder: Path, settings: Sequence[str] = (), jetstream: bool = True) -> Iterator[NatsServer]:
    """Run a server."""
    server = NatsServer(folder, settings, jetstream)
    try:
        server.start()
        yield server
    finally:
        server.end()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port

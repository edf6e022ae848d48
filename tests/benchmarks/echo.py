"""What an echoed message takes, with DEPTH in flight: ``python echo.py COUNT DEPTH [sockets | lockstep]``.

It prints the processor time that the server took, in nanoseconds a message. A DEPTH of 0 stands for opening handshakes,
each on a connection that is ended then.

    (nothing)    the server's connection is handed its bytes directly, and what it writes goes nowhere
    sockets      another process is the client, which sends when it has had all answers
    lockstep     the same, but it does nothing before the server sleeps: so a program that counts the server's
                 instructions counts the same ones each time, on a busy machine too

What must not live here: judging the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from tidegate._core import turns
from tidegate.asyncio.server import ServerConnection, serve
from tidegate.exceptions import ConnectionClosedError

SIZE = 64
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
FRAME = bytes([0x81, 0x80 | SIZE, 0, 0, 0, 0]) + b"x" * SIZE
REPLY = 2 + SIZE
READS_OF_A_TURN = 50


class Nowhere:
    """A transport."""

    def write(self, data: Any) -> None:
        pass

    writelines = write

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


async def echo(websocket: ServerConnection) -> None:
    async for message in websocket:
        await websocket.send(message)


def processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def without_sockets(count: int, depth: int) -> float:
    chunk = FRAME * depth
    async with serve(echo, "127.0.0.1", 0) as server:
        connection: Any = server._made()
        connection.connection_made(Nowhere())
        connection.data_received(REQUEST)
        await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        began = processor_time()
        turns.set_seconds(1e9)  # what a turn has time for would differ from run to run

        def run(left: int) -> None:
            for _ in range(min(left, READS_OF_A_TURN)):
                connection.data_received(chunk)
            if left > READS_OF_A_TURN:
                loop.call_soon(run, left - READS_OF_A_TURN)
            else:
                done.set_result(None)

        loop.call_soon(run, count // depth)
        await done
        took = processor_time() - began
        connection.connection_lost(None)
    return took


def until_it_sleeps(pid: int) -> None:
    """Wait until a process waits for something."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.0001)


def received(sock: socket.socket, most: int) -> bytes:
    """What has come: something, or the server has failed."""
    data = sock.recv(most)
    if not data:
        raise EOFError("the server has ended the connection")
    return data


def client(port: int, count: int, depth: int, ready: Callable[[], object]) -> None:
    """The other end; `ready` waits until it may do something."""
    for _ in range(1 if depth else count):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready()
            sock.sendall(REQUEST)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += received(sock, 65536)
            assert answer.startswith(b"HTTP/1.1 101 "), answer
            for _ in range(count // depth if depth else 0):
                ready()
                sock.sendall(FRAME * depth)
                missing = depth * REPLY
                while missing:
                    missing -= len(received(sock, missing))
            ready()
            sock.shutdown(socket.SHUT_WR)
            assert not sock.recv(1)
        ready()


async def with_sockets(count: int, depth: int, mode: str) -> float:
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    turns.set_seconds(1e9)

    async def handler(websocket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosedError):  # it takes no leave
            await echo(websocket)

    async with serve(handler, sock=listener, compression=None):
        port = str(listener.getsockname()[1])
        began = processor_time()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, str(count), str(depth), mode, port),
        )
        assert await process.wait() == 0
        return processor_time() - began


def main(count: int, depth: int, mode: str = "", port: str = "") -> None:
    if port:
        pid = os.getppid()
        client(int(port), count, depth, lambda: until_it_sleeps(pid) if mode == "lockstep" else None)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        took = runner.run(with_sockets(count, depth, mode) if mode else without_sockets(count, depth))
    print(f"{took / count * 1e9:.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])

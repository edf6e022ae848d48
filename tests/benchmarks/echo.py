"""What an echoed message takes, with several in flight: ``python echo.py COUNT DEPTH [sockets]``.

It prints the processor time that the server took, in nanoseconds a message. Without sockets the server's connection is
handed its bytes directly, and what it writes goes nowhere: so a program that counts instructions counts the same ones
each time. With sockets a forked child is the client.

What must not live here: judging the result.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
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


def client(port: int, count: int, depth: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(REQUEST)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(65536)
        for _ in range(count // depth):
            sock.sendall(FRAME * depth)
            missing = depth * REPLY
            while missing:
                missing -= len(sock.recv(missing))


async def with_sockets(count: int, depth: int) -> float:
    listener = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        try:
            client(listener.getsockname()[1], count, depth)
        finally:
            os._exit(0)
    gone = asyncio.Event()

    async def handler(websocket: ServerConnection) -> None:
        try:
            await echo(websocket)
        except ConnectionClosedError:  # it takes no leave
            gone.set()

    async with serve(handler, sock=listener, compression=None):
        began = processor_time()
        await gone.wait()
        return processor_time() - began


def main(count: int, depth: int, sockets: bool) -> None:
    measure = with_sockets if sockets else without_sockets
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        took = runner.run(measure(count, depth))
    print(f"{took / count * 1e9:.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), "sockets" in sys.argv[3:])

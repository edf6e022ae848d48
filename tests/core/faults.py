"""A small echo in which system calls fail, run with faults.c before libc; prints what came of each, as JSON.

Its argument is the event loop. What must not live here: what is right (test_stream_faults).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import socket
import sys
import time
from typing import Any

import uvloop

from tests.core.transports import LARGE, STREAM, Peer, Recording, bound, connect, descriptors, exceptions, settle
from tests.support.patience import PATIENCE
from tidegate._core.listener import Listener

# Call, errno, how many calls succeed before; what the peers do.
SCENARIOS = [
    *(("recv", name, 0, "echo") for name in ("ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH", "ENOMEM", "EINTR")),
    ("recv", "ECONNRESET", 1, "echo"),
    *(("send", name, 0, "echo") for name in ("EPIPE", "ECONNRESET", "ENOBUFS", "EINTR")),
    *(("send", name, 0, "bulk") for name in ("EPIPE", "EINTR")),
    *(("sendmsg", name, 0, "bulk") for name in ("EPIPE", "ETIMEDOUT", "EINTR")),
    ("sendmsg", "ECONNRESET", 2, "bulk"),
    ("epoll_wait", "EINTR", 0, "echo"),
    ("epoll_wait", "EBADF", 0, "echo"),
    *(("accept4", name, 0, "connect") for name in ("ECONNABORTED", "EINTR", "EPERM", "ENFILE")),
    ("epoll_ctl", "ENOSPC", 0, "connect"),
    ("epoll_ctl", "ENOMEM", 0, "connect"),
    ("shutdown", "ENOTCONN", 0, "write_eof"),
]

shim: Any = ctypes.CDLL(None)


async def ask(peer: Peer, size: int) -> bool:
    """Whether what a peer sends comes back."""
    _, answer = await asyncio.gather(peer.send(bytes(size)), peer.receive(size), return_exceptions=True)
    return answer == bytes(size)


class Scenario:
    """An echo with three connections, one thing that fails, and what came of it."""

    def __init__(self, call: str, error: str, skipped: int, use: str) -> None:
        self.call, self.error, self.skipped, self.use = call, error, skipped, use
        self.made: list[Recording] = []
        self.peers: list[Peer] = []

    def factory(self) -> Recording:
        self.made.append(Recording(data=lambda protocol: protocol.transport.write(protocol.events[-1][1])))
        return self.made[-1]

    def arm(self) -> None:
        shim.fault_arm(self.call.encode(), self.skipped, 1, getattr(errno, self.error))

    async def run(self) -> dict[str, Any]:
        before = descriptors()
        with bound() as sock, exceptions() as told:
            async with STREAM.serving(sock, self.factory):
                self.peers = [connect(sock.getsockname()) for _ in range(3)]
                for peer in self.peers:
                    assert await ask(peer, 1)
                self.arm()
                if self.use == "connect":
                    self.peers += [connect(sock.getsockname()) for _ in range(2)]
                elif self.use == "write_eof":
                    self.made[0].transport.write_eof()
                elif self.use == "bulk":
                    self.made[0].transport.writelines([bytes(LARGE // 2)] * 2)
                    with contextlib.suppress(ConnectionError):
                        await self.peers[0].receive(LARGE)
                await asyncio.gather(*(ask(peer, 1000) for peer in self.peers))
                await settle()
                fine = [await ask(peer, 1000) for peer in self.peers]
                self.peers.append(connect(sock.getsockname()))
                fine.append(await ask(self.peers[-1], 1000))
                spins = await self.idle()
                lost = [type(protocol.error).__name__ for protocol in self.made if "lost" in protocol.names]
                for protocol in self.made:
                    if not protocol.transport.is_closing():
                        protocol.transport.abort()
                for protocol in self.made:
                    await protocol.happens("lost")
                await settle()
            for peer in self.peers:
                peer.close()
        return {
            "fine": fine,
            "lost": lost,
            "told": [errno.errorcode[context["exception"].errno] for context in told],
            "faults": [fault for protocol in self.made for fault in protocol.faults],
            "left": len(descriptors() - before),
            "spins": spins,
        }

    async def idle(self) -> bool:
        """Whether anything goes on although nobody does anything."""
        calls, used = self.calls(), time.process_time()
        await asyncio.sleep(0.05)
        return self.calls() - calls > 10 or time.process_time() - used > 0.04

    def calls(self) -> int:
        return sum(shim.fault_calls(name) for name in (b"recv", b"send", b"sendmsg", b"accept4", b"epoll_wait"))


async def start_fails(call: str, error: str) -> dict[str, Any]:
    """A listener that cannot start says so, and can be started later."""
    before = descriptors()
    with bound() as sock:
        with_socket = descriptors()
        listener = Listener(asyncio.get_running_loop(), sock, Recording)
        shim.fault_arm(call.encode(), 0, 1, getattr(errno, error))
        told = "nothing"
        try:
            listener.start(1)
        except OSError as exc:
            told = errno.errorcode[exc.errno or 0]
        left = len(descriptors() - with_socket)
        listener.stop()
        listener.start(1)
        socket.create_connection(sock.getsockname()).close()
        listener.stop()
    return {"told": told, "left": left + len(descriptors() - before)}


async def main() -> None:
    results: dict[str, Any] = {}
    for scenario in SCENARIOS:
        async with asyncio.timeout(PATIENCE):
            results[" ".join(map(str, scenario))] = await Scenario(*scenario).run()
    for call, error in (("epoll_create1", "EMFILE"), ("epoll_ctl", "ENOSPC")):
        results[f"start {call} {error}"] = await start_fails(call, error)
    print(json.dumps(results))


if __name__ == "__main__":
    kinds = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    with asyncio.Runner(loop_factory=kinds[sys.argv[1]]) as runner:
        runner.run(main())

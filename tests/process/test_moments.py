"""Time: a drain that is spread evenly, and an end that is heeded at any moment of whatever is under way.

What must not live here: what is under way by itself (test_reload.py, test_upgrade.py, test_stop.py).
"""

from __future__ import annotations

import asyncio
import random
import signal
import time

import pytest

from tests.process.clients import Crowd
from tests.support import wire
from tests.support.harness import ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE

CLIENTS = 5000
DRAIN = 10


class Leaver(asyncio.Protocol):
    """A client of a few bytes, for there are thousands: it notes when it was told to go, and goes."""

    REQUEST = wire.request()
    CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe9"  # 1001, masked with zeros

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.opened, self.told = loop.create_future(), loop.create_future()
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.REQUEST)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.opened.done() and b"\r\n\r\n" in self.received:
            assert self.received.startswith(b"HTTP/1.1 101 ")
            self.received = self.received.partition(b"\r\n\r\n")[2]
            self.opened.set_result(None)
        if self.opened.done() and not self.told.done() and len(self.received) >= 4:
            assert self.received[0] == 0x88
            self.told.set_result((time.monotonic(), int.from_bytes(self.received[2:4], "big")))
            self.transport.write(self.CLOSE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.opened, self.told):
            if not future.done():
                future.set_exception(exc or EOFError("cut"))


@pytest.mark.timed
async def test_a_slow_drain_is_even() -> None:
    """5,000 clients, closed within 10 seconds: as many in each of them, but for 30 %."""
    loop = asyncio.get_running_loop()
    with Daemon(ECHO, "--graceful-timeout", "60", "--ping-interval", "none", workers=2, drain=DRAIN) as daemon:
        clients: list[Leaver] = []
        while len(clients) < CLIENTS:
            some = [loop.create_connection(Leaver, "127.0.0.1", daemon.port) for _ in range(100)]
            clients += [client for _, client in await asyncio.gather(*some)]
            await asyncio.gather(*(client.opened for client in clients[-100:]))
        daemon.signal(signal.SIGTERM)
        told = await asyncio.gather(*(client.told for client in clients))
        assert await asyncio.to_thread(daemon.wait) == 0
    assert {code for _, code in told} == {1001}
    first = min(moment for moment, _ in told)
    seconds = [0] * (DRAIN + 1)
    for moment, _ in told:
        seconds[int(moment - first)] += 1
    even = CLIENTS / DRAIN
    assert all(0.7 * even <= number <= 1.3 * even for number in seconds[:DRAIN]), seconds
    assert seconds[DRAIN] <= 0.3 * even, seconds


# What an end that is not heeded would wait for: longer than a test does.
LONGER = ("--graceful-timeout", str(10 * PATIENCE))

# What is under way when the signal comes; each begins with the daemon's first moment or with its readiness.
ASKED = {"boot": None, "reload": signal.SIGHUP, "upgrade": signal.SIGUSR2, "drain": signal.SIGTERM}


@pytest.mark.slow
@pytest.mark.parametrize("under_way", ASKED)
async def test_an_end_at_any_moment(under_way: str) -> None:
    """Status 0, in time, nobody left behind. `Daemon.stop()` looks for whoever is."""
    asked = ASKED[under_way]
    for number in range(13):
        rest = random.uniform(0.06, 1.0) if asked is None else random.uniform(0, 1.2)
        with Daemon(ECHO, *LONGER, "--settle", "0.2", workers=2, drain=0.5, wait=asked is not None) as daemon:
            if asked is None:
                # Before that the interpreter does not know what a signal is.
                await asyncio.to_thread(wait_until, lambda: "started" in daemon.log, "its first words")
                await asyncio.sleep(rest - 0.06)
                assert await asyncio.to_thread(daemon.stop) == 0
                continue
            async with Crowd(daemon.uri, staying=20):
                daemon.signal(asked)
                await asyncio.sleep(rest)
                if daemon.poll() is None:
                    daemon.signal(signal.SIGTERM)
                assert await asyncio.to_thread(daemon.wait) == 0, (number, rest)

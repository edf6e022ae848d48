"""Pages of a browser, as many as a test wants: clients of `tidegate.v1` by the rules of tidegate.js, in this process.

    Page        joins channels in one command, keeps each place before it uses a message, comes back and resumes
    Publisher   publishes numbers to channels from outside, each channel's in order
    until       wait for a condition

A page notes all that it is given: numbers of each channel, how each join went, what it was told. It is light, so that
thousands fit: frames are read where they are, and nothing is awaited. What must not live here: what a test makes of it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, cast

from tests.support import wire
from tests.support.patience import PATIENCE, SLOWNESS
from tidegate.bus.bus import Bus
from tidegate.exceptions import BusDown

HASTE = 0.1
"""Pages wait so much of the time before they come back: a test has no minutes for that."""

FINAL = {1000, 1002, 1003, 1007, 1008, 1009, 1010}
"""Close codes after which no page comes back; with 4000 and above."""

COMING_BACK = 30 * HASTE * SLOWNESS
"""Seconds for which a page may stay away by its own choice."""

REQUEST = wire.request(headers={"Sec-WebSocket-Protocol": "tidegate.v1"})


async def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Return once a condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:g} s in vain: {what}")
        await asyncio.sleep(0.02)


class Page(asyncio.Protocol):
    """One page.

    Parameters:
        port: of the server on this machine.
        channels: that it joins.
        chance: what its delays are drawn from.
        haste: what part of the helper's delays it waits.

    Attributes:
        logs: channel -> what it was given.
        places: channel -> its place.
        resumed: how joins went -> how often.
        told: gaps, failures, channels that it was made to leave, and errors.
        closed: close code -> how often.
    """

    def __init__(
        self, port: int, channels: Iterable[str], chance: random.Random | None = None, haste: float = HASTE
    ) -> None:
        self.port, self.chance, self.haste = port, chance or random.Random(), haste
        self.logs: dict[str, list[Any]] = {channel: [] for channel in channels}
        self.places: dict[str, str | None] = dict.fromkeys(self.logs)
        self.joined: set[str] = set()
        self._later_joined: set[str] = set()  # answered, to be joined again
        self.resumed: Counter[str] = Counter()
        self.told: list[dict[str, Any]] = []
        self.closed: Counter[int] = Counter()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._open = False
        self._ended = False
        self._code = 1006
        self._begun = 0.0
        self._attempt = 0
        self._id = 0
        self._sent: dict[int, tuple[bytes, asyncio.Future[str]]] = {}  # publications without an answer
        self._task: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def is_there(self) -> bool:
        """Whether it is a member of all its channels."""
        return len(self.joined) == len(self.logs)

    # Its life.

    def connect(self) -> None:
        """Connect; it comes back by itself until `close()`."""
        self._begun = self._loop.time()
        self._task = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: self, "127.0.0.1", self.port)
        except OSError:
            self._come_back()

    def close(self) -> None:
        """Go away and stay away."""
        self._ended = True
        self.drop()
        if self._task is not None:
            self._task.cancel()
        for timer in self._timers:
            timer.cancel()

    def come_back(self) -> None:
        """Connect again after `close()`."""
        self._ended, self._attempt = False, 0
        self.connect()

    def drop(self) -> None:
        """Lose the connection."""
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read nothing."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _come_back(self) -> None:
        self.joined.clear()
        self._later_joined.clear()
        self.closed[self._code] += 1
        if self._ended or self._code in FINAL or self._code >= 4000:
            return
        if self._loop.time() - self._begun > 10 * self.haste:
            self._attempt = 0
        first = not self._attempt and self._code in (1001, 1012, 1013)
        self._attempt += 1
        spread = self.chance.random()
        delay = 2 * spread if first else 0.5 + spread * (min(30, 2**self._attempt) - 0.5)
        self._later(delay * self.haste, self.connect)

    def _later(self, delay: float, do: Callable[..., None], *arguments: Any) -> None:
        def run() -> None:
            self._timers.discard(timer)
            if not self._ended:
                do(*arguments)

        timer = self._loop.call_later(delay, run)
        self._timers.add(timer)

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._rest, self._open, self._code = b"", False, 1006
        self._transport.write(REQUEST)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._come_back()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        start = 0
        if not self._open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            if not data.startswith(b"HTTP/1.1 101 "):
                self.drop()
                return
            self._open, start = True, end + 4
            self._join(self.logs)
            self._send(b"".join(message for message, _ in self._sent.values()))
        self._rest = data[self._frames(data, start) :]

    def _frames(self, data: bytes, start: int) -> int:
        """Take the frames that are complete; return where the rest begins."""
        size = len(data)
        while size - start >= 2:
            length, head = data[start + 1], 2
            if length > 125:
                head = 4 if length == 126 else 10
                if size - start < head:
                    break
                length = int.from_bytes(data[start + 2 : start + head], "big")
            end = start + head + length
            if end > size:
                break
            self._frame(data[start], data[start + head : end])
            start = end
        return start

    def _frame(self, first: int, payload: bytes) -> None:
        if first == 0x80 | wire.TEXT:
            self._take(json.loads(payload))
        elif first == 0x80 | wire.CLOSE:
            self._code, _ = wire.close_of(payload)
            self._send(wire.frame(payload, wire.CLOSE))
        elif first == 0x80 | wire.PING:
            self._send(wire.frame(payload, wire.PONG))
        else:
            raise AssertionError(f"a frame that no page expects: {first:#x} {payload[:80]!r}")

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    # Channels.

    def _join(self, channels: Iterable[str]) -> None:
        self._later_joined -= set(channels)
        self._id += 1
        command = {"join": {channel: self.places[channel] for channel in channels}, "id": self._id}
        self._send(wire.frame(json.dumps(command).encode()))

    def _take(self, said: dict[str, Any]) -> None:
        if "c" in said:
            self._message(said["c"], said)
        elif "joined" in said:
            for channel, answer in said["joined"].items():
                self._answered(channel, answer)
        elif said.get("id") in self._sent:
            _, published = self._sent.pop(said["id"])
            if not published.done():
                published.set_result(said.get("error", ""))
        else:
            self.told.append(said)
            if "gap" in said:
                self.logs[said["gap"]].append(None)
                self.places[said["gap"]] = said.get("at", self.places[said["gap"]])

    def _message(self, channel: str, said: dict[str, Any]) -> None:
        if channel in self._later_joined:
            return  # as for a page it is not joined: it joins again, from its place
        assert channel in self.joined, f"a message before the answer to the join: {said}"
        if "at" in said:
            self.places[channel] = said["at"]
        elif "o" in said:
            place = self.places[channel]
            assert place is not None
            self.places[channel] = f"{place.partition('.')[0]}.{said['o']}"
        self.logs[channel].append(said["d"])

    async def publish(self, channel: str, data: Any, key: str) -> None:
        """Publish until it is known that it is stored, each time with the same key."""
        error = "not yet"
        while error:
            self._id += 1
            command = {"publish": channel, "data": data, "key": key, "id": self._id}
            answer = self._loop.create_future()
            self._sent[self._id] = message, _ = wire.frame(json.dumps(command).encode()), answer
            if self._open and self._transport is not None:
                self._send(message)
            async with asyncio.timeout(PATIENCE):
                error = await answer
            if error:
                assert error in ("busy", "down"), error
                await asyncio.sleep(0.1)  # it would try all the time

    def _answered(self, channel: str, answer: dict[str, Any]) -> None:
        if "retry" in answer or answer.get("error") in ("busy", "down", "failed"):
            self.resumed["later"] += 1
            self._later_joined.add(channel)
            delay = answer.get("retry", 1.0) * (1 + self.chance.random())
            self._later(delay * self.haste, self._join_again, self._transport, channel)
            return
        assert "error" not in answer, answer
        self.resumed[answer["resumed"]] += 1
        self.joined.add(channel)
        if "at" in answer:
            self.places[channel] = answer["at"]
        if answer["resumed"] in ("failed", "partial"):
            self.told.append({"failed": channel, **answer})
            self.logs[channel].append(None)

    def _join_again(self, transport: asyncio.Transport, channel: str) -> None:
        if transport is self._transport:
            self._join([channel])


class Publisher:
    """It publishes 1, 2, 3 ... to each channel, and each until it is stored.

    Parameters:
        bus: by which it does.
        channels: to which.
        rate: of them together, each second, as far as it is possible.

    Attributes:
        sent: channel -> the last number that is stored.
        longest: seconds that one publication took at most.
        silence: seconds in which none was stored, at most.
    """

    def __init__(self, bus: Bus, channels: Iterable[str], rate: float) -> None:
        self.bus = bus
        self.sent = dict.fromkeys(channels, 0)
        self.longest = self.silence = 0.0
        self._every = len(self.sent) / rate
        self._last = time.monotonic()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def total(self) -> int:
        """Messages that are stored."""
        return sum(self.sent.values())

    def start(self) -> None:
        """Begin."""
        self._last = time.monotonic()
        self._tasks = [asyncio.create_task(self._run(channel)) for channel in self.sent]

    async def stop(self) -> None:
        """End, with what is under way."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _run(self, channel: str) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + random.random() * self._every
        while not self._stopping:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + self._every, loop.time() - 1)
            begun = time.monotonic()
            await self._publish(channel, self.sent[channel] + 1)
            self.sent[channel] += 1
            now = time.monotonic()
            self.longest = max(self.longest, now - begun)
            self.silence = max(self.silence, now - self._last)
            self._last = now

    async def _publish(self, channel: str, number: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.bus.publish(channel, number, wait=PATIENCE)
                    return
                except BusDown as exc:
                    if exc.uncertain:
                        raise AssertionError(f"{number} was not acknowledged in time") from exc
                    await asyncio.sleep(0.02)  # it would try all the time

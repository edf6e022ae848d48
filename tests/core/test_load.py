"""Connections of a load generator, against a peer that is a socket: what they send, count and take for an answer.

What must not live here: real servers (tests/cli/test_bench.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.core.transports import settle
from tests.support.patience import PATIENCE
from tidegate._core.load import Load, LoadConnection, Payload
from tidegate._core.stream import adopt

SECOND = 1_000_000_000
TEXT = 0x81
LATER = 3600 * SECOND


class Open:
    """An opening handshake that is done with the first exclamation mark."""

    def connected(self, transport: asyncio.WriteTransport) -> None: ...

    def feed(self, data: bytes) -> bytes | None:
        return data.partition(b"!")[2] if b"!" in data else None

    def lost(self, exc: BaseException | None) -> None:
        self.exc = exc


class Peer:
    """The server's end of a connection."""

    def __init__(self, sock: socket.socket, connection: LoadConnection) -> None:
        self._sock, self.connection = sock, connection
        self._rest = b""

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: its first byte, and its payload, which was masked."""
        head = await self.read(2)
        assert head[1] & 0x80
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(await self.read(2 if size == 126 else 8), "big")
        key = await self.read(4)
        data = await self.read(size)
        return head[0], bytes(byte ^ key[i % 4] for i, byte in enumerate(data))

    async def read(self, size: int) -> bytes:
        """So many bytes, as they come."""
        async with asyncio.timeout(PATIENCE):
            while len(self._rest) < size:
                data = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
                if not data:
                    raise EOFError
                self._rest += data
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def nothing_came(self) -> bool:
        try:
            return not self._rest and not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True

    def close(self) -> None:
        self._sock.close()


class Loaded:
    """A load, and the peers of its connections."""

    def __init__(self, in_flight: int = 1, rate: float = 0, fan: bool = False) -> None:
        self.lost: list[str] = []
        self.load = Load(in_flight, rate, fan, lambda _, reason: self.lost.append(reason))
        self.peers: list[Peer] = []
        self.connections: list[LoadConnection] = []
        self.in_flight = in_flight

    async def connect(
        self, data: bytes = b"hello", *, ours: bool = True, compressed: bool = False, raw: bool = False
    ) -> Peer:
        near, far = socket.socketpair()
        far.setblocking(False)
        connection = LoadConnection(self.load, Open())
        loop = asyncio.get_running_loop()
        if ours:
            adopt(loop, near, connection)
        else:
            near.setblocking(False)
            await loop.create_connection(lambda: connection, sock=near)
        connection.use(Payload(TEXT, data, self.in_flight), compressed, raw)
        peer = Peer(far, connection)
        self.peers.append(peer)
        self.connections.append(connection)
        if not raw:
            await peer.send(b"101")
            await settle()
            await peer.send(b"!")
        return peer

    def start(self, begins: int | None = None, ends: int | None = None) -> None:
        now = time.monotonic_ns()
        begins = now if begins is None else begins
        self.load.start(asyncio.get_running_loop(), self.connections, begins, now + LATER if ends is None else ends)

    async def until(self, condition: str) -> None:
        """Wait until an expression of the load is true."""
        async with asyncio.timeout(PATIENCE):
            while not eval(condition, {"load": self.load, "lost": self.lost}):
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def loaded(in_flight: int = 1, rate: float = 0, fan: bool = False) -> AsyncIterator[Loaded]:
    made = Loaded(in_flight, rate, fan)
    try:
        yield made
    finally:
        made.load.stop()
        for peer in made.peers:
            peer.connection.abort()
            peer.close()
        async with asyncio.timeout(PATIENCE):
            while any(peer.connection.is_open for peer in made.peers):
                await asyncio.sleep(0.001)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for place in range(0, len(data), size):
        yield data[place : place + size]


@pytest.mark.parametrize("ours", [True, False])
async def test_a_message_for_each_answer(ours: bool) -> None:
    async with loaded(in_flight=3) as made:
        peer = await made.connect(b"x" * 300, ours=ours)
        made.start()
        for _ in range(3):
            assert await peer.frame() == (TEXT, b"x" * 300)
        await asyncio.sleep(0)
        assert peer.nothing_came()
        await peer.send(b"\x81\x02hi\x82\x00")
        assert [await peer.frame(), await peer.frame()] == [(TEXT, b"x" * 300)] * 2
        assert (made.load.sent, made.load.answered, made.load.flying) == (5, 2, 3)
        assert made.load.latencies.count == 2


async def test_what_is_echoed_byte_by_byte() -> None:
    """Without an opening handshake, what comes back is masked, as it was sent."""
    async with loaded(in_flight=2) as made:
        peer = await made.connect(b"raw", raw=True)
        made.start()
        for _ in range(3):
            await peer.send(await peer.read(2 + 4 + 3))
        await made.until("load.answered == 3")
        assert not made.lost
        peer.connection.close()
        await peer.read(2 * (2 + 4 + 3))
        await peer.send(await peer.read(2 + 4 + 2))
        async with asyncio.timeout(PATIENCE):
            while peer.connection.is_open:
                await asyncio.sleep(0.001)
        assert not made.lost


async def test_answers_while_it_closes() -> None:
    """They count, and are not followed by another message."""
    async with loaded() as made:
        peer = await made.connect()
        made.start()
        await peer.frame()
        peer.connection.close()
        assert (await peer.frame())[0] == 0x88
        await peer.send(b"\x81\x00")
        await made.until("load.answered == 1")
        assert peer.nothing_came()
        assert made.load.sent == 1


async def test_latencies_of_a_while() -> None:
    """They are taken once, together with those of opening handshakes, which are measured elsewhere."""
    async with loaded() as made:
        peer = await made.connect()
        made.start()
        await peer.frame()
        await peer.send(b"\x81\x00")
        await made.until("load.answered == 1")
        made.load.latencies.record(LATER)
        taken = made.load.take_latencies()
        assert (taken.count, taken.maximum) == (2, LATER)
        assert made.load.latencies.count == made.load.take_latencies().count == 0


@pytest.mark.parametrize("ours", [True, False])
async def test_messages_that_the_socket_does_not_take_at_once(ours: bool) -> None:
    """They wait, no more of them than may be in flight."""
    data = b"x" * 3_000_000
    async with loaded(in_flight=2) as made:
        peer = await made.connect(data, ours=ours)
        made.start()
        assert await peer.frame() == (TEXT, data)
        await peer.send(b"\x81\x00")
        assert [await peer.frame(), await peer.frame()] == [(TEXT, data)] * 2
        await made.until("load.answered == 1")
        assert (made.load.sent, made.load.flying) == (3, 2)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_answers_in_pieces(size: int) -> None:
    """Frames of every length, fragments, and a ping between them."""
    answers = b"\x81\x7e\x01\x00" + b"a" * 256 + b"\x02\x03abc" + b"\x89\x04ping" + b"\x00\x00" + b"\x80\x01d"
    answers += b"\x82\x7f" + (70000).to_bytes(8, "big") + b"z" * (70000 if size > 7 else 0)
    async with loaded(in_flight=4) as made:
        peer = await made.connect()
        made.start()
        for piece in pieces(answers, size):
            await peer.send(piece)
            await asyncio.sleep(0)
        expected = 3 if size > 7 else 2
        await made.until(f"load.answered == {expected}")
        frames = [await peer.frame() for _ in range(4 + expected + 1)]
        assert frames.count((0x8A, b"ping")) == 1
        assert frames.count((TEXT, b"hello")) == 4 + expected
        assert not made.lost


WRONG = {
    b"\x81\x80\x00\x00\x00\x00": "a masked frame from the server",
    b"\xc1\x00": "a frame with a reserved bit that was not agreed on",
    b"\x83\x00": "a frame with an unknown opcode",
    b"\x80\x00": "a continuation of no message",
    b"\x01\x00\x81\x00": "a message within another",
    b"\x09\x00": "a control frame that is too long or fragmented",
    b"\x89\x7e\x00\x7e": "a control frame that is too long or fragmented",
    b"\x82\x7f" + b"\xff" * 8: "a frame with a length that cannot be",
}


@pytest.mark.parametrize("answer", WRONG, ids=WRONG.values())
async def test_what_no_server_may_send(answer: bytes) -> None:
    async with loaded() as made:
        peer = await made.connect()
        await peer.send(answer)
        assert await peer.frame() == (0x88, (1002).to_bytes(2, "big"))
        await made.until("lost")
        assert made.lost == [f"protocol error: {WRONG[answer]}"]


async def test_compressed_answers() -> None:
    async with loaded() as made:
        peer = await made.connect(compressed=True)
        made.start()
        await peer.frame()
        await peer.send(b"\xc1\x01\x00")
        await peer.frame()
        assert made.load.answered == 1


async def test_how_connections_end() -> None:
    async with loaded() as made:
        closed, dropped, leaving = [await made.connect() for _ in range(3)]
        await closed.send(b"\x88\x05\x03\xe9bye")
        assert await closed.frame() == (0x88, b"\x03\xe9")
        await made.until("lost")
        dropped.close()
        await made.until("len(lost) == 2")
        assert made.lost == ["closed by the server with 1001", "ended by the server without a close frame"]
        await asyncio.sleep(0.01)  # its opening handshake
        leaving.connection.close()
        assert await leaving.frame() == (0x88, b"\x03\xe8")
        await leaving.send(b"\x88\x02\x03\xe8")
        async with asyncio.timeout(PATIENCE):
            while leaving.connection.is_open:
                await asyncio.sleep(0.001)
        assert len(made.lost) == 2


async def test_answers_that_nothing_was_sent_for() -> None:
    async with loaded() as made:
        peer = await made.connect()
        await peer.send(b"\x81\x00")
        await made.until("load.unexpected == 1")
        made.start()
        await peer.frame()
        await peer.send(b"\x81\x00" * 3)
        await made.until("load.unexpected == 3")
        assert made.load.answered == 1


async def test_what_is_measured() -> None:
    """Only what is answered in time counts; and after the end nothing is sent."""
    async with loaded() as made:
        peer = await made.connect()
        made.start(begins=time.monotonic_ns() + LATER, ends=time.monotonic_ns() + 2 * LATER)
        await peer.frame()
        await peer.send(b"\x81\x00")
        await peer.frame()
        assert (made.load.sent, made.load.answered, made.load.latencies.count) == (2, 0, 0)
        made.load.stop()
        await peer.send(b"\x81\x00")
        await made.until("load.flying == 0")
        assert peer.nothing_came()
        assert made.load.sent == 2


async def test_a_rate() -> None:
    """Each message at its time, one connection after the other."""
    async with loaded(in_flight=100, rate=200) as made:
        one, other = await made.connect(b"1"), await made.connect(b"2")
        begin = time.monotonic()
        made.start(ends=time.monotonic_ns() + SECOND // 10)
        await made.until("load.sent == 20")
        assert time.monotonic() - begin >= 19 / 200
        await asyncio.sleep(0.02)
        assert made.load.sent == 20
        for _ in range(10):
            assert (await one.frame(), await other.frame()) == ((TEXT, b"1"), (TEXT, b"2"))


async def test_latencies_by_a_rate_count_from_when_messages_were_due() -> None:
    """One message may be in flight, and the answer to the first comes late: so did all that were due meanwhile."""
    async with loaded(in_flight=1, rate=100) as made:
        peer = await made.connect()
        made.start(ends=time.monotonic_ns() + SECOND // 5)
        await peer.frame()
        await asyncio.sleep(0.3)
        assert peer.nothing_came()
        assert (made.load.sent, made.load.flying) == (1, 20)
        for number in range(20):
            await peer.send(b"\x81\x00")
            if number < 19:
                await peer.frame()
        await made.until("load.latencies.count == 20")
        latencies = made.load.latencies
        assert latencies.maximum >= 0.3 * SECOND
        assert latencies.minimum >= 0.1 * SECOND  # that of the last, which was due at 0.19 s
        assert latencies.quantile(0.5) >= 0.19 * SECOND


async def test_a_rate_that_starts_late() -> None:
    """What was due since what is measured began is due now, with the time that has passed."""
    async with loaded(rate=100) as made:
        await made.connect()
        now = time.monotonic_ns()
        made.start(begins=now - SECOND // 2, ends=now)
        await made.until("load.flying == 50")
        assert made.load.give_up(time.monotonic_ns()) == 50
        assert made.load.latencies.maximum >= SECOND // 2


async def test_giving_up() -> None:
    """What is never answered counts with the time so far, that which could not be sent included."""
    async with loaded(in_flight=1, rate=100) as made:
        await made.connect()
        ends = time.monotonic_ns() + SECOND // 10
        made.start(ends=ends)
        await made.until("load.flying == 10")
        made.load.stop()
        assert made.load.give_up(ends + SECOND) == 10
        assert made.load.latencies.count == 10
        assert made.load.latencies.minimum >= SECOND
        assert made.load.give_up(ends + SECOND) == 0


async def test_a_fan() -> None:
    """A round is complete when each but the sender has a message."""
    async with loaded(fan=True) as made:
        sender, one, other = [await made.connect() for _ in range(3)]
        made.start()
        await sender.frame()
        await one.send(b"\x81\x00")
        await made.until("load.answered == 1")
        await one.send(b"\x81\x00")  # again: not of this round
        await made.until("load.unexpected == 1")
        await sender.send(b"\x81\x00")  # from a server that sends to all
        assert sender.nothing_came()
        await other.send(b"\x81\x00")
        await sender.frame()
        assert (made.load.answered, made.load.latencies.count, made.load.sent) == (2, 1, 2)
        other.close()  # for which the round does not wait
        await one.send(b"\x81\x00")
        await sender.frame()
        assert made.load.sent == 3
        made.load.stop()
        assert made.load.flying == 1
        assert made.load.give_up(time.monotonic_ns()) == 1


async def test_the_end_of_a_fan() -> None:
    """When the last round is complete there is no other."""
    async with loaded(fan=True) as made:
        sender, receiver = await made.connect(), await made.connect()
        made.start()
        await sender.frame()
        made.load.stop()
        await receiver.send(b"\x81\x00")
        await made.until("load.answered == 1")
        assert (made.load.sent, made.load.flying) == (1, 0)
        assert sender.nothing_came()


async def test_a_fan_by_a_rate() -> None:
    async with loaded(fan=True, rate=20) as made:
        sender, receiver = await made.connect(), await made.connect()
        begin = time.monotonic()
        made.start(ends=time.monotonic_ns() + SECOND // 4)
        for _ in range(5):
            await sender.frame()
            await receiver.send(b"\x81\x00")
        assert time.monotonic() - begin >= 4 / 20
        await made.until("load.latencies.count == 5")


async def test_a_lost_opening() -> None:
    near, far = socket.socketpair()
    opening = Open()
    connection = LoadConnection(Load(1, 0, False, lambda *_: None), opening)
    adopt(asyncio.get_running_loop(), near, connection)
    far.close()
    async with asyncio.timeout(PATIENCE):
        while connection.is_open:
            await asyncio.sleep(0.001)
    assert opening.exc is None


def test_mistakes() -> None:
    """Arguments that cannot be meant are refused."""
    for in_flight, rate in ((0, 0.0), (1, -1.0), (1, float("nan"))):
        with pytest.raises(ValueError, match="at least 1"):
            Load(in_flight, rate, False, lambda *_: None)
    with pytest.raises(ValueError, match="at least 1"):
        Payload(TEXT, b"", 0)


async def test_connections_that_cannot_send() -> None:
    """A load starts once, with connections of its own that have something to send."""
    loop, load = asyncio.get_running_loop(), Load(1, 0, False, lambda *_: None)
    connection = LoadConnection(load, Open())
    with pytest.raises(RuntimeError, match="there must be connections"):
        load.start(loop, [], 0, 0)
    with pytest.raises(ValueError, match="nothing to send"):
        load.start(loop, [connection], 0, 0)
    connection.use(Payload(TEXT, b"", 1), False)
    with pytest.raises(ValueError, match="of another load"):
        Load(1, 0, False, lambda *_: None).start(loop, [connection], 0, 0)
    for wrong in ([None], [object()]):
        with pytest.raises(TypeError):
            load.start(loop, wrong, 0, 0)  # type: ignore[arg-type]
    load.start(loop, [connection], 0, 0)
    with pytest.raises(RuntimeError, match="it starts once"):
        load.start(loop, [connection], 0, 0)

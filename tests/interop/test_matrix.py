"""The interoperation matrix: tidegate with every other library that we know, each as client and as server.

One table of checks for all pairs. Both ends run in processes of their own and do as they are told (running.py);
what they say to each other passes a relay that keeps it (relay.py).
What must not live here: the daemon (test_*_client.py), what one library does (peers/).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from tests.interop.peers.program import Closed, Rejected
from tests.interop.relay import Relay, Side
from tests.interop.running import PEERS, Company, End, RunningPeer
from tests.support.wire import Frame
from tidegate.version import version

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT, BINARY, CONTINUATION = 1, 2, 0
BOTH: tuple[Side, Side] = ("client", "server")
_NEEDED: dict[Side, set[str]] = {"client": set(), "server": {"serve"}}


def pairs(*needed: str, sides: tuple[Side, ...] = BOTH) -> pytest.MarkDecorator:
    """For every peer that can do what is needed, as client and as server."""
    wanted = {side: {*needed, *(f"{side}:{ability}" for ability in needed), *_NEEDED[side]} for side in sides}
    able = [(name, side) for side in sides for name, kind in PEERS.items() if not kind.cannot & wanted[side]]
    return pytest.mark.parametrize(
        "pair",
        [
            pytest.param((name, side), id=f"{name}-{side}", marks=[pytest.mark.slow] if PEERS[name].slow else [])
            for name, side in able
        ],
        indirect=True,
        scope="module",
    )


class Link(NamedTuple):
    """A connection: its two ends, and what passes between."""

    ours: End
    theirs: End
    wire: Relay


class Pair:
    """tidegate and another, which is the client or the server."""

    def __init__(self, ours: RunningPeer, theirs: RunningPeer, side: Side) -> None:
        self.ours, self.theirs = ours, theirs
        self.their_side: Side = side
        self.our_side: Side = "server" if side == "client" else "client"

    @asynccontextmanager
    async def connected(
        self, ours: dict[str, Any] | None = None, theirs: dict[str, Any] | None = None
    ) -> AsyncIterator[Link]:
        """A connection with options for each side (peers/program.py), closed at the end if it is still open."""
        options = {self.our_side: ours or {}, self.their_side: theirs or {}}
        peers = {self.our_side: self.ours, self.their_side: self.theirs}
        async with Relay(await peers["server"].serve(**options["server"])) as wire:
            ends: dict[Side, End] = {"client": await peers["client"].connect(wire.uri, **options["client"])}
            ends["server"] = await peers["server"].accept()
            yield Link(ends[self.our_side], ends[self.their_side], wire)
            await ends["client"].close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def company() -> AsyncIterator[Company]:
    async with Company() as company:
        yield company


@pytest_asyncio.fixture(loop_scope="module")
async def pair(company: Company, request: pytest.FixtureRequest) -> Pair:
    name, side = request.param
    return Pair(await company.invite("tidegate"), await company.invite(name), side)


# Messages.

MESSAGES = {
    "text": "Grüße 🌊",
    "binary": bytes(range(256)),
    "empty-text": "",
    "empty-binary": b"",
    "125": "x" * 125,
    "126": b"y" * 126,
    "65535": b"z" * 65535,
    "65536": "ü" * 32768,
    "1-MiB-text": "🌊" * 2**18,
    "1-MiB-binary": random.Random(1).randbytes(2**19).hex().encode(),
}


@pairs()
@pytest.mark.parametrize("compression", [None, {}], ids=["plain", "deflate"])
@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
async def test_message(pair: Pair, message: str | bytes, compression: Any) -> None:
    """A message gets through in both directions, with compression and without."""
    both = {"compression": compression}
    async with pair.connected(both, both) as link:
        await link.theirs.send(message)
        assert await link.ours.recv() == message
        await link.ours.send(message)
        assert await link.theirs.recv() == message


@pairs()
async def test_many_messages_keep_their_order(pair: Pair) -> None:
    messages = [f"message {number}" for number in range(200)]
    async with pair.connected({"compression": {}}, {"compression": {}}) as link:
        for sender, receiver in ((link.ours, link.theirs), (link.theirs, link.ours)):
            for message in messages:
                await sender.send(message)
            assert [await receiver.recv() for _ in messages] == messages


PARTS: list[list[Any]] = [["Gr", "ü", "", "ße 🌊"], [b"\x00" * 70_000, b"\xff", b""]]


def heads(frames: list[Frame]) -> list[tuple[bool, int]]:
    return [(frame.fin, frame.opcode) for frame in frames]


async def check_fragments(pair: Pair, sender: str, parts: list[Any], compression: Any) -> None:
    whole = ("" if isinstance(parts[0], str) else b"").join(parts)
    both = {"compression": compression}
    async with pair.connected(both, both) as link:
        receiver: End = link.theirs if sender == "ours" else link.ours
        for _ in range(2):  # the second is compressed with the first as context
            await getattr(link, sender).fragments(parts)
            assert await receiver.recv() == whole
        side = pair.our_side if sender == "ours" else pair.their_side
        frames = link.wire.messages(side)
        assert [frame.opcode for frame in frames if frame.opcode] == [TEXT if isinstance(whole, str) else BINARY] * 2
        assert sum(frame.fin for frame in frames) == 2
        assert len(frames) >= 2 * len(parts)
        assert any(frame.rsv == 4 for frame in frames) == (compression is not None)
        assert not any(frame.rsv == 4 for frame in frames if frame.opcode == CONTINUATION)


@pairs()
@pytest.mark.parametrize("compression", [None, {}], ids=["plain", "deflate"])
@pytest.mark.parametrize("parts", PARTS, ids=["text", "binary"])
async def test_our_fragments(pair: Pair, parts: list[Any], compression: Any) -> None:
    await check_fragments(pair, "ours", parts, compression)


@pairs("fragments")
@pytest.mark.parametrize("compression", [None, {}], ids=["plain", "deflate"])
@pytest.mark.parametrize("parts", PARTS, ids=["text", "binary"])
async def test_their_fragments(pair: Pair, parts: list[Any], compression: Any) -> None:
    await check_fragments(pair, "theirs", parts, compression)


@pairs()
async def test_our_ping(pair: Pair) -> None:
    async with pair.connected() as link:
        for data in (b"from tidegate", b"x" * 125):
            await link.ours.ping(data)


@pairs("ping")
async def test_their_ping(pair: Pair) -> None:
    async with pair.connected() as link:
        for data in (b"to tidegate", b"x" * 125):
            await link.theirs.ping(data)


# Compression: what is asked for by one side, agreed on, and kept to, as seen on the wire.

ASKED = {"default": {}, "no-context-takeover": {"no_context_takeover": True}, "window-bits": {"window_bits": 10}}
# It costs about 1,000 bytes, or next to none after the same text if the sender's window of more than 2,000 is kept.
HEX = random.Random(2).randbytes(1000).hex()


def agreed(wire: Relay) -> dict[str, str]:
    """The parameters of permessage-deflate in the response."""
    name, *params = (part.strip() for part in wire.header("server", "Sec-WebSocket-Extensions").split(";"))
    assert name == "permessage-deflate"
    return {key: value for key, _, value in (param.partition("=") for param in params)}


def check_agreed(wire: Relay, compression: dict[str, Any], asking: Side) -> None:
    """What was asked for is there; of what clients do, only the server has the last word (RFC 7692 section 7.1)."""
    found = agreed(wire)
    if "no_context_takeover" in compression:
        assert "server_no_context_takeover" in found
        assert "client_no_context_takeover" in found or asking == "client"
    if "window_bits" in compression:
        assert found["server_max_window_bits"] == "10"
        if asking == "server" and "client_max_window_bits" in wire.header("client", "Sec-WebSocket-Extensions"):
            assert found["client_max_window_bits"] == "10"


async def check_used(link: Link, pair: Pair, modest: Side | None = None) -> None:
    """Both directions compress, and do not refer to what the other side may have forgotten.

    A client that asked to be modest itself (`modest`) is so, even if the server does not care.
    """
    found = agreed(link.wire)
    for sender, receiver, side in ((link.ours, link.theirs, pair.our_side), (link.theirs, link.ours, pair.their_side)):
        for _ in range(3):
            await sender.send(HEX)
            assert await receiver.recv() == HEX
        first, *later = link.wire.messages(side)
        assert first.rsv == 4
        assert all(frame.rsv == 4 for frame in later)
        assert len(first.payload) < 0.7 * len(HEX)
        if f"{side}_no_context_takeover" in found or int(found.get(f"{side}_max_window_bits", 15)) < 11:
            assert all(len(frame.payload) > 0.4 * len(HEX) for frame in later)
        elif sender is link.ours and side != modest:  # others may forget more than they must
            assert all(len(frame.payload) < 100 for frame in later)


@pairs()
@pytest.mark.parametrize("compression", ASKED.values(), ids=ASKED)
async def test_compression_as_we_ask(pair: Pair, compression: dict[str, Any]) -> None:
    async with pair.connected({"compression": compression}, {"compression": {}}) as link:
        check_agreed(link.wire, compression, pair.our_side)
        await check_used(link, pair, pair.our_side if compression else None)


@pairs("parameters")
@pytest.mark.parametrize("compression", ASKED.values(), ids=ASKED)
async def test_compression_as_they_ask(pair: Pair, compression: dict[str, Any]) -> None:
    async with pair.connected({"compression": {}}, {"compression": compression}) as link:
        check_agreed(link.wire, compression, pair.their_side)
        await check_used(link, pair, pair.their_side if compression else None)


async def check_plain(pair: Pair, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    async with pair.connected(ours, theirs) as link:
        assert link.wire.header("server", "Sec-WebSocket-Extensions") == ""
        for sender, receiver in ((link.ours, link.theirs), (link.theirs, link.ours)):
            await sender.send(HEX)
            assert await receiver.recv() == HEX
        for side in BOTH:
            assert [frame.rsv == 4 for frame in link.wire.messages(side)] == [False]


@pairs()
async def test_compression_that_we_do_not_want(pair: Pair) -> None:
    await check_plain(pair, {}, {"compression": {}})


@pairs("plain")
async def test_compression_that_they_do_not_want(pair: Pair) -> None:
    await check_plain(pair, {"compression": {}}, {})


# The handshake.


@pairs()
@pytest.mark.parametrize(
    ("offered", "chosen"), [(["chat.v1"], "chat.v1"), (["chat.v1", "chat.v2"], "chat.v2")], ids=["one", "two"]
)
async def test_subprotocol(pair: Pair, offered: list[str], chosen: str) -> None:
    """Both sides know the subprotocol that was sent."""
    options = {"client": {"subprotocols": offered}, "server": {"subprotocols": ["chat.v2", "chat.v1"]}}
    async with pair.connected(options[pair.our_side], options[pair.their_side]) as link:
        assert link.wire.header("server", "Sec-WebSocket-Protocol") in offered
        assert link.ours.subprotocol == link.theirs.subprotocol == link.wire.header("server", "Sec-WebSocket-Protocol")


@pairs("headers")
async def test_headers(pair: Pair) -> None:
    """Additional headers reach the other side."""
    options = {
        "client": {"headers": {"X-Question": "tea or coffee?", "User-Agent": "interop/1"}},
        "server": {"headers": {"X-Answer": "tea, please"}},
    }
    async with pair.connected(options[pair.our_side], options[pair.their_side]) as link:
        received = {pair.our_side: link.ours.headers, pair.their_side: link.theirs.headers}
        assert received["server"]["x-question"] == "tea or coffee?"
        assert received["server"]["user-agent"] == "interop/1"
        assert received["client"]["x-answer"] == "tea, please"


@pairs(sides=("server",))
async def test_our_user_agent(pair: Pair) -> None:
    async with pair.connected() as link:
        assert f"tidegate/{version}" in link.theirs.headers["user-agent"]


@pairs("user")
async def test_password(pair: Pair) -> None:
    """Basic authentication refuses a missing and a wrong password with 401, and accepts the right one."""
    user = ["tea", "drinker"]
    options: dict[Side, Any] = {"client": {}, "server": {"user": user}}
    for given in (None, ["tea", "spiller"]):
        if given is not None:
            options["client"] = {"user": given}
        with pytest.raises(Rejected) as caught:
            async with pair.connected(options[pair.our_side], options[pair.their_side]):
                pass
        assert caught.value.status == 401
    options["client"] = {"user": user}
    async with pair.connected(options[pair.our_side], options[pair.their_side]) as link:
        await link.ours.send("in")
        assert await link.theirs.recv() == "in"


# The end.

REASONS = [(1000, ""), (3000, "enough"), (4999, "Grüße 🌊")]


@pairs()
@pytest.mark.parametrize(("code", "reason"), REASONS)
@pytest.mark.parametrize("closer", ["ours", "theirs"])
async def test_close(pair: Pair, closer: str, code: int, reason: str) -> None:
    """The code and reason of a close reach the other side, with one close frame each way."""
    async with pair.connected() as link:
        ends = {"ours": link.ours, "theirs": link.theirs}
        other = ends["theirs" if closer == "ours" else "ours"]
        closing, seen = await asyncio.gather(ends[closer].close(code, reason), other.recv())
        assert seen == Closed(code, reason)
        assert closing.code in (code, 1000)  # not everybody answers with the same
        for side in BOTH:
            assert [frame.opcode for frame in link.wire.frames(side)] == [8]


async def check_close_after_messages(sender: End, receiver: End) -> None:
    messages = [str(number) * 10_000 for number in range(10)]
    for message in messages:
        await sender.send(message)
    closing = asyncio.create_task(sender.close(4000, "done"))
    assert [await receiver.recv() for _ in messages] == messages
    assert await receiver.recv() == Closed(4000, "done")
    await closing


@pairs("late")
async def test_our_close_after_messages(pair: Pair) -> None:
    async with pair.connected() as link:
        await check_close_after_messages(link.ours, link.theirs)


@pairs()
async def test_their_close_after_messages(pair: Pair) -> None:
    async with pair.connected() as link:
        await check_close_after_messages(link.theirs, link.ours)


@pairs()
@pytest.mark.parametrize("compression", [None, {}], ids=["plain", "deflate"])
async def test_too_large_for_us(pair: Pair, compression: Any) -> None:
    both = {"compression": compression}
    async with pair.connected({**both, "max_size": 100_000}, both) as link:
        await link.theirs.send("x" * 100_000)
        assert await link.ours.recv() == "x" * 100_000
        await link.theirs.send("x" * 300_000)
        seen = await link.theirs.recv()
        assert isinstance(seen, Closed)
        assert seen.code == 1009


@pairs("max_size")
@pytest.mark.parametrize("compression", [None, {}], ids=["plain", "deflate"])
async def test_too_large_for_them(pair: Pair, compression: Any) -> None:
    both = {"compression": compression}
    async with pair.connected(both, {**both, "max_size": 100_000}) as link:
        await link.ours.send("x" * 300_000)
        seen = await link.ours.recv()
        assert isinstance(seen, Closed)
        assert seen.code == 1009

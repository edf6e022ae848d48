"""Shared compression: broadcasts and messages of one's own in turn, as every other library's decoder sees them.

A broadcast is compressed once, without context, for all; each connection's own messages have its own context, before
and after (RFC 7692 section 7.2.1 allows both). What must not live here: broadcast() itself (tests/asyncio).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.asyncio.ends import echo
from tests.interop.relay import Relay
from tests.interop.running import PEERS, Company, End
from tidegate.asyncio.server import Server, broadcast, serve
from tidegate.extensions.permessage_deflate import ServerPerMessageDeflateFactory

FAST = [name for name, kind in PEERS.items() if not kind.slow]
ROUNDS = 60
WORDS = ["a quick brown fox", "jumps over", "the lazy dog", "while", "seven wizards", "make", "toxic brew", "Grüße 🌊"]


@asynccontextmanager
async def joined(names: list[str], **options: Any) -> AsyncIterator[tuple[Server, dict[str, End], dict[str, Relay]]]:
    """A server that all have connected to with compression."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(echo, "127.0.0.1", 0, **options))
        company = await stack.enter_async_context(Company())
        ends, wires = {}, {}
        for name in names:
            peer = await company.invite(name)
            wires[name] = await stack.enter_async_context(Relay(server.sockets[0].getsockname()[1]))
            ends[name] = await peer.connect(wires[name].uri, compression={})
        yield server, ends, wires
        await asyncio.gather(*(end.close() for end in ends.values()))


def sentence(choose: random.Random) -> str:
    return " ".join(choose.choices(WORDS, k=choose.randrange(1, 300)))


async def check(names: list[str], **options: Any) -> None:
    choose = random.Random(3)
    async with joined(names, **options) as (server, ends, wires):
        assert len(server.connections) == len(names)
        for _ in range(ROUNDS):
            # From none to some of each, in any order, so that contexts end and begin at all times.
            for _ in range(choose.randrange(3)):
                message: str | bytes = sentence(choose)
                if choose.random() < 0.3:
                    message = message.encode()
                broadcast(server.connections, message)
                assert await asyncio.gather(*(end.recv() for end in ends.values())) == [message] * len(ends)
            for _ in range(choose.randrange(3)):
                own = [f"{name}: {sentence(choose)}" for name in ends]
                await asyncio.gather(*(end.send(text) for end, text in zip(ends.values(), own, strict=True)))
                assert await asyncio.gather(*(end.recv() for end in ends.values())) == own
        broadcasts = [sentence(choose) for _ in range(20)]
        for text in broadcasts:  # nobody waits in between
            broadcast(server.connections, text)
        for end in ends.values():
            assert [await end.recv() for _ in broadcasts] == broadcasts
        frames = [wire.messages("server") for wire in wires.values()]
        assert all(frame.rsv == 4 for found in frames for frame in found)
        assert all(found[-len(broadcasts) :] == frames[0][-len(broadcasts) :] for found in frames)  # the same bytes


PARAMETERS = {
    "default": {},
    "no-context-takeover": {"server_no_context_takeover": True},
    "window-bits": {"server_max_window_bits": 9},
}


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
async def test_python_clients(parameters: dict[str, Any]) -> None:
    await check(FAST, extensions=[ServerPerMessageDeflateFactory(**parameters)] if parameters else None)


@pytest.mark.slow
@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
async def test_everybody(parameters: dict[str, Any]) -> None:
    """A broadcast reaches clients of every library."""
    await check(list(PEERS), extensions=[ServerPerMessageDeflateFactory(**parameters)] if parameters else None)

"""Event loops that run in a callback of themselves, for test_stream_life.py: only asyncio's can be made to.

What must not live here: loops that do not nest.
"""

from __future__ import annotations

import asyncio

import nest_asyncio

from tests.core.transports import STREAM, Recording, bound, connect, connection, settle
from tests.support.patience import PATIENCE


def nesting() -> asyncio.AbstractEventLoop:
    """An asyncio loop that may run within itself."""
    loop = asyncio.new_event_loop()
    nest_asyncio.apply(loop)
    return loop


def in_a_callback() -> None:
    """It is served meanwhile: others of the same batch, whose events come once, and the end of another connection."""
    nested, protocols = nesting(), list[Recording]()

    def act(protocol: Recording) -> None:
        """Wait in the middle of a callback until all others have had their data, and one has ended."""
        if protocol in protocols[:2]:
            nested.run_until_complete(asyncio.wait_for(wait_for_others(protocol), PATIENCE))
            protocol.events.append(("waited",))

    async def wait_for_others(protocol: Recording) -> None:
        protocols[-1].transport.abort()
        await protocols[-1].happens("lost")
        for other in protocols[2:-1]:
            await other.receives(1)

    def factory() -> Recording:
        protocols.append(Recording(data=act))
        return protocols[-1]

    async def main() -> None:
        with bound() as sock:
            async with STREAM.serving(sock, factory):
                peers = [connect(sock.getsockname()) for _ in range(6)]
                await settle()
                assert len(protocols) == 6
                for peer in peers:
                    peer.sock.send(b"x")
                await settle()
                assert [event[0] for event in protocols[0].events] == ["made", "data", "waited"]
                assert [event[0] for event in protocols[1].events] == ["made", "data", "waited"]
                assert [protocol.names for protocol in protocols[2:-1]] == [["made", "data"]] * 3
                assert protocols[-1].names in (["made", "lost"], ["made", "data", "lost"])
                for peer in peers:
                    peer.close()
                for protocol in protocols:
                    await protocol.happens("lost")
                assert [protocol.faults for protocol in protocols] == [[]] * 6

    nested.run_until_complete(main())
    print("served")


def in_the_next_turn() -> None:
    """Those who stand in the same line as the one that runs it are served by it."""
    nested, protocols = nesting(), list[Recording]()

    def act(protocol: Recording) -> None:
        others = [other for other in protocols if other is not protocol]
        if not any(other.data for other in others):
            nested.run_until_complete(asyncio.wait_for(others[0].receives(1), PATIENCE))
            protocol.events.append(("waited",))

    async def main() -> None:
        async with (
            connection(STREAM, Recording(data=act)) as (first, one),
            connection(STREAM, Recording(data=act)) as (second, two),
        ):
            protocols.extend([first, second])
            for protocol, peer in ((first, one), (second, two)):
                protocol.transport.pause_reading()
                await settle()
                await peer.send(b"x")
                await settle()
            for protocol in protocols:
                protocol.transport.resume_reading()
            await settle()
            assert {event[0] for protocol in protocols for event in protocol.events} == {"made", "data", "waited"}

    nested.run_until_complete(main())
    print("served")

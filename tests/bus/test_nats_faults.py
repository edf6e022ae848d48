"""The engine nats:// when its server ends, forgets, stalls and comes late: all is complete, or told.

What must not live here: the contract (test_nats.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.bus.contract import POLICIES, Peer, numbers, payloads
from tests.bus.peers import Peers, publish, stored
from tests.support.nats_server import NatsServer, nats_cluster, nats_server
from tests.support.patience import PATIENCE
from tests.support.redis_server import Relay
from tidegate.bus import nats, nats_link
from tidegate.bus.bus import Bus
from tidegate.bus.nats import NatsBroker
from tidegate.bus.nats_link import NatsLink
from tidegate.bus.nats_url import parse
from tidegate.bus.nats_words import Words
from tidegate.bus.policies import Policies
from tidegate.channels import Channel, Gap
from tidegate.exceptions import BusDown, BusError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed at once, and streams are looked at all the time."""
    monkeypatch.setattr(nats_link, "SILENCE", 0.2)
    monkeypatch.setattr(nats, "LOOK", 0.05)
    monkeypatch.setattr(nats, "RETRY", (0.01, 0.1))


@pytest.fixture
async def links() -> AsyncIterator[Peers]:
    peers = Peers(NatsBroker)
    yield peers
    await peers.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def api(server: NatsServer, subject: str, **request: object) -> dict[str, object]:
    """Ask JetStream for something, as an operator does."""
    link = NatsLink(Words("operator", "o"), lambda *_: None)
    await link.open(f"127.0.0.1:{server.port}", parse(server.url))
    async with asyncio.timeout(PATIENCE):
        reply = await link.call(f"$JS.API.{subject}", json.dumps(request).encode())
    link.abort("done")
    await link.closed()
    answer: dict[str, object] = json.loads(reply.payload)
    return answer


# Servers that end.


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_with_its_folder_loses_and_doubles_nothing(
    number: signal.Signals, server: NatsServer, links: Peers
) -> None:
    one, two = await links.start(server.url), await links.start(server.url)
    (top,) = await one.broker.subscribe(["many:1"])
    assert top is not None
    task = asyncio.create_task(publish(two, "many:1", 1, 200))
    await one.until(50)
    server.end(number)
    await one.told("down")
    assert not task.done()
    for verb in (one.broker.subscribe(["h:2"]), one.broker.read("h:1", None), one.broker.beat({})):
        with pytest.raises(BusDown):
            await verb
    await one.broker.unsubscribe(["h:9"])
    (down,) = await one.publish("plain", b"")
    assert isinstance(down, BusDown)
    assert not down.uncertain
    await asyncio.to_thread(server.start)
    await one.told("down", "again")
    positions = await task
    assert {position.epoch for position in positions} == {top.epoch}
    assert [position.offset for position in positions] == sorted({position.offset for position in positions})
    assert await stored(one, "many:1", top) == numbers(1, 200)
    await publish(two, "many:1", 201, 201)
    await until(lambda: one.messages[-1].payload == b"201")
    got = [message.position for message in one.messages]
    assert got == sorted(set(got), key=lambda position: position.offset if position else 0)


@pytest.mark.usefixtures("quick")
async def test_a_restart_without_its_folder_is_another_epoch(server: NatsServer, links: Peers) -> None:
    one = await links.start(server.url)
    await one.broker.subscribe(["h:1"])
    old = (await publish(one, "h:1", 1, 15))[-1]
    server.end(signal.SIGKILL)
    await asyncio.to_thread(shutil.rmtree, server.store)
    await asyncio.to_thread(server.start)
    await one.told("again")
    top = await one.place("h:1")
    assert top.epoch != old.epoch
    part = await one.broker.read("h:1", old)
    assert (list(part.messages), part.top, part.complete) == ([], top, False)
    (new,) = await publish(one, "h:1", 16, 16)
    await until(lambda: one.messages[-1].payload == b"16")
    assert await one.place("h:1") == new  # nothing is left of what was known of the other epoch
    assert new.offset < old.offset
    assert await stored(one, "h:1", top) == [b"16"]


@pytest.mark.usefixtures("quick")
async def test_members_are_told_that_a_history_is_lost(server: NatsServer) -> None:
    channels = {"h:": Channel(history=20)}
    async with Bus(server.url, channels=channels) as bus, bus.subscribe("h:1") as messages:
        first = await bus.publish("h:1", "1")
        assert (await anext(messages)).position == first
        server.end(signal.SIGKILL)
        await asyncio.to_thread(shutil.rmtree, server.store)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(PATIENCE):
            gap = await anext(messages)
        assert isinstance(gap, Gap)
        assert (gap.after, gap.reason) == (first, "epoch")
        async with bus.subscribe("h:1", first) as again:
            assert again.joined.resumed == "failed"
        await bus.publish("h:1", "2")
        assert (await anext(messages)).gap is None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("notices", ["the publisher", "a look"])
async def test_a_stream_that_is_deleted_is_another_epoch(notices: str, server: NatsServer, links: Peers) -> None:
    one = await links.start(f"{server.url}/b")
    await one.broker.subscribe(["h:1"])
    old = (await publish(one, "h:1", 1, 3))[-1]
    assert (await api(server, "STREAM.DELETE.TG_b_h_3a"))["success"] is True
    if notices == "the publisher":
        (position,) = await publish(one, "h:1", 4, 4)
        assert position.epoch != old.epoch
    await one.told("down", "again")
    assert (await one.place("h:1")).epoch != old.epoch
    assert "TG_b_h_3a" in one.states[-2].reason or one.states[-2].reason == nats.AWAY
    await publish(one, "h:1", 5, 5)
    await until(lambda: one.messages[-1].payload == b"5")


@pytest.mark.usefixtures("quick")
async def test_what_a_server_has_lost_of_the_end_is_not_numbered_again(server: NatsServer, links: Peers) -> None:
    """As after a loss of power: the folder is as it was some messages ago."""
    one = await links.start(server.url)
    await one.broker.subscribe(["h:1"])
    early = (await publish(one, "h:1", 1, 3))[-1]
    server.end()
    await asyncio.to_thread(shutil.copytree, server.store, server.folder / "earlier")
    await asyncio.to_thread(server.start)
    await one.told("down", "again")
    late = (await publish(one, "h:1", 4, 6))[-1]
    await one.until(6)
    server.end(signal.SIGKILL)
    await asyncio.to_thread(shutil.rmtree, server.store)
    await asyncio.to_thread(shutil.copytree, server.folder / "earlier", server.store)
    await asyncio.to_thread(server.start)
    await one.told("down", "again", "down", "again")
    (after,) = await publish(one, "h:1", 7, 7)
    assert after.offset > late.offset + 1
    for place in (early, late):
        assert not (await one.broker.read("h:1", place)).complete
    part = await one.broker.read("h:1", None)
    assert payloads(part.messages) == [b"7"]


# Networks.


@pytest.mark.usefixtures("quick")
async def test_a_stalled_network_is_noticed_by_silence_and_mended(server: NatsServer, links: Peers) -> None:
    async with Relay(server.port) as relay:
        one, two = await links.start(f"nats://127.0.0.1:{relay.port}"), await links.start(server.url)
        (top,) = await one.broker.subscribe(["h:1"])
        relay.stall()
        await one.told("down")
        assert one.states[-1].reason == "nothing has come for 0.4 seconds, not even what this process published"
        await publish(two, "h:1", 1, 3)
        relay.go_on()
        await one.told("down", "again")
        assert await stored(one, "h:1", top) == numbers(1, 3)
        await publish(one, "h:1", 4, 4)
        await until(lambda: one.messages and one.messages[-1].payload == b"4")
        await one.broker.close()


@pytest.mark.usefixtures("quick")
async def test_a_stream_of_bytes_that_ends_anywhere_loses_and_doubles_nothing(server: NatsServer, links: Peers) -> None:
    async with Relay(server.port) as relay:
        one, two = await links.start(f"nats://127.0.0.1:{relay.port}"), await links.start(server.url)
        (top,) = await two.broker.subscribe(["many:1"])
        for index in range(8):
            relay.cut_after(17 + 37 * index)
            with contextlib.suppress(BusDown):
                await one.broker.subscribe([f"h:{index}"])
            await publish(one, "many:1", 5 * index + 1, 5 * index + 5)
        assert payloads(await two.until(40)) == numbers(1, 40)
        assert await stored(two, "many:1", top) == numbers(1, 40)
        assert len(one.states) > 8
        await one.broker.close()


@pytest.mark.usefixtures("quick")
async def test_what_was_missed_comes_and_what_cannot_come_is_told(server: NatsServer) -> None:
    channels = {"h:": Channel(history=20), "short:": Channel(history=3)}
    async with Relay(server.port) as relay:
        away = Bus(f"nats://127.0.0.1:{relay.port}", channels=channels)
        async with Bus(server.url, channels=channels) as bus, away:
            names = ("h:1", "short:1", "plain")
            async with contextlib.AsyncExitStack() as stack:
                readers = [await stack.enter_async_context(away.subscribe(name)) for name in names]
                for name, reader in zip(names, readers, strict=True):
                    await bus.publish(name, "0")
                    assert (await anext(reader)).data == "0"  # type: ignore[union-attr]
                relay.refuses = True
                relay.cut()
                await until(lambda: away.state.kind == "down")
                for number in range(1, 6):
                    for name in names:
                        await bus.publish(name, str(number))
                relay.refuses = False
                async with asyncio.timeout(PATIENCE):
                    assert [(await anext(readers[0])).data for _ in range(5)] == list("12345")  # type: ignore[union-attr]
                    gap = await anext(readers[1])
                    assert isinstance(gap, Gap)
                    assert gap.reason == "trimmed"
                    assert [(await anext(readers[1])).data for _ in range(3)] == list("345")  # type: ignore[union-attr]
                    gap = await anext(readers[2])
                    assert isinstance(gap, Gap)
                    assert gap.reason == "link"


async def test_a_server_that_is_not_there_may_be_later(tmp_path: Path, links: Peers) -> None:
    server = NatsServer(tmp_path / "nats")
    peer = Peer(NatsBroker(server.url, Policies(POLICIES)))
    with pytest.raises(BusDown, match=f"127.0.0.1:{server.port}: .*Connect call failed"):
        await peer.start()
    with pytest.raises(BusDown):
        await peer.broker.tops(["h:1"])
    try:
        await asyncio.to_thread(server.start)
        await peer.start()
        await peer.broker.subscribe(["h:1"])
        await peer.publish("h:1", b"a")
        assert await peer.payloads(1) == [b"a"]
        await peer.broker.close()
    finally:
        server.end()


async def test_one_of_several_servers_is_enough(server: NatsServer, links: Peers) -> None:
    absent = NatsServer(server.folder / "absent")
    for _ in range(4):
        peer = await links.start(f"nats://127.0.0.1:{absent.port},127.0.0.1:{server.port}")
        assert [state.kind for state in peer.states] == ["up"]


@pytest.mark.usefixtures("quick")
async def test_nothing_piles_up_while_a_server_is_away(server: NatsServer, links: Peers) -> None:
    one = await links.start(server.url)
    await one.broker.subscribe(["h:1", "plain"])
    server.end(signal.SIGKILL)
    await one.told("down")
    for _ in range(200):
        for channel in ("h:1", "plain"):
            (result,) = await one.publish(channel, bytes(2**19))
            assert isinstance(result, BusDown)
    broker = one.broker
    assert isinstance(broker, NatsBroker)
    assert broker._unacknowledged_bytes == 0
    assert broker._link is None


@pytest.mark.slow
async def test_a_server_that_stops_is_busy_and_then_down(
    server: NatsServer, links: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_link, "SILENCE", 1.0)
    one = await links.start(server.url)
    server.send(signal.SIGSTOP)
    results: list[object] = []
    for _ in range(40):
        results += await one.publish("h:1", bytes(2**19), wait=0.01)
    assert all(isinstance(result, BusError) for result in results)
    assert {type(result).__name__ for result in results} <= {"BusBusy", "BusDown"}
    await one.told("down")
    server.send(signal.SIGCONT)
    await one.told("down", "again")
    await publish(one, "h:1", 1, 1)


async def test_a_bus_that_is_refused_says_why(server: NatsServer) -> None:
    await api(server, "STREAM.CREATE.TG_b_h_3a", name="TG_b_h_3a", subjects=["tg.b.h.h_3a.>"], storage="file")
    with pytest.raises(BusError, match=r"the stream TG_b_h_3a stores .* and isn't one of tidegate's: delete it, or"):
        await Peer(NatsBroker(f"{server.url}/b", Policies(POLICIES))).start()
    kept = Peer(NatsBroker(f"{server.url}/c", Policies(POLICIES)))
    await kept.start()
    await kept.broker.close()
    with pytest.raises(BusError, match=r"is stored in file, and the URL says memory: delete it, or say storage=file"):
        await Peer(NatsBroker(f"{server.url}/c?storage=memory", Policies(POLICIES))).start()
    with pytest.raises(BusError, match=r"JetStream does not create the stream TG_d_\w+: "):
        await Peer(NatsBroker(f"{server.url}/d?replicas=3", Policies(POLICIES))).start()


@pytest.mark.slow
async def test_a_cluster_that_loses_a_server_goes_on(
    tmp_path: Path, links: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats, "RETRY", (0.05, 0.5))
    with nats_cluster(tmp_path / "nats") as servers:
        hosts = [f"127.0.0.1:{server.port}" for server in servers]

        async def start(first: int) -> Peer:
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        order = ",".join(hosts[first:] + hosts[:first])
                        return await links.start(f"nats://{order}/c?replicas=3")
                    except BusDown:  # it has no leader yet
                        await asyncio.sleep(0.2)

        one, two = await start(0), await start(1)
        (top,) = await one.broker.subscribe(["many:1"])
        await publish(two, "many:1", 1, 20)
        assert await stored(one, "many:1", top) == numbers(1, 20)
        part = await one.broker.read("many:1", None, 3)
        assert payloads(part.messages) == numbers(18, 20)
        assert (await one.broker.read("many:2", top)).complete
        task = asyncio.create_task(publish(two, "many:1", 21, 60))
        servers[0].end(signal.SIGKILL)
        await task
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    assert await stored(one, "many:1", top) == numbers(1, 60)
                    break
                except BusDown:
                    await asyncio.sleep(0.1)
        epoch = top.epoch if top is not None else ""
        assert {message.position.epoch for message in one.messages if message.position} == {epoch}

"""What is promised over Redis when servers end, forget, stall, are replaced, and when networks do.

What must not live here: what holds without failures (test_redis.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest

from tests.bus.contract import Peer, numbers, payloads
from tests.bus.peers import Peers, publish, stored
from tests.support.harness import ROOT
from tests.support.patience import PATIENCE
from tests.support.redis_server import RedisServer, Relay, Sentinel, ValkeyServer, free_port
from tidegate.bus import redis, redis_connection, redis_link
from tidegate.bus.base import Presence, Publication
from tidegate.bus.bus import Bus
from tidegate.bus.redis import RedisBroker
from tidegate.channels import Position
from tidegate.exceptions import BusBusy, BusDown, BusError

AOF = ("appendonly yes", "appendfsync no")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer("enable-debug-command yes") as server:
        yield server


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed at once."""
    monkeypatch.setattr(redis_link, "SILENCE", 0.2)


@pytest.fixture
async def links() -> AsyncIterator[Peers]:
    peers = Peers(RedisBroker)
    yield peers
    await peers.close()


# Servers that end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_with_its_log_loses_and_doubles_nothing(number: signal.Signals, links: Peers) -> None:
    with RedisServer(*AOF) as server:
        one = await links.start(server.url)
        (top,) = await one.broker.subscribe(["many:1"])
        assert top is not None
        task = asyncio.create_task(publish(one, "many:1", 1, 300))
        await one.until(50)
        server.end(number)
        await one.told("down")
        assert not task.done()
        server.start()
        await one.told("down", "again")
        positions = await task
        assert [position.epoch for position in positions] == [top.epoch] * 300
        assert await stored(one, "many:1", top) == numbers(1, 300)
        assert await publish(one, "many:1", 301, 301) == [Position(top.epoch, 301)]


async def test_a_restart_without_its_log_is_another_epoch(server: RedisServer, links: Peers) -> None:
    one = await links.start(server.url)
    await one.broker.subscribe(["h:1", "plain"])
    old = (await publish(one, "h:1", 1, 5))[-1]
    server.end(signal.SIGKILL)
    state = await one.told("down")
    assert state.reason.startswith("the connection to Redis has ended")
    with pytest.raises(BusDown, match=state.reason):
        await one.broker.tops(["h:1"])
    assert isinstance((await one.publish("plain", b""))[0], BusDown)
    assert isinstance((await one.publish("h:1", b"", wait=0.0))[0], BusDown)
    (waited,) = await one.publish("h:1", b"", wait=0.05)
    assert isinstance(waited, BusDown)
    assert not waited.uncertain
    server.start()
    assert (await one.told("down", "again")).generation == 2
    new = await one.place("h:1")
    assert (new.epoch != old.epoch, new.offset) == (True, 0)
    assert not (await one.broker.read("h:1", old)).complete
    # What was subscribed is subscribed.
    del one.messages[:]
    await one.publish("plain", b"a")
    await one.publish("h:1", b"b")
    assert sorted(await one.payloads(2)) == [b"a", b"b"]


async def test_a_server_that_is_not_there_and_comes_later(links: Peers) -> None:
    server = RedisServer()
    one = links.make(server.url)
    for _ in range(2):
        with pytest.raises(BusDown, match="no connection to Redis"):
            await one.start()
    assert one.states == []
    with pytest.raises(BusDown):
        await one.broker.publish([Publication("h:1", b"")], 1.0)
    with server:
        await one.start()
        await one.broker.subscribe(["h:1"])
        await one.publish("h:1", b"a")
        assert await one.payloads(1) == [b"a"]
        await one.broker.close()


async def test_memory_is_bounded_while_a_server_is_away(server: RedisServer, links: Peers) -> None:
    one = await links.start(server.url)
    server.end()
    await one.told("down")
    waiting = [asyncio.create_task(one.publish("h:1", bytes(2**20), wait=PATIENCE)) for _ in range(8)]
    await asyncio.sleep(0)
    assert isinstance((await one.publish("h:1", b"", wait=0.05))[0], BusBusy)
    server.start()
    results = [(await one_of_them)[0] for one_of_them in waiting]
    assert [result.offset for result in results if isinstance(result, Position)] == list(range(1, 9))


@pytest.mark.slow
async def test_it_is_closed_while_messages_wait_for_a_server(server: RedisServer, links: Peers) -> None:
    one = await links.start(server.url)
    server.end()
    await one.told("down")
    publishing = asyncio.create_task(one.publish("h:1", b"a", wait=PATIENCE))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE / 2):
        await asyncio.gather(one.broker.close(), one.broker.close())
        (result,) = await publishing
    assert isinstance(result, BusDown)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
async def test_a_process_that_is_busy_for_long_has_not_lost_its_link(
    server: RedisServer, links: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_connection, "DEADLINE", 0.3)
    one, two = await links.start(server.url), await links.start(server.url)
    await one.broker.subscribe(["h:1"])
    for number in range(3):
        asking = asyncio.create_task(one.broker.tops(["h:1"]))
        publishing = asyncio.create_task(two.publish("h:1", str(number).encode()))
        await asyncio.sleep(0.01)
        time.sleep(0.5)  # noqa: ASYNC251 - a handler that blocks
        with contextlib.suppress(BusDown):
            await asking
        await publishing
    await one.payloads(3)
    assert [state.kind for state in one.states] == ["up"]


@pytest.mark.slow
async def test_thousands_that_are_not_acknowledged_are_sent_again_at_once(server: RedisServer, links: Peers) -> None:
    one = await links.start(server.url)
    (top,) = await one.broker.tops(["many:1"])
    server.stop()
    batch = [Publication("many:1", b"%d" % number) for number in range(5000)]
    publishing = asyncio.create_task(one.broker.publish(batch, PATIENCE))
    await asyncio.sleep(0)
    server.end(signal.SIGKILL)
    await one.told("down")
    server.start()
    await one.told("down", "again")
    results = await publishing
    offsets = [result.offset for result in results if isinstance(result, Position)]
    assert top is not None
    assert offsets == list(range(1, 5001))


# Servers that forget.


async def test_what_was_flushed_is_another_epoch(server: RedisServer, links: Peers) -> None:
    one, two = await links.start(server.url), await links.start(server.url)
    await one.broker.subscribe(["h:1"])
    old = (await publish(two, "h:1", 1, 5))[-1]
    server.command("FLUSHALL")
    assert not (await one.broker.read("h:1", old)).complete
    (new,) = await two.publish("h:1", b"6")
    assert isinstance(new, Position)
    assert new.epoch != old.epoch
    assert (await one.until(6))[-1].position == new
    assert await stored(one, "h:1", Position(new.epoch, 0)) == [b"6"]


@pytest.mark.parametrize("key", ["m", "h"])
async def test_what_was_evicted_never_comes_back_under_old_numbers(key: str, server: RedisServer, links: Peers) -> None:
    """Redis evicts single keys: the meta data without the messages, or the messages alone."""
    one = await links.start(f"{server.url}?evicting=allow")
    old = (await publish(one, "h:1", 1, 5))[-1]
    server.command("DEL", f"tg:bus:{key}:h:1")
    assert not (await one.broker.read("h:1", Position(old.epoch, 2))).complete
    (new,) = await publish(one, "h:1", 6, 6)
    assert (new.epoch == old.epoch, new.offset) == ((True, 6) if key == "h" else (False, 1))
    assert payloads((await one.broker.read("h:1", None)).messages) == [b"6"]


async def test_a_floor_above_the_top_ends_the_epoch_and_a_client_above_it_does_not(
    server: RedisServer, links: Peers
) -> None:
    one, two = await links.start(server.url), await links.start(server.url)
    await one.broker.subscribe(["h:1"])
    await publish(two, "h:1", 1, 3)
    last = (await one.until(3))[-1].position
    assert last is not None
    # The tail is lost, as by a failover.
    server.command("HSET", "tg:bus:m:h:1", "s", 2)
    server.command("XDEL", "tg:bus:h:h:1", "3-0")
    three = await links.start(server.url)
    part = await three.broker.read("h:1", last)
    assert (list(part.messages), part.top, part.complete) == ([], Position(last.epoch, 2), False)
    (new,) = await one.publish("h:1", b"4")
    assert isinstance(new, Position)
    assert (new.epoch != last.epoch, new.offset) == (True, 1)
    assert payloads((await three.broker.read("h:1", None)).messages) == [b"4"]


async def test_scripts_that_were_flushed_are_sent_again_in_order(server: RedisServer, links: Peers) -> None:
    one, two = await links.start(server.url), await links.start(server.url)
    (top,) = await one.broker.subscribe(["many:1"])

    async def burst(peer: Peer, name: str) -> None:
        for start in range(0, 200, 10):
            batch = [Publication("many:1", f"{name}{number}".encode()) for number in range(start, start + 10)]
            results = await asyncio.gather(*(peer.broker.publish([each], PATIENCE) for each in batch))
            assert all(isinstance(result, Position) for (result,) in results)

    async def flush() -> None:
        for _ in range(30):
            await asyncio.to_thread(server.command, "SCRIPT", "FLUSH")

    await asyncio.gather(burst(one, "a"), burst(two, "b"), flush())
    got = await stored(one, "many:1", top)
    for name in "ab":
        assert [each for each in got if each.startswith(name.encode())] == [
            f"{name}{number}".encode() for number in range(200)
        ]
    assert [state.kind for state in one.states] == ["up"]
    assert len(got) == 400


async def test_a_full_server_refuses_and_takes_the_next_in_order(server: RedisServer, links: Peers) -> None:
    one = await links.start(server.url)
    await one.broker.subscribe(["h:1"])
    server.command("CONFIG", "SET", "maxmemory", 1)
    refused = await one.publish("h:1", b"1", b"2", b"3")
    assert all(isinstance(result, BusError) and not isinstance(result, BusDown) for result in refused)
    assert "OOM" in str(refused[0])
    server.command("CONFIG", "SET", "maxmemory", 0)
    assert [result.offset for result in await publish(one, "h:1", 4, 6)] == [1, 2, 3]
    assert payloads(await one.until(3)) == numbers(4, 6)
    assert [state.kind for state in one.states] == ["up"]


# Servers that cannot be used.


@pytest.mark.parametrize(
    ("options", "query", "words"),
    [
        (["maxmemory-policy allkeys-lru"], "", r"\(maxmemory-policy allkeys-lru\): set noeviction, or accept"),
        (["maxmemory-policy volatile-ttl"], "", "throws away what is stored"),
        (["cluster-enabled yes", f"cluster-port {free_port()}"], "", "is a node of a cluster"),
        (["requirepass secret"], "", "refuses the user or the password in the URL of the bus"),
        (["user default off", "user ada on >secret ~* resetchannels +@all"], "ada", "does not allow this user"),
    ],
)
async def test_a_server_that_cannot_be_used(options: list[str], query: str, words: str, links: Peers) -> None:
    with RedisServer(*options) as server:
        login = {"ada": "ada:secret@"}.get(query, "")
        with pytest.raises(BusError, match=words) as caught:
            await links.start(f"redis://{login}127.0.0.1:{server.port}")
        assert not isinstance(caught.value, BusDown)
        assert "secret" not in str(caught.value)


async def test_a_node_of_a_cluster_of_valkey_cannot_be_used_either(links: Peers) -> None:
    with (
        ValkeyServer("cluster-enabled yes", f"cluster-port {free_port()}") as server,
        pytest.raises(BusError, match="is a node of a cluster: a bus needs a server of its own"),
    ):
        await links.start(server.url)


async def test_passwords_and_databases(links: Peers) -> None:
    with RedisServer("requirepass p@ss") as server:
        one = await links.start(f"redis://:p%40ss@127.0.0.1:{server.port}/3")
        two = await links.start(f"redis://default:p%40ss@127.0.0.1:{server.port}/4")
        await one.broker.subscribe(["h:1", "plain"])
        for peer, payload in ((two, b"other"), (one, b"mine")):
            await peer.publish("h:1", payload)
            await peer.publish("plain", payload)
        assert await one.payloads(2) == [b"mine", b"mine"]
        assert await stored(two, "h:1") == [b"other"]
        await one.broker.close()
        await two.broker.close()


async def test_a_user_needs_what_the_guide_says(links: Peers) -> None:
    guide = (ROOT / "deploy" / "guides" / "channels.md").read_text(encoding="utf-8")
    found = re.search(r"access lists needs `([^`]+)`", guide)
    assert found is not None
    rules = " ".join(found[1].split())
    with RedisServer("user default off", f"user ada on >secret {rules}") as server:
        one = await links.start(f"redis://ada:secret@127.0.0.1:{server.port}/1?replicas=0")
        await one.broker.subscribe(["h:1", "plain"])
        await one.broker.publish([Publication("h:1", b"a", key="k"), Publication("plain", b"b")], 5.0)
        assert sorted(await one.payloads(2)) == [b"a", b"b"]
        assert await stored(one, "h:1") == [b"a"]
        await one.broker.beat({"h:1": Presence(1, {"ada": b"1"})})
        assert await one.broker.present("h:1") == Presence(1, {"ada": b"1"})
        await one.broker.unsubscribe(["h:1"])
        await one.broker.close()


async def test_a_policy_of_eviction_that_was_changed_is_noticed_at_the_next_link(
    server: RedisServer, links: Peers
) -> None:
    one = await links.start(server.url)
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    server.command("CLIENT", "KILL", "TYPE", "normal")
    await one.told("down")
    async with asyncio.timeout(PATIENCE):
        while "allkeys-lfu" not in str((await one.publish("plain", b""))[0]):
            await asyncio.sleep(0.01)
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await one.told("down", "again")


async def test_a_master_that_becomes_a_replica_is_no_server(server: RedisServer, links: Peers) -> None:
    with RedisServer() as other:
        one = await links.start(server.url)
        start = await one.place("h:1")
        server.command("REPLICAOF", "127.0.0.1", other.port)
        publishing = asyncio.create_task(one.publish("h:1", b"a", wait=PATIENCE))
        assert "READONLY" in (await one.told("down")).reason
        server.command("REPLICAOF", "NO", "ONE")
        await one.told("down", "again")
        (result,) = await publishing
        assert isinstance(result, Position)
        assert payloads((await one.broker.read("h:1", None)).messages) == [b"a"]
        assert start.epoch != result.epoch or result.offset == 1
        await one.broker.close()


@pytest.mark.slow
async def test_replicas_have_what_is_acknowledged(
    server: RedisServer, links: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "WAIT_MILLISECONDS", 100)
    one = await links.start(f"{server.url}?replicas=1")
    (alone,) = await one.publish("h:1", b"1", wait=PATIENCE)
    assert isinstance(alone, BusDown)
    assert str(alone) == (
        "the bus is down: 0 of 1 replicas have what is published; what was published may or may not be stored"
    )
    with RedisServer(f"replicaof 127.0.0.1 {server.port}") as replica:
        server.until(lambda: b"state=online" in server.command("INFO", "replication"))
        monkeypatch.setattr(redis, "WAIT_MILLISECONDS", 4000)
        results = await one.publish("h:1", *numbers(2, 20), wait=PATIENCE)
        assert [result.offset for result in results if isinstance(result, Position)] == list(range(2, 21))
        assert replica.command("XLEN", "tg:bus:h:h:1") == 20
        with pytest.raises(BusDown, match="is a slave, not the master"):
            await links.start(replica.url)


# Links that are lost.


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_a_connection_that_is_killed(kind: str, server: RedisServer, links: Peers) -> None:
    """Either of the two: what was published meanwhile is found, and what was subscribed comes."""
    one, two = await links.start(server.url), await links.start(f"{server.url}?evicting=allow")
    (top,) = await one.broker.subscribe(["h:1"])
    server.command("CLIENT", "KILL", "TYPE", kind)
    await one.told("down", "again")
    await publish(two, "h:1", 1, 3)
    assert await one.payloads(3) == numbers(1, 3)
    assert await stored(one, "h:1", top) == numbers(1, 3)


async def test_a_subscriber_that_the_server_cuts_off_for_its_queue_has_all(server: RedisServer, links: Peers) -> None:
    """Redis ends the connection of a subscriber that has too much to read, as of one message that is too large."""
    one, two = await links.start(server.url), await links.start(server.url)
    (top,) = await one.broker.subscribe(["many:1"])
    server.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 200kb 0 0")
    big = bytes(2**19)
    await two.publish("many:1", b"1", big, b"2")
    await one.told("down", "again")
    assert await stored(one, "many:1", top) == [b"1", big, b"2"]


@pytest.mark.slow
async def test_links_that_were_lost_leave_no_connections(server: RedisServer, links: Peers) -> None:
    one = await links.start(server.url)
    names = [f"h:{number}" for number in range(1500)]
    await one.broker.subscribe(names)
    process = psutil.Process()
    descriptors = process.num_fds()
    for generation in range(2, 8):
        server.command("CLIENT", "KILL", "TYPE", "pubsub" if generation % 2 else "normal")
        while (await one.told("down", "again")).generation < generation:
            await asyncio.sleep(0.01)
    listed = server.command("CLIENT", "LIST").decode().splitlines()
    ours = [line for line in listed if f"name=tidegate:{process.pid}:" in line]
    assert sorted("sub=1501" in line for line in ours) == [False, True]
    assert process.num_fds() <= descriptors + 1


async def test_sentinels_say_where_the_master_is(server: RedisServer, links: Peers) -> None:
    with Sentinel(server, "requirepass secret") as sentinel:
        away = "127.0.0.1:1"
        options = "sentinel_password=secret"
        one = await links.start(f"redis+sentinel://{away},127.0.0.1:{sentinel.port}/it/2?{options}")
        await one.broker.subscribe(["h:1"])
        await one.publish("h:1", b"a")
        assert await one.payloads(1) == [b"a"]
        assert server.command("DBSIZE") == 0  # all of it is in database 2
        for path, words in (("other?" + options, "master of other$"), ("it", "master of it")):
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{path}"
            with pytest.raises(BusDown, match=f"no sentinel of 127.0.0.1:{sentinel.port} knows a {words}"):
                await links.start(url)
        await one.broker.close()


@pytest.mark.usefixtures("quick")
async def test_a_stalled_network_is_noticed_by_silence_and_mended(server: RedisServer, links: Peers) -> None:
    async with Relay(server.port) as relay:
        one, two = await links.start(relay.url), await links.start(server.url)
        (top,) = await one.broker.subscribe(["h:1"])
        relay.stall()
        state = await one.told("down")
        assert state.reason == "nothing has come for 0.4 seconds, not even what this process published"
        await publish(two, "h:1", 1, 3)
        relay.go_on()
        await one.told("down", "again")
        assert await stored(one, "h:1", top) == numbers(1, 3)
        await publish(one, "h:1", 4, 4)
        assert (await one.payloads(1))[-1] == b"4"
        await one.broker.close()


@pytest.mark.usefixtures("quick")
async def test_a_server_that_takes_everything_and_delivers_nothing_is_no_server(
    server: RedisServer, links: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Relay(server.port) as relay:
        one = await links.start(relay.url)
        await one.broker.subscribe(["h:1"])
        relay.is_deaf = True
        monkeypatch.setattr(redis_link, "DEADLINE", 0.5)
        await one.told("down")
        async with asyncio.timeout(PATIENCE):
            while "does not deliver it" not in str((await one.publish("plain", b""))[0]):
                await asyncio.sleep(0.01)
        assert [state.kind for state in one.states] == ["up", "down"]
        relay.is_deaf = False
        await one.told("down", "again")
        await one.broker.close()


async def test_a_stream_that_ends_anywhere_loses_and_doubles_nothing(
    server: RedisServer, links: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "RETRY", (0.01, 0.02))
    async with Relay(server.port) as relay:
        one, two = await links.start(relay.url), await links.start(server.url)
        (top,) = await two.broker.subscribe(["many:1"])
        for index in range(12):
            relay.cut_after(17 + 31 * index)
            with contextlib.suppress(BusDown):
                await one.broker.subscribe([f"h:{index}"])
            await publish(one, "many:1", 5 * index + 1, 5 * index + 5)
        assert payloads(await two.until(60)) == numbers(1, 60)
        assert await stored(two, "many:1", top) == numbers(1, 60)
        assert len(one.states) > 12
        await one.broker.close()


@pytest.mark.parametrize("early", [3, 1000])
async def test_what_is_missing_is_told_where_it_is_missing(
    early: int, server: RedisServer, links: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a channel without history, in which messages come all the time: while the link is made again, too."""
    monkeypatch.setattr(redis, "EARLY", early)
    monkeypatch.setattr(redis, "RETRY", (0.01, 0.02))
    two = await links.start(server.url)
    stop = asyncio.Event()

    async def publish() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await two.publish("plain", str(number).encode())
            await asyncio.sleep(0)

    async with Relay(server.port) as relay, Bus(relay.url) as bus, bus.subscribe("plain") as messages:
        publishing = asyncio.create_task(publish())
        last, gaps = 0, 0
        async with asyncio.timeout(PATIENCE):
            while gaps < 5:
                message = await anext(messages)
                if message.gap is not None:
                    gaps, last = gaps + 1, 0
                    continue
                number = int(message.data)
                assert last in (0, number - 1)
                last = number
                if number % 50 == 0:
                    relay.cut()
        stop.set()
        await publishing


@pytest.mark.slow
async def test_a_slow_network_is_no_failure(server: RedisServer, links: Peers) -> None:
    async with Relay(server.port) as relay:
        relay.delay = 0.3
        one = await links.start(relay.url)
        (top,) = await one.broker.subscribe(["h:1"])
        results = await asyncio.gather(*(one.publish("h:1", each) for each in numbers(1, 20)))
        assert [result.offset for (result,) in results if isinstance(result, Position)] == list(range(1, 21))
        assert await one.payloads(20) == numbers(1, 20)
        assert await stored(one, "h:1", top) == numbers(1, 20)
        assert [state.kind for state in one.states] == ["up"]
        await one.broker.close()


async def test_another_server_with_other_messages_under_the_same_numbers(server: RedisServer, links: Peers) -> None:
    """A partition: each side has gone on for itself, and this process has seen what is thrown away."""
    async with Relay(server.port) as relay:
        one = await links.start(relay.url)
        await one.broker.subscribe(["h:1", "h:2"])
        old = (await publish(one, "h:1", 1, 3))[-1]
        same = (await publish(one, "h:2", 1, 3))[-1]
        await one.until(6)
        with RedisServer(f"replicaof 127.0.0.1 {server.port}") as other:
            other.until(lambda: b"master_link_status:up" in other.command("INFO", "replication"))
            other.command("REPLICAOF", "NO", "ONE")
            await publish(one, "h:1", 4, 5)
            await one.until(8)
            two = await links.start(other.url)
            await publish(two, "h:1", 104, 110)
            relay.to = other.port
            relay.cut()
            await one.told("down", "again")
            assert (await one.place("h:1")).epoch != old.epoch
            assert await one.place("h:2") == same
            for place in (old, Position(old.epoch, 5)):
                assert not (await two.broker.read("h:1", place)).complete
            assert await stored(two, "h:2", Position(same.epoch, 1)) == numbers(2, 3)
            await one.broker.close()
            await two.broker.close()


@pytest.mark.slow
async def test_a_server_that_sleeps(server: RedisServer, links: Peers) -> None:
    one, two = await links.start(server.url), await links.start(server.url)
    (top,) = await one.broker.subscribe(["h:1"])
    sleep = asyncio.create_task(asyncio.to_thread(server.command, "DEBUG", "SLEEP", 7))
    await one.told("down")
    await sleep
    await one.told("down", "again")
    await publish(two, "h:1", 1, 3)
    assert await stored(one, "h:1", top) == numbers(1, 3)
    assert await one.payloads(3) == numbers(1, 3)


@pytest.mark.slow
async def test_a_failover_that_loses_the_end_is_told_and_never_has_other_content(links: Peers) -> None:
    with (
        RedisServer() as old,
        RedisServer(f"replicaof 127.0.0.1 {old.port}") as new,
        Sentinel(old) as sentinel,
    ):
        old.until(lambda: b"state=online" in old.command("INFO", "replication"))
        sentinel.until(lambda: int(dict_of(sentinel.command("SENTINEL", "MASTER", "it"))["num-slaves"]) == 1)
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/it"
        one, two = await links.start(url), await links.start(url)
        for peer in (one, two):
            await peer.broker.subscribe(["h:1", "h:2"])
        known = await publish(one, "h:1", 1, 5)
        kept = (await publish(one, "h:2", 1, 5))[-1]
        new.until(lambda: new.command("XLEN", "tg:bus:h:h:2") == 5)
        new.command("CONFIG", "SET", "masterauth", "none")  # it cannot connect again
        old.command("CLIENT", "KILL", "TYPE", "replica")
        known += await publish(one, "h:1", 6, 15)
        await two.until(20)
        old.end(signal.SIGKILL)
        for peer in (one, two):
            await peer.told("down", "again")
        assert sentinel.master() == new.port
        assert (await two.place("h:1")).epoch != known[0].epoch
        assert await two.place("h:2") == kept
        after = await publish(two, "h:1", 101, 110)
        for position in known:
            assert not (await one.broker.read("h:1", position)).complete
        # All that any of them has ever had under a number is one message.
        content: dict[tuple[str, Position | None], bytes] = {}
        for peer in (one, two):
            await peer.until(30)
            for message in peer.messages:
                assert content.setdefault((message.channel, message.position), message.payload) == message.payload
        assert [position.offset for position in after] == list(range(1, 11))
        await one.broker.close()
        await two.broker.close()


def dict_of(reply: list[bytes]) -> dict[str, str]:
    """Pairs of names and values."""
    texts = [each.decode() for each in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


async def test_nobody_waits_for_room_on_a_connection_that_has_ended() -> None:
    """What was not written when it ended does not count any more: publishers would ask again, without a pause."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, connection = await asyncio.get_running_loop().create_connection(
            redis_connection.Connection, *listener.getsockname()
        )
        while not connection.full:
            connection.send(lambda reply: None, b"ECHO", bytes(2**20))
        connection.fail("the test ends it")
        assert not connection.full
        async with asyncio.timeout(PATIENCE):
            await connection.wait_for_room()

"""The engine redis:// over a real redis-server: the contract of engines, and what is its own.

What must not live here: failures of servers and networks (test_redis_failures.py).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tests.bus.contract import POLICIES, Connect, Cuttable, Peer, payloads, peers
from tests.bus.contract import LinkContract as EngineContract
from tests.bus.engine_machine import check_engine
from tests.bus.peers import cuttable_by
from tests.support.patience import PATIENCE
from tests.support.redis_server import RedisServer, Relay, ValkeyServer, free_port
from tidegate.bus.base import Presence, Publication
from tidegate.bus.policies import Policies
from tidegate.bus.redis import RedisBroker
from tidegate.bus.redis_messages import RedisChannel, pack, unpack
from tidegate.bus.redis_url import parse
from tidegate.exceptions import BusDown, BusError

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def url(server: RedisServer) -> str:
    """The URL of a bus that nobody has used."""
    return f"{server.url}?bus=test{next(_numbers)}"


class TestContract(EngineContract):
    @pytest.fixture
    async def connect(self, url: str) -> AsyncIterator[Connect]:
        async with peers(lambda policies: RedisBroker(url, policies)) as connect:
            yield connect

    @pytest.fixture
    async def cuttable(self, server: RedisServer, url: str) -> AsyncIterator[Cuttable]:
        async with Relay(server.port) as relay:
            by_relay = url.replace(server.url, relay.url)
            yield cuttable_by(relay, lambda policies: RedisBroker(by_relay, policies))


@pytest.mark.slow
class TestContractOnValkey(TestContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[RedisServer]:
        with ValkeyServer() as server:
            yield server


def server_of(url: str) -> str:
    """The prefix of a bus's keys."""
    return f"tg:{url.partition('=')[2]}:"


async def test_what_makes_no_sense_is_dropped_and_complained_of_once(
    server: RedisServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with peers(lambda policies: RedisBroker(url, policies)) as connect:
        one = await connect()
        await one.broker.subscribe(["h:1"])
        for payload in (b"", b"hello", bytes(30), b"\x01" + bytes(17) + b"\xff\xff"):
            server.command("PUBLISH", f"{server_of(url)}c:h:1", payload)
        await one.publish("h:1", b"a")
        assert await one.payloads(1) == [b"a"]
        assert [state.kind for state in one.states] == ["up"]
    assert sum("not as they should be" in record.getMessage() for record in caplog.records) == 1


async def test_a_publisher_that_declares_other_channels_is_complained_of(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with peers(lambda policies: RedisBroker(url, policies)) as connect:
        one = await connect()
        await one.broker.subscribe(["h:1"])
        other = Peer(RedisBroker(url, Policies()))
        await other.start()
        assert await other.publish("h:1", b"a") == [None]
        assert await one.payloads(1) == [b"a"]
        await other.broker.close()
    assert "in h:1: it is not stored: its publisher declares other channels" in caplog.text


async def test_keys_of_what_is_over_end_by_themselves(server: RedisServer, url: str) -> None:
    async with peers(lambda policies: RedisBroker(url, policies)) as connect:
        one = await connect()
        await one.broker.subscribe(["h:1", "plain"])
        await one.broker.publish([Publication("h:1", b"a", key="k"), Publication("plain", b"b")], 5.0)
        await one.broker.beat({"h:1": Presence(1)})
        prefix = server_of(url)
        keys = [key.decode() for key in server.command("KEYS", f"{prefix}*")]
        kinds = sorted(key.removeprefix(prefix)[0] for key in keys)
        assert kinds == ["h", "k", "m", "n", "q", "s"]
        assert all(server.command("TTL", key) > 0 for key in keys)
        assert server.command("TTL", f"{prefix}m:h:1") == pytest.approx(86400, abs=PATIENCE)


async def test_long_names_large_messages_and_many_keys(url: str) -> None:
    async with peers(lambda policies: RedisBroker(url, policies)) as connect:
        one = await connect()
        name = "many:" + "☂" * 80
        (top,) = await one.broker.subscribe([name])
        big = bytes(range(256)) * 4096
        await one.publish(name, big, b"")
        assert await one.payloads(2) == [big, b""]
        assert list((await one.broker.read(name, top)).messages) == one.messages


async def test_a_publication_that_is_given_up_is_not_sent_again(server: RedisServer, url: str) -> None:
    """Its publisher has been told that it may be stored or not; sending it later would double the next attempt."""
    async with peers(lambda policies: RedisBroker(url, policies)) as connect:
        one = await connect()
        server.stop()
        (result,) = await one.publish("h:1", b"a", wait=0.05)
        assert isinstance(result, BusDown)
        assert result.uncertain
        broker = one.broker
        assert isinstance(broker, RedisBroker)
        assert (broker._unacknowledged, broker._unacknowledged_bytes) == ({}, 0)
        server.go_on()
        await one.publish("h:1", b"b")
        assert payloads((await one.broker.read("h:1", None)).messages) == [b"a", b"b"]


async def test_tls(tmp_path: Path) -> None:
    """The certificate is checked, against authorities of one's own if there are some."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    port = free_port()
    files = [f"tls-{kind} {tmp_path / name}" for kind, name in (("cert-file", "cert.pem"), ("key-file", "key.pem"))]
    with RedisServer(f"tls-port {port}", *files, "tls-auth-clients no", f"tls-ca-cert-file {tmp_path / 'ca.pem'}"):
        trusted = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        async with peers(lambda policies: RedisBroker(trusted, policies)) as connect:
            one = await connect()
            await one.broker.subscribe(["h:1"])
            await one.publish("h:1", b"a")
            assert await one.payloads(1) == [b"a"]
        for url in (f"rediss://localhost:{port}", trusted.replace("localhost", "127.0.0.1")):
            with pytest.raises(BusDown, match="certificate verify failed"):
                await Peer(RedisBroker(url, Policies())).start()
        with pytest.raises(BusError, match="the files of TLS in the URL of the bus cannot be used"):
            await Peer(RedisBroker(f"rediss://localhost:{port}?ssl_ca_certs=/nowhere", Policies())).start()


@pytest.mark.parametrize("examples", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_any_order_of_verbs(examples: int, server: RedisServer) -> None:
    def connecting() -> AbstractAsyncContextManager[Connect]:
        url = f"{server.url}?bus=test{next(_numbers)}"
        return peers(lambda policies: RedisBroker(url, policies))

    check_engine(connecting, examples)


@given(data=st.binary(max_size=64), version=st.booleans())
def test_foreign_bytes_are_a_message_or_a_clear_error(data: bytes, version: bool) -> None:
    channel = RedisChannel("h:1", parse("redis://localhost"), POLICIES["h:"])
    try:
        message = unpack(channel, b"\x01" + data if version else data)
    except (ValueError, struct.error):
        return
    assert message.channel == "h:1"
    assert message.payload in data


def test_a_message_is_read_as_it_was_packed() -> None:
    channel = RedisChannel("plain", parse("redis://localhost"), POLICIES["h:"])
    for publication in (
        Publication("plain", b"x" * 300, text=True, sender="w.1", json=True, exclude=True),
        Publication("plain", b""),
    ):
        message = unpack(channel, pack(publication))
        for name in ("channel", "payload", "text", "sender", "json", "exclude"):
            assert getattr(message, name) == getattr(publication, name)
        assert message.position is None

"""The engine nats:// with a server of its own: the contract of engines, and what is its own.

What must not live here: what a server's end leaves (test_nats_faults.py).
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import nkeys
import pytest
import trustme

from tests.bus.contract import POLICIES, Connect, Cuttable, Peer, payloads, peers
from tests.bus.contract import LinkContract as EngineContract
from tests.bus.engine_machine import check_engine
from tests.bus.peers import cuttable_by
from tests.support.coroutines import until
from tests.support.nats_jwt import Operator
from tests.support.nats_server import NatsServer, nats_server
from tests.support.redis_server import Relay
from tidegate.bus import nats, nats_streams
from tidegate.bus.bus import Bus
from tidegate.bus.nats import NatsBroker
from tidegate.bus.nats_streams import MARKS, Api
from tidegate.bus.nats_words import encode
from tidegate.bus.policies import Policies
from tidegate.channels import Channel, Position
from tidegate.exceptions import BusDown, BusError, MessageTooBig

BUSES = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def url(server: NatsServer) -> str:
    """The URL of a bus that no other test has."""
    return f"{server.url}/b{next(BUSES)}"


async def started(url: str) -> Peer:
    peer = Peer(NatsBroker(url, Policies(POLICIES)))
    await peer.start()
    return peer


class TestContract(EngineContract):
    @pytest.fixture
    async def connect(self, url: str) -> AsyncIterator[Connect]:
        async with peers(lambda policies: NatsBroker(url, policies)) as connect:
            yield connect

    @pytest.fixture
    async def cuttable(self, server: NatsServer, url: str) -> AsyncIterator[Cuttable]:
        async with Relay(server.port) as relay:
            by_relay = url.replace(server.url, f"nats://127.0.0.1:{relay.port}")
            yield cuttable_by(relay, lambda policies: NatsBroker(by_relay, policies))


def test_any_order_of_verbs(server: NatsServer) -> None:
    def connecting() -> AbstractAsyncContextManager[Connect]:
        url = f"{server.url}/b{next(BUSES)}"
        return peers(lambda policies: NatsBroker(url, policies))

    check_engine(connecting, 10)


async def test_settings_of_a_stream_follow_the_policy(url: str) -> None:
    for channels in ({"h:": Channel(history=5)}, {"h:": Channel(history=9, keep=60.0)}):
        broker = NatsBroker(url, Policies(channels))
        peer = Peer(broker)
        await peer.start()
        stream = broker._streams["h:"]
        info = await stream.look(Api(broker._linked()))
        assert {name: info.config[name] for name in stream.wanted()} == stream.wanted()
        assert info.config["max_msgs_per_subject"] == channels["h:"].history + 1
        await peer.publish("h:1", b"a")
        await peer.broker.close()
    assert len({broker._streams["h:"].epoch}) == 1


async def started_with(url: str, policy: Channel, *, in_force: bool = True) -> Peer:
    """A process with this policy."""
    policies = Policies({"h:": policy})
    policies.in_force = in_force
    peer = Peer(NatsBroker(url, policies))
    await peer.start()
    return peer


async def test_what_is_stored_later_tells_how_much_is_missing(url: str) -> None:
    """Once a policy has become longer, before nobody knows, after it everybody."""
    await (await started_with(url, Channel(history=3))).broker.close()
    peer = await started_with(url, Channel(history=20))
    (late,) = await peer.publish("h:other", b"x")
    after = await peer.publish("h:new", *(b"%d" % number for number in range(5)))
    assert isinstance(late, Position)
    part = await peer.broker.read("h:new", late)
    assert (part.complete, len(part.messages), part.top) == (True, 5, after[-1])
    await peer.broker.close()


async def test_a_process_that_may_never_serve_throws_nothing_away(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a worker of a reload that fails; once it serves, its policy holds."""
    monkeypatch.setattr(nats, "LOOK", 0.05)
    serving = await started_with(url, Channel(history=20, keep=1000))
    await serving.publish("h:1", *(b"%d" % number for number in range(10)))
    booting = await started_with(url, Channel(history=2, keep=10), in_force=False)
    assert len((await serving.broker.read("h:1", None)).messages) == 10
    assert len((await booting.broker.read("h:1", None)).messages) == 2
    booting.broker._policies.in_force = True
    stream = booting.broker._streams["h:"]
    await until(lambda: stream.is_exact)
    info = await stream.look(Api(booting.broker._linked()), stream.subject + encode("h:1"))
    assert (info.config["max_msgs_per_subject"], list(info.subjects.values())) == (3, [3])
    for peer in (serving, booting):
        await peer.broker.close()


async def test_a_place_where_a_channel_has_nothing_is_a_place(url: str) -> None:
    """All channels of a policy are in one stream: what others publish moves no position, and loses none."""
    one, two = await started(url), await started(url)
    (empty,) = await one.broker.subscribe(["h:empty"])
    for number in range(60):
        await two.publish(f"h:{number % 2}", b"%d" % number)  # what is stored of these is not all of it
    assert await one.place("h:empty") == empty
    (elsewhere,) = await two.broker.subscribe(["h:empty"])
    assert empty is not None
    assert elsewhere is not None
    assert elsewhere.offset == empty.offset + 60
    for peer, place in ((one, elsewhere), (two, empty)):
        part = await peer.broker.read("h:empty", place)
        assert (list(part.messages), part.complete) == ([], True)
        assert part.top.offset >= place.offset
    positions = await two.publish("h:empty", b"a", b"b")
    for place in (empty, elsewhere):
        part = await one.broker.read("h:empty", place)
        assert (payloads(part.messages), part.complete, part.top) == ([b"a", b"b"], True, positions[-1])
    (first, second) = await one.until(2)
    assert one.broker.follows(elsewhere, first)
    assert not one.broker.follows(empty, second)
    for peer in (one, two):
        await peer.broker.close()


async def test_members_resume_where_a_channel_has_nothing(url: str) -> None:
    channels = {"h:": Channel(history=20)}
    async with Bus(url, channels=channels) as one, Bus(url, channels=channels) as two:
        async with one.subscribe("h:empty") as messages:
            early = messages.joined.position
        for number in range(50):
            await two.publish("h:other", str(number))
        async with two.subscribe("h:empty") as messages:
            late = messages.joined.position
            assert late != early
            for bus in (one, two):
                for since in (early, late):
                    async with bus.subscribe("h:empty", since) as again:
                        assert (again.joined.resumed, again.joined.missed) == ("full", 0)
            await one.publish("h:empty", "a")
            assert (await anext(messages)).data == "a"  # type: ignore[union-attr]
        for since in (early, late):
            async with two.subscribe("h:empty", since) as again:
                assert (again.joined.resumed, again.joined.missed) == ("full", 1)


async def test_a_place_before_all_that_is_stored_is_incomplete(url: str) -> None:
    """Something may have been stored after it and be too old by now."""
    one = await started(url)
    start = await one.place("h:1")
    await one.publish("h:0", b"a")
    await one.publish("h:1", b"b")
    broker = one.broker
    assert isinstance(broker, NatsBroker)
    api, stream = Api(broker._linked()), broker._streams["h:"]
    assert (await one.broker.read("h:1", start)).complete
    top = await one.place("h:1")
    await api.ask(f"STREAM.PURGE.{stream.name}", {"seq": top.offset + 1})  # as age does
    for channel in ("h:1", "h:2"):
        part = await one.broker.read(channel, start)
        assert (list(part.messages), part.top, part.complete) == ([], top, False)
    await one.publish("h:1", b"c")
    part = await one.broker.read("h:1", start)
    assert (payloads(part.messages), part.complete) == ([b"c"], False)
    await one.broker.close()


async def test_marks_prove_that_nothing_was_too_old(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await started(url)
    broker = one.broker
    assert isinstance(broker, NatsBroker)
    api, stream = Api(broker._linked()), broker._streams["h:"]
    top = (await stream.look(api)).last
    for _ in range(2):
        await stream.mark(api)
        assert (await stream.look(api)).last == top == 1  # the one of its beginning is new
    now = time.time()
    monkeypatch.setattr(nats_streams.time, "time", lambda: now)
    for number in range(2, MARKS + 3):
        now += stream._age / MARKS
        for _ in range(2):
            await stream.mark(api)
            assert (await stream.look(api)).last == number
    await one.broker.close()


async def test_a_message_that_the_server_does_not_take(url: str) -> None:
    one = await started(url)
    for channel in ("h:1", "plain"):
        small, large = await one.publish(channel, b"", bytes(2**22))
        assert not isinstance(small, BusError)
        assert isinstance(large, MessageTooBig)
        assert str(2**22) in str(large)
    await one.broker.close()


async def test_messages_of_other_programs(url: str) -> None:
    """They are taken, if they can be."""
    one = await started(url)
    await one.broker.subscribe(["plain", "h:1"])
    broker = one.broker
    assert isinstance(broker, NatsBroker)
    link, words, stream = broker._linked(), broker._words, broker._streams["h:"]
    link.publish(words.plain("plain"), b"\xff")
    link.publish(stream.live + encode("h:1"), b"not from the stream")
    link.publish(stream.subject + encode("h:1"), b"stored")
    link.publish(words.presence, b"nonsense")
    messages = await one.until(2)
    assert {message.payload for message in messages} == {b"\xff", b"stored"}
    assert payloads((await one.broker.read("h:1", None)).messages) == [b"stored"]
    await one.broker.close()


async def test_without_jetstream_there_is_no_history(tmp_path: Path) -> None:
    with nats_server(tmp_path / "nats", jetstream=False) as server:
        words = r"channels with history \('h:'\) need JetStream: it is not enabled in the server, which the option -js"
        with pytest.raises(BusError, match=words):
            await Peer(NatsBroker(server.url, Policies({"h:": Channel(history=1)}))).start()
        async with Bus(server.url) as one, Bus(server.url) as two, one.subscribe("plain") as messages:
            assert await two.publish("plain", "a") is None
            assert (await anext(messages)).data == "a"  # type: ignore[union-attr]
            await two.close_members("plain")  # the bus's own channel works, too


# Who one is.


@pytest.mark.parametrize(
    ("settings", "user", "other"),
    [
        ('authorization { user: u, password: "p/:" }', "u:p%2F%3A@", "u:secret@"),
        ("authorization { token: tok }", "tok@", "secret@"),
    ],
)
async def test_users_and_tokens(tmp_path: Path, settings: str, user: str, other: str) -> None:
    with nats_server(tmp_path / "nats", [settings]) as server:
        for who in (other, ""):
            with pytest.raises(BusError, match=r"NATS does not let this user in: .*Authorization Violation") as caught:
                await Peer(NatsBroker(server.url.replace("//", f"//{who}"), Policies())).start()
            assert not isinstance(caught.value, BusDown)
            assert "secret" not in str(caught.value)
        async with Bus(server.url.replace("//", f"//{user}")) as bus:
            await bus.publish("plain", "a")


async def test_a_user_with_an_nkey(tmp_path: Path) -> None:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    file = tmp_path / "seed"
    file.write_bytes(seed)
    with nats_server(tmp_path / "nats", [f"authorization {{ users: [ {{ nkey: {public} }} ] }}"]) as server:
        with pytest.raises(BusError, match="does not let this user in"):
            await Peer(NatsBroker(server.url, Policies())).start()
        async with Bus(f"{server.url}?nkey={file}") as bus:
            await bus.publish("plain", "a")


async def test_users_with_credentials_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rights that the guide names are enough; who has others, or is of another operator, is told."""
    operator = Operator()
    files = {
        "guide": operator.account.credentials(
            tmp_path / "guide", pub={"allow": ["tg.room.>", "$JS.API.>"]}, sub={"allow": ["tg.room.>"]}
        ),
        "few": operator.account.credentials(tmp_path / "few", pub={"allow": ["tg.room.>"]}),
        "old": operator.account.credentials(tmp_path / "old", expires=1),
        "other": Operator().account.credentials(tmp_path / "other"),
    }
    with nats_server(tmp_path / "nats", operator.settings) as server:

        def bus(name: str) -> Bus:
            return Bus(f"{server.url}/room?creds={files[name]}", channels={"h:": Channel(history=3)})

        async with bus("guide") as one, bus("guide") as two, two.subscribe("h:1") as messages:
            for number in range(5):
                await one.publish("h:1", number)
                assert (await anext(messages)).data == str(number)  # type: ignore[union-attr]
            assert [message.data for message in await two.history("h:1")] == ["4", "3", "2"]
            assert await one.members("h:1") == 1
        for name in ("old", "other"):
            with pytest.raises(BusError, match=r"NATS does not let this user in: .*Authorization Violation"):
                await bus(name).start()
        monkeypatch.setattr(nats_streams, "DEADLINE", 0.5)
        with pytest.raises(BusDown, match=r'0\.5 seconds: permissions violation for publish to "\$js\.api\.'):
            await bus("few").start()


async def test_a_server_with_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca")
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    tls = f'tls {{ cert_file: "{tmp_path}/cert", key_file: "{tmp_path}/key" }}'
    with nats_server(tmp_path / "nats", [tls]) as server:
        at = f"localhost:{server.port}"
        async with Bus(f"tls://{at}?ca={tmp_path}/ca") as bus:
            await bus.publish("plain", "a")
        with pytest.raises(BusDown, match="certificate verify failed"):
            await Peer(NatsBroker(f"tls://{at}", Policies())).start()


async def test_a_server_without_tls_hears_no_password(server: NatsServer) -> None:
    broker = NatsBroker(f"tls://u:secret@127.0.0.1:{server.port}", Policies())
    with pytest.raises(BusDown, match="the server does not require TLS, and tls:// does"):
        await Peer(broker).start()


async def test_what_a_user_may_not_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats, "DEADLINE", 0.5)
    user = 'authorization { users: [ { user: u, password: p, permissions: { subscribe: "other.>" } } ] }'
    with (
        nats_server(tmp_path / "nats", [user]) as server,
        pytest.raises(BusDown, match=r'permissions violation for subscription to "tg\.tidegate\.w\.'),
    ):
        await Peer(NatsBroker(server.url.replace("//", "//u:p@"), Policies())).start()

"""Tests of tidegate.asyncio.channel_handler: raw clients of the subprotocol, and what hooks decide.

What must not live here: tidegate.js in a browser (tests/browser), the encoding (tests/bus/test_envelope.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tidegate
from tests.asyncio.test_channels import served
from tests.support.patience import PATIENCE
from tidegate import (
    Channel,
    ChannelLimits,
    ConnectionClosed,
    Gap,
    Identity,
    InvalidStatus,
    Position,
    ServerConnection,
    channel_handler,
    connect,
)
from tidegate.asyncio import channel_handler as handler_module
from tidegate.bus.envelope import SUBPROTOCOL, Publish, decode_frame, encode_command
from tidegate.bus.sharing import current


def yes(*_: Any) -> bool:
    return True


@asynccontextmanager
async def channels(**options: Any) -> AsyncIterator[str]:
    """A server of a handler that lets everybody do everything, unless hooks are given."""
    hooks = {name: options.pop(name) for name in ("may_join", "may_publish", "then") if name in options}
    handler = channel_handler(**{"may_join": yes, "may_publish": yes, **hooks})
    async with served(handler, select_subprotocol=handler.select_subprotocol, **options) as url:
        yield url


class Client:
    """One that speaks the subprotocol by hand."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def send(self, command: Any) -> None:
        await self.connection.send(command if isinstance(command, str | bytes) else json.dumps(command))

    async def next(self) -> dict[str, Any]:
        """The next frame: what is in it."""
        async with asyncio.timeout(PATIENCE):
            message = await self.connection.recv()
        frame = decode_frame(message)
        fields = {name: getattr(frame, name) for name in frame.__struct_fields__}
        return {name: value for name, value in fields.items() if value is not None}

    async def ask(self, command: Any) -> dict[str, Any]:
        await self.send(command)
        return await self.next()

    async def closed(self) -> tuple[int | None, str | None]:
        """Read until the connection is closed; the code and the reason."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.connection.recv()
        return self.connection.close_code, self.connection.close_reason


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[Client]:
    async with connect(url, subprotocols=[SUBPROTOCOL], **options) as connection:
        assert connection.subprotocol == SUBPROTOCOL
        yield Client(connection)


# Joins.


async def test_many_channels_are_joined_in_one_command_and_answered_in_one_frame() -> None:
    async with channels() as url, client_of(url) as client:
        answer = await client.ask({"join": {"h:1": None, "h:2": "nonsense", "plain": None, " x": None}, "id": 7})
        assert answer["id"] == 7
        assert {name: found.get("resumed") or found["error"] for name, found in answer["joined"].items()} == {
            "h:1": "new",
            "h:2": "failed",
            "plain": "new",
            " x": "invalid channel",
        }
        assert answer["joined"]["h:1"]["at"].endswith(".0")
        assert "at" not in answer["joined"]["plain"]


async def test_who_comes_back_gets_what_it_missed_after_the_answer() -> None:
    async with channels() as url:
        async with client_of(url) as client:
            at = (await client.ask({"join": {"h:1": None}}))["joined"]["h:1"]["at"]
        for number in range(3):
            await tidegate.publish("h:1", {"n": number})
        await tidegate.publish("h:1", b"\xff\x00")
        async with client_of(url) as client:
            answer = await client.ask({"join": {"h:1": at}, "id": 0})
            assert answer == {"id": 0, "joined": {"h:1": {"at": at, "resumed": "full", "missed": 4}}}
            assert [await client.next() for _ in range(4)] == [
                {"c": "h:1", "o": 1, "d": {"n": 0}},
                {"c": "h:1", "o": 2, "d": {"n": 1}},
                {"c": "h:1", "o": 3, "d": {"n": 2}},
                {"c": "h:1", "o": 4, "d": b"\xff\x00"},
            ]


async def test_the_answer_comes_before_messages_that_come_at_once() -> None:
    async with channels() as url, client_of(url) as client:
        publishing = True

        async def publish() -> None:
            while publishing:
                await tidegate.publish("h:1", "x")
                await tidegate.publish("plain", "x")
                await asyncio.sleep(0)

        task = asyncio.create_task(publish())
        for round in range(10):
            frame = await client.ask({"join": {"h:1": None, f"h:new{round}": None, "plain": None}, "last": 2})
            joined: set[str] = set()
            while len(joined) < 3:
                if "joined" in frame:
                    joined |= frame["joined"].keys()
                else:
                    assert frame["c"] in joined
                frame = await client.next()
            await client.send({"leave": ["h:1", "plain"], "id": round})
            while (await client.next()).get("id") != round:
                pass
        publishing = False
        await task


async def test_the_latest_has_its_whole_position() -> None:
    async with channels() as url, client_of(url) as client:
        position = await tidegate.publish("latest:1", "first")
        await client.ask({"join": {"latest:1": None}})
        assert await client.next() == {"c": "latest:1", "at": str(position), "d": "first"}


async def test_who_left_gets_nothing_and_leaving_is_answered() -> None:
    async with channels() as url, client_of(url) as client:
        await client.ask({"join": {"h:1": None, "h:2": None}})
        assert await client.ask({"leave": ["h:1", "never"], "id": 2}) == {"id": 2}
        await tidegate.publish("h:1", "1")
        await tidegate.publish("h:2", "2")
        assert (await client.next())["d"] == "2"


async def test_a_connection_has_128_channels() -> None:
    async with channels() as url, client_of(url) as client:
        await client.ask({"join": {f"a{number}": None for number in range(100)}})
        joined = (await client.ask({"join": {f"b{number}": None for number in range(30)}}))["joined"]
        refused = [name for name, answer in joined.items() if answer.get("error") == "too many channels"]
        assert refused == ["b28", "b29"]
        await client.ask({"leave": ["a0"], "id": 1})
        assert (await client.ask({"join": {"b28": None}}))["joined"]["b28"]["resumed"] == "new"


async def test_gaps_are_told() -> None:
    async with channels() as url, client_of(url) as client:
        await client.ask({"join": {"h:1": None}})
        current()._topics._topics["h:1"].tell(Gap("h:1", Position("e", 1), Position("e", 5), "trimmed"))
        assert await client.next() == {"gap": "h:1", "from_": 2, "to": 5, "at": "e.5", "why": "trimmed"}


PRESENCE = {"chat:": Channel(presence=True, presence_grace=0), "plain": Channel()}


def by_path(websocket: ServerConnection, channel: str, since: str | None) -> Identity:
    """Whoever the path names."""
    assert websocket.request is not None
    return Identity(websocket.request.path[1:], {"nick": websocket.request.path[1:].title()})


async def test_members_are_told_who_is_there_and_who_comes_and_goes() -> None:
    async with channels(may_join=by_path, channels=PRESENCE) as url, client_of(f"{url}/ada") as ada:
        await ada.ask({"join": {"chat:1": None, "plain": None}})
        here = {"ada": {"nick": "Ada"}}
        assert await ada.ask({"presence": "chat:1", "id": 1}) == {"id": 1, "count": 1, "presence": here}
        assert await ada.ask({"presence": "plain", "id": 2}) == {"id": 2, "count": 1}
        async with client_of(f"{url}/bob") as bob:
            await bob.ask({"join": {"chat:1": None}})
            assert await ada.next() == {"in_": "chat:1", "m": "bob", "i": {"nick": "Bob"}}
            answer = await bob.ask({"presence": "chat:1", "id": 3})
            assert answer["presence"] == {**here, "bob": {"nick": "Bob"}}
        assert await ada.next() == {"out": "chat:1", "m": "bob"}


async def test_who_is_sent_away_by_the_server_was_there_all_the_time() -> None:
    async with channels(may_join=by_path, channels=PRESENCE) as url, client_of(f"{url}/ada") as ada:
        await ada.ask({"join": {"chat:1": None}})
        await ada.ask({"presence": "chat:1", "id": 1})
        async with client_of(f"{url}/bob") as bob:
            await bob.ask({"join": {"chat:1": None}})
            assert "in_" in await ada.next()
            member = next(member for member in current()._topics.members_of("chat:1") if member.sender[-2:] == ".2")
            member.close(1012, "restart")
            await bob.closed()
        async with client_of(f"{url}/bob") as bob:
            await bob.ask({"join": {"chat:1": None}})
        assert await ada.next() == {"out": "chat:1", "m": "bob"}


async def test_who_is_removed_is_told() -> None:
    async with channels(may_join=by_path, channels=PRESENCE) as url, client_of(f"{url}/ada") as ada:
        await ada.ask({"join": {"chat:1": None}})
        await tidegate.leave_members("chat:1", "ada")
        assert await ada.next() == {"left": "chat:1", "why": "removed"}
        assert await ada.ask({"presence": "chat:1", "id": 1}) == {"id": 1, "error": "denied"}
        assert await tidegate.presence("chat:1") == {}


async def test_more_members_than_are_listed_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with channels(may_join=by_path, channels=PRESENCE) as url, client_of(f"{url}/ada") as ada:
        await ada.ask({"join": {"chat:1": None}})
        await ada.ask({"presence": "chat:1", "id": 1})
        monkeypatch.setattr("tidegate.bus.presence.LISTED", 1)
        async with client_of(f"{url}/bob") as bob:
            await bob.ask({"join": {"chat:1": None}})
            assert await ada.next() == {"presence": "chat:1"}
            assert await ada.ask({"presence": "chat:1", "id": 2}) == {"id": 2, "count": 2}


async def test_members_are_counted_for_members() -> None:
    async with channels() as url, client_of(url) as client:
        assert await client.ask({"presence": "h:1", "id": 1}) == {"id": 1, "error": "denied"}
        await client.ask({"join": {"h:1": None}})
        assert await client.ask({"presence": "h:1", "id": 2}) == {"id": 2, "count": 1}


async def test_the_end_of_a_connection_leaves_all() -> None:
    async with channels() as url:
        async with client_of(url) as client:
            await client.ask({"join": {"h:1": None}})
            assert await tidegate.members("h:1") == 1
        async with asyncio.timeout(PATIENCE):
            while await tidegate.members("h:1"):
                await asyncio.sleep(0.01)


async def test_frames_are_made_once_for_all_members_and_beside_raw_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidegate.asyncio import enveloped

    made = []
    frame = enveloped.message_frame
    monkeypatch.setattr(enveloped, "message_frame", lambda *args: made.append(args) or frame(*args))

    async def raw(websocket: ServerConnection) -> None:
        await websocket.join("h:1")
        await websocket.send("joined")
        await websocket.wait_closed()

    async with (
        channels(then=raw) as url,
        client_of(url) as one,
        client_of(url) as two,
        client_of(url, compression=None) as three,
        connect(url) as other,
    ):
        assert await other.recv() == "joined"
        for client in (one, two, three):
            await client.ask({"join": {"h:1": None}})
        await tidegate.publish("h:1", {"a": 1})
        await tidegate.publish("h:1", b"\x00")
        for client in (one, two, three):
            assert [await client.next(), await client.next()] == [
                {"c": "h:1", "o": 1, "d": {"a": 1}},
                {"c": "h:1", "o": 2, "d": b"\x00"},
            ]
        assert [await other.recv(), await other.recv()] == ['{"a":1}', b"\x00"]
        assert len(made) == 2


# Publications.


async def test_publications_are_answered_with_their_positions() -> None:
    async with channels() as url, client_of(url) as client:
        epoch = (await client.ask({"join": {"h:1": None}, "id": 0}))["joined"]["h:1"]["at"].partition(".")[0]
        await client.send({"publish": "h:1", "data": {"a": [1, None]}, "id": 5})
        await client.send({"publish": "h:1", "data": "text", "id": 6})
        await client.send(encode_command(Publish("h:1", b"\x01", id=7)))
        frames = [await client.next() for _ in range(6)]
        assert [frame for frame in frames if "id" in frame] == [
            {"id": number + 4, "at": f"{epoch}.{number}"} for number in (1, 2, 3)
        ]
        assert [frame["d"] for frame in frames if "c" in frame] == [{"a": [1, None]}, "text", b"\x01"]
        assert await client.ask({"publish": "plain", "data": 1, "id": 8}) == {"id": 8}


async def test_a_key_publishes_once_and_is_not_that_of_the_application() -> None:
    async with channels() as url, client_of(url) as client:
        command = {"publish": "h:1", "data": 1, "key": "k", "id": 1}
        first = await client.ask(command)
        assert await client.ask(command) == first
        position = await tidegate.publish("h:1", "mine", key="k")
        assert str(position) != first["at"]
        assert len(await tidegate.history("h:1")) == 2


async def test_what_cannot_be_published_is_told_and_the_connection_goes_on() -> None:
    async with channels() as url, client_of(url) as client:
        assert await client.ask({"publish": "tg:x", "data": 1, "id": 1}) == {"id": 1, "error": "invalid channel"}
        assert await client.ask({"publish": "", "data": 1}) == {"error": "invalid channel"}
        assert await client.ask({"wave": "hello", "id": 2}) == {"id": 2, "error": "unknown command"}
        assert "at" in await client.ask({"publish": "h:1", "data": 1, "id": 3})


# Hooks.


async def test_without_hooks_all_is_denied() -> None:
    async with channels(may_join=None, may_publish=None) as url, client_of(url) as client:
        assert await client.ask({"join": {"h:1": None}}) == {"joined": {"h:1": {"error": "denied"}}}
        assert await client.ask({"publish": "h:1", "data": 1, "id": 1}) == {"id": 1, "error": "denied"}
        assert await tidegate.history("h:1") == []


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_hooks_are_asked_of_each_channel(asynchronous: bool) -> None:
    asked: list[Any] = []

    def decide(websocket: ServerConnection, channel: str, what: Any) -> Any:
        asked.append((channel, what))
        return {"h:yes": True, "h:no": False, "h:fails": None}.get(channel, "other")

    async def later(websocket: ServerConnection, channel: str, what: Any) -> Any:
        await asyncio.sleep(0)
        return decide(websocket, channel, what)

    hook = later if asynchronous else decide
    async with channels(may_join=hook, may_publish=hook) as url, client_of(url) as client:
        answer = await client.ask({"join": {"h:yes": "a.1", "h:no": None, "h:fails": None, "h:odd": None}})
        assert asked == [("h:yes", "a.1"), ("h:no", None), ("h:fails", None), ("h:odd", None)]
        assert [found.get("error") for found in answer["joined"].values()].count("denied") == 3
        assert answer["joined"]["h:yes"]["resumed"] == "failed"
        asked.clear()
        await client.send({"publish": "h:yes", "data": [1]})
        assert (await client.next())["d"] == [1]
        assert await client.ask({"publish": "h:no", "data": {"a": 1}, "id": 1}) == {"id": 1, "error": "denied"}
        await client.ask({"publish": "h:odd", "data": "mine", "id": 2})
        assert asked == [("h:yes", [1]), ("h:no", {"a": 1}), ("h:odd", "mine")]
        assert [message.data for message in await tidegate.history("h:odd")] == ["other"]


async def test_hooks_that_fail_or_take_too_long_deny(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler_module, "HOOK_TIMEOUT", 0.01)

    def fails(*_: Any) -> bool:
        raise LookupError("a database is away")

    async def never(*_: Any) -> bool:
        await asyncio.Event().wait()
        return True

    async with channels(may_join=fails, may_publish=never) as url, client_of(url) as client:
        assert await client.ask({"join": {"h:1": None}}) == {"joined": {"h:1": {"error": "denied"}}}
        assert await client.ask({"publish": "h:1", "data": 1, "id": 1}) == {"id": 1, "error": "denied"}
    assert "may_join failed, which denies" in log.text
    assert "a database is away" in log.text
    assert "may_publish failed, which denies" in log.text


async def test_what_a_hook_returns_and_cannot_be_published_is_denied_and_logged_once(
    log: pytest.LogCaptureFixture,
) -> None:
    async with channels(may_publish=lambda *_: {"a": object()}) as url, client_of(url) as client:
        for number in range(3):
            assert await client.ask({"publish": "h:1", "data": 1, "id": number}) == {"id": number, "error": "denied"}
    assert log.text.count("may_publish returned what cannot be published") == 1


@pytest.mark.parametrize("answer", [1, "yes", [True]])
async def test_only_true_lets_join(answer: Any, log: pytest.LogCaptureFixture) -> None:
    async with channels(may_join=lambda *_: answer) as url, client_of(url) as client:
        assert (await client.ask({"join": {"h:1": None}}))["joined"] == {"h:1": {"error": "denied"}}
    assert "may_join must return a bool or an Identity, not" in log.text


async def test_a_handler_may_join_channels_for_the_client_before() -> None:
    channels_of = channel_handler(may_join=yes)

    async def handler(websocket: ServerConnection) -> None:
        await websocket.join("h:user")
        await channels_of(websocket)

    async with (
        served(handler, select_subprotocol=channels_of.select_subprotocol) as url,
        client_of(url) as client,
    ):
        assert "h:user" in (await client.next())["joined"]
        assert "h:1" in (await client.ask({"join": {"h:1": None}}))["joined"]
        await tidegate.publish("h:user", "hello")
        assert (await client.next())["d"] == "hello"


async def test_messages_come_in_order_after_the_join_of_their_own_sender() -> None:
    async with channels() as url, client_of(url) as client:
        await client.send({"join": {"h:1": None}, "id": 1})
        await client.send({"publish": "h:1", "data": "mine"})
        assert (await client.next())["id"] == 1
        assert (await client.next())["d"] == "mine"


async def test_who_is_denied_a_channel_it_had_leaves_it() -> None:
    allowed = True

    async with channels(may_join=lambda *_: allowed) as url, client_of(url) as client:
        await client.ask({"join": {"h:1": None, "h:2": None}})
        allowed = False
        assert (await client.ask({"join": {"h:1": None}}))["joined"] == {"h:1": {"error": "denied"}}
        await tidegate.publish("h:1", "1")
        await tidegate.publish("h:2", "2")
        assert (await client.next())["d"] == "2"


async def test_the_application_joins_and_leaves_for_a_client_which_is_told() -> None:
    found: list[ServerConnection] = []

    def remember(websocket: ServerConnection, channel: str, since: Any) -> bool:
        found.append(websocket)
        return True

    async with channels(may_join=remember) as url, client_of(url) as client:
        await client.ask({"join": {"h:1": None}})
        joined = await found[0].join("h:2")
        assert await client.next() == {"joined": {"h:2": {"at": str(joined.position), "resumed": "new"}}}
        await found[0].leave("h:1", "never")
        assert await client.next() == {"left": "h:1", "why": "left"}
        await tidegate.publish("h:2", "here")
        assert (await client.next())["d"] == "here"
        await tidegate.close_members("h:2", 4001, "signed out")
        assert await client.closed() == (4001, "signed out")


# What makes no sense.


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("nonsense", 1007),
        ("[]", 1007),
        ('{"join": 1}', 1007),
        ('{"publish": "h:1"}', 1007),
        ('{"publish": "h:1", "data": 1e999}', 1007),
        (b"\xff", 1007),
        (b"\x03{}", 1007),
        (json.dumps({"join": dict.fromkeys(map(str, range(101)))}), 1008),
        (json.dumps({"leave": ["x" * 2**16]}), 1008),
        (json.dumps({"publish": "h:1", "data": 1, "key": "x" * 200}), 1008),
        (json.dumps({"publish": "h:1", "data": "x" * 2**20}), 1008),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_nonsense_closes(command: str | bytes, code: int) -> None:
    async with channels(max_size=2**21) as url, client_of(url) as client, client_of(url) as other:
        await client.send(command)
        assert (await client.closed())[0] == code
        assert "joined" in await other.ask({"join": {"h:1": None}})


async def test_a_client_without_the_subprotocol_is_rejected_unless_there_is_a_handler_for_it() -> None:
    async with channels() as url:
        with pytest.raises(InvalidStatus):
            async with connect(url):
                pass
    handler = channel_handler(may_join=yes)
    async with served(handler) as url, connect(url) as connection:
        assert await Client(connection).closed() == (1008, "missing subprotocol; expected tidegate.v1")


def test_hooks_are_functions() -> None:
    with pytest.raises(TypeError, match="may_join must be a function or None, not 'yes'"):
        channel_handler(may_join="yes")  # type: ignore[arg-type]


async def test_who_sends_more_than_20_commands_a_second_is_read_more_slowly() -> None:
    async with channels(channel_limits=ChannelLimits(commands=(20.0, 10))) as url, client_of(url) as client:
        begun = asyncio.get_running_loop().time()
        for number in range(20):
            await client.send({"leave": [], "id": number})
        assert [(await client.next())["id"] for _ in range(20)] == list(range(20))
        assert asyncio.get_running_loop().time() - begun > 0.45


NAMES = st.sampled_from(["h:1", "h:2", "latest:1", "plain", "denied", "", "tg:x", "\n", "x" * 300])
IDS = st.none() | st.integers(-1, 2**53)
DATA: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
COMMANDS = st.one_of(
    st.fixed_dictionaries({"join": st.dictionaries(NAMES, st.none() | st.text(max_size=9)), "id": IDS}),
    st.fixed_dictionaries({"leave": st.lists(NAMES, max_size=5), "id": IDS}),
    st.fixed_dictionaries({"publish": NAMES, "data": DATA, "id": IDS}),
    st.fixed_dictionaries({"presence": NAMES, "id": IDS}),
    st.dictionaries(st.sampled_from(["join", "leave", "publish", "data", "id", "last", "other"]), DATA, max_size=3),
).map(json.dumps) | st.binary(max_size=20)


async def obeyed(commands: list[str | bytes]) -> None:
    """Send commands, and see that the last is answered, or that the connection is closed with a code that says why."""
    last = 2**52 + 1
    async with (
        channels(may_join=lambda websocket, channel, since: channel != "denied") as url,
        client_of(url) as client,
    ):
        with contextlib.suppress(ConnectionClosed):
            for command in commands:
                await client.send(command)
            await client.send({"leave": [], "id": last})
        ids = []
        with contextlib.suppress(ConnectionClosed):
            while last not in ids:
                ids.append((await client.next()).get("id"))
        assert last in ids or client.connection.close_code in (1007, 1008)


@pytest.mark.parametrize("new_event_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(commands=st.lists(COMMANDS, max_size=8))
def test_whatever_clients_send_is_answered_or_closes(
    new_event_loop: Callable[[], asyncio.AbstractEventLoop], commands: list[str | bytes]
) -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(obeyed(commands))


# The script.


def test_the_script_is_a_response() -> None:
    response = tidegate.javascript()
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert response.headers["Content-Length"] == str(len(response.body or b""))
    assert b"export class Tidegate" in (response.body or b"")
    assert tidegate.javascript().headers is not response.headers

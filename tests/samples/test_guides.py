"""The programs of the guides, as they are there, with clients on two workers.

    migrating.md    the chat and the counter in their forms for several processes
    channels.md     applications, another process, and what a handler does

What must not live here: whether other blocks run at all (tests/deploy/test_guides.py).
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tidegate
from tests.support.harness import ROOT, Daemon, wait_until
from tests.support.patience import PATIENCE
from tidegate import Channel, ClientConnection, ServerConnection, Subprotocol, connect, serve


def program(guide: str, function: str) -> str:
    """The program of a guide that has a function of that name."""
    text = (ROOT / "deploy" / "guides" / guide).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if f"def {function}(" in block)
    return found


def functions(guide: str, function: str) -> SimpleNamespace:
    """What that program defines, in this process."""
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(program(guide, function), guide, "exec"), names)
    return SimpleNamespace(**names)


@asynccontextmanager
async def clients(daemon: Daemon, least: int, path: str = "", **options: Any) -> AsyncIterator[list[ClientConnection]]:
    """So many connections, and as many more as it takes until each worker has one."""
    async with AsyncExitStack() as stack:
        found: list[ClientConnection] = []
        while len(found) < least or not all(
            value for _, value in daemon.metrics().select("tidegate_connections", state="open")
        ):
            found.append(await stack.enter_async_context(connect(daemon.uri + path, **options)))
        yield found


async def received(client: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE):
        return json.loads(await client.recv())


@pytest.mark.slow
async def test_chat() -> None:
    """The chat reaches clients on both workers, with what was said before they came."""
    with Daemon(program("migrating.md", "chat"), target="application:app", workers=2) as daemon:
        async with clients(daemon, 4) as found:
            for nonsense in ("no JSON", "1", "{}"):
                await found[0].send(nonsense)
                assert await received(found[0]) == {"error": "Invalid message"}
            said = {"user": "Ann", "message": "hello"}
            await found[0].send(json.dumps(said))
            for client in found:
                assert await received(client) == said
            async with connect(daemon.uri) as later:
                assert await received(later) == said


class Counter:
    """A client of the counter: what it was told last of each kind."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._told: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def read(self) -> None:
        async for message in self._connection:
            event: dict[str, Any] = json.loads(message)
            kind = event.pop("type")
            self._told[kind] = next(iter(event.values()))
            self._changed.set()

    async def until(self, kind: str, value: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self._told.get(kind) != value:
                self._changed.clear()
                await self._changed.wait()

    async def click(self, action: str, times: int = 1) -> None:
        for _ in range(times):
            await self._connection.send(json.dumps({"action": action}))


@asynccontextmanager
async def counters(daemon: Daemon) -> AsyncIterator[list[Counter]]:
    """Clients of the counter on both workers, which read."""
    async with clients(daemon, 4) as connections, asyncio.TaskGroup() as group:
        found = [Counter(connection) for connection in connections]
        tasks = [group.create_task(client.read()) for client in found]
        yield found
        for task in tasks:
            task.cancel()


@pytest.mark.slow
async def test_counter() -> None:
    """Clients on both workers click at the same time, and no click is lost, nor when a worker and the hub die."""
    with Daemon(program("migrating.md", "counter"), target="application:app", workers=2) as daemon:
        async with counters(daemon) as found:
            async with asyncio.TaskGroup() as group:
                for client in found:
                    group.create_task(client.click("plus", 50))
                    group.create_task(client.click("minus", 20))
            value = 30 * len(found)
            for client in found:
                await client.until("users", len(found))
                await client.until("state", value)
            await found[0].click("times")
            await asyncio.to_thread(wait_until, lambda: "unsupported event" in daemon.log, "a line of the log")
        hub = next(pid for pid, title in daemon.titles().items() if title == "tidegate: hub")
        before = daemon.workers()
        for pid in (hub, before[0]):
            daemon.signal(signal.SIGKILL, pid)
        await asyncio.to_thread(wait_until, lambda: len({*daemon.workers()} - {before[0]}) == 2, "another worker")
        async with counters(daemon) as found:
            for client in found:
                await client.until("state", value)
            await found[0].click("minus")
            for client in found:
                await client.until("state", value - 1)
                await client.until("users", len(found))


@pytest.mark.slow
async def test_room() -> None:
    """The first program: what one says, clients on both workers hear, and who comes later, too."""
    with Daemon(program("channels.md", "handler"), target="application:app", workers=2) as daemon:
        async with clients(daemon, 4) as found:
            await found[0].send("hello")
            for client in found:
                assert await text_of(client) == "hello"
            async with connect(daemon.uri) as later:
                assert await text_of(later) == "hello"


async def text_of(client: ClientConnection) -> str:
    async with asyncio.timeout(PATIENCE):
        return str(await client.recv())


async def test_resumable() -> None:
    """A client of the handler that subscribes comes back with its position, and gets what it missed."""
    app = functions("channels.md", "resumable").app
    async with serve(app.handler, "127.0.0.1", 0, channels=app.channels) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(uri) as client:
            assert (await received(client))["resumed"] == "new"
            await client.send("one")
            said = await received(client)
            assert said["text"] == "one"
        for text in ("two", "three"):
            await tidegate.publish("chat:lobby", text)
        async with connect(f"{uri}?since={said['at']}") as client:
            assert await received(client) == {"resumed": "full", "at": said["at"]}
            assert [(await received(client))["text"] for _ in range(2)] == ["two", "three"]
        async with connect(f"{uri}?since=nonsense") as client:
            assert (await received(client))["resumed"] == "failed"


async def test_what_a_handler_does() -> None:
    """The pieces about joins, publications, and what there is do what the text says."""
    follow = functions("channels.md", "follow").follow
    publish_all = functions("channels.md", "publish_all").publish_all
    others = functions("channels.md", "look")
    handled = asyncio.Event()

    async def handler(websocket: ServerConnection) -> None:
        await follow(websocket, {"chat:7": "nonsense"})
        assert websocket.member is not None
        assert websocket.member.channels == ("price:X",)
        await websocket.join({"chat:lobby": None, "user:7": None})
        await publish_all(websocket)
        handled.set()
        await websocket.wait_closed()

    channels = {"chat:": Channel(history=60), "price:": Channel(history=1, recover="latest")}
    async with serve(handler, "127.0.0.1", 0, channels=channels) as server:
        client = await connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        got = [await text_of(client) for _ in range(4)]
        assert got == ["a text message", str(b"a binary message"), '{"text":"anything else becomes JSON"}', "paid"]
        async with asyncio.timeout(PATIENCE):
            await handled.wait()
        count, data = await others.look()
        assert count == 1
        assert data == ["paid", "to all but this one", got[2], b"a binary message", "a text message"]
        await others.sign_out("7")
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (4001, "signed out")


@pytest.mark.slow
async def test_the_subprotocol_and_another_process(tmp_path: Path) -> None:
    """The application for browsers, to a client that speaks as the table says; and a program that publishes to it."""
    announce = functions("channels.md", "announce").announce
    options = ("--control", str(tmp_path / "control.sock"))
    with Daemon(program("channels.md", "may_publish"), *options, target="application:app", workers=2) as daemon:
        async with connect(daemon.uri, subprotocols=[Subprotocol("tidegate.v1")]) as client:

            async def ask(command: dict[str, Any]) -> Any:
                await client.send(json.dumps(command))
                return await received(client)

            joined = await ask({"join": {"chat:lobby": None, "other": None}, "last": 50, "id": 1})
            assert joined["joined"]["other"] == {"error": "denied"}
            at = joined["joined"]["chat:lobby"]["at"]
            epoch = at.partition(".")[0]
            assert at == f"{epoch}.0"
            assert await ask({"publish": "chat:lobby", "data": "", "id": 2}) == {"id": 2, "error": "denied"}
            await announce(tmp_path / "control.hub", "hello")
            assert await received(client) == {"c": "chat:lobby", "o": 1, "d": {"text": "hello"}}
            answers = [await ask({"publish": "chat:lobby", "data": "hi", "id": 3}), await received(client)]
            assert {"c": "chat:lobby", "o": 2, "d": {"text": "hi"}} in answers
            assert {"id": 3, "at": f"{epoch}.2"} in answers
            assert await ask({"presence": "chat:lobby", "id": 4}) == {"id": 4, "count": 1}
            assert await ask({"leave": ["chat:lobby"], "id": 5}) == {"id": 5}


async def test_named() -> None:
    """The piece about members with names: one hears who comes, and who is removed."""
    guide = functions("channels.md", "named")
    async with serve(guide.app.handler, "127.0.0.1", 0, channels=guide.app.channels) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(uri, additional_headers={"X-User": "ada"}) as ada:
            async with asyncio.timeout(PATIENCE):
                while not await tidegate.presence("chat:lobby"):
                    await asyncio.sleep(0.01)
            async with connect(uri, additional_headers={"X-User": "bob"}):
                assert await text_of(ada) == "in bob"
                assert await tidegate.presence("chat:lobby") == {"ada": {"color": "red"}, "bob": {"color": "red"}}
                await guide.remove("bob")
                assert await text_of(ada) == "out bob"


async def test_the_test() -> None:
    """The test of an application passes."""
    await functions("channels.md", "test_all_hear_what_one_says").test_all_hear_what_one_says()

"""tidegate.js in Chromium: joins, positions, publications, and what it does when its socket closes.

The servers run here, on a thread of their own, so that tests can close and restart them. What must not live here: the
protocol as raw clients see it (tests/asyncio/test_channel_handler.py).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

import tidegate
from tests.support.harness import require
from tests.support.patience import PATIENCE
from tidegate import Channel, Gap, Identity, Position, ServerConnection, channel_handler, serve
from tidegate.bus.sharing import current

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

PAGE = b"<!doctype html><title>channels</title>"

# Opens a client; what it tells is in `log`, and `until` waits for something in it.
SCRIPT = """
    async (options) => {
        const { Tidegate } = await import("/tidegate.js");
        window.log = [];
        window.client = new Tidegate("/channels" + (options.user ?? ""), options);
        for (const type of ["open", "close", "joined", "failed", "gap", "left", "error", "in", "out"])
            client.addEventListener(type, ({ detail }) => log.push({ type, ...detail }));
        client.addEventListener("presence", ({ detail: { channel, members, count } }) => {
            log.push({ type: "presence", channel, members: members && Object.fromEntries(members), count });
        });
        window.take = (data, { channel, position }) => {
            const kept = client.positions.get(channel) ?? null;
            const plain = data instanceof ArrayBuffer ? [...new Uint8Array(data)] : data;
            log.push({ type: "message", data: plain, channel, position, kept });
        };
    }
"""


class Servers:
    """A loop on a thread, with one server at a time, on the same port.

    Attributes:
        commands: messages that clients of the server have sent, as text.
        handshakes: how many clients have come, and been let in.
        refusing: whether handshakes are refused.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.commands: list[str] = []
        self.handshakes: list[float] = []
        self.port = 0
        self._server: Any = None
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def call(self, function: Callable[[], Any]) -> Any:
        async def work() -> Any:
            return function()

        return self.run(work())

    def start(self) -> None:
        self.run(self._start())

    async def _start(self) -> None:
        handler = channel_handler(may_join=self._may_join, may_publish=lambda websocket, channel, data: channel != "no")
        self._server = await serve(
            handler,
            "127.0.0.1",
            self.port,
            channels={
                "h:": Channel(history=100),
                "latest:": Channel(history=1, recover="latest"),
                "chat:": Channel(presence=True, presence_grace=0),
            },
            select_subprotocol=handler.select_subprotocol,
            process_request=self._process_request,
            close_timeout=1,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def _may_join(self, websocket: ServerConnection, channel: str, since: str | None) -> bool | Identity:
        self.commands.append(f"{channel} {since}")
        assert websocket.request is not None
        user = websocket.request.path.partition("?")[2]
        return Identity(user, {"tab": user}) if user and channel.startswith("chat:") else channel != "no"

    def _process_request(self, connection: ServerConnection, request: tidegate.Request) -> tidegate.Response | None:
        if "Upgrade" in request.headers:
            self.handshakes.append(self.loop.time())
            return None
        if request.path == "/tidegate.js":
            return tidegate.javascript()
        headers = tidegate.Headers(
            {"Content-Type": "text/html", "Content-Length": str(len(PAGE)), "Connection": "close"}
        )
        return tidegate.Response(200, "OK", headers, PAGE)

    def stop(self, code: int = 1001) -> None:
        self.run(self._stop(code))

    async def _stop(self, code: int) -> None:
        if self._server is not None:
            self._server.close(code=code)
            await self._server.wait_closed()
            self._server = None

    def publish(self, channel: str, *messages: Any) -> str:
        positions = [self.run(tidegate.publish(channel, message)) for message in messages]
        return str(positions[-1])

    def close_connections(self, code: int, reason: str = "") -> None:
        async def work() -> None:
            for connection in self._server.connections:
                await connection.close(code, reason)

        self.run(work())

    def end(self) -> None:
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def servers() -> Iterator[Servers]:
    servers = Servers()
    servers.start()
    yield servers
    servers.end()


@pytest.fixture
def page(servers: Servers, context: BrowserContext) -> Page:
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{servers.port}/")
    page.evaluate(SCRIPT, {})
    return page


def until(page: Page, condition: str, timeout: float = PATIENCE) -> list[dict[str, Any]]:
    """Wait for a condition on `log`, and return what is in it."""
    page.wait_for_function(f"() => {condition}", timeout=timeout * 1000)
    found: list[dict[str, Any]] = page.evaluate("() => log")
    return found


def messages(log: list[dict[str, Any]]) -> list[Any]:
    return [entry["data"] for entry in log if entry["type"] == "message"]


def join(page: Page, *channels: str) -> list[dict[str, Any]]:
    page.evaluate("(channels) => channels.forEach((channel) => client.join(channel, take))", list(channels))
    return until(page, f"log.filter(({{type}}) => type === 'joined').length >= {len(channels)}")


def count(what: str, number: int) -> str:
    return f"log.filter(({{type}}) => type === '{what}').length >= {number}"


def test_many_joins_are_one_command_and_messages_come_with_their_positions(page: Page, servers: Servers) -> None:
    log = join(page, "h:1", "h:2", "plain")
    assert [entry["type"] for entry in log] == ["open", "joined", "joined", "joined"]
    assert [entry["resumed"] for entry in log[1:]] == ["new"] * 3
    at = servers.publish("h:1", {"a": [1]}, b"\x01\xff", "text")
    servers.publish("plain", "no history")
    log = until(page, count("message", 4))
    assert messages(log) == [{"a": [1]}, [1, 255], "text", "no history"]
    epoch = at.partition(".")[0]
    found = [(entry["position"], entry["kept"]) for entry in log if entry["type"] == "message"]
    assert found == [(f"{epoch}.{n}", f"{epoch}.{n}") for n in (1, 2, 3)] + [(None, None)]


def test_publications_resolve_with_positions_or_reject(page: Page, servers: Servers) -> None:
    join(page, "h:1")
    got = page.evaluate(
        """async () => [
            await client.publish("h:1", {a: 1}),
            await client.publish("h:1", new Uint8Array([0, 1, 2, 3]).subarray(1, 3)),
            await client.publish("h:1", new Uint8Array([7]).buffer),
            await client.publish("h:1", undefined),
            await client.publish("plain", "x"),
            await client.publish("no", 1).catch((error) => error.message),
            await client.publish("tg:x", 1).catch((error) => error.message),
            await client.publish("h:1", 1n).catch((error) => error.name),
            (await client.publish("h:1", 1, {key: "k"})) === (await client.publish("h:1", 2, {key: "k"})),
        ]"""
    )
    assert [found.partition(".")[2] for found in got[:4]] == ["1", "2", "3", "4"]
    assert got[4:] == [None, "denied", "invalid channel", "TypeError", True]
    assert messages(until(page, count("message", 5))) == [{"a": 1}, [1, 2], [7], None, 1]


def test_after_1001_it_comes_back_resumes_and_nothing_is_missing(page: Page, servers: Servers) -> None:
    join(page, "h:1", "h:2", "latest:1")
    servers.publish("h:1", 1, 2)
    until(page, count("message", 2))
    servers.commands.clear()
    servers.close_connections(1001, "going away")
    servers.publish("h:1", 3, 4)
    servers.publish("latest:1", "old", "new")
    log = until(page, f"{count('joined', 6)} && {count('message', 5)}")
    assert sorted(map(str, messages(log))) == ["1", "2", "3", "4", "new"]
    assert [entry["data"] for entry in log if entry.get("channel") == "h:1" and entry["type"] == "message"] == [
        1,
        2,
        3,
        4,
    ]
    assert [entry for entry in log if entry["type"] == "close"] == [
        {"type": "close", "code": 1001, "reason": "going away", "final": False}
    ]
    assert [command.partition(" ")[0] for command in servers.commands] == ["h:1", "h:2", "latest:1"]
    assert "failed" not in {entry["type"] for entry in log}


def test_a_restarted_server_without_its_history_is_failed_and_told(page: Page, servers: Servers) -> None:
    join(page, "h:1", "plain")
    servers.publish("h:1", 1)
    until(page, count("message", 1))
    servers.stop(1012)
    servers.start()
    log = until(page, count("joined", 4))
    failed = [entry for entry in log if entry["type"] == "failed"]
    assert [(entry["channel"], entry["resumed"]) for entry in failed] == [("h:1", "failed")]
    at = servers.publish("h:1", 2)
    log = until(page, count("message", 2))
    assert log[-1]["position"] == log[-1]["kept"] == at
    assert page.evaluate("() => client.positions.get('h:1')") == at


def test_a_gap_is_an_event_and_messages_go_on_after_it(page: Page, servers: Servers) -> None:
    join(page, "h:1")
    first = Position.parse(servers.publish("h:1", 1))
    gap = Gap("h:1", first, Position("other", 41), "epoch")
    servers.call(lambda: current()._topics._topics["h:1"].members.tell(gap))
    log = until(page, count("gap", 1))
    assert {**log[-1], "from": None, "to": None} == {
        "type": "gap",
        "channel": "h:1",
        "from": None,
        "to": None,
        "at": "other.41",
        "why": "epoch",
    }
    assert page.evaluate("() => client.positions.get('h:1')") == "other.41"
    servers.publish("h:1", 2)
    assert until(page, count("message", 2))[-1]["position"] == "other.2"


def test_what_is_denied_is_left(page: Page, servers: Servers) -> None:
    page.evaluate("() => { client.join('no', take); client.join('h:1', take); }")
    log = until(page, f"{count('left', 1)} && {count('joined', 1)}")
    assert {"type": "left", "channel": "no", "why": "denied"} in log
    servers.commands.clear()
    servers.close_connections(1012)
    until(page, count("joined", 2))
    assert [command.partition(" ")[0] for command in servers.commands] == ["h:1"]


@pytest.mark.parametrize("code", [1000, 1008, 4001])
def test_who_is_not_wanted_does_not_come_back(page: Page, servers: Servers, code: int) -> None:
    join(page, "h:1")
    servers.close_connections(code, "signed out")
    log = until(page, count("close", 1))
    assert log[-1] == {"type": "close", "code": code, "reason": "signed out", "final": True}
    assert page.evaluate("() => client.publish('h:1', 1).catch((error) => error.message)") == "closed"
    assert len(servers.handshakes) == 1


def test_what_was_being_published_when_the_server_went_is_sent_to_the_next(page: Page, servers: Servers) -> None:
    join(page, "h:1")
    servers.stop()
    until(page, count("close", 1))
    page.evaluate("() => { window.published = client.publish('h:1', 'kept'); }")
    servers.start()
    assert page.evaluate("() => published").endswith(".1")
    assert messages(until(page, count("message", 1))) == ["kept"]


def test_publishing_without_a_server_times_out_and_has_a_bound(page: Page, servers: Servers) -> None:
    servers.stop()
    until(page, count("close", 1))
    page.evaluate("() => { client.timeout = 100; }")
    got = page.evaluate(
        """async () => {
            const all = Array.from({length: 101}, () => client.publish("h:1", 1).catch((error) => error.message));
            return [...new Set(await Promise.all(all))];
        }"""
    )
    assert got == ["timeout", "busy"]


def test_it_waits_longer_and_longer(page: Page, servers: Servers) -> None:
    """The waits between attempts, with chance at its highest and time that is not waited for."""
    page.evaluate(
        """() => {
            window.waits = [];
            Math.random = () => 1;
            const real = window.setTimeout;
            window.setTimeout = (work, time) => { waits.push(time); return real(work, 10); };
        }"""
    )
    servers.stop(1012)
    # Chromium itself delays sockets to where others have failed.
    until(page, "waits.length >= 6")
    assert page.evaluate("() => waits.slice(0, 6)") == [2000, 4000, 8000, 16000, 30000, 30000]


def test_a_channel_that_was_left_gives_nothing(page: Page, servers: Servers) -> None:
    join(page, "h:1", "h:2")
    page.evaluate("() => client.leave('h:1')")
    page.evaluate("() => client.publish('h:1', 1)")
    page.evaluate("() => client.publish('h:2', 2)")
    assert messages(until(page, count("message", 1))) == [2]


def test_a_callback_that_fails_does_not_get_the_message_again(page: Page, servers: Servers) -> None:
    page.evaluate(
        "() => client.join('h:1', (data) => { take(data, {channel: 'h:1'}); if (data === 1) throw Error('x'); })"
    )
    until(page, count("joined", 1))
    servers.publish("h:1", 1)
    until(page, count("message", 1))
    servers.close_connections(1001)
    servers.publish("h:1", 2)
    assert messages(until(page, f"{count('message', 2)} && {count('joined', 2)}")) == [1, 2]


def test_joining_again_before_the_answer_gives_each_message_once(page: Page, servers: Servers) -> None:
    join(page, "h:1")
    servers.publish("h:1", 1)
    at = until(page, count("message", 1))[-1]["position"]
    page.evaluate(
        """async (since) => {
            for (let number = 2; number < 12; number++) {
                client.join("h:1", take, { since });
                await Promise.resolve();
                client.publish("h:1", number);
            }
        }""",
        at,
    )
    until(page, "log.some(({data}) => data === 11)")
    page.evaluate("() => client.publish('h:1', 'end')")
    log = until(page, "log.some(({data}) => data === 'end')")
    assert messages(log) == [*range(1, 12), "end"]


def test_who_is_here(page: Page, servers: Servers) -> None:
    """The list, and who comes and goes; of who is there before and after the page was away nothing is told."""
    page.evaluate("() => { client.close(); Math.random = () => 0; }")
    page.evaluate(SCRIPT, {"user": "?ada"})
    page.evaluate(
        """async () => {
            const { Tidegate } = await import("/tidegate.js");
            window.enter = (user) => {
                const other = new Tidegate("/channels?" + user);
                other.join("chat:1", () => 0);
                return other;
            };
            client.join("chat:1", take, { presence: true });
        }"""
    )
    log = until(page, count("presence", 1))
    ada, bob, eve = ({name: {"tab": name}} for name in ("ada", "bob", "eve"))
    assert log[-1] == {"type": "presence", "channel": "chat:1", "members": ada, "count": 1}
    page.evaluate("() => { window.bob = enter('bob'); }")
    log = until(page, count("presence", 2))
    assert log[-2:] == [
        {"type": "in", "channel": "chat:1", "member": "bob", "info": {"tab": "bob"}},
        {"type": "presence", "channel": "chat:1", "members": ada | bob, "count": 2},
    ]
    servers.close_connections(1012)  # and all come back
    until(page, count("joined", 2) + " && bob.members.get('chat:1').state === 'joined'")
    page.evaluate("() => { enter('eve'); }")
    log = until(page, count("presence", 3))
    assert [entry["member"] for entry in log if entry["type"] in ("in", "out")] == ["bob", "eve"]
    page.evaluate("() => bob.close()")
    log = until(page, count("out", 1) + " && " + count("presence", 4))
    assert log[-2:] == [
        {"type": "out", "channel": "chat:1", "member": "bob", "info": None},
        {"type": "presence", "channel": "chat:1", "members": ada | eve, "count": 2},
    ]
    servers.run(tidegate.leave_members("chat:1", "ada"))
    assert until(page, count("left", 1))[-1] == {"type": "left", "channel": "chat:1", "why": "removed"}


def test_more_than_are_listed(page: Page, servers: Servers) -> None:
    page.evaluate("() => client.join('chat:1', take, { presence: true })")
    until(page, count("presence", 1))

    def crowd() -> None:
        presences = current()._present._presences
        presences._crowd("chat:1", presences._views["chat:1"])

    servers.call(crowd)
    crowded = {"type": "presence", "channel": "chat:1", "members": None, "count": 1}
    assert until(page, count("presence", 2))[-1] == crowded


def test_close_is_final(page: Page, servers: Servers) -> None:
    join(page, "h:1")
    page.evaluate("() => client.close()")
    log = until(page, count("close", 1))
    assert log[-1] == {"type": "close", "code": 1000, "reason": "", "final": True}


SOURCE = files("tidegate.asyncio").joinpath("tidegate.js")


def test_the_script_has_at_most_120_lines() -> None:
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 120


def test_the_script_is_a_module_for_node_too(tmp_path: Path) -> None:
    require(shutil.which("node"), "node")
    with as_file(SOURCE) as path:
        shutil.copy(path, tmp_path / "tidegate.mjs")
    done = subprocess.run(
        ["node", "--check", tmp_path / "tidegate.mjs"], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, json.dumps(done.stderr)

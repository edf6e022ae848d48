"""Chromium's WebSocket against the daemon: the browser's own events, for text, binary, big messages and both closes.

What must not live here: the demo's page (test_demo.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.support.harness import Daemon

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

# A page of the same origin to run scripts on, an echo beside it; "close CODE REASON" makes the server close.
APPLICATION = """
    from tidegate import App

    async def handler(websocket):
        async for message in websocket:
            if isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                await websocket.close(int(code), reason)
            else:
                await websocket.send(message)

    def process_request(connection, request):
        if "Upgrade" not in request.headers:
            return connection.respond(200, "a page")

    app = App(handler, process_request=process_request, subprotocols=["second", "first"])
"""

# Opens a socket; `next()` is its next event, "message" with the data or "close" with code and reason.
SCRIPT = """
    async (protocols) => {
        const events = [], waiting = [];
        const tell = (event) => waiting.length ? waiting.shift()(event) : events.push(event);
        window.next = () => events.length ? events.shift() : new Promise((resolve) => waiting.push(resolve));
        window.socket = new WebSocket(`ws://${location.host}/`, protocols);
        socket.binaryType = "arraybuffer";
        socket.onopen = () => tell({type: "open", protocol: socket.protocol});
        socket.onmessage = ({data}) => tell({type: "message", data});
        socket.onclose = ({code, reason, wasClean}) => tell({type: "close", code, reason, wasClean});
        return await next();
    }
"""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon(APPLICATION, "--max-size", str(2**24), target="application:app", workers=2) as daemon:
        yield daemon


@pytest.fixture
def page(daemon: Daemon, context: BrowserContext) -> Page:
    """A page of the daemon's origin with an open WebSocket."""
    page = context.new_page()
    page.goto(f"http://{daemon.address}/")
    assert connect(page, "first") == {"type": "open", "protocol": "first"}
    return page


def connect(page: Page, *protocols: str) -> dict[str, Any]:
    """Open another WebSocket on the page; its first event."""
    event: dict[str, Any] = page.evaluate(SCRIPT, list(protocols))
    return event


def test_text(page: Page) -> None:
    """A browser's text comes back as it was, beyond ASCII too."""
    assert page.evaluate("async () => { socket.send('Grüße 🌊'); return (await next()).data }") == "Grüße 🌊"


def test_binary(page: Page) -> None:
    """A browser's binary message comes back with every value of a byte."""
    sent = list(range(256))
    script = "async (bytes) => { socket.send(new Uint8Array(bytes)); return [...new Uint8Array((await next()).data)] }"
    assert page.evaluate(script, sent) == sent


@pytest.mark.parametrize(
    "size", [126, 65536, *(pytest.param(size, marks=pytest.mark.slow) for size in (125, 65535, 10_000_000))]
)
def test_sizes(page: Page, size: int) -> None:
    """Messages of each size come back whole."""
    script = """async (size) => {
        const sent = new Uint8Array(size).map((_, index) => index * 31 >> 3);
        socket.send(sent);
        const got = new Uint8Array((await next()).data);
        return got.length === size && got.every((byte, index) => byte === sent[index]);
    }"""
    assert page.evaluate(script, size)


@pytest.mark.slow
def test_subprotocol_is_the_servers_choice(page: Page) -> None:
    assert connect(page, "first", "second") == {"type": "open", "protocol": "second"}


def test_browser_closes(page: Page) -> None:
    event = page.evaluate("async () => { socket.close(3000, 'enough'); return await next() }")
    assert event == {"type": "close", "code": 3000, "reason": "enough", "wasClean": True}


def test_server_closes(page: Page) -> None:
    event = page.evaluate("async () => { socket.send('close 4001 that will do'); return await next() }")
    assert event == {"type": "close", "code": 4001, "reason": "that will do", "wasClean": True}


@pytest.mark.slow
def test_too_big_is_1009(page: Page) -> None:
    event = page.evaluate("async () => { socket.send(new Uint8Array(2 ** 24 + 1)); return await next() }")
    assert event["code"] == 1009


def test_sigterm_is_1001(page: Page, daemon: Daemon) -> None:
    assert daemon.stop() == 0
    event = page.evaluate("async () => await next()")
    assert (event["type"], event["code"], event["wasClean"]) == ("close", 1001, True)

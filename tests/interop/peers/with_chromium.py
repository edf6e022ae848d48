"""Chromium as a peer: its pages' WebSockets.

A browser only connects. Its pages can neither ping nor set headers, and a password in their URI is not sent.
What must not live here: how Chromium is found and started (tests/browser/chromium.py), pages (tests/browser).
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack
from typing import Any

from playwright.async_api import Page, async_playwright

from tests.browser import chromium
from tests.interop.peers.program import Closed, Connection, Message, Program, Rejected, unpack

# Adds one of the page's `ends`; its `next()` is its next message or its end, in the form of pack().
OPEN = """
    ([uri, protocols]) => new Promise((resolve) => {
        const events = [], waiting = [];
        const tell = (event) => waiting.length ? waiting.shift()(event) : events.push(event);
        const socket = new WebSocket(uri, protocols);
        const end = {socket};
        window.ends = window.ends ?? [];
        const number = ends.push(end) - 1;
        end.next = () => events.length ? events.shift() : new Promise((told) => waiting.push(told));
        end.closed = new Promise((told) => end.tellClosed = told);
        socket.binaryType = "arraybuffer";
        socket.onopen = () => resolve({number, protocol: socket.protocol});
        socket.onmessage = ({data}) => {
            tell(typeof data === "string" ? {text: data} : {binary: new Uint8Array(data).toBase64()});
        };
        socket.onclose = ({code, reason}) => {
            tell({closed: [code, reason]});
            end.tellClosed([code, reason]);
            resolve(null);
        };
    })
"""
SEND = "([number, text]) => ends[number].socket.send(text)"
SEND_BINARY = "async ([number, url]) => ends[number].socket.send(await (await fetch(url)).arrayBuffer())"
CLOSE = """
    ([number, code, reason]) => {
        ends[number].socket.close(code, reason);
        return ends[number].closed;
    }
"""


class WebSocket(Connection):
    """One of the ends of a page."""

    def __init__(self, page: Page, number: int, subprotocol: str | None) -> None:
        self.page, self.number = page, number
        self.subprotocol = subprotocol
        self.headers = None  # pages are not told

    async def send(self, message: Message) -> None:
        if isinstance(message, str):
            await self.page.evaluate(SEND, [self.number, message])
        else:
            encoded = base64.b64encode(message).decode()
            await self.page.evaluate(SEND_BINARY, [self.number, f"data:application/octet-stream;base64,{encoded}"])

    async def recv(self) -> Message | Closed:
        return unpack(await self.page.evaluate("(number) => ends[number].next()", self.number))

    async def close(self, code: int, reason: str) -> Closed:
        return Closed(*await self.page.evaluate(CLOSE, [self.number, code, reason]))


class Chromium(Program):
    """A page of a browser, which is started by the first connection."""

    def __init__(self) -> None:
        super().__init__()
        self.starting = asyncio.Lock()
        self.stack = AsyncExitStack()
        self.page: Page | None = None

    async def connect(self, uri: str, options: dict[str, Any]) -> Connection:
        async with self.starting:
            if self.page is None:
                playwright = await self.stack.enter_async_context(async_playwright())
                browser = await playwright.chromium.launch(executable_path=chromium.path(), args=chromium.FLAGS)
                self.stack.push_async_callback(browser.close)
                self.page = await browser.new_page()
        opened = await self.page.evaluate(OPEN, [uri, options.get("subprotocols", [])])
        if opened is None:
            raise Rejected(None)
        return WebSocket(self.page, opened["number"], opened["protocol"] or None)

    async def stop(self) -> None:
        await self.stack.aclose()


if __name__ == "__main__":
    Chromium().run()

"""The pages of the documentation's clock and counter, in a browser, with the programs of their time.

What must not live here: the same programs with other clients (tests/samples).
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.samples.running import PATIENCE, source_of

CLOCK = """
    <!doctype html><title>clock</title><body>
    <script>
        const socket = new WebSocket("ws://127.0.0.1:PORT/");
        const list = document.body.appendChild(document.createElement("ul"));
        socket.onmessage = ({data}) => {
            list.appendChild(document.createElement("li")).textContent = data;
        };
    </script>
"""

COUNTER = """
    <!doctype html><title>counter</title><body>
    <button class="minus">-</button><span class="value">?</span><button class="plus">+</button>
    <p><span class="users">?</span> online</p>
    <script>
        const find = (name) => document.querySelector("." + name);
        const socket = new WebSocket("ws://127.0.0.1:PORT/");
        for (const action of ["minus", "plus"]) {
            find(action).onclick = () => socket.send(JSON.stringify({action}));
        }
        socket.onmessage = ({data}) => {
            const event = JSON.parse(data);
            if (event.type === "state") find("value").textContent = event.value;
            const count = `${event.count} user${event.count === 1 ? "" : "s"}`;
            if (event.type === "users") find("users").textContent = count;
        };
    </script>
"""

Start = Callable[[str], int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts one of the programs; returns its port."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(program: str) -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
        file = tmp_path / f"{program}.py"
        file.write_text(source_of(program, "tidegate"), encoding="utf-8")
        processes.append(subprocess.Popen([sys.executable, str(file), str(port)], stderr=subprocess.DEVNULL))
        watched = psutil.Process(processes[-1].pid)
        end = time.monotonic() + PATIENCE
        while not any(found.laddr.port == port for found in watched.net_connections("tcp")):
            assert processes[-1].poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        return port

    yield start
    for process in processes:
        process.terminate()
        process.wait()


def show(context: BrowserContext, html: str, port: int, folder: Path) -> Page:
    """Open a page from a file, as who reads the documentation does."""
    file = folder / "page.html"
    file.write_text(html.replace("PORT", str(port)), encoding="utf-8")
    page = context.new_page()
    page.goto(file.as_uri())
    return page


def test_clock(start: Start, context: BrowserContext, tmp_path: Path) -> None:
    page = show(context, CLOCK, start("older_clock"), tmp_path)
    for number in range(3):
        expect(page.locator("li").nth(number)).to_have_text(re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00"))


def test_counter(start: Start, context: BrowserContext, tmp_path: Path) -> None:
    port = start("older_counter")
    one = show(context, COUNTER, port, tmp_path)
    expect(one.locator(".users")).to_have_text("1 user")
    other = show(context, COUNTER, port, tmp_path)
    for page in (one, other):
        expect(page.locator(".users")).to_have_text("2 users")
        expect(page.locator(".value")).to_have_text("0")
    for page, action, value in ((one, "plus", "1"), (other, "plus", "2"), (one, "minus", "1")):
        page.click(f".{action}")
        expect(one.locator(".value")).to_have_text(value)
        expect(other.locator(".value")).to_have_text(value)
    other.close()
    expect(one.locator(".users")).to_have_text("1 user")

"""The pages of the documentation in a browser: clock and counter with the programs of their time, over TLS, too; and
the room of the guide on channels, and the chat of Django Channels.

What must not live here: the same programs with other clients (tests/samples).
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import trustme
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.samples.running import PROGRAMS, source_of
from tests.samples.test_guides import program
from tests.support.harness import ROOT, Daemon
from tests.support.patience import PATIENCE

CLOCK = """
    <!doctype html><title>clock</title><body>
    <script>
        const socket = new WebSocket("SCHEME://localhost:PORT/");
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
        const socket = new WebSocket("SCHEME://localhost:PORT/");
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

# What the documentation's program of a secure server has, and these have not.
TLS = """
import ssl

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])

asyncio.get_event_loop()"""

SCHEMES = ("ws", "wss")


def secured(source: str) -> str:
    """A program with TLS; its second argument is a file with certificate and key."""
    serving = "asyncio.get_event_loop().run_until_complete("
    found = source.replace("int(sys.argv[1])", "int(sys.argv[1]), ssl=context")
    found = found.replace(serving, f"{TLS}.run_until_complete(", 1)
    assert "ssl=context" in found
    assert TLS in found
    return found


Start = Callable[[str, str], int]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of an authority that no browser knows, with its key."""
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
    return file


@pytest.fixture
def start(tmp_path: Path, certificate: Path) -> Iterator[Start]:
    """Starts one of the programs, by ws or wss; returns its port."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(program: str, scheme: str) -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
        file = tmp_path / f"{program}.py"
        source = source_of(program, "tidegate")
        file.write_text(secured(source) if scheme == "wss" else source, encoding="utf-8")
        command = [sys.executable, str(file), str(port), str(certificate)]
        processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
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


@pytest.fixture
def trusting(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that takes any certificate."""
    with closing(browser.new_context(ignore_https_errors=True)) as context:
        context.set_default_timeout(1000 * PATIENCE)
        yield context


def show(context: BrowserContext, html: str, scheme: str, port: int, folder: Path) -> Page:
    """Open a page from a file, as who reads the documentation does."""
    file = folder / "page.html"
    file.write_text(html.replace("SCHEME", scheme).replace("PORT", str(port)), encoding="utf-8")
    page = context.new_page()
    page.goto(file.as_uri())
    return page


@pytest.mark.parametrize("scheme", SCHEMES)
def test_clock(scheme: str, start: Start, trusting: BrowserContext, tmp_path: Path) -> None:
    """The clock sample shows times in a browser."""
    page = show(trusting, CLOCK, scheme, start("older_clock", scheme), tmp_path)
    for number in range(3):
        expect(page.locator("li").nth(number)).to_have_text(re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00"))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.slow
def test_counter(scheme: str, start: Start, trusting: BrowserContext, tmp_path: Path) -> None:
    """The counter sample shows two pages the same value and the number of users."""
    port = start("older_counter", scheme)
    one = show(trusting, COUNTER, scheme, port, tmp_path)
    expect(one.locator(".users")).to_have_text("1 user")
    other = show(trusting, COUNTER, scheme, port, tmp_path)
    for page in (one, other):
        expect(page.locator(".users")).to_have_text("2 users")
        expect(page.locator(".value")).to_have_text("0")
    for page, action, value in ((one, "plus", "1"), (other, "plus", "2"), (one, "minus", "1")):
        page.click(f".{action}")
        expect(one.locator(".value")).to_have_text(value)
        expect(other.locator(".value")).to_have_text(value)
    other.close()
    expect(one.locator(".users")).to_have_text("1 user")


def test_a_certificate_that_the_browser_does_not_trust(
    start: Start, context: BrowserContext, trusting: BrowserContext, tmp_path: Path
) -> None:
    """The proof that the others went over TLS. It costs the server nothing."""
    port = start("older_counter", "wss")
    page = show(context, COUNTER, "wss", port, tmp_path)
    page.wait_for_function("() => socket.readyState === WebSocket.CLOSED")
    expect(page.locator(".users")).to_have_text("?")
    expect(show(trusting, COUNTER, "wss", port, tmp_path).locator(".users")).to_have_text("1 user")


@pytest.mark.slow
def test_room(context: BrowserContext) -> None:
    """The page of the guide on channels shows two visitors what one says; who comes later sees it, too."""
    guide = (ROOT / "deploy" / "guides" / "channels.md").read_text(encoding="utf-8")
    (html,) = re.findall(r"^```html\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    with Daemon(program("channels.md", "may_publish"), target="application:app", workers=2) as daemon:
        (daemon.directory / "room.html").write_text(html, encoding="utf-8")
        pages = [context.new_page() for _ in range(2)]
        for number, page in enumerate(pages):
            page.goto(f"http://{daemon.address}/")
            expect(page.locator("li")).to_have_text(["hello"] * number)
            page.fill("input", "hello")
            page.press("input", "Enter")
            for shown in pages[: number + 1]:
                expect(shown.locator("li")).to_have_text(["hello"] * (number + 1))


@pytest.mark.slow
def test_channels_tutorial(context: BrowserContext) -> None:
    """The page of Django Channels' tutorial shows two visitors, served by the same daemon, what each says."""
    program = PROGRAMS / "django_chat.py"
    with Daemon(program, target="django_chat:app", workers=2) as daemon:
        pages = [context.new_page() for _ in range(2)]
        for page in pages:
            page.goto(f"http://{daemon.address}/chat/lobby/")
            page.wait_for_function("() => chatSocket.readyState === WebSocket.OPEN")
        said = ""
        for page in pages:
            said += "hello\n"
            page.fill("#chat-message-input", "hello")
            page.click("#chat-message-submit")
            for shown in pages:
                expect(shown.locator("#chat-log")).to_have_value(said)

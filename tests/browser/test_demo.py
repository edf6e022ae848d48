"""The demo's page in Chromium: the chat and the counter are the same in all tabs and for a program, whatever restarts.

What must not live here: what any WebSocket client sees (tests/interop), tidegate.js (test_channels.py).
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.harness import Daemon, wait_until
from tests.support.patience import PATIENCE
from tidegate import Bus
from tidegate.cli.demo_application import CHANNELS, CHAT

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

DEMO = "tidegate.cli.demo_application:app"
TABS = 24
"""Tabs until two of them are on different workers: with one more in 2**23 runs they are not."""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Daemon]:
    """The demo's application on free ports; a daemon of its own, because tests stop it."""
    control = str(tmp_path / "control.sock")
    options = ("--control", control)
    with Daemon(None, *options, target=DEMO, workers=2, env={"TIDEGATE_CONTROL": control}) as daemon:
        yield daemon


def tab(demo: Daemon, context: BrowserContext) -> Page:
    """The page, connected. `page.problems` has what the console complained of."""
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"http://{demo.address}/")
    expect(page.locator("#worker")).to_have_text(re.compile(r"^worker process \d+$"))
    page.problems = problems  # type: ignore[attr-defined]
    return page


@pytest.fixture
def page(demo: Daemon, context: BrowserContext) -> Page:
    return tab(demo, context)


def worker(page: Page) -> int:
    """The worker that a tab is connected to, as it says."""
    return int(page.inner_text("#worker").rpartition(" ")[2])


def two_tabs(demo: Daemon, context: BrowserContext) -> tuple[Page, Page]:
    """Two tabs that are connected to different workers."""
    one = tab(demo, context)
    for _ in range(TABS):
        other = tab(demo, context)
        if worker(other) != worker(one):
            return one, other
        other.close()
    raise AssertionError(f"{TABS} tabs are all on worker {worker(one)}")


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def said(page: Page) -> list[str]:
    """All lines of a tab's chat."""
    return page.locator("#lines .text").all_inner_texts()


def test_a_line_of_the_chat(page: Page) -> None:
    page.fill("#name", "Ann")
    for text in ("hello", "zwölf Boxkämpfer 🌊", "<b>not bold</b>"):
        say(page, text)
        newest = page.locator("#lines li").last
        expect(newest.locator(".text")).to_have_text(text)
        expect(newest.locator(".who")).to_have_text("Ann")
        took = re.compile(rf"^\d\d:\d\d:\d\d by {worker(page)}, \d+\.\d ms$")
        expect(newest.locator("small")).to_have_text(took)
    expect(page.locator("#text")).to_have_value("")
    assert page.problems == []  # type: ignore[attr-defined]


def test_who_comes_later_has_the_lines_and_the_value(demo: Daemon, page: Page, context: BrowserContext) -> None:
    expect(page.locator("#value")).to_have_text("0")
    for button in ("plus", "plus", "minus", "minus", "minus"):
        page.click(f"#{button}")
    say(page, "before")
    expect(page.locator("#lines .text").last).to_have_text("before")
    expect(page.locator("#value")).to_have_text("-1")
    later = tab(demo, context)
    expect(later.locator("#lines .text").last).to_have_text("before")
    expect(later.locator("#value")).to_have_text("-1")
    assert page.problems == []  # type: ignore[attr-defined]


@pytest.mark.slow
def test_it_shows_how_many_are_there(demo: Daemon, page: Page, context: BrowserContext) -> None:
    expect(page.locator("#here")).to_have_text("1 client")
    expect(page.locator("#took")).to_have_text(re.compile(r"^\d+\.\d ms, through the bus$"))
    later = tab(demo, context)
    for one in (page, later):
        expect(one.locator("#here")).to_have_text("2 clients")
    later.close()
    expect(page.locator("#here")).to_have_text("1 client")


@pytest.mark.slow
def test_it_shows_who_is_there_and_is_quiet_while_workers_are_replaced(
    demo: Daemon, page: Page, context: BrowserContext
) -> None:
    later = tab(demo, context)
    names = sorted(one.input_value("#name") for one in (page, later))
    for one in (page, later):
        expect(one.locator("#names")).to_have_text(", ".join(names))
    said = page.locator("#events")
    expect(said).to_contain_text(f"{later.input_value('#name')} is here")
    demo.signal(signal.SIGHUP)
    expect(said).to_contain_text("resumed: nothing is missing")
    expect(later.locator("#events")).to_contain_text("resumed: nothing is missing")
    page.fill("#name", "Ann")
    page.press("#name", "Tab")
    for one in (page, later):
        expect(one.locator("#names")).to_contain_text("Ann")
    gone = later.input_value("#name")
    later.close()
    expect(said).to_contain_text(f"{gone} has gone")
    assert page.locator("#events").inner_text().count(f"{gone} has gone") == 1
    assert page.locator("#events").inner_text().count(f"{gone} is here") <= 1


@pytest.mark.slow
def test_it_says_what_to_try(page: Page, demo: Daemon) -> None:
    program, *arguments = shlex.split(page.inner_text("#reload"))
    assert program.endswith("tidegate")
    assert arguments == ["reload", "--control", demo.command[demo.command.index("--control") + 1]]
    done = subprocess.run(
        shlex.split(page.inner_text("#publish")), capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    expect(page.locator("#lines li").last).to_have_text("shellhello from a shell")
    assert page.inner_text("#kill-worker") == f"kill -9 {worker(page)}"
    assert page.inner_text("#kill-hub") == f'pkill -9 -P {demo.pid} -f "tidegate: hub"'
    assert worker(page) in demo.workers()
    assert "tidegate: hub" in demo.titles().values()
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_have_count(1)
    assert page.evaluate("() => getSelection().toString().trim()") == page.inner_text("#reload")


@pytest.mark.slow
def test_says_1001_at_sigterm_and_reconnects(page: Page, demo: Daemon) -> None:
    # The page's own words for the close event, collected before they change: it tries again soon.
    page.evaluate(
        "() => { window.said = []; new MutationObserver(() => said.push(document.getElementById('state').textContent))"
        ".observe(document.getElementById('state'), {childList: true}) }"
    )
    page.click("#plus")
    expect(page.locator("#value")).to_have_text("1")
    assert demo.stop() == 0
    page.wait_for_function("() => said.includes('closed (1001), coming back')")
    with Daemon(None, "--bind", demo.address, target=DEMO, workers=2, bind=False):
        expect(page.locator("#state")).to_have_text("connected")
        # Another daemon has another history, which begins now: nothing else is said to be there.
        expect(page.locator("#value")).to_have_text("0")
        expect(page.locator("#events")).to_contain_text("messages may be missing")
        for text in said(page):
            assert re.fullmatch(r"worker \d+ starts", text)


@pytest.mark.slow
def test_narrow_screen_needs_no_sideways_scrolling(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 320


def test_other_paths_are_404(page: Page, demo: Daemon) -> None:
    answer = page.request.get(f"http://{demo.address}/nothing")
    assert answer.status == 404
    assert "/nothing" in answer.text()


class Program:
    """Another program that follows the same channels, by the daemon's socket for other processes.

    Attributes:
        lines: of the chat.
        value: of the counter.
        gaps: what it was told of messages that are missing.
    """

    def __init__(self, url: str) -> None:
        self.lines: list[str] = []
        self.gaps: list[object] = []
        self._clicks = {"count:plus": 0, "count:minus": 0}
        self._bus = Bus(url, channels=CHANNELS)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def value(self) -> int:
        return self._clicks["count:plus"] - self._clicks["count:minus"]

    def __enter__(self) -> Program:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result(PATIENCE)
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _begin(self) -> None:
        await self._bus.start()
        self._tasks = [asyncio.create_task(self._follow(channel)) for channel in (CHAT, *self._clicks)]

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._bus.close()

    async def _follow(self, channel: str) -> None:
        async with self._bus.subscribe(channel, last=200) as messages:
            async for message in messages:
                if message.gap is not None:
                    self.gaps.append(message)
                elif channel == CHAT:
                    self.lines.append(json.loads(message.data)["text"])
                else:
                    assert message.position is not None
                    self._clicks[channel] = message.position.offset


# Clicks and says something, again and again, while something happens to the daemon.
BUSY = """
    ([name, clicks]) => {
        const [plus, minus, text, form] = ["plus", "minus", "text", "form"].map((id) => document.getElementById(id));
        window.busy = (async () => {
            for (let number = 0; number < clicks; number++) {
                (number % 3 === 2 ? minus : plus).click();
                if (number % 3 === 0) {
                    text.value = `${name} ${number}`;
                    form.requestSubmit();
                }
                await new Promise((resolve) => setTimeout(resolve, 50));
            }
        })();
    }
"""
CLICKS = 30
SPOKEN = range(0, CLICKS, 3)

Tabs = dict[str, Page]


def reload(demo: Daemon, tabs: Tabs) -> None:
    """Do what the page says, and wait until each tab has come back to a new worker."""
    before = [f" {pid}" for pid in demo.workers()]
    command = shlex.split(tabs["one"].inner_text("#reload"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    for page in tabs.values():
        page.wait_for_function(
            "(before) => !before.some((end) => document.getElementById('worker').textContent.endsWith(end))", arg=before
        )


def hub(demo: Daemon) -> int:
    """The process id of the hub, when there is one."""
    return wait_until(
        lambda: next((pid for pid, title in demo.titles().items() if title == "tidegate: hub"), 0), "the hub"
    )


def kill_hub(demo: Daemon, tabs: Tabs) -> None:
    first = hub(demo)
    demo.signal(signal.SIGKILL, first)
    wait_until(lambda: hub(demo) != first, "another hub")


def kill_worker(demo: Daemon, tabs: Tabs) -> None:
    victim = worker(tabs["other"])
    demo.signal(signal.SIGKILL, victim)
    expect(tabs["other"].locator("#worker")).not_to_have_text(f"worker process {victim}")


@pytest.mark.slow
def test_tabs_and_a_program_stay_equal_whatever_restarts(demo: Daemon, context: BrowserContext, tmp_path: Path) -> None:
    """Two tabs, on two workers at first, click and talk at the same time, and no click or line is lost or doubled."""
    tabs = dict(zip(("one", "other"), two_tabs(demo, context), strict=True))
    with Program(f"local://{tmp_path / 'control.hub'}") as program:
        for number, event in enumerate((reload, kill_hub, kill_worker), 1):
            for name, page in tabs.items():
                page.evaluate(BUSY, [f"{name} {number}", CLICKS])
            event(demo, tabs)
            for page in tabs.values():
                page.evaluate("() => busy")
            check_equal(program, tabs, number)
            assert program.gaps == []


def check_equal(program: Program, tabs: Tabs, times: int) -> None:
    """Wait until both tabs and the program have everything, and the same, after so many times of being busy."""
    value = times * len(tabs) * CLICKS // 3
    expected = {name: [f"{name} {time} {n}" for time in range(1, times + 1) for n in SPOKEN] for name in tabs}
    wait_until(lambda: program.value == value, "the program's value")
    wait_until(lambda: all({*lines} <= {*program.lines} for lines in expected.values()), "all lines")
    for page in tabs.values():
        expect(page.locator("#value")).to_have_text(str(value))
        wait_until(lambda page=page: said(page) == program.lines, "the same lines in a tab")  # type: ignore[misc]
        assert re.search(r"messages (may be|are) missing", page.inner_text("#events")) is None
    for name, lines in expected.items():
        assert [line for line in program.lines if line.startswith(f"{name} ")] == lines

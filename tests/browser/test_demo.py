"""The demo's page in Chromium: it shows the server's time, echoes, says when it is cut off, and comes back.

What must not live here: what any WebSocket client sees (tests/interop).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.harness import Daemon

DEMO = "tidegate.cli.demo_application:app"


@pytest.fixture
def demo() -> Iterator[Daemon]:
    """The demo's application on free ports; a daemon of its own, because tests stop it."""
    with Daemon(None, target=DEMO, workers=2) as daemon:
        yield daemon


@pytest.fixture
def page(demo: Daemon, context: BrowserContext) -> Page:
    """The page, connected. `page.problems` has what the console complained of."""
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"http://{demo.address}/")
    expect(page.locator("#state")).to_have_text("connected")
    page.problems = problems  # type: ignore[attr-defined]
    return page


def test_shows_the_servers_time(page: Page) -> None:
    clock = page.locator("#clock")
    expect(clock).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    first = clock.inner_text()
    expect(clock).not_to_have_text(first)
    expect(page.locator("#worker")).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d UTC, from worker process \d+$"))
    assert page.problems == []  # type: ignore[attr-defined]


def test_echoes_what_is_typed(page: Page) -> None:
    for text in ("hello", "zwölf Boxkämpfer 🌊", "<b>not bold</b>"):
        page.fill("#text", text)
        page.press("#text", "Enter")
        newest = page.locator("#echoes li").first.locator("span")
        expect(newest.first).to_have_text(text)
        expect(newest.last).to_have_text(re.compile(r"^\d+\.\d ms$"))
    expect(page.locator("#echoes li")).to_have_count(3)
    assert page.problems == []  # type: ignore[attr-defined]


def test_says_1001_at_sigterm_and_reconnects(page: Page, demo: Daemon) -> None:
    # The page's own words for the close event, collected before they change: it tries again at once.
    page.evaluate(
        "() => { window.said = []; new MutationObserver(() => said.push(document.getElementById('state').textContent))"
        ".observe(document.getElementById('state'), {childList: true}) }"
    )
    assert demo.stop() == 0
    page.wait_for_function("() => said.some((text) => text.startsWith('closed (1001), again in '))")
    with Daemon(None, "--bind", demo.address, target=DEMO, workers=2, bind=False):
        expect(page.locator("#state")).to_have_text("connected")


@pytest.mark.slow
def test_narrow_screen_needs_no_sideways_scrolling(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 320


def test_other_paths_are_404(page: Page, demo: Daemon) -> None:
    answer = page.request.get(f"http://{demo.address}/nothing")
    assert answer.status == 404
    assert "/nothing" in answer.text()

"""A headless Chromium for the browser tests: the system's own, driven by playwright.

What must not live here: what a page should do (test_*.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.harness import require

# No sandbox: it does not run as root. The others keep Chromium from looking for its maker's hosts on a closed network.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """TIDEGATE_CHROMIUM, or the Chromium on PATH. Ended after each module: playwright keeps an event loop meanwhile."""
    chromium = os.environ.get("TIDEGATE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    require(chromium, "Chromium (Debian's package `chromium`)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser without history, one a test."""
    context = browser.new_context()
    context.set_default_timeout(15_000)
    yield context
    context.close()

"""A headless Chromium for the browser tests: the system's own, driven by playwright.

What must not live here: what a page should do (test_*.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from tests.browser import chromium
from tests.support.harness import require
from tests.support.patience import PATIENCE

expect.set_options(timeout=1000 * PATIENCE)  # of milliseconds; 5 s are few on a slow machine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ended after each module: playwright keeps an event loop meanwhile."""
    require(chromium.path(), chromium.PACKAGE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.path(), args=chromium.FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser without history, one a test."""
    context = browser.new_context()
    context.set_default_timeout(1000 * PATIENCE)
    yield context
    context.close()

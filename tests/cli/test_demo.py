"""`tidegate demo` from its command line: what it prints, and that it is there.

What must not live here: the page, which wants a browser (tests/browser/test_demo.py).
"""

from __future__ import annotations

import urllib.request

from tests.support.harness import Daemon
from tests.support.patience import PATIENCE


def test_two_workers_a_page_and_metrics() -> None:
    with Daemon(None, command="demo", target=None, workers=None) as daemon:
        assert f"page     http://{daemon.address}/\n" in daemon.log
        assert f"daemon   http://{daemon.admin}/\n" in daemon.log
        assert f"metrics  http://{daemon.admin}/metrics\n" in daemon.log
        assert len(daemon.workers()) == 2
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{daemon.address}/", timeout=PATIENCE) as page:
            assert page.headers["Content-Type"] == "text/html; charset=utf-8"
            assert "<title>tidegate demo</title>" in page.read().decode()
        assert daemon.metrics().total("tidegate_connections") == 0
        assert daemon.stop() == 0


def test_a_mistake_is_told_in_a_line() -> None:
    with Daemon(None, "--workers", "3", command="demo", target=None, workers=None, wait=False) as daemon:
        assert daemon.wait() == 2
        assert "--workers" in daemon.log
        assert daemon.log.count("\n") == 1

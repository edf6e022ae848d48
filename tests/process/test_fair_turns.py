"""A client that keeps its worker busy all the time costs nobody the worker: the watchdog is for handlers that block.

What must not live here: how long others wait (tests/benchmarks), the rules of turns (tests/core/test_turns.py).
"""

from __future__ import annotations

import time

import pytest

from tests.benchmarks.bystander import attacking
from tests.support.harness import ECHO, Daemon
from tests.support.rawclient import RawClient
from tests.support.wire import frame


@pytest.mark.slow
def test_the_watchdog_does_not_judge_a_load_that_turns_bound() -> None:
    """Bombs that are echoed, for longer than the watchdog waits for a turn of the loop."""
    with Daemon(ECHO, "--worker-timeout", "5", workers=1) as daemon:
        workers = daemon.workers()
        before = daemon.metrics().total("tidegate_messages_received_total")
        echoes = 0
        with attacking(daemon.port, "bombs, echoed"), RawClient(daemon.port).open() as bystander:
            end = time.monotonic() + 12
            while time.monotonic() < end:
                bystander.send(frame(b"hello"))
                assert bystander.frame() == (0x81, b"hello")
                echoes += 1
        assert daemon.metrics().total("tidegate_messages_received_total") > before + echoes  # it did attack
        assert daemon.workers() == workers
        assert "hang" not in daemon.log
        assert "hung" not in daemon.log

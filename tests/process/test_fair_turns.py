"""A client that keeps its worker busy all the time costs nobody the worker: the watchdog is for handlers that block.

What must not live here: how long others wait (tests/benchmarks), the rules of turns (tests/core/test_turns.py).
"""

from __future__ import annotations

import threading
import time

import pytest

from tests.benchmarks.bystander import ATTACKS, attack
from tests.harness import ECHO, Daemon
from tests.rawclient import RawClient, frame


@pytest.mark.slow
def test_the_watchdog_does_not_judge_a_load_that_turns_bound() -> None:
    """Bombs that are echoed, for longer than the watchdog waits for a turn of the loop."""
    with Daemon(ECHO, "--worker-timeout", "5", workers=1) as daemon:
        workers = daemon.workers()
        stop = threading.Event()
        attacker = threading.Thread(target=attack, args=(daemon.port, ATTACKS["bombs, echoed"], stop.is_set))
        attacker.start()
        try:
            with RawClient(daemon.port).open() as bystander:
                end = time.monotonic() + 12
                while time.monotonic() < end:
                    bystander.send(frame(b"hello"))
                    assert bystander.frame() == (0x81, b"hello")
        finally:
            stop.set()
            attacker.join()
        assert daemon.workers() == workers
        assert "hang" not in daemon.log
        assert "hung" not in daemon.log

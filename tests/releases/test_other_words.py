"""Upgrades from a program of another release, whose words or layout this one does not have: done, or refused in time.

The other one is today's, and between it and the next program what it has left is changed.
What must not live here: a release as it was (test_upgrade.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.process.clients import Crowd
from tests.process.test_reload import generations
from tests.process.test_upgrade import upgrade
from tests.releases.between import between
from tests.support.harness import ECHO, Daemon, wait_until

LAYOUT = """
def change(task, state):
    if task == "take":
        os.pwrite(state["scoreboard"], (2**63 + 5).to_bytes(8, "little"), 8)
"""
REASON = """
def change(task, state):
    for slot in state["slots"]:
        for child in slot["leaving"]:
            child |= {"ordered": 1, "ordered_at": child["born"], "why": "of_tomorrow"}
"""
KIND = """
def change(task, state):
    state["listeners"][0]["kind"] = "QuicListener"
"""
STAGE = """
def change(task, state):
    state["slots"][0]["current"]["stage"] = "warming_up"
"""


async def test_a_scoreboard_of_another_layout_is_begun_anew(tmp_path: Path) -> None:
    """The clients notice nothing of it. The counters begin again, and so does the time since when they count."""
    environment = between(tmp_path, LAYOUT)
    with Daemon(ECHO, "--settle", "0.1", workers=2, drain=0.2, env=environment) as daemon:
        pid, started = daemon.pid, daemon.metrics().total("tidegate_start_time_seconds")
        async with Crowd(daemon.uri, staying=20, rate=50) as crowd:
            await asyncio.to_thread(upgrade, daemon)
            await crowd.seen(20)
            assert crowd.closed == {1001: 20}
        assert not crowd.refused
        assert (daemon.pid, daemon.poll()) == (pid, None)
        assert generations(daemon) == {2}
        metrics = daemon.metrics()
        assert metrics.total("tidegate_start_time_seconds") > started
        # Those that the former workers had closed are counted nowhere.
        assert metrics.total("tidegate_closes_total", code="1001") == 0
        assert metrics.total("tidegate_connections_accepted_total") >= 20
        assert metrics.total("tidegate_worker_exits_total") == 0
        assert scoreboards(daemon) == 1
        assert len(daemon.processes()) == 4
        # The next one finds the layout that it knows.
        between(tmp_path, LAYOUT.replace('"take"', '"nothing"'))
        await asyncio.to_thread(upgrade, daemon)
        assert daemon.metrics().total("tidegate_connections_accepted_total") >= 20
        assert daemon.metrics().total("tidegate_start_time_seconds") == metrics.total("tidegate_start_time_seconds")
        assert daemon.stop() == 0


def scoreboards(daemon: Daemon) -> int:
    """How many the supervisor has open."""
    folder = Path("/proc", str(daemon.pid), "fd")
    return len({link.stat().st_ino for link in folder.iterdir() if "tidegate-scoreboard" in os.readlink(link)})


async def test_a_worker_that_ends_for_a_reason_of_another_release(tmp_path: Path) -> None:
    """It has no counter, and is counted with those that ended as asked."""
    environment = between(tmp_path, REASON)
    options = ("--settle", "0.1", "--graceful-timeout", "600")
    with Daemon(ECHO, *options, workers=1, drain=300, env=environment) as daemon:
        (worker,) = daemon.workers()
        async with Crowd(daemon.uri, staying=20):
            daemon.signal(signal.SIGTERM, worker)
            await asyncio.to_thread(wait_until, lambda: daemon.log.count("is ready after") == 3, "a successor")
            daemon.signal(signal.SIGUSR2)
            await asyncio.to_thread(wait_until, lambda: "generation 2 serves" in daemon.log, "the next program")
        # Its clients have gone, and so does it.
        await asyncio.to_thread(daemon.wait_metric, "tidegate_worker_exits_total", 1, reason="stopped")
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (KIND, "has a kind of listener that this tidegate does not know (QuicListener)"),
        (STAGE, "Invalid enum value 'warming_up' - at `$.slots[0].current.stage`"),
    ],
    ids=["a kind of address", "a stage"],
)
async def test_what_the_next_program_does_not_know_keeps_it_from_taking_over(
    tmp_path: Path, change: str, words: str
) -> None:
    """The check tells, so that the daemon goes on as it is."""
    with Daemon(ECHO, workers=1, env=between(tmp_path, change)) as daemon:
        async with Crowd(daemon.uri, staying=5, rate=20) as crowd:
            daemon.signal(signal.SIGUSR2)
            await asyncio.to_thread(wait_until, lambda: "upgrade: failed" in daemon.log, "a refusal")
            assert not crowd.closed
        assert not crowd.refused
        assert words in daemon.log
        assert generations(daemon) == {1}
        assert daemon.stop() == 0

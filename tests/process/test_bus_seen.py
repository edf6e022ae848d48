"""A daemon whose bus fails: what /readyz, /metrics and /status tell of it."""

import asyncio
import signal

import msgspec
import pytest
from websockets.asyncio.client import connect

from tests.support.harness import APPLICATIONS, Daemon, wait_until


def hub_of(daemon: Daemon) -> int:
    return next(pid for pid, title in daemon.titles().items() if title == "tidegate: hub")


@pytest.mark.slow
async def test_a_bus_that_is_required_and_does_not_answer_is_no_readiness() -> None:
    """Though every link is there: the hub is stopped. All is well when it goes on."""
    with Daemon(APPLICATIONS / "last_words.py", "--bus-required", target="application:app", workers=1) as daemon:
        async with connect(f"{daemon.uri}join") as client:
            assert await client.recv() == "joined"
        assert daemon.get("/readyz")[0] == 200
        hub = hub_of(daemon)
        daemon.signal(signal.SIGSTOP, hub)
        try:
            await asyncio.to_thread(wait_until, lambda: daemon.get("/readyz")[0] == 503, "the end of readiness")
            assert "worker 0 has no bus: the hub has not answered within 5 seconds" in daemon.get("/readyz")[1]
            assert daemon.metrics().total("tidegate_bus_up") == 0
            bus = msgspec.json.decode(daemon.get("/status")[1])["bus"]
            assert (bus["url"], bus["up"], bus["required"], bus["hub"]["pid"]) == ("local://", False, True, hub)
        finally:
            daemon.signal(signal.SIGCONT, hub)
        await asyncio.to_thread(wait_until, lambda: daemon.get("/readyz")[0] == 200, "readiness")


@pytest.mark.slow
async def test_a_hub_that_is_killed_is_counted_and_its_counts_go_on() -> None:
    with Daemon(APPLICATIONS / "last_words.py", target="application:app", workers=1) as daemon:
        async with connect(f"{daemon.uri}join") as client:
            assert await client.recv() == "joined"
        daemon.signal(signal.SIGKILL, hub_of(daemon))
        await asyncio.to_thread(daemon.wait_metric, "tidegate_bus_hub_restarts_total", 1)
        await asyncio.to_thread(daemon.wait_metric, "tidegate_bus_state_changes_total", 1, to="again")
        await asyncio.to_thread(daemon.wait_metric, "tidegate_bus_hub_links", 1)
        assert daemon.get("/readyz")[0] == 200
        hub = msgspec.json.decode(daemon.get("/status")[1])["bus"]["hub"]
        assert (hub["restarts"], hub["links"]) == (1, 1)

"""What a worker measures of itself, and that /metrics show it."""

import asyncio
import gc
import os
import socket

import pytest

from tests.support.harness import Daemon, wait_until
from tidegate._core.counters import Row
from tidegate._core.writer import slow_connections
from tidegate.bus.bus import Bus
from tidegate.channels import Channel
from tidegate.exceptions import MessageTooBig
from tidegate.worker import self_metrics


def test_collections_are_counted_by_generation() -> None:
    row = Row()
    end = self_metrics.record_collections(row)
    try:
        gc.collect(0)
        gc.collect(2)
        gc.collect(2)
    finally:
        end()
    gc.collect()
    assert row.words("gc_collections")[0] >= 1  # others come by themselves
    assert row.words("gc_collections")[2] >= 2
    assert sum(row.words("gc_pause")[:-1]) == sum(row.words("gc_collections"))


def test_a_forked_child_counts_no_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row()
    end = self_metrics.record_collections(row)
    try:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        gc.collect()
    finally:
        end()
    assert sum(row.words("gc_collections")) == 0


def test_the_capacity_is_what_descriptors_allow() -> None:
    row = Row()
    self_metrics.record_capacity(row, None)
    own, of_all = row.connections_max
    assert 0 < own < self_metrics.descriptors()[0]
    assert of_all is None
    self_metrics.record_capacity(row, 100)
    assert row.connections_max == (own, 100)


def test_where_the_system_does_not_tell_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row()
    monkeypatch.setattr(self_metrics, "open_fds", lambda pid: None)
    self_metrics.record_capacity(row, None)
    assert row.connections_max[0] == self_metrics.descriptors()[0]


def test_nobody_is_slow() -> None:
    row = Row()
    row.send_queues(3, 4, 5)
    slow_connections.clear()
    self_metrics.record_send_queues(row)
    assert (row.words("send_queue_connections"), row.words("send_queue_bytes")) == ((0,), (0,))
    assert row.send_queue_max_bytes == 0


@pytest.mark.slow
async def test_a_daemon_tells_of_slow_clients_of_its_capacity_and_of_collections() -> None:
    application = """
        import gc
        async def handler(websocket):
            gc.collect()
            await websocket.send(b"x" * 50_000_000)
    """
    with Daemon(application, "--max-connections", "123") as daemon:
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")

        def slow() -> bool:
            return daemon.metrics().total("tidegate_send_queue_connections", worker=0) == 1

        await asyncio.to_thread(wait_until, slow, "a slow client")
        metrics = daemon.metrics()
        waiting = metrics.total("tidegate_send_queue_bytes", worker=0)
        assert 1_000_000 < waiting <= 50_000_100
        assert metrics.total("tidegate_send_queue_max_bytes", worker=0) == waiting
        assert metrics.total("tidegate_connections_max") == 123
        assert metrics.total("tidegate_gc_collections_total", worker=0, generation=2) >= 1
        assert metrics.total("tidegate_gc_pause_seconds_count", worker=0) >= 1
        writer.transport.abort()
        await asyncio.to_thread(daemon.wait_metric, "tidegate_send_queue_connections", 0)
        assert daemon.metrics().total("tidegate_send_queue_bytes") == 0


async def test_what_happened_on_a_bus_is_recorded_once() -> None:
    row = Row()
    async with Bus("memory://", channels={"h:": Channel(history=5)}) as bus:
        record = self_metrics.BusRecord(row, bus, required=True)
        await bus.publish("h:1", "one")
        async with bus.subscribe("h:1") as messages:
            await bus.publish("h:1", "two")
            assert (await anext(messages)).data == "two"  # type: ignore[union-attr]
            with pytest.raises(MessageTooBig):
                await bus.publish("h:1", bytes(2**21))
            record.update()
            record.update()
            assert row.words("bus_published") == (2,)
            assert row.words("bus_topics") == (1,)
            assert sum(row.words("bus_publish_failures")) == 0
            assert row.words("bus_delivered")[0] >= 1
            await bus.publish("h:1", "three")
            record.update()
            assert row.words("bus_published") == (3,)
            assert row.bus is not None
            assert row.bus[:3] == ("memory", True, True)
            assert row.bus_window[1] == 1  # it began with the first update


@pytest.mark.parametrize(
    ("url", "engine"),
    [("local://", "local"), ("rediss://h:1", "redis"), ("tls://h:1/b", "nats"), ("memory://", "memory")],
)
def test_the_engine_of_a_url(url: str, engine: str) -> None:
    row = Row()
    self_metrics.BusRecord(row, Bus(url), required=False).update()
    assert row.bus is not None
    assert (row.bus.engine, row.bus.up, row.bus.reason) == (engine, False, "it is not started")

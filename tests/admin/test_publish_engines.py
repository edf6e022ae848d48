"""POST /publish on engines between machines, which go by what the application declares: a real one, an admin process.

What must not live here: the request and its answer (test_publish.py), workers that declare (tests/process).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from tests.admin.process import Admin
from tests.admin.test_publish import TOKEN, post, running
from tests.support.nats_server import NatsServer, nats_server
from tests.support.redis_server import RedisServer
from tidegate._core.scoreboard import Scoreboard
from tidegate.admin import publish as module
from tidegate.bus.bus import Bus
from tidegate.bus.declaration import declare
from tidegate.channels import Channel, Message
from tidegate.ipc.pipe import Command, Pipe, Report

FEW, MANY = {"h:": Channel(history=2)}, {"h:": Channel(history=5), "new:": Channel(history=1)}
LIMIT = 1000


Engine = Callable[[Path], contextlib.AbstractContextManager[RedisServer | NatsServer]]
engines = pytest.mark.parametrize("engine", [lambda folder: RedisServer(), nats_server], ids=["redis", "nats"])


def tell(admin: Admin, channels: Mapping[str, Channel] | None) -> None:
    """Tell it what the application declares, as the supervisor does."""
    with admin.pipe.dup() as pipe:
        assert Pipe(pipe, Report).send(Command(declares=msgspec.Raw(declare(channels, LIMIT))))


def stored(url: str, channels: Mapping[str, Channel], channel: str) -> list[Message]:
    """What a worker that declares these channels finds, the oldest first."""

    async def look() -> list[Message]:
        async with Bus(url, channels=channels) as bus:
            return (await bus.history(channel))[::-1]

    return asyncio.run(look())


def publish(admin: Admin, *numbers: int) -> list[str]:
    """Publish them one after the other; return the positions."""
    positions = []
    for number in numbers:
        status, answer = post(admin, {"channel": "h:1", "data": number, "key": str(number)})
        assert status == 200, answer
        positions.append(answer["position"])
    return positions


@engines
def test_it_is_stored_as_the_application_declares(engine: Engine, board: Scoreboard, tmp_path: Path) -> None:
    """What a worker would store, at the places that it would have; what a reload changes holds from then on."""
    with engine(tmp_path) as server, running(board, TOKEN, url := server.url) as admin:
        tell(admin, FEW)
        places = publish(admin, 1, 2, 3)
        messages = stored(url, FEW, "h:1")
        assert [(each.payload, each.json, str(each.position)) for each in messages] == [
            (b"2", True, places[1]),
            (b"3", True, places[2]),
        ]
        assert publish(admin, 3) == places[2:]  # its key is known
        assert post(admin, {"channel": "new:1", "data": 1}) == (200, {"position": None})

        tell(admin, MANY)
        publish(admin, 4, 5, 6, 7)
        assert [each.payload for each in stored(url, MANY, "h:1")][-4:] == [b"4", b"5", b"6", b"7"]
        assert len(stored(url, MANY, "h:1")) == 5
        assert post(admin, {"channel": "new:1", "data": 1})[1]["position"]

        tell(admin, FEW)
        publish(admin, 8)
        assert [each.payload for each in stored(url, FEW, "h:1")] == [b"7", b"8"]

        assert post(admin, b"x" * (LIMIT + 1), "?channel=h:1") == (
            413,
            {"error": f"h:1: message of {LIMIT + 1} bytes exceeds the bus's limit of {LIMIT} bytes", "status": 413},
        )


def refused(admin: Admin) -> str:
    """Why it cannot publish."""
    status, answer = post(admin, {"channel": "h:1", "data": 1})
    assert status == 503
    return str(answer["error"])


@engines
def test_without_channels_nothing_is_stored(engine: Engine, board: Scoreboard, tmp_path: Path) -> None:
    with engine(tmp_path) as server, running(board, TOKEN, url := server.url) as admin:
        tell(admin, None)
        assert refused(admin) == "the application declares no channels"
        tell(admin, {f"{number}:": Channel() for number in range(2000)})
        assert "so many channels that other processes are not told" in refused(admin)
        assert stored(url, FEW, "h:1") == []
        tell(admin, FEW)
        publish(admin, 1)
        tell(admin, None)
        assert refused(admin) == "the application declares no channels"
        assert len(stored(url, FEW, "h:1")) == 1


def test_who_comes_long_before_the_first_worker_is_told(board: Scoreboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUS_SECONDS", 0.1)
    with running(board, TOKEN, "redis://127.0.0.1:1") as admin:
        assert refused(admin) == "the bus is down: no worker has said yet which channels there are; try again"


def test_who_comes_before_the_first_worker_waits_for_it(board: Scoreboard, tmp_path: Path) -> None:
    """And what comes in the middle of a change is published, by what held or by what holds."""
    with RedisServer() as server, running(board, TOKEN, url := server.url) as admin:

        async def publish(number: int) -> int:
            return (await asyncio.to_thread(post, admin, {"channel": "h:1", "data": number}))[0]

        async def change() -> list[int]:
            requests = [asyncio.create_task(publish(0))]
            for number in range(1, 6):
                await asyncio.to_thread(tell, admin, FEW if number % 2 else MANY)
                requests.append(asyncio.create_task(publish(number)))
            return await asyncio.gather(*requests)

        assert asyncio.run(change()) == [200] * 6
        last = stored(url, MANY, "h:1")[-1].position
        assert last is not None
        assert last.offset == 6


def test_a_server_that_is_away_is_said_and_comes_back(
    board: Scoreboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUS_SECONDS", 0.5)
    server = RedisServer()
    with running(board, TOKEN, server.url) as admin:
        tell(admin, FEW)
        assert refused(admin).startswith("the bus is down: ")
        with server:
            publish(admin, 1)

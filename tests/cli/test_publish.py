"""`tidegate publish`: what is published, what is printed, and how each failure ends; over a hub of the test's own.

What must not live here: a daemon (tests/process/test_doors.py), what publishing is (tests/bus/).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.asked import run, words
from tests.hub.processes import Room
from tests.support.patience import PATIENCE
from tests.support.redis_server import RedisServer
from tidegate import App
from tidegate.bus.bus import Bus
from tidegate.bus.declaration import declare
from tidegate.channels import Channel
from tidegate.cli import publish
from tidegate.ipc import control_protocol
from tidegate.ipc.control_protocol import Answer, BusPlace

HISTORY = {"h:": Channel(history=100)}


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.close()


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))


def test_it_publishes_and_prints_the_position(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("publish", "h:1", "hello", "--control", room.control) == 0
    assert run("publish", "h:1", '{"a": 1}', "--json", "--control", room.control) == 0
    assert run("publish", "h:1", "bytes", "--binary", "--bus", f"local://{room.path}") == 0
    out, err = words(capsys)
    messages = room.stored("h:1")
    assert out.split() == [str(message.position) for message in messages]
    assert err == ""
    assert [(each.payload, each.text, each.json) for each in messages] == [
        (b"hello", True, False),
        (b'{"a": 1}', True, True),
        (b"bytes", False, False),
    ]


def test_standard_input_is_published_as_it_is(
    room: Room, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, "ä\n".encode())
    assert run("publish", "h:1", "-", "--control", room.control) == 0
    stdin(monkeypatch, b"\xff")
    assert run("publish", "h:1", "-", "--binary", "--control", room.control) == 0
    stdin(monkeypatch, b"\xff")
    assert run("publish", "h:1", "-", "--control", room.control) == 2
    assert words(capsys)[1] == "tidegate publish: the message isn't text in UTF-8: give --binary\n"
    assert [message.data for message in room.stored("h:1")] == ["ä\n", b"\xff"]


def test_a_key_publishes_once(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert run("publish", "h:1", "once", "--key", "k", "--control", room.control) == 0
    one, two = words(capsys)[0].split()
    assert one == two
    assert len(room.stored("h:1")) == 1


def test_without_history_there_is_nothing_to_print(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("publish", "plain", "hello", "--control", room.control) == 0
    assert words(capsys) == ("", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["h:1"], "MESSAGE is missing: give a text, or - for standard input"),
        ([], "CHANNEL is missing: give the name of a channel"),
        (["", "x"], "'' isn't the name of a channel: it is empty"),
        (["tg:control", "x"], "'tg:control' isn't the name of a channel: 'tg:' is reserved"),
        (["h:1", "x", "--key", "k" * 129], "key must have 1 to 128 bytes in UTF-8, not 129"),
        (["h:1", "x", "--wait", "soon"], "--wait 'soon' is not allowed: give seconds, such as 10, 0.5, 500ms or 2m"),
        (
            ["h:1", "x", "--json", "--binary"],
            "--binary and --json are two kinds of messages: give one of them",
        ),
        (
            ["h:1", "x", "--control", "a", "--bus", "local:///a"],
            "--bus and --control name two places: give one of them",
        ),
        (["h:1", "x", "--bus", "memory://"], "memory:// is the bus of one process, which this command is not in"),
        (
            ["h:1", "x", "--bus", "local://"],
            "local:// is the bus of a daemon: give --control PATH, or its path in the URL",
        ),
    ],
)
def test_what_is_a_mistake(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("publish", *arguments) == 2
    assert words(capsys) == ("", f"tidegate publish: {said}\n")


def test_what_the_bus_does_not_take_is_a_mistake(
    room: Room, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("publish", "h:1", "nonsense", "--json", "--control", room.control) == 2
    assert words(capsys)[1].startswith("tidegate publish: json=True, and the message isn't JSON: ")
    stdin(monkeypatch, bytes(2**20 + 1))
    assert run("publish", "h:1", "-", "--binary", "--control", room.control) == 2
    assert words(capsys)[1] == (
        "tidegate publish: h:1: message of 1048577 bytes exceeds the bus's limit of 1048576 bytes\n"
    )
    assert room.stored("h:1") == []


def test_where_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("publish", "h:1", "x", "--control", f"{tmp_path}/control.sock") == 5
    said = words(capsys)[1]
    assert said.startswith(f"tidegate publish: no bus listens on {tmp_path}/control.hub (no such file or directory): ")
    assert said.endswith("name the daemon's socket, with --control PATH or TIDEGATE_CONTROL, or --bus URL\n")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/control.hub")
        assert run("publish", "h:1", "x", "--bus", f"local://{tmp_path}/control.hub") == 5
        said = words(capsys)[1]
    assert "(connection refused): give the path of a daemon's socket" in said
    assert "a daemon whose application declares no channels, or has them on another bus, does not listen" in said


def test_a_hub_that_restarts_is_waited_for(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    room.hubs.end(signal.SIGKILL)
    room.worker.close()
    timer = threading.Timer(0.3, room.start)
    timer.start()
    assert run("publish", "h:1", "x", "--wait", f"{PATIENCE}", "--control", room.control) == 0
    timer.join()
    assert [message.data for message in room.stored("h:1")] == ["x"]


def test_a_hub_that_does_not_answer_is_not_waited_for_without_end(
    room: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    os.kill(room.hubs.pid, signal.SIGSTOP)
    try:
        assert run("publish", "h:1", "x", "--wait", "0.2", "--control", room.control) == 5
    finally:
        os.kill(room.hubs.pid, signal.SIGCONT)
    assert words(capsys)[1] == "tidegate publish: the bus is down: it does not answer\n"


@pytest.mark.slow
def test_a_hub_that_stops_meanwhile_may_have_stored_it(
    room: Room, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = publish.connect

    async def stop(*args: Any) -> Bus:
        bus = await connect(*args)
        os.kill(room.hubs.pid, signal.SIGSTOP)
        return bus

    monkeypatch.setattr(publish, "connect", stop)
    try:
        assert run("publish", "h:1", "x", "--wait", "0.2", "--control", room.control) == 6
    finally:
        os.kill(room.hubs.pid, signal.SIGCONT)
    assert words(capsys)[1] == (
        "tidegate publish: the bus is down: the hub has not acknowledged it in time; what was published may or may not"
        " be stored\n"
    )


def test_an_engine_of_its_own_needs_the_application(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidegate.bus import connect

    monkeypatch.setitem(connect.ENGINES, "redis", connect.ENGINES["memory"])
    assert run("publish", "h:1", "x", "--bus", "redis://somewhere") == 2
    assert words(capsys)[1] == (
        "tidegate publish: what is stored of channels on redis:// is declared by their application: give --application"
        " MODULE:ATTRIBUTE as well, or --control PATH of a daemon that has it in place of --bus\n"
    )
    assert run("publish", "h:1", "x", "--bus", "redis://somewhere", "--application", "nowhere_at_all:app") == 1
    assert "nowhere_at_all" in words(capsys)[1]

    async def handler(websocket: object) -> None: ...

    module = types.ModuleType("declares")
    module.app = App(handler, channels=HISTORY)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "declares", module)
    assert publish._channels("declares:app") == HISTORY


# A daemon whose bus is not its hub: the supervisor says where it is, and what its application declares.


@contextlib.contextmanager
def supervisor(folder: Path, answer: Answer) -> Iterator[str]:
    """The control socket of a daemon that gives one answer to one request."""

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            assert control_protocol.read_request(client.recv(4096)) == control_protocol.Bus()
            client.sendall(control_protocol.encode(answer))

    path = str(folder / "control.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()
    os.unlink(path)


def place(url: str, said: bytes | None) -> Answer:
    return Answer(True, bus=BusPlace(url, msgspec.UNSET if said is None else msgspec.Raw(said)))


def test_the_channels_of_a_daemon_on_another_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RedisServer() as server:
        for said, status in ((declare(HISTORY, 100), 0), (declare(HISTORY, 4), 2)):
            with supervisor(tmp_path, place(server.url, said)) as control:
                assert run("publish", "h:1", "hello", "--control", control) == status

        async def stored() -> list[Any]:
            async with Bus(server.url, channels=HISTORY) as bus:
                return [message.data for message in await bus.history("h:1")]

        assert asyncio.run(stored()) == ["hello"]
    out, err = words(capsys)
    assert out.strip().endswith(".1")
    assert err == "tidegate publish: h:1: message of 5 bytes exceeds the bus's limit of 4 bytes\n"


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (
            place("redis://127.0.0.1:1", None),
            5,
            "the bus is down: no worker has said yet which channels there are; try again",
        ),
        (place("redis://127.0.0.1:1", declare(None, 1)), 5, "the bus is down: the application declares no channels"),
        (
            place("local:///run/control.hub", declare(None, 1)),
            5,
            "the bus is down: the application declares no channels",
        ),
        (place("local:///run/control.hub", declare(HISTORY, 1)), 5, "no bus listens on "),
        (
            place("memory://", declare(HISTORY, 1)),
            1,
            "the daemon has --bus memory://: each of its workers has channels",
        ),
        (Answer(False, "there is no command 'bus'"), 1, "there is no command 'bus'"),
    ],
)
def test_why_a_daemon_has_no_bus_to_publish_on(
    answer: Answer, status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with supervisor(tmp_path, answer) as control:
        assert run("publish", "h:1", "x", "--control", control) == status
    assert words(capsys)[1].startswith(f"tidegate publish: {said}")

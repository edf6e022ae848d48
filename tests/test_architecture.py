"""The architecture guide: its files exist, its floors are those of test_source.py, and programs take its walks.

Programs run with a profiler that records which functions are called. It does not see calls between native functions: of
these the tests check that they are defined, and called in the files of the walk.

What must not live here: what the parts do (the tests of each part).
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.harness import ECHO, ROOT, Daemon, wait_until
from tests.support.rawclient import RawClient
from tests.support.trace import Trace, native
from tests.test_source import MAY_IMPORT, ROOT_FLOORS, SOURCE, reach
from tidegate._core.messages import MessageChannel
from tidegate._core.stream import Stream
from tidegate.asyncio import access_log
from tidegate.asyncio.server import ServerConnection, serve

PAGE = (ROOT / "deploy" / "guides" / "architecture.md").read_text(encoding="utf-8")
FILE = r"(?:\w+/)*\w+\.(?:py|pyx|h)"
HANDSHAKE = 10
"""Files that hold an opening handshake, at most."""

# The native half of a connection is one class: whichever of its parts a method is in, Python calls the channel.
CHANNEL = {native(kind) for kind in MessageChannel.__mro__ if kind.__module__.startswith("tidegate")}
STREAM = {native(kind) for kind in Stream.__mro__ if kind.__module__.startswith("tidegate")} - {"_core/poller.pyx"}
WHOLE = [(CHANNEL, "_core/channel.pyx"), (STREAM, "_core/stream.pyx")]


def section(title: str) -> str:
    found = re.search(rf"^(#+) {title}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[2]


def rows(title: str) -> list[list[str]]:
    """The cells of the table in a section, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@dataclass(frozen=True)
class Step:
    """A file of a walk, and the functions that are named with it."""

    file: str
    functions: list[str]


def walk(title: str) -> list[Step]:
    items = re.findall(rf"^\d+\. `({FILE})`(.*?)(?=^\d+\. |^$)", section(title), re.MULTILINE | re.DOTALL)
    return [Step(file, re.findall(r"`(\w+)\([^`]*\)`", text)) for file, text in items]


def files_of(title: str) -> list[str]:
    return list(dict.fromkeys(step.file for step in walk(title)))


WALKS = ["One message in", "One message out", "One opening handshake", "One reload", "One setting", "One metric"]
each_walk = pytest.mark.parametrize("title", WALKS)


def source(file: str) -> str:
    return (SOURCE / file).read_text(encoding="utf-8")


def defines(file: str, name: str) -> bool:
    return (
        re.search(rf"^\s*(?:async |cdef |static )?(?:def |inline |[\w ]+[ *]){name}\(", source(file), re.M) is not None
    )


def calls(file: str, name: str) -> bool:
    """Whether a file calls a function by its name, or hands it on to be called."""
    text = re.sub(r"^\s*(?:async |cdef )?def .*$", "", source(file), flags=re.MULTILINE)
    return re.search(rf"\b{name}\(|\.{name}\b", text) is not None


def test_files_exist() -> None:
    named = re.findall(rf"`({FILE})`", PAGE) + re.findall(r"`((?:\w+/)+)`", PAGE)
    assert len(named) > 100
    assert [name for name in named if not ((SOURCE / name).exists() or (ROOT / name).exists())] == []


def test_floors() -> None:
    """The table is that of test_source.py."""
    written = {
        re.findall(r"`(\w+)`", name)[0]: set(re.findall(r"`([\w.]+)`", allowed)) for name, _, allowed in rows("Floors")
    }
    assert written == {name: allowed - {name} for name, allowed in MAY_IMPORT.items()}


def test_modules_of_the_root_are_on_their_floor() -> None:
    for name, text, _ in rows("Floors"):
        modules = {file.removesuffix(".py") for file in re.findall(r"`(\w+\.py)`", text)}
        assert modules <= ROOT_FLOORS.get(name.strip("`"), set()), name


def test_words_are_in_order_and_there_once() -> None:
    words = [word for word, *_ in rows("Glossary")]
    assert len(words) > 29
    assert words == sorted(set(words))


@each_walk
def test_functions_are_defined(title: str) -> None:
    """Each step names one of its own file; others that it names are in the walk's other files, or the channel's."""
    steps = walk(title)
    others = {step.file for step in steps} | CHANNEL | {"config/schema.py"}
    for step in steps:
        assert any(defines(step.file, name) for name in step.functions) or step.file in NAMELESS, step.file
    named = re.findall(r"`(\w+)\([^`]*\)`", section(title))
    assert [name for name in named if not any(defines(file, name) for file in others)] == []


@each_walk
def test_steps_hang_together(title: str) -> None:
    """From each file of a walk calls lead to each other one, or from others to it."""
    steps = walk(title)
    near: dict[str, set[str]] = {step.file: set() for step in steps}
    for step in steps:
        for file in near.keys() - {step.file}:
            known = step.file in NAMELESS and Path(step.file).stem in words_of(file)
            if known or any(
                defines(step.file, name) and (name in OF_ASYNCIO or calls(file, name)) for name in step.functions
            ):
                near[file].add(step.file)
                near[step.file].add(file)
    assert reach(steps[0].file, near) | {steps[0].file} == near.keys()


def words_of(file: str) -> set[str]:
    return set(re.findall(r"\w+", source(file)))


# What the event loop calls.
OF_ASYNCIO = {"connection_made", "data_received"}

NAMELESS = {"datastructures.py", "_core/counters.h", "config/schema.py", "config/types.py", "metrics/catalog.py"}


async def opened(headers: dict[str, str | None] | None = None) -> Trace:
    """What is entered from accepting a connection to the start of its handler, on an event loop that is Python's."""
    seen = Trace()
    begun = asyncio.Event()

    async def handler(websocket: ServerConnection) -> None:
        seen.__exit__()
        begun.set()
        await websocket.wait_closed()

    async with serve(handler, "127.0.0.1", 0) as server:
        for number in range(2):  # what is imported, cached or made once, is there for the second one
            begun.clear()
            with RawClient(server.sockets[0].getsockname()[1]) as client:
                client.send(wire.request(headers=headers))
                if number:
                    seen.__enter__()
                await begun.wait()
            if server.handler_tasks:
                await asyncio.wait(server.handler_tasks)
    return seen


def merged(entered: list[str]) -> list[str]:
    return list(dict.fromkeys(next((whole for parts, whole in WHOLE if file in parts), file) for file in entered))


async def test_a_handshake() -> None:
    """Ten files, in the order of the page; the first is native, and calls Python's."""
    first, *listed = files_of("One opening handshake")
    assert first == "_core/listener.pyx"
    assert len(listed) < HANDSHAKE
    seen = await opened()
    assert merged(seen.files) == listed
    assert untold("One opening handshake", seen.functions) == []


async def test_a_handshake_that_is_not_plain() -> None:
    """A header that asks for something: an object is made of the request, and the rules of server.py judge it."""
    plain, seen = await opened(), await opened({"Sec-WebSocket-Protocol": "chat"})
    assert set(seen.files) - set(plain.files) == {"http11.py", "datastructures.py", "headers.py"}
    assert ("server.py", "accept") in seen.functions


async def test_a_handshake_with_compression() -> None:
    plain, seen = await opened(), await opened({"Sec-WebSocket-Extensions": "permessage-deflate"})
    compression = {"extensions/permessage_deflate.py", "asyncio/sender.py", "headers.py"}
    assert set(seen.files) - set(plain.files) == compression


async def test_a_handshake_with_an_access_log() -> None:
    plain, level = await opened(), access_log.logger.level
    access_log.logger.setLevel(logging.INFO)
    try:
        seen = await opened()
    finally:
        access_log.logger.setLevel(level)
    assert set(seen.files) - set(plain.files) >= {"asyncio/access_log.py"}


async def test_messages_are_native() -> None:
    """While messages come and go, no Python function of the package is entered, and no native one off the walks."""
    seen = Trace()

    async def handler(websocket: ServerConnection) -> None:
        await websocket.send(await websocket.recv())
        with seen:
            async for message in websocket:
                await websocket.send(message)
                if message == "last":
                    break

    async with serve(handler, "127.0.0.1", 0) as server:
        with await asyncio.to_thread(RawClient, server.sockets[0].getsockname()[1]) as client:
            await asyncio.to_thread(client.open)
            for message in (b"first", b"next", b"last"):
                client.send(wire.frame(message))
                assert await asyncio.to_thread(client.frame) == (0x81, message)
    seen.functions.pop(("asyncio/server_connection.py", "_handle"))  # it awaits the handler, and must have gone on
    assert set(seen.files) <= {*files_of("One message in"), *files_of("One message out")}


def untold(title: str, entered: Collection[tuple[str, str]]) -> list[str]:
    """The functions of Python files that a walk names and that were not entered."""
    files = {step.file for step in walk(title) if step.file.endswith(".py")} | {"config/schema.py"}
    return [
        f"{file}: {name}()"
        for step in walk(title)
        for name in step.functions
        for file in ({step.file} if defines(step.file, name) else files)
        if file.endswith(".py") and defines(file, name) and (file, name) not in entered
    ]


class Traced(Daemon):
    """A daemon that writes down which functions its processes enter.

    Parameters:
        path: where it does so.
        first: the functions from whose first call on each process does.
        options: of the daemon.
    """

    def __init__(self, path: Path, first: str, *options: str, workers: int) -> None:
        super().__init__(ECHO, *options, workers=workers, env={"PYTHONPATH": str(ROOT)})
        self.path = path
        module = self.command.index("tidegate")
        self.command[module : module + 1] = ["tests.support.trace", str(path), first]

    @property
    def entered(self) -> list[tuple[str, str]]:
        """Files and functions, in the order of the first calls in any process."""
        pairs = (line.split() for line in self.path.read_text(encoding="utf-8").splitlines())
        return list(dict.fromkeys((file, name) for file, name in pairs))


def test_a_reload(tmp_path: Path) -> None:
    """In the supervisor and the new workers from the signal on, in the old ones from their drain on."""
    functions = "Supervisor._on_request,Drain.stop_accepting"
    daemon = Traced(tmp_path / "entered", functions, "--settle", "0.1", workers=2)
    with daemon:
        assert daemon.entered == []
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "generation 1 has ended" in daemon.log, "the reload")
        entered = [AT_THE_SIGNAL, *daemon.entered]
        assert untold("One reload", entered) == []
        steps = [[name for name in step.functions if defines(step.file, name)] for step in walk("One reload")]
        last = [(step.file, names[-1]) for step, names in zip(walk("One reload"), steps, strict=True)]
        places = [entered.index(function) for function in last if function[0] not in UNORDERED]
        assert places == sorted(places)
        assert daemon.stop() == 0


# What has been called when a signal is known.
AT_THE_SIGNAL = ("supervisor/signals.py", "read")

# Reports come at any time, and the supervisor waits for old workers to stop accepting for a limited time only.
UNORDERED = {"ipc/pipe.py", "supervisor/counters.py"}


def test_a_setting_and_a_metric(tmp_path: Path) -> None:
    """A client that answers no ping: the setting has its effect, and the metric counts it."""
    options = ("--ping-interval", "100ms", "--ping-timeout", "1s")
    daemon = Traced(tmp_path / "entered", "main", *options, workers=1)
    with daemon:
        with RawClient(daemon.port) as client:
            client.open()
            first, payload = client.frame()
            assert first == 0x89
            client.send(wire.frame(payload, wire.PONG))
            assert client.close_frame() == (1011, "keepalive ping timeout")
        daemon.wait_metric("tidegate_pong_timeouts_total", 1)
        assert untold("One setting", daemon.entered) == []
        assert untold("One metric", daemon.entered) == []

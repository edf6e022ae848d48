"""The peers, and how a test talks to them: each is a program of peers/, told what to do (peers/program.py).

tidegate is one of them, so that a test sees two equal ends: it runs the program of `websockets`, by its own name.
What must not live here: test cases, and what one library does (peers/).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.browser import chromium
from tests.interop.peers.program import LIMIT, Closed, Message, Rejected, pack, unpack
from tests.support import cache
from tests.support.harness import ROOT, require
from tests.support.patience import PATIENCE

PROGRAMS = Path(__file__).parent / "peers"


class Kind(NamedTuple):
    """A peer that there is.

    Fields:
        arguments: its command after the interpreter, and what must be added to the environment.
        cannot: what its library offers no way to do, and is not tested with it: "serve", "fragments" (sending them),
            "ping" (sending one), "headers" (seeing or setting them), "max_size", "user" (passwords), "parameters"
            (asking for parameters of permessage-deflate; "server:parameters" is when it serves), "plain" (not
            offering permessage-deflate), "late" (reading what came before the close frame after it).
        slow: starting it takes long.
    """

    command: Callable[[], tuple[list[str], dict[str, str]]]
    cannot: frozenset[str] = frozenset()
    slow: bool = False


def _python(program: str, *arguments: str, **environment: str) -> Callable[[], tuple[list[str], dict[str, str]]]:
    return lambda: ([sys.executable, "-m", f"tests.interop.peers.{program}", *arguments], environment)


def _websockets_13(program: str, *arguments: str) -> Callable[[], tuple[list[str], dict[str, str]]]:
    """With release 13.1 before the current one on the path."""

    def install(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        cache.run([*pip, "--target", str(folder), "websockets==13.1"])

    def command() -> tuple[list[str], dict[str, str]]:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        folder = cache.installed(f"websockets-13.1-python-{version}", install)
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        return _python(program, *arguments, PYTHONPATH=path)()

    return command


def _ws() -> tuple[list[str], dict[str, str]]:
    node, npm = shutil.which("node"), shutil.which("npm")
    require(node and npm, "Node with npm (Debian's packages `nodejs` and `npm`)")
    assert node is not None
    assert npm is not None

    def install(folder: Path) -> None:
        cache.run([npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "ws@8"])

    folder = cache.installed("ws-8", install)
    return [node, str(PROGRAMS / "with_ws.js"), str(folder / "node_modules/ws")], {}


def _chromium() -> tuple[list[str], dict[str, str]]:
    require(chromium.path(), chromium.PACKAGE)
    return _python("with_chromium")()


TIDEGATE = Kind(_python("with_websockets", "tidegate", TIDEGATE_PEER_LOOP="uvloop"))
PEERS = {  # all but tidegate
    "websockets": Kind(_python("with_websockets", "websockets")),
    "websockets-13": Kind(_websockets_13("with_websockets", "websockets"), cannot=frozenset({"late"}), slow=True),
    "websockets-13-legacy": Kind(_websockets_13("with_websockets_legacy"), slow=True),
    "aiohttp": Kind(_python("with_aiohttp"), cannot=frozenset({"fragments", "parameters"})),
    "wsproto": Kind(_python("with_wsproto"), cannot=frozenset({"max_size", "user", "server:parameters"})),
    "ws": Kind(_ws, slow=True),
    "chromium": Kind(
        _chromium,
        cannot=frozenset({"serve", "fragments", "ping", "headers", "max_size", "user", "parameters", "plain"}),
        slow=True,
    ),
}


class End:
    """One end of a connection. What it can do is described at peers/program.py's Connection."""

    def __init__(self, peer: RunningPeer, opened: dict[str, Any]) -> None:
        self._peer, self._number = peer, opened["connection"]
        self.subprotocol: str | None = opened["subprotocol"]
        self.headers: dict[str, str] = opened["headers"]

    async def send(self, message: Message) -> None:
        """Send a message."""
        await self._ask("send", message=pack(message))

    async def fragments(self, parts: Iterable[Message]) -> None:
        """Send a message in a frame for each part."""
        await self._ask("fragments", parts=[pack(part) for part in parts])

    async def recv(self) -> Message | Closed:
        """The next message, or how the connection ended."""
        return unpack(await self._ask("recv"))

    async def ping(self, data: bytes) -> None:
        """Send a ping, and wait for its pong."""
        await self._ask("ping", message=pack(data))

    async def close(self, code: int = 1000, reason: str = "") -> Closed:
        """Close it, wait for the end, and tell what the other side said."""
        closed = unpack(await self._ask("close", code=code, reason=reason))
        assert isinstance(closed, Closed)
        return closed

    async def _ask(self, do: str, **arguments: Any) -> Any:
        return await self._peer.ask(do, connection=self._number, **arguments)


class RunningPeer:
    """A running program, as a context manager. RuntimeError for what fails in it."""

    def __init__(self, kind: Kind) -> None:
        self._command, self._environment = kind.command()
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def __aenter__(self) -> RunningPeer:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **self._environment},
            limit=LIMIT,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            raise
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            answer = self._answers.pop(told["number"])
            if not answer.done():
                answer.set_result(told["answer"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(RuntimeError(f"{self._command} has ended"))

    async def ask(self, do: str, **arguments: Any) -> Any:
        """Tell it to do something; its answer."""
        assert self._process.stdin is not None
        if self._reading.done():
            raise RuntimeError(f"{self._command} has ended")
        number = next(self._numbers)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"number": number, "do": do, **arguments}).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            match await future:
                case {"error": str(error)}:
                    raise RuntimeError(error)
                case {"rejected": status}:
                    raise Rejected(status)
                case answer:
                    return answer

    async def connect(self, uri: str, **options: Any) -> End:
        """Open a connection; Rejected when it is refused."""
        return End(self, await self.ask("connect", uri=uri, options=options))

    async def serve(self, **options: Any) -> int:
        """Listen; the port."""
        port: int = await self.ask("serve", options=options)
        return port

    async def accept(self) -> End:
        """The next connection to its servers."""
        return End(self, await self.ask("accept"))


class Company:
    """The peers that have been needed so far, as a context manager."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._peers: dict[str, RunningPeer] = {}

    async def __aenter__(self) -> Company:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def invite(self, name: str) -> RunningPeer:
        """The peer called "tidegate", or one of PEERS, started by the first who asks."""
        if name not in self._peers:
            kind = TIDEGATE if name == "tidegate" else PEERS[name]
            self._peers[name] = await self._stack.enter_async_context(RunningPeer(kind))
        return self._peers[name]

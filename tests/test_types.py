"""What type checkers make of the public API, in programs as users write them.

What must not live here: the types of our own source (tests/test_source.py), the aliases (tests/test_typing.py).
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.harness import ROOT

PROGRAM = """
    import re
    from collections.abc import AsyncIterator, Sequence
    from typing import Any, assert_type

    from tidegate import App, Close, Data, Origin, Response, Subprotocol, connect, route, serve
    from tidegate.asyncio.client import ClientConnection
    from tidegate.asyncio.server import Server, ServerConnection
    from tidegate.exceptions import ConnectionClosed, InvalidStatus
    from tidegate.frames import CLOSE, TEXT, Opcode


    async def handler(websocket: ServerConnection) -> None:
        assert_type(await websocket.recv(), str | bytes)
        assert_type(await websocket.recv(decode=True), str)
        assert_type(await websocket.recv(True), str)
        assert_type(await websocket.recv(decode=False), bytes)
        assert_type(websocket.recv_streaming(), AsyncIterator[Data])
        async for text in websocket.recv_streaming(decode=True):
            assert_type(text, str)
            text.upper()
        async for data in websocket.recv_streaming(False):
            assert_type(data, bytes)
        async for message in websocket:
            assert_type(message, str | bytes)
            await websocket.send(message)
        await websocket.send(["a", "b"])
        latency = await websocket.ping()
        assert_type(await latency, float)
        assert_type(websocket.subprotocol, Subprotocol | None)
        assert_type(websocket.server, Server)
        assert_type(websocket.server.connections, set[ServerConnection])


    def select(connection: ServerConnection, offered: Sequence[Subprotocol]) -> str | None:
        return offered[0] if offered else "chat"


    origins: list[str] = ["https://example.com"]
    subprotocols: list[str] = ["chat"]


    async def main() -> None:
        async with serve(handler, "", 8765, origins=origins, subprotocols=subprotocols, select_subprotocol=select):
            pass
        async with serve(handler, origins=["https://a.example", re.compile("x"), None]):
            pass
        async with serve(handler, origins=[Origin("https://a.example")], subprotocols=[Subprotocol("chat")]):
            pass
        async with connect("ws://localhost", origin="https://a.example", subprotocols=["chat"]) as websocket:
            assert_type(websocket, ClientConnection)
            assert_type(await websocket.recv(decode=False), bytes)
        async for connection in connect("ws://localhost"):
            assert_type(connection, ClientConnection)
        try:
            await connect("ws://localhost")
        except InvalidStatus as exc:
            assert_type(exc.response, Response)
        except ConnectionClosed as exc:
            assert_type(exc.rcvd, Close | None)


    app = App(handler, origins=origins, subprotocols=subprotocols)
    opcodes: tuple[Opcode, Opcode] = (TEXT, CLOSE)
"""

WRONG = """
    from tidegate.asyncio.server import ServerConnection, serve


    async def handler(websocket: ServerConnection) -> None:
        text: str = await websocket.recv(decode=False)
        async for part in websocket.recv_streaming(decode=False):
            part.encode()


    serve(handler, origins=[1])
"""


def check(program: str, folder: Path) -> str:
    """What mypy says of a program."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(program))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", ROOT / "pyproject.toml", path]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600).stdout


@pytest.mark.slow
def test_a_program_that_is_right(tmp_path: Path) -> None:
    assert check(PROGRAM, tmp_path).startswith("Success: no issues found in 1 source file")


@pytest.mark.slow
def test_a_program_that_is_wrong(tmp_path: Path) -> None:
    said = check(WRONG, tmp_path)
    assert "variable has type" in said
    assert '"bytes" has no attribute "encode"' in said
    assert "List item 0 has incompatible type" in said
    assert "Found 3 errors in 1 file" in said

"""That the other side of tests can be trusted: its codec reads what it writes, and nothing that fails in it is lost.

What must not live here: tests of tidegate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.harness import ROOT
from tests.support.patience import LONG
from tests.support.rawpeer import ClientPeer, RawServer, ServerPeer, forever


@pytest.mark.parametrize("mask", [None, b"\0\0\0\0", b"\1\2\3\4"])
@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70_000])
def test_frames_are_read_as_they_were_written(length: int, mask: bytes | None) -> None:
    payload = bytes(range(256)) * (length // 256 + 1)
    one = wire.frame(payload[:length], wire.BINARY, fin=False, rsv=4, mask=mask)
    found = list(wire.parsed(one + wire.close(1001, "bye", mask=mask)))
    assert found == [(0x42, mask, payload[:length]), (0x88, mask, b"\x03\xe9bye")]
    assert (found[0].fin, found[0].rsv, found[0].opcode) == (False, 4, wire.BINARY)
    assert wire.close_of(found[1].payload) == (1001, "bye")


def test_a_frame_is_masked_as_the_rfc_shows() -> None:
    """RFC 6455 section 5.7."""
    assert wire.frame(b"Hello", mask=None) == bytes.fromhex("810548656c6c6f")
    assert wire.frame(b"Hello", mask=bytes.fromhex("37fa213d")) == bytes.fromhex("818537fa213d7f9f4d5158")


def test_a_partial_frame_is_an_error_unless_it_is_expected() -> None:
    data = wire.frame(b"whole") + wire.frame(b"half")[:-1]
    assert [payload for _, _, payload in wire.parsed(data, partial=True)] == [b"whole"]
    with pytest.raises(AssertionError, match="the last frame lacks 1 bytes"):
        list(wire.parsed(data))


def test_a_request_is_accepted_as_the_rfc_shows() -> None:
    """RFC 6455 section 1.3."""
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in wire.acceptance("dGhlIHNhbXBsZSBub25jZQ==")


async def test_what_a_handler_asserts_fails_the_test() -> None:
    async def handler(peer: ServerPeer) -> None:
        assert (await peer.open()).line == "POST / HTTP/1.1"

    async def visit() -> None:
        async with RawServer(handler) as server:
            with contextlib.closing(await ClientPeer.connect(server.port)) as peer:
                await peer.handshake()

    with pytest.raises(AssertionError, match="GET"):
        await visit()


async def test_a_frame_that_never_comes_fails_the_test() -> None:
    async def handler(peer: ServerPeer) -> None:
        assert await (await peer.open()).frame() == (0x88, b"")

    async def leave() -> None:
        async with RawServer(handler) as server:
            peer = await ClientPeer.connect(server.port)
            await peer.handshake()
            peer.close()

    with pytest.raises(asyncio.IncompleteReadError):
        await leave()


async def test_silence_ends_with_the_test() -> None:
    async with RawServer(forever) as server:
        peer = await ClientPeer.connect(server.port)
    await peer.end()
    peer.close()


LOGGED = """
import pytest
from tests.support.rawpeer import ClientPeer
from tests.asyncio.ends import serving

async def test_nothing_but_the_hook():
    def hook(connection, request):
        assert request.path == "/other"

    async with serving(lambda websocket: None, process_request=hook) as made:
        assert (await made.ask())[0] == 500
"""


@pytest.mark.slow
def test_what_a_hook_asserts_fails_the_test_although_the_server_goes_on(tmp_path: Path) -> None:
    """The server only logs it (tests/conftest.py)."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    (tmp_path / "test_logged.py").write_text(LOGGED)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-n", "0", "test_logged.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG,
    )
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "assert request.path == " in done.stdout

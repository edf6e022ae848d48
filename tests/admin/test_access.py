"""Who may ask the admin address: tokens over real sockets, and pages of others."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator

import pytest

from tests.admin.process import Admin, start
from tidegate import InvalidStatus, connect
from tidegate._core.scoreboard import Scoreboard
from tidegate.admin.access import BEARER, PROTOCOL

TOKEN = "correct-horse/battery+staple=="


@pytest.fixture
def guarded(board: Scoreboard) -> Iterator[Admin]:
    """An admin process that has a token."""
    admin = start(board, token=TOKEN)
    admin.pipe.settimeout(30)
    admin.pipe.recv(4096)
    yield admin
    os.kill(admin.pid, signal.SIGKILL)
    admin.wait()
    admin.pipe.close()


def live(admin: Admin) -> str:
    return f"ws://127.0.0.1:{admin.ports[0]}/live"


@pytest.mark.parametrize("path", ["/metrics", "/status", "/live", "/nothing"])
def test_without_the_token(guarded: Admin, path: str) -> None:
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        status, headers, body = guarded.get(path, **given)
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="tidegate"')
        assert body == b"the token of --admin-token is needed, as in: Authorization: Bearer TOKEN\n"
        assert TOKEN.encode() not in body


@pytest.mark.parametrize("path", ["/metrics", "/status"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_with_the_token(guarded: Admin, path: str, scheme: str) -> None:
    assert guarded.get(path, Authorization=f"{scheme} {TOKEN}")[0] == 200


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz"])
def test_open_to_everybody(guarded: Admin, path: str) -> None:
    assert guarded.get(path)[0] != 401


def test_the_page_knows_that_it_needs_one(guarded: Admin, admin: Admin) -> None:
    assert b"<html data-token" in guarded.get("/")[2]
    assert b"<html data-token" not in admin.get("/")[2]
    assert TOKEN.encode() not in guarded.get("/")[2]


async def test_live_with_a_header(guarded: Admin) -> None:
    async with connect(live(guarded), additional_headers={"Authorization": f"Bearer {TOKEN}"}) as websocket:
        assert websocket.subprotocol is None
        assert await websocket.recv()


async def test_live_as_a_page_asks(guarded: Admin) -> None:
    encoded = base64.urlsafe_b64encode(TOKEN.encode()).rstrip(b"=").decode()
    async with connect(live(guarded), subprotocols=[PROTOCOL, BEARER + encoded]) as websocket:  # type: ignore[list-item]
        assert websocket.subprotocol == PROTOCOL  # and never the token
        assert await websocket.recv()


@pytest.mark.parametrize("offered", [[PROTOCOL], [PROTOCOL, BEARER + "d3Jvbmc"], [BEARER + "!"], [BEARER + "a"]])
async def test_live_without_the_token(guarded: Admin, offered: list[str]) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(live(guarded), subprotocols=offered)  # type: ignore[arg-type]
    assert caught.value.response.status_code == 401


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://"])
async def test_pages_of_others_are_refused(admin: Admin, guarded: Admin, origin: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(live(admin), origin=origin)  # type: ignore[arg-type]
    assert caught.value.response.status_code == 403
    header = {"Authorization": f"Bearer {TOKEN}"}
    with pytest.raises(InvalidStatus) as caught:
        await connect(live(guarded), origin=origin, additional_headers=header)  # type: ignore[arg-type]
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize(("name", "status"), [("rebound.example", 403), ("localhost", 200), ("127.0.0.1", 200)])
def test_names_that_lead_here_by_somebody_elses_will(admin: Admin, guarded: Admin, name: str, status: int) -> None:
    """A page of rebound.example, whose name now means 127.0.0.1, is of the same origin as what it asks."""
    assert admin.get("/status", Host=f"{name}:80", Origin=f"http://{name}:80")[0] == status
    asked = guarded.get("/status", Host=name, Origin=f"http://{name}", Authorization=f"Bearer {TOKEN}")
    assert asked[0] == 200


def test_the_page_may_run_only_itself(admin: Admin) -> None:
    _, headers, _ = admin.get("/")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src '")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"

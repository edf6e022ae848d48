"""Who may ask the admin address: tokens over real sockets, and pages of others."""

from __future__ import annotations

import base64
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.admin.process import Admin, start
from tests.support.patience import PATIENCE
from tidegate import InvalidStatus, connect
from tidegate._core.scoreboard import Scoreboard
from tidegate.admin.authorization import BEARER, PROTOCOL

TOKEN = "correct-horse/battery+staple=="


@pytest.fixture
def guarded(board: Scoreboard) -> Iterator[Admin]:
    """An admin process that has a token."""
    admin = start(board, token=TOKEN)
    admin.pipe.settimeout(PATIENCE)
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


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_pages_of_others_are_refused(admin: Admin, guarded: Admin, origin: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(live(admin), origin=origin)  # type: ignore[arg-type]
    assert caught.value.response.status_code == 403
    header = {"Authorization": f"Bearer {TOKEN}"}
    with pytest.raises(InvalidStatus) as caught:
        await connect(live(guarded), origin=origin, additional_headers=header)  # type: ignore[arg-type]
    assert caught.value.response.status_code == 403


NAMES = {
    "rebound.example:80": False,
    "rebound.example": False,
    "localhost.rebound.example": False,
    "127.0.0.1.rebound.example": False,
    "localhost:80": True,
    "LOCALHOST": True,
    "tide.localhost": True,
    "127.0.0.1": True,
    "[::1]:9465": True,
    "10.0.0.7": True,
}


@pytest.mark.parametrize("page", [True, False])
def test_names_that_lead_here_by_somebody_elses_will(admin: Admin, guarded: Admin, page: bool) -> None:
    """A page of rebound.example, whose name now means 127.0.0.1, is of the same origin as what it asks."""
    for name, known in NAMES.items():
        told = {"Origin": f"http://{name}"} if page else {"Sec-Fetch-Site": "same-origin"}
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            allowed = 200 if method in ("GET", "HEAD") else 405
            for path in ("/status", "/metrics"):
                status, headers, body = admin.get(path, method, Host=name, **told)
                assert status == (allowed if known else 403), (name, method, path)
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert b"workers" not in body or known
            # Who has the token is no page of somebody else's.
            asked = guarded.get("/status", method, Host=name, Authorization=f"Bearer {TOKEN}", **told)
            assert asked[0] == allowed


async def test_live_by_a_name_of_somebody_elses(admin: Admin) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://rebound.example:{admin.ports[0]}/live", host="127.0.0.1", proxy=None)
    assert caught.value.response.status_code == 403


async def test_names_of_our_own(board: Scoreboard) -> None:
    """A reverse proxy passes the name on by which it was asked."""
    admin = start(board, names=("status.example",))
    try:
        admin.pipe.settimeout(PATIENCE)
        admin.pipe.recv(4096)
        for name in ("status.example", "Status.Example:8443", "status.example."):
            assert admin.get("/status", Host=name)[0] == 200
            assert admin.get("/status", Host=name, Origin=f"https://{name}")[0] == 200
        assert admin.get("/status", Host="other.status.example")[0] == 403
        assert admin.get("/status", Host="status.example", Origin="https://evil.example")[0] == 403
    finally:
        os.kill(admin.pid, signal.SIGKILL)
        admin.wait()
        admin.pipe.close()


def test_probes_may_call_it_what_they_like(admin: Admin) -> None:
    """They are of load balancers, and are told nothing that matters."""
    assert admin.get("/livez", Host="backend.internal")[0] == 200
    with socket.create_connection(("127.0.0.1", admin.ports[0]), 60) as old:
        old.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert old.makefile("rb").readline().split()[1] == b"503"  # only one of two workers is ready


@pytest.mark.parametrize(
    "lines",
    [
        "Host: [",
        "Host: a b",
        "Host: evil.example@127.0.0.1",
        "Host: 127.0.0.1/evil.example",
        "Host: localhost\r\nHost: localhost",
        "Host: localhost\r\nHost: rebound.example",
        "Host: localhost\r\nOrigin: http://[",
        "Host: localhost\r\nOrigin: http://localhost:x",
        "Host: localhost\r\nOrigin: http://localhost:99999",
        "Host: localhost\r\nOrigin: localhost",
        "Host: localhost\r\nOrigin: http://localhost/page",
        "Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://localhost",
        "Host: localhost\r\nOrigin:",
    ],
)
def test_nonsense_is_a_bad_request(admin: Admin, lines: str) -> None:
    with socket.create_connection(("127.0.0.1", admin.ports[0]), 60) as client:
        client.sendall(f"GET /status HTTP/1.1\r\n{lines}\r\n\r\n".encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"nosniff" in answer


def test_the_page_may_run_only_itself(admin: Admin) -> None:
    _, headers, _ = admin.get("/")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src '")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"

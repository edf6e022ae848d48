"""Who is let in: limits and their answers, clients behind proxies, descriptors by their numbers.

What must not live here: counting itself (test_limits.py), PROXY headers and TLS (test_transport_setup.py), daemons
(tests/process/test_limits.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.asyncio.test_handshake import results
from tests.support import wire
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient
from tidegate._core.counters import LIMITS, Row
from tidegate.asyncio.admission import Admission, Verdict, descriptors
from tidegate.asyncio.client import connect
from tidegate.asyncio.options import ProcessPolicy
from tidegate.asyncio.server import Server, ServerConnection, serve
from tidegate.exceptions import InvalidStatus
from tidegate.http11 import Request
from tidegate.limits import Limiter
from tidegate.networks import Networks

MANY = (2**30, 2**30)


async def tell_address(websocket: ServerConnection) -> None:
    await websocket.send(repr(websocket.remote_address))
    async for _ in websocket:
        pass


@asynccontextmanager
async def limiting(
    limiter: Limiter | None = None, trusted: tuple[str, ...] = (), **options: Any
) -> AsyncIterator[Server]:
    """A server behind a admission."""
    served = {name: options.pop(name) for name in ("process_request", "open_timeout") if name in options}
    admission = Admission(limiter or Limiter(), trusted=Networks(trusted), **{"limits": MANY, **options})
    async with serve(tell_address, "127.0.0.1", 0, policy=ProcessPolicy(admission), **served) as server:
        yield server


def uri(server: Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def rejections(row: Row) -> dict[str, int]:
    return {name: count for name, count in zip(LIMITS, row.words("limit_rejections"), strict=False) if count}


async def rejected(server: Server) -> tuple[int, str]:
    """Status and Retry-After of a handshake that must fail."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(uri(server))
    response = caught.value.response
    return response.status_code, response.headers["Retry-After"]


async def gone(server: Server) -> None:
    """Return when the server has lost all connections."""
    while server._registry.all:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("limited", ["connections", "address"])
async def test_a_hook_that_goes_on_counts_as_the_connection_that_is_gone(limited: str, row: Row) -> None:
    """It is cancelled, and may have something to finish. Who asks and leaves must not have many of them run at once."""
    entered, finish, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(connection: ServerConnection, request: Request) -> None:
        if request.path == "/slow":
            entered.set()
            with contextlib.suppress(asyncio.CancelledError):
                await finish.wait()
            await finish.wait()
            ended.set()

    limiter = {
        "connections": Limiter(connections=1, of_all=lambda: row.connections_of_all),
        "address": Limiter(per_address=1),
    }[limited]
    async with limiting(limiter, process_request=slow) as server:
        assert server._registry.admission is not None
        with RawClient(server.sockets[0].getsockname()[1]) as client:
            client.send(wire.request(path="/slow"))
            await asyncio.wait_for(entered.wait(), PATIENCE)
        await gone(server)
        status, _ = await rejected(server)
        assert status == (429 if limited == "address" else 503)
        assert row.words("connections_handshaking") == (1,)
        finish.set()
        await asyncio.wait_for(ended.wait(), PATIENCE)
        while server.handler_tasks:
            await asyncio.sleep(0.001)
        async with connect(uri(server)):
            pass
    assert results(row)["disconnected"] == 1
    assert row.words("connections_handshaking") == (0,)
    assert server._registry.admission.orphaned_hooks == 0


async def test_hooks_that_stay_count_like_descriptors(row: Row) -> None:
    async with limiting(limits=(2**20, 2**20)) as server:
        assert server._registry.admission is not None
        server._registry.admission.orphaned_hooks = 2**20 + 1
        assert await rejected(server) == (503, "5")
        server._registry.admission.orphaned_hooks = 0
        async with connect(uri(server)):
            pass
    assert rejections(row) == {"descriptors": 1}


async def test_all_connections(row: Row) -> None:
    limiter = Limiter(connections=2, of_all=lambda: row.connections_of_all)
    async with limiting(limiter) as server:
        async with connect(uri(server)), connect(uri(server)):
            assert await rejected(server) == (503, "5")
            assert await rejected(server) == (503, "5")
        await gone(server)
        async with connect(uri(server)):
            pass
    assert rejections(row) == {"daemon": 2}
    assert results(row) == {"ok": 3, "limited": 2}


async def test_connections_of_an_address(row: Row) -> None:
    async with limiting(Limiter(per_address=1)) as server:
        async with connect(uri(server)):
            assert await rejected(server) == (429, "5")
        await gone(server)
        async with connect(uri(server)):
            pass
        await gone(server)
        assert server._registry.admission is not None
        assert server._registry.admission.limiter.remembered == 0
    assert rejections(row) == {"address": 1}


async def test_handshakes_of_an_address(row: Row) -> None:
    async with limiting(Limiter(rate=0.01, burst=2)) as server:
        for _ in range(2):
            async with connect(uri(server)):
                pass
        assert await rejected(server) == (429, "100")
    assert rejections(row) == {"rate": 1}
    assert results(row) == {"ok": 2, "limited": 1}


async def test_who_sends_no_request_is_counted_as_well(row: Row) -> None:
    async with limiting(Limiter(per_address=1)) as server:
        port = server.sockets[0].getsockname()[1]
        with RawClient(port):
            while not server._registry.all:
                await asyncio.sleep(0.001)
            assert await rejected(server) == (429, "5")
        await gone(server)
        async with connect(uri(server)):
            pass


@pytest.mark.parametrize("asks", [False, True])
async def test_a_rejected_client_that_stays_is_aborted(asks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.asyncio.server_connection.REJECT_WITHIN", 0.05)  # for the request
    monkeypatch.setattr("tidegate.asyncio.server_connection.LINGER", 0.05)  # for leaving
    async with limiting(Limiter(per_address=1)) as server, connect(uri(server)):
        with RawClient(server.sockets[0].getsockname()[1]) as client:
            client.send(wire.request() if asks else b"")
            while len(server._registry.all) < 2:
                await asyncio.sleep(0.001)
            while len(server._registry.all) > 1:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("trusted", "header", "sent", "address"),
    [
        (("127.0.0.0/8",), "x-forwarded-for", {"X-Forwarded-For": "203.0.113.9, 192.0.2.1"}, ("192.0.2.1", 0)),
        (("127.0.0.0/8",), "x-forwarded-for", {"X-Forwarded-For": "2001:db8::1"}, ("2001:db8::1", 0, 0, 0)),
        (("127.0.0.0/8",), "forwarded", {"Forwarded": 'for="192.0.2.1:80"'}, ("192.0.2.1", 80)),
        (("127.0.0.0/8",), "forwarded", {"X-Forwarded-For": "192.0.2.1"}, None),
        (("127.0.0.0/8",), "x-forwarded-for", {"Forwarded": "for=192.0.2.1"}, None),
        (("127.0.0.0/8",), "x-forwarded-for", {}, None),
        (("127.0.0.0/8",), None, {"X-Forwarded-For": "192.0.2.1"}, None),
        (("10.0.0.0/8",), "x-forwarded-for", {"X-Forwarded-For": "192.0.2.1"}, None),
        ((), "x-forwarded-for", {"X-Forwarded-For": "192.0.2.1"}, None),
    ],
)
async def test_clients_behind_proxies(
    trusted: tuple[str, ...], header: str | None, sent: dict[str, str], address: Any
) -> None:
    async with (
        limiting(trusted=trusted, header=header) as server,
        connect(uri(server), additional_headers=sent) as websocket,
    ):
        assert await websocket.recv() == repr(address or websocket.local_address)


async def test_limits_are_those_of_the_client_and_not_of_its_proxy(row: Row) -> None:
    async with limiting(Limiter(per_address=1), ("127.0.0.1/32",), header="x-forwarded-for") as server:
        first, second = {"X-Forwarded-For": "2001:db8::1"}, {"X-Forwarded-For": "2001:db8:0:1::1"}
        async with connect(uri(server), additional_headers=first), connect(uri(server), additional_headers=second):
            with pytest.raises(InvalidStatus, match="429"):
                await connect(uri(server), additional_headers={"X-Forwarded-For": "2001:db8::ffff"})
        await gone(server)
        async with connect(uri(server), additional_headers=first):
            pass
    assert rejections(row) == {"address": 1}


@pytest.mark.parametrize(
    ("header", "value"), [("x-forwarded-for", ",".join(["127.0.0.1"] * 500)), ("forwarded", ",".join(["for=a"] * 500))]
)
async def test_hops_are_bounded(header: str, value: str) -> None:
    async with limiting(Limiter(per_address=1), ("127.0.0.1/32",), header=header) as server:
        with pytest.raises(InvalidStatus) as caught:
            await connect(uri(server), additional_headers={header: value})
        assert caught.value.response.status_code == 400
        assert f"invalid {header} header: more than 128 items".encode() in caught.value.response.body
        await gone(server)


@pytest.mark.parametrize("header", ["x-forwarded-for", None])
async def test_proxies_themselves_are_not_limited(header: str | None) -> None:
    limiter = Limiter(per_address=1, rate=0.01)
    async with (
        limiting(limiter, ("127.0.0.1/32",), header=header) as server,
        connect(uri(server)),
        connect(uri(server)),
    ):
        assert limiter.remembered == 0


async def test_hooks_see_the_client_and_not_those_who_are_rejected(row: Row) -> None:
    seen = []

    async def process_request(websocket: ServerConnection, request: Any) -> None:
        seen.append(websocket.remote_address)

    async with limiting(
        Limiter(per_address=1), ("127.0.0.1/32",), header="x-forwarded-for", process_request=process_request
    ) as server:
        sent = {"X-Forwarded-For": "192.0.2.1"}
        async with connect(uri(server), additional_headers=sent):
            with pytest.raises(InvalidStatus, match="429"):
                await connect(uri(server), additional_headers=sent)
    assert seen == [("192.0.2.1", 0)]


async def test_high_descriptors_are_answered_and_the_highest_cut(row: Row) -> None:
    async with limiting(limits=(0, 2**30)) as server:
        assert await rejected(server) == (503, "5")
        await gone(server)
    async with limiting(limits=(0, 0)) as server:
        with RawClient(server.sockets[0].getsockname()[1]) as client, pytest.raises((OSError, EOFError)):
            await asyncio.to_thread(client.response)
        await gone(server)
    assert rejections(row) == {"descriptors": 2}
    assert results(row) == {"limited": 2}
    assert row.words("connections_handshaking") == (0,)


def test_reserves() -> None:
    """The reserve is a sixteenth of all descriptors, 32 at least, and at most a quarter; half of it is for answers."""
    assert descriptors(1024) == (960, 992)
    assert descriptors(64) == (48, 56)
    assert descriptors(2**20) == (2**20 - 2**16, 2**20 - 2**15)
    assert 0 < descriptors()[0] < descriptors()[1]


async def test_without_anything_to_remember_nothing_is() -> None:
    records = []

    async def handler(websocket: ServerConnection) -> None:
        records.append(websocket._record)

    admission = Admission(Limiter(connections=10**6), trusted=Networks(()), header="x-forwarded-for", limits=MANY)
    server = serve(handler, "127.0.0.1", 0, policy=ProcessPolicy(admission))
    async with server, connect(uri(server)) as websocket:
        await websocket.wait_closed()
    assert records == [None]


@pytest.mark.parametrize(
    ("limit", "status", "text"),
    [
        ("descriptors", 503, "The server has as many connections as it can take.\n"),
        ("daemon", 503, "The server has as many connections as it can take.\n"),
        ("rate", 429, "Your address opens connections too often.\n"),
        ("address", 429, "Your address has too many connections.\n"),
    ],
)
def test_a_verdict_follows_from_the_limit(limit: str, status: int, text: str) -> None:
    assert Verdict.of((limit, 7)) == (limit, status, text, 7, False)
    assert Verdict.of((limit, 7), abort=True).abort


def test_admission_answers_and_touches_nothing() -> None:
    """Of a transport it needs the socket and the peer alone."""

    class Transport:
        def get_extra_info(self, name: str) -> Any:
            return {"peername": ("192.0.2.1", 1234)}.get(name)

    def evict() -> bool:
        raise AssertionError("nothing is to make room")

    transport: Any = Transport()
    admission = Admission(Limiter(per_address=1), trusted=Networks(()), limits=MANY)
    first = admission.admit(transport, 1.0, None, evict)
    assert first is not None
    assert first.verdict is None
    second = admission.admit(transport, 2.0, None, evict)
    assert second is not None
    assert second.since == 2.0
    assert second.verdict is not None
    assert (second.verdict.limit, second.verdict.status, second.verdict.abort) == ("address", 429, False)
    admission.release(first)
    third = admission.admit(transport, 3.0, None, evict)
    assert third is not None
    assert third.verdict is None

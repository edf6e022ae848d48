"""The scope of a WebSocket connection."""

from __future__ import annotations

from typing import Any

import pytest

from tests.asyncio.calls import asgi_serving
from tests.support import wire
from tidegate.asyncio.admission import Admission
from tidegate.asyncio.options import ProcessPolicy
from tidegate.asyncio.scope import websocket_scope
from tidegate.limits import Limiter
from tidegate.networks import Networks


class Told:
    """A connection as far as a scope is made of it."""

    told_in = None
    remote_address: Any = ("192.0.2.1", 5000)
    local_address: Any = ("192.0.2.2", 80)

    class transport:
        @staticmethod
        def get_extra_info(name: str) -> Any:
            return None


def scope(target: str = "/", *, connection: Any = Told, root_path: str = "", **headers: str) -> dict[str, Any]:
    head = wire.request(path=target, headers=headers)
    return websocket_scope(connection, head, root_path, {"a": 1}, {})


def test_all_of_it() -> None:
    found = scope(
        "/a%20b/%C3%A9?x=%20&y", root_path="/api", **{"Sec-WebSocket-Protocol": "chat, superchat", "X-Up": "V"}
    )
    headers = found.pop("headers")
    assert (b"x-up", b"V") in headers
    assert all(name == name.lower() for name, _ in headers)
    assert found == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/api/a b/é",
        "raw_path": b"/api/a%20b/%C3%A9",
        "query_string": b"x=%20&y",
        "root_path": "/api",
        "client": ("192.0.2.1", 5000),
        "server": ("192.0.2.2", 80),
        "subprotocols": ["chat", "superchat"],
        "state": {"a": 1},
        "extensions": {},
    }


def test_what_requests_have_in_common_is_there_once() -> None:
    """Scopes live as long as their connections: names of headers, and lines that are always the same."""
    one, other = (dict(scope(Origin=f"https://{n}.example")["headers"]) for n in "ab")
    assert one == {**other, b"origin": b"https://a.example"}
    assert [name for name, same in zip(one, other, strict=True) if name is not same] == []
    fixed = {b"upgrade": b"websocket", b"connection": b"Upgrade", b"sec-websocket-version": b"13"}
    assert one.items() >= fixed.items()
    assert all(one[name] is other[name] for name in fixed)


def test_a_line_is_read_however_it_is_written() -> None:
    head = b"GET / HTTP/1.1\r\nHOST:x\r\nupgrade:\t WebSocket \r\nX-A: a:b\r\n\r\n"
    found = websocket_scope(Told(), head, "", {}, {})["headers"]  # type: ignore[arg-type]
    assert found == [(b"host", b"x"), (b"upgrade", b"WebSocket"), (b"x-a", b"a:b")]


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", b""),
        ("/?", "/", b""),
        ("http://a.example/b?c", "/b", b"c"),
        ("http://a.example", "/", b""),
        ("/%ff", "/\ufffd", b""),
    ],
)
def test_forms_of_the_target(target: str, path: str, query: bytes) -> None:
    found = scope(target)
    assert (found["path"], found["query_string"]) == (path, query)


def test_a_unix_socket_has_a_path_and_no_client() -> None:
    class Local(Told):
        remote_address = ""
        local_address = "/run/a.sock"

    found = scope(connection=Local)
    assert (found["client"], found["server"]) == (None, ("/run/a.sock", None))


async def test_state_is_a_copy_and_versions_are_its_own() -> None:
    state: dict[str, Any] = {"shared": []}
    async with asgi_serving(state=state) as made:
        _, first = await made.asked()
        _, second = await made.asked()
        first.scope["state"]["own"] = 1
        first.scope["asgi"]["own"] = 1
        assert "own" not in state
        assert "own" not in second.scope["asgi"]
        assert first.scope["state"]["shared"] is second.scope["state"]["shared"]


async def test_client_and_scheme_behind_a_trusted_proxy() -> None:
    limiter = Limiter(connections=None, of_all=lambda: 0, per_address=None, rate=None, burst=None, workers=1)
    admission = Admission(limiter, trusted=Networks(["127.0.0.0/8"]), header="x-forwarded-for")
    async with asgi_serving(policy=ProcessPolicy(admission)) as made:
        request = wire.request(headers={"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"})
        _, call = await made.asked(request)
        assert call.scope["client"] == ("192.0.2.1", 0)
        assert call.scope["scheme"] == "wss"

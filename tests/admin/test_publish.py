"""POST /publish with a real admin process and a hub of the test's own: who may, what is published, what is answered."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.admin.process import Admin, start
from tests.hub.processes import Room
from tests.support.patience import PATIENCE
from tidegate._core.scoreboard import Scoreboard
from tidegate.admin import publish as module
from tidegate.bus.outside import url_of
from tidegate.channels import MESSAGE_LIMIT

TOKEN = "0123456789abcdef"
BEARER = f"Bearer {TOKEN}"


@contextlib.contextmanager
def running(board: Scoreboard, token: str | None, bus: str | None) -> Iterator[Admin]:
    admin = start(board, publish=token, bus=bus)
    admin.pipe.settimeout(PATIENCE)
    try:
        assert admin.pipe.recv(4096) == b'{"stage":"ready"}\n'
        yield admin
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(admin.pid, signal.SIGTERM)
        assert admin.wait() == 0
        admin.pipe.close()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.close()


@pytest.fixture
def admin(board: Scoreboard, room: Room) -> Iterator[Admin]:
    with running(board, TOKEN, url_of(str(room.path))) as admin:
        yield admin


def post(admin: Admin, body: Any, query: str = "", **headers: str) -> tuple[int, Any]:
    """The status, and what the answer's JSON says."""
    data = body if isinstance(body, bytes) else json.dumps(body)
    status, _, answer = admin.get(f"/publish{query}", "POST", body=data, Authorization=BEARER, **headers)
    return status, json.loads(answer)


def payloads(room: Room, channel: str = "h:1") -> list[tuple[bytes, bool, bool]]:
    return [(each.payload, each.text, each.json) for each in room.stored(channel)]


def test_a_message_as_json(admin: Admin, room: Room) -> None:
    status, answer = post(admin, {"channel": "h:1", "data": {"a": [1, 2.50]}})
    assert (status, [*answer]) == (200, ["position"])
    assert post(admin, b'{"channel": "h:1", "data": "t\\u00e4xt"}')[0] == 200
    assert post(admin, {"channel": "plain", "data": None}) == (200, {"position": None})
    found = room.stored("h:1")
    assert str(found[0].position) == answer["position"]
    assert payloads(room) == [
        (b'{"a": [1, 2.5]}', True, True),
        ("täxt".encode(), True, False),
    ]


def test_a_body_as_it_is(admin: Admin, room: Room) -> None:
    for body, kind in (
        (b"text", "text/plain; charset=utf-8"),
        (b'{"a":1}', "application/json"),
        (b"\xff\0", "application/octet-stream"),
        (b"as curl sends it", "application/x-www-form-urlencoded"),
        (b"", "text/plain"),
    ):
        assert post(admin, body, "?channel=h%3A1", Content_Type=kind)[0] == 200
    assert payloads(room) == [
        (b"text", True, False),
        (b'{"a":1}', True, True),
        (b"\xff\0", False, False),
        (b"as curl sends it", True, False),
        (b"", True, False),
    ]


def test_a_key_publishes_once(admin: Admin, room: Room) -> None:
    one = post(admin, {"channel": "h:1", "data": 1, "key": "k"})
    assert post(admin, {"channel": "h:1", "data": 1, "key": "k"}) == one
    assert post(admin, b"1", "?channel=h:1&key=k") == one
    assert len(room.stored("h:1")) == 1


def test_a_list_of_messages(admin: Admin, room: Room) -> None:
    orders = [{"channel": "h:1", "data": number} for number in range(100)]
    status, answer = post(admin, orders)
    assert status == 200
    offsets = [int(each["position"].rpartition(".")[2]) for each in answer]
    assert offsets == list(range(1, 101))
    status, answer = post(admin, [{"channel": "", "data": 1}, {"channel": "h:2", "data": 2}])
    assert status == 200
    assert answer[0] == {"error": "'' isn't the name of a channel: it is empty", "status": 400}
    assert answer[1]["position"].endswith(".1")
    assert post(admin, [{"channel": "", "data": 1}])[0] == 400


REFUSED: list[tuple[bytes, str, int, str]] = [
    (b"", "", 400, "Input data was truncated: the body must be {"),
    (b"{", "", 400, "the body must be {"),
    (b"\xff", "", 400, "the body must be {"),
    (b"[" * 100_000, "", 400, "the body must be {"),
    (b"[]", "", 400, "a list must have 1 to 100 messages, not 0"),
    (b'{"data": 1}', "", 400, "Object missing required field `channel`"),
    (b'{"channel": "h:1"}', "", 400, "Object missing required field `data`"),
    (b'{"channel": "h:1", "data": 1, "Key": 1}', "", 400, "Object contains unknown field `Key`"),
    (b'{"channel": 5, "data": 1}', "", 400, "Expected `str`, got `int`"),
    (b'{"channel": "tg:x", "data": 1}', "", 400, "'tg:x' isn't the name of a channel: 'tg:' is reserved"),
    (b'{"channel": "h:1", "data": 1, "key": ""}', "", 400, "key must have 1 to 128 bytes in UTF-8, not 0"),
    (b'{"channel": "h:1", "data": "\\ud800"}', "", 400, ""),
    (b"x", "?chanel=h:1", 400, "the query of the path must be channel=NAME, and perhaps key=KEY, each once"),
    (b"x", "?channel=h:1&channel=h:2", 400, "the query of the path must be channel=NAME"),
    (b"x", "?channel", 400, "the query of the path cannot be read: "),
    (b"x", "?channel=%FF", 400, "the query of the path cannot be read: "),
    (b"\xff", "?channel=h:1", 400, "the body isn't text in UTF-8: send Content-Type: application/octet-stream"),
    (bytes(2**20 + 1), "?channel=h:1", 413, "message of 1048577 bytes exceeds the bus's limit of 1048576 bytes"),
    (bytes(module.BODY + 1), "", 413, f"the body has more than {MESSAGE_LIMIT + 2**16} bytes"),
]


def test_what_cannot_be_published(admin: Admin, room: Room) -> None:
    """Each of it is refused with its reason."""
    for body, query, status, error in REFUSED:
        found, answer = post(admin, body, query)
        assert (found, answer["status"]) == (status, status), (body[:99], query)
        assert error in answer["error"]
    assert room.stored("h:1") == []


def test_json_that_is_none_is_not_published_as_such(admin: Admin, room: Room) -> None:
    status, answer = post(admin, b"nonsense", "?channel=h:1", Content_Type="application/json")
    assert (status, answer["error"][:41]) == (400, "json=True, and the message isn't JSON: JS")


def test_who_may(admin: Admin, room: Room, board: Scoreboard) -> None:
    body = '{"channel": "h:1", "data": 1}'
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        status, answered, answer = admin.get("/publish", "POST", body=body, **headers)
        assert (status, answered["WWW-Authenticate"]) == (401, 'Bearer realm="tidegate"')
        assert answer == b"the token of --publish-token is needed, as in: Authorization: Bearer TOKEN\n"
    status, answered, answer = admin.get("/publish", Authorization=BEARER)
    assert (status, answered["Allow"], answer) == (405, "POST", b"/publish takes POST\n")
    assert admin.get("/metrics")[0] == 200
    with running(board, None, url_of(str(room.path))) as off:
        assert off.get("/publish", Authorization=BEARER)[0] == 404
        assert off.get("/publish", "POST", body=body, Authorization=BEARER)[0] == 405
    assert room.stored("h:1") == []


def test_the_bus_may_be_away(board: Scoreboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUS_SECONDS", 0.2)
    with running(board, TOKEN, url_of(f"{tmp_path}/control.hub")) as admin:
        for _ in range(2):
            status, headers, answer = admin.get(
                "/publish", "POST", body='{"channel": "h:1", "data": 1}', Authorization=BEARER
            )
            assert (status, headers["Retry-After"]) == (503, "1")
            assert "the bus is down: " in json.loads(answer)["error"]
        room = Room(tmp_path)
        assert post(admin, {"channel": "h:1", "data": 1})[0] == 200
        room.close()
        (tmp_path / "control.hub").unlink()
    with running(board, TOKEN, None) as admin:
        status, answer = post(admin, {"channel": "h:1", "data": 1})
        assert status == 503
        assert answer["error"] == (
            "the bus is down: the daemon has no socket for other processes: start it with --control PATH"
        )


def test_a_hub_that_restarts_is_waited_for(admin: Admin, room: Room) -> None:
    assert post(admin, {"channel": "h:1", "data": 1})[0] == 200
    room.hubs.end(signal.SIGKILL)
    room.worker.close()
    timer = threading.Timer(0.3, room.start)
    timer.start()
    assert post(admin, {"channel": "h:1", "data": 2})[0] == 200
    timer.join()
    assert [payload for payload, _, _ in payloads(room)] == [b"1", b"2"]


def test_a_hub_that_does_not_answer_delays_nobody_else(
    board: Scoreboard, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUS_SECONDS", 0.5)
    with running(board, TOKEN, url_of(str(room.path))) as admin:
        assert post(admin, {"channel": "h:1", "data": 1})[0] == 200
        os.kill(room.hubs.pid, signal.SIGSTOP)
        try:
            answers: list[tuple[int, Any]] = []
            body = {"channel": "h:1", "data": 2, "key": "k"}
            clients = [threading.Thread(target=lambda: answers.append(post(admin, body))) for _ in range(20)]
            for client in clients:
                client.start()
            assert admin.get("/metrics")[0] == 200
            for client in clients:
                client.join()
        finally:
            os.kill(room.hubs.pid, signal.SIGCONT)
        assert {status for status, _ in answers} == {503}
        assert any(answer.get("uncertain") for _, answer in answers)
        assert post(admin, body)[0] == 200
        assert [payload for payload, _, _ in payloads(room)] == [b"1", b"2"]


def exchange(admin: Admin, *pieces: bytes) -> bytes:
    """What is answered to bytes that are sent piece by piece, each after something has come back or a moment."""
    with socket.create_connection(("127.0.0.1", admin.ports[0]), timeout=PATIENCE) as client:
        for piece in pieces:
            client.sendall(piece)
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer


HEAD = f"POST /publish?channel=h:1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {BEARER}\r\n".encode()


def test_a_body_in_chunks(admin: Admin, room: Room) -> None:
    chunks = (b"3\r\nabc\r\n", b"2;x=y\r\nde\r\n0\r\n", b"Trailer: x\r\n\r\n")
    answer = exchange(admin, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *chunks)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert payloads(room) == [(b"abcde", True, False)]


def test_a_client_may_wait_before_it_sends_the_body(admin: Admin, room: Room) -> None:
    with socket.create_connection(("127.0.0.1", admin.ports[0]), timeout=PATIENCE) as client:
        client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello and more that is none of it")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    assert payloads(room) == [(b"hello", True, False)]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_a_body_is_the_same_however_it_is_cut(admin: Admin, room: Room, cuts: list[int], chunked: bool) -> None:
    body = b"a" * 100
    if chunked:
        data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n64\r\n" + body + b"\r\n0\r\n\r\n"
    else:
        data = HEAD + b"Expect: nothing\r\nExpect: more\r\nContent-Length: 100\r\n\r\n" + body
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    assert exchange(admin, *pieces).startswith(b"HTTP/1.1 200 OK\r\n")
    assert room.stored("h:1")[-1].payload == body


def test_a_body_that_does_not_come(board: Scoreboard, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_SECONDS", 0.2)
    with running(board, TOKEN, url_of(str(room.path))) as admin:
        answer = exchange(admin, HEAD + b"Content-Length: 50\r\n\r\nhello")
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b'{"error":"the body has not come within 0.2 s","status":408}' in answer


def test_so_many_at_once(board: Scoreboard, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    with running(board, TOKEN, url_of(str(room.path))) as admin, contextlib.ExitStack() as stack:
        for _ in range(2):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", admin.ports[0]), timeout=PATIENCE))
            client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert post(admin, {"channel": "h:1", "data": 1}) == (
            503,
            {"error": "2 requests are being answered", "status": 503},
        )
        assert admin.get("/metrics")[0] == 200
        client.sendall(b"hello")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        assert post(admin, {"channel": "h:1", "data": 1})[0] == 200


def test_clients_that_leave_in_the_middle_take_no_place(admin: Admin, room: Room) -> None:
    for end in range(0, len(HEAD), 20):
        with socket.create_connection(("127.0.0.1", admin.ports[0]), timeout=PATIENCE) as client:
            client.sendall((HEAD + b"Content-Length: 50\r\n\r\nhello")[: end + 90])
    assert post(admin, {"channel": "h:1", "data": 1})[0] == 200
    assert len(room.stored("h:1")) == 1


def test_a_body_that_is_not_valid(admin: Admin, room: Room) -> None:
    for end in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: five\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ):
        assert exchange(admin, HEAD + end).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert room.stored("h:1") == []


def test_other_requests_have_no_body(admin: Admin) -> None:
    for method in (b"GET", b"PUT"):
        answer = exchange(admin, method + b" /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab")
        assert answer.startswith(b"HTTP/1.1 413 ")
    answer = exchange(admin, b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab")
    assert answer.startswith(b"HTTP/1.1 405 ")

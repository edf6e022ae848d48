"""What the daemon does with input that breaks the rules: the right close code or HTTP status, and nothing else.

Each case has a connection of its own to one daemon, which must be as well afterwards as before.
What must not live here: the rules one by one (tests/core, tests/test_server.py, tests/conformance).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.support import wire
from tests.support.harness import ECHO, Daemon
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient
from tests.support.wire import frame

# A connection that breaks the rules ends in an exception in its handler; one that expects it logs nothing.
QUIET_ECHO = """
    from tidegate import ConnectionClosedError

    async def handler(websocket):
        try:
            async for message in websocket:
                await websocket.send(message)
        except ConnectionClosedError:
            pass
"""

MAX_SIZE = 100_000
TEXT, BINARY, CONTINUATION, CLOSE, PING = 1, 2, 0, 8, 9


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A daemon that must have the same workers, and no traceback in its log, when all cases are through."""
    with Daemon(QUIET_ECHO, "--max-size", str(MAX_SIZE), workers=2) as daemon:
        before = daemon.workers()
        yield daemon
        assert daemon.workers() == before
        assert "Traceback" not in daemon.log
        daemon.wait_metric("tidegate_connections", 0)


def close_code(value: int, reason: bytes = b"") -> bytes:
    """A Close frame from the client."""
    return frame(value.to_bytes(2, "big") + reason, CLOSE)


# RFC 6455 sections 5.2 to 5.5 and 7.4: what was sent -> 1002.
PROTOCOL_ERRORS = {
    **{f"opcode {opcode:#x}": frame(b"x", opcode) for opcode in (*range(3, 8), *range(0xB, 0x10))},
    **{f"RSV bits {rsv:03b}": frame(b"x", rsv=rsv) for rsv in (1, 2, 4, 7)},
    "unmasked": frame(b"x", mask=None),
    "unmasked close": frame(b"\x03\xe8", CLOSE, mask=None),
    "ping in fragments": frame(b"x", PING, fin=False),
    "ping of 126 bytes": frame(bytes(126), PING),
    "continuation of nothing": frame(b"x", CONTINUATION),
    "continuation after a whole message": frame(b"x", BINARY) + frame(b"y", CONTINUATION),
    "text within a fragmented text": frame(b"x", fin=False) + frame(b"y"),
    "close of one byte": frame(b"\x03", CLOSE),
    **{f"close with {code}": close_code(code) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)},
}

# RFC 6455 section 8.1: what was sent -> 1007. Each fails at its first byte that cannot be, not at the message's end.
NOT_UTF8 = {
    "0xFF": frame(b"abc\xff"),
    "overlong": frame(b"\xc0\x80"),
    "surrogate": frame(b"\xed\xa0\x80"),
    "beyond U+10FFFF": frame(b"\xf4\x90\x80\x80"),
    "cut off at the end": frame("ü".encode()[:1]),
    "split inside a character, wrong second half": frame(b"\xe2", fin=False) + frame(b"\x28", CONTINUATION),
    "split inside a character, no second half": frame(b"\xe2\x82", fin=False) + frame(b"", CONTINUATION),
    "first fragment, no end in sight": frame(b"abc\xff", fin=False),
    "second byte of three, no end in sight": frame(b"\xf4\x90", fin=False),
    "frame still incomplete": frame(b"\xff" + bytes(5000))[:100],
    "close reason": close_code(1000, b"\xff"),
}

# RFC 6455 section 7.4.1: what was sent -> 1009. The header's length is enough.
TOO_BIG = {
    "a frame one byte too long": frame(bytes(MAX_SIZE + 1), BINARY),
    "only its header": frame(bytes(MAX_SIZE + 1), BINARY)[:14],
    "a length of 2**62": b"\x82\xff" + (2**62).to_bytes(8, "big") + bytes(4),
    "fragments together": frame(bytes(60_000), BINARY, fin=False) + frame(bytes(60_000), CONTINUATION),
}

FRAMES = {
    **{f"1002 {name}": (1002, data) for name, data in PROTOCOL_ERRORS.items()},
    **{f"1007 {name}": (1007, data) for name, data in NOT_UTF8.items()},
    **{f"1009 {name}": (1009, data) for name, data in TOO_BIG.items()},
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(daemon: Daemon, name: str) -> None:
    """A broken frame closes the connection with the right code."""
    code, data = FRAMES[name]
    with RawClient(daemon.port) as client:
        client.open().send(data)
        assert client.close_frame()[0] == code


def test_length_of_2_to_63_is_refused(daemon: Daemon) -> None:
    with RawClient(daemon.port) as client:
        client.open().send(b"\x82\xff" + (2**63).to_bytes(8, "big") + bytes(4))
        assert client.close_frame()[0] in (1002, 1009)  # the highest bit must be 0; it is too big as well


def test_byte_by_byte_is_no_error(daemon: Daemon) -> None:
    data = wire.request() + frame("Grüße".encode(), mask=b"abcd") + frame(bytes(200), BINARY)
    with RawClient(daemon.port) as client:
        for index in range(len(data)):
            client.send(data[index : index + 1])
        assert client.response()[0] == 101
        assert client.frame() == (0x81, "Grüße".encode())
        assert client.frame() == (0x82, bytes(200))


def test_exactly_max_size_is_no_error(daemon: Daemon) -> None:
    with RawClient(daemon.port) as client:
        client.open().send(frame(bytes(60_000), BINARY, fin=False) + frame(bytes(MAX_SIZE - 60_000), CONTINUATION))
        assert client.frame() == (0x82, bytes(MAX_SIZE))


def test_half_a_frame_and_gone(daemon: Daemon) -> None:
    closed = "tidegate_closes_total"
    before = daemon.metrics().total(closed, code="1006")
    with RawClient(daemon.port) as client:
        client.open().send(frame(bytes(1000), BINARY)[:500])
    daemon.wait_metric(closed, before + 1, code="1006")


# RFC 6455 section 4.2.1 and RFC 9110: request -> status, words that the body must have, headers that it must have.
REQUESTS = {
    "no key": (wire.request(headers={"Sec-WebSocket-Key": None}), 400, "Sec-WebSocket-Key", {}),
    "a key that is not base64": (wire.request(headers={"Sec-WebSocket-Key": "!"}), 400, "Sec-WebSocket-Key", {}),
    "a key of 5 bytes": (wire.request(headers={"Sec-WebSocket-Key": "aGVsbG8="}), 400, "Sec-WebSocket-Key", {}),
    "POST": (wire.request("POST"), 405, "POST", {"allow": "GET"}),
    "POST with a body": (wire.request("POST", headers={"Content-Length": "4"}) + b"body", 413, "body", {}),
    "a chunked body": (wire.request(headers={"Transfer-Encoding": "chunked"}) + b"0\r\n\r\n", 413, "body", {}),
    "a request line of 9 KB": (wire.request(path="/" + "x" * 9000), 414, "line", {}),
    "no Upgrade": (
        wire.request(headers={"Upgrade": None, "Connection": "close"}),
        426,
        "Connection",
        {"upgrade": "websocket", "sec-websocket-version": "13"},
    ),
    "Upgrade to something else": (
        wire.request(headers={"Upgrade": "h2c"}),
        426,
        "Upgrade",
        {"upgrade": "websocket"},
    ),
    "version 8": (
        wire.request(headers={"Sec-WebSocket-Version": "8"}),
        426,
        "Sec-WebSocket-Version",
        {"sec-websocket-version": "13"},
    ),
    "a header of 9 KB": (wire.request(headers={"X": "x" * 9000}), 431, "header", {}),
    "200 headers": (wire.request(headers={f"X-{number}": "x" for number in range(200)}), 431, "header", {}),
    "headers of 80 KB": (
        wire.request(headers={f"X-{number}": "x" * 8000 for number in range(10)}),
        431,
        "header",
        {},
    ),
    "HTTP/1.0": (wire.request(version="HTTP/1.0"), 505, "HTTP/1.0", {}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests(daemon: Daemon, name: str) -> None:
    """A broken request gets the right status and a body that says why, and the connection ends."""
    data, status, words, headers = REQUESTS[name]
    with RawClient(daemon.port) as client:
        client.send(data)
        answer, fields, body = client.response()
        assert answer == status, body
        assert words.lower() in body.lower()
        assert fields["content-type"].startswith("text/plain")
        assert fields["connection"] == "close"
        assert headers.items() <= fields.items()
        client.expect_end()


def test_pages_of_other_sites() -> None:
    with Daemon(QUIET_ECHO, "--origins", "https://example.com", "--origins", "https://*.example.net") as daemon:
        for origin, status in (
            ("https://example.com", 101),
            ("https://www.example.net", 101),
            ("https://evil.example", 403),
            ("https://example.com.evil.example", 403),
            ("null", 403),
            ("https://example.com\r\nOrigin: https://evil.example", 400),
            (None, 403),
        ):
            with RawClient(daemon.port) as client:
                client.send(wire.request(headers={"Origin": origin}))
                answer, headers, _ = client.response()
                assert (answer, headers.get("x-content-type-options")) == (
                    status,
                    None if status == 101 else "nosniff",
                ), origin
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"hello\r\n\r\n", b"\0" * 100, b"GET / HTTP/9"], ids=repr
)
def test_what_is_no_request(daemon: Daemon, data: bytes) -> None:
    """Junk on the port, a TLS hello among it: closed at once, with 400 or without a word, not at the timeout."""
    with RawClient(daemon.port, timeout=PATIENCE) as client:
        client.send(data + b"\r\n\r\n")
        try:
            assert client.response()[0] == 400
        except (EOFError, ConnectionResetError):
            return
        client.expect_end()


@pytest.mark.parametrize(
    ("start", "status"), [(b"GET /", 414), (b"GET / HTTP/1.1\r\nX: ", 431)], ids=["a line", "a header"]
)
def test_request_without_an_end_is_refused_at_the_limit(daemon: Daemon, start: bytes, status: int) -> None:
    with RawClient(daemon.port) as client:
        client.send(start + b"x" * 20_000)
        assert client.response()[0] == status


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"", b"GET / HT", wire.request()[:-2]], ids=["nothing", "a line", "headers"])
def test_slow_handshake_is_closed_at_open_timeout(start: bytes) -> None:
    with Daemon(ECHO, "--open-timeout", "0.5") as daemon, RawClient(daemon.port) as client:
        opened = time.monotonic()
        client.send(start)
        with contextlib.suppress(EOFError):  # who said nothing at all may be told nothing
            assert client.response()[0] == 408
        client.expect_end()
        assert time.monotonic() - opened >= 0.4

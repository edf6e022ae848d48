"""A client of raw bytes, for what no decent client sends: broken requests, broken frames, half a handshake.

What must not live here: test cases, and any use of a WebSocket library: this is the other side, written from RFC 6455.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from tests.support.patience import PATIENCE


class RawClient:
    """A TCP connection that says exactly what a test wants said, for input that no decent client sends."""

    HEADERS = (
        ("Host", "localhost"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    )

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = PATIENCE) -> None:
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: Any) -> None:
        self.socket.close()

    @classmethod
    def request(
        cls,
        method: str = "GET",
        path: str = "/",
        version: str = "HTTP/1.1",
        headers: Mapping[str, str | None] | None = None,
    ) -> bytes:
        """An opening handshake; `headers` replaces the ordinary ones by name, None leaves one out."""
        fields: dict[str, str | None] = {**dict(cls.HEADERS), **(headers or {})}
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        return "\r\n".join([f"{method} {path} {version}", *lines, "", ""]).encode("iso-8859-1")

    def open(self) -> RawClient:
        """Make an ordinary handshake."""
        self.send(self.request())
        status, _, _ = self.response()
        assert status == 101, f"handshake answered {status}"
        return self

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _read(self) -> bool:
        chunk = self.socket.recv(65536)
        self.buffer += chunk
        return bool(chunk)

    def response(self, method: str = "GET") -> tuple[int, dict[str, str], str]:
        """The answer's status, headers (names in lower case) and, as Content-Length says, body; none for HEAD."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._read():
                raise EOFError(f"closed before an HTTP response ended: {self.buffer!r}")
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("iso-8859-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if method == "HEAD" else int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            if not self._read():
                raise EOFError(f"closed within a response body of {length} bytes: {self.buffer!r}")
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(status_line.split()[1]), headers, body.decode()

    def frame(self) -> tuple[int, bytes]:
        """The next frame from the server: first byte (FIN, RSV, opcode), payload. EOFError when there is none."""

        def need(count: int) -> bytes:
            while len(self.buffer) < count:
                if not self._read():
                    raise EOFError(f"closed; unread: {self.buffer!r}")
            data, self.buffer = self.buffer[:count], self.buffer[count:]
            return data

        first, second = need(2)
        assert not second & 0x80, "a server must not mask (RFC 6455 section 5.1)"
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(need(2), "big")
        elif length == 127:
            length = int.from_bytes(need(8), "big")
        return first, need(length)

    def close_frame(self) -> tuple[int, str]:
        """Skip to the server's Close frame, answer it, expect the connection to end: (code, reason)."""
        while True:
            first, payload = self.frame()
            if first & 0x0F == 0x8:
                break
        with contextlib.suppress(ConnectionError):  # the server may have closed already
            self.send(frame(payload, 8))
        self.expect_end()
        return int.from_bytes(payload[:2], "big") if payload else 1005, payload[2:].decode()

    def expect_end(self) -> None:
        """Wait until the server closes the TCP connection; nothing more may arrive."""
        while True:
            try:
                more = self._read()
            except ConnectionResetError:
                more = False
            assert not self.buffer, f"unexpected: {self.buffer!r}"
            if not more:
                return


def frame(
    payload: bytes = b"", opcode: int = 1, *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\0\0\0\0"
) -> bytes:
    """A frame as a client sends it; `mask=None` leaves it unmasked, the default mask leaves the payload readable."""
    length = len(payload)
    masked = 0x80 if mask is not None else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if length < 126:
        head += bytes([masked | length])
    elif length < 65536:
        head += bytes([masked | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + length.to_bytes(8, "big")
    if mask is None:
        return head + payload
    if any(mask):
        pad = (mask * (length // 4 + 1))[:length]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")
    return head + mask + payload

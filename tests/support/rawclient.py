"""A client of raw bytes without an event loop, for tests that have none: broken requests, broken frames, silence.

What must not live here: test cases; frames as such (wire.py), the same in an event loop (rawpeer.py); any use of a
WebSocket library.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Self

from tests.support import wire
from tests.support.patience import PATIENCE


class RawClient:
    """A TCP connection that says exactly what a test wants said, for input that no decent client sends."""

    def __init__(self, address: int | str, host: str = "127.0.0.1", timeout: float = PATIENCE) -> None:
        """Connect to a port of `host`, or to the path of a Unix socket."""
        if isinstance(address, int):
            self.socket = socket.create_connection((host, address), timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.socket.close()

    def open(self) -> Self:
        """Make an ordinary handshake."""
        self.send(wire.request())
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

    def until(self, end: bytes) -> bytes:
        """What comes up to these bytes, and they. EOFError when they do not come."""
        while end not in self.buffer:
            if not self._read():
                raise EOFError(f"closed before {end!r}: {self.buffer!r}")
        found, _, self.buffer = self.buffer.partition(end)
        return found + end

    def frame(self) -> tuple[int, bytes]:
        """The next frame from the server: first byte (FIN, RSV, opcode), payload. EOFError when there is none."""
        steps = wire.reading()
        needed = next(steps)
        while True:
            while len(self.buffer) < needed:
                if not self._read():
                    raise EOFError(f"closed; unread: {self.buffer!r}")
            data, self.buffer = self.buffer[:needed], self.buffer[needed:]
            try:
                needed = steps.send(data)
            except StopIteration as stop:
                first, mask, payload = stop.value
                assert mask is None, "a server must not mask (RFC 6455 section 5.1)"
                return first, payload

    def close_frame(self) -> tuple[int, str]:
        """Skip to the server's Close frame, answer it, expect the connection to end: (code, reason)."""
        while True:
            first, payload = self.frame()
            if first & 0x0F == wire.CLOSE:
                break
        with contextlib.suppress(ConnectionError):  # the server may have closed already
            self.send(wire.frame(payload, wire.CLOSE))
        self.expect_end()
        return wire.close_of(payload)

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

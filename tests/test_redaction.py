"""Secrets in texts that are logged: which are masked, and what stays.

What must not live here: the log of a daemon (tests/process/test_logs.py).
"""

from __future__ import annotations

import pytest

from tidegate.redaction import redact, redact_trace


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        ("authorization:Basic YWxhZGRpbjpvcGVu", "authorization:Basic ***"),
        ("Proxy-Authorization: Digest username=a, response=b", "Proxy-Authorization: Digest ***"),
        ("Authorization: sesame", "Authorization: ***"),
        ("< Cookie: a=1; session=2", "< Cookie: ***"),
        ("> Set-Cookie: session=2; Path=/", "> Set-Cookie: ***"),
        ("X-Api-Key: 12", "X-Api-Key: ***"),
        ("X-CSRFToken: 12", "X-CSRFToken: ***"),
        ("{'Cookie': 'a=1'}", "{'Cookie': '***"),
        ("Host: a\r\nCookie: a=1\r\nOrigin: b", "Host: a\r\nCookie: ***\r\nOrigin: b"),
        ("GET /chat?room=1&token=abc HTTP/1.1", "GET /chat?room=1&token=*** HTTP/1.1"),
        ("GET /?access_token=abc&room=1 HTTP/1.1", "GET /?access_token=***&room=1 HTTP/1.1"),
        ("/?X-Amz-Signature=ab%2Fc#top", "/?X-Amz-Signature=***#top"),
        ("/?password=a;b=1", "/?password=***;b=1"),
        ("Referer: https://a.example/?jwt=a.b.c", "Referer: https://a.example/?jwt=***"),
        ("wss://user:pass@example.com/chat", "wss://***@example.com/chat"),
        ("redis://:pass@[::1]:6379/0", "redis://***@[::1]:6379/0"),
        (
            "Sec-WebSocket-Protocol: live, tidegate.bearer.MDEyMzQ1Njc",
            "Sec-WebSocket-Protocol: live, tidegate.bearer.***",
        ),
        ("cannot read 'Bearer 0123456789abcdef'", "cannot read 'Bearer ***'"),
    ],
)
def test_masked(text: str, masked: str) -> None:
    """Secrets are masked, and masking again changes nothing."""
    assert redact(text) == masked
    assert redact(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "GET /chat?room=1 HTTP/1.1",
        "Host: example.com:8765",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Origin: https://example.com",
        "the token of --admin-token is needed, as in: Authorization",
        "basic authentication failed",
        "user@example.com connects to https://example.com/@user",
        "worker 0 is ready",
        "",
    ],
)
def test_not_masked(text: str) -> None:
    assert redact(text) == text


def test_lines_of_code_stay() -> None:
    trace = """Traceback (most recent call last):
  File "app.py", line 3, in handler
    cookie: str = "x"
ValueError: cannot read Cookie: session=1
"""
    assert redact_trace(trace) == trace.replace("session=1", "***")

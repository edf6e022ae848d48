"""How addresses to listen on are written, and which texts are refused with what words.

What must not live here: sockets for these addresses (tests/supervisor/sockets).
"""

from __future__ import annotations

import pytest

from tidegate.config.bind import Fd, Systemd, Tcp, Unix, parse_address
from tidegate.config.errors import ConfigError
from tidegate.config.schema import settings


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8765", Tcp("127.0.0.1", 8765)),
        ("localhost:0", Tcp("localhost", 0)),
        ("[::1]:80", Tcp("::1", 80)),
        ("[fe80::1%eth0]:80", Tcp("fe80::1%eth0", 80)),
        ("unix:/run/tide gate.sock", Unix("/run/tide gate.sock")),
        ("unix:relative", Unix("relative")),
        ("fd://3", Fd(3)),
        ("systemd", Systemd()),
        ("systemd:tidegate.socket", Systemd("tidegate.socket")),
    ],
)
def test_addresses(text: str, address: object) -> None:
    """An address is parsed from its text, and written as the same text."""
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the port is missing"),
        ("8765", "as in 0.0.0.0:8765"),
        ("localhost", "the port is missing"),
        (":8765", "0.0.0.0 is every address of IPv4"),
        ("*:8765", "0.0.0.0 is every address of IPv4"),
        ("::1:8765", "as in [::1]:8765"),
        ("[127.0.0.1]:80", "brackets are for IPv6"),
        ("[::1]", "an IPv6 address goes into brackets"),
        ("host:http", "a whole number from 0 to 65535"),
        ("host:65536", "a whole number from 0 to 65535"),
        ("host:-1", "a whole number from 0 to 65535"),
        ("host:٣", "a whole number from 0 to 65535"),
        ("ws://host:80", "an IPv6 address goes into brackets"),
        ("user@host:80", "a host has no spaces"),
        ("unix:", "the path is missing"),
        ("unix:a\0b", "null"),
        ("fd://", "a whole number"),
        ("fd://-1", "a whole number"),
        ("fd://x", "a whole number"),
        ("systemd:", "no colon"),
        ("systemd:a:b", "no colon"),
    ],
)
def test_addresses_that_are_none(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings()["bind"].read(text)
    assert words in str(caught.value)
    assert "--bind" in str(caught.value)
    assert "\n" not in str(caught.value)

"""Tests of tidegate.bus.nats_url."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.bus.connect import check_url
from tidegate.bus.nats_url import Settings, parse


def test_what_a_url_says(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert parse("nats://localhost") == Settings(False, ("localhost:4222",), "tidegate")
    assert parse("tls://a,b:1,[::1]:2/chat-2") == Settings(True, ("a:4222", "b:1", "[::1]:2"), "chat-2")
    assert parse("nats://u%40:p%2F%3A@a").credentials() == {"user": "u@", "password": "p/:"}
    assert parse("nats://u:@a").credentials() == {"user": "u", "password": ""}
    assert parse("nats://t%3Aoken@a").credentials() == {"token": "t:oken"}
    assert parse("nats://a").credentials() == {}
    assert parse(f"nats://a?creds={file}").credentials() == {"user_credentials": str(file)}
    assert parse(f"nats://a/x?nkey={file}").credentials() == {"nkeys_seed": str(file)}
    stored = parse("nats://a/x?replicas=3&storage=memory")
    assert (stored.replicas, stored.storage) == (3, "memory")
    assert parse("nats://a/x").context().check_hostname


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nats://", "nats:// is followed by what it cannot be: the URL must be nats://HOST:PORT/BUS"),
        ("nats://secret@", "nats://: '' isn't HOST or HOST:PORT: the URL must be nats://HOST:PORT,HOST:PORT/BUS"),
        ("nats://secret@a:0", "'a:0' isn't HOST or HOST:PORT"),
        ("nats://secret@a:65536", "'a:65536' isn't HOST or HOST:PORT"),
        ("nats://a,,b", "'' isn't HOST or HOST:PORT"),
        ("nats://a/b/c", "the bus must have a name of 1 to 32 letters, digits and '-', not 'b/c'"),
        ("nats://a/b_c", "the bus must have a name of 1 to 32 letters, digits and '-', not 'b_c'"),
        ("nats://secret@a#b", "a URL of a bus has no '#' part: write %23 in a password"),
        ("nats://a?tls=1", r"there is no option 'tls', but creds \(file with the credentials of a user"),
        ("nats://a?creds=", "the option creds is empty: it must be the file with the credentials"),
        ("nats://a?replicas=1&replicas=3", "an option is given twice"),
        ("nats://a?replicas=2", "replicas must be 1, 3 or 5, not '2'"),
        ("nats://a?storage=disk", "storage must be file or memory, not 'disk'"),
        ("nats://a?creds=/nonexistent", "creds=/nonexistent isn't a file: it must be the file with the credentials"),
        ("tls://a?key=/etc/passwd", "tls://: key= is the key of cert=, which is missing"),
        ("nats://secret@a?nkey=/etc/passwd", "one of creds=, nkey= and a user before the host"),
    ],
)
def test_a_wrong_url_names_what_is_wrong(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_settings_show_no_secret() -> None:
    for url in ("nats://user:secret@a", "nats://secret@a"):
        assert "secret" not in repr(parse(url))

"""Tests of tidegate.bus.redis_url."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.bus.redis_url import RedisUrl, parse

HERE = (("localhost", 6379),)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://localhost", {"addresses": HERE}),
        ("redis://localhost/", {"addresses": HERE}),
        ("redis://10.0.0.1:7000/3", {"addresses": (("10.0.0.1", 7000),), "db": 3}),
        ("redis://[::1]:7000", {"addresses": (("::1", 7000),)}),
        ("redis://:p%40ss%2Fw@localhost", {"addresses": HERE, "password": "p@ss/w"}),
        ("redis://ada:secret@localhost", {"addresses": HERE, "username": "ada", "password": "secret"}),
        ("redis://localhost?bus=blue&evicting=allow&replicas=2", {"bus": "blue", "evicting": True, "replicas": 2}),
        ("rediss://localhost", {"addresses": HERE, "tls": True}),
        (
            "rediss://localhost?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_check_hostname=False",
            {
                **{"tls": True, "ca_file": "/ca.pem", "cert_file": "/c.pem", "key_file": "/k.pem"},
                "check_hostname": False,
            },
        ),
        (
            "redis+sentinel://:secret@one,two:7000/it/2?ssl=yes&sentinel_username=u&sentinel_password=s%26",
            {
                **{"addresses": (("one", 26379), ("two", 7000)), "service": "it", "db": 2, "password": "secret"},
                **{"tls": True, "sentinel_username": "u", "sentinel_password": "s&"},
            },
        ),
    ],
)
def test_parts(url: str, parts: dict[str, Any]) -> None:
    """What is not in a URL is as by default."""
    found = parse(url)
    assert {name: getattr(found, name) for name in parts} == parts
    rest = RedisUrl.__slots__
    default = RedisUrl(addresses=HERE)
    for name in set(rest) - parts.keys() - {"addresses"}:
        assert getattr(found, name) == getattr(default, name), name


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://", "redis: the host must be HOST or HOST:PORT, and signs of a password as %XX"),
        ("redis://localhost:99999", "the host must be HOST or HOST:PORT"),
        ("redis://:secr/et@localhost", "signs of a password as %XX"),
        ("redis://ada:12/secret@localhost", "signs of a password as %XX"),
        ("redis://a,b", "the host must be HOST or HOST:PORT"),
        ("redis://:secret#1@localhost", "there is a `#`, which a password must have as %23"),
        ("redis://localhost/first", "redis: after the host there may be /NUMBER of a database"),
        ("redis://localhost/1/2", "after the host there may be /NUMBER"),
        ("redis+sentinel://localhost", "the name of the service is missing"),
        (
            "redis://localhost?evict=allow",
            "there is no option 'evict', but bus, evicting, replicas, ssl_ca_certs, ssl_certfile, ssl_check_hostname,",
        ),
        ("redis://localhost?ssl=yes", "there is no option 'ssl'"),
        ("redis://localhost?bus=a&bus=b", "the option bus is given twice"),
        ("redis://localhost?bus=a:b", "the option bus must be a name of letters, digits, `-` and `_`"),
        ("redis://localhost?evicting=yes", "the option evicting must be allow"),
        ("redis://localhost?replicas=9", "the option replicas must be 0 to 8"),
        ("redis://localhost?ssl_ca_certs=/ca.pem", "options of TLS are for .* TLS: begin the URL with rediss://"),
        ("redis+sentinel://h/it?ssl_certfile=/ca.pem", "options of TLS are for connections with TLS: add ssl=yes"),
        ("rediss://localhost?ssl_check_hostname=maybe", "the option ssl_check_hostname must be yes or no"),
        ("redis+sentinel://h/it?sentinel_password=", "the option sentinel_password must be a password"),
    ],
)
def test_what_is_wrong_is_named(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse(url)
    assert "secr" not in str(caught.value)


def test_databases_of_a_server_have_channels_of_their_own() -> None:
    assert parse("redis://h").channel_prefix == "tg:bus:c:"
    assert parse("redis://h/1?bus=x").channel_prefix == "tg:x:c1:"
    assert parse("redis://h/1").prefix == "tg:bus:"


def test_it_is_shown_without_passwords() -> None:
    assert "secret" not in repr(parse("redis+sentinel://u:secret@h/it?sentinel_password=secret"))

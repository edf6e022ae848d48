"""`redis://`, `rediss://` and `redis+sentinel://`: what their parts say.

    RedisUrl    the parts
    parse       from the text; errors say what is wrong, and never have a password

It needs neither redis-py nor a server, so that a configuration is checked where there is none. What must not live here:
connecting (redis_link.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["RedisUrl", "parse"]

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
REPLICAS: Final = 8

OPTIONS: Final = {
    "bus": "a name of letters, digits, `-` and `_`",
    "evicting": "allow",
    "replicas": f"0 to {REPLICAS}",
    "ssl_ca_certs": "a file",
    "ssl_certfile": "a file",
    "ssl_keyfile": "a file",
    "ssl_check_hostname": "yes or no",
    "ssl": "yes or no",
    "sentinel_username": "a name",
    "sentinel_password": "a password",
}
"""What may follow `?`, and its values in words."""

_ONLY_SENTINEL = {"ssl", "sentinel_username", "sentinel_password"}
_BOOLEANS = {"yes": True, "true": True, "no": False, "false": False}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_HOST = re.compile(r"(\[[0-9a-f:.%a-z]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """What a URL says.

    Attributes:
        addresses: host and port of the server, or of each sentinel.
        service: what the sentinels call the server; empty without them.
        username, password: for the server.
        sentinel_username, sentinel_password: for the sentinels.
        db: the number of the database.
        bus: name of the bus: what the names of its keys begin with.
        tls: whether connections are encrypted.
        ca_file, cert_file, key_file: of TLS; the system's authorities, and no certificate of one's own, by default.
        check_hostname: whether the certificate must be that of the host.
        evicting: whether a server may throw away what is stored when its memory is full.
        replicas: how many must have a message before it is acknowledged.
    """

    addresses: tuple[tuple[str, int], ...]
    service: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    db: int = 0
    bus: str = "bus"
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True
    evicting: bool = False
    replicas: int = 0

    @property
    def prefix(self) -> str:
        """What the names of all keys begin with."""
        return f"tg:{self.bus}:"

    @property
    def channel_prefix(self) -> str:
        """What the names of Redis's channels begin with; those are common to all databases of a server."""
        return f"{self.prefix}c{self.db or ''}:"


def parse(url: str) -> RedisUrl:
    """Return the parts of a URL.

    Raises:
        ValueError: what is wrong with it.
    """
    parts = urlsplit(url)
    scheme = parts.scheme
    sentinel = scheme == "redis+sentinel"
    if parts.fragment:
        raise ValueError(f"{scheme}: there is a `#`, which a password must have as %23")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    options = _options(scheme, parts.query)
    path = unquote(parts.path).strip("/").split("/")
    service = path.pop(0) if sentinel else ""
    if sentinel and not service:
        raise ValueError("redis+sentinel: the name of the service is missing: redis+sentinel://HOST:PORT,.../SERVICE")
    db = "/".join(path)
    if db and not (db.isascii() and db.isdigit() and len(db) < 10):
        # It is not shown: it may be a part of a password.
        raise ValueError(f"{scheme}: after the host there may be /NUMBER of a database, and signs of a password as %XX")
    replicas = options.get("replicas", "0")
    return RedisUrl(
        addresses=_addresses(scheme, hosts, SENTINEL_PORT if sentinel else PORT),
        service=service,
        username=unquote(username),
        password=unquote(password),
        sentinel_username=options.get("sentinel_username", ""),
        sentinel_password=options.get("sentinel_password", ""),
        db=int(db or 0),
        bus=options.get("bus", "bus"),
        tls=scheme == "rediss" or _BOOLEANS[options.get("ssl", "no")],
        ca_file=options.get("ssl_ca_certs"),
        cert_file=options.get("ssl_certfile"),
        key_file=options.get("ssl_keyfile"),
        check_hostname=_BOOLEANS[options.get("ssl_check_hostname", "yes")],
        evicting="evicting" in options,
        replicas=int(replicas),
    )


def _addresses(scheme: str, text: str, port: int) -> tuple[tuple[str, int], ...]:
    addresses = []
    for one in text.split(",") if scheme == "redis+sentinel" else [text]:
        found = _HOST.fullmatch(one)
        if found is None or not 0 < int(found[2] or port) < 65536:
            # It is not shown: it may be a part of a password with a sign that must be escaped.
            raise ValueError(f"{scheme}: the host must be HOST or HOST:PORT, and signs of a password as %XX")
        addresses.append((found[1].strip("[]"), int(found[2] or port)))
    return tuple(addresses)


def _options(scheme: str, query: str) -> dict[str, str]:
    """Return what follows `?`, checked."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        allowed = OPTIONS.get(name)
        if allowed is None or (name in _ONLY_SENTINEL and scheme != "redis+sentinel"):
            known = sorted(OPTIONS if scheme == "redis+sentinel" else OPTIONS.keys() - _ONLY_SENTINEL)
            raise ValueError(f"{scheme}: there is no option {name[:32]!r}, but {', '.join(known)}")
        if name in options:
            raise ValueError(f"{scheme}: the option {name} is given twice")
        if not _is_allowed(name, value):
            raise ValueError(f"{scheme}: the option {name} must be {allowed}")
        options[name] = value.lower() if name.startswith("ssl") and value.lower() in _BOOLEANS else value
    if options.keys() & {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"} and not (
        scheme == "rediss" or _BOOLEANS[options.get("ssl", "no")]
    ):
        remedy = "add ssl=yes" if scheme == "redis+sentinel" else "begin the URL with rediss://"
        raise ValueError(f"{scheme}: options of TLS are for connections with TLS: {remedy}")
    return options


def _is_allowed(name: str, value: str) -> bool:
    if name == "bus":
        return _NAME.fullmatch(value) is not None
    if name == "evicting":
        return value == "allow"
    if name == "replicas":
        return value.isascii() and value.isdigit() and int(value[:9]) <= REPLICAS
    if name in ("ssl", "ssl_check_hostname"):
        return value.lower() in _BOOLEANS
    return bool(value)

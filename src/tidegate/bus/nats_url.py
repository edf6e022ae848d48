"""What a URL of NATS says: where the servers are, who one is there, the name of the bus, and how it is stored.

    nats://USER:PASSWORD@HOST:PORT,HOST:PORT/BUS?OPTION=VALUE&...

Secrets are in `Settings` and nowhere else: its text has none. What must not live here: a connection.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["Settings", "parse"]

FORM: Final = "nats://HOST:PORT,HOST:PORT/BUS"

PORT: Final = 4222

BUS: Final = "tidegate"
"""The name of a bus whose URL has none."""

_BUS = re.compile(r"[A-Za-z0-9-]{1,32}", re.ASCII)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]+)(:(?P<port>[0-9]{1,5}))?", re.ASCII)

OPTIONS: Final = {
    "creds": "file with the credentials of a user: a JWT and a seed",
    "nkey": "file with the seed of a user's nkey",
    "ca": "file with the certificates that the server's must be signed by",
    "cert": "file with a client's certificate",
    "key": "file with the key of that certificate",
    "replicas": "servers that store each message",
    "storage": "file or memory",
}
FILES: Final = ("creds", "nkey", "ca", "cert", "key")
REPLICAS: Final = (1, 3, 5)


@dataclass(frozen=True)
class Settings:
    """What a URL says.

    Attributes:
        tls: whether a server without TLS is refused.
        servers: hosts with ports.
        bus: the name of the bus.
        user, password, token: who one is.
        files: paths, by the names of their options.
        replicas: servers that store each message.
        storage: where they store it.
    """

    tls: bool
    servers: tuple[str, ...]
    bus: str = BUS
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    files: dict[str, str] = field(default_factory=dict)
    replicas: int = 1
    storage: str = "file"

    def credentials(self) -> dict[str, Any]:
        """Return what nats-py's `connect` takes to identify a user."""
        if "creds" in self.files:
            return {"user_credentials": self.files["creds"]}
        if "nkey" in self.files:
            return {"nkeys_seed": self.files["nkey"]}
        if self.token is not None:
            return {"token": self.token}
        if self.user is not None:
            return {"user": self.user, "password": self.password or ""}
        return {}

    def context(self) -> ssl.SSLContext:
        """Return the TLS of a client; read anew each time, so that certificates may be replaced.

        Raises:
            OSError, ssl.SSLError: a file cannot be used.
        """
        context = ssl.create_default_context(cafile=self.files.get("ca"))
        if "cert" in self.files:
            context.load_cert_chain(self.files["cert"], self.files.get("key"))
        return context


def parse(url: str) -> Settings:
    """Return what a URL says.

    Raises:
        ValueError: it is wrong; the message has no secret.
    """
    parts = urlsplit(url)
    scheme = f"{parts.scheme}://"
    who, _, hosts = parts.netloc.rpartition("@")
    servers = tuple(_server(scheme, host) for host in hosts.split(","))
    bus = parts.path.removeprefix("/") or BUS
    if _BUS.fullmatch(bus) is None:
        raise ValueError(f"{scheme}: the bus must have a name of 1 to 32 letters, digits and '-', not {bus[:64]!r}")
    if parts.fragment:
        raise ValueError(f"{scheme}: a URL of a bus has no '#' part: write %23 in a password")
    user, separator, password = who.partition(":")
    identity: dict[str, Any] = {}
    if separator:
        identity = {"user": unquote(user), "password": unquote(password)}
    elif user:
        identity = {"token": unquote(user)}
    return Settings(parts.scheme == "tls", servers, bus, **identity, **_options(scheme, parts.query, bool(who)))


def _server(scheme: str, text: str) -> str:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < int(found["port"] or PORT) < 65536:
        raise ValueError(f"{scheme}: {text[:64]!r} isn't HOST or HOST:PORT: the URL must be {FORM}")
    return f"{found['host']}:{found['port'] or PORT}"


def _options(scheme: str, query: str, has_user: bool) -> dict[str, Any]:
    given = parse_qsl(query, keep_blank_values=True)
    options = dict(given)
    for name, value in given:
        if name not in OPTIONS:
            known = ", ".join(f"{option} ({what})" for option, what in OPTIONS.items())
            raise ValueError(f"{scheme}: there is no option {name[:64]!r}, but {known}")
        if not value:
            raise ValueError(f"{scheme}: the option {name} is empty: it must be the {OPTIONS[name]}")
    if len(options) != len(given):
        raise ValueError(f"{scheme}: an option is given twice")
    identities = [name for name in ("creds", "nkey") if name in options]
    if len(identities) + has_user > 1:
        raise ValueError(f"{scheme}: one of creds=, nkey= and a user before the host says who one is, not several")
    if "key" in options and "cert" not in options:
        raise ValueError(f"{scheme}: key= is the key of cert=, which is missing")
    return {"files": _files(scheme, options), **_storing(scheme, options)}


def _files(scheme: str, options: dict[str, str]) -> dict[str, str]:
    files: dict[str, str] = {name: options[name] for name in FILES if name in options}
    for name, path in files.items():
        if not Path(path).is_file():
            raise ValueError(f"{scheme}: {name}={path[:256]} isn't a file: it must be the {OPTIONS[name]}")
    return files


def _storing(scheme: str, options: dict[str, str]) -> dict[str, Any]:
    replicas, storage = options.get("replicas", "1"), options.get("storage", "file")
    if replicas not in map(str, REPLICAS):
        raise ValueError(f"{scheme}: replicas must be 1, 3 or 5, not {replicas[:64]!r}")
    if storage not in ("file", "memory"):
        raise ValueError(f"{scheme}: storage must be file or memory, not {storage[:64]!r}")
    return {"replicas": int(replicas), "storage": storage}

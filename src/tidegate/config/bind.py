"""Addresses to listen on, and the parser of their text.

    Address          one of the four: Tcp, Unix, Fd or Systemd; `str()` gives the text that was parsed
    FORMS            what may be written for an address
    parse_address    text to address
    parse_tcp        text to address, of TCP alone

What must not live here: sockets (supervisor/sockets), clients' addresses and networks (networks.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["FORMS", "Address", "Fd", "Systemd", "Tcp", "Unix", "parse_address", "parse_tcp"]


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP port of a host name or address; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Return whether only this machine can reach it. Of names, only localhost is known to."""
        import ipaddress

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class Unix:
    """A Unix socket, by its path in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Fd:
    """A listening socket inherited from the parent process, by its file descriptor."""

    number: int

    def __str__(self) -> str:
        return f"fd://{self.number}"


@dataclass(frozen=True, slots=True)
class Systemd:
    """The sockets passed by systemd: all of them, or those of one name (FileDescriptorName=)."""

    socket: str | None = None

    def __str__(self) -> str:
        return "systemd" if self.socket is None else f"systemd:{self.socket}"


Address: TypeAlias = Tcp | Unix | Fd | Systemd

FORMS = "HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N, systemd or systemd:NAME"


def parse_address(text: str) -> Address:
    """Parse an address in one of the `FORMS`; ValueError says what is wrong."""
    if text == "systemd":
        return Systemd()
    if text.startswith("systemd:"):
        if not (name := text.removeprefix("systemd:")) or ":" in name or not name.isprintable():
            raise ValueError("the name of a socket is not empty, and has no colon")
        return Systemd(name)
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError("the path is missing" if not path else "a path has no null characters")
        return Unix(path)
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not (number.isascii() and number.isdigit()):
            raise ValueError("the file descriptor must be a whole number")
        return Fd(int(number))
    return parse_tcp(text)


def parse_tcp(text: str) -> Tcp:
    """Parse HOST:PORT or [IPV6]:PORT; ValueError says what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("the port is missing" if not text.isdigit() else f"the host is missing, as in 0.0.0.0:{text}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError("brackets are for IPv6 addresses")
    elif ":" in host:
        raise ValueError(f"an IPv6 address goes into brackets, as in [::1]:{port or 8765}")
    if not host or any(c in host for c in "[]/*@ \t"):
        raise ValueError(
            "0.0.0.0 is every address of IPv4, [::] of IPv6"
            if host in ("", "*")
            else "a host has no spaces, brackets, / * or @"
        )
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError("the port must be a whole number from 0 to 65535")
    return Tcp(host, int(port))

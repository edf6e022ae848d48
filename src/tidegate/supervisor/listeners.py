"""The addresses that the daemon listens on: bound once, before anything else, held until it ends.

    Listeners     every address of `--bind`
    Listener      one of them: `claim`, `bind`, `at` (the socket of a slot), `leave` (in a child), `close`
      TcpListener     a socket of its own for each slot, in one SO_REUSEPORT group, where groups are balanced
      UnixListener    one socket for all
      FdListener      one socket for all, taken as it comes
    Claim         what keeps a second daemon by accident from joining the group

The supervisor binds, and its workers listen: until a worker is ready its socket takes no connection, and from then on
it stays open, whoever dies. A worker that ends leaves its queue to its successor.

What must not live here: accepting, WebSocket, which worker serves what.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

from ..kinds import Address, Fd, Tcp, Unix

__all__ = ["AddressError", "Listeners", "bind_admin"]

# Elsewhere the last socket of a group gets every connection, or there are no groups.
BALANCES = sys.platform == "linux"

_SocketAddress: TypeAlias = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]


class AddressError(Exception):
    """An address that could not be bound, and why."""

    def __init__(self, address: Address, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return f"{self.address} could not be bound: {self.reason}"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


class Claim:
    """An advisory lock on an address, held as long as this process lives; OSError when another daemon has it.

    SO_REUSEPORT lets any process of the same user join an address, so the address itself keeps nobody away. On Linux
    the lock is an abstract Unix socket: like a port it belongs to the network namespace, and vanishes with its owner,
    whom it can name. Elsewhere it is a locked file.
    """

    def __init__(self, name: str) -> None:
        if sys.platform == "linux":
            self._lock: socket.socket | int = self._abstract(name)
        else:
            self._lock = self._file(name)

    @staticmethod
    def _abstract(name: str) -> socket.socket:
        path = f"\0tidegate/{name}"
        if len(path.encode()) > 107:
            path = f"\0tidegate/{hashlib.sha256(name.encode()).hexdigest()}"
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(path)
            lock.listen(1)
        except OSError as error:
            lock.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise OSError(errno.EADDRINUSE, f"{_owner(path)} has it") from None
        return lock

    @staticmethod
    def _file(name: str) -> int:
        key = hashlib.sha256(name.encode()).hexdigest()[:16]
        path = os.path.join(tempfile.gettempdir(), f"tidegate-{os.geteuid()}-{key}.lock")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise OSError(errno.EADDRINUSE, "another tidegate has it") from None
        return fd

    def release(self) -> None:
        if isinstance(self._lock, int):
            if self._lock >= 0:
                os.close(self._lock)
            self._lock = -1
        else:
            self._lock.close()


def _owner(path: str) -> str:
    """Whoever listens on a Unix socket, in words."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        caller.connect(path)
        credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return f"another tidegate (pid {struct.unpack('3i', credentials)[0]})"
    return "another tidegate"


class Listener(ABC):
    """One address, and the sockets that are bound to it."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}  # by slot; under 0 alone when it is shared
        self._claim: Claim | None = None

    shared = True

    @abstractmethod
    def bind(self) -> None:
        """Claim the address and bind the socket of slot 0; OSError when that cannot be."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The address as it is, with the port that the system chose where it was to."""

    def at(self, slot: int) -> socket.socket:
        """The socket of a slot, always the same one."""
        return self._sockets[0 if self.shared else slot]

    def leave(self, slot: int | None) -> None:
        """In a child: close what is not its slot's, and touch nothing that others have."""
        mine = None if slot is None else self.at(slot)
        for sock in self._sockets.values():
            if sock is not mine:
                sock.close()
        if self._claim is not None:
            self._claim.release()

    def close(self) -> None:
        """Give up the address."""
        for sock in self._sockets.values():
            sock.close()
        if self._claim is not None:
            self._claim.release()


class TcpListener(Listener):
    """A TCP port of one address; every slot has its own socket in its SO_REUSEPORT group."""

    shared = not BALANCES

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int] | tuple[str, int, int, int]) -> None:
        super().__init__()
        self._family, self._address = family, address

    @property
    def name(self) -> str:
        return str(Tcp(self._address[0], self._address[1]))

    @property
    def port(self) -> int:
        return self._address[1]

    def bind(self) -> None:
        if self._address[1]:
            self._claim = Claim(f"tcp/{self.name}")
            # The claim knows this very address. A bind without SO_REUSEPORT also meets whoever listens on one that
            # overlaps it, and those who joined a group of the same name without a claim.
            _tcp_socket(self._family, self._address, reuse_port=False).close()
        self.at(0)
        if self._claim is None:
            self._claim = Claim(f"tcp/{self.name}")

    def at(self, slot: int) -> socket.socket:
        key = 0 if self.shared else slot
        if key not in self._sockets:
            sock = _tcp_socket(self._family, self._address, reuse_port=not self.shared)
            self._sockets[key] = sock
            self._address = sock.getsockname()  # the port, where it was 0
        return self._sockets[key]


class UnixListener(Listener):
    """A Unix socket. Its file is removed at the end, and one that nobody listens on is replaced at the start."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._file: tuple[int, int] | None = None  # device and inode: somebody else may have put another there

    @property
    def name(self) -> str:
        return str(Unix(self._path))

    def bind(self) -> None:
        self._claim = Claim(f"unix/{os.path.realpath(self._path)}")
        self._remove_stale()
        self._sockets[0] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sockets[0].bind(self._path)
        status = os.stat(self._path)
        self._file = status.st_dev, status.st_ino

    def _remove_stale(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.setblocking(False)
            try:
                caller.connect(self._path)
            except FileNotFoundError:
                return
            except ConnectionRefusedError:
                pass
            except BlockingIOError:  # so many callers that it makes us wait
                raise OSError(errno.EADDRINUSE, "another server listens on it") from None
            else:
                raise OSError(errno.EADDRINUSE, "another server listens on it")
        if not stat.S_ISSOCK(os.lstat(self._path).st_mode):
            raise OSError(errno.EEXIST, "a file of that name exists, and is no socket")
        os.unlink(self._path)

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):
            status = os.stat(self._path)
            if (status.st_dev, status.st_ino) == self._file:
                os.unlink(self._path)
        self._file = None


class FdListener(Listener):
    """A socket from whoever started us: a service manager, or a test."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    @property
    def name(self) -> str:
        sock = self._sockets.get(0)
        if sock is None or sock.fileno() < 0:
            return str(Fd(self._number))
        name = sock.getsockname()
        return f"fd://{self._number} ({Tcp(*name[:2]) if isinstance(name, tuple) else Unix(str(name))})"

    def bind(self) -> None:
        try:
            sock = socket.socket(fileno=self._number)
        except OSError as error:
            words = {errno.EBADF: "there is no such file descriptor", errno.ENOTSOCK: "it is no socket"}
            raise OSError(error.errno, words.get(error.errno or 0, _reason(error))) from None
        if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            sock.detach()
            raise OSError(errno.EPROTOTYPE, "it is no stream socket of TCP or Unix")
        sock.set_inheritable(False)
        self._sockets[0] = sock


def _tcp_socket(
    family: socket.AddressFamily, address: tuple[str, int] | tuple[str, int, int, int], *, reuse_port: bool
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # [::] is IPv6, and 0.0.0.0 is IPv4
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _resolve(address: Tcp) -> list[_SocketAddress]:
    """Every socket address that a host and port stand for."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        words = error.strerror if isinstance(error, socket.gaierror) and error.strerror else str(error)
        raise AddressError(address, f"the host is unknown ({words})") from None
    places = [(family, place) for family, _, _, _, place in found if family in (socket.AF_INET, socket.AF_INET6)]
    return list(dict.fromkeys(places))  # type: ignore[arg-type]


class Listeners:
    """Every address that clients connect to."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def bind(self, addresses: Sequence[Address], slots: int) -> None:
        """Bind each address for so many slots.

        Raises:
            AddressError: one of them could not be bound; none is kept.
        """
        try:
            for address in addresses:
                self._bind(address, slots)
        except BaseException:
            self.close()
            raise

    def _bind(self, address: Address, slots: int) -> None:
        port = 0
        for place in _resolve(address) if isinstance(address, Tcp) else (None,):
            listener: Listener
            match address:
                case Tcp():
                    assert place is not None
                    family, (host, given, *rest) = place
                    # The same port for every address of a host, also when the system chooses the first.
                    listener = TcpListener(family, (host, given or port, *rest))  # type: ignore[arg-type]
                case Unix(path):
                    listener = UnixListener(path)
                case Fd(number):
                    listener = FdListener(number)
            self._listeners.append(listener)
            try:
                listener.bind()
                for slot in range(slots):
                    listener.at(slot)
            except OSError as error:
                raise AddressError(address, _reason(error)) from None
            if isinstance(listener, TcpListener):
                port = listener.port

    def at(self, slot: int) -> list[socket.socket]:
        """The sockets of a slot, one for each address."""
        return [listener.at(slot) for listener in self._listeners]

    @property
    def names(self) -> list[str]:
        """The addresses as they are, in the order given."""
        return [listener.name for listener in self._listeners]

    def leave(self, slot: int | None = None) -> None:
        """In a child: close every socket but those of its slot."""
        for listener in self._listeners:
            listener.leave(slot)

    def close(self) -> None:
        """Give up every address."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()


def bind_admin(address: Tcp | None) -> list[socket.socket]:
    """The listening sockets of the admin address, shared by every admin process there will be.

    Raises:
        AddressError: it could not be bound.
    """
    sockets: list[socket.socket] = []
    try:
        for family, place in _resolve(address) if address is not None else ():
            sock = _tcp_socket(family, place, reuse_port=False)
            sockets.append(sock)
            sock.listen(128)
    except OSError as error:
        for sock in sockets:
            sock.close()
        assert address is not None
        raise AddressError(address, _reason(error)) from None
    return sockets

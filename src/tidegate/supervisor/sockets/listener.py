"""One address that the daemon listens on, and its sockets.

    listeners_of    the listeners that an address stands for
    check, restore  those of the program before this one in this process
    Listener        `check`, `bind`, `at` (the socket of a slot), `listen`, `steer`, `drop`, `close_in_child`, `close`
      TcpListener     a socket of its own for each slot, in one SO_REUSEPORT group, where groups are balanced
      UnixListener    one socket for all slots
      FdListener      one socket for all slots, taken as it comes: from a descriptor's number, or from systemd

What must not live here: all addresses together (sockets/listeners.py), the text of an address (config/bind.py), the
lock on an address (sockets/address_lock.py), accepting.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from ...config.bind import Address, Fd, Systemd, Tcp, Unix
from ...ipc.handover_state import HandoverError, ListenerState
from ..system.privileges import chown
from .activation import passed
from .address_lock import AddressLock
from .addresses import TWICE, AddressError, Place, SocketAddress, check_other, reason_of, resolve, tcp_socket
from .reuseport import Group

__all__ = ["BALANCES", "FdListener", "Listener", "TcpListener", "UnixListener", "check", "listeners_of", "restore"]

# Elsewhere the last socket of a group gets every connection, or there are no groups.
BALANCES = sys.platform == "linux"

# Of <linux/tcp.h>'s struct tcp_info: tcpi_unacked, tcpi_sacked.
_QUEUE = struct.Struct("=24xII")


class Listener(ABC):
    """One address, and the sockets that are bound to it.

    Attributes:
        kind: the word for its class in the state of a handover, whose reader may be of another release: it stays as it
            is, whatever the class is called.
    """

    kind: ClassVar[str]

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}  # by slot; under 0 alone when it is shared
        self._lock: AddressLock | None = None
        self.reported_gone = False  # whether it has been logged that it is gone

    shared = True

    def __str__(self) -> str:
        return self.name

    def check(self, others: Sequence[Listener], siblings: Sequence[Listener] = ()) -> None:  # noqa: B027
        """Prepare for `bind()`, beside the listeners of the same address that are bound, its siblings.

        Raises:
            OSError: one of the others has what it is to bind.
        """

    @property
    def present(self) -> bool:
        """Whether clients can still find what was bound."""
        return True

    def renew(self) -> None:  # noqa: B027
        """Bind it again when it is gone; OSError when that cannot be."""

    @abstractmethod
    def bind(self, user: int | None = None) -> None:
        """Lock the address, as who will be `user`, and bind the socket of slot 0; OSError when that cannot be."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The address as it is, with the port that the system chose where it was to."""

    def chown(self, uid: int, gid: int) -> None:
        """Give the sockets to the user that root is about to switch to.

        Only sockets of one user may be in an SO_REUSEPORT group, and there may be more slots some day.
        """
        for sock in self._sockets.values():
            with contextlib.suppress(OSError):
                os.fchown(sock.fileno(), uid, gid)

    def at(self, slot: int) -> socket.socket:
        """Return the socket of a slot, always the same one."""
        return self._sockets[0 if self.shared else slot]

    place: tuple[Any, ...]
    """What it is made from."""

    def state(self) -> ListenerState:
        """Return what the program that replaces this one must know of it."""
        return ListenerState(
            kind=self.kind,
            name=self.name,
            place=self.place,
            sockets={slot: sock.fileno() for slot, sock in self._sockets.items()},
            numbered=[],
            lock=self._lock.fileno() if self._lock is not None else None,
        )

    def restore(self, state: ListenerState) -> None:
        """Take over the sockets of the program before this one, instead of binding."""
        for slot, number in state.sockets.items():
            os.set_inheritable(number, False)
            self._sockets[slot] = socket.socket(fileno=number)
        self._lock = AddressLock.restore(state.lock) if state.lock is not None else None

    def listen(self, slot: int, backlog: int) -> None:
        """Listen on the slot's socket, so that its queue fills."""
        self.at(slot).listen(backlog)

    def steer(self, around: frozenset[int]) -> bool:
        """Steer new connections around these slots; return whether that works. A shared socket belongs to no slot."""
        return True

    def queue(self, slot: int | None) -> tuple[int, int]:
        """Return how many connections wait in the queue of the slot's own socket, and how many may.

        With None, in that of the socket that all slots share. (0, 0) if there is no such socket, if it does not listen
        yet, or if the system does not tell, as of Unix sockets.
        """
        sock = self._sockets.get(slot or 0) if self.shared == (slot is None) else None
        if sock is None or sock.fileno() < 0 or sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
            return 0, 0
        # Of a listening socket, tcpi_unacked is the length of its queue, and tcpi_sacked the limit of it.
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE.size)
        length, limit = _QUEUE.unpack(info.ljust(_QUEUE.size, b"\0"))
        return length, limit

    def drop(self, slot: int) -> None:  # noqa: B027
        """Close the socket that the slot had for itself, if it had one."""

    def close_in_child(self, slot: int | None) -> None:
        """Close, in a child, what is not its slot's, and leave addresses and files alone."""
        mine = None if slot is None else self.at(slot)
        for sock in self._sockets.values():
            if sock is not mine:
                sock.close()
        if self._lock is not None:
            self._lock.release()

    def close(self) -> None:
        """Close the sockets, and release the address."""
        for sock in self._sockets.values():
            sock.close()
        if self._lock is not None:
            self._lock.release()


class TcpListener(Listener):
    """A TCP port of one address; every slot has its own socket in its SO_REUSEPORT group."""

    kind = "TcpListener"
    shared = not BALANCES

    def __init__(self, family: socket.AddressFamily, address: Place) -> None:
        super().__init__()
        self._family, self._address = family, address
        self._group = Group()

    @property
    def place(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (int(self._family), *self._address)

    def state(self) -> ListenerState:
        return msgspec.structs.replace(super().state(), numbered=self._group.numbered)

    def restore(self, state: ListenerState) -> None:
        super().restore(state)
        self._group = Group(state.numbered)

    @property
    def name(self) -> str:
        return str(Tcp(self._address[0], self._address[1]))

    @property
    def socket_address(self) -> SocketAddress:
        return self._family, self._address

    @property
    def port(self) -> int:
        return self._address[1]

    def check(self, others: Sequence[Listener], siblings: Sequence[Listener] = ()) -> None:
        host, port, *rest = self._address
        # The same port for every address of a host, also when the system chooses the first.
        if not port and (same := [other for other in siblings if isinstance(other, TcpListener)]):
            self._address = (host, same[-1].port, *rest)  # type: ignore[assignment]
        check_other(*self.socket_address, [other.socket_address for other in others if isinstance(other, TcpListener)])

    def bind(self, user: int | None = None) -> None:
        chosen = not self._address[1]
        if not chosen:
            self._lock = AddressLock.on(f"tcp/{self.name}", user)
            # The lock is on this very address. A bind without SO_REUSEPORT also finds programs that listen on one that
            # overlaps it, or on this one without a lock.
            tcp_socket(self._family, self._address, reuse_port=False).close()
        self.at(0)
        if chosen:
            self._lock = AddressLock.on(f"tcp/{self.name}", user)

    def at(self, slot: int) -> socket.socket:
        key = 0 if self.shared else slot
        if key not in self._sockets:
            sock = tcp_socket(self._family, self._address, reuse_port=not self.shared)
            self._sockets[key] = sock
            self._address = sock.getsockname()  # the port, where it was 0
        return self._sockets[key]

    def listen(self, slot: int, backlog: int) -> None:
        super().listen(slot, backlog)
        self._group.listens(slot)

    def steer(self, around: frozenset[int]) -> bool:
        if self.shared:
            return True
        listening = self._group.slots
        try:
            if listening:
                self._group.steer(self.at(next(iter(listening))), around)
        except OSError:
            return False
        return True

    def drop(self, slot: int) -> None:
        if not self.shared and slot in self._sockets:
            self._sockets.pop(slot).close()
            self._group.closed(slot)


class UnixListener(Listener):
    """A Unix socket. Its file is removed at the end; a stale file is replaced at the start."""

    kind = "UnixListener"

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._absolute = os.path.abspath(path)  # the working directory may change
        self.place = (path,)
        self._file: tuple[int, int] | None = None  # device and inode: another file may have its name by now

    def state(self) -> ListenerState:
        return msgspec.structs.replace(super().state(), file=self._file)

    def restore(self, state: ListenerState) -> None:
        super().restore(state)
        self._file = state.file

    @property
    def name(self) -> str:
        return str(Unix(self._path))

    def bind(self, user: int | None = None) -> None:
        self._lock = AddressLock.on(f"unix/{os.path.realpath(self._path)}", user)
        self._remove_stale()
        self._sockets[0] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # No absolute path may be longer than some 100 bytes.
        self._sockets[0].bind(self._path)
        self._file = self._found()

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.lstat(self._absolute)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @property
    def present(self) -> bool:
        return self._file is None or self._found() == self._file

    def renew(self) -> None:
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            fresh.bind(self._absolute)
        except OSError:
            fresh.close()
            raise
        self._sockets.pop(0).close()
        self._sockets[0], self._file, self.reported_gone = fresh, self._found(), False

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
            raise OSError(errno.EEXIST, "a file of that name exists and is not a socket")
        os.unlink(self._path)

    def chown(self, uid: int, gid: int) -> None:
        super().chown(uid, gid)
        chown(self._absolute, self._file, uid, gid)

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):
            if self._file is not None and self._found() == self._file:
                os.unlink(self._absolute)
        self._file = None


class FdListener(Listener):
    """A socket from the process that started the daemon: a service manager, or a test.

    All slots share it: one queue does not spread long-lived connections evenly over the workers, but connections in it
    outlive the daemon.
    """

    kind = "FdListener"

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self.place = (number,)

    def chown(self, uid: int, gid: int) -> None:
        """Leave the socket to its owner."""

    def check(self, others: Sequence[Listener], siblings: Sequence[Listener] = ()) -> None:
        if any(isinstance(other, FdListener) and other.place == self.place for other in others):
            raise OSError(errno.EADDRINUSE, TWICE)

    @property
    def name(self) -> str:
        sock = self._sockets.get(0)
        if sock is None or sock.fileno() < 0:
            return str(Fd(self._number))
        name = sock.getsockname()
        return f"fd://{self._number} ({Tcp(*name[:2]) if isinstance(name, tuple) else Unix(str(name))})"

    def bind(self, user: int | None = None) -> None:
        try:
            sock = socket.socket(fileno=self._number)
        except OSError as error:
            words = {errno.EBADF: "there is no such file descriptor", errno.ENOTSOCK: "it is not a socket"}
            raise OSError(error.errno, words.get(error.errno or 0, reason_of(error))) from None
        if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            sock.detach()
            raise OSError(errno.EPROTOTYPE, "it is not a TCP or Unix stream socket")
        if _connected(sock):
            sock.detach()
            raise OSError(errno.EISCONN, "it is a connection, not a listening socket: its unit needs Accept=no")
        sock.set_inheritable(False)
        self._sockets[0] = sock


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def listeners_of(address: Address) -> list[Listener]:
    """Return the listeners that an address of the settings stands for; none is bound.

    Raises:
        AddressError: it stands for none.
    """
    match address:
        case Tcp():
            return [TcpListener(family, place) for family, place in resolve(address)]
        case Unix(path):
            return [UnixListener(path)]
        case Fd(number):
            return [FdListener(number)]
        case Systemd(name):
            try:
                found = passed()
            except OSError as error:
                raise AddressError(address, str(error)) from None
            if matching := [FdListener(number) for number, given in found if name in (None, given)]:
                return list(matching)
            names = ", ".join(dict.fromkeys(given for _, given in found))
            raise AddressError(address, f"systemd has passed no socket of that name, but {names}")


def _made_from(state: ListenerState) -> Listener:
    match state.kind, state.place:
        case TcpListener.kind, (int(family), str(host), int(port), *rest):
            return TcpListener(socket.AddressFamily(family), (host, port, *rest))  # type: ignore[arg-type]
        case UnixListener.kind, (str(path),):
            return UnixListener(path)
        case FdListener.kind, (int(number),):
            return FdListener(number)
        case _:
            raise HandoverError(f"{state.name} has a kind of listener that this tidegate does not know ({state.kind})")


def check(state: ListenerState) -> None:
    """Check that this program can take the listener over, without taking it.

    Raises:
        HandoverError: this program does not know its kind.
    """
    _made_from(state)


def restore(state: ListenerState) -> Listener:
    """Take over a listener of the program before this one in this process.


    Raises:
        HandoverError: this program does not know its kind.
    """
    listener = _made_from(state)
    listener.restore(state)
    return listener

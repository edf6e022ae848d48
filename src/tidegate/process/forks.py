"""Children that an application forks from a process of the daemon: they get nothing that is the daemon's.

An application forks with os.fork() and with multiprocessing, whose default that is up to Python 3.13. Such a child has
copies of the listening sockets, which keep the address taken after the daemon's end, and of the connections, which hide
the end of a worker from clients; and it has signal handlers by which nothing would ever end it.

    own                    around a fork by which the daemon makes a process of its own, which inherits everything
    handled                mark the present handler of a signal as the daemon's
    leave_signals_to_supervisor    in a process that has no application
    keep, closed           mark a descriptor as the daemon's, or no longer
    on_application_fork    what else to call in such a child
    release                in the child: close sockets by their address, and descriptors that are the daemon's
    addresses              those of sockets

In the child, before any code of the application: signals do what they do in every Python program, the title is the
command's, and what `on_application_fork()` was given is called. What an application has set up itself stays as it is.

What must not live here: what a child of the daemon's own closes (supervisor).
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
from _thread import get_ident
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeAlias

from setproctitle import setproctitle

from .. import logs
from . import streams

__all__ = [
    "Address",
    "addresses",
    "closed",
    "handled",
    "keep",
    "leave_signals_to_supervisor",
    "on_application_fork",
    "own",
    "release",
]

Address: TypeAlias = "tuple[socket.AddressFamily, str, int]"
"""Family, host or path, port."""

# Signals that a terminal or an operator may send to the whole process group: the supervisor alone acts on them.
LEFT_TO_SUPERVISOR = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGTTIN,
    signal.SIGTTOU,
)

_ANY = ("0.0.0.0", "::")

_forking: int | None = None  # the thread that forks a process of the daemon's own
_handlers: dict[int, Any] = {}
_kept: set[int] = set()
_leave: Callable[[], object] | None = None


@contextlib.contextmanager
def own() -> Iterator[None]:
    """Mark a fork as the daemon's own, whose child inherits everything."""
    global _forking, _leave
    _forking, pid = get_ident(), os.getpid()
    try:
        yield
    finally:
        _forking = None
        if os.getpid() != pid:
            _leave = None


def handled(number: int) -> None:
    """Mark the present handler of this signal as the daemon's, which an application's child must not have."""
    _handlers[number] = signal.getsignal(number)


def leave_signals_to_supervisor() -> None:
    """Ignore, in a process without an application, what a terminal or an operator sends to all processes."""
    for number in LEFT_TO_SUPERVISOR:
        signal.signal(number, signal.SIG_IGN)
        handled(number)


def keep(number: int) -> None:
    """Mark a descriptor as the daemon's, for as long as this process lives."""
    _kept.add(number)


def closed(number: int) -> None:
    """Forget a descriptor that is closed: its number may be another one's from now on."""
    _kept.discard(number)


def on_application_fork(leave: Callable[[], object]) -> None:
    """Call this in each child that is not forked by way of `own()`."""
    global _leave
    _leave = leave


def addresses(sockets: Iterable[socket.socket]) -> set[Address]:
    """Return the addresses that these sockets are bound to."""
    return {address for address in map(_local, sockets) if address is not None}


def _local(sock: socket.socket) -> Address | None:
    """Return the address that a socket is bound to, or that a client has connected to; None if it has none."""
    try:
        name = sock.getsockname()
    except OSError:
        return None
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return sock.family, name[0], name[1]
    if sock.family == socket.AF_UNIX and name:
        return sock.family, os.fsdecode(name), 0
    return None


def release(at: Collection[Address]) -> None:
    """Close descriptors that are kept, sockets that are bound to these addresses, and their clients' connections.

    Their numbers stay taken by a socket at its end: an event loop that still has one would close another file by it,
    and libuv aborts a process that finds no socket where it had one.
    """
    doomed = [number for number in _open() if number in _kept or _is_at(number, at)]
    ended, other = socket.socketpair()
    other.close()
    for number in doomed:
        os.dup2(ended.fileno(), number, inheritable=False)
    ended.close()


def _open() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return [int(name) for name in os.listdir(folder)]
    return []


def _is_at(number: int, places: Collection[Address]) -> bool:
    """Return whether a descriptor is a stream socket of one of these addresses."""
    try:
        sock = socket.socket(fileno=number)
    except OSError:  # it is not a socket, or the descriptor by which the folder was read
        return False
    try:
        address = _local(sock) if sock.type == socket.SOCK_STREAM else None
    finally:
        sock.detach()
    if address is None:
        return False
    family, _, port = address
    return address in places or (family != socket.AF_UNIX and any((family, wild, port) in places for wild in _ANY))


def _forked() -> None:
    """Undo, in a child of the application's, what is the daemon's."""
    if _forking == get_ident() or (_leave is None and not _handlers):
        return
    with contextlib.suppress(ValueError, OSError):
        signal.set_wakeup_fd(-1)  # the parent would receive the child's signals
    _default_signals()
    if _leave is not None:
        with contextlib.suppress(Exception):
            _leave()
        with contextlib.suppress(Exception):
            setproctitle(" ".join(sys.orig_argv))


def _default_signals() -> None:
    """Reset signals whose handler is still the daemon's to what they have in every Python program."""

    ours = [handler for handler in _handlers.values() if callable(handler)]
    for number in signal.valid_signals():
        with contextlib.suppress(ValueError, OSError):
            handler = signal.getsignal(number)
            # An event loop has one handler for every signal that an application has given it, and does not run here.
            if (number in _handlers and handler == _handlers[number]) or handler in ours:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    faulthandler.unregister(logs.STACKS)
    _handlers.clear()


os.register_at_fork(before=streams.flush, after_in_child=_forked)

"""The hub as its supervisor has it: a slot, the journal, which outlives every hub, and the links to workers.

    Hub    all of it; there is no hub before a worker asks for a link

Each link is a socket pair, whose ends go to the hub and to a worker by their pipes. The supervisor keeps neither, so
that the end of either process is the end of the file to the other. After a hub's end workers are given new ones.

What must not live here: forks and ends (pool.py), what is said on a link (hub/).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable
from urllib.parse import quote, unquote

from .._core.journal import make_memory
from ..config.bind import Unix
from ..config.schema import Config
from ..ipc.control_protocol import hub_path
from ..ipc.exit_status import USAGE
from ..ipc.handover_state import HandoverState
from ..ipc.pipe import Command
from .sockets import activation
from .sockets.addresses import AddressError, reason_of
from .sockets.listener import UnixListener
from .system.daemon import ServiceError
from .worker_handle import Generation, Handle, Role, Slot

__all__ = ["Hub"]

SMALLEST = 32 << 20
"""Bytes of a journal that a daemon has made, at least: no setting allows less."""

BACKLOG = 64
"""Connections of other processes that wait to be accepted."""

JOURNAL_BEGINS = b"tgjournl"
"""The first bytes of a journal (journal.h); of a new file they are zero, or there are none."""

logger = logging.getLogger("tidegate.supervisor")


class Hub:
    """The hub's slot, journal and links.

    Parameters:
        generation: the present one.
        fill: forks the slot's next child.
        workers: returns the workers that there are.
        store: has the service manager keep a file, by its name, for the next daemon.

    Attributes:
        slot: where the hub is.
        journal: descriptor of the journal's file; None as long as no worker has asked for a link.
        listener: where other processes of the daemon's user connect to the hub, beside the control socket, if any.
    """

    def __init__(
        self,
        generation: Generation,
        fill: Callable[[Slot], None],
        workers: Callable[[], list[Handle]],
        store: Callable[[str, int], object],
    ) -> None:
        self.slot = Slot(0, generation, Role.HUB)
        self.journal: int | None = None
        self.listener: UnixListener | None = None
        self._fill, self._workers, self._store = fill, workers, store
        self._complaint = ""  # why there is no journal, which is tried again and again
        self._renewed = False  # the socket, and the hub has not been given the new one
        self._stored: int | None = None  # the journal of the daemon before this one, kept by the service manager

    def open(self, config: Config, control: str | None, user: int | None = None) -> None:
        """Bind the socket for other processes, which can connect once there is a hub; as `user` later.

        Raises:
            AddressError: it cannot be bound.
            ServiceError: the file of local:///PATH can be no journal.
        """
        self._stored = activation.stored()
        path = _path(config)
        if path:
            try:
                with contextlib.suppress(FileNotFoundError):  # it is made with the first hub
                    os.close(_open_file(path, config.bus_memory, os.O_RDWR))
                os.stat(os.path.dirname(path))
            except OSError as error:
                raise ServiceError(USAGE, f"--bus {config.bus} is not allowed: {error}") from None
        if control is None:
            return
        path = hub_path(os.path.abspath(control))
        listener = UnixListener(path)
        mask = os.umask(0o177)
        try:
            listener.bind(user)
        except OSError as error:
            listener.close()
            raise AddressError(Unix(path), reason_of(error)) from None
        finally:
            os.umask(mask)
        self.listener = listener

    def chown(self, uid: int, gid: int) -> None:
        """Give the socket's file to the user that root is about to switch to."""
        if self.listener is not None:
            self.listener.chown(uid, gid)

    def renew_file(self) -> None:
        """Make the socket's file again, if it has been removed, and give the new socket to the hub."""
        listener = self.listener
        if listener is None:
            return
        if not listener.reported_gone and not listener.present:
            mask = os.umask(0o177)
            try:
                listener.renew()
                if self.journal is not None:
                    listener.listen(0, BACKLOG)
                self._renewed = True
                logger.warning("%s, the socket of the hub, had been removed: it has been made again", listener.place[0])
            except OSError as error:
                listener.reported_gone = True
                reason = reason_of(error)
                logger.warning("%s, the socket of the hub, has been removed: %s", listener.place[0], reason)
            finally:
                os.umask(mask)
        hub = self.slot.current
        if self._renewed and hub is not None:
            self._renewed = not hub.pipe.send(Command(sockets=1, listen=True), [listener.at(0)])

    @property
    def url(self) -> str | None:
        """The URL of the bus for other processes, if they can connect."""
        return f"local://{quote(self.listener.place[0])}" if self.listener is not None else None

    @property
    def socket(self) -> socket.socket | None:
        """What a hub accepts from."""
        return self.listener.at(0) if self.listener is not None else None

    def tend(self, config: Config) -> None:
        """Give each worker that has asked for a link one that leads to the present hub; fork the first hub for them."""
        waiting = [handle for handle in self._workers() if handle.wants_link and not handle.is_linked]
        if not waiting:
            return
        if self.journal is None:
            try:
                self.journal = self._open_journal(config)
            except OSError as error:
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    logger.error("there is no journal, hence no bus: %s", error)
                return
            if self.listener is not None:
                self.listener.listen(0, BACKLOG)
            self._fill(self.slot)
        hub = self.slot.current
        if hub is not None and hub.stage == "ready" and not hub.stop_mode:
            for handle in waiting:
                handle.is_linked = _link(hub, handle)

    def _open_journal(self, config: Config) -> int:
        """Return the descriptor of the journal's file, at the path of local:///PATH or in memory."""
        path = _path(config)
        if path:
            return _open_file(path, config.bus_memory, os.O_RDWR | os.O_CREAT)
        file = make_memory(config.bus_memory) if self._stored is None else self._stored
        self._store(activation.JOURNAL, file)
        return file

    def mend(self, config: Config) -> None:
        """Give the journal's file its size, if it is new, or has been cut."""
        if self.journal is not None and os.fstat(self.journal).st_size < SMALLEST:
            os.truncate(self.journal, config.bus_memory)

    def unlink(self) -> None:
        """Note that links lead nowhere any more."""
        for handle in self._workers():
            handle.is_linked = False

    def restore(self, state: HandoverState, slot: Slot | None) -> None:
        """Take over the journal, and the slot, of the program before this one."""
        if state.journal is not None and slot is not None:
            os.set_inheritable(state.journal, False)
            self.journal, self.slot = state.journal, slot
        if state.hub_socket is not None:
            self.listener = UnixListener(str(state.hub_socket.place[0]))
            self.listener.restore(state.hub_socket)

    def close(self) -> None:
        """Close the journal's file, and the socket, whose file is removed."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        self._close_journal()

    def close_in_child(self, *, is_hub: bool = False) -> None:
        """Close, in a child, what is not its own: a hub has the journal, and the socket."""
        if self.listener is not None:
            self.listener.close_in_child(0 if is_hub else None)
        if not is_hub:
            self._close_journal()

    def _close_journal(self) -> None:
        if self.journal is not None:
            os.close(self.journal)
            self.journal = None


def _path(config: Config) -> str:
    """Return the path of the journal's file; empty: it is in memory."""
    scheme, _, path = config.bus.partition("://")
    return unquote(path) if scheme == "local" else ""


def _open_file(path: str, size: int, flags: int) -> int:
    """Open a journal of this size, and nothing else; OSError otherwise."""
    file = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    begin = os.pread(file, len(JOURNAL_BEGINS), 0)
    # A journal whose first bytes are damaged has about its size still.
    is_ours = not begin.strip(b"\0") or JOURNAL_BEGINS.startswith(begin)
    if not is_ours and os.fstat(file).st_size < size // 2:
        os.close(file)
        raise OSError(f"{path} has something else in it, which would be lost: name another file in --bus local://")
    return file


def _link(hub: Handle, worker: Handle) -> bool:
    """Link a worker with the hub; return whether it went well."""
    with contextlib.ExitStack() as stack:
        try:
            ends = socket.socketpair()
        except OSError as error:
            logger.warning("%s cannot be linked with the hub yet: %s", worker, error)
            return False
        for end in ends:
            stack.enter_context(end)
        command = Command(sockets=1, link=True, generation=worker.generation.number)
        return hub.pipe.send(command, [ends[0]]) and worker.pipe.send(command, [ends[1]])

"""The addresses that the daemon listens on: bound once, before anything else, held until it ends.

A socket is bound at the start, and listens when a first worker of its slot has booted: until then it takes no
connection, and from then on it stays open, whichever process dies. A worker that ends leaves its queue to its
successor.

What must not live here: one address and its sockets (sockets/listener.py), accepting, WebSocket, which worker serves
what.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

from ...config.bind import Address
from ...ipc.handover_state import ListenerState
from .addresses import AddressError, SocketAddress, bind_each, reason_of
from .listener import Listener, TcpListener, listeners_of, restore

__all__ = ["Listeners"]

logger = logging.getLogger("tidegate.supervisor")


class Listeners:
    """Every address that clients connect to."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def state(self) -> list[ListenerState]:
        """Return what the program that replaces this one must know of them."""
        return [listener.state() for listener in self._listeners]

    def restore(self, states: Sequence[ListenerState]) -> None:
        """Take over the sockets of the program before this one, instead of binding."""
        self._listeners += map(restore, states)

    def bind(self, addresses: Sequence[Address], slots: int, user: int | None = None) -> None:
        """Bind each address for so many slots, as who will be `user`.

        Raises:
            AddressError: one of them could not be bound; none is kept.
        """
        try:
            for address in addresses:
                self._bind(address, slots, user)
        except BaseException:
            self.close()
            raise

    def _bind(self, address: Address, slots: int, user: int | None) -> None:
        siblings: list[Listener] = []

        def bind(listener: Listener) -> None:
            listener.check(self._listeners, siblings)
            try:
                listener.bind(user)
                for slot in range(slots):
                    listener.at(slot)
            except OSError:
                listener.close()
                raise
            self._listeners.append(listener)
            siblings.append(listener)

        bind_each(address, listeners_of(address), bind)

    @property
    def socket_addresses(self) -> list[SocketAddress]:
        """The addresses that are TCP ports."""
        return [listener.socket_address for listener in self._listeners if isinstance(listener, TcpListener)]

    def report_missing(self) -> None:
        """Log, once for each address, that clients cannot connect to it any more."""
        for listener in self._listeners:
            if not listener.reported_gone and not listener.present:
                listener.reported_gone = True
                logger.warning(
                    "%s is gone: the socket's file has been removed or replaced. Clients cannot connect to it until a"
                    " reload binds it again",
                    listener.name,
                )

    def renew(self) -> list[str]:
        """Bind again what is gone, for workers that are forked from now on; return what became of each, in words."""
        words = []
        for listener in self._listeners:
            if not listener.present:
                try:
                    listener.renew()
                    words.append(f"{listener.name} was gone, and has been bound again")
                except OSError as error:
                    words.append(f"{listener.name} is gone, and could not be bound again: {reason_of(error)}")
        return words

    def chown(self, uid: int, gid: int) -> None:
        """Give what is bound to the user that root is about to switch to.

        Raises:
            OSError: the file of a Unix socket cannot be given to it.
        """
        for listener in self._listeners:
            listener.chown(uid, gid)

    def at(self, slot: int) -> list[socket.socket]:
        """Return the sockets of a slot, one for each address."""
        return [listener.at(slot) for listener in self._listeners]

    def own(self, slot: int) -> list[socket.socket]:
        """Return the sockets of a slot that no other slot shares."""
        return [listener.at(slot) for listener in self._listeners if not listener.shared]

    def add(self, slot: int) -> None:
        """Bind the sockets of a new slot.

        Raises:
            OSError: one of them could not be bound; none is kept.
        """
        try:
            self.at(slot)
        except OSError:
            self.drop(slot)
            raise

    def listen(self, slot: int, backlog: int) -> None:
        """Listen on the sockets of a slot, so that their queues fill.

        Raises:
            AddressError: another program has come between binding an address and this.
        """
        for listener in self._listeners:
            try:
                listener.listen(slot, backlog)
            except OSError as error:
                raise AddressError(listener.name, reason_of(error)) from None

    def steer(self, around: frozenset[int]) -> bool:
        """Steer new connections around the sockets that are these slots' own; return whether that works."""
        steered = [listener.steer(around) for listener in self._listeners]
        return all(steered)

    def queue(self, slot: int | None) -> tuple[int, int]:
        """Return how many connections wait in the slot's own queues (None: in the shared ones), and how many may."""
        queues = [listener.queue(slot) for listener in self._listeners]
        return sum(length for length, _ in queues), sum(limit for _, limit in queues)

    def waiting(self, slot: int) -> int:
        """Return how many connections wait in the slot's own queues."""
        return self.queue(slot)[0]

    def drop(self, slot: int) -> None:
        """Close the sockets that are the slot's own. Connections that still wait there are reset."""
        for listener in self._listeners:
            listener.drop(slot)

    @property
    def names(self) -> list[str]:
        """The addresses as they are bound, in the order given."""
        return [listener.name for listener in self._listeners]

    def close_in_child(self, slot: int | None = None) -> None:
        """Close, in a child, every socket but those of its slot."""
        for listener in self._listeners:
            listener.close_in_child(slot)

    def close(self) -> None:
        """Close every socket, and release every address."""

        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

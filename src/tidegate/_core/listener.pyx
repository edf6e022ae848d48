# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""A listening socket, whose connections become streams, several in a turn of the loop.

What must not live here: binding and names of addresses, who is let in (asyncio).
"""

import errno
import os
import socket

from libc.stdint cimport uint32_t

from tidegate._core.poller cimport Pollable, Poller
from tidegate._core.stream cimport Stream, tg_address


cdef extern from "Python.h":
    object PyContext_CopyCurrent()


cdef extern from "stream.h" nogil:
    uint32_t EPOLLIN, EPOLLET
    int EAGAIN
    int tg_accept(int descriptor, tg_address *peer)


# Connections that are accepted in a turn, before those that are there have theirs: of a socket that other processes may
# accept from as well, no more than a fair share.
cdef enum:
    BATCH = 64
    SHARE = 16

# Seconds without accepting when the system has no more descriptors or memory, as asyncio has it.
cdef double RETRY = 1.0

# Of a connection that is gone, of its network or of a firewall (accept(2)): the next may be better. Anything else stays.
cdef frozenset FLEETING = frozenset(
    -getattr(errno, name)
    for name in (
        "ECONNABORTED", "EINTR", "EPERM", "EPROTO", "ENOPROTOOPT", "ETIMEDOUT",
        "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENONET",
    )
)


cdef class Listener(Pollable):
    """Accepts on a socket from `start()` to `stop()`.

    Args:
        loop: the event loop.
        sock: a bound stream socket, TCP or Unix; it stays its owner's, who closes it after `stop()`.
        factory: makes the protocol of each connection.
    """

    def __init__(self, loop, sock, factory):
        self.loop, self.sock, self.factory = loop, sock, factory
        self.family = sock.family
        self.context = PyContext_CopyCurrent()

    def start(self, int backlog):
        """Listen, and accept from the next turn on."""
        self.sock.listen(backlog)
        self.sock.setblocking(False)
        if self.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # which its connections inherit
        own = self.family != socket.AF_UNIX and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        self.batch = BATCH if own else SHARE
        self.descriptor = self.sock.fileno()
        self.poller = Poller.of(self.loop)
        self.poller.watch(self, EPOLLIN | EPOLLET)

    def stop(self):
        """Accept nothing more."""
        if self.descriptor >= 0:
            self.poller.forget(self)

    def streams(self):
        """Return the connections that it accepted and that are not lost."""
        return [
            member for member in Poller.of(self.loop).members
            if isinstance(member, Stream) and (<Stream> member).context is self.context
        ]

    cdef int on_ready(self, uint32_t events) except -1:
        return 0 if self.resting else self.go_on()

    cdef int go_on(self) except -1:
        cdef int i, descriptor
        cdef tg_address peer
        for i in range(self.batch):
            if self.descriptor < 0:
                return 0  # stopped meanwhile
            descriptor = tg_accept(self.descriptor, &peer)
            if descriptor == -EAGAIN:
                return 0
            if descriptor >= 0:
                try:
                    self.made(descriptor, &peer)
                except BaseException:
                    self.poller.again(self)
                    raise
            elif descriptor in FLEETING:
                pass
            else:
                return self.refused(descriptor)
        return self.poller.again(self)

    cdef int made(self, int descriptor, tg_address *peer) except -1:
        cdef Stream stream = Stream.__new__(Stream)
        stream.context = self.context
        stream.peer = peer[0]
        stream.begin(self.loop, descriptor, self.family, None)  # it closes the descriptor from now on
        try:
            protocol = self.factory()
            stream.set_protocol(protocol)
            protocol.connection_made(stream)
            stream.start()
        except BaseException as exc:
            if stream.protocol is None:
                stream.shut()
            stream.finish(exc)
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            stream.report(exc, "Fatal error: a connection that was accepted could not begin.")
        return 0

    cdef int refused(self, int error) except -1:
        """The system has nothing to accept with, or the socket is none to accept on: say so, and try again later."""
        self.resting = True
        self.loop.call_exception_handler({
            "message": "socket.accept() failed, and is tried again later",
            "exception": OSError(-error, os.strerror(-error)),
            "socket": self.sock,
        })
        self.loop.call_later(RETRY, self._go_on)
        return 0

    def _go_on(self):
        self.resting = False
        if self.descriptor >= 0:
            self.poller.again(self)

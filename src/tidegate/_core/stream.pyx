# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, binding=False, auto_pickle=False
"""A connected stream socket, TCP or Unix, as asyncio's transport: ours instead of the loop's, on Linux and without TLS.

It reads once in a turn of the loop, into one buffer for all streams, and hands that to a `Receiver` as it is; other
protocols get what asyncio promises them, `data_received(bytes)` or their own buffer. The descriptor is closed right after
`connection_lost()`, and is -1 from then on: nothing here touches a number that may be another socket's by now.

What must not live here: what is ready (poller.pyx), writing (write_buffer.pyx), frames.
"""

import asyncio
import socket
import warnings
from asyncio.trsock import TransportSocket
from contextlib import suppress

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t

from tidegate._core.poller cimport Poller, enter_context
from tidegate._core.turns cimport TurnTaker
from tidegate._core.write_buffer cimport WriteBuffer, iovec


STREAMS = bool(TG_STREAMS)  # whether there are any on this platform


cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Exit(object context)


cdef extern from "stream.h" nogil:
    const int TG_STREAMS
    int EAGAIN, AF_INET, AF_INET6, AF_UNIX
    void tg_local_address(int descriptor, tg_address *to)
    uint32_t EPOLLIN, EPOLLPRI, EPOLLOUT, EPOLLRDHUP, EPOLLET
    int close(int descriptor)
    Py_ssize_t tg_receive(int descriptor, void *data, size_t size)
    Py_ssize_t tg_receive_pieces(int descriptor, iovec *pieces, size_t count)


cdef object name_of(tg_address *address):
    """Return an address as the socket module shows it; "" for that of a Unix socket that is closed."""
    cdef int family = address.family
    if family == AF_INET:
        return socket.inet_ntop(family, address.bytes[:4]), address.port
    if family == AF_INET6:
        return socket.inet_ntop(family, address.bytes[:16]), address.port, address.flow, address.scope
    return "" if family == AF_UNIX else None


cdef class Receiver(TurnTaker):
    cdef uint8_t *place_for(self, Py_ssize_t *size) except? NULL:
        """Return where to put the next bytes, up to `size`, until `receive()` is called; NULL for the buffer."""
        return NULL

    cdef int receive(self, bytes buffer, Py_ssize_t size, Py_ssize_t placed) except -1:
        """Take what was read: `placed` bytes in the place, then `size` in the buffer, which is free after the call."""
        raise NotImplementedError


cdef class Stream(WriteBuffer):
    """asyncio.Transport, as far as its documentation goes; made by `adopt()` and by listeners.

    Attributes:
        loop: the event loop.
    """

    cdef int begin(self, object loop, int descriptor, int family, object protocol) except -1:
        """Be the transport of a connected socket that never blocks, whose descriptor is this object's own from now on."""
        self.loop = loop
        self.descriptor = descriptor
        self.family = family
        self.poller = Poller.of(loop)
        self.set_protocol(protocol)
        return 0

    cdef int start(self) except -1:
        """Read, and write what waits, from the next turn on."""
        # A Unix socket may return less than it has: descriptors that come along end a read, as urgent data do with TCP.
        self.ending = self.family == AF_UNIX
        return 0 if self.lost else self.poller.watch(self, EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET)

    def __dealloc__(self):
        if self.descriptor >= 0 and self.sock is None:
            close(self.descriptor)

    def __del__(self):
        if self.descriptor >= 0:
            try:
                warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            finally:
                if self.sock is not None:
                    self.sock.close()  # which would warn, too

    def __repr__(self):
        cdef list words = ["closed" if self.descriptor < 0 else "closing" if self.closing else "open"]
        if self.descriptor >= 0:
            words.append(f"fd={self.descriptor}")
        if self.reading_paused:
            words.append("paused")
        return f"<{type(self).__name__} {' '.join(words)} write_buffer={self.pending_size}>"

    # What is known.

    def get_extra_info(self, name, default=None):
        if name == "peername":
            if self.peername is None:
                here = self.family == AF_UNIX and self.descriptor >= 0
                self.peername = self._socket().getpeername() if here else name_of(&self.peer)
            return default if self.peername is None else self.peername
        if name == "sockname":
            if self.sockname is None:
                if self.descriptor >= 0:
                    tg_local_address(self.descriptor, &self.local)
                unix = self.family == AF_UNIX and self.descriptor >= 0
                self.sockname = self._socket().getsockname() if unix else name_of(&self.local)
            return default if self.sockname is None else self.sockname
        if name == "socket":
            return TransportSocket(self._socket()) if self.descriptor >= 0 or self.sock is not None else default
        return default

    def _socket(self):
        if self.sock is None:
            self.sock = socket.socket(self.family, socket.SOCK_STREAM, -1, self.descriptor)
        return self.sock

    def get_protocol(self):
        return self.protocol

    def set_protocol(self, protocol):
        self.protocol = protocol
        self.buffered = isinstance(protocol, asyncio.BufferedProtocol)
        self.receiver = protocol if isinstance(protocol, Receiver) else None

    def is_closing(self):
        return self.closing

    def is_reading(self):
        return not (self.reading_paused or self.closing)

    # In.

    def pause_reading(self):
        self.reading_paused = True

    def resume_reading(self):
        self.reading_paused = False
        if self.readable:
            self.poller.again(self)

    cdef int on_ready(self, uint32_t events) except -1:
        if events & ~<uint32_t> EPOLLOUT:
            self.readable = True
            if events & ~<uint32_t> (EPOLLIN | EPOLLOUT):
                self.ending = True
        try:
            if self.pending is not None and events & ~<uint32_t> EPOLLIN:
                self.flush()
        finally:
            if self.readable:
                self.go_on()
        return 0

    cdef int go_on(self) except -1:
        """Read once, and again in the next turn if that was not all."""
        if not (self.reading_paused or self.closing or self.eof_received):
            try:
                self.read()
            finally:
                if self.readable and not self.reading_paused:
                    self.poller.again(self)
        return 0

    cdef int read(self) except -1:
        """Read once, and hand over what came."""
        cdef bytes buffer
        cdef iovec places[2]
        cdef Py_ssize_t n, room, placed = 0
        cdef uint8_t *place = NULL
        if self.buffered:
            return self.read_into()
        buffer = self.poller.lend()
        room = PyBytes_GET_SIZE(buffer)
        if self.receiver is not None:
            place = self.receiver.place_for(&placed)
        if place is NULL:
            n = tg_receive(self.descriptor, PyBytes_AS_STRING(buffer), room)
        else:
            places[0].iov_base, places[0].iov_len = place, placed
            places[1].iov_base, places[1].iov_len = PyBytes_AS_STRING(buffer), room
            n = tg_receive_pieces(self.descriptor, places, 2)
            room += placed
        self.readable = n == room or (n > 0 and self.ending)
        if n > 0:
            placed = min(placed, n)
            try:
                if self.receiver is not None:
                    self.receiver.receive(buffer, n - placed, placed)
                else:
                    self.protocol.data_received(PyBytes_FromStringAndSize(PyBytes_AS_STRING(buffer), n))
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self.fail(exc, "Fatal error: protocol.data_received() call failed.")
        self.poller.give_back(buffer)
        return 0 if n > 0 else self.read_nothing(n)

    cdef int read_into(self) except -1:
        """read(), for a BufferedProtocol."""
        cdef Py_buffer view
        cdef Py_ssize_t n
        try:
            buffer = self.protocol.get_buffer(-1)
            PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
            try:
                if view.len == 0:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                n = tg_receive(self.descriptor, view.buf, view.len)
                self.readable = n == view.len or (n > 0 and self.ending)
            finally:
                PyBuffer_Release(&view)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            return self.fail(exc, "Fatal error: protocol.get_buffer() call failed.")
        if n <= 0:
            return self.read_nothing(n)
        try:
            self.protocol.buffer_updated(n)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fail(exc, "Fatal error: protocol.buffer_updated() call failed.")
        return 0

    cdef int read_nothing(self, Py_ssize_t n) except -1:
        """There was an error, or the end."""
        if n == -EAGAIN:
            return 0
        if n < 0:
            return self.broken(n, "Fatal read error on socket transport")
        self.readable = True  # until it has been told
        try:
            stay = self.protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            return self.fail(exc, "Fatal error: protocol.eof_received() call failed.")
        self.readable = False
        if stay:
            self.eof_received = True
            return 0
        self.close()
        return 0

    # The end.

    def close(self):
        if self.closing:
            return
        self.write_due()
        self.closing = True
        if self.pending is None:
            self.finish(None)

    def abort(self):
        self.write_due()
        self.finish(None)

    def _connection_lost(self, exception):
        cdef object context
        if self.descriptor < 0:
            return  # it could not begin
        context = enter_context(self.context)
        try:
            self.protocol.connection_lost(exception)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report(exc, "Fatal error: protocol.connection_lost() call failed.")
        finally:
            PyContext_Exit(context)
            self.shut()

    cdef int shut(self) except -1:
        """Close the descriptor."""
        cdef int descriptor = self.descriptor
        tg_local_address(descriptor, &self.local)  # it can be asked for later on
        self.poller.forget(self)
        if self.sock is not None:
            self.sock.close()
        else:
            close(descriptor)
        self.protocol = self.receiver = None
        return 0


def adopt(loop, sock, protocol):
    """Take over a connected socket as the transport of a protocol, whose `connection_made()` has been called on return.

    Args:
        loop: the event loop that runs.
        sock: socket object; it is closed when the connection is lost.
        protocol: asyncio's, or a `Receiver`.

    Raises:
        ValueError: for a socket of datagrams, say.
    """
    cdef Stream stream = Stream.__new__(Stream)
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.context = PyContext_CopyCurrent()
    with suppress(OSError):  # it is lost already
        stream.sockname = sock.getsockname()
        stream.peername = sock.getpeername()
    stream.sock = sock
    stream.begin(loop, sock.fileno(), sock.family, protocol)
    try:
        protocol.connection_made(stream)
        stream.start()
    except BaseException:
        stream.shut()
        raise
    return stream

# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, binding=False, auto_pickle=False
"""A connected stream socket, TCP or Unix, as asyncio's transport: ours instead of the loop's, on Linux and without TLS.

It reads once in a turn of the loop, into one buffer for all streams, and hands that to a `Receiver` as it is; other
protocols get what asyncio promises them, `data_received(bytes)` or their own buffer. It writes at once; what the socket
does not take waits here, bounded by whoever heeds `pause_writing()`, and goes out when the socket is writable.

The descriptor is closed right after `connection_lost()`, and is -1 from then on: nothing here touches a number that may
be another socket's by now. What must not live here: what is ready (poller.pyx), frames.
"""

import asyncio
import os
import socket
import warnings
from asyncio.log import logger
from asyncio.trsock import TransportSocket
from collections import deque
from contextlib import suppress

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t

from tidegate._core.poller cimport Pollable, Poller, enter_context
from tidegate._core.turns cimport TurnTaker


STREAMS = bool(TG_STREAMS)  # whether there are any on this platform


cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Exit(object context)


cdef extern from "stream.h" nogil:
    const int TG_STREAMS, TG_PIECES
    int EAGAIN, AF_INET, AF_INET6, AF_UNIX
    void tg_local_address(int descriptor, tg_address *to)
    uint32_t EPOLLIN, EPOLLPRI, EPOLLOUT, EPOLLRDHUP, EPOLLET
    int close(int descriptor)
    Py_ssize_t tg_receive(int descriptor, void *data, size_t size)
    Py_ssize_t tg_receive_pieces(int descriptor, iovec *pieces, size_t count)
    Py_ssize_t tg_write(int descriptor, const void *data, size_t size)
    Py_ssize_t tg_write_pieces(int descriptor, iovec *pieces, size_t count)
    int tg_end_of_writing(int descriptor)


# asyncio's: the write buffer from which on a protocol is asked to pause, and the useless writes that are worth a warning.
cdef enum:
    HIGH = 1 << 16
    USELESS = 5


cdef object name_of(tg_address *address):
    """An address as the socket module shows it; that of a Unix socket that nobody asked for while it was there is ""."""
    cdef int family = address.family
    if family == AF_INET:
        return socket.inet_ntop(family, address.bytes[:4]), address.port
    if family == AF_INET6:
        return socket.inet_ntop(family, address.bytes[:16]), address.port, address.flow, address.scope
    return "" if family == AF_UNIX else None


cdef class Receiver(TurnTaker):
    cdef uint8_t *place_for(self, Py_ssize_t *size) except? NULL:
        """Where it wants the next bytes, up to `size`; NULL for no matter where. Valid until `receive()`."""
        return NULL

    cdef int receive(self, bytes buffer, Py_ssize_t size, Py_ssize_t placed) except -1:
        """Take what was read: so much in the place that it gave, then `size` in the buffer, until this returns."""
        raise NotImplementedError


cdef class Stream(Pollable):
    """asyncio.Transport, as far as its documentation goes; made by `adopt()` and by listeners.

    Attributes:
        loop: the event loop.
    """

    cdef int begin(self, object loop, int descriptor, int family, object protocol) except -1:
        """Be the transport of a connected socket that never blocks, whose descriptor is this object's own from now on."""
        self.loop = loop
        self.descriptor = descriptor
        self.family = family
        self.high = HIGH
        self.low = HIGH >> 2
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
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)

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
                self.sockname = name_of(&self.local) if self.descriptor < 0 else self._socket().getsockname()
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

    def get_write_buffer_size(self):
        return self.pending_size

    def get_write_buffer_limits(self):
        return self.low, self.high

    def set_write_buffer_limits(self, high=None, low=None):
        if high is None:
            high = HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high, self.low = high, low
        self.pause_protocol()

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

    # Out.

    def write(self, data):
        cdef Py_buffer view
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        self.check_writable()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.send(<const uint8_t *> view.buf, view.len, data if PyBytes_CheckExact(data) else None)
        finally:
            PyBuffer_Release(&view)

    def writelines(self, list_of_data):
        cdef list parts = list(list_of_data)
        for part in parts:
            if not isinstance(part, (bytes, bytearray, memoryview)):
                raise TypeError(f"data argument must be a bytes-like object, not {type(part).__name__!r}")
        if self.pending is None and len(parts) > 1 and not self.lost:
            self.check_writable()
            # As one system call: what waits is kept until then without being copied.
            for part in parts:
                self.keep(part if PyBytes_CheckExact(part) else bytes(part))
            self.flush()
            self.pause_protocol()
        else:
            for part in parts:
                self.write(part)

    def write_eof(self):
        if self.closing or self.eof_written:
            return
        self.eof_written = True
        if self.pending is None:
            self.end_writing()

    def can_write_eof(self):
        return True

    cdef int check_writable(self) except -1:
        if self.eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        return 0

    cdef int end_writing(self) except -1:
        cdef int error = tg_end_of_writing(self.descriptor)
        return 0 if error == 0 else self.broken(error, "Fatal error on socket transport")

    cdef int send(self, const uint8_t *p, Py_ssize_t n, object owner) except -1:
        """Write now what the socket takes, and keep the rest; `owner` is the bytes object that p points to, if one is."""
        cdef Py_ssize_t sent = 0
        if n == 0:
            return 0
        if self.lost:
            self.writes_after += 1
            if self.writes_after == USELESS:
                logger.warning("socket.send() raised exception.")
            return 0
        if self.pending is None:
            sent = tg_write(self.descriptor, p, n)
            if sent == n:
                return 0
            if sent < 0:
                if sent != -EAGAIN:
                    return self.broken(sent, "Fatal write error on socket transport")
                sent = 0
        if owner is None:
            owner = PyBytes_FromStringAndSize(<const char *> p + sent, n - sent)
        elif sent:
            owner = memoryview(owner)[sent:]
        self.keep(owner)
        return self.pause_protocol()

    cdef int send_pieces(self, const uint8_t *head, Py_ssize_t size, bytes payload) except -1:
        """send() for two pieces that follow each other, the second of which is not copied."""
        cdef iovec pieces[2]
        cdef Py_ssize_t sent, n = PyBytes_GET_SIZE(payload)
        if self.pending is not None or self.lost:
            self.send(head, size, None)
            return self.send(<const uint8_t *> PyBytes_AS_STRING(payload), n, payload)
        pieces[0].iov_base, pieces[0].iov_len = <void *> head, size
        pieces[1].iov_base, pieces[1].iov_len = PyBytes_AS_STRING(payload), n
        sent = tg_write_pieces(self.descriptor, pieces, 2)
        if sent == size + n:
            return 0
        if sent < 0:
            if sent != -EAGAIN:
                return self.broken(sent, "Fatal write error on socket transport")
            sent = 0
        if sent < size:
            self.keep(PyBytes_FromStringAndSize(<const char *> head + sent, size - sent))
            self.keep(payload)
        else:
            self.keep(memoryview(payload)[sent - size:])
        return self.pause_protocol()

    cdef int keep(self, object data) except -1:
        if len(data) == 0:
            return 0
        if self.pending is None:
            self.pending = deque()
        self.pending.append(data)
        self.pending_size += len(data)
        return 0

    cdef int flush(self) except -1:
        """Write what is pending, until the socket takes no more."""
        cdef iovec pieces[64]
        cdef Py_ssize_t sent, offered
        cdef size_t count
        while self.pending is not None:
            offered = self.offer(pieces, &count)
            sent = tg_write_pieces(self.descriptor, pieces, count)
            if sent < 0:
                if sent != -EAGAIN:
                    self.broken(sent, "Fatal write error on socket transport")
                return 0
            self.drop(sent)
            if sent < offered:
                break
        try:
            self.resume_protocol()  # which may write more, or close
        finally:
            if self.pending is None and not self.lost:
                if self.closing:
                    self.finish(None)
                elif self.eof_written:
                    self.end_writing()
        return 0

    cdef Py_ssize_t offer(self, iovec *pieces, size_t *count) except -1:
        """Point to the first of what is pending: how much that is, in how many pieces."""
        cdef Py_buffer view
        cdef Py_ssize_t size = 0
        count[0] = 0
        for data in self.pending:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            pieces[count[0]].iov_base, pieces[count[0]].iov_len = view.buf, view.len
            size += view.len
            PyBuffer_Release(&view)  # bytes, or a view of bytes: they do not move
            count[0] += 1
            if count[0] == TG_PIECES:
                break
        return size

    cdef int drop(self, Py_ssize_t size) except -1:
        """So much of what was pending is written."""
        cdef Py_ssize_t n
        self.pending_size -= size
        while size:
            data = self.pending.popleft()
            n = len(data)
            if size < n:
                self.pending.appendleft(memoryview(data)[size:])
                break
            size -= n
        if not self.pending:
            self.pending = None
        return 0

    cdef int pause_protocol(self) except -1:
        if self.pending_size <= self.high or self.protocol_paused:
            return 0
        self.protocol_paused = True
        try:
            self.protocol.pause_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report(exc, "protocol.pause_writing() failed")
        return 0

    cdef int resume_protocol(self) except -1:
        if self.pending_size > self.low or not self.protocol_paused:
            return 0
        self.protocol_paused = False
        try:
            self.protocol.resume_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report(exc, "protocol.resume_writing() failed")
        return 0

    # The end.

    def close(self):
        if self.closing:
            return
        self.closing = True
        if self.pending is None:
            self.finish(None)

    def abort(self):
        self.finish(None)

    cdef int broken(self, Py_ssize_t error, str message) except -1:
        """A system call failed, with minus errno: a peer or a network can bring that about at any time."""
        exception = OSError(-error, os.strerror(-error))
        if self.loop.get_debug():
            logger.debug("%r: %s", self, message, exc_info=exception)
        return self.finish(exception)

    cdef int fail(self, object exception, str message) except -1:
        """The protocol failed, of which nobody can know how to go on."""
        try:
            self.report(exception, message)
        finally:
            self.finish(exception)
        return 0

    cdef int report(self, object exception, str message) except -1:
        self.loop.call_exception_handler(
            {"message": message, "exception": exception, "transport": self, "protocol": self.protocol}
        )
        return 0

    cdef int finish(self, object exception) except -1:
        """Have the protocol told that the connection is lost, soon; what is pending is dropped."""
        if self.lost or self.descriptor < 0:
            return 0
        self.closing = self.lost = True
        self.pending = None
        self.pending_size = 0
        self.loop.call_soon(self._connection_lost, exception)
        return 0

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

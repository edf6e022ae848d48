# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, binding=False, auto_pickle=False
"""The way out of a stream: bytes are written at once, and what the socket does not take waits here until it does.

The bound is the protocol's to keep: `pause_writing()` asks for it, as in asyncio. What must not live here: reading, the life of the
descriptor (stream.pyx), frames (writer.pyx).
"""

import os
from asyncio.log import logger
from collections import deque

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from tidegate._core.poller cimport Pollable


cdef extern from "stream.h" nogil:
    const int TG_PIECES
    int EAGAIN
    Py_ssize_t tg_write(int descriptor, const void *data, size_t size)
    Py_ssize_t tg_write_pieces(int descriptor, iovec *pieces, size_t count)
    int tg_end_of_writing(int descriptor)


# asyncio's: the write buffer from which on a protocol is asked to pause, and the useless writes that are worth a warning.
cdef enum:
    HIGH = 1 << 16
    USELESS = 5


cdef inline Py_ssize_t point_to(iovec *piece, object data) except -1:
    """Point to bytes, or to a view of bytes, which do not move; return their size."""
    cdef Py_buffer view
    if PyBytes_CheckExact(data):
        piece.iov_base, piece.iov_len = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
    else:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        piece.iov_base, piece.iov_len = view.buf, view.len
        PyBuffer_Release(&view)
    return piece.iov_len


cdef class WriteBuffer(Pollable):
    """The part of a stream that writes."""

    def __cinit__(self):
        self.high = HIGH
        self.low = HIGH >> 2

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
        if (self.pending is None or self.due) and len(parts) > 1 and not self.lost:
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
        self.write_due()
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
        return self.write_due() if self.due else self.pause_protocol()

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
            self.pending = data
        else:
            if self.behind is None:
                self.behind = deque()
            self.behind.append(data)
        self.pending_size += len(data)
        return 0

    cdef int write_due(self) except -1:
        """Write what was kept for a later turn: its turn has come, or something follows it."""
        if self.due:
            self.flush()
            self.pause_protocol()
        return 0

    cdef int flush(self) except -1:
        """Write what is pending, until the socket takes no more."""
        cdef iovec pieces[64]
        cdef Py_ssize_t sent, offered
        cdef size_t count
        self.due = False
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
        """Point to the first pieces of what is pending; return their size."""
        cdef Py_ssize_t size = point_to(pieces, self.pending)
        count[0] = 1
        if self.behind is not None:
            for data in self.behind:
                size += point_to(pieces + count[0], data)
                count[0] += 1
                if count[0] == TG_PIECES:
                    break
        return size

    cdef int drop(self, Py_ssize_t size) except -1:
        """Forget so much of what is pending: it is written."""
        cdef Py_ssize_t n
        self.pending_size -= size
        while size:
            n = len(self.pending)
            if size < n:
                self.pending = memoryview(self.pending)[size:]
                break
            size -= n
            self.pending = self.behind.popleft() if self.behind else None
        if not self.behind:
            self.behind = None
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

    # Failures.

    cdef int broken(self, Py_ssize_t error, str message) except -1:
        """End the connection: a system call returned minus errno, as a peer or a network can bring about at any time."""
        exception = OSError(-error, os.strerror(-error))
        if self.loop.get_debug():
            logger.debug("%r: %s", self, message, exc_info=exception)
        return self.finish(exception)

    cdef int fail(self, object exception, str message) except -1:
        """Report an exception of the protocol, and end the connection: its state is unknown."""
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
        """Schedule connection_lost(), and drop what is pending."""
        if self.lost or self.descriptor < 0:
            return 0
        self.closing = self.lost = True
        self.pending = self.behind = None
        self.pending_size = 0
        self.due = False
        self.loop.call_soon(self._connection_lost, exception)
        return 0

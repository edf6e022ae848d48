# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The way out of one connection: messages framed, gathered while a read callback lasts, written to the transport.

A message is written at once if no other waits to be handled, so that a handler that blocks does not delay it; otherwise,
and within `TG_GLANCE` of the last write, messages are gathered and written together. What must not live here: bytes that
come in (channel.pyx), frames that wait to be read (inbox.pyx), awaiting (messages.pyx).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.string cimport memcpy

from tidegate._core.deflate cimport COMPRESSED_AT_ONCE
from tidegate._core.counters cimport TG_SENT, current_row, tg_count_bytes, tg_count_message
from tidegate._core.turns cimport TG_GLANCE, tg_ticks
from tidegate._core.wire cimport new_key, tg_build_header, tg_unmask


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


# A payload of at least this size is written without being copied.
cdef Py_ssize_t UNCOPIED = 1 << 14

# The row of clients: the row of a worker counts the connections that it serves, not those that its handlers make.
cdef Row client_row = Row()

# Connections of servers with more to be sent than their write limit.
slow_connections = set()


cdef class Writer(Receiver):
    """The part of a connection that writes.

    Attributes:
        transport: what is written to; None before there is one.
        loop: the event loop.
    """

    def __cinit__(self):
        self.count_in(current_row())

    def __dealloc__(self):
        Py_XDECREF(self.row)

    cdef int count_in(self, Row row) except -1:
        """Count in this row."""
        Py_INCREF(row)
        Py_XDECREF(self.row)
        self.row = <PyObject *> row
        self.counts = row.data
        return 0

    cdef int take_side(self, bint client) except -1:
        """Be the client or the server."""
        self.client = client
        return self.count_in(client_row) if client else 0

    cdef int refuse(self) except -1:
        """Raise the error of check()."""
        if self.turns is None:
            raise RuntimeError("a connection is made by serve() or connect(), and by nothing else")
        raise RuntimeError(
            "a connection can be used only in the thread of its event loop; from another thread, "
            "use asyncio.run_coroutine_threadsafe() or loop.call_soon_threadsafe()"
        )

    @property
    def _row(self):
        """The row that the connection is counted in, from its beginning to its end."""
        return <Row> self.row

    def pause_writing(self):
        """Note that more than the write limit waits to be sent: the transport calls it."""
        self._write_paused = True
        self.counts.pauses[TG_SENT] += 1
        if not self.client:
            slow_connections.add(self)

    def resume_writing(self):
        """Let senders go on: the transport calls it."""
        self._write_paused = False
        slow_connections.discard(self)
        self._drained()

    cdef bint more_to_handle(self) noexcept:
        """Return whether more messages wait behind the one that is handled now."""
        return False

    cdef int send_message(self, object message, object text) except -1:
        """Frame and write a message.

        Return SENT; DECLINED if it is not as simple as most, and Python has to send it; BEGUN if it is so large that it is
        compressed in pieces: it is `self.compression` then, and compress() sends it.
        """
        cdef const char *p
        cdef Py_ssize_t n
        cdef uint8_t opcode
        cdef Py_buffer view
        if self._state != OPEN or self._sending or self._slow:
            return DECLINED
        if self.deflate is not None:
            return self.send_deflated(message, text)
        if isinstance(message, str):
            p = PyUnicode_AsUTF8AndSize(message, &n)
            opcode = BINARY if text is False else TEXT
            self.send_frame(0x80 | opcode, <const uint8_t *> p, n, None)
        elif PyBytes_CheckExact(message):
            opcode = TEXT if text is True else BINARY
            n = PyBytes_GET_SIZE(message)
            self.send_frame(0x80 | opcode, <const uint8_t *> PyBytes_AS_STRING(message), n, message)
        elif isinstance(message, (bytes, bytearray, memoryview)):
            opcode = TEXT if text is True else BINARY
            if isinstance(message, memoryview) and not message.c_contiguous:
                return DECLINED
            PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
            try:
                n = view.len
                self.send_frame(0x80 | opcode, <const uint8_t *> view.buf, n, None)
            finally:
                PyBuffer_Release(&view)
        else:
            return DECLINED
        tg_count_bytes(self.counts, TG_SENT, n)
        tg_count_message(self.counts, TG_SENT, opcode, n)
        return SENT

    cdef int send_deflated(self, object message, object text) except -1:
        """Do what send_message() does, with compression (RFC 7692 section 6)."""
        self.finish_message()
        cdef uint8_t opcode
        cdef bytes data
        if isinstance(message, str):
            opcode = BINARY if text is False else TEXT
            data = message.encode()
        elif isinstance(message, (bytes, bytearray, memoryview)):
            opcode = TEXT if text is True else BINARY
            data = bytes(message)
        else:
            return DECLINED
        if PyBytes_GET_SIZE(data) > COMPRESSED_AT_ONCE:
            self.compression = self.deflate.compression(data)
            self.compression.opcode = opcode
            return BEGUN
        return self.send_compressed(opcode, PyBytes_GET_SIZE(data), self.deflate.compress(data))

    cdef bint compress(self) except -1:
        """Compress a piece of the message, and send it after the last one: return whether that is so."""
        cdef Compression compression = self.compression
        cdef bytes compressed = compression.proceed()
        if compressed is None:
            return False
        self.compression = None
        return self.send_compressed(compression.opcode, PyBytes_GET_SIZE(compression.message), compressed)

    cdef int finish_message(self) except -1:
        """Send the message that is being compressed, before something else is sent."""
        while self.compression is not None:
            self.compress()
        return 0

    cdef int give_up_message(self) except -1:
        """Drop the message that is being compressed, of which nothing was sent."""
        self.compression.give_up()
        self.compression = None
        return 0

    cdef int send_compressed(self, uint8_t opcode, Py_ssize_t size, bytes compressed) except -1:
        """Write and count a message that had `size` bytes before compression."""
        self.send_frame(
            0xC0 | opcode, <const uint8_t *> PyBytes_AS_STRING(compressed), PyBytes_GET_SIZE(compressed), compressed
        )
        tg_count_bytes(self.counts, TG_SENT, size)
        tg_count_message(self.counts, TG_SENT, opcode, size)
        return SENT

    cdef int send_frame(self, uint8_t first, const uint8_t *p, Py_ssize_t n, object owner) except -1:
        """Write one frame; `owner` is the bytes object that p points into, if it may be written without a copy."""
        cdef uint8_t head[14]
        cdef uint8_t *out
        cdef size_t size = tg_build_header(head, first, n, self.client)
        cdef object data
        if self.client:
            new_key(head + size - 4)
        elif n >= UNCOPIED and owner is not None and self.scatter:
            self.flush()
            if self.stream is not None:
                return self.stream.send_pieces(head, size, owner)
            return self.put(None, (PyBytes_FromStringAndSize(<char *> head, size), owner))
        if self.gather is not NULL and size + n <= TG_GATHER:
            while self.gather.size + size + n > TG_GATHER:
                self.flush()  # which may send in turn: pause_writing() of a subclass, a transport with an answer
            out = self.gather.data + self.gather.size
            self.gather.size += size + n
            data = None
        else:
            self.flush()
            data = PyBytes_FromStringAndSize(NULL, size + n)
            out = <uint8_t *> PyBytes_AS_STRING(data)
        memcpy(out, head, size)
        if self.client:
            tg_unmask(out + size, p, n, head + size - 4, 0)
        else:
            memcpy(out + size, p, n)
        if data is not None:
            self.put(data)
        elif not self.more_to_handle() and tg_ticks() - self.left_at > TG_GLANCE:
            self.flush()
        return 0

    cdef int begin_gather(self) except -1:
        """Gather what is sent from now on."""
        self.gather = tg_gather_lend()
        if self.gather is NULL:
            raise MemoryError
        return 0

    cdef int flush(self) except -1:
        """Write what is gathered."""
        if self.gather is not NULL and self.gather.size:
            self.left_at = tg_ticks()
            self.put_gathered(self.gather)
        return 0

    cdef int end_gather(self) except -1:
        """Write what is gathered, and gather no more."""
        cdef tg_gather *gather = self.gather
        self.gather = NULL
        try:
            if gather.size:
                self.put_gathered(gather)
        finally:
            tg_gather_return(gather)
        return 0

    cdef int put_gathered(self, tg_gather *gather) except -1:
        """Write what is gathered, which is nothing then."""
        cdef Py_ssize_t size = gather.size
        gather.size = 0
        if self.stream is not None:
            return self.stream.send(gather.data, size, None)
        return self.put(PyBytes_FromStringAndSize(<char *> gather.data, size))

    cdef int put(self, object data, object lines=None) except -1:
        """Give the transport bytes, or lines of them."""
        if self.write is None:
            return 0
        if self.stream is not None and lines is None and PyBytes_CheckExact(data):
            return self.stream.send(<const uint8_t *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), data)
        try:
            if lines is None:
                self.write(data)
            else:
                self.transport.writelines(lines)
        except Exception as exc:
            self._write_failed(exc)
        return 0

    # Called by Connection.

    def _send_frame(self, uint8_t first, const uint8_t[::1] payload not None):
        """Write a frame whose first byte (FIN, RSV, opcode) is `first`: a control frame, a fragment, or of an extension."""
        cdef const uint8_t *p = &payload[0] if payload.shape[0] else &first  # not NULL: memcpy() must not see it
        self.check()
        self.send_frame(first, p, payload.shape[0], None)

    def _finish_message(self):
        """Send the message that is being compressed, before another is compressed."""
        self.finish_message()

    def _count_sent(self, Py_ssize_t size):
        """Count the payload of a frame that Python made."""
        tg_count_bytes(self.counts, TG_SENT, size)

    def _count_message_sent(self, uint8_t opcode, Py_ssize_t size):
        """Count a message whose frames Python made, by its payload."""
        if opcode != TEXT and opcode != BINARY:
            raise ValueError(f"a message is text (1) or binary (2), not {opcode}")
        tg_count_message(self.counts, TG_SENT, opcode, size)

    def _flush(self):
        """Write what is gathered, before the transport is used directly."""
        self.flush()

    def _write_bytes(self, data):
        """Write bytes as they are, in order with frames."""
        self.flush()
        self.put(data)

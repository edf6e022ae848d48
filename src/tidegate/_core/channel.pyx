# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False
"""The hot path of one connection: bytes in, messages queued, the reader woken; messages framed, gathered, written.

`Channel` is the asyncio protocol that uvloop or asyncio calls. Whatever is rarer than a message it hands to a few methods
that `asyncio.connection.Connection` defines; they are named together at the end of the class. RFC 6455 section 5.
What must not live here: handshakes, control frames, closing, timers, policies.
"""

import os

from tidegate._core.deflate import TooLong, ZlibError

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from tidegate._core.deflate cimport Deflate
from tidegate._core.scoreboard cimport (
    TG_RECEIVED,
    TG_SENT,
    current_row,
    tg_count_bytes,
    tg_count_handled,
    tg_count_message,
    tg_now,
)
from tidegate._core.wire cimport new_key, tg_build_header, tg_copy_bytes, tg_parse_header, tg_unmask, tg_utf8_check


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    object PyUnicode_DecodeUTF8(const char *s, Py_ssize_t size, const char *errors)
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void *PyUnicode_DATA(object text)
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1


# A payload larger than this is allocated as it arrives, so that a header alone cannot claim more memory.
cdef Py_ssize_t TRUSTED = 1 << 20
# A payload at least this large goes out as its own object, without being copied.
cdef Py_ssize_t UNCOPIED = 1 << 14
# The most frames of one message that may wait: an attacker's empty fragments cost memory too.
cdef uint32_t MAX_FRAGMENTS = int(os.environ.get("TIDEGATE_MAX_FRAGMENTS", "4096"))

# What `_fail_received` may be told, by value: closing.py has what is said and sent for each.
cdef enum:
    RESERVED_BITS, UNKNOWN_OPCODE, MASKING, CONTROL_TOO_LONG, CONTROL_FRAGMENTED, CONTINUATION_EXPECTED
    CONTINUATION_UNEXPECTED, TOO_BIG, INVALID_UTF8, TOO_MANY_FRAGMENTS, UNDECODABLE

# What clients count. A server's row tells of its own connections, not of those that its handlers make to other servers.
cdef Row client_row = Row()

# Connections of servers that have more to be sent than their write limit.
slow_connections = set()


cdef class Channel:
    """One connection's protocol, to be subclassed: see the module."""

    def __cinit__(self):
        self.count_in(current_row())
        self.max_message_size = self.max_fragment_size = self.queue_high = self.queue_low = -1

    def __dealloc__(self):
        while self.queued:
            self.queued -= 1
            Py_XDECREF(self.ring[self.ring_start].payload)
            self.ring_start = (self.ring_start + 1) & (self.ring_capacity - 1)
        free(self.ring)
        Py_XDECREF(self.row)

    def _configure(self, loop, bint client, max_message_size, max_fragment_size, queue_high, queue_low, bint slow):
        """Settings of the native side, in bytes and frames; None is no limit."""
        self.loop = loop
        self.client = client
        if client:
            self.count_in(client_row)
        self.max_message_size = -1 if max_message_size is None else max_message_size
        self.max_fragment_size = -1 if max_fragment_size is None else max_fragment_size
        self.queue_high = -1 if queue_high is None else queue_high
        self.queue_low = -1 if queue_low is None else queue_low
        self._slow = slow

    cdef int count_in(self, Row row) except -1:
        Py_INCREF(row)
        Py_XDECREF(self.row)
        self.row = <PyObject *> row
        self.counts = row.data
        return 0

    @property
    def _row(self):
        """What the connection is counted in, from its beginning to its end."""
        return <Row> self.row

    def _use_deflate(self, Deflate deflate not None):
        """Compress and decompress messages (RFC 7692)."""
        self.deflate = deflate
        self.rsv_allowed = 4

    def _use_extensions(self):
        """Let Python see every frame: what its reserved bits mean is for the extensions to know."""
        self._extended = self._slow = True
        self.rsv_allowed = 7

    def _connect(self, transport):
        """Write to and read from `transport` from now on."""
        self.transport = transport
        self.write = transport.write
        # writelines() of asyncio's own sockets has no write limit, and on a lost one spoils the selector (3.12, 3.13.0).
        self.scatter = type(transport).__module__ != "asyncio.selector_events"
        self.now = tg_now()

    def _disconnect(self):
        """The transport is gone: frames that wait can still be read, nothing is written any more."""
        self.discarding = True
        self.partial = None
        self.write = None
        self.reading_paused = self._write_paused = False  # a transport that is gone is asked for nothing
        slow_connections.discard(self)
        if self.reader is not NULL and self.waiter is not None:
            self.waiter.finish(False)

    def _discard(self):
        """Read nothing more (RFC 6455 sections 1.4, 7.1.7), but let the end of the stream be seen."""
        self.discarding = True
        self.partial = None
        self._resume_reading()

    def _resume_reading(self):
        if self.reading_paused:
            self.reading_paused = False
            self.transport.resume_reading()

    @property
    def idle_since(self) -> float:
        """Since when nothing is going on, in seconds of CLOCK_MONOTONIC (the clock of loop.time()): the last bytes that
        came in, or now while a message is being handled, read or written."""
        if self.handling != 0 or self.queued or self.in_payload or self._write_paused:
            return tg_now()
        return self.now

    # What asyncio calls.

    def data_received(self, data):
        cdef bytes chunk = data if PyBytes_CheckExact(data) else bytes(data)
        cdef bint whole = False
        if self._state == CONNECTING:
            self._handshake_received(chunk)
            return
        if self.discarding:
            return
        if self.gather is not NULL:
            # A transport that has an answer to what was just written: it comes after what is being read.
            if self.late is None:
                self.late = []
            self.late.append(chunk)
            return
        self.gather = tg_gather_lend()
        if self.gather is NULL:
            raise MemoryError
        self.now = tg_now()
        try:
            self.parse(<const uint8_t *> PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk))
            self.wake(True)
            if self.late is not None:
                self.read_late()
            whole = True
        finally:
            if not whole:  # an exception, in the middle of a frame perhaps: what follows makes no sense any more
                self.discarding = True
                self.partial = self.late = None
            self.end_gather()
        if self.queued:
            self.flow()

    def pause_writing(self):
        self._write_paused = True
        self.counts.pauses[TG_SENT] += 1
        if not self.client:
            slow_connections.add(self)

    def resume_writing(self):
        self._write_paused = False
        slow_connections.discard(self)
        self._drained()

    cdef int read_late(self) except -1:
        """Read what came while something else was read, in its order."""
        cdef bytes chunk
        cdef list chunks
        while self.late is not None:
            chunks = self.late
            self.late = None
            for chunk in chunks:
                self.parse(<const uint8_t *> PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk))
                self.wake(True)
        return 0

    # In: bytes to frames.

    cdef int parse(self, const uint8_t *p, Py_ssize_t n) except -1:
        cdef Py_ssize_t size, take
        while n > 0 and not self.discarding:
            if self.in_payload:
                take = <Py_ssize_t> min(<uint64_t> n, self.header.length - self.partial_size)
                self.extend_partial(p, take)
                p += take
                n -= take
                continue
            if self.head_size:
                # A header came in pieces: complete it byte by byte, it has 14 at most.
                self.head[self.head_size] = p[0]
                self.head_size += 1
                p += 1
                n -= 1
                if tg_parse_header(self.head, self.head_size, &self.header) == 0:
                    continue
                self.head_size = 0
            else:
                size = tg_parse_header(p, n, &self.header)
                if size == 0:
                    memcpy(self.head, p, n)
                    self.head_size = <uint8_t> n
                    return 0
                p += size
                n -= size
            if not self.check_header():
                return 0
            if <uint64_t> n >= self.header.length:
                take = self.header.length
                self.receive_whole(p, take)
                p += take
                n -= take
            else:
                self.begin_partial()
        return 0

    cdef int check_header(self) except -1:
        """Whether the frame may come: each rule of RFC 6455 section 5 that its header alone can break."""
        cdef tg_frame *h = &self.header
        cdef uint64_t limit
        if h.rsv and (h.rsv & ~self.rsv_allowed or (self.deflate is not None and h.opcode not in (TEXT, BINARY))):
            return self.fail(RESERVED_BITS, None)
        if (h.opcode & 7) > 2:
            return self.fail(UNKNOWN_OPCODE, h.opcode)
        if h.masked == self.client:
            return self.fail(MASKING, None)
        if h.opcode & 8:
            if h.length > 125:
                return self.fail(CONTROL_TOO_LONG, None)
            if not h.fin:
                return self.fail(CONTROL_FRAGMENTED, None)
            return 1
        if h.opcode == CONTINUATION:
            if self.message_opcode == 0:
                return self.fail(CONTINUATION_UNEXPECTED, None)
        else:
            if self.message_opcode != 0:
                return self.fail(CONTINUATION_EXPECTED, None)
            self.message_opcode = h.opcode
            self.message_size = 0
            self.utf8.due = 0
            self.encoded = self._extended or (h.rsv != 0)
        limit = (<uint64_t> 1 << 63) - 1
        if self.max_message_size >= 0:
            limit = self.max_message_size - self.message_size
        if self.max_fragment_size >= 0 and <uint64_t> self.max_fragment_size < limit:
            limit = self.max_fragment_size
        if h.length > limit:
            return self.fail(TOO_BIG, (h.length, limit, self.message_size))
        if not self.encoded:
            self.message_size += h.length
        return 1

    cdef int receive_whole(self, const uint8_t *p, Py_ssize_t n) except -1:
        """A frame whose payload is all there."""
        cdef tg_frame *h = &self.header
        cdef object payload
        cdef uint8_t *out
        cdef uint8_t seen
        if h.opcode & 8:
            payload = PyBytes_FromStringAndSize(NULL, n)
            out = <uint8_t *> PyBytes_AS_STRING(payload)
            tg_unmask(out, p, n, h.key, 0) if h.masked else tg_copy_bytes(out, p, n)
            return self.receive_control(payload)
        if h.opcode == TEXT and h.fin and not (self.want_bytes or self._slow or self.encoded):
            # The common case, text in one frame: straight into the str, hoping that it is ASCII.
            if n == 0:
                return self.receive_data("")
            payload = PyUnicode_New(n, 127)
            out = <uint8_t *> PyUnicode_DATA(payload)
            seen = tg_unmask(out, p, n, h.key, 0) if h.masked else tg_copy_bytes(out, p, n)
            if not seen & 0x80:
                return self.receive_data(payload)
        payload = PyBytes_FromStringAndSize(NULL, n)
        out = <uint8_t *> PyBytes_AS_STRING(payload)
        seen = tg_unmask(out, p, n, h.key, 0) if h.masked else tg_copy_bytes(out, p, n)
        if self.encoded:
            return self.receive_encoded(payload)
        if self.message_opcode == TEXT and (seen & 0x80 or self.utf8.due) and not tg_utf8_check(&self.utf8, out, n):
            return self.fail(INVALID_UTF8, self.text_so_far(payload))
        return self.receive_data(payload)

    cdef int begin_partial(self) except -1:
        self.in_payload = True
        self.partial_size = 0
        self.partial = PyBytes_FromStringAndSize(NULL, min(<Py_ssize_t> self.header.length, TRUSTED))
        return 0

    cdef int extend_partial(self, const uint8_t *p, Py_ssize_t n) except -1:
        """More of a payload that comes in pieces."""
        cdef tg_frame *h = &self.header
        cdef uint64_t needed = self.partial_size + n
        cdef uint64_t room = PyBytes_GET_SIZE(self.partial)
        cdef PyObject *grown
        cdef uint8_t *out
        if needed > room:
            # Doubling keeps the copying linear; never more than the message needs.
            room = min(h.length, max(needed, 2 * room))
            grown = <PyObject *> self.partial
            Py_INCREF(self.partial)
            self.partial = None
            _PyBytes_Resize(&grown, room)
            self.partial = <bytes> grown
            Py_XDECREF(grown)
        out = <uint8_t *> PyBytes_AS_STRING(self.partial) + self.partial_size
        if h.masked:
            tg_unmask(out, p, n, h.key, self.partial_size & 3)
        else:
            memcpy(out, p, n)
        self.partial_size = needed
        if h.opcode < 8 and self.message_opcode == TEXT and not self.encoded and not tg_utf8_check(&self.utf8, out, n):
            return self.fail(INVALID_UTF8, self.text_so_far(self.partial[:self.partial_size]))
        if needed == h.length:
            self.end_partial()
        return 0

    cdef int end_partial(self) except -1:
        cdef object payload = self.partial
        self.partial = None
        self.in_payload = False
        if self.header.opcode & 8:
            return self.receive_control(payload)
        if self.encoded:
            return self.receive_encoded(payload)
        return self.receive_data(payload)

    cdef int receive_encoded(self, bytes payload) except -1:
        """A data frame is complete, as an extension made it (RFC 6455 5.8); its limits and its UTF-8 are to be checked."""
        cdef tg_frame *h = &self.header
        cdef Py_ssize_t limit = -1
        if self.max_message_size >= 0:
            limit = self.max_message_size - self.message_size
        if self.max_fragment_size >= 0 and (limit < 0 or self.max_fragment_size < limit):
            limit = self.max_fragment_size
        if self._extended:
            payload = self._frame_decoded(h.opcode, bool(h.fin), h.rsv, payload, None if limit < 0 else limit)
            if payload is None:
                return 0
        else:
            try:
                payload = self.deflate.decompress(payload, h.fin, limit)
            except TooLong:
                return self.fail(TOO_BIG, (None, limit, self.message_size))
            except ZlibError as exc:
                return self.fail(UNDECODABLE, exc)
        if 0 <= limit < PyBytes_GET_SIZE(payload):
            return self.fail(TOO_BIG, (PyBytes_GET_SIZE(payload), limit, self.message_size))
        h.length = PyBytes_GET_SIZE(payload)
        self.message_size += h.length
        if self.message_opcode == TEXT:
            if not tg_utf8_check(&self.utf8, <const uint8_t *> PyBytes_AS_STRING(payload), h.length):
                return self.fail(INVALID_UTF8, self.text_so_far(payload))
        return self.receive_data(payload)

    cdef int receive_control(self, object payload) except -1:
        if self._extended:
            payload = self._frame_decoded(self.header.opcode, True, self.header.rsv, payload, 125)
            if payload is None:
                return 0
        if self.header.opcode == CLOSE:
            self.wake(True)  # what came before the close frame may still be answered before it is
        self._control_received(self.header.opcode, payload)
        return 0

    cdef int receive_data(self, object payload) except -1:
        """A data frame is complete, and the UTF-8 of a text is valid as far as it goes."""
        cdef tg_frame *h = &self.header
        if h.fin and self.message_opcode == TEXT and self.utf8.due:
            return self.fail(INVALID_UTF8, self.text_so_far(payload))
        if self._slow:
            self._frame_received(h.opcode, bool(h.fin), payload)
        tg_count_bytes(self.counts, TG_RECEIVED, h.length)
        if h.fin:
            tg_count_message(self.counts, TG_RECEIVED, self.message_opcode, self.message_size)
            self.message_opcode = 0
        return self.push(payload, h.opcode, h.fin)

    cdef object text_so_far(self, object last):
        """The bytes of the current message, for an error that says where it is wrong."""
        cdef list parts = []
        cdef uint32_t i
        cdef Arrival *a
        for i in range(self.queued):
            a = &self.ring[(self.ring_start + i) & (self.ring_capacity - 1)]
            if a.fin:
                parts.clear()
            else:
                parts.append(<object> a.payload)
        parts.append(last)
        return b"".join(parts)

    cdef int fail(self, int what, object detail) except -1:
        """Fail the connection (RFC 6455 7.1.7): 0, so that callers stop reading."""
        self._discard()
        self.in_payload = False
        self._fail_received(what, detail)
        return 0

    # In: frames to readers.

    cdef int push(self, object payload, uint8_t opcode, bint fin) except -1:
        cdef Arrival *a
        cdef uint32_t i, capacity
        if self._state != OPEN and self.queue_high >= 0 and <Py_ssize_t> self.queued > self.queue_high:
            self.dropping = True  # closing: reading goes on to the peer's close frame, for readers who do not come
        if self.dropping:
            return 0
        if self.queued == self.ring_capacity:
            capacity = max(4, 2 * self.ring_capacity)
            if capacity <= self.ring_capacity:  # 2^31 frames
                raise MemoryError
            a = <Arrival *> realloc(self.ring, capacity * sizeof(Arrival))
            if a is NULL:
                raise MemoryError
            self.ring = a
            for i in range(self.ring_start):  # what had wrapped around goes behind the old end
                a[self.ring_capacity + i] = a[i]
            self.ring_capacity = capacity
        a = &self.ring[(self.ring_start + self.queued) & (self.ring_capacity - 1)]
        Py_INCREF(payload)
        a.payload = <PyObject *> payload
        a.at = self.now
        a.opcode = opcode
        a.fin = fin
        self.queued += 1
        if fin:
            self.messages_queued += 1
        elif self.messages_queued == 0 and self.queued >= MAX_FRAGMENTS and not self.is_streamed():
            self.fail(TOO_MANY_FRAGMENTS, MAX_FRAGMENTS)
        return 0

    cdef bint is_streamed(self):
        """Whether a reader takes the current message frame by frame: it may have any number of them."""
        return self._streaming or (self.reader is not NULL and self.reader_takes_frames)

    cdef object pop_frame(self, uint8_t *opcode, bint *fin):
        cdef Arrival *a = &self.ring[self.ring_start]
        cdef object payload = <object> a.payload
        Py_XDECREF(a.payload)
        opcode[0] = a.opcode
        fin[0] = a.fin
        self.ring_start = (self.ring_start + 1) & (self.ring_capacity - 1)
        self.queued -= 1
        if a.fin:
            self.messages_queued -= 1
            self.handling = a.at
        if self.queued == 0 and self.ring_capacity > 64:
            free(self.ring)  # after a burst, an idle connection is small again
            self.ring = NULL
            self.ring_capacity = self.ring_start = 0
        if self.reading_paused and <Py_ssize_t> self.queued <= self.queue_low:
            self._resume_reading()
        return payload

    cdef object pop_message(self, object decode):
        cdef uint8_t opcode = self.ring[self.ring_start].opcode
        cdef uint8_t rest
        cdef bint fin = self.ring[self.ring_start].fin
        cdef bint text
        cdef object payload
        self.want_bytes = decode is False
        if fin:
            payload = self.pop_frame(&opcode, &fin)
        else:
            payload = self.join_frames()  # before any is gone: there may be no memory for it
            while not fin:
                self.pop_frame(&rest, &fin)
        if decode is None:
            text = opcode == TEXT
        else:
            text = decode
        if text:
            if PyBytes_CheckExact(payload):
                return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), NULL)
        elif not PyBytes_CheckExact(payload):
            return payload.encode()
        return payload

    cdef object join_frames(self):
        """The first message that waits, all its frames."""
        cdef list parts = []
        cdef uint32_t i = self.ring_start
        while True:
            parts.append(<object> self.ring[i].payload)
            if self.ring[i].fin:
                return b"".join(parts)
            i = (i + 1) & (self.ring_capacity - 1)

    cdef bint readable(self, bint frames):
        return self.queued > 0 if frames else self.messages_queued > 0

    cdef int ask(self) except -1:
        """The handler asks for the next message: it is done with the last one."""
        if self.handling != 0:
            tg_count_handled(self.counts, self.handling)
            self.handling = 0
        return 0

    cdef int flow(self) except -1:
        """Pause reading above the high-water mark, unless a reader waits for the rest of a message."""
        if self.reading_paused:
            if self.reader is not NULL and self.messages_queued == 0:
                self._resume_reading()
            return 0
        if self.queue_high < 0 or <Py_ssize_t> self.queued <= self.queue_high or self._state != OPEN:
            return 0
        if self.reader is not NULL and self.messages_queued == 0:
            return 0
        self.reading_paused = True
        self.counts.pauses[TG_RECEIVED] += 1
        self.transport.pause_reading()
        return 0

    cdef int wake(self, bint direct) except -1:
        """Let the reader go on, if one waits and has what it waits for."""
        if self.reader is not NULL and self.waiter is not None and self.readable(self.reader_takes_frames):
            self.waiter.finish(direct)
        return 0

    # Out: messages to bytes.

    cdef int send_message(self, object message, object text) except -1:
        """Frame and write a message if it is as simple as most: 1; 0 if Python has to look at it."""
        cdef const char *p
        cdef Py_ssize_t n
        cdef uint8_t opcode
        cdef Py_buffer view
        if self._state != OPEN or self._sending or self._slow:
            return 0
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
                return 0
            PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
            try:
                n = view.len
                self.send_frame(0x80 | opcode, <const uint8_t *> view.buf, n, None)
            finally:
                PyBuffer_Release(&view)
        else:
            return 0
        tg_count_bytes(self.counts, TG_SENT, n)
        tg_count_message(self.counts, TG_SENT, opcode, n)
        return 1

    cdef int send_deflated(self, object message, object text) except -1:
        """send_message() with compression (RFC 7692 section 6)."""
        cdef uint8_t opcode
        cdef bytes data, compressed
        if isinstance(message, str):
            opcode = BINARY if text is False else TEXT
            data = message.encode()
        elif isinstance(message, (bytes, bytearray, memoryview)):
            opcode = TEXT if text is True else BINARY
            data = bytes(message)
        else:
            return 0
        compressed = self.deflate.compress(data)
        self.send_frame(
            0xC0 | opcode, <const uint8_t *> PyBytes_AS_STRING(compressed), PyBytes_GET_SIZE(compressed), compressed
        )
        tg_count_bytes(self.counts, TG_SENT, PyBytes_GET_SIZE(data))
        tg_count_message(self.counts, TG_SENT, opcode, PyBytes_GET_SIZE(data))
        return 1

    cdef int send_frame(self, uint8_t first, const uint8_t *p, Py_ssize_t n, object owner) except -1:
        """Write one frame; `owner` is the bytes object that p points into, if there is one that may go out uncopied."""
        cdef uint8_t head[14]
        cdef uint8_t *out
        cdef size_t size = tg_build_header(head, first, n, self.client)
        cdef object data
        if self.client:
            new_key(head + size - 4)
        elif n >= UNCOPIED and owner is not None and self.scatter:
            self.flush()
            return self.put(None, (PyBytes_FromStringAndSize(<char *> head, size), owner))
        if self.gather is not NULL and size + n <= TG_GATHER:
            while self.gather.size + size + n > TG_GATHER:
                self.flush()  # which may send in turn: pause_writing() of a subclass, a transport that has an answer
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
        return 0

    cdef int flush(self) except -1:
        cdef object data
        if self.gather is not NULL and self.gather.size:
            data = PyBytes_FromStringAndSize(<char *> self.gather.data, self.gather.size)
            self.gather.size = 0
            self.put(data)
        return 0

    cdef int end_gather(self) except -1:
        """Write what is gathered; what is sent from now on leaves at once."""
        cdef tg_gather *gather = self.gather
        cdef object data = None
        self.gather = NULL
        try:
            if gather.size:
                data = PyBytes_FromStringAndSize(<char *> gather.data, gather.size)
        finally:
            tg_gather_return(gather)
        if data is not None:
            self.put(data)
        return 0

    cdef int put(self, object data, object lines=None) except -1:
        if self.write is None:
            return 0
        try:
            if lines is None:
                self.write(data)
            else:
                self.transport.writelines(lines)
        except Exception as exc:
            self._write_failed(exc)
        return 0

    def _send_frame(self, uint8_t first, const uint8_t[::1] payload not None):
        """Write a frame whose first byte (FIN, RSV, opcode) is `first`: for control frames, fragments, extensions."""
        cdef const uint8_t *p = &payload[0] if payload.shape[0] else &first  # not NULL: memcpy() must not see it
        self.send_frame(first, p, payload.shape[0], None)

    def _count_sent(self, Py_ssize_t size):
        """Count payload that Python framed."""
        tg_count_bytes(self.counts, TG_SENT, size)

    def _count_message_sent(self, uint8_t opcode, Py_ssize_t size):
        """Count a message that Python framed, of so much payload."""
        tg_count_message(self.counts, TG_SENT, opcode, size)

    def _flush(self):
        """Write what is gathered, before something else is done with the transport."""
        self.flush()

    def _write_bytes(self, data):
        """Write ready bytes, in order with frames."""
        self.flush()
        self.put(data)

    # Doors to Python, which Connection defines:
    #   _handshake_received(data)            bytes before the connection is open
    #   _control_received(opcode, payload)   a control frame
    #   _frame_received(opcode, fin, payload)  a data frame, if it is to be logged
    #   _frame_decoded(opcode, fin, rsv, payload, limit)  what extensions make of a frame; None if they failed
    #   _fail_received(what, detail)         the peer broke the protocol; nothing more is read
    #   _write_failed(exception)             the transport refused to write
    #   _drained()                           the transport wrote enough: senders may go on
    #   _drain()                             coroutine: wait for that
    #   _iterate()                           asynchronous iterator of what a subclass's own recv() returns
    #   _send_slowly(message, text)          coroutine: send what is not simple
    #   _recv_undecodable(exception)         coroutine: recv(decode=True) met bytes that are no UTF-8
    #   _concurrent_read(mode)               the exception for a second reader
    #   _closed_exception(iterating)         the exception that says how the connection ended

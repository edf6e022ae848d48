# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, auto_pickle=False
"""Bytes to frames (RFC 6455 section 5): headers and their rules, payloads unmasked, inflated and checked as text.

`parse()` ends when a frame must wait, the budget of the turn is used up, or nothing is left. What must not live here: when
it is called and what is read meanwhile (channel.pyx), frames that wait (inbox.pyx).
"""

from tidegate._core.deflate import TooLong, ZlibError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.string cimport memcpy

from tidegate._core.counters cimport TG_RECEIVED, tg_count_bytes, tg_count_message
from tidegate._core.wire cimport tg_copy_bytes, tg_parse_header, tg_unmask, tg_utf8_check
from tidegate._core.writer cimport BINARY, CLOSE, CLOSED, CLOSING, CONTINUATION, TEXT


cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void *PyUnicode_DATA(object text)
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1


cdef extern from "payloads.h":
    const Py_ssize_t TG_LARGE, TG_LARGEST
    bytes tg_payload_new(Py_ssize_t size, Py_ssize_t *room)
    void tg_payload_keep(object bytes, Py_ssize_t room)


# A payload larger than this is allocated as it arrives, so that a header alone cannot claim more memory.
cdef Py_ssize_t TRUSTED = 1 << 20
# The first argument of `_fail_received()`: an index into FAILURES (closing.py), which has the error and the close code.
cdef enum:
    RESERVED_BITS, UNKNOWN_OPCODE, MASKING, CONTROL_TOO_LONG, CONTROL_FRAGMENTED, CONTINUATION_EXPECTED
    CONTINUATION_UNEXPECTED, TOO_BIG, INVALID_UTF8, UNDECODABLE


cdef class Parser(Inbox):
    """The part of a connection that parses."""

    def __cinit__(self):
        self.max_message_size = self.max_fragment_size = -1

    cdef int parse(self) except -1:
        """Parse until a frame must wait, the budget is used up, or nothing is left."""
        cdef bytes chunk
        cdef const uint8_t *p
        cdef Py_ssize_t n
        while self.chunk is not None:
            if self.inflation is not None:
                self.inflate()
                if self.turns.used_up():
                    return 0
                continue
            chunk = self.chunk
            n = self.size - self.place
            if n == 0 and not self.held:
                self.chunk = None
                self.place = 0
                if self.unread is not None:
                    self.chunk = self.unread.pop(0)
                    self.size = PyBytes_GET_SIZE(self.chunk)
                    if not self.unread:
                        self.unread = None
                continue
            p = <const uint8_t *> PyBytes_AS_STRING(chunk) + self.place
            if self.in_payload:
                n = <Py_ssize_t> min(<uint64_t> n, self.header.length - self.partial_size)
                self.place += n
                self.extend_partial(p, n)
            else:
                if not self.held:
                    if not self.parse_header(p, n):
                        continue
                    n = self.size - self.place
                    p = <const uint8_t *> PyBytes_AS_STRING(chunk) + self.place
                if self.header.opcode == CLOSE:
                    self.wake()  # messages before it may be answered before it is
                    if self.chunk is not chunk:
                        continue
                self.held = self.must_wait()
                if self.held:
                    return 0
                if <uint64_t> n < self.header.length:
                    self.begin_partial()
                else:
                    self.place += self.header.length
                    self.receive_whole(p, self.header.length)
            if self.turns.used_up():
                return 0
        return 0

    cdef bint must_wait(self) noexcept:
        """Return whether the frame whose header was just parsed must wait: data for room, a close frame for tasks that wait
        for their turn."""
        if self.header.opcode & 8:
            return self.header.opcode == CLOSE and (self.reader_yielded or self.yielded_writers != 0)
        # While closing, frames without room are dropped, but a reader that waits is served.
        return self.full() and (self._state != CLOSING or self.reader is not NULL)

    cdef int parse_header(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Parse the header of the next frame. Return 1 when it is complete and allowed."""
        cdef Py_ssize_t size
        if self.head_size:
            # It came in pieces: complete it byte by byte, of which it has 14 at most.
            size = 0
            while tg_parse_header(self.head, self.head_size, &self.header) == 0:
                if size == n:
                    self.place += size
                    return 0
                self.head[self.head_size] = p[size]
                self.head_size += 1
                size += 1
            self.head_size = 0
        else:
            size = tg_parse_header(p, n, &self.header)
            if size == 0:
                memcpy(self.head, p, n)
                self.head_size = <uint8_t> n
                self.place += n
                return 0
        self.place += size
        return self.check_header()

    cdef int check_header(self) except -1:
        """Check each rule of RFC 6455 section 5 that the header alone can break. Return 1 if the frame is allowed."""
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
        """Receive a frame whose payload is all there."""
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
            # The common case, text in one frame: straight into a str, which is right if it is ASCII.
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
        """Begin a payload that comes in pieces."""
        self.in_payload = True
        self.partial_size = 0
        self.partial = tg_payload_new(min(<Py_ssize_t> self.header.length, TRUSTED), &self.partial_room)
        return 0

    cdef int extend_partial(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Add to a payload that comes in pieces; what was read into its place is there already."""
        cdef tg_frame *h = &self.header
        cdef uint64_t needed = self.partial_size + n
        cdef uint8_t *out
        if needed > <uint64_t> PyBytes_GET_SIZE(self.partial):
            self.grow_partial(needed)
        out = <uint8_t *> PyBytes_AS_STRING(self.partial) + self.partial_size
        if h.masked:
            tg_unmask(out, p, n, h.key, self.partial_size & 3)
        elif out != p:
            memcpy(out, p, n)
        self.partial_size = needed
        if h.opcode < 8 and self.message_opcode == TEXT and not self.encoded and not tg_utf8_check(&self.utf8, out, n):
            return self.fail(INVALID_UTF8, self.text_so_far(self.partial[:self.partial_size]))
        if needed == h.length:
            self.end_partial()
        return 0

    cdef int grow_partial(self, uint64_t needed) except -1:
        """Make room: doubling keeps the copying linear; never more than the payload needs."""
        cdef uint64_t room = min(self.header.length, max(needed, 2 * <uint64_t> PyBytes_GET_SIZE(self.partial)))
        cdef PyObject *grown = <PyObject *> self.partial
        Py_INCREF(self.partial)
        self.partial = None
        self.partial_room = room
        _PyBytes_Resize(&grown, room)
        self.partial = <bytes> grown
        Py_XDECREF(grown)
        return 0

    cdef int end_partial(self) except -1:
        """Receive a frame whose payload came in pieces."""
        cdef object payload = self.partial
        if TG_LARGE <= PyBytes_GET_SIZE(payload) <= TG_LARGEST:
            tg_payload_keep(payload, self.partial_room)
        self.partial = None
        self.in_payload = False
        if self.header.opcode & 8:
            return self.receive_control(payload)
        if self.encoded:
            return self.receive_encoded(payload)
        return self.receive_data(payload)

    cdef Py_ssize_t room(self):
        """Return how long the frame may be once it is decoded; -1 for no limit."""
        cdef Py_ssize_t limit = -1
        if self.max_message_size >= 0:
            limit = self.max_message_size - self.message_size
        if self.max_fragment_size >= 0 and (limit < 0 or self.max_fragment_size < limit):
            limit = self.max_fragment_size
        return limit

    cdef int receive_encoded(self, bytes payload) except -1:
        """Receive a data frame that an extension has encoded (RFC 6455 section 5.8)."""
        cdef tg_frame *h = &self.header
        cdef Py_ssize_t limit = self.room()
        if not self._extended:
            self.inflation = self.deflate.inflation(payload, h.fin, limit)
            return self.inflate()
        payload = self._frame_decoded(h.opcode, bool(h.fin), h.rsv, payload, None if limit < 0 else limit)
        return 0 if payload is None else self.receive_decoded(payload, limit)

    cdef int inflate(self) except -1:
        """Inflate until the frame is whole, or the budget is used up."""
        cdef bytes payload
        while True:
            try:
                payload = self.inflation.proceed()
            except TooLong:
                return self.fail(TOO_BIG, (None, self.room(), self.message_size))
            except ZlibError as exc:
                return self.fail(UNDECODABLE, exc)
            if payload is not None:
                self.inflation = None
                return self.receive_decoded(payload, self.room())
            if self.turns.used_up():
                return 0

    cdef int receive_decoded(self, bytes payload, Py_ssize_t limit) except -1:
        """Receive a data frame that was decoded: check its size and its UTF-8."""
        cdef tg_frame *h = &self.header
        if 0 <= limit < PyBytes_GET_SIZE(payload):
            return self.fail(TOO_BIG, (PyBytes_GET_SIZE(payload), limit, self.message_size))
        h.length = PyBytes_GET_SIZE(payload)
        self.message_size += h.length
        if self.message_opcode == TEXT:
            if not tg_utf8_check(&self.utf8, <const uint8_t *> PyBytes_AS_STRING(payload), h.length):
                return self.fail(INVALID_UTF8, self.text_so_far(payload))
        return self.receive_data(payload)

    cdef int receive_control(self, object payload) except -1:
        """Pass a control frame to Python (RFC 6455 section 5.5)."""
        if self._state == CLOSED:  # the peer gets no answer
            if self.header.opcode == CLOSE:
                self._discard()
            return 0
        if self._extended:
            payload = self._frame_decoded(self.header.opcode, True, self.header.rsv, payload, 125)
            if payload is None:
                return 0
        self._control_received(self.header.opcode, payload)
        return 0

    cdef int receive_data(self, object payload) except -1:
        """Count and queue a data frame, in which text is valid UTF-8 so far."""
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

    cdef int fail(self, int what, object detail) except -1:
        """Fail the connection (RFC 6455 section 7.1.7). Return 0, so that callers stop."""
        self._discard()
        self.in_payload = False
        if self._state != CLOSED:
            self._fail_received(what, detail)
        return 0

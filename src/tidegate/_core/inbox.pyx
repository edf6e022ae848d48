# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, auto_pickle=False
"""Frames between the parser and the reader: a ring of those that wait, and the waiter of the task that reads.

Its bound is `max_queue` (queue_high): there the parser stops, unless a reader waits for the rest of a message. Then the
bound is `max_size`, since small fragments are joined. What must not live here: bytes of frames (channel.pyx), coroutines
(messages.pyx).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from tidegate._core.counters cimport tg_count_handled
from tidegate._core.writer cimport CLOSING, TEXT


cdef extern from "Python.h":
    object PyUnicode_DecodeUTF8(const char *s, Py_ssize_t size, const char *errors)


# Once MANY frames of a message wait, more frames of at most SMALL bytes are joined into pieces of PIECE: however many
# fragments a message has, they take little more memory than its size.
cdef enum:
    MANY = 16
    SMALL = 1 << 12
    PIECE = 1 << 14


cdef class Inbox(Writer):
    """The part of a connection that keeps frames until they are read."""

    def __cinit__(self):
        self.queue_high = self.queue_low = -1

    def __dealloc__(self):
        while self.queued:
            self.queued -= 1
            Py_XDECREF(self.ring[self.ring_start].payload)
            self.ring_start = (self.ring_start + 1) & (self.ring_capacity - 1)
        free(self.ring)

    cdef bint full(self) noexcept:
        """Return whether one more frame is too many: never while a reader waits for the rest of a message."""
        if self.queue_high < 0 or <Py_ssize_t> self.queued < max(self.queue_high, 1):
            return False
        return self.reader is NULL or self.reader_takes_frames or self.messages_queued != 0

    cdef int find_room(self) except -1:
        """Let the parser go on, which waits for room: there is some."""

    # In.

    cdef int push(self, object payload, uint8_t opcode, bint fin) except -1:
        """Keep a frame, as the last one."""
        if self._state == CLOSING and self.full():
            self.dropping = True  # without a reader, the peer's close frame is still read
        if self.dropping:
            return 0
        if opcode == 0 and self.unfinished >= MANY and not self.is_streamed():
            if not fin and PyBytes_GET_SIZE(payload) <= SMALL:
                return self.join(payload)
            self.end_joined()
        return self.append(payload, opcode, fin)

    cdef int append(self, object payload, uint8_t opcode, bint fin) except -1:
        """Put a frame into the ring."""
        cdef Arrival *a
        if self.queued == self.ring_capacity:
            self.make_room()
        a = &self.ring[(self.ring_start + self.queued) & (self.ring_capacity - 1)]
        Py_INCREF(payload)
        a.payload = <PyObject *> payload
        a.at = self.now
        a.opcode = opcode
        a.fin = fin
        self.queued += 1
        if fin:
            self.messages_queued += 1
            self.unfinished = 0
        else:
            self.unfinished += 1
        return 0

    cdef int make_room(self) except -1:
        """Double the ring."""
        cdef uint32_t i, capacity = max(4, 2 * self.ring_capacity)
        cdef Arrival *a
        if capacity <= self.ring_capacity:  # 2^31 frames
            raise MemoryError
        a = <Arrival *> realloc(self.ring, capacity * sizeof(Arrival))
        if a is NULL:
            raise MemoryError
        self.ring = a
        for i in range(self.ring_start):  # what had wrapped around goes behind the old end
            a[self.ring_capacity + i] = a[i]
        self.ring_capacity = capacity
        return 0

    cdef int join(self, bytes payload) except -1:
        """Keep a small fragment together with its neighbours."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
        if self.joined is not None and self.joined_size + size > PIECE:
            self.end_joined()
        if self.joined is None:
            self.joined = PyBytes_FromStringAndSize(NULL, PIECE)
            self.joined_size = 0
        memcpy(PyBytes_AS_STRING(self.joined) + self.joined_size, PyBytes_AS_STRING(payload), size)
        self.joined_size += size
        return 0

    cdef int end_joined(self) except -1:
        """Put what was joined into the ring, as one frame."""
        cdef bytes piece
        if self.joined is not None:
            piece = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.joined), self.joined_size)
            self.append(piece, 0, False)
            self.joined = None
        return 0

    cdef object text_so_far(self, object last):
        """Return the bytes of the current message, for an error that says where it is wrong."""
        cdef list parts = []
        cdef uint32_t i
        cdef Arrival *a
        for i in range(self.queued):
            a = &self.ring[(self.ring_start + i) & (self.ring_capacity - 1)]
            if a.fin:
                parts.clear()
            else:
                parts.append(<object> a.payload)
        if self.joined is not None:
            parts.append(self.joined[:self.joined_size])
        parts.append(last)
        return b"".join(parts)

    # Out.

    cdef object pop_frame(self, uint8_t *opcode, bint *fin):
        """Take the first frame out of the ring, and return its payload."""
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
        elif self.messages_queued == 0:
            self.unfinished -= 1
        if self.queued == 0:
            if self.ring_capacity > 64:
                free(self.ring)  # after a burst, an idle connection is small again
                self.ring = NULL
                self.ring_capacity = self.ring_start = 0
            self.end_joined()
        if self.no_room and <Py_ssize_t> self.queued <= self.queue_low:
            self.find_room()
        return payload

    cdef object pop_message(self, object decode):
        """Take the frames of the first message out of the ring, and return it as recv() does."""
        cdef uint8_t opcode = self.ring[self.ring_start].opcode
        cdef uint8_t rest
        cdef bint fin = self.ring[self.ring_start].fin
        cdef bint text
        cdef object payload
        self.want_bytes = decode is False
        if fin:
            payload = self.pop_frame(&opcode, &fin)
        else:
            payload = self.join_frames()  # before any is taken out: memory may run out
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
        """Return the first message that waits, all its frames."""
        cdef list parts = []
        cdef uint32_t i = self.ring_start
        while True:
            parts.append(<object> self.ring[i].payload)
            if self.ring[i].fin:
                return b"".join(parts)
            i = (i + 1) & (self.ring_capacity - 1)

    cdef bint is_streamed(self) noexcept:
        """Return whether a reader takes the current message frame by frame."""
        return self._streaming or (self.reader is not NULL and self.reader_takes_frames)

    cdef bint readable(self, bint frames) noexcept:
        """Return whether a frame, or a whole message, waits."""
        return self.queued > 0 if frames else self.messages_queued > 0

    cdef int ask(self) except -1:
        """Count the time that the handler took for the last message: it asks for the next one."""
        if self.handling != 0:
            tg_count_handled(self.counts, self.handling)
            self.handling = 0
        return 0

    cdef int wake(self) except -1:
        """Wake the reader, if what it waits for is there; it runs right here, if no task runs."""
        if self.reader is NULL or self.reader_yielded or self.waiter is None:
            return 0
        if self.readable(self.reader_takes_frames):
            self.waiter.finish(True)
        return 0

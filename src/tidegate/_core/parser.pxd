"""Declarations of the parser: bytes that are not parsed yet, and the state of the frame that is read."""

from libc.stdint cimport uint8_t, uint64_t

from tidegate._core.deflate cimport Inflation
from tidegate._core.inbox cimport Inbox
from tidegate._core.wire cimport tg_frame, tg_utf8


cdef class Parser(Inbox):
    # Settings. -1 stands for None: no limit.
    cdef Py_ssize_t max_message_size
    cdef Py_ssize_t max_fragment_size

    # What was read and is not parsed: `chunk` from `place` on, then the chunks of `unread`.
    cdef bytes chunk
    cdef Py_ssize_t size  # of the chunk, which may be a buffer that has room for more
    cdef Py_ssize_t place
    cdef list unread

    cdef tg_frame header  # of the frame whose payload is being read
    cdef uint8_t head[14]  # a header that came in pieces
    cdef uint8_t head_size
    cdef uint8_t held  # the header is complete and checked, and its frame waits for room
    cdef uint8_t in_payload
    cdef uint8_t message_opcode  # of the message being received in frames, 0 between messages
    cdef uint8_t rsv_allowed
    cdef public bint _extended  # Python extensions see each frame
    cdef uint8_t encoded  # an extension has encoded the message being received
    cdef tg_utf8 utf8
    cdef Inflation inflation  # of a frame that is complete and not yet inflated to its end
    cdef bytes partial  # a payload that comes in pieces, unmasked; longer than what has arrived
    cdef uint64_t partial_size
    cdef Py_ssize_t partial_room  # what its memory has place for
    cdef uint64_t message_size  # of the frames before this one

    cdef int parse(self) except -1
    cdef int parse_header(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int check_header(self) except -1
    cdef bint must_wait(self) noexcept
    cdef Py_ssize_t room(self)
    cdef int receive_encoded(self, bytes payload) except -1
    cdef int inflate(self) except -1
    cdef int receive_decoded(self, bytes payload, Py_ssize_t limit) except -1
    cdef int receive_control(self, object payload) except -1
    cdef int receive_whole(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int begin_partial(self) except -1
    cdef int extend_partial(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int grow_partial(self, uint64_t needed) except -1
    cdef int end_partial(self) except -1
    cdef int receive_data(self, object payload) except -1
    cdef int fail(self, int what, object detail) except -1

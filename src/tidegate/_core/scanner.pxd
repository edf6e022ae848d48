"""The frames of a server, to be counted."""

from libc.stdint cimport uint8_t, uint64_t

from tidegate._core.stream cimport Receiver
from tidegate._core.wire cimport tg_frame


cdef class Scanner(Receiver):
    cdef bint compressed  # which was agreed on
    cdef bint raw  # frames come back as they were sent
    cdef bint broken

    # The frame that is being received.
    cdef uint8_t header[14]
    cdef int have
    cdef tg_frame incoming
    cdef uint64_t left
    cdef bint in_message
    cdef uint8_t control[125]
    cdef int control_size

    cdef int control_received(self, uint8_t opcode, const uint8_t *p, int n) except -1
    cdef int wrong(self, str reason) except -1
    cdef Py_ssize_t parse(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef Py_ssize_t parse_header(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef bint begin_frame(self) except -1
    cdef int refuse(self, str reason) except -1
    cdef int end_frame(self) except -1

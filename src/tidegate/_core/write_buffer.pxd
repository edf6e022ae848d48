"""What is written to a socket, and what of that waits."""

from libc.stdint cimport uint8_t

from tidegate._core.poller cimport Pollable


cdef extern from "stream.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len


cdef class WriteBuffer(Pollable):
    cdef readonly object loop
    cdef object protocol

    # What the socket did not take yet, and the marks of flow control in bytes.
    cdef object pending  # the first piece, bytes or a memoryview; None while there is nothing
    cdef object behind  # deque of the pieces behind it; None while there are none
    cdef Py_ssize_t pending_size
    cdef Py_ssize_t high
    cdef Py_ssize_t low
    cdef bint protocol_paused
    cdef bint due  # what is pending was kept to be written in a later turn, not because the socket is full
    cdef bint in_backlog  # of broadcasts: what is due will be written

    cdef bint eof_written
    cdef bint closing  # nothing is read any more, and what is pending is written
    cdef bint lost  # connection_lost() is ahead, or was; nothing is written any more
    cdef unsigned int writes_after

    cdef int check_writable(self) except -1
    cdef int end_writing(self) except -1
    cdef int send(self, const uint8_t *p, Py_ssize_t n, object owner) except -1
    cdef int send_pieces(self, const uint8_t *head, Py_ssize_t size, bytes payload) except -1
    cdef int keep(self, object data) except -1
    cdef int write_due(self) except -1
    cdef int flush(self) except -1
    cdef Py_ssize_t offer(self, iovec *pieces, size_t *count) except -1
    cdef int drop(self, Py_ssize_t size) except -1
    cdef int finish(self, object exception) except -1
    cdef int broken(self, Py_ssize_t error, str message) except -1
    cdef int fail(self, object exception, str message) except -1
    cdef int report(self, object exception, str message) except -1
    cdef int pause_protocol(self) except -1
    cdef int resume_protocol(self) except -1

"""A transport of asyncio's on a stream socket, and what it reads into without bytes objects."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from tidegate._core.poller cimport Pollable
from tidegate._core.turns cimport TurnTaker


cdef extern from "stream.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ctypedef struct tg_address:
        uint8_t family
        uint8_t bytes[16]
        uint16_t port
        uint32_t flow
        uint32_t scope


cdef class Receiver(TurnTaker):
    """A protocol that takes what is read as it is in memory."""

    cdef uint8_t *place_for(self, Py_ssize_t *size) except? NULL
    cdef int receive(self, bytes buffer, Py_ssize_t size, Py_ssize_t placed) except -1


cdef class Stream(Pollable):
    cdef readonly object loop
    cdef object protocol
    cdef Receiver receiver  # the protocol, if it is one
    cdef bint buffered  # the protocol is a BufferedProtocol

    # What is known of the socket.
    cdef int family
    cdef object sock  # a socket object on the descriptor, once somebody asked for it
    cdef object peername  # once somebody asked for it, or it is no address of TCP
    cdef object sockname
    cdef tg_address peer
    cdef tg_address local  # known when the descriptor is closed

    # Out: what the socket did not take yet, and the marks of flow control in bytes.
    cdef object pending  # deque of bytes and memoryviews; None while there is nothing
    cdef Py_ssize_t pending_size
    cdef Py_ssize_t high
    cdef Py_ssize_t low
    cdef bint protocol_paused

    cdef bint reading_paused
    cdef bint readable  # there may be something to read
    cdef bint ending  # what a short read left cannot be known: there is more until nothing comes
    cdef bint eof_received
    cdef bint eof_written
    cdef bint closing  # nothing is read any more, and what is pending is written
    cdef bint lost  # connection_lost() is ahead, or was; nothing is written any more
    cdef unsigned int writes_after

    cdef int begin(self, object loop, int descriptor, int family, object protocol) except -1
    cdef int start(self) except -1
    cdef int read(self) except -1
    cdef int read_into(self) except -1
    cdef int read_nothing(self, Py_ssize_t n) except -1
    cdef int check_writable(self) except -1
    cdef int end_writing(self) except -1
    cdef int send(self, const uint8_t *p, Py_ssize_t n, object owner) except -1
    cdef int send_pieces(self, const uint8_t *head, Py_ssize_t size, bytes payload) except -1
    cdef int keep(self, object data) except -1
    cdef int flush(self) except -1
    cdef Py_ssize_t offer(self, iovec *pieces, size_t *count) except -1
    cdef int drop(self, Py_ssize_t size) except -1
    cdef int finish(self, object exception) except -1
    cdef int broken(self, Py_ssize_t error, str message) except -1
    cdef int fail(self, object exception, str message) except -1
    cdef int report(self, object exception, str message) except -1
    cdef int shut(self) except -1
    cdef int pause_protocol(self) except -1
    cdef int resume_protocol(self) except -1

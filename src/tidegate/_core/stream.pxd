"""A transport of asyncio's on a stream socket, and what it reads into without bytes objects."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from tidegate._core.turns cimport TurnTaker
from tidegate._core.write_buffer cimport WriteBuffer


cdef extern from "stream.h" nogil:
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


cdef class Stream(WriteBuffer):
    cdef Receiver receiver  # the protocol, if it is one
    cdef bint buffered  # the protocol is a BufferedProtocol

    # What is known of the socket.
    cdef int family
    cdef object sock  # a socket object on the descriptor, once it was asked for
    cdef object peername  # once it was asked for, or if it is not an address of TCP
    cdef object sockname
    cdef tg_address peer
    cdef tg_address local  # known when the descriptor is closed

    cdef bint reading_paused
    cdef bint readable  # there may be something to read
    cdef bint ending  # what a short read left cannot be known: there is more until nothing comes
    cdef bint eof_received

    cdef int begin(self, object loop, int descriptor, int family, object protocol) except -1
    cdef int start(self) except -1
    cdef int read(self) except -1
    cdef int read_into(self) except -1
    cdef int read_nothing(self, Py_ssize_t n) except -1
    cdef int shut(self) except -1

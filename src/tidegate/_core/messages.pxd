"""Declarations of what recv() and send() return, and of the class that has them."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from tidegate._core.channel cimport Channel


# The kinds of Awaitable.
cdef enum:
    MESSAGE, ITERATION, FRAME, SEND, TURN, COMPRESSED_SEND, EVENT

# Its stages.
cdef enum:
    CREATED, WAITING, DELEGATED, ENDED


cdef class Awaitable:
    cdef Channel channel
    cdef object argument  # decode of recv(), message of send()
    cdef object text  # of send()
    cdef object inner  # the Python coroutine that does the rest
    cdef uint8_t kind
    cdef uint8_t stage

    cdef int step(self, object value, PyObject **result) except -1
    cdef int recv_step(self, PyObject **result) except -1
    cdef object take(self)
    cdef int end_of_messages(self, PyObject **result) except -1
    cdef int wait(self, bint frames, PyObject **result) except -1
    cdef int send_step(self, PyObject **result) except -1
    cdef int compress_step(self, PyObject **result) except -1
    cdef int pass_turn(self, PyObject **result) except -1
    cdef int end_step(self, PyObject **result) except -1
    cdef int delegate(self, object value, PyObject **result) except -1
    cdef void give_up(self) noexcept
    cdef void end(self) noexcept


cdef class MessageChannel(Channel):
    pass


cdef class Messages:
    cdef MessageChannel channel
    cdef bint begun
    cdef bint closed

"""Declarations of the frames that wait to be read, and of the task that waits for them."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t

from tidegate._core.waiter cimport Waiter
from tidegate._core.writer cimport Writer


cdef struct Arrival:  # one data frame that waits to be read
    PyObject *payload  # str or bytes, owned
    double at  # tg_now() of the turn that completed it
    uint8_t opcode  # 0 continuation, 1 text, 2 binary
    bint fin


cdef class Inbox(Writer):
    # Settings: marks of the number of frames that wait. -1 stands for None: no limit.
    cdef Py_ssize_t queue_high
    cdef Py_ssize_t queue_low

    # Frames that wait, as a ring; and behind them small ones of an unfinished message, joined.
    cdef Arrival *ring
    cdef bytes joined  # longer than what it has
    cdef Py_ssize_t joined_size
    cdef uint32_t ring_capacity
    cdef uint32_t ring_start
    cdef uint32_t queued
    cdef uint32_t messages_queued  # of them, frames that end a message
    cdef uint32_t unfinished  # of them, frames of a message whose end has not come
    cdef uint8_t no_room  # the parser waits for room
    cdef uint8_t dropping  # frames are read and not kept: from the first that found no room on, so that there is no gap

    # The reader.
    cdef public bint _streaming  # recv_streaming() is in the middle of a message
    cdef uint8_t want_bytes  # the last reader asked for texts as bytes
    cdef uint8_t reader_takes_frames  # rather than whole messages
    cdef uint8_t reader_yielded  # it waits for its next turn, with something to read
    cdef PyObject *reader  # the Awaitable that reads, borrowed: it clears this when it ends
    cdef Waiter waiter
    cdef public bint _receives_in_python  # of an ASGI application: before its first event, and after it has closed
    cdef list next_readers  # of an ASGI application: futures of calls of receive() that wait for their turn
    cdef double now  # tg_now() of the current turn
    cdef double handling  # arrival of the message the handler is busy with, 0 for none

    cdef bint full(self) noexcept
    cdef int find_room(self) except -1
    cdef int make_room(self) except -1
    cdef int push(self, object payload, uint8_t opcode, bint fin) except -1
    cdef int append(self, object payload, uint8_t opcode, bint fin) except -1
    cdef int join(self, bytes payload) except -1
    cdef int end_joined(self) except -1
    cdef object pop_frame(self, uint8_t *opcode, bint *fin)
    cdef object pop_message(self, object decode)
    cdef object join_frames(self)
    cdef object text_so_far(self, object last)
    cdef bint is_streamed(self) noexcept
    cdef bint readable(self, bint frames) noexcept
    cdef int ask(self) except -1
    cdef int wake(self) except -1

"""Declarations of the way out: messages to bytes, gathered, to the transport or the socket."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t

from tidegate._core.deflate cimport Compression, Deflate
from tidegate._core.counters cimport Row, tg_row
from tidegate._core.stream cimport Receiver, Stream
from tidegate._core.turns cimport PyThread_get_thread_ident, Turns


# protocol.State and the opcodes, as the hot path knows them.
cdef enum:
    CONNECTING, OPEN, CLOSING, CLOSED

cdef enum:
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8


# What send_message() did with the message.
cdef enum:
    DECLINED, SENT, BEGUN

cdef extern from "writer.h" nogil:
    const size_t TG_GATHER

    ctypedef struct tg_gather:
        size_t size
        uint8_t *data

    tg_gather *tg_gather_lend()
    void tg_gather_return(tg_gather *g)


cdef class Writer(Receiver):
    # The transport, the loop, the row to count in.
    cdef readonly object transport
    cdef readonly object loop
    cdef Turns turns
    cdef object write  # transport.write, bound once
    cdef Stream stream  # the transport, if it is one
    cdef uint8_t scatter  # the transport takes the parts of a frame as well as the whole
    cdef uint8_t client  # which side masks
    cdef PyObject *row  # a Row, owned: garbage collection must not clear it, since counts points into it
    cdef tg_row *counts

    cdef Deflate deflate  # permessage-deflate, if it is the only extension

    cdef tg_gather *gather  # only during a read callback

    # State (protocol.State), and what rules out the fast way of send().
    cdef public int _state
    cdef public bint _slow  # frames are logged or an extension works on them: Python sees each one
    cdef public bint _sending  # in the middle of a fragmented message
    cdef public bint _write_paused
    cdef Py_ssize_t broadcast_limit  # bytes that broadcasts may pile up; -1 for no limit

    cdef Compression compression  # of a message that is not all compressed
    cdef unsigned int yielded_writers  # tasks that have written and wait for their next turn
    cdef uint64_t left_at  # tg_ticks() when something of this read callback's left

    cdef int count_in(self, Row row) except -1
    cdef int take_side(self, bint client) except -1
    cdef int refuse(self) except -1
    cdef bint more_to_handle(self) noexcept
    cdef int send_message(self, object message, object text) except -1
    cdef int send_deflated(self, object message, object text) except -1
    cdef bint compress(self) except -1
    cdef int finish_message(self) except -1
    cdef int give_up_message(self) except -1
    cdef int send_compressed(self, uint8_t opcode, Py_ssize_t size, bytes compressed) except -1
    cdef int send_frame(self, uint8_t first, const uint8_t *p, Py_ssize_t n, object owner) except -1
    cdef int begin_gather(self) except -1
    cdef int flush(self) except -1
    cdef int end_gather(self) except -1
    cdef int put_gathered(self, tg_gather *gather) except -1
    cdef int put(self, object data, object lines=*) except -1

    cdef inline int check(self) except -1:
        """Refuse calls from another thread, since nothing is locked, and objects not made by serve() or connect()."""
        return 0 if self.turns is not None and self.turns.thread == PyThread_get_thread_ident() else self.refuse()

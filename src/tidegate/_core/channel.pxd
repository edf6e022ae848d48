"""Table of contents of the hot path: what a connection is made of in native code, and what it does per message."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tidegate._core.deflate cimport Deflate
from tidegate._core.scoreboard cimport Row, tg_row
from tidegate._core.waiter cimport Waiter
from tidegate._core.wire cimport tg_frame, tg_utf8


# protocol.State and the opcodes, as the hot path knows them.
cdef enum:
    CONNECTING, OPEN, CLOSING, CLOSED

cdef enum:
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8


cdef extern from "channel.h" nogil:
    const size_t TG_GATHER

    ctypedef struct tg_gather:
        size_t size
        uint8_t *data

    tg_gather *tg_gather_lend()
    void tg_gather_return(tg_gather *g)


cdef struct Arrival:  # one data frame that waits to be read
    PyObject *payload  # str or bytes, owned
    double at  # tg_now() of the read callback that completed it
    uint8_t opcode  # 0 continuation, 1 text, 2 binary
    bint fin


cdef class Channel:
    # Doors: the transport, the loop, the row that is counted into.
    cdef readonly object transport
    cdef readonly object loop
    cdef object write  # transport.write, bound once
    cdef bint scatter  # the transport takes the parts of a frame as well as the whole
    cdef PyObject *row  # a Row, owned: garbage collection must not take it away, for counts points into it
    cdef tg_row *counts

    # Settings. -1 stands for None: no limit.
    cdef Py_ssize_t max_message_size
    cdef Py_ssize_t max_fragment_size
    cdef Py_ssize_t queue_high
    cdef Py_ssize_t queue_low
    cdef bint client  # which side masks

    # State (protocol.State), and why the ordinary ways in and out are not to be taken.
    cdef public int _state
    cdef public bint _slow  # frames are logged or an extension works on them: Python sees each one
    cdef public bint _sending  # in the middle of a fragmented message
    cdef public bint _streaming  # recv_streaming() is in the middle of a message
    cdef bint discarding  # nothing more is read: RFC 6455 sections 1.4 and 7.1.7
    cdef bint dropping  # frames are read and not kept: from the first that found no room on, so that there is no gap

    # In: the parser.
    cdef tg_frame header  # of the frame whose payload is being read
    cdef uint8_t head[14]  # a header that came in pieces
    cdef uint8_t head_size
    cdef bint in_payload
    cdef uint8_t message_opcode  # of the message being received in frames, 0 between messages
    cdef uint8_t rsv_allowed
    cdef Deflate deflate  # permessage-deflate, when it was negotiated and nothing else was
    cdef public bint _extended  # Python extensions see each frame
    cdef bint encoded  # the message being received is as an extension made it
    cdef tg_utf8 utf8
    cdef bytes partial  # a payload that came in pieces, unmasked; longer than what has arrived
    cdef uint64_t partial_size
    cdef uint64_t message_size  # of the frames before this one
    cdef list late  # chunks that came while one was being read

    # In: frames that wait, as a ring.
    cdef Arrival *ring
    cdef uint32_t ring_capacity
    cdef uint32_t ring_start
    cdef uint32_t queued
    cdef uint32_t messages_queued  # of them, frames that end a message
    cdef bint reading_paused
    cdef bint want_bytes  # the last reader asked for texts as bytes
    cdef PyObject *reader  # the Awaitable that reads, borrowed: it lets go when it ends
    cdef bint reader_takes_frames  # rather than whole messages
    cdef Waiter waiter
    cdef double now  # tg_now() of the current read callback
    cdef double handling  # arrival of the message the handler is busy with, 0 for none

    # Out.
    cdef tg_gather *gather  # only during a read callback
    cdef public bint _write_paused

    cdef int read_late(self) except -1
    cdef int count_in(self, Row row) except -1
    cdef int parse(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int check_header(self) except -1
    cdef int receive_encoded(self, bytes payload) except -1
    cdef int receive_control(self, object payload) except -1
    cdef int receive_whole(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int begin_partial(self) except -1
    cdef int extend_partial(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int end_partial(self) except -1
    cdef int receive_data(self, object payload) except -1
    cdef int fail(self, int what, object detail) except -1

    cdef int push(self, object payload, uint8_t opcode, bint fin) except -1
    cdef object pop_frame(self, uint8_t *opcode, bint *fin)
    cdef object pop_message(self, object decode)
    cdef object join_frames(self)
    cdef object text_so_far(self, object last)
    cdef bint is_streamed(self)
    cdef bint readable(self, bint frames)
    cdef int ask(self) except -1
    cdef int flow(self) except -1
    cdef int wake(self, bint direct) except -1

    cdef int send_message(self, object message, object text) except -1
    cdef int send_deflated(self, object message, object text) except -1
    cdef int send_frame(self, uint8_t first, const uint8_t *p, Py_ssize_t n, object owner) except -1
    cdef int flush(self) except -1
    cdef int end_gather(self) except -1
    cdef int put(self, object data, object lines=*) except -1

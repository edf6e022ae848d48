# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""One message to many channels: framed once, compressed once for each set of parameters, the same bytes for all.

A message that is compressed without context can be sent to all connections, if the compressor of each starts anew after it
(RFC 7692 section 7.2.1): the next message then refers to nothing that a receiver lacks.

Writing to a socket takes some microseconds, so that a large audience would keep the event loop to itself. `broadcast()`
writes as long as the budget of a turn lasts (turns.pyx). For the others it puts the message into their write buffers, where
it is in order with all that follows, and puts them into the backlog, which is written over the next turns; whatever is
written to one of them meanwhile takes along what is due. What must not live here: the connections that cannot take the
message so, which are returned.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from tidegate._core.channel cimport Channel
from tidegate._core.deflate cimport Deflate
from tidegate._core.counters cimport TG_SENT, tg_count_bytes, tg_count_message, tg_now
from tidegate._core.stream cimport Stream
from tidegate._core.turns cimport TG_GLANCE, TURN_SECONDS, Turns, tg_ticks
from tidegate._core.wire cimport TG_HEADER_MAX, tg_build_header
from tidegate._core.writer cimport BINARY, OPEN, TEXT


cdef extern from *:
    PyObject *PyList_GET_ITEM(object members, Py_ssize_t i)


# Members that a broadcast is written to at once, whether or not the budget is used up; and how long the backlog may be
# written at a time, in budgets of a turn.
cdef enum:
    FEW = 32
    LONGEST = 16


cdef bytes frame(uint8_t first, bytes payload):
    """Return an unmasked frame."""
    cdef uint8_t head[14]
    cdef Py_ssize_t n = PyBytes_GET_SIZE(payload)
    cdef Py_ssize_t size = tg_build_header(head, first, n, 0)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, size + n)
    memcpy(PyBytes_AS_STRING(made), head, size)
    memcpy(PyBytes_AS_STRING(made) + size, PyBytes_AS_STRING(payload), n)
    return made


cdef bytes compressed(Deflate deflate, bytes payload):
    """Compress a message without context, with the parameters of a connection."""
    cdef Deflate alone = Deflate(True, True, 15, deflate.local_max_window_bits, deflate.compress_settings)
    return alone.compress(payload)


@cython.final
cdef class Backlog:
    """The streams of one event loop that have broadcasts to be written."""

    cdef object loop
    cdef list streams
    cdef Py_ssize_t next  # the first of them that is not written
    cdef bint marked  # the loop will call _write()
    cdef double rested  # tg_now() when it was last written, or began to fill

    @staticmethod
    cdef Backlog of(Turns turns):
        """Return the backlog of a loop."""
        cdef Backlog backlog
        if turns.backlog is None:
            backlog = Backlog.__new__(Backlog)
            backlog.loop = turns.loop
            backlog.streams = []
            turns.backlog = backlog
        return <Backlog> turns.backlog

    cdef int add(self, Stream stream, bytes data) except -1:
        """Keep data for a stream, to be written in a later turn."""
        if not self.marked:
            self.rested = tg_now()
            self.mark()
        if not stream.in_backlog:
            self.streams.append(stream)
            stream.in_backlog = True
        stream.due = True
        return stream.keep(data)

    cdef int mark(self) except -1:
        self.loop.call_soon(self._write)
        self.marked = True
        return 0

    def _write(self):
        """Called by the loop: write for as long as the loop was with others since the last time, within bounds."""
        cdef double now = tg_now()
        cdef double until = now + min(max(now - self.rested, TURN_SECONDS), LONGEST * TURN_SECONDS)
        cdef uint64_t glanced = tg_ticks()
        cdef Stream stream
        self.marked = False
        if not self.streams:
            return
        self.mark()  # before anything can fail
        while self.next < PyList_GET_SIZE(self.streams):
            stream = <Stream> self.streams[self.next]
            self.next += 1
            stream.in_backlog = False
            if self.next < PyList_GET_SIZE(self.streams):
                tg_fetch(PyList_GET_ITEM(self.streams, self.next))
            try:
                stream.write_due()
            except Exception as exc:
                stream.fail(exc, "Fatal error: a broadcast could not be written.")
            if tg_ticks() - glanced > TG_GLANCE:
                glanced = tg_ticks()
                if tg_now() >= until:
                    break
        self.rested = tg_now()
        if 2 * self.next >= PyList_GET_SIZE(self.streams):
            del self.streams[:self.next]
            self.next = 0


cdef inline Channel member(list members, Py_ssize_t i):
    """Return a member, with the next ones on their way."""
    cdef Channel channel = <Channel?> members[i]  # not None either
    if i + 2 < PyList_GET_SIZE(members):
        tg_fetch(PyList_GET_ITEM(members, i + 2))
        if type(members[i + 1]) is type(channel):
            tg_fetch(<PyObject *> (<Channel> members[i + 1]).stream)
    return channel


cdef bint too_slow(Channel channel, Py_ssize_t size, Py_ssize_t limit):
    """Return whether so much more is too much for a connection that reads slowly, or that cannot be said here."""
    if channel.stream is None:
        return True
    return 0 <= limit < channel.stream.pending_size + size


cdef int put(Channel channel, bytes data, bint later) except -1:
    """Give a connection a frame, to be written at once or later."""
    cdef Stream stream = channel.stream
    if channel.gather is not NULL:
        channel.flush()
    if stream is None:
        channel.write(data)
    elif later and stream.pending is None and not stream.lost:
        Backlog.of(channel.turns).add(stream, data)
    elif stream.due and stream.pending_size + PyBytes_GET_SIZE(data) <= stream.high:
        stream.keep(data)
    else:
        stream.send(<const uint8_t *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), data)
    return 0


cdef class Cast:
    """One message, on its way to many channels."""

    @staticmethod
    cdef Cast of(uint8_t opcode, bytes payload):
        """Frame a message."""
        if opcode != TEXT and opcode != BINARY:
            raise ValueError(f"a message is text (1) or binary (2), not {opcode}")
        cdef Cast cast = Cast.__new__(Cast)
        cast.payload = payload
        cast.size = PyBytes_GET_SIZE(payload)
        cast.opcode = opcode
        cast.plain = frame(0x80 | opcode, payload)
        cast.shared = {}
        cast.failures = []
        return cast

    cdef bytes frame_for(self, Channel channel):
        """Return the compressed frame for a channel, whose compressor starts anew after it."""
        key = (channel.deflate.local_max_window_bits, id(channel.deflate.compress_settings))
        data = self.shared.get(key)
        if data is None:
            data = self.shared[key] = frame(0xC0 | self.opcode, compressed(channel.deflate, self.payload))
        channel.finish_message()
        channel.deflate.release()
        return <bytes> data

    cdef int give(self, Channel channel, Py_ssize_t limit) except -1:
        """Send the message to a channel, unless that is not open, or cannot take it at once.

        `limit` is how many bytes may wait for a connection that reads slowly; -1 for no limit.
        """
        if channel._state != OPEN or channel.write is None:
            return SKIPPED
        channel.check()
        if channel._sending or channel._slow or channel.client:
            return HANDED_BACK
        if channel._write_paused and too_slow(channel, self.size, limit):
            return HANDED_BACK
        cdef bytes data = self.plain if channel.deflate is None else self.frame_for(channel)
        try:
            put(channel, data, self.later)
        except Exception as exc:
            self.failures.append((channel, exc))
            return FAILED
        self.count += 1
        self.later = self.count >= FEW and (self.later or channel.turns.used_up())
        tg_count_bytes(channel.counts, TG_SENT, self.size)
        tg_count_message(channel.counts, TG_SENT, self.opcode, self.size)
        return GIVEN


def broadcast(connections, uint8_t opcode, bytes payload not None):
    """Send a whole message to every open connection that can take it at once.

    Return the open connections that cannot (in the middle of a fragmented message, at `broadcast_limit`, a client, logged
    or with other extensions), and pairs (connection, exception) of those whose transport raised.
    """
    cdef Cast cast = Cast.of(opcode, payload)
    cdef Channel channel
    cdef list rest = [], members = list(connections)
    cdef Py_ssize_t i
    for i in range(PyList_GET_SIZE(members)):
        channel = member(members, i)
        if cast.give(channel, channel.broadcast_limit) == HANDED_BACK:
            rest.append(channel)
    return rest, cast.failures

"""Connections of a load generator, and what they have in common."""

from libc.stdint cimport uint8_t, uint64_t

from tidegate._core.histogram cimport Histogram
from tidegate._core.scanner cimport Scanner
from tidegate._core.stream cimport Stream
from tidegate._core.timer cimport Timer


cdef class Payload:
    cdef readonly bytes frame
    cdef bytes batch  # so many frames at once
    cdef Py_ssize_t frames


cdef class Load:
    cdef readonly int in_flight
    cdef readonly double rate
    cdef readonly bint fan
    cdef object on_lost
    cdef list connections
    cdef readonly Histogram latencies
    cdef readonly uint64_t sent
    cdef readonly uint64_t answered
    cdef readonly uint64_t bytes_received
    cdef readonly uint64_t unexpected
    cdef readonly bint sending

    # Nanoseconds of the monotonic clock: when it started, and what is measured.
    cdef uint64_t origin
    cdef uint64_t begins
    cdef uint64_t ends

    # Messages that are due by a rate.
    cdef Pacer pacer
    cdef uint64_t due  # so many came due, of all connections; or rounds that began
    cdef uint64_t stride  # the number of connections: from one message of a connection to its next

    # The round of a fan.
    cdef LoadConnection sender
    cdef uint64_t round_due
    cdef uint64_t missing  # deliveries until it is complete

    cdef uint64_t moment(self, uint64_t number) noexcept
    cdef int tick(self) except -1
    cdef int count(self, uint64_t since, uint64_t now) except -1
    cdef int start_round(self, uint64_t due) except -1
    cdef int delivered(self, LoadConnection connection, Py_ssize_t messages, uint64_t now) except -1
    cdef int one_less(self, uint64_t now) except -1
    cdef int lost(self, LoadConnection connection, str reason) except -1


cdef class Pacer(Timer):
    cdef Load load


cdef class LoadConnection(Scanner):
    cdef Load load
    cdef object transport
    cdef Stream stream  # the transport, if it is one of ours
    cdef object opening  # until the handshake is done
    cdef Payload payload
    cdef readonly object failure
    cdef bint closing

    # When each message that is in flight was sent, or due: a ring, from the oldest on.
    cdef uint64_t *times
    cdef int first
    cdef int flying

    # By a rate: its place among all, and how many of its messages came due and left.
    cdef uint64_t place
    cdef uint64_t due
    cdef uint64_t gone
    cdef uint64_t rounds  # of a fan, in which it has had its message

    cdef int write(self, const uint8_t *p, Py_ssize_t n, bytes owner) except -1
    cdef int write_control(self, uint8_t opcode, const uint8_t *p, Py_ssize_t n) except -1
    cdef int write_frames(self, int messages) except -1
    cdef int note(self, uint64_t since) noexcept
    cdef int send(self, int messages, uint64_t now) except -1
    cdef int send_due(self) except -1
    cdef int take(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int answer(self, Py_ssize_t messages, uint64_t now) except -1

"""Declarations of the way in: reading, turn by turn."""

from libc.stdint cimport uint8_t, uint64_t

from tidegate._core.parser cimport Parser


cdef class Channel(Parser):
    cdef uint8_t reading_paused
    cdef Py_ssize_t placed  # read into the place of a payload, and not looked at yet
    cdef uint8_t discarding  # nothing more is read: RFC 6455 sections 1.4 and 7.1.7

    # What this turn of the loop has cost by now.
    cdef uint64_t turn  # its number
    cdef double seconds
    cdef Py_ssize_t bytes_read

    cdef int work(self, double share) except -1
    cdef int take_placed(self) except -1
    cdef int settle(self, bint over) except -1
    cdef int wait_in_line(self) except -1
    cdef int pause_reading(self) except -1
    cdef bint charge(self, Py_ssize_t size, double seconds) except -1
    cdef int read_rest(self) except -1

"""A timer that is finer than the loop's."""

from libc.stdint cimport uint64_t

from tidegate._core.poller cimport Pollable


cdef class Timer(Pollable):
    cdef int arm(self, uint64_t moment) except -1
    cdef int came(self) except -1

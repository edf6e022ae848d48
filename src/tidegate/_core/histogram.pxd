"""A histogram of latencies, to be recorded into natively."""

from libc.stdint cimport uint64_t


cdef class Histogram:
    cdef uint64_t *counts
    cdef readonly uint64_t count
    cdef readonly uint64_t total
    cdef readonly uint64_t maximum
    cdef uint64_t lowest

    cdef int add(self, uint64_t value, uint64_t times) noexcept

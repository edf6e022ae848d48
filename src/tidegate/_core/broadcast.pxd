"""One message on its way to many channels, for those that have the list of them."""

cimport cython
from libc.stdint cimport uint8_t

from tidegate._core.channel cimport Channel


cdef extern from *:
    """
    #ifndef TG_FETCH
    #define TG_FETCH
    /* Have an object in the cache by the time that it is used: system calls take its place there. */
    static inline void tg_fetch(const void *object) {
        for (int i = 0; i < 3; i++) __builtin_prefetch((const char *)object + 64 * i);
    }
    #endif
    """
    void tg_fetch(const void *object) nogil


# What Cast.give() did.
cdef enum:
    SKIPPED, GIVEN, FAILED, HANDED_BACK


@cython.final
cdef class Cast:
    cdef bytes payload
    cdef Py_ssize_t size
    cdef uint8_t opcode
    cdef bytes plain  # the frame without compression
    cdef dict shared  # parameters of compression -> the frame
    cdef list failures  # (channel, exception)
    cdef int count
    cdef bint later  # the budget is used up: the backlog writes it

    @staticmethod
    cdef Cast of(uint8_t opcode, bytes payload)
    cdef int give(self, Channel channel, Py_ssize_t limit) except -1
    cdef bytes frame_for(self, Channel channel)

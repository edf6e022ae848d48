# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""A timer of an event loop that is finer than the loop's own, which has milliseconds.

What must not live here: what is to be done when it comes (load.pyx), the clock (load.h).
"""

from libc.stdint cimport uint32_t, uint64_t

from tidegate._core.poller cimport Pollable, Poller, raise_error


cdef extern from "Python.h":
    object PyContext_CopyCurrent()


cdef extern from "stream.h" nogil:
    uint32_t EPOLLIN
    int close(int descriptor)


cdef extern from "load.h" nogil:
    int tg_new_timer()
    int tg_set_timer(int descriptor, uint64_t moment)


cdef uint64_t NEVER = <uint64_t> 1 << 62  # nanoseconds


cdef class Timer(Pollable):
    """One moment at a time, from which on `came()` is called once.

    Args:
        loop: the event loop that runs.
    """

    def __init__(self, loop):
        cdef int descriptor = tg_new_timer()
        if descriptor < 0:
            raise_error(descriptor)
        self.descriptor, self.context = descriptor, PyContext_CopyCurrent()
        self.poller = Poller.of(loop)
        self.poller.watch(self, EPOLLIN)

    def __dealloc__(self):
        if self.descriptor >= 0:
            close(self.descriptor)

    def stop(self):
        """End; it cannot be set any more."""
        cdef int descriptor = self.descriptor
        if descriptor >= 0:
            self.poller.forget(self)
            close(descriptor)

    cdef int arm(self, uint64_t moment) except -1:
        """Set the moment, in nanoseconds of the monotonic clock; one that is past comes in the next turn."""
        cdef int error = tg_set_timer(self.descriptor, moment)
        return raise_error(error) if error < 0 else 0

    cdef int came(self) except -1:
        """The moment is there."""
        raise NotImplementedError

    cdef int on_ready(self, uint32_t events) except -1:
        tg_set_timer(self.descriptor, NEVER)
        return self.came()

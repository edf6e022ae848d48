"""Declarations of the future-like object that a reading task waits on."""

from tidegate._core.turns cimport TurnTaker


cdef class Waiter(TurnTaker):
    cdef public bint _asyncio_future_blocking
    cdef readonly object _loop
    cdef object callback
    cdef object context
    cdef bint is_done
    cdef bint is_cancelled
    cdef object cancel_message

    @staticmethod
    cdef Waiter of(object loop)
    cdef int arm(self) except -1
    cdef int finish(self, bint direct) except -1

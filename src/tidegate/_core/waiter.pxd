"""Declarations of what a reading task waits on."""

from cpython.object cimport PyObject

from tidegate._core.turns cimport TurnTaker


cdef class Waiter(TurnTaker):
    cdef object loop
    cdef object future  # that a task waits for; None if it is to be a new one

    @staticmethod
    cdef Waiter of(object loop)
    cdef PyObject *arm(self) except NULL
    cdef int finish(self, bint direct) except -1

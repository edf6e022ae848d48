"""Declarations of fair turns on one event loop: the budget, and the line of connections and tasks that have used theirs up."""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t


cdef extern from "turns.h" nogil:
    const uint64_t TG_GLANCE
    uint64_t tg_ticks()


cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident()


# Bytes that are read from one connection in a turn.
cdef enum:
    TURN_BYTES = 1 << 19

# Seconds of one connection's work in a turn.
cdef double TURN_SECONDS


cdef PyObject *running_task(object loop) except? NULL


cdef class TurnTaker:
    cdef bint in_line

    cdef int take_turn(self, double share) except -1
    cdef int fail_turn(self, object exception) except -1


cdef class Turns:
    cdef readonly object loop
    cdef object __weakref__
    cdef object line  # deque of TurnTaker
    cdef unsigned long thread  # that runs the loop
    cdef object backlog  # of broadcasts: broadcast.pyx makes it
    cdef uint64_t number  # of the loop's turns, counted only if mark() was called in the turn
    cdef bint marked  # the loop will call _end_turn()
    cdef uint64_t glanced  # tg_ticks() when the clock was last asked
    cdef double until  # when the present budget is used up
    cdef int callbacks  # read callbacks on the stack: they set `until`, else a task's step does
    cdef PyObject *task  # whose step that is, borrowed, only to be compared
    cdef uint64_t task_turn

    @staticmethod
    cdef Turns of(object loop)
    cdef int look(self) except -1
    cdef int mark(self) except -1
    cdef int join(self, TurnTaker taker) except -1
    cdef int fail(self, TurnTaker taker, object exception) except -1

    cdef inline int used_up(self) except -1:
        """Return whether the budget of the connection or task that runs now is used up."""
        cdef uint64_t now = tg_ticks()
        if now - self.glanced < TG_GLANCE:
            return 0
        self.glanced = now
        return self.look()

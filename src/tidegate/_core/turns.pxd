"""Fair turns on one event loop: the budget, the line of those who have used theirs up."""

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
    """What can wait in the line: a connection with work left, or a task that has yielded."""

    cdef bint in_line

    cdef int take_turn(self, double share) except -1
    cdef int fail_turn(self, object exception) except -1


cdef class Turns:
    cdef readonly object loop
    cdef object __weakref__
    cdef object line  # deque of TurnTaker
    cdef unsigned long thread  # that runs the loop
    cdef uint64_t number  # of the loop's turns, as far as somebody asked for their count
    cdef bint marked  # the loop will call end_turn()
    cdef uint64_t glanced  # tg_ticks() when the clock was last asked
    cdef double until  # when the present budget is used up
    cdef int callbacks  # read callbacks on the stack: they set `until`, else a task's step does
    cdef PyObject *task  # whose step that is, borrowed, never used but compared
    cdef uint64_t task_turn

    @staticmethod
    cdef Turns of(object loop)
    cdef int look(self) except -1
    cdef int mark(self) except -1
    cdef int join(self, TurnTaker taker) except -1
    cdef int fail(self, TurnTaker taker, object exception) except -1

    cdef inline int used_up(self) except -1:
        """Whether the budget of whatever runs now is used up."""
        cdef uint64_t now = tg_ticks()
        if now - self.glanced < TG_GLANCE:
            return 0
        self.glanced = now
        return self.look()

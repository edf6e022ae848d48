# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""Fair turns: how much one connection may do in a turn of the event loop before the others have theirs.

    seconds, set_seconds   the budget of a turn in seconds, and how measurements change it
    BYTES                  the budget of a turn in bytes that are read from one connection

A connection's bytes are parsed, inflated and handled within the read callback that brings them, so that a peer decides how
much there is to do. This is the bound: `TURN_SECONDS` of work and `TURN_BYTES` of input for a connection in a turn, and the
same time for a task that sends or receives without having to wait. A connection or task that has used it up gets into line;
the loop serves the line once a turn, from its front, for `TURN_SECONDS` in total, however long the line is.

Why 0.5 ms, measured with one attacker and a steady echo beside it: the echo's p99 goes from 0.4 ms to about 1; with 1 ms to
2; with 0.05 ms, the loop would spend a tenth of its time on its own iterations. A large message is inflated and compressed
in pieces (deflate.pyx), and a broadcast is written to its members over several turns (broadcast.pyx); what a handler does
is never divided.

What must not live here: what is done in a turn.
"""

import sys
from asyncio import current_task as current_task_of
from asyncio import tasks as asyncio_tasks
from collections import deque
from weakref import WeakValueDictionary

from cpython.dict cimport PyDict_GetItem

from tidegate._core.counters cimport tg_now

TURN_SECONDS = 0.0005
BYTES = TURN_BYTES  # for Python

# Up to 3.13 the running task of each loop is in this dictionary; a look costs a tenth of calling current_task().
cdef dict current_tasks = asyncio_tasks._current_tasks if sys.version_info < (3, 14) else None

# Turns by the id of their loop, and the last one that was asked for.
cdef object by_loop = WeakValueDictionary()
cdef PyObject *latest = NULL


cdef PyObject *running_task(object loop) except? NULL:
    """Return the task whose step runs now on `loop`, borrowed; NULL if none does."""
    if current_tasks is None:
        task = current_task_of(loop)
        return NULL if task is None else <PyObject *> task
    cdef PyObject *found = PyDict_GetItem(current_tasks, loop)
    return NULL if found is NULL or <object> found is None else found


def seconds():
    """Return the budget of a turn, in seconds."""
    return TURN_SECONDS


def set_seconds(double seconds):
    """Set the budget of a turn: for measurements, whose results must not depend on the clock."""
    global TURN_SECONDS
    TURN_SECONDS = seconds


def _raise(exception):
    """Raise it, in a callback of the loop."""
    raise exception


cdef class TurnTaker:
    """What can wait in the line: a connection with work left, or a task that has yielded."""

    cdef int take_turn(self, double share) except -1:
        """Go on for about `share` seconds."""
        raise NotImplementedError

    cdef int fail_turn(self, object exception) except -1:
        """Report an exception of take_turn(); others in the line go on."""
        raise exception


cdef class Turns:
    """The line of one event loop. It exists as long as a connection of that loop does."""

    def __dealloc__(self):
        global latest
        if latest is <PyObject *> self:
            latest = NULL

    @staticmethod
    cdef Turns of(object loop):
        """Return the line of a loop."""
        global latest
        cdef Turns turns
        if latest is not NULL and (<Turns> latest).loop is loop:
            return <Turns> latest
        turns = by_loop.get(id(loop))
        if turns is None:
            turns = Turns.__new__(Turns)
            turns.loop = loop
            turns.line = deque()
            turns.number = 1
            turns.thread = PyThread_get_thread_ident()
            by_loop[id(loop)] = turns
        latest = <PyObject *> turns
        return turns

    cdef int look(self) except -1:
        """Do what used_up() does, by the clock."""
        cdef double now = tg_now()
        cdef PyObject *task
        if self.callbacks == 0:
            task = running_task(self.loop)
            if task is not self.task or self.number != self.task_turn:
                # A step that begins, with a budget of its own. The mark tells whether the same task runs in another turn.
                self.mark()
                self.task = task
                self.task_turn = self.number
                self.until = now + TURN_SECONDS
                return 0
        if now <= self.until:
            return 0
        self.glanced -= TG_GLANCE  # the next call asks the clock again
        return 1

    cdef int mark(self) except -1:
        """Have the loop call _end_turn() at the end of this turn."""
        if not self.marked:
            self.loop.call_soon(self._end_turn)
            self.marked = True
        return 0

    cdef int join(self, TurnTaker taker) except -1:
        """Put a connection or a waiter at the end of the line."""
        if not taker.in_line:
            self.mark()
            self.line.append(taker)
            taker.in_line = True
        return 0

    def _end_turn(self):
        """Serve the line: the loop calls it when all others have had their turn."""
        cdef TurnTaker taker
        cdef double end = tg_now() + TURN_SECONDS
        cdef Py_ssize_t waiting = len(self.line)
        self.marked = False
        self.number += 1
        self.thread = PyThread_get_thread_ident()
        if waiting == 0:
            return
        self.mark()  # before anything can fail, for those that stay or come back in line
        while waiting and self.line:  # a nested loop may serve the line as well
            taker = self.line.popleft()
            taker.in_line = False
            try:
                taker.take_turn(TURN_SECONDS / (waiting if waiting < 8 else 8))
            except BaseException as exc:
                self.fail(taker, exc)
            waiting -= 1
            if tg_now() >= end:
                break

    cdef int fail(self, TurnTaker taker, object exception) except -1:
        """Report an exception, so that the line is served on."""
        if not isinstance(exception, Exception):
            self.loop.call_soon(_raise, exception)  # KeyboardInterrupt, SystemExit: they end the loop, not the line
            return 0
        try:
            taker.fail_turn(exception)
        except Exception as exc:
            self.loop.call_exception_handler({"message": "a connection could not go on", "exception": exc})
        return 0

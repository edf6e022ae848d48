# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""What a reading task waits on, and how it is woken: inside the read callback, by C calls.

The task waits for a future of asyncio's own, whose waiting costs a third of that of another object. The future is never
done when the task is woken at once: its callback is taken from it and called, and it is waited for again. What must not
live here: anything about frames or messages.
"""

import _asyncio

cimport cython
from cpython.ref cimport Py_INCREF

from tidegate._core.turns cimport TurnTaker, running_task


cdef extern from "Python.h":
    int PyContext_Enter(object context)
    int PyContext_Exit(object context)
    void PyErr_Clear()
    bint PyMethod_Check(object o)


cdef extern from "waiter.h":
    int tg_know_futures(object type) except -1
    int tg_set_blocking(object future) except -1
    object tg_callbacks(object future)
    object tg_remove_callback(object future, object callback)


cdef object Future = _asyncio.Future  # nest_asyncio replaces that of asyncio
tg_know_futures(Future)


class _NoLoop:
    """The loop of a future that is done from the start."""

    def get_debug(self):
        return False


# What the callback of a task is given: a Future whose result Task reads without calling a method.
cdef object woken = Future(loop=_NoLoop())
woken.set_result(None)


def _raise(exception):
    """Raise it, in a callback of the loop."""
    raise exception


@cython.final
cdef class Waiter(TurnTaker):
    """Wakes a task: one for each connection, used again."""

    @staticmethod
    cdef Waiter of(object loop):
        """Make the waiter of a loop."""
        cdef Waiter waiter = Waiter.__new__(Waiter)
        waiter.loop = loop
        return waiter

    cdef PyObject *arm(self) except NULL:
        """Return a new reference to a future that is pending, to be yielded to a task."""
        if self.future is None:
            self.future = Future(loop=self.loop)
        tg_set_blocking(self.future)
        Py_INCREF(self.future)
        return <PyObject *> self.future

    cdef int finish(self, bint direct) except -1:
        """Wake the task: right here, if `direct` and the loop is in a callback and not in a task; else soon.

        The callback of a task that is written in Python is a method, and run soon: nest_asyncio uses such tasks, and its
        nested loops cannot run the read callback that is still running.
        """
        cdef object future = self.future
        cdef object callback, context
        if future is None:
            return 0
        cdef object callbacks = tg_callbacks(future)
        if callbacks is None:
            return 0
        callback, context = <tuple> (<list> callbacks)[0]
        if direct and len(<list> callbacks) == 1 and not PyMethod_Check(callback) and running_task(self.loop) is NULL:
            if PyContext_Enter(context) == 0:
                try:
                    tg_remove_callback(future, callback)
                    callback(woken)
                except BaseException as exc:
                    # KeyboardInterrupt and SystemExit end the loop, where a transport would swallow them.
                    self.loop.call_soon(_raise, exc)
                finally:
                    PyContext_Exit(context)
                return 0
            PyErr_Clear()  # already entered: other code runs in the task's context
        self.future = None
        future.set_result(None)
        return 0

    cdef int take_turn(self, double share) except -1:
        """Wake the task, which has yielded its turn."""
        return self.finish(True)

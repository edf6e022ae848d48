# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""The future that a reading task waits on, and how it is woken: inside the read callback, by C calls.

What must not live here: anything about frames or messages.
"""

import asyncio
from asyncio import CancelledError, InvalidStateError

cimport cython

from tidegate._core.turns cimport TurnTaker, running_task


cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context)
    int PyContext_Exit(object context)
    void PyErr_Clear()
    bint PyMethod_Check(object o)


class _NoLoop:
    """The loop of a future that is done from the start."""

    def get_debug(self):
        return False


# What the callback of a task is given: a real Future, whose result Task reads without calling a method.
cdef object woken = asyncio.Future(loop=_NoLoop())
woken.set_result(None)


def _raise(exception):
    """Raise it, in a callback of the loop."""
    raise exception


@cython.final
cdef class Waiter(TurnTaker):
    """The future that a reading task waits on: one for each connection, used again, with what asyncio.Task needs.

    It has a plain slot `_loop` and no method `get_loop`: Task looks for either, and a slot is faster.
    """

    @staticmethod
    cdef Waiter of(object loop):
        """Make the waiter of a loop."""
        cdef Waiter waiter = Waiter.__new__(Waiter)
        waiter._loop = loop
        return waiter

    cdef int arm(self) except -1:
        """Become pending, to be yielded to a task."""
        self.is_done = self.is_cancelled = False
        self.callback = self.context = None  # of a task that was dropped while it waited
        self._asyncio_future_blocking = True
        return 0

    def done(self):
        """Return whether it is done."""
        return self.is_done

    def cancelled(self):
        """Return whether it was cancelled."""
        return self.is_cancelled

    def result(self):
        """Return None, or raise CancelledError."""
        if self.is_cancelled:
            raise CancelledError() if self.cancel_message is None else CancelledError(self.cancel_message)
        if not self.is_done:
            raise InvalidStateError("Result is not set.")
        return None

    def exception(self):
        """Return None, or raise CancelledError."""
        self.result()
        return None

    def add_done_callback(self, callback, *, context=None):
        """Set the callback: there is one, of the task that waits."""
        if context is None:
            context = PyContext_CopyCurrent()
        if self.is_done:
            self._loop.call_soon(callback, self, context=context)
            return
        if self.callback is not None:
            raise InvalidStateError("recv() has one task waiting")
        self.callback = callback
        self.context = context

    def remove_done_callback(self, callback):
        """Remove the callback. Return how many were removed."""
        if self.callback is None or self.callback != callback:
            return 0
        self.callback = self.context = None
        return 1

    def cancel(self, msg=None):
        """Cancel it, and run the callback soon. Return whether it was pending."""
        if self.is_done:
            return False
        self.is_cancelled = True
        self.cancel_message = msg
        self.finish(False)
        return True

    cdef int finish(self, bint direct) except -1:
        """Run the callback: right here, if `direct` and the loop is in a callback and not in a task; else soon.

        The callback of a task that is written in Python is a method, and run soon: nest_asyncio uses such tasks, and its
        nested loops cannot run the read callback that is still running.
        """
        cdef object callback = self.callback
        cdef object context = self.context
        if self.is_done:
            return 0
        self.is_done = True
        if callback is None:
            return 0
        self.callback = self.context = None
        if direct and not PyMethod_Check(callback) and running_task(self._loop) is NULL:
            if PyContext_Enter(context) == 0:
                try:
                    callback(woken)
                except BaseException as exc:
                    # KeyboardInterrupt and SystemExit end the loop, where a transport would swallow them.
                    self._loop.call_soon(_raise, exc)
                finally:
                    PyContext_Exit(context)
                return 0
            PyErr_Clear()  # already entered: other code runs in the task's context
        self._loop.call_soon(callback, self, context=context)
        return 0

    cdef int take_turn(self, double share) except -1:
        """Wake the task, which has yielded its turn."""
        return self.finish(True)

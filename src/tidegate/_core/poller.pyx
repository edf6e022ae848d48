# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""One epoll set per event loop, which the loop watches as it does any descriptor: so it is at home on uvloop and asyncio.

The loop finds the set readable and calls it; it looks once, takes what is ready, and has each member work for its turn.
Edge-triggered: the kernel says once that a stream has become readable or writable, and is told nothing when reading pauses
or goes on; a member that has left something comes back in the next turn, after all others (level-triggered, the kernel looks
at each socket a second time). A member that leaves during a look is kept until that ends, for its events may still be
ahead; its descriptor is -1, by which they are known to be void.

What must not live here: what a member does (stream.pyx, listener.pyx).
"""

import os
from asyncio import BaseEventLoop
from collections import deque
from weakref import WeakValueDictionary

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t


cdef extern from "Python.h":
    int PyContext_Enter(object context)
    int PyContext_Exit(object context)
    object PyContext_Copy(object context)
    void PyErr_Clear()


cdef extern from "stream.h" nogil:
    int tg_new_set()
    int close(int descriptor)
    int tg_watch(int set, int descriptor, uint32_t events, void *data)
    int tg_wait(int set, epoll_event *events)


# Bytes that one read brings at most: it fits the cache, and parsing that much is about a turn's work.
cdef enum:
    READ = 1 << 17

# Pollers by the id of their loop, and the one that was asked for last.
cdef object by_loop = WeakValueDictionary()
cdef PyObject *latest = NULL


cdef int raise_error(Py_ssize_t error) except -1:
    """Raise what a system call returned as minus errno."""
    raise OSError(-error, os.strerror(-error))


def _raise(exception):
    raise exception


cdef object enter_context(object context):
    """Enter a context and return it; if it is entered already, by whatever runs this nested loop, a copy."""
    if PyContext_Enter(context) != 0:
        PyErr_Clear()
        context = PyContext_Copy(context)
        PyContext_Enter(context)
    return context


cdef class Pollable:
    def __cinit__(self):
        self.descriptor = -1

    cdef int on_ready(self, uint32_t events) except -1:
        """Called in a turn of the loop when the descriptor is ready; raises only what is to end the loop."""
        raise NotImplementedError

    cdef int go_on(self) except -1:
        """Called in the turn after `Poller.again()`."""
        raise NotImplementedError

    cdef int enter(self, uint32_t events) except -1:
        """Call on_ready(), or go_on() without events, in the context."""
        cdef object context = enter_context(self.context)
        try:
            if events:
                self.on_ready(events)
            else:
                self.go_on()
        finally:
            PyContext_Exit(context)
        return 0


cdef class Poller:
    """The epoll set of one event loop; there as long as it has members."""

    @staticmethod
    cdef Poller of(object loop):
        global latest
        cdef Poller poller
        if latest is not NULL and (<Poller> latest).loop is loop:
            return <Poller> latest
        poller = by_loop.get(id(loop))
        if poller is None:
            poller = Poller.__new__(Poller)
            poller.loop = loop
            poller.descriptor = -1
            poller.members = set()
            poller.gone = []
            poller.line = deque()
            poller.nests = isinstance(loop, BaseEventLoop)  # if it is patched so; uvloop's cannot be
            by_loop[id(loop)] = poller
        latest = <PyObject *> poller
        return poller

    def __dealloc__(self):
        global latest
        if latest is <PyObject *> self:
            latest = NULL
        if self.descriptor >= 0:
            close(self.descriptor)

    cdef int begin(self) except -1:
        cdef int descriptor = tg_new_set()
        if descriptor < 0:
            raise_error(descriptor)
        self.descriptor = descriptor
        self.loop.add_reader(descriptor, self)
        return 0

    cdef int end(self) except -1:
        """Close the set, which has no members."""
        cdef int descriptor = self.descriptor
        self.descriptor = -1
        if not self.loop.is_closed():
            self.loop.remove_reader(descriptor)
        close(descriptor)
        return 0

    cdef int watch(self, Pollable pollable, uint32_t events) except -1:
        """Have `events` of a new member reported."""
        cdef int error
        if self.descriptor < 0:
            self.begin()
        error = tg_watch(self.descriptor, pollable.descriptor, events, <void *> pollable)
        if error < 0:
            if not self.members:
                self.end()
            raise_error(error)
        pollable.watched = True
        self.members.add(pollable)
        return 0

    cdef int forget(self, Pollable pollable) except -1:
        """The member is about to close its descriptor."""
        if pollable.watched:
            tg_watch(self.descriptor, pollable.descriptor, 0, NULL)
            pollable.watched = False
            if self.look is not NULL:
                self.gone.append(pollable)
            self.members.discard(pollable)
            if not self.members:
                self.end()
        pollable.descriptor = -1
        return 0

    cdef int again(self, Pollable pollable) except -1:
        """Have the member go on in the next turn."""
        if not pollable.in_line:
            self.mark()
            pollable.in_line = True
            self.line.append(pollable)
        return 0

    cdef int mark(self) except -1:
        if not self.marked:
            self.loop.call_soon(self._next_turn)
            self.marked = True
        return 0

    def _next_turn(self):
        """Called by the loop when all others have had their turn."""
        cdef Pollable pollable
        cdef Py_ssize_t waiting = len(self.line)
        self.marked = False
        if waiting > 1 and self.nests:
            self.mark()  # should the first of them run a nested loop, that serves the others
        while waiting and self.line:
            pollable = self.line.popleft()
            pollable.in_line = False
            waiting -= 1
            if pollable.descriptor >= 0:
                self.work(pollable, 0)

    def __call__(self):
        """Called by the loop when something is ready."""
        cdef Look look
        look.next, look.count, look.outer = 0, tg_wait(self.descriptor, look.events), self.look
        self.look = &look
        try:
            if look.count > 1 and self.nests:
                self.loop.call_soon(self._rest)
            self.serve(&look)
        finally:
            self.look = look.outer
            if self.look is NULL and self.gone:
                self.gone.clear()

    def _rest(self):
        """Called in a nested loop: serve those whose events the loops around it have taken, as the kernel tells them once."""
        cdef Look *look = self.look
        while look is not NULL and look.next >= look.count:
            look = look.outer
        if look is not NULL:
            self.loop.call_soon(self._rest)
            self.serve(look)

    cdef int serve(self, Look *look) except -1:
        """Have those work that are ready and have not worked yet."""
        cdef Pollable pollable
        cdef int i
        while look.next < look.count:
            i = look.next
            look.next += 1
            pollable = <Pollable> look.events[i].data.ptr
            if pollable.descriptor >= 0:
                self.work(pollable, look.events[i].events)
        return 0

    cdef int work(self, Pollable pollable, uint32_t events) except -1:
        """enter(); what is to end the loop ends it when the others have worked, whose events will not come again."""
        try:
            pollable.enter(events)
        except BaseException as exc:
            self.loop.call_soon(_raise, exc)
        return 0

    cdef bytes lend(self):
        """Return the buffer to read into; a new one if it is lent already, by a look whose event loop has another in it."""
        cdef bytes buffer = self.spare
        self.spare = None
        return PyBytes_FromStringAndSize(NULL, READ) if buffer is None else buffer

    cdef int give_back(self, bytes buffer) except -1:
        self.spare = buffer
        return 0

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
    const int TG_EVENTS
    ctypedef union epoll_data_t:
        void *ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data
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
        cdef object context = self.context
        if PyContext_Enter(context) != 0:  # entered already, by whatever runs this nested loop
            PyErr_Clear()
            context = PyContext_Copy(context)
            PyContext_Enter(context)
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
            poller.line = []
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
        """Nobody is left."""
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
            raise_error(error)
        pollable.watched = True
        self.members.add(pollable)
        return 0

    cdef int forget(self, Pollable pollable) except -1:
        """The member is about to close its descriptor."""
        if pollable.watched:
            tg_watch(self.descriptor, pollable.descriptor, 0, NULL)
            pollable.watched = False
            if self.depth:
                self.gone.append(pollable)
            self.members.discard(pollable)
            if not self.members:
                self.end()
        pollable.descriptor = -1
        return 0

    cdef int again(self, Pollable pollable) except -1:
        """Have the member go on in the next turn."""
        if not pollable.in_line:
            if not self.line:
                self.loop.call_soon(self._next_turn)
            pollable.in_line = True
            self.line.append(pollable)
        return 0

    def _next_turn(self):
        cdef list line = self.line
        cdef Pollable pollable
        self.line = []
        for pollable in line:
            pollable.in_line = False
            if pollable.descriptor >= 0:
                pollable.enter(0)

    def __call__(self):
        """Called by the loop when something is ready."""
        cdef epoll_event events[256]
        cdef Pollable pollable
        cdef int i, n = tg_wait(self.descriptor, events) if self.descriptor >= 0 else 0
        self.depth += 1
        try:
            for i in range(n):
                pollable = <Pollable> events[i].data.ptr
                if pollable.descriptor >= 0:
                    pollable.enter(events[i].events)
        finally:
            self.depth -= 1
            if self.depth == 0 and self.gone:
                self.gone.clear()

    cdef bytes lend(self):
        """The buffer to read into; in a nested event loop it may be with somebody, who gets to keep it."""
        cdef bytes buffer = self.spare
        self.spare = None
        return PyBytes_FromStringAndSize(NULL, READ) if buffer is None else buffer

    cdef int give_back(self, bytes buffer) except -1:
        self.spare = buffer
        return 0

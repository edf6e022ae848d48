"""The set of descriptors of one event loop, and what is in it."""

from libc.stdint cimport uint32_t


cdef extern from "stream.h" nogil:
    ctypedef union epoll_data_t:
        void *ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data


cdef int raise_error(Py_ssize_t error) except -1
cdef object enter_context(object context)


cdef struct Look:
    epoll_event events[256]
    int next
    int count
    Look *outer  # of the event loop that this one is nested in


cdef class Pollable:
    """What has a descriptor that becomes ready."""

    cdef int descriptor  # -1: none any more
    cdef Poller poller
    cdef object context  # that its callbacks run in

    cdef bint watched  # by the kernel
    cdef bint in_line  # it has more to do in the next turn

    cdef int on_ready(self, uint32_t events) except -1
    cdef int go_on(self) except -1
    cdef int enter(self, uint32_t events) except -1


cdef class Poller:
    cdef readonly object loop
    cdef object __weakref__
    cdef int descriptor  # of the epoll set; -1 while it has no members
    cdef set members
    cdef list gone  # members that have left during the present look, whose events may still be in it
    cdef object line  # deque of members with more to do in the next turn
    cdef bint marked  # the loop will call _next_turn()
    cdef bint nests  # the event loop may run within a callback of its own
    cdef Look *look  # the innermost on the stack; there is another in a nested event loop
    cdef bytes spare  # the read buffer, while it is not lent

    @staticmethod
    cdef Poller of(object loop)
    cdef int begin(self) except -1
    cdef int end(self) except -1
    cdef int watch(self, Pollable pollable, uint32_t events) except -1
    cdef int serve(self, Look *look) except -1
    cdef int work(self, Pollable pollable, uint32_t events) except -1
    cdef int mark(self) except -1
    cdef int again(self, Pollable pollable) except -1
    cdef int forget(self, Pollable pollable) except -1
    cdef bytes lend(self)
    cdef int give_back(self, bytes buffer) except -1

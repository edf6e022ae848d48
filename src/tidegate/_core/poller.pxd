"""The set of descriptors of one event loop, and what is in it."""

from libc.stdint cimport uint32_t


cdef int raise_error(Py_ssize_t error) except -1


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
    cdef list line  # members with more to do in the next turn
    cdef int depth  # looks on the stack: more than one in a nested event loop
    cdef bytes spare  # the read buffer, while nobody has it

    @staticmethod
    cdef Poller of(object loop)
    cdef int begin(self) except -1
    cdef int end(self) except -1
    cdef int watch(self, Pollable pollable, uint32_t events) except -1
    cdef int again(self, Pollable pollable) except -1
    cdef int forget(self, Pollable pollable) except -1
    cdef bytes lend(self)
    cdef int give_back(self, bytes buffer) except -1

"""Listening sockets whose connections are streams."""

from tidegate._core.poller cimport Pollable
from tidegate._core.stream cimport tg_address


cdef class Listener(Pollable):
    cdef readonly object loop
    cdef readonly object sock  # whose descriptor it is
    cdef object factory
    cdef int family
    cdef int batch  # connections that are accepted in a turn
    cdef bint resting  # until the system may have descriptors again

    cdef int made(self, int descriptor, tg_address *peer) except -1
    cdef int refused(self, int error) except -1

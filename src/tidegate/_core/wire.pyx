# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, binding=False, auto_pickle=False
"""Masking keys (RFC 6455 section 5.3), and the module that declares bytes.h to native code (wire.pxd).

What must not live here: state of a connection, I/O, anything that Python calls.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport memcpy


cdef uint8_t key_pool[4096]
cdef int key_pool_left = 0


cdef int new_key(uint8_t *key) except -1:
    """Store a masking key that cannot be predicted (RFC 6455 section 10.3); the system is asked for 1,024 at a time."""
    global key_pool_left
    cdef bytes drawn
    if key_pool_left == 0:
        drawn = os.urandom(sizeof(key_pool))
        memcpy(key_pool, PyBytes_AS_STRING(drawn), sizeof(key_pool))
        key_pool_left = sizeof(key_pool)
    key_pool_left -= 4
    memcpy(key, key_pool + key_pool_left, 4)
    return 0


def _forget_keys():
    """Forget the keys that were drawn: a forked child must not repeat its parent's."""
    global key_pool_left
    key_pool_left = 0


os.register_at_fork(after_in_child=_forget_keys)

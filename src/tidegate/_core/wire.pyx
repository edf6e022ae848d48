# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, binding=False, auto_pickle=False
"""Bytes to frames and back, as Python sees them: header, mask, UTF-8 (RFC 6455 sections 5.2, 5.3, 8.1).

`frames` and the tests call these; the hot path (channel) uses the same C directly. What must not live here: state of a
connection, I/O.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy


cdef uint8_t key_pool[4096]
cdef int key_pool_left = 0


cdef int new_key(uint8_t *key) except -1:
    """A masking key that cannot be predicted (RFC 6455 10.3), drawn from the system 1,024 at a time."""
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
    global key_pool_left
    key_pool_left = 0


# A forked child must not repeat its parent's keys.
os.register_at_fork(after_in_child=_forget_keys)


def apply_mask(data, mask) -> bytes:
    """Mask or unmask `data` (bytes-like) with the 4-byte `mask` (RFC 6455 5.3). Raises ValueError for another length."""
    cdef Py_buffer source
    cdef bytes key = bytes(mask)
    if len(key) != 4:
        raise ValueError(f"mask must have 4 bytes, not {len(key)}")
    PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
    try:
        result = PyBytes_FromStringAndSize(NULL, source.len)
        tg_unmask(
            <uint8_t *> PyBytes_AS_STRING(result), <const uint8_t *> source.buf, source.len,
            <const uint8_t *> PyBytes_AS_STRING(key), 0,
        )
        return result
    finally:
        PyBuffer_Release(&source)


def parse_header(const uint8_t[::1] data not None):
    """Read one frame header: `(size, first byte, masked, length, key)`, or None while bytes are missing."""
    cdef tg_frame header
    cdef size_t size = 0
    if data.shape[0] >= 2:
        size = tg_parse_header(&data[0], data.shape[0], &header)
    if size == 0:
        return None
    key = (<const char *> header.key)[:4] if header.masked else b""
    return size, header.fin << 7 | header.rsv << 4 | header.opcode, bool(header.masked), header.length, key


def build_header(uint8_t first, uint64_t length, bytes key=b"") -> bytes:
    """Write the header of a frame whose first byte (FIN, RSV, opcode) is `first`, masked if there is a 4-byte `key`."""
    cdef uint8_t header[14]
    if key and len(key) != 4:
        raise ValueError(f"key must have 4 bytes, not {len(key)}")
    cdef size_t size = tg_build_header(header, first, length, len(key))
    head = (<const char *> header)[:size - len(key)]
    return head + key


cdef class Utf8Validator:
    """Checks a text that comes in pieces, as early as its bytes allow (RFC 6455 8.1)."""

    cdef tg_utf8 state

    def check(self, const uint8_t[::1] data not None) -> bool:
        """Whether `data` may go on the text; False for good once it cannot."""
        if self.state.due == 255:
            return False
        if data.shape[0] and not tg_utf8_check(&self.state, &data[0], data.shape[0]):
            self.state.due = 255  # more than can ever be due: stays invalid
        return self.state.due != 255

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return self.state.due == 0

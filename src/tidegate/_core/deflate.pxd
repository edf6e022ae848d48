"""Declarations of the compression of one connection's messages."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t


# A message larger than this is compressed in pieces of this size.
cdef enum:
    COMPRESSED_AT_ONCE = 1 << 14


cdef class Compression
cdef class Inflation


cdef class Deflate:
    # Parameters of RFC 7692 section 7.1, as they concern this side.
    cdef readonly bint remote_no_context_takeover
    cdef readonly bint local_no_context_takeover
    cdef readonly int remote_max_window_bits
    cdef readonly int local_max_window_bits
    cdef readonly dict compress_settings

    cdef object compressor  # None until something is sent, and after release()
    cdef object decompressor  # None until something is received
    cdef readonly bint in_message  # in the middle of a compressed message that comes in
    cdef bint in_bytes  # of which a byte has come
    cdef bint busy  # something was sent since rest()
    cdef readonly bint out_message  # in the middle of one that goes out

    cdef object need_compressor(self)
    cpdef bytes compress(self, object data, bint fin=*)
    cpdef bytes decompress(self, object data, bint fin, Py_ssize_t limit)
    cdef Compression compression(self, bytes data)
    cdef Inflation inflation(self, bytes data, bint fin, Py_ssize_t limit)
    cpdef rest(self)
    cpdef release(self)


cdef class Compression:
    cdef Deflate deflate
    cdef bytes message
    cdef uint8_t opcode  # of the message, for the writer
    cdef PyObject *sender  # the Awaitable that sends it, borrowed: it clears this when it ends
    cdef Py_ssize_t at
    cdef list pieces

    cdef bytes proceed(self)
    cdef int give_up(self) except -1


cdef class Inflation:
    cdef Deflate deflate
    cdef bytes source  # what the peer sent
    cdef Py_ssize_t at
    cdef bytes unconsumed  # of what was given to the decompressor
    cdef list pieces
    cdef Py_ssize_t size  # of them
    cdef Py_ssize_t limit
    cdef bint fin
    cdef int streams  # after the first

    cdef bytes proceed(self)
    cdef bytes next_source(self)
    cdef bytes next_stream(self)

"""Compression of one connection's messages."""


cdef class Deflate:
    # Parameters of RFC 7692 7.1, as they concern this side.
    cdef readonly bint remote_no_context_takeover
    cdef readonly bint local_no_context_takeover
    cdef readonly int remote_max_window_bits
    cdef readonly int local_max_window_bits
    cdef readonly dict compress_settings

    cdef object compressor  # None until something is sent, and after release()
    cdef object decompressor  # None until something is received
    cdef readonly bint in_message  # in the middle of a compressed message that comes in
    cdef bint in_bytes  # which has had a byte
    cdef bint busy  # something was sent since rest()
    cdef readonly bint out_message  # in the middle of one that goes out

    cpdef bytes compress(self, object data, bint fin=*)
    cpdef bytes decompress(self, object data, bint fin, Py_ssize_t limit)
    cdef bytes inflate(self, bytes data, Py_ssize_t limit)
    cpdef rest(self)
    cpdef release(self)

"""Declarations of bytes.h for native code: frame headers, masking, UTF-8; and masking keys."""

from libc.stdint cimport uint8_t, uint64_t


cdef extern from "bytes.h" nogil:
    const int TG_HEADER_MAX

    ctypedef struct tg_frame:
        uint64_t length
        uint8_t opcode
        uint8_t fin
        uint8_t rsv
        uint8_t masked
        uint8_t key[4]

    ctypedef struct tg_utf8:
        uint8_t due
        uint8_t low
        uint8_t high

    size_t tg_parse_header(const uint8_t *p, size_t n, tg_frame *h)
    size_t tg_build_header(uint8_t *p, uint8_t first, uint64_t length, int masked)
    uint8_t tg_unmask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *key, size_t phase)
    uint8_t tg_copy_bytes(uint8_t *dst, const uint8_t *src, size_t n)
    int tg_utf8_check(tg_utf8 *s, const uint8_t *p, size_t n)


cdef int new_key(uint8_t *key) except -1

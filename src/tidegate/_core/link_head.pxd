"""Declarations of a frame's head on the links of the hub, for native code."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "link.h" nogil:
    enum:
        TG_LINK_PAYLOAD
        TG_LINK_PUBLISH
        TG_LINK_MESSAGE
        TG_LINK_STORED
        TG_LINK_REFUSED
        TG_LINK_LOST
        TG_LINK_TROUBLE
        TG_LINK_IS_STORED
        TG_LINK_ECHO
        TG_LINK_KEYED

    ctypedef struct tg_link_head:
        uint32_t length
        uint8_t kind
        uint8_t flags
        uint16_t zero
        uint32_t channel
        uint32_t publisher
        uint64_t offset
        uint64_t time
        uint64_t sequence

    ctypedef struct tg_link_stored:
        uint64_t sequence
        uint64_t epoch
        uint64_t offset

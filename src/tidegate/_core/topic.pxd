"""Declarations of a channel in the hub: where its messages are in the journal, and who is subscribed to it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "journal.h" nogil:
    ctypedef struct tg_journal_head:
        uint64_t magic
        uint32_t format
        uint32_t crc
        uint64_t size
        uint64_t buckets
        uint64_t segment
        uint8_t key[16]
        uint64_t boot
        uint64_t clean

    ctypedef struct tg_record:
        uint32_t crc
        uint32_t length
        uint8_t flags
        uint32_t publisher
        uint64_t channel
        uint64_t epoch
        uint64_t offset
        uint64_t time
        uint64_t sequence
        uint64_t place

    ctypedef struct tg_top:
        uint64_t channel
        uint64_t epoch
        uint64_t top
        uint32_t crc
        uint32_t used

    enum:
        TG_ALIGN


# A subscription: the link, borrowed, and the channel's number there.
ctypedef struct tg_subscriber:
    void *link
    uint32_t number


cdef class Topic:
    cdef readonly uint64_t id
    cdef readonly uint64_t epoch
    cdef readonly uint64_t top
    cdef readonly uint64_t size
    cdef readonly uint32_t history
    cdef readonly uint64_t keep
    cdef readonly uint64_t history_bytes
    cdef public object name
    cdef public Py_ssize_t users
    cdef readonly uint32_t count  # of messages
    cdef object memory  # of the journal, which stays mapped
    cdef uint8_t *log
    cdef tg_top *place  # in the journal's table; perhaps another channel's by now
    cdef uint32_t *index  # a ring of places in the log, in units of TG_ALIGN
    cdef uint32_t room  # of it: a power of two, or 0
    cdef uint32_t start
    cdef tg_subscriber *subscribers
    cdef readonly uint32_t subscribed
    cdef uint32_t subscribers_room

    cdef int reserve(self) except -1
    cdef tg_record *oldest(self) noexcept nogil
    cdef tg_record *at(self, uint64_t offset) noexcept nogil
    cdef void push(self, tg_record *record) noexcept nogil
    cdef void pop(self) noexcept nogil
    cdef void clear(self) noexcept nogil
    cdef void trim(self, uint64_t now) noexcept nogil
    cdef uint64_t find(self, uint64_t publisher, uint64_t sequence) noexcept nogil
    cdef bytes _frames(self, uint32_t number, uint64_t start, uint64_t end)
    cdef uint32_t subscribe(self, void *link, uint32_t number) except? 0xffffffff
    cdef tg_subscriber *unsubscribe(self, uint32_t slot) noexcept nogil

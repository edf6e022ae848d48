"""Declarations of the journal: the history of all channels, in a file that outlives the process that writes it."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tidegate._core.topic cimport Topic, tg_journal_head, tg_record


# What store() did with a message.
cdef enum:
    STORED = 1
    DUPLICATE = 2
    TOO_LONG = 3


cdef class Publisher:
    cdef readonly uint64_t id
    cdef readonly uint64_t last
    cdef public Py_ssize_t links


cdef class Journal:
    cdef readonly int fd
    cdef readonly str found
    cdef readonly uint64_t stored
    cdef readonly uint64_t evicted
    cdef readonly dict topics
    cdef dict publishers
    cdef dict keys  # (channel, epoch, key) -> (offset, time), the oldest first
    cdef object line  # deque of all topics: sweep() goes through it
    cdef public int64_t fault
    cdef uint64_t offset  # of what store() has stored; 0: of a duplicate that is gone
    cdef object memory
    cdef Py_buffer view
    cdef tg_journal_head *head
    cdef uint8_t *log
    cdef uint64_t *ends  # of each segment: where its records end; 0: it has none
    cdef uint64_t serial  # of the present segment
    cdef uint32_t segment
    cdef uint64_t at  # of the next record in it

    cdef int store(
        self, Topic topic, Publisher publisher, uint8_t flags, uint64_t time, uint64_t sequence, const uint8_t *data,
        uint32_t length, uint64_t now,
    ) except -1
    cdef int _format(self, uint64_t size) except -1
    cdef int _check(self, uint64_t size) except -1
    cdef int _scan(self) except -1
    cdef int _index(self, tg_record *record) except -1
    cdef int _compare(self, Topic topic) except -1
    cdef Topic _add(self, uint64_t id)
    cdef int _renew(self, Topic topic) except -1
    cdef int _fail(self, tg_record *record, tg_record *head, const uint8_t *data) except -1
    cdef uint64_t _keyed(self, object key, uint64_t now) except? 0
    cdef int _note(self, object key, uint64_t offset, uint64_t time) except -1
    cdef int _begin(self, uint32_t i, uint64_t serial) except -1

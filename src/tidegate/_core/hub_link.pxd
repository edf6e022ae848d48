"""Declarations of a link of the hub: its buffers, its channels' numbers, and what it has to be told."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tidegate._core.journal cimport Publisher
from tidegate._core.link_head cimport tg_link_head, tg_link_stored
from tidegate._core.topic cimport Topic


cdef enum:
    QUEUE_BYTES = 16 << 20
    CHANNELS = 1 << 20
    READ_BYTES = 1 << 18
    STORED_AT_ONCE = 4096  # acknowledgements in one frame


# A channel that is open on a link.
ctypedef struct tg_number:
    void *topic  # a reference; NULL: nothing has this number
    uint32_t slot  # of the subscription in the topic
    bint subscribed


cdef class Link:
    cdef readonly int fd
    cdef public object name
    cdef public object data
    cdef readonly Publisher publisher
    cdef readonly object ended
    cdef readonly uint64_t lost
    cdef public bint greeted
    cdef bint dirty  # the switch will flush it at the end of the turn
    cdef bint waits  # for room in the socket
    cdef uint32_t interest  # what epoll watches
    cdef tg_number *numbers
    cdef uint32_t numbers_room
    cdef uint8_t *rest  # what has come, and is not handled
    cdef uint64_t rest_size
    cdef uint64_t rest_room
    cdef uint8_t *queue  # to be sent: queue[sent:tail]
    cdef uint64_t boundary  # where a frame begins, at `sent` or before it
    cdef uint64_t sent
    cdef uint64_t tail
    cdef uint64_t room
    cdef tg_link_stored *stored  # acknowledgements of this turn
    cdef uint32_t stored_count
    cdef uint32_t stored_room

    cdef Topic topic_of(self, uint32_t number)
    cdef int make_room(self, uint64_t size) except -1
    cdef int frame(self, tg_link_head *head, const uint8_t *payload) except -1
    cdef int message(self, tg_link_head *head, const uint8_t *payload) except -1
    cdef int acknowledge(self, uint64_t sequence, uint64_t epoch, uint64_t offset) except -1
    cdef int frame_stored(self) except -1
    cdef void find_boundary(self) noexcept nogil
    cdef int drop(self) except -1
    cdef int flush(self) except -1
    cdef int keep_rest(self, const uint8_t *data, uint64_t size) except -1
    cdef uint8_t *rest_end(self) except NULL

    cdef inline bint full(self) noexcept nogil:
        """Return whether so much waits to be sent that nothing more is read from it."""
        return self.tail - self.sent > QUEUE_BYTES

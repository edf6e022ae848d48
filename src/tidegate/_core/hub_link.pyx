# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""A link of the hub to one process: numbers of channels that are open on it, and its two buffers.

    Link    one link

What waits to be sent is bounded: messages that the process does not read are dropped, all that wait at once, and it is
told how many, to read them from the journal instead. Answers are not dropped; a process that does not read them is not
read from either.
What must not live here: what a frame asks for (switch.pyx, hub/), the loop.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EPIPE, errno
from libc.string cimport memcpy, memmove, memset
from posix.unistd cimport close

import os

from tidegate._core.link_head cimport TG_LINK_LOST, TG_LINK_MESSAGE, TG_LINK_PAYLOAD, TG_LINK_STORED
from tidegate._core.topic cimport tg_subscriber


cdef extern from "<sys/socket.h>" nogil:
    Py_ssize_t send(int fd, const void *data, size_t size, int flags)
    int MSG_DONTWAIT, MSG_NOSIGNAL


cdef enum:
    KEPT_BYTES = 1 << 20  # of a buffer that is empty


@cython.final
cdef class Link:
    """A link; a switch makes it. `fd` is its socket's descriptor, `ended` says why it is to end, None until then.

    For the hub: `name`, `data`, whether it was `greeted`, and its `publisher`. `lost` counts messages that were
    dropped because the other end did not read.
    """

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        PyMem_RawFree(self.numbers)
        PyMem_RawFree(self.rest)
        PyMem_RawFree(self.queue)
        PyMem_RawFree(self.stored)
        if self.fd >= 0:
            close(self.fd)

    def end(self, str why not None):
        """Have the switch end the link at the end of the turn; the first reason counts."""
        if self.ended is None:
            self.ended = why

    def greet(self, Publisher publisher not None):
        """Say who publishes on this link."""
        self.publisher = publisher
        publisher.links += 1
        self.greeted = True

    # Channels.

    cdef Topic topic_of(self, uint32_t number):
        """Return the channel with a number; None if there is none."""
        if number >= self.numbers_room or self.numbers[number].topic is NULL:
            return None
        return <Topic>self.numbers[number].topic

    def topic(self, uint32_t number):
        """Return the channel with a number; None if there is none."""
        return self.topic_of(number)

    def open(self, uint32_t number, Topic topic not None):
        """Give a channel a number. ValueError: it is another channel's, or too high."""
        cdef uint32_t room = self.numbers_room or 64
        cdef tg_number *larger
        if number >= CHANNELS:
            raise ValueError(f"a channel's number must be less than {CHANNELS}, not {number}")
        if number >= self.numbers_room:
            while room <= number:
                room *= 2
            larger = <tg_number *>PyMem_RawRealloc(self.numbers, room * sizeof(tg_number))
            if larger is NULL:
                raise MemoryError
            memset(larger + self.numbers_room, 0, (room - self.numbers_room) * sizeof(tg_number))
            self.numbers, self.numbers_room = larger, room
        if self.numbers[number].topic is NULL:
            Py_INCREF(topic)
            self.numbers[number].topic = <void *>topic
            topic.users += 1
        elif self.numbers[number].topic is not <void *>topic:
            raise ValueError(f"channel number {number} is in use")

    def shut(self, uint32_t number):
        """Take a number back, and end the subscription; what has no number may be shut."""
        cdef Topic topic = self.topic_of(number)
        if topic is not None:
            self.unsubscribe(number)
            self.numbers[number].topic = NULL
            topic.users -= 1
            Py_DECREF(topic)

    def subscribe(self, uint32_t number):
        """Subscribe to the channel with a number; return it. ValueError: there is none."""
        cdef Topic topic = self.topic_of(number)
        if topic is None:
            raise ValueError(f"channel number {number} is not open")
        if not self.numbers[number].subscribed:
            self.numbers[number].slot = topic.subscribe(<void *>self, number)
            self.numbers[number].subscribed = True
        return topic

    def unsubscribe(self, uint32_t number):
        """End a subscription; what is not subscribed may be unsubscribed."""
        cdef Topic topic = self.topic_of(number)
        cdef tg_subscriber *moved
        if topic is not None and self.numbers[number].subscribed:
            self.numbers[number].subscribed = False
            moved = topic.unsubscribe(self.numbers[number].slot)
            if moved is not NULL:
                (<Link>moved.link).numbers[moved.number].slot = self.numbers[number].slot

    def release(self):
        """Take back all numbers, and forget the publisher."""
        cdef uint32_t number
        for number in range(self.numbers_room):
            self.shut(number)
        if self.publisher is not None:
            self.publisher.links -= 1
            self.publisher = None

    # To be sent.

    @property
    def waiting(self):
        """Bytes that wait to be sent."""
        return self.tail - self.sent

    def send(self, int kind, int flags=0, uint32_t channel=0, uint64_t offset=0, uint64_t sequence=0,
             bytes payload not None=b""):
        """Add a frame to what is sent at the end of the turn. ValueError: its payload is too long."""
        cdef tg_link_head head
        if len(payload) > TG_LINK_PAYLOAD:
            raise ValueError(f"a frame holds at most {TG_LINK_PAYLOAD} bytes, not {len(payload)}")
        memset(&head, 0, sizeof(head))
        head.length = len(payload)
        head.kind, head.flags, head.channel, head.offset, head.sequence = kind, flags, channel, offset, sequence
        self.frame(&head, <const uint8_t *>PyBytes_AS_STRING(payload))

    cdef int make_room(self, uint64_t size) except -1:
        """Make room for so many bytes at the end of the queue."""
        cdef uint64_t room
        cdef uint8_t *larger
        if self.room - self.tail >= size:
            return 0
        self.find_boundary()
        if self.boundary > 0:
            memmove(self.queue, self.queue + self.boundary, self.tail - self.boundary)
            self.sent -= self.boundary
            self.tail -= self.boundary
            self.boundary = 0
        if self.room - self.tail >= max(size, self.room // 4):
            return 0
        room = max(self.room * 2, <uint64_t>65536)
        while room - self.tail < size:
            room *= 2
        larger = <uint8_t *>PyMem_RawRealloc(self.queue, room)
        if larger is NULL:
            raise MemoryError
        self.queue, self.room = larger, room
        return 0

    cdef int frame(self, tg_link_head *head, const uint8_t *payload) except -1:
        """Add a frame."""
        self.make_room(sizeof(tg_link_head) + head.length)
        memcpy(self.queue + self.tail, head, sizeof(tg_link_head))
        memcpy(self.queue + self.tail + sizeof(tg_link_head), payload, head.length)
        self.tail += sizeof(tg_link_head) + head.length
        return 0

    cdef int message(self, tg_link_head *head, const uint8_t *payload) except -1:
        """Add a message, or drop it and all others that wait."""
        if self.tail - self.sent + sizeof(tg_link_head) + head.length > QUEUE_BYTES:
            self.lost += 1
            return self.drop()
        return self.frame(head, payload)

    cdef int acknowledge(self, uint64_t sequence, uint64_t epoch, uint64_t offset) except -1:
        """Acknowledge a message, at the end of the turn."""
        cdef uint32_t room
        cdef tg_link_stored *larger
        if self.stored_count == STORED_AT_ONCE:
            self.frame_stored()  # a process that reads none of them must not be read from for ever
        if self.stored_count == self.stored_room:
            room = self.stored_room * 2 if self.stored_room else 64
            larger = <tg_link_stored *>PyMem_RawRealloc(self.stored, room * sizeof(tg_link_stored))
            if larger is NULL:
                raise MemoryError
            self.stored, self.stored_room = larger, room
        self.stored[self.stored_count].sequence = sequence
        self.stored[self.stored_count].epoch = epoch
        self.stored[self.stored_count].offset = offset
        self.stored_count += 1
        return 0

    cdef void find_boundary(self) noexcept nogil:
        """Move `boundary` to the beginning of the frame that is being sent."""
        cdef uint64_t next
        while self.boundary < self.sent:
            next = self.boundary + sizeof(tg_link_head) + (<tg_link_head *>(self.queue + self.boundary)).length
            if next > self.sent:
                break
            self.boundary = next

    cdef int drop(self) except -1:
        """Drop the messages that wait, but for one that is partly sent, and tell the other end how many it has lost."""
        cdef uint64_t at, size
        cdef tg_link_head *head
        cdef tg_link_head notice
        self.find_boundary()
        at = self.boundary
        if at < self.sent:
            at += sizeof(tg_link_head) + (<tg_link_head *>(self.queue + at)).length
        cdef uint64_t to = at
        memset(&notice, 0, sizeof(notice))
        notice.kind = TG_LINK_LOST
        notice.offset = 1
        while at < self.tail:
            head = <tg_link_head *>(self.queue + at)
            size = sizeof(tg_link_head) + head.length
            if head.kind == TG_LINK_LOST:
                notice.offset += head.offset
            elif head.kind == TG_LINK_MESSAGE:
                notice.offset += 1
                self.lost += 1
            else:
                memmove(self.queue + to, head, size)
                to += size
            at += size
        self.tail = to
        return self.frame(&notice, <const uint8_t *>&notice)  # without payload

    cdef int frame_stored(self) except -1:
        """Add a frame of the acknowledgements that there are."""
        cdef tg_link_head head
        memset(&head, 0, sizeof(head))
        head.kind = TG_LINK_STORED
        head.length = self.stored_count * sizeof(tg_link_stored)
        self.stored_count = 0
        return self.frame(&head, <const uint8_t *>self.stored)

    cdef int flush(self) except -1:
        """Send what the socket takes now."""
        cdef Py_ssize_t done
        if self.stored_count:
            self.frame_stored()
        if self.tail == self.sent:
            return 0
        with nogil:
            done = send(self.fd, self.queue + self.sent, self.tail - self.sent, MSG_DONTWAIT | MSG_NOSIGNAL)
        if done < 0:
            if errno not in (EAGAIN, EINTR):
                self.end_by(errno)
            return 0
        self.sent += done
        if self.sent == self.tail:
            self.boundary = self.sent = self.tail = 0
            if self.room > KEPT_BYTES:
                PyMem_RawFree(self.queue)
                self.queue, self.room = NULL, 0
        return 0

    def end_by(self, int number):
        """End the link for an error of its socket."""
        self.end("" if number in (EPIPE, ECONNRESET) else os.strerror(number))

    # What came.

    cdef uint8_t *rest_end(self) except NULL:
        """Return where to put READ_BYTES that come, behind the rest."""
        cdef uint64_t room
        cdef uint8_t *larger
        if self.rest_room - self.rest_size < READ_BYTES:
            room = max(self.rest_room * 2, <uint64_t>(2 * READ_BYTES))
            larger = <uint8_t *>PyMem_RawRealloc(self.rest, room)
            if larger is NULL:
                raise MemoryError
            self.rest, self.rest_room = larger, room
        return self.rest + self.rest_size

    cdef int keep_rest(self, const uint8_t *data, uint64_t size) except -1:
        """Keep what is not handled yet, which may be the end of the rest itself."""
        if size and data != self.rest:
            if self.rest_size == 0:
                self.rest_end()
            memmove(self.rest, data, size)
        self.rest_size = size
        if size == 0 and self.rest_room > KEPT_BYTES:
            PyMem_RawFree(self.rest)
            self.rest, self.rest_room = NULL, 0
        return 0

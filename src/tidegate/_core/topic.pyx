# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""A channel in the hub: its messages' places in the journal, in the order of their offsets, and who is subscribed.

    Topic    one channel
    usage    how much several keep

Offsets have no holes, so that a message is found by arithmetic, and what is kept are always the newest.
What must not live here: messages that come (journal.pyx), where they are sent (switch.pyx).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.string cimport memcpy, memset

import time as clock

from tidegate._core.link_head cimport TG_LINK_MESSAGE, tg_link_head


cdef enum:
    SEARCHED = 10000  # messages that are looked through for a duplicate


@cython.final
cdef class Topic:
    """A channel: made by a journal, and used within the process that has it.

    `id` is its number in the journal, `name` its name, None until a link has opened it, and `users` counts who has it
    open. `epoch`, 0 without history, and `top` are the newest position. `history`, `keep` in microseconds and
    `history_bytes` are how much of it is kept, `count` and `size` how much there is. `subscribed` links listen to it.
    """

    def __dealloc__(self):
        PyMem_RawFree(self.index)
        PyMem_RawFree(self.subscribers)

    @property
    def first(self):
        """Offset of the oldest message that is kept; `top + 1` if there is none."""
        return self.top - self.count + 1

    cdef int reserve(self) except -1:
        """Make room for one more message."""
        cdef uint32_t room, part
        cdef uint32_t *larger
        if self.count < self.room:
            return 0
        room = self.room * 2 if self.room else 4
        larger = <uint32_t *>PyMem_RawRealloc(self.index, room * sizeof(uint32_t))
        if larger is NULL:
            raise MemoryError
        # What had wrapped around the end of the ring goes behind it.
        part = self.start + self.count - self.room if self.start + self.count > self.room else 0
        memcpy(larger + self.room, larger, part * sizeof(uint32_t))
        self.index = larger
        self.room = room
        return 0

    cdef tg_record *oldest(self) noexcept nogil:
        """Return the oldest message, NULL if there is none."""
        if self.count == 0:
            return NULL
        return <tg_record *>(self.log + <uint64_t>self.index[self.start] * TG_ALIGN)

    cdef tg_record *at(self, uint64_t offset) noexcept nogil:
        """Return the message at an offset, which must be one of those that are kept."""
        cdef uint32_t i = <uint32_t>(offset - (self.top - self.count + 1))
        return <tg_record *>(self.log + <uint64_t>self.index[(self.start + i) & (self.room - 1)] * TG_ALIGN)

    cdef void push(self, tg_record *record) noexcept nogil:
        """Add the newest message, after reserve()."""
        self.index[(self.start + self.count) & (self.room - 1)] = <uint32_t>((<uint8_t *>record - self.log) // TG_ALIGN)
        self.count += 1
        self.top = record.offset
        self.size += record.length

    cdef void pop(self) noexcept nogil:
        """Forget the oldest message, of which there must be one."""
        self.size -= self.oldest().length
        self.start = (self.start + 1) & (self.room - 1)
        self.count -= 1

    cdef void clear(self) noexcept nogil:
        """Forget all messages."""
        self.count = 0
        self.size = 0

    cdef void trim(self, uint64_t now) noexcept nogil:
        """Forget what is over the limits: by number, by bytes but for the newest message, and by age."""
        while self.count > self.history or (self.history_bytes and self.size > self.history_bytes and self.count > 1):
            self.pop()
        if self.keep:
            while self.count and self.oldest().time + self.keep <= now:
                self.pop()

    cdef uint64_t find(self, uint64_t publisher, uint64_t sequence) noexcept nogil:
        """Return the offset of a message by its publisher and sequence, 0 if it is not kept."""
        cdef uint64_t offset = self.top, last = offset - min(self.count, <uint32_t>SEARCHED)
        cdef tg_record *record
        while offset > last:
            record = self.at(offset)
            if record.publisher == publisher and record.sequence == sequence:
                return offset
            offset -= 1
        return 0

    def read(self, uint32_t number, uint64_t offset, uint32_t messages, uint64_t size, bint backward=False):
        """Return messages, in order, as frames of the channel with that number.

        They are the oldest after an offset; or, `backward`, the newest before it, or of all if it is 0. There are at
        most so many, in at most so many bytes, but for one.
        """
        self.trim(<uint64_t>(clock.time() * 1e6))
        cdef uint64_t first = self.top - self.count + 1, start, end, total = 0
        if backward:
            end = self.top if offset == 0 or offset > self.top else offset - 1
            start = end + 1
            while start > first and end - start + 1 < messages:
                total += sizeof(tg_link_head) + self.at(start - 1).length
                if total > size and start <= end:
                    break
                start -= 1
        else:
            start = max(offset + 1, first) if offset < self.top else self.top + 1
            end = start - 1
            while end < self.top and end - start + 1 < messages:
                total += sizeof(tg_link_head) + self.at(end + 1).length
                if total > size and start <= end:
                    break
                end += 1
        return self._frames(number, start, end)

    cdef bytes _frames(self, uint32_t number, uint64_t start, uint64_t end):
        """Return the messages from one offset to another as frames."""
        cdef uint64_t offset, total = 0
        cdef tg_record *record
        cdef tg_link_head head
        for offset in range(start, end + 1):
            total += sizeof(tg_link_head) + self.at(offset).length
        found = PyBytes_FromStringAndSize(NULL, total)
        cdef char *to = PyBytes_AS_STRING(found)
        memset(&head, 0, sizeof(head))
        head.kind = TG_LINK_MESSAGE
        head.channel = number
        for offset in range(start, end + 1):
            record = self.at(offset)
            head.length, head.flags, head.publisher = record.length, record.flags, record.publisher
            head.offset, head.time, head.sequence = record.offset, record.time, record.sequence
            memcpy(to, &head, sizeof(head))
            memcpy(to + sizeof(head), record + 1, record.length)
            to += sizeof(head) + record.length
        return found

    cdef uint32_t subscribe(self, void *link, uint32_t number) except? 0xffffffff:
        """Add a subscriber; return its slot."""
        cdef uint32_t room
        cdef tg_subscriber *larger
        if self.subscribed == self.subscribers_room:
            room = self.subscribers_room * 2 if self.subscribers_room else 2
            larger = <tg_subscriber *>PyMem_RawRealloc(self.subscribers, room * sizeof(tg_subscriber))
            if larger is NULL:
                raise MemoryError
            self.subscribers = larger
            self.subscribers_room = room
        self.subscribers[self.subscribed].link = link
        self.subscribers[self.subscribed].number = number
        self.subscribed += 1
        return self.subscribed - 1

    cdef tg_subscriber *unsubscribe(self, uint32_t slot) noexcept nogil:
        """Remove a subscriber; return that which has taken its slot, NULL if none has."""
        self.subscribed -= 1
        if slot == self.subscribed:
            return NULL
        self.subscribers[slot] = self.subscribers[self.subscribed]
        return &self.subscribers[slot]


def usage(topics):
    """Return how many messages channels keep, and how many bytes those have, their heads included."""
    cdef Topic topic
    cdef uint64_t messages = 0, size = 0
    for topic in topics:
        messages += topic.count
        size += topic.size
    return messages, size + messages * sizeof(tg_record)

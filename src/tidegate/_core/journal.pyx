# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The journal: the one copy of the history of all channels, in a file in memory or on disk that outlives its writer.

    Journal        the file, and the index of it, which is rebuilt from it
    Publisher      who publishes, and the last sequence that is stored
    JournalError   a file that cannot be used, and why
    make_memory    a file in memory for it, which another process holds

The layout, and what a process that is killed leaves behind, is in journal.h. It is a ring: what is over the limits of
its channel is forgotten by the index, and written over when the ring comes around, whatever the limits say.
What must not live here: who is told of a message (switch.pyx), a promise of what a disk holds after a loss of power: a
file that was not closed before the system ended is refused.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.string cimport memcpy, memset
from posix.unistd cimport close

import fcntl
import mmap
import os
import signal
import time as clock
from collections import deque
from hashlib import blake2b
from pathlib import Path

from tidegate._core.link_head cimport TG_LINK_IS_STORED, TG_LINK_KEYED
from tidegate._core.topic cimport tg_top


cdef extern from "journal.h" nogil:
    const uint64_t TG_JOURNAL_MAGIC
    enum:
        TG_JOURNAL_FORMAT
        TG_JOURNAL_PAGE
        TG_SEGMENTS
        TG_WAYS

    ctypedef struct tg_segment:
        uint64_t serial

    size_t tg_padded(size_t n)
    uint64_t tg_place(uint64_t serial, uint64_t at)
    uint32_t tg_head_crc(const tg_journal_head *h)
    uint8_t *tg_log_of(tg_journal_head *h)
    bint tg_divide(tg_journal_head *h, uint64_t size)
    uint32_t tg_record_crc(const tg_record *head, const void *payload)
    tg_record *tg_record_at(uint8_t *segment, uint64_t size, uint64_t serial, uint64_t at)
    uint64_t tg_serial_of(const uint8_t *segment)
    void tg_begin_segment(uint8_t *segment, uint64_t serial)
    tg_top *tg_find_top(tg_journal_head *h, uint64_t channel)
    tg_top *tg_make_top(tg_journal_head *h, uint64_t channel, uint64_t epoch, uint64_t top, uint32_t now)
    void tg_set_top(tg_top *t, uint64_t top, uint32_t now)
    bint tg_top_counts(const tg_top *t)


LARGEST = 16 << 30
TOPICS = 1 << 20
PUBLISHERS = 4096
KEYS = 1 << 16
KEY_SECONDS = 300

cdef object _made = object()


class JournalError(ValueError):
    """A file that cannot be used as a journal; its text says why."""


def make_memory(uint64_t size):
    """Make a file of `size` bytes in memory, for a journal. Return its descriptor, which is not inheritable."""
    fd = os.memfd_create("tidegate-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    # A file that was cut would end each process that has mapped it, with SIGBUS.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def boot_number():
    """Return a number that tells this run of the system from others; 0 if it is unknown."""
    try:
        return int(Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:16], 16)
    except (OSError, ValueError):
        return 0


cdef object key_of(Topic topic, const uint8_t *data, uint32_t length):
    """Return what a message's key is kept by: it counts in one epoch of one channel."""
    cdef uint32_t size = min(data[0], length - 1) if length else 0
    return (topic.id, topic.epoch, PyBytes_FromStringAndSize(<const char *>data + 1, size))


@cython.final
cdef class Publisher:
    """Who publishes, in the journal that made it: `id`, the highest sequence that is stored, `last`, and `links` now."""


@cython.final
cdef class Journal:
    """The journal in a file. `Journal()` raises TypeError: use `attach()`.

    `fd` is the file's descriptor, which it owns. `found` says what attach() has found. `topics` are the channels by id,
    `stored` counts messages, `evicted` those that the ring has written over before their channel's limits said so.
    `fault` is for tests: after so many more bytes of records the process is killed; -1: never.
    """

    def __cinit__(self, made=None):
        self.fd = -1
        self.head = NULL
        if made is not _made:
            raise TypeError("a Journal is made by Journal.attach()")
        self.topics = {}
        self.publishers = {}
        self.keys = {}
        self.line = deque()
        self.fault = -1

    def __dealloc__(self):
        PyMem_RawFree(self.ends)
        if self.head != NULL:
            PyBuffer_Release(&self.view)
        close(self.fd)

    @staticmethod
    def attach(int fd, bint anew=False):
        """Use the journal in the file behind the descriptor `fd`, or make one if all of its head is zero, or `anew`.

        BlockingIOError: another process writes it. JournalError: it is no journal of this format and size, or not whole.
        """
        cdef Journal self = Journal.__new__(Journal, _made)
        size = os.fstat(fd).st_size
        cdef tg_journal_head shape
        if size > LARGEST or not tg_divide(&shape, size):
            raise JournalError(f"a journal has 71680 to {LARGEST} bytes, not {size}")
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.memory = mmap.mmap(fd, size)
        PyObject_GetBuffer(self.memory, &self.view, PyBUF_WRITABLE)
        self.head = <tg_journal_head *>self.view.buf
        self.ends = <uint64_t *>PyMem_RawCalloc(TG_SEGMENTS, sizeof(uint64_t))
        if self.ends is NULL:
            raise MemoryError
        if anew or not any(self.memory[:TG_JOURNAL_PAGE]):
            self._format(size)
        else:
            self._check(size)
        self.log = tg_log_of(self.head)
        self._scan()
        self.head.clean = 0
        self.head.boot = <uint64_t>boot_number()
        self.fd = fd
        return self

    cdef int _format(self, uint64_t size) except -1:
        """Make the file an empty journal."""
        cdef uint32_t i
        self.head.magic = 0  # killed from here on, it is none
        memset(<uint8_t *>self.head + 8, 0, TG_JOURNAL_PAGE - 8)
        tg_divide(self.head, size)
        memset(<uint8_t *>self.head + TG_JOURNAL_PAGE, 0, tg_log_of(self.head) - <uint8_t *>self.head - TG_JOURNAL_PAGE)
        for i in range(<uint32_t>TG_SEGMENTS):
            memset(tg_log_of(self.head) + i * self.head.segment, 0, sizeof(tg_segment))
        key = os.urandom(16)
        memcpy(self.head.key, PyBytes_AS_STRING(key), 16)
        self.head.format = TG_JOURNAL_FORMAT
        self.head.crc = tg_head_crc(self.head)
        self.head.clean = 1
        self.head.magic = TG_JOURNAL_MAGIC
        return 0

    cdef int _check(self, uint64_t size) except -1:
        """Refuse what this code cannot go on with."""
        cdef tg_journal_head shape
        cdef tg_journal_head *head = self.head
        if head.magic != TG_JOURNAL_MAGIC:
            raise JournalError("this is no journal: it starts with other bytes")
        if head.format != TG_JOURNAL_FORMAT:
            raise JournalError(f"the journal has format {head.format}, and this tidegate reads {TG_JOURNAL_FORMAT}")
        if head.crc != tg_head_crc(head):
            raise JournalError("the head of the journal is damaged")
        tg_divide(&shape, size)
        if (head.size, head.buckets, head.segment) != (shape.size, shape.buckets, shape.segment):
            raise JournalError(f"the journal should have {head.size} bytes, and has {size}")
        if not head.clean and head.boot != <uint64_t>boot_number():
            raise JournalError("the system ended before all of the journal was on disk")
        return 0

    cdef int _scan(self) except -1:
        """Rebuild the index from the records that count."""
        cdef uint64_t serial, at
        cdef uint32_t i
        cdef uint8_t *segment
        cdef tg_record *record
        found = []
        for i in range(<uint32_t>TG_SEGMENTS):
            serial = tg_serial_of(self.log + i * self.head.segment)
            if serial:
                found.append((serial, i))
        found.sort()
        records = 0
        for serial, i in found:
            segment = self.log + i * self.head.segment
            at = sizeof(tg_segment)
            while True:
                record = tg_record_at(segment, self.head.segment, serial, at)
                if record is NULL or not self._index(record):
                    break
                records += 1
                at += sizeof(tg_record) + tg_padded(record.length)
            self.ends[i] = at
            self.serial, self.segment, self.at = serial, i, at
        for topic in self.topics.values():
            self._compare(topic)
        self.found = f"{records} messages of {len(self.topics)} channels"
        return 0 if found else self._begin(0, 1)

    cdef int _index(self, tg_record *record) except -1:
        """Add a record that was found; return False if it cannot be one."""
        cdef Topic topic = self.topics.get(record.channel)
        cdef Publisher publisher
        if record.epoch == 0 or record.offset == 0 or record.offset >> 48:
            return False
        if topic is None:
            topic = self._add(record.channel)
        topic.reserve()
        if topic.epoch != record.epoch or topic.top + 1 != record.offset:
            topic.clear()  # never a hole
        topic.epoch = record.epoch
        topic.push(record)
        if record.sequence:
            publisher = self.publisher(record.publisher)
            publisher.last = max(publisher.last, record.sequence)
        if record.flags & TG_LINK_KEYED:
            self._note(key_of(topic, <const uint8_t *>(record + 1), record.length), record.offset, record.time)
        return True

    cdef uint64_t _keyed(self, object key, uint64_t now) except? 0:
        """Return the offset of the message that a key stands for; 0 if there is none."""
        found = self.keys.get(key)
        return found[0] if found is not None and found[1] + KEY_SECONDS * 1_000_000 > now else 0

    cdef int _note(self, object key, uint64_t offset, uint64_t time) except -1:
        """Keep a key; of too many, the oldest is forgotten."""
        self.keys.pop(key, None)
        self.keys[key] = (offset, time)
        if len(self.keys) > KEYS:
            del self.keys[next(iter(self.keys))]
        return 0

    cdef int _compare(self, Topic topic) except -1:
        """Believe the table where it knows of more than the records: then the newest of these are lost."""
        cdef tg_top *place = tg_find_top(self.head, topic.id)
        if place is NULL:
            place = tg_make_top(self.head, topic.id, topic.epoch, topic.top, <uint32_t>clock.time())
        elif place.epoch != topic.epoch or place.top >> 16 > topic.top:
            topic.clear()
            topic.epoch, topic.top = place.epoch, place.top >> 16
        elif place.top >> 16 < topic.top:
            tg_set_top(place, topic.top, place.used)
        topic.place = place
        return 0

    cdef Topic _add(self, uint64_t id):
        cdef Topic topic = Topic.__new__(Topic)
        topic.id = id
        topic.memory = self.memory
        topic.log = self.log
        topic.history = 0xffffffff  # until set_policy() says
        self.topics[id] = topic
        self.line.append(topic)
        return topic

    def topic(self, str name not None):
        """Return the channel of that name. JournalError: there are too many, or one whose name has the same number."""
        cdef uint64_t id
        cdef Topic topic
        cdef tg_top *place
        digest = blake2b(name.encode(), digest_size=8, key=self.head.key[:16]).digest()
        id = int.from_bytes(digest, "little")
        topic = self.topics.get(id)
        if topic is None:
            if len(self.topics) >= TOPICS:
                raise JournalError(f"there are {TOPICS} channels already")
            topic = self._add(id)
            topic.history = 0
            place = tg_find_top(self.head, id)
            if place is not NULL:
                topic.epoch, topic.top, topic.place = place.epoch, place.top >> 16, place
        topic.name = topic.name or name
        if topic.name != name:
            raise JournalError(f"channel {name!r} has the same number as {topic.name!r}")
        return topic

    def set_policy(self, Topic topic not None, uint32_t history, uint64_t keep, uint64_t history_bytes):
        """Say how much of a channel is kept: messages (0: it has no history), microseconds and bytes (0: no limit).

        A channel that has no history any more gets another epoch with the next that it has: there will be a hole.
        """
        if history == 0:
            if topic.epoch:
                self._renew(topic)
                topic.epoch = topic.top = 0
        elif topic.epoch == 0:
            self._renew(topic)
        topic.history = history
        topic.keep = keep
        topic.history_bytes = history_bytes
        topic.trim(<uint64_t>(clock.time() * 1e6))

    cdef int _renew(self, Topic topic) except -1:
        """Give a channel a new epoch, in the file as well."""
        topic.clear()
        topic.top = 0
        topic.epoch = <uint64_t>int.from_bytes(os.urandom(6), "little") | 1
        topic.place = tg_make_top(self.head, topic.id, topic.epoch, 0, <uint32_t>clock.time())
        return 0

    def publisher(self, uint32_t id):
        """Return the publisher with that number. Of too many, one is forgotten that has no link and came first."""
        found = self.publishers.get(id)
        if found is None:
            if len(self.publishers) >= PUBLISHERS:
                oldest = next((key for key, each in self.publishers.items() if not (<Publisher>each).links), None)
                self.publishers.pop(oldest, None)
            found = self.publishers[id] = Publisher.__new__(Publisher)
            (<Publisher>found).id = id
        return found

    def append(self, Topic topic not None, bytes data not None, int flags=0, publisher=None, sequence=0, time=None):
        """Store a message; return its offset, or that of the one that it repeats (0, if that is gone).

        Native code calls store().
        """
        cdef uint64_t now = <uint64_t>(clock.time() * 1e6)
        made = now if time is None else time
        who = self.publisher(0) if publisher is None else publisher
        cdef const uint8_t *bytes = <const uint8_t *>PyBytes_AS_STRING(data)
        if self.store(topic, who, flags, made, sequence, bytes, len(data), now) == TOO_LONG:
            raise JournalError(f"a message of {len(data)} bytes has no room in a journal of {self.head.size}")
        return self.offset

    cdef int store(
        self, Topic topic, Publisher publisher, uint8_t flags, uint64_t time, uint64_t sequence, const uint8_t *data,
        uint32_t length, uint64_t now,
    ) except -1:
        """Store a message of a channel with history, unless its publisher's sequence is stored; set `offset`."""
        cdef tg_record head
        cdef tg_record *record
        cdef uint64_t size = sizeof(tg_record) + tg_padded(length)
        key = None
        if flags & TG_LINK_KEYED:
            key = key_of(topic, data, length)
            self.offset = self._keyed(key, now)
            if self.offset:
                publisher.last = max(publisher.last, sequence)
                return DUPLICATE
        if sequence and sequence <= publisher.last:
            self.offset = topic.find(publisher.id, sequence)
            return DUPLICATE
        if size > self.head.segment - sizeof(tg_segment):
            return TOO_LONG
        topic.reserve()
        if self.at + size > self.head.segment:
            self._begin((self.segment + 1) % TG_SEGMENTS, self.serial + 1)
        memset(&head, 0, sizeof(tg_record))
        head.length = length
        head.flags = flags | TG_LINK_IS_STORED
        head.publisher = <uint32_t>publisher.id
        head.channel = topic.id
        head.epoch = topic.epoch
        head.offset = topic.top + 1
        head.time = time
        head.sequence = sequence
        head.place = tg_place(self.serial, self.at)
        head.crc = tg_record_crc(&head, data)
        record = <tg_record *>(self.log + self.segment * self.head.segment + self.at)
        if self.fault >= 0:
            self._fail(record, &head, data)
        record[0] = head
        memcpy(record + 1, data, length)
        self.at += size
        self.ends[self.segment] = self.at
        topic.push(record)
        if topic.place is NULL or topic.place.channel != topic.id:  # the table had no room for all
            topic.place = tg_make_top(self.head, topic.id, topic.epoch, topic.top, <uint32_t>(now // 1000000))
        else:
            tg_set_top(topic.place, topic.top, <uint32_t>(now // 1000000))
        if sequence:
            publisher.last = sequence
        if key is not None:
            self._note(key, topic.top, now)
        topic.trim(now)
        self.stored += 1
        self.offset = topic.top
        return STORED

    cdef int _fail(self, tg_record *record, tg_record *head, const uint8_t *data) except -1:
        """Be killed, if it is time, after a part of a record."""
        whole = PyBytes_FromStringAndSize(<char *>head, sizeof(tg_record)) + data[: head.length]
        if self.fault <= len(whole):
            memcpy(record, PyBytes_AS_STRING(whole), self.fault)
            os.kill(os.getpid(), signal.SIGKILL)
        self.fault -= len(whole)
        return 0

    cdef int _begin(self, uint32_t i, uint64_t serial) except -1:
        """Go on in a segment, whose messages are forgotten."""
        cdef uint8_t *segment = self.log + i * self.head.segment
        cdef uint64_t at = sizeof(tg_segment)
        cdef tg_record *record
        cdef tg_record *oldest
        cdef Topic topic
        while at < self.ends[i]:
            record = <tg_record *>(segment + at)
            topic = self.topics.get(record.channel)
            oldest = NULL if topic is None else topic.oldest()
            if oldest is record:
                topic.pop()
                self.evicted += 1
            at += sizeof(tg_record) + tg_padded(record.length)
        tg_begin_segment(segment, serial)
        self.segment, self.serial, self.at = i, serial, sizeof(tg_segment)
        self.ends[i] = self.at
        return 0

    def sweep(self, Py_ssize_t topics):
        """Forget what is too old in so many channels, the next ones each time, and channels without users."""
        cdef Topic topic
        cdef uint64_t now = <uint64_t>(clock.time() * 1e6)
        for _ in range(min(topics, len(self.line))):
            topic = self.line.popleft()
            topic.trim(now)
            if topic.count or topic.users:
                self.line.append(topic)
            else:
                del self.topics[topic.id]

    def close(self):
        """Have the system write all of it to disk, and close the descriptor."""
        if self.fd >= 0:
            self.memory.flush()
            self.head.clean = 1
            self.memory.flush(0, TG_JOURNAL_PAGE)
            fcntl.lockf(self.fd, fcntl.LOCK_UN)
            os.close(self.fd)
            self.fd = -1

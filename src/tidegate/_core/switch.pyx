# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The hub's hot path: messages come in on links, are stored, and go out on links, each of which is read and written once
a turn.

    Switch    the links, and the turn

A message is stored before it is acknowledged or sent to any link. Kinds of frames other than PUBLISH are given to Python.
What must not live here: what those ask for (hub/), buffers of a link (hub_link.pyx), how a message is kept (journal.pyx).
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport close

import os

from tidegate._core.hub_link cimport READ_BYTES, Link
from tidegate._core.journal cimport DUPLICATE, TOO_LONG, Journal
from tidegate._core.link_head cimport (
    TG_LINK_ECHO,
    TG_LINK_IS_STORED,
    TG_LINK_MESSAGE,
    TG_LINK_PAYLOAD,
    TG_LINK_PUBLISH,
    TG_LINK_REFUSED,
    TG_LINK_TROUBLE,
    tg_link_head,
)
from tidegate._core.topic cimport Topic


cdef extern from "<sys/socket.h>" nogil:
    Py_ssize_t recv(int fd, void *data, size_t size, int flags)
    int MSG_DONTWAIT


cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLLIN
        EPOLLOUT

    ctypedef union epoll_data_t:
        int fd

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)


cdef enum:
    EVENTS = 64


@cython.final
cdef class Switch:
    """The links of a hub, over the journal in which messages are stored.

    `on_frame(link, kind, flags, channel, offset, sequence, payload)` is called for each frame but PUBLISH, `on_end(link)`
    once for each link that has ended; what it has open is released afterwards. A ValueError of `on_frame` ends its link,
    which is told its text. `links` are those there are, by descriptor; `published` and `delivered` count messages, and
    `message_limit` is how many bytes one may have.
    """

    cdef readonly Journal journal
    cdef readonly dict links
    cdef readonly uint64_t published
    cdef readonly uint64_t delivered
    cdef public uint32_t message_limit
    cdef object on_frame
    cdef object on_end
    cdef int epoll
    cdef uint64_t now
    cdef uint8_t *buffer
    cdef list dirty  # links with something to send, or to be ended

    def __cinit__(self, Journal journal not None, on_frame, on_end, uint32_t message_limit=1 << 20):
        self.epoll = -1
        self.journal = journal
        self.on_frame = on_frame
        self.on_end = on_end
        self.message_limit = message_limit
        self.links = {}
        self.dirty = []
        self.buffer = <uint8_t *>PyMem_RawMalloc(READ_BYTES)
        if self.buffer is NULL:
            raise MemoryError
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        PyMem_RawFree(self.buffer)
        if self.epoll >= 0:
            close(self.epoll)

    cdef int _control(self, int operation, int fd, uint32_t events) except -1:
        cdef epoll_event event
        event.events = events
        event.data.fd = fd
        if epoll_ctl(self.epoll, operation, fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        return 0

    def watch(self, int fd):
        """Have turn() return a descriptor of something else when it can be read."""
        self._control(EPOLL_CTL_ADD, fd, EPOLLIN)

    def unwatch(self, int fd):
        """End what watch() began."""
        self._control(EPOLL_CTL_DEL, fd, 0)

    def add(self, int fd, object data=None):
        """Make a link of a connected socket, whose descriptor it owns. Return it."""
        cdef Link link = Link.__new__(Link)
        link.data = data
        self._control(EPOLL_CTL_ADD, fd, EPOLLIN)
        link.fd = fd
        link.interest = EPOLLIN
        self.links[fd] = link
        return link

    def touch(self, Link link not None):
        """Have what was sent on a link, outside of on_frame(), leave at the end of the turn."""
        self._touch(link)

    cdef int _touch(self, Link link) except -1:
        if not link.dirty:
            link.dirty = True
            self.dirty.append(link)
        return 0

    def turn(self, double seconds):
        """Handle what has come on all links, or wait for it, at most so long. Return watched descriptors with input."""
        cdef epoll_event events[EVENTS]
        cdef int count, i, timeout = <int>(seconds * 1000) if not self.dirty else 0
        cdef timespec time
        cdef Link link
        with nogil:
            count = epoll_wait(self.epoll, events, EVENTS, timeout)
        if count < 0:
            if errno != EINTR:
                raise OSError(errno, os.strerror(errno))
            PyErr_CheckSignals()
            count = 0
        clock_gettime(CLOCK_REALTIME, &time)
        self.now = <uint64_t>time.tv_sec * 1000000 + time.tv_nsec // 1000
        watched = []
        for i in range(count):
            link = self.links.get(events[i].data.fd)
            if link is None:
                watched.append(events[i].data.fd)
                continue
            if events[i].events & EPOLLOUT:
                link.waits = False
                self._touch(link)
            if events[i].events & ~<uint32_t>EPOLLOUT and link.ended is None:
                self._read(link)
        self._flush()
        return watched

    cdef int _read(self, Link link) except -1:
        """Read once from a link, and handle the frames that are complete."""
        cdef uint8_t *to = self.buffer if link.rest_size == 0 else link.rest_end()
        cdef Py_ssize_t size
        with nogil:
            size = recv(link.fd, to, READ_BYTES, MSG_DONTWAIT)
        if size < 0:
            if errno not in (EAGAIN, EINTR):
                link.end_by(errno)
        elif size == 0:
            link.end("")
        elif to is self.buffer:
            self._handle(link, to, size)
        else:
            self._handle(link, link.rest, link.rest_size + size)
        self._touch(link)  # after those that have messages for their members: publishers are told last
        return 0

    cdef int _handle(self, Link link, const uint8_t *data, uint64_t size) except -1:
        """Handle the frames in what has come, as long as their answers have room; keep the rest."""
        cdef tg_link_head head
        cdef uint64_t at = 0
        while size - at >= sizeof(tg_link_head) and not link.full() and link.ended is None:
            memcpy(&head, data + at, sizeof(head))
            if head.length > TG_LINK_PAYLOAD:
                link.end(f"a frame holds at most {TG_LINK_PAYLOAD} bytes, and this one says {head.length}")
                break
            if size - at - sizeof(head) < head.length:
                break
            if head.kind == TG_LINK_PUBLISH:
                self._publish(link, &head, data + at + sizeof(head))
            else:
                self._give(link, &head, data + at + sizeof(head))
            at += sizeof(head) + head.length
        return link.keep_rest(data + at, size - at)

    cdef int _give(self, Link link, tg_link_head *head, const uint8_t *payload) except -1:
        """Give a frame to Python."""
        try:
            self.on_frame(
                link, head.kind, head.flags, head.channel, head.offset, head.sequence,
                PyBytes_FromStringAndSize(<const char *>payload, head.length),
            )
        except ValueError as error:
            link.end(str(error))
        return 0

    cdef int _publish(self, Link link, tg_link_head *head, const uint8_t *payload) except -1:
        """Store a message, if its channel has history; acknowledge it; send it to who is subscribed."""
        cdef Topic topic = link.topic_of(head.channel)
        cdef int done
        cdef uint64_t sequence = head.sequence
        if topic is None or link.publisher is None:
            return self._refuse(link, sequence, f"channel number {head.channel} is not open")
        if head.length > self.message_limit:
            return self._refuse(link, sequence, f"a message has at most {self.message_limit} bytes, not {head.length}")
        head.kind = TG_LINK_MESSAGE
        head.publisher = <uint32_t>link.publisher.id
        head.time = self.now
        if topic.history:
            done = self.journal.store(
                topic, link.publisher, head.flags, self.now, sequence, payload, head.length, self.now
            )
            if done == TOO_LONG:
                return self._refuse(link, sequence, f"a message of {head.length} bytes has no room in the journal")
            if sequence:
                link.acknowledge(sequence, topic.epoch, self.journal.offset)
            if done == DUPLICATE:
                return 0
            head.offset = self.journal.offset
            head.flags |= TG_LINK_IS_STORED | TG_LINK_ECHO
        else:
            head.offset = 0
            head.flags &= ~TG_LINK_IS_STORED
            if sequence:
                link.acknowledge(sequence, 0, 0)
        self.published += 1
        return self._deliver(link, topic, head, payload)

    cdef int _deliver(self, Link link, Topic topic, tg_link_head *head, const uint8_t *payload) except -1:
        """Send a message to who is subscribed."""
        cdef uint32_t i
        cdef Link to
        cdef bint echo = head.flags & TG_LINK_ECHO
        head.flags &= ~TG_LINK_ECHO
        for i in range(topic.subscribed):
            to = <Link>topic.subscribers[i].link
            if to is link and not echo or to.ended is not None:
                continue
            head.channel = topic.subscribers[i].number
            to.message(head, payload)
            self._touch(to)
            self.delivered += 1
        return 0

    def announce(self, Topic topic not None, int kind, bytes payload not None):
        """Send a frame about a channel to who is subscribed, at the end of the turn."""
        cdef uint32_t i
        for i in range(topic.subscribed):
            link = <Link>topic.subscribers[i].link
            link.send(kind, 0, topic.subscribers[i].number, 0, 0, payload)
            self._touch(link)

    cdef int _refuse(self, Link link, uint64_t sequence, str why) except -1:
        """Say why a message was not taken, if its publisher wants to know."""
        if sequence:
            link.send(TG_LINK_REFUSED, 0, 0, 0, sequence, why.encode())
        return 0

    cdef int _flush(self) except -1:
        """Send what there is to send on each link, and end those that have to end."""
        cdef Link link
        links, self.dirty = self.dirty, []
        for link in links:
            link.dirty = False
            if link.ended is None and not link.waits:
                link.flush()
            if link.ended is None and link.rest_size and not link.full():
                self._handle(link, link.rest, link.rest_size)  # what had waited for room
            if link.ended is not None:
                self._end(link)
            else:
                self._adjust(link)
        return 0

    cdef int _adjust(self, Link link) except -1:
        """Watch a link for what it waits for."""
        cdef uint32_t interest = 0 if link.full() else EPOLLIN
        link.waits = link.tail > link.sent
        if link.waits:
            interest |= EPOLLOUT
        if link.stored_count and not link.waits:  # of what has just been handled
            self._touch(link)
        if interest != link.interest:
            self._control(EPOLL_CTL_MOD, link.fd, interest)
            link.interest = interest
        return 0

    cdef int _end(self, Link link) except -1:
        """End a link, whose last words may be why."""
        if link.fd < 0:
            return 0
        if link.ended:
            link.send(TG_LINK_TROUBLE, payload=link.ended.encode())
            link.flush()
        del self.links[link.fd]
        self.on_end(link)
        link.release()
        os.close(link.fd)
        link.fd = -1
        return 0

    def close(self):
        """Send what the sockets take now, and end all links."""
        cdef Link link
        for link in list(self.links.values()):
            link.flush()
            link.end("")
            self._end(link)

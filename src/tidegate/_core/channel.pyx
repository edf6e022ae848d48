# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The way in of one connection: what is read is parsed turn by turn, and the reader woken.

`Channel` is the asyncio protocol that uvloop or asyncio calls. The bytes of a read are parsed, and messages handled, within
the read callback, as far as the budget of a turn (turns.pyx) and the room for frames that wait (inbox.pyx) allow; the rest
stays unparsed, reading pauses, and the connection gets into line. What is rarer than a message is passed to methods that
`asyncio.connection.Connection` defines: messages.pyi lists them, and what Connection calls. What must not live here:
handshakes, the rules of frames (parser.pyx), control frames, closing, timers, policies.
"""

from tidegate._core.writer import slow_connections

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE

from tidegate._core.counters cimport TG_RECEIVED, tg_now, tg_now_about
from tidegate._core.deflate cimport Deflate
from tidegate._core.turns cimport TURN_BYTES, TURN_SECONDS, PyThread_get_thread_ident, Turns
from tidegate._core.stream cimport Stream
from tidegate._core.writer cimport CLOSE, CONNECTING


# A read of at least this much may have filled the transport's buffer (of 250 KiB), and be followed by another in this turn.
cdef Py_ssize_t FULL_READ = 200_000


# What is missing of a payload that is read into its own place, and how much of it at once, which the cache can hold.
cdef Py_ssize_t DIRECT = 1 << 15
cdef Py_ssize_t AT_ONCE = 1 << 17


cdef class Channel(Parser):
    """The asyncio protocol of one connection, as far as it reads."""

    # Called by Connection.

    def _configure(self, loop, bint client, max_message_size, max_fragment_size, queue_high, queue_low, bint slow,
                   broadcast_limit=None):
        """Set the loop, the side and the limits, in bytes and frames; None is no limit."""
        self.loop = loop
        self.turns = Turns.of(loop)
        self.take_side(client)
        self.max_message_size = -1 if max_message_size is None else max_message_size
        self.max_fragment_size = -1 if max_fragment_size is None else max_fragment_size
        self.queue_high = -1 if queue_high is None else queue_high
        self.queue_low = -1 if queue_low is None else queue_low
        self._slow = slow
        self.broadcast_limit = -1 if broadcast_limit is None else broadcast_limit

    def _use_deflate(self, Deflate deflate not None):
        """Compress and decompress messages (RFC 7692)."""
        self.deflate = deflate
        self.rsv_allowed = 4

    def _use_extensions(self):
        """Pass every frame through Python, where extensions encode and decode it (RFC 6455 section 9)."""
        self._extended = self._slow = True
        self.rsv_allowed = 7

    def _connect(self, transport):
        """Use this transport from now on."""
        self.transport = transport
        self.write = transport.write
        # writelines() of asyncio's sockets has no write limit, and on a lost socket spoils the selector (3.12, 3.13.0).
        self.scatter = type(transport).__module__ != "asyncio.selector_events"
        self.stream = transport if isinstance(transport, Stream) else None
        self.now = tg_now()

    def _disconnect(self):
        """Let the transport go, which is lost: nothing is written any more. Bytes that came before are still parsed."""
        self.write = None
        self.stream = None
        self.reading_paused = self._write_paused = False  # a transport that is lost is asked for nothing
        slow_connections.discard(self)
        if self.chunk is not None and self._state != CONNECTING:
            self.seconds = 0
            self.take_turn(TURN_SECONDS)

    def _close_inbox(self):
        """Wake the reader of a connection that is closed. Frames that wait can still be read."""
        if self.chunk is None:
            self.discarding = True
            self.partial = None
        self._wake_reader()

    def _wake_reader(self):
        """Wake the reader, which looks whether there is an end."""
        if self.reader is not NULL and self.waiter is not None:
            self.waiter.finish(False)

    def _discard(self):
        """Discard what is read from now on (RFC 6455 sections 1.4, 7.1.7), up to the end of the stream."""
        self.discarding = True
        self.held = False
        self.chunk = self.partial = self.inflation = None
        self.unread = None
        self._resume_reading()

    def _resume_reading(self):
        """Go on parsing and reading, which waited for room."""
        self.no_room = False
        if self.chunk is not None:
            self.turns.join(self)
        elif self.reading_paused:
            self.reading_paused = False
            self.transport.resume_reading()

    @property
    def _holds_back(self):
        """Whether bytes of the peer are not parsed, or not read, because too much waits."""
        return self.reading_paused or self.chunk is not None

    @property
    def idle_since(self) -> float:
        """The time (of `loop.time()`) since which the connection is idle: when the last bytes came in; or now, while a
        message is handled, read or written."""
        if self.handling != 0 or self.queued or self.in_payload or self._write_paused or self.chunk is not None:
            return tg_now()
        return self.now

    # Reading, turn by turn.

    def data_received(self, data):
        """Parse what was read, and handle it: the transport calls it."""
        cdef bytes chunk = data if PyBytes_CheckExact(data) else bytes(memoryview(data))
        if self.turns is None:
            self.check()  # which raises
        if self._state == CONNECTING or self.discarding:
            if not self.discarding:
                self._handshake_received(chunk)
            if PyBytes_GET_SIZE(chunk) >= FULL_READ and self.charge(PyBytes_GET_SIZE(chunk), 0):
                self.wait_in_line()
        elif self.chunk is not None:
            if self.unread is None:
                self.unread = []
            self.unread.append(chunk)
            if self.gather is NULL:
                self.pause_reading()
            # else the transport has an answer to what was just written, which comes after what is being parsed
        else:
            self.chunk = chunk
            self.size = PyBytes_GET_SIZE(chunk)
            self.place = 0
            if self.in_line:
                self.pause_reading()
            elif self.gather is NULL:
                self.work(TURN_SECONDS)

    cdef int receive(self, bytes buffer, Py_ssize_t size, Py_ssize_t placed) except -1:
        """Called by a stream: data_received() of bytes that are in its buffer, of which a copy is made of what must wait."""
        if self._state == CONNECTING or self.discarding or self.chunk is not None or self.in_line or self.gather is not NULL:
            self.data_received(buffer[:size])
            return 0
        self.placed = placed
        self.chunk = buffer  # with nothing in it, too: a payload that ends in its place may take several turns to inflate
        self.size = size
        self.place = 0
        try:
            self.work(TURN_SECONDS)
        finally:
            if self.chunk is buffer:
                self.chunk = buffer[self.place:self.size]
                self.size -= self.place
                self.place = 0
        return 0

    cdef uint8_t *place_for(self, Py_ssize_t *size) except? NULL:
        """Where to read the rest of a large payload, if nothing comes before it; `receive()` is told how much that was."""
        cdef Py_ssize_t missing
        if not self.in_payload or self.discarding or self.chunk is not None or self.in_line or self.gather is not NULL:
            return NULL
        missing = self.header.length - self.partial_size
        if missing < DIRECT:
            return NULL
        if self.partial_size == <uint64_t> PyBytes_GET_SIZE(self.partial):
            self.grow_partial(self.partial_size + 1)
        size[0] = min(PyBytes_GET_SIZE(self.partial) - <Py_ssize_t> self.partial_size, AT_ONCE)
        return <uint8_t *> PyBytes_AS_STRING(self.partial) + self.partial_size

    cdef int take_turn(self, double share) except -1:
        return 0 if self.gather is not NULL else self.work(share)

    cdef int fail_turn(self, object exception) except -1:
        if self.write is not None:
            self.transport.abort()
        self.loop.call_exception_handler(
            {"message": "Fatal error: a connection could not go on", "exception": exception, "protocol": self}
        )
        return 0

    cdef int work(self, double share) except -1:
        """Parse what was read and have it handled, for about `share` seconds."""
        cdef Turns turns = self.turns
        cdef double until = turns.until
        cdef bint whole = False
        cdef Py_ssize_t size = self.placed + (0 if self.chunk is None else self.size - self.place)
        self.begin_gather()
        self.now = tg_now()
        turns.until = self.now + share
        if self.turn == turns.number:
            turns.until -= self.seconds
        turns.thread = PyThread_get_thread_ident()
        turns.callbacks += 1
        self.reader_yielded = False
        try:
            if self.placed:
                self.take_placed()
            while True:
                self.wake()
                if self.chunk is None or self.reader_yielded or (self.held and self.must_wait()) or turns.used_up():
                    break
                self.parse()
            whole = True
        finally:
            turns.callbacks -= 1
            turns.until = until
            if not whole:  # an exception, perhaps within a frame: what follows cannot be parsed
                self.discarding = True
                self.chunk = self.partial = self.inflation = None
                self.unread = None
            self.end_gather()
        return self.settle(self.charge(size, tg_now_about() - self.now))

    cdef int take_placed(self) except -1:
        cdef Py_ssize_t size = self.placed
        self.placed = 0
        return self.extend_partial(<uint8_t *> PyBytes_AS_STRING(self.partial) + self.partial_size, size)

    cdef int settle(self, bint over) except -1:
        """Read on, wait for room, or get into line for the next turn: after a turn."""
        if self.write is None:
            return 0
        if self.chunk is not None and self.held and self.must_wait() and self.header.opcode != CLOSE:
            self.pause_reading()
            self.counts.pauses[TG_RECEIVED] += not self.no_room
            self.no_room = True
        elif over or self.chunk is not None or self.reader_yielded:
            self.wait_in_line()
        elif self.reading_paused:
            self._resume_reading()
        return 0

    cdef int wait_in_line(self) except -1:
        """Go on in the next turn."""
        self.pause_reading()
        return self.turns.join(self)

    cdef int pause_reading(self) except -1:
        """Have the transport read no more."""
        if self.reading_paused or self.write is None:
            return 0
        if self.stream is not None:
            self.reading_paused = self.stream.reading_paused = True
        elif not self.transport.is_closing():
            self.reading_paused = True
            self.transport.pause_reading()
        return 0

    cdef bint charge(self, Py_ssize_t size, double seconds) except -1:
        """Take so much from the budget of this turn. Return whether it is used up."""
        if self.turn != self.turns.number:
            self.turn = self.turns.number
            self.seconds = 0
            self.bytes_read = 0
        self.seconds += seconds
        self.bytes_read += size
        if self.seconds > TURN_SECONDS / 8 or self.bytes_read > TURN_BYTES / 8:
            self.turns.mark()  # more may come in the same turn
        return self.seconds >= TURN_SECONDS or self.bytes_read >= TURN_BYTES

    cdef int find_room(self) except -1:
        self.no_room = False
        return self.turns.join(self)

    cdef int read_rest(self) except -1:
        """Parse what was read before the connection was closed, until a reader has something to read."""
        while self.chunk is not None and not self.readable(self.reader_takes_frames):
            self.parse()
        return 0

    cdef bint more_to_handle(self) noexcept:
        return self.queued > 0 or (self.chunk is not None and self.place < self.size)

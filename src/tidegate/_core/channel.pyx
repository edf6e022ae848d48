# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, binding=False, auto_pickle=False
"""The way in of one connection: what is read is parsed turn by turn, and the reader woken.

`Channel` is the asyncio protocol that uvloop or asyncio calls. What a read brings is parsed and handled within the read
callback, as far as the budget of a turn (turns.pyx) and the room for frames that wait (inbox.pyx) allow; the rest stays as
it came, reading pauses, and the connection gets into line. Whatever is rarer than a message goes to a few methods that
`asyncio.connection.Connection` defines; they are named together at the end of the class. What must not live here:
handshakes, the rules of frames (parser.pyx), control frames, closing, timers, policies.
"""

from tidegate._core.writer import slow_connections

from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE

from tidegate._core.counters cimport TG_RECEIVED, tg_now, tg_now_about
from tidegate._core.deflate cimport Deflate
from tidegate._core.turns cimport TURN_BYTES, TURN_SECONDS, PyThread_get_thread_ident, Turns
from tidegate._core.writer cimport CLOSE, CONNECTING, NONE, UNKNOWN


# A read of at least this much may have filled the transport's buffer (of 250 KiB), and be followed by another in this turn.
cdef Py_ssize_t FULL_READ = 200_000


cdef class Channel(Parser):
    """One connection's protocol, to be subclassed: see the module."""

    def _configure(self, loop, bint client, max_message_size, max_fragment_size, queue_high, queue_low, bint slow):
        """Settings of the native side, in bytes and frames; None is no limit."""
        self.loop = loop
        self.turns = Turns.of(loop)
        self.take_side(client)
        self.max_message_size = -1 if max_message_size is None else max_message_size
        self.max_fragment_size = -1 if max_fragment_size is None else max_fragment_size
        self.queue_high = -1 if queue_high is None else queue_high
        self.queue_low = -1 if queue_low is None else queue_low
        self._slow = slow

    def _use_deflate(self, Deflate deflate not None):
        """Compress and decompress messages (RFC 7692)."""
        self.deflate = deflate
        self.rsv_allowed = 4

    def _use_extensions(self):
        """Let Python see every frame: what its reserved bits mean is for the extensions to know."""
        self._extended = self._slow = True
        self.rsv_allowed = 7

    def _connect(self, transport):
        """Write to and read from `transport` from now on."""
        self.transport = transport
        self.write = transport.write
        # writelines() of asyncio's own sockets has no write limit, and on a lost one spoils the selector (3.12, 3.13.0).
        self.scatter = type(transport).__module__ != "asyncio.selector_events"
        self.descriptor = UNKNOWN
        self.now = tg_now()

    def _disconnect(self):
        """The transport is gone: nothing is written any more. What came before that has another turn."""
        self.write = None
        self.descriptor = NONE
        self.reading_paused = self._write_paused = False  # a transport that is gone is asked for nothing
        slow_connections.discard(self)
        if self.chunk is not None and self._state != CONNECTING:
            self.seconds = 0
            self.take_turn(TURN_SECONDS)

    def _close_inbox(self):
        """The connection is closed: frames that wait can still be read."""
        if self.chunk is None:
            self.discarding = True
            self.partial = None
        if self.reader is not NULL and self.waiter is not None:
            self.waiter.finish(False)

    def _discard(self):
        """Read nothing more (RFC 6455 sections 1.4, 7.1.7), but let the end of the stream be seen."""
        self.discarding = True
        self.held = False
        self.chunk = self.partial = self.inflation = None
        self.unread = None
        self._resume_reading()

    def _resume_reading(self):
        """Go on with what has been read, and then with reading: nothing has to wait for room any more."""
        self.no_room = False
        if self.chunk is not None:
            self.turns.join(self)
        elif self.reading_paused:
            self.reading_paused = False
            self.transport.resume_reading()

    @property
    def _holds_back(self):
        """Whether something of the peer's has not been looked at, or is not read, because there is too much."""
        return self.reading_paused or self.chunk is not None

    @property
    def idle_since(self) -> float:
        """Since when nothing is going on, in seconds of CLOCK_MONOTONIC (the clock of loop.time()): the last bytes that
        came in, or now while a message is being handled, read or written."""
        if self.handling != 0 or self.queued or self.in_payload or self._write_paused or self.chunk is not None:
            return tg_now()
        return self.now

    # Reading, turn by turn.

    def data_received(self, data):
        """Called by the transport."""
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
            # else a transport has an answer to what was just written: it comes after what is being parsed
        else:
            self.chunk = chunk
            self.place = 0
            if self.in_line:
                self.pause_reading()
            elif self.gather is NULL:
                self.work(TURN_SECONDS)

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
        """Parse what has come and have it handled, for about `share` seconds."""
        cdef Turns turns = self.turns
        cdef double until = turns.until
        cdef bint whole = False
        cdef Py_ssize_t size = 0 if self.chunk is None else PyBytes_GET_SIZE(self.chunk) - self.place
        self.begin_gather()
        self.now = tg_now()
        turns.until = self.now + share
        if self.turn == turns.number:
            turns.until -= self.seconds
        turns.thread = PyThread_get_thread_ident()
        turns.callbacks += 1
        self.reader_yielded = False
        try:
            while True:
                self.wake()
                if self.chunk is None or self.reader_yielded or (self.held and self.must_wait()) or turns.used_up():
                    break
                self.parse()
            whole = True
        finally:
            turns.callbacks -= 1
            turns.until = until
            if not whole:  # an exception, in the middle of a frame perhaps: what follows makes no sense any more
                self.discarding = True
                self.chunk = self.partial = self.inflation = None
                self.unread = None
            self.end_gather()
        return self.settle(self.charge(size, tg_now_about() - self.now))

    cdef int settle(self, bint over) except -1:
        """After a turn: read on, wait for room, or get into line for the next one."""
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
        self.pause_reading()
        return self.turns.join(self)

    cdef int pause_reading(self) except -1:
        if not self.reading_paused and self.write is not None and not self.transport.is_closing():
            self.reading_paused = True
            self.transport.pause_reading()
        return 0

    cdef bint charge(self, Py_ssize_t size, double seconds) except -1:
        """Take so much from the budget of this turn: whether it is used up."""
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
        """A reader has nothing more to read of a connection that is closed: parse what came before that."""
        while self.chunk is not None and not self.readable(self.reader_takes_frames):
            self.parse()
        return 0

    cdef bint more_to_handle(self):
        return self.queued > 0 or (self.chunk is not None and self.place < PyBytes_GET_SIZE(self.chunk))

    # Doors to Python, which Connection defines:
    #   _handshake_received(data)            bytes before the connection is open
    #   _control_received(opcode, payload)   a control frame
    #   _frame_received(opcode, fin, payload)  a data frame, if it is to be logged
    #   _frame_decoded(opcode, fin, rsv, payload, limit)  what extensions make of a frame; None if they failed
    #   _fail_received(what, detail)         the peer broke the protocol; nothing more is read
    #   _write_failed(exception)             the transport refused to write
    #   _drained()                           the transport wrote enough: senders may go on
    #   _drain()                             coroutine: wait for that
    #   _iterate()                           asynchronous iterator of what a subclass's own recv() returns
    #   _send_slowly(message, text)          coroutine: send what is not simple
    #   _recv_undecodable(exception)         coroutine: recv(decode=True) met bytes that are no UTF-8
    #   _concurrent_read(mode)               the exception for a second reader
    #   _closed_exception(iterating)         the exception that says how the connection ended

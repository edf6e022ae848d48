# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""The connections of a load generator: what they send, and how long each message takes to be answered.

Each sends one frame that was made and masked ahead, again and again, and takes any message for the answer to the oldest
of its own that are in flight. There are three ways to send:

    closed loop    `in_flight` messages on each connection, and a new one for each answer
    a rate         message k of all connections is due at k / rate seconds; each has its turn. One that cannot leave
                   because `in_flight` others are not answered leaves later, and its latency counts from the moment when
                   it was due: a server that stalls is not excused from what would have been sent meanwhile
                   (coordinated omission)
    fan            the first connection sends, and a round is complete when every other one has a message; by a rate or
                   one right after the other

What must not live here: opening handshakes and what is told to people (cli/bench), the clock's own (timer.pyx).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from tidegate._core.histogram cimport Histogram
from tidegate._core.scanner cimport Scanner
from tidegate._core.stream cimport Stream
from tidegate._core.timer cimport Timer
from tidegate._core.wire cimport new_key, tg_build_header, tg_unmask


cdef extern from "load.h" nogil:
    const uint64_t TG_SECOND
    uint64_t tg_nanoseconds()


cdef enum:
    BATCH = 1 << 16  # bytes of frames that are written at once
    TICK = 256  # messages that leave in one look at what is due, before answers are read

cdef double FOREVER = 2.0**60  # nanoseconds; a rate may be as low as it likes

# Opcodes, RFC 6455 section 11.8.
cdef enum:
    CLOSE = 8
    PING = 9
    PONG = 10


cdef class Payload:
    """A message, as it is sent: one frame, masked once for all.

    Args:
        first: the first byte of the frame: FIN, reserved bits and opcode.
        data: the payload.
        in_flight: how many of them a connection may send at once.
    """

    def __cinit__(self, uint8_t first, bytes data not None, int in_flight):
        cdef uint8_t header[14]
        cdef size_t size = tg_build_header(header, first, PyBytes_GET_SIZE(data), 1)
        cdef bytes frame = PyBytes_FromStringAndSize(NULL, size + PyBytes_GET_SIZE(data))
        cdef uint8_t *p = <uint8_t *> PyBytes_AS_STRING(frame)
        if in_flight < 1:
            raise ValueError("in_flight must be at least 1")
        new_key(header + size - 4)
        memcpy(p, header, size)
        tg_unmask(p + size, <const uint8_t *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), header + size - 4, 0)
        self.frame = frame
        self.frames = min(in_flight, max(1, BATCH // PyBytes_GET_SIZE(frame)))
        self.batch = frame * self.frames


cdef class Load:
    """What the connections of one process do, and what they have counted.

    Args:
        in_flight: messages of a connection that may wait for their answer.
        rate: messages, or rounds of a fan, a second over all connections; 0: as fast as they are answered.
        fan: whether the first connection sends to all others.
        on_lost: called with a connection that was lost though it was not closed here, and the reason.

    Attributes:
        latencies: of messages, or rounds, since `take_latencies()`.
        sent: messages that have left, from the start on.
        answered: messages that came within what is measured.
        bytes_received: within what is measured.
        unexpected: messages that came though none was in flight, or that a round did not wait for.
        sending: whether it has started, and not ended.
    """

    def __cinit__(self, int in_flight, double rate, bint fan, on_lost):
        if in_flight < 1 or not rate >= 0:
            raise ValueError("in_flight must be at least 1, and rate not below 0")
        self.in_flight, self.rate, self.fan, self.on_lost = in_flight, rate, fan, on_lost
        self.latencies = Histogram()
        self.connections = []

    def take_latencies(self):
        """The latencies of messages, or rounds, since this was called before."""
        cdef Histogram taken = self.latencies
        self.latencies = Histogram()
        return taken

    def start(self, loop, connections, uint64_t begins, uint64_t ends):
        """Send over these, first the sender of a fan; measure between two moments of time.monotonic_ns()."""
        cdef LoadConnection connection
        cdef list given = [<LoadConnection?> each for each in connections]
        if self.connections or not given:
            raise RuntimeError("there must be connections, and it starts once")
        for connection in given:
            if connection.load is not self or connection.payload is None:
                raise ValueError("a connection is of another load, or has nothing to send")
        self.connections = given
        self.begins, self.ends, self.sending = begins, ends, True
        self.origin = min(tg_nanoseconds(), begins)  # by a rate, all of what is measured has its moment
        self.stride = len(self.connections)
        for place, connection in enumerate(self.connections):
            connection.place = place
        if self.fan:
            self.sender = self.connections[0]
        if self.rate:
            self.pacer = Pacer(loop)
            self.pacer.load = self
            self.pacer.arm(self.origin)
        elif self.fan:
            self.start_round(tg_nanoseconds())
        else:
            for connection in self.connections:
                connection.send(self.in_flight, tg_nanoseconds())

    def stop(self):
        """Send nothing more, but for what is due already."""
        self.sending = False
        if self.pacer is not None:
            self.pacer.stop()
            self.pacer = None

    def give_up(self, uint64_t now):
        """Take what is not answered for answered now, if it belongs to what is measured; return how many that are.

        By a rate those count that could not even leave: without them, a server that never answers again had no latency.
        """
        cdef LoadConnection connection
        cdef uint64_t found = 0, number, since
        if self.fan:
            if self.missing and self.round_due < self.ends and (self.begins <= self.round_due or not self.rate):
                self.latencies.add(now - self.round_due, 1)
                found = 1
            self.missing = 0
            return found
        for connection in self.connections:
            for number in range(<uint64_t> connection.flying):
                since = connection.times[(connection.first + <int> number) % self.in_flight]
                if since < self.ends and since < now and (self.begins <= since or not self.rate):
                    self.latencies.add(now - since, 1)
                    found += 1
            connection.flying = 0
            for number in range(connection.gone, connection.due):
                since = self.moment(number * self.stride + connection.place)
                if self.begins <= since < self.ends and since < now:
                    self.latencies.add(now - since, 1)
                    found += 1
            connection.gone = connection.due
        return found

    @property
    def flying(self):
        """Messages, or rounds, whose answer is awaited; by a rate with those that could not leave yet."""
        cdef LoadConnection connection
        cdef uint64_t found = 0
        if self.fan:
            return 1 if self.missing else 0
        for connection in self.connections:
            found += <uint64_t> connection.flying + connection.due - connection.gone
        return found

    cdef uint64_t moment(self, uint64_t number) noexcept:
        """When a message, or a round, is due by the rate."""
        return self.origin + <uint64_t> min(<double> number * (<double> TG_SECOND / self.rate), FOREVER)

    cdef int tick(self) except -1:
        """Send what has come due, and come again for the next."""
        cdef LoadConnection connection
        cdef uint64_t now = tg_nanoseconds(), moment
        cdef int n
        if self.fan:
            return self.start_round(self.moment(self.due))
        for n in range(TICK):
            moment = self.moment(self.due)
            if moment >= self.ends:
                return 0
            if moment > now:
                break
            connection = self.connections[self.due % self.stride]
            self.due += 1
            if connection.transport is not None:
                connection.due += 1
                connection.send_due()
        return self.pacer.arm(self.moment(self.due)) if self.pacer is not None else 0

    cdef int count(self, uint64_t since, uint64_t now) except -1:
        """Record what is answered now; by a rate it counts if it was due within what is measured."""
        if self.begins <= (since if self.rate else now) < self.ends:
            self.latencies.add(now - since, 1)
        return 0

    # Rounds of a fan.

    cdef int start_round(self, uint64_t due) except -1:
        cdef LoadConnection connection
        if not self.sending or due >= self.ends:
            return 0
        self.due += 1
        self.round_due = due
        self.missing = 0
        for connection in self.connections:
            if connection is not self.sender and connection.transport is not None:
                self.missing += 1
        if self.missing and self.sender.transport is not None:
            self.sent += 1
            self.sender.write_frames(1)
        return 0

    cdef int delivered(self, LoadConnection connection, Py_ssize_t messages, uint64_t now) except -1:
        """A connection has messages; one of them is of this round."""
        if connection is self.sender:
            return 0  # some servers send to the sender as well
        if connection.rounds == self.due or self.missing == 0:
            self.unexpected += messages
            return 0
        self.unexpected += messages - 1
        connection.rounds = self.due
        if self.begins <= now < self.ends:
            self.answered += 1
        return self.one_less(now)

    cdef int one_less(self, uint64_t now) except -1:
        """One that the round waited for is there, or lost."""
        self.missing -= 1
        if self.missing:
            return 0
        self.count(self.round_due, now)
        if self.pacer is not None:
            return self.pacer.arm(self.moment(self.due))
        return self.start_round(now)

    cdef int lost(self, LoadConnection connection, str reason) except -1:
        if self.fan and self.sending and self.missing and connection is not self.sender and connection.rounds != self.due:
            self.one_less(tg_nanoseconds())
        self.on_lost(connection, reason)
        return 0


cdef class Pacer(Timer):
    """Tells when the next message is due."""

    cdef int came(self) except -1:
        return self.load.tick()


cdef class LoadConnection(Scanner):
    """A connection, as a protocol of asyncio; on our own streams without a bytes object for what is read.

    Args:
        load: what it is a part of.
        opening: does the opening handshake: told of the transport, then given what comes until it returns what is left.

    Attributes:
        failure: what the server did wrong, or None.
    """

    def __cinit__(self, Load load not None, opening):
        self.load, self.opening = load, opening
        self.times = <uint64_t *> calloc(load.in_flight, sizeof(uint64_t))
        if self.times is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.times)

    def use(self, Payload payload not None, bint compressed, bint raw=False):
        """Send this, once the opening handshake is done, in which compression may have been agreed on.

        A raw connection has had none: the server sends back what it is sent, byte for byte.
        """
        self.payload, self.compressed, self.raw = payload, compressed, raw
        if raw:
            self.opening = None

    @property
    def is_open(self):
        """Whether there is a transport."""
        return self.transport is not None

    # What asyncio calls.

    def connection_made(self, transport):
        self.transport = transport
        if type(transport) is Stream:
            self.stream = transport
        self.opening.connected(transport)

    def data_received(self, bytes data):
        self.take(<const uint8_t *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def eof_received(self):
        return None

    def pause_writing(self):
        """In flight is no more than it was told, whatever the socket takes."""

    def resume_writing(self):
        pass

    def connection_lost(self, exc):
        self.transport = self.stream = None
        self.flying, self.gone = 0, self.due
        opening, self.opening = self.opening, None
        if opening is not None:
            opening.lost(exc)
        elif not self.closing or self.failure is not None:
            reason = self.failure
            if reason is None:
                reason = "ended by the server without a close frame" if exc is None else f"lost: {exc}"
            self.load.lost(self, reason)

    cdef int receive(self, bytes buffer, Py_ssize_t size, Py_ssize_t placed) except -1:
        return self.take(<const uint8_t *> PyBytes_AS_STRING(buffer), size)

    # Out.

    cdef int write(self, const uint8_t *p, Py_ssize_t n, bytes owner) except -1:
        if self.stream is not None:
            return self.stream.send(p, n, owner)
        if self.transport is not None:
            self.transport.write(owner if owner is not None else PyBytes_FromStringAndSize(<const char *> p, n))
        return 0

    cdef int write_frames(self, int messages) except -1:
        cdef Py_ssize_t n, size = PyBytes_GET_SIZE(self.payload.frame)
        while messages > 0:
            n = min(<Py_ssize_t> messages, self.payload.frames)
            self.write(
                <const uint8_t *> PyBytes_AS_STRING(self.payload.batch),
                n * size,
                self.payload.batch if n == self.payload.frames else None,
            )
            messages -= <int> n
        return 0

    cdef int write_control(self, uint8_t opcode, const uint8_t *p, Py_ssize_t n) except -1:
        cdef uint8_t frame[14 + 125]
        cdef size_t size = tg_build_header(frame, 0x80 | opcode, n, 1)
        new_key(frame + size - 4)
        tg_unmask(frame + size, p, n, frame + size - 4, 0)
        return self.write(frame, size + n, None)

    cdef int note(self, uint64_t since) noexcept:
        """One more is in flight."""
        cdef int last = self.first + self.flying
        self.times[last if last < self.load.in_flight else last - self.load.in_flight] = since
        self.flying += 1
        self.load.sent += 1
        return 0

    cdef int send(self, int messages, uint64_t now) except -1:
        cdef int i
        for i in range(messages):
            self.note(now)
        return self.write_frames(messages)

    cdef int send_due(self) except -1:
        """Send what came due, as far as it may be in flight."""
        cdef int i, n = <int> min(self.due - self.gone, <uint64_t> (self.load.in_flight - self.flying))
        for i in range(n):
            self.note(self.load.moment(self.gone * self.load.stride + self.place))
            self.gone += 1
        return self.write_frames(n)

    def close(self):
        """Start the closing handshake."""
        cdef uint8_t code[2]
        if self.transport is not None and not self.closing:
            self.closing = True
            code[0], code[1] = 1000 >> 8, 1000 & 255
            self.write_control(CLOSE, code, 2)

    def abort(self):
        """End at once."""
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    # In.

    cdef int take(self, const uint8_t *p, Py_ssize_t n) except -1:
        cdef Py_ssize_t messages
        cdef uint64_t now
        cdef bytes rest
        if self.opening is not None:
            rest = self.opening.feed(PyBytes_FromStringAndSize(<const char *> p, n))
            if rest is None:
                return 0
            self.opening = None
            p, n = <const uint8_t *> PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest)
        messages = self.parse(p, n)
        now = tg_nanoseconds()
        if self.load.begins <= now < self.load.ends:
            self.load.bytes_received += n
        return self.answer(messages, now) if messages else 0

    cdef int control_received(self, uint8_t opcode, const uint8_t *p, int n) except -1:
        cdef int code
        if opcode == PING and not self.closing:
            self.write_control(PONG, p, n)
        elif opcode == CLOSE:
            if not self.closing:
                code = p[0] << 8 | p[1] if n > 1 else 1005
                self.write_control(CLOSE, p, min(n, 2))
                self.failure = f"closed by the server with {code}"
            if self.transport is not None:
                self.transport.close()
        return 0

    cdef int answer(self, Py_ssize_t messages, uint64_t now) except -1:
        cdef Load load = self.load
        cdef int i, n = <int> min(messages, <Py_ssize_t> self.flying)
        if load.fan:
            return load.delivered(self, messages, now)
        load.unexpected += messages - n
        for i in range(n):
            load.count(self.times[self.first], now)
            self.first = self.first + 1 if self.first + 1 < load.in_flight else 0
        self.flying -= n
        if load.begins <= now < load.ends:
            load.answered += n
        if self.closing or self.failure is not None:
            return 0
        if load.rate:
            return self.send_due()  # which was due in time, whatever time it is now
        return self.send(n, now) if load.sending and now < load.ends else 0

    cdef int wrong(self, str reason) except -1:
        """The server broke the protocol."""
        cdef uint8_t code[2]
        self.failure = f"protocol error: {reason}"
        code[0], code[1] = 1002 >> 8, 1002 & 255
        self.write_control(CLOSE, code, 2)
        if self.transport is not None:
            self.transport.close()
        return 0

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""What one process counts: a `Row`, with one writer and no lock, and the names of its fields.

    FIELDS            each field of a row, by its name: a `Field`; it follows from the table in counters.h
    BOUNDS            of each histogram, the finite upper bounds of its buckets
    HANDSHAKE_RESULTS, CLOSE_CODES, INITIATORS, ...   the closed sets of names in FIELDS
    ENGINES           what the bus of a process may be
    BusState          what a process says of its bus
    RESULT_OF_STATUS  the handshake result by the status of the answer
    current, use      the row that this process counts in

Native code counts messages, bytes, pauses and handler durations straight into the row (counters.h); the methods of `Row`
are for what is rarer than a message. What must not live here: the shared file (scoreboard), reads of it (snapshot), names,
help and labels of metrics (metrics/catalog).
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

import os
from collections import namedtuple
from itertools import product
from types import MappingProxyType


cdef extern from "counters.h" nogil:
    const int TG_COUNTER, TG_HISTOGRAM, TG_GAUGE
    const size_t TG_FIELD_COUNT
    const tg_field *TG_FIELDS

    int64_t tg_connections(const tg_row *row)


ENGINES = ("memory", "local", "redis", "nats")  # a name is added at the end, and never moved

BusState = namedtuple("BusState", "engine up required changed_at reason")
BusState.__doc__ = "What a process says of its bus."
BusState.engine.__doc__ = "One of `ENGINES`."
BusState.up.__doc__ = "Whether messages come."
BusState.required.__doc__ = "Whether the daemon is not ready without it."
BusState.changed_at.__doc__ = "`time.monotonic()` of the last change of `up`."
BusState.reason.__doc__ = "Why messages do not come, cut to what has room."


Field = namedtuple("Field", "offset size kind names places bounds ticks")
Field.__doc__ = "A field of a row: one or more 64-bit words."
Field.offset.__doc__ = "The number of words before it."
Field.size.__doc__ = "The number of its words."
Field.kind.__doc__ = "counter, histogram or gauge."
Field.names.__doc__ = "Of a counter's words: a closed set of names for each dimension."
Field.places.__doc__ = "Names of a word -> its place among the words; (): the only word."
Field.bounds.__doc__ = "Of a histogram: the finite upper bounds of its buckets; +Inf follows, and the sum is the last word."
Field.ticks.__doc__ = "Of a histogram: what its sum counts in one second, or in one byte."


def _places(names, size):
    """Return the place of each word of a counter by its names; only the last dimension has words without a name."""
    *first, last = names
    outer = list(product(*first))
    room = size // len(outer)
    assert len(last) <= room and size % len(outer) == 0
    return {(*of, name): room * i + j for i, of in enumerate(outer) for j, name in enumerate(last)}


cdef dict table_of(const tg_field *table, size_t count):
    """Return the fields of a table of C, by their names."""
    cdef const tg_field *field
    cdef size_t i
    fields = {}
    for i in range(count):
        field = table + i
        kind = {TG_COUNTER: "counter", TG_HISTOGRAM: "histogram", TG_GAUGE: "gauge"}[field.kind]
        lists = (<bytes>field.names).decode().split(",") if field.names[0] else []
        names = tuple([tuple(names.split()) for names in lists])
        places = _places(names, field.count) if names else {(): 0} if field.count == 1 else {}
        bounds = tuple([field.bounds[j] for j in range(field.bounds_count)])
        fields[(<bytes>field.name).decode()] = Field(
            field.offset, field.count, kind, names, places, bounds, field.ticks
        )
    return fields


cdef dict _fields = table_of(TG_FIELDS, TG_FIELD_COUNT)
cdef dict _numbers = {name: i for i, name in enumerate(_fields)}
FIELDS = MappingProxyType(_fields)  # offsets are used as they are
BOUNDS = {name: field.bounds for name, field in FIELDS.items() if field.bounds}

(HANDSHAKE_RESULTS,) = FIELDS["handshakes"].names
INITIATORS, CLOSE_CODES = FIELDS["closes"].names
DIRECTIONS, OPCODES = FIELDS["messages"].names
(LIMITS,) = FIELDS["limit_rejections"].names
(SLOW_ACTIONS,) = FIELDS["slow_consumers"].names
(GC_GENERATIONS,) = FIELDS["gc_collections"].names

# Every other status was chosen by a hook: "rejected".
RESULT_OF_STATUS = {
    101: "ok", 400: "bad_request", 403: "forbidden", 405: "method_not_allowed", 408: "timeout", 413: "too_large",
    414: "too_large", 426: "upgrade_required", 429: "limited", 431: "too_large", 500: "error", 503: "unavailable",
    505: "version_not_supported",
}


cdef str _name_of_code(int code):
    """Return the name under which a close code is counted."""
    if 1000 <= code < 1016:
        return str(code)
    if 3000 <= code < 4000:
        return "3xxx"
    if 4000 <= code < 5000:
        return "4xxx"
    return "other"


cdef object _field(dict fields, str name, str kind):
    """Return the field with this name. ValueError, if there is none of this kind."""
    field = fields.get(name)
    if field is None or field.kind != kind:
        known = ", ".join([name for name, field in fields.items() if field.kind == kind])
        raise ValueError(f"unknown {kind} {name!r}: it must be one of {known}")
    return field


cdef size_t word_of(dict fields, str name, tuple names) except? 0:
    """Return the place of a counter's word with these names. ValueError, if there is none."""
    field = _field(fields, name, "counter")
    place = field.places.get(names)
    if place is None:
        for given, choice in zip(names, field.names):
            if given not in choice:
                raise ValueError(f"{name} has no {given!r}: it must be one of {', '.join(choice)}")
        raise ValueError(f"{name} has words with {len(field.names)} names, not {len(names)}")
    return field.offset + place


cdef str read_text(const tg_text *text):
    """Return a text of shared memory."""
    return (<const char *>text.text)[:TG_TEXT_BYTES].partition(b"\0")[0].decode(errors="ignore")


cdef int write_text(tg_text *into, str text) except -1:
    """Write a text to shared memory, cut to what has room."""
    cdef bytes data = text.encode(errors="replace")[:TG_TEXT_BYTES]
    memset(<char *>into.text, 0, TG_TEXT_BYTES)
    memcpy(<char *>into.text, <const char *>data, len(data))
    return 0


@cython.no_gc
@cython.final
cdef class Row:
    """What one process counts. `Row()` is a private one, in ordinary memory.

    Native code counts messages, bytes, pauses and handler durations straight into it; the methods are for what is rarer
    than a message. Counts are not checked against each other: each `accepted()` must be followed by one `handshake()`.
    `index` is the number of the row in its scoreboard, -1 for a private one.
    """

    # cdef tg_row *data, object _owner: see counters.pxd

    def __cinit__(self):
        self.index = -1
        self.data = <tg_row *>calloc(1, sizeof(tg_row))
        if self.data == NULL:
            raise MemoryError()

    def __dealloc__(self):
        if self._owner is None:
            free(self.data)

    # Any counter or histogram, by its name in the table of counters.h.

    cdef int _inc(self, str name, tuple names, uint64_t by) except -1:
        (<uint64_t *>self.data)[word_of(_fields, name, names)] += by
        return 0

    cdef int _observe(self, str name, double value) except -1:
        cdef size_t offset = _field(_fields, name, "histogram").offset
        cdef const tg_field *field = TG_FIELDS + <size_t>_numbers[name]
        tg_observe_in(<tg_histogram *>(<uint64_t *>self.data + offset), field.bounds, field.bounds_count, value, field.ticks)
        return 0

    def inc(self, str counter not None, *names, uint64_t by=1):
        """Count one more, or `by` more, in the word of a counter that has these names; one without names has one word.

        ValueError, if there is no such counter or word.
        """
        self._inc(counter, names, by)

    def observe(self, str histogram not None, double value):
        """Count a value in a histogram. ValueError, if there is no such histogram."""
        self._observe(histogram, value)

    # One connection's life, in reading order.

    def accepted(self):
        """Count a TCP connection that was accepted: it is handshaking from now."""
        self.data.connections_accepted += 1
        self.data.connections_handshaking += 1

    def handshake(self, result, double seconds):
        """Count the end of a handshake, `seconds` after `accepted()`. With "ok", call `opened()` as well."""
        self._inc("handshakes", (result,), 1)
        self._observe("handshake_duration", seconds)
        self.data.connections_handshaking -= 1

    def opened(self):
        """Count a connection as open."""
        self.data.connections_open += 1

    def closing(self):
        """Count an open connection as closing: a close frame was sent or received."""
        self.data.connections_open -= 1
        self.data.connections_closing += 1

    def closed(self, int code, initiator, double seconds, state="closing"):
        """Count the end of a connection, `seconds` after `opened()`, while it was in `state`.

        `code` is the close code (1006 without a close frame); `initiator` one of `INITIATORS`.
        """
        if state not in ("closing", "open"):
            raise ValueError(f"unknown state {state!r}: it must be one of open, closing")
        self._inc("closes", (initiator, _name_of_code(code)), 1)
        self._observe("connection_duration", seconds)
        if state == "closing":
            self.data.connections_closing -= 1
        else:
            self.data.connections_open -= 1

    # One that speaks HTTP, for an ASGI application.

    def http_opened(self):
        """Count a connection that was handshaking as one that speaks HTTP: its first request opens no WebSocket."""
        self.data.connections_handshaking -= 1
        self.data.connections_http += 1

    def http_request(self, int status, double seconds):
        """Count a request that ended, `seconds` after it came, with a response of this status."""
        self.data.http_requests[min(max(status // 100, 1), 5) - 1] += 1
        tg_observe(&self.data.http_request_duration, TG_DURATIONS, TG_BOUNDS, seconds)

    def http_upgraded(self):
        """Count a connection that spoke HTTP as handshaking: a request of it opens a WebSocket."""
        self.data.connections_http -= 1
        self.data.connections_handshaking += 1

    def http_closed(self):
        """Count the end of a connection that spoke HTTP."""
        self.data.connections_http -= 1

    @property
    def connections_of_all(self):
        """Connections of all workers of the daemon now, whatever their state; of this row alone, if it is private."""
        return tg_connections(self.data) if self._owner is None else self._owner.connections

    # The process itself.

    def tick(self, double now, double lag):
        """Record that the event loop ran at `now` (`time.monotonic()`), `lag` seconds later than planned."""
        self.data.heartbeat = now
        self._observe("event_loop_lag", lag)

    @property
    def heartbeat(self):
        """`time.monotonic()` of the last `tick()`; 0.0 before the first."""
        return self.data.heartbeat

    def send_queues(self, int64_t connections, int64_t total, uint64_t largest):
        """Set how many connections have more than their write limit to be sent, and how many bytes: in total, and for
        the one that has most."""
        self.data.send_queue_connections = connections
        self.data.send_queue_bytes = total
        self.data.send_queue_max_bytes = largest

    @property
    def send_queue_max_bytes(self):
        """Bytes that wait for the slowest client, as `send_queues()` was told."""
        return self.data.send_queue_max_bytes

    @property
    def connections_max(self):
        """The limits of connections of this process and of the whole daemon; None: no such limit."""
        return self.data.connections_max, self.data.connections_max_of_all or None

    @connections_max.setter
    def connections_max(self, limits):
        own, of_all = limits
        self.data.connections_max = own
        self.data.connections_max_of_all = of_all or 0

    def set(self, str gauge not None, int64_t value):
        """Set a gauge. ValueError, if there is no such gauge."""
        (<int64_t *>self.data)[<size_t>_field(_fields, gauge, "gauge").offset] = value

    # The bus of the process.

    def fanned_out(self, messages, double began):
        """Count what was given to members at once, from `began` (Unix time) until now: how long that took, and for each
        message how long it had been under way before."""
        cdef timespec now
        clock_gettime(CLOCK_REALTIME, &now)
        for message in messages:
            tg_count_lag(self.data, began - <double>message.time)
        tg_count_fanout(self.data, <double>now.tv_sec + now.tv_nsec * 1e-9 - began)

    def published(self, double seconds):
        """Count a publication that took so long to be stored."""
        tg_count_publish(self.data, seconds)

    @property
    def bus(self):
        """The `BusState` of the process, as it was set; None: it has no bus."""
        cdef uint64_t engine = self.data.bus_engine
        if not 1 <= engine <= <uint64_t>len(ENGINES):
            return None
        reason = read_text(&self.data.bus_reason)
        up, required = self.data.bus_up != 0, self.data.bus_required != 0
        return BusState(ENGINES[engine - 1], up, required, self.data.bus_changed_at, reason)

    @bus.setter
    def bus(self, state):
        if state.engine not in ENGINES:
            raise ValueError(f"unknown engine {state.engine!r}: it must be one of {', '.join(ENGINES)}")
        cdef uint64_t engine = ENGINES.index(state.engine) + 1
        write_text(&self.data.bus_reason, state.reason)
        self.data.bus_up = state.up
        self.data.bus_required = state.required
        self.data.bus_changed_at = state.changed_at
        self.data.bus_engine = engine

    def begin_window(self, double now):
        """Note what is counted of the bus by now (`time.monotonic()`), to be called every ten seconds."""
        cdef tg_window *window = &self.data.bus_next_window
        self.data.bus_window = window[0]
        window.published, window.lag = self.data.bus_published, self.data.bus_lag
        window.at = now
        if self.data.bus_window.at == 0:
            self.data.bus_window = window[0]

    @property
    def bus_window(self):
        """Of the last ten to twenty seconds: `time.monotonic()` of their beginning, publications, and lag by buckets."""
        cdef const tg_window *window = &self.data.bus_window
        lag = tuple([self.data.bus_lag.bucket[i] - window.lag.bucket[i] for i in range(TG_BOUNDS + 1)])
        return window.at, self.data.bus_published - window.published, lag

    def words(self, name):
        """Return the words of the field `name` of `FIELDS`: of a counter, each at its place in `Field.places`.

        Of a histogram: each bucket (not cumulative), +Inf after the last bound, zeros, the sum in ticks as the last.
        """
        cdef size_t offset, count
        cdef const uint64_t *data = <const uint64_t *>self.data
        field = _fields.get(name)
        if field is None:
            raise ValueError(f"unknown field {name!r}: it must be one of {', '.join(_fields)}")
        offset = field.offset
        count = field.size
        if field.kind == "gauge":
            return tuple([<int64_t>data[offset + i] for i in range(count)])
        return tuple([data[offset + i] for i in range(count)])


cdef Row row_at(tg_row *data, object owner, int index):
    """Make the `Row` of memory that belongs to a scoreboard."""
    row = Row()
    free(row.data)
    row.data = data
    row._owner = owner
    row.index = index
    return row


# The row that this process counts in. By default a private one that is never read, so that a program without a
# supervisor needs nothing, and the hot path has no branch.
cdef Row _current = Row()


cdef Row current_row():
    return _current


def current():
    """Return the row that connections of this process count in: a private one, unless `use()` was called."""
    return _current


def use(Row row not None):
    """Have connections made from now on count in `row`. Return the row used before.

    A child that is forked later has a private row again.
    """
    global _current
    before = _current
    _current = row
    return before


def _forked():
    """Give a forked child a private row: a child of a handler is not the worker, whose row has one writer."""
    if _current._owner is not None:
        use(Row())


os.register_at_fork(after_in_child=_forked)

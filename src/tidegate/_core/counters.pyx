# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False, auto_pickle=False
"""What one process counts: a `Row`, with one writer and no lock, and the names of all that is in it.

Native code counts messages, bytes, pauses and handler durations straight into the row (counters.h); its methods are for
what is rarer than a message. What must not live here: the shared file and who writes the rest of it (scoreboard), reads of
it (snapshot), names, help and labels of metrics (metrics/catalog).
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free

import os
from collections import namedtuple
from types import MappingProxyType


cdef extern from "counters.h" nogil:
    const double *TG_LIFETIMES
    const double *TG_LAGS
    const int TG_LIFETIME_BOUNDS, TG_LAG_BOUNDS, TG_COUNTER, TG_HISTOGRAM, TG_GAUGE, TG_SLOW_ACTIONS, TG_GENERATIONS
    const size_t TG_FIELD_COUNT

    ctypedef struct tg_field:
        const char *name
        size_t offset, count
        int kind
        const double *bounds
        int bounds_count
        double ticks

    const tg_field *TG_FIELDS

    int64_t tg_connections(const tg_row *row)


# The closed sets, in the order of their words. A name is added at the end, and never moved.
HANDSHAKE_RESULTS = (
    "ok", "bad_request", "forbidden", "method_not_allowed", "upgrade_required", "too_large", "version_not_supported",
    "rejected", "error", "timeout", "unavailable", "disconnected", "limited", "bad_proxy_header",
    "tls_failed",
)
CLOSE_CODES = (*(str(code) for code in range(1000, 1016)), "3xxx", "4xxx", "other")
INITIATORS = ("local", "remote", "abort")
DIRECTIONS = ("received", "sent")
OPCODES = ("text", "binary")
LIMITS = ("daemon", "descriptors", "address", "rate")
SLOW_ACTIONS = ("close",)
GC_GENERATIONS = ("0", "1", "2")
assert len(HANDSHAKE_RESULTS) <= TG_HANDSHAKE_RESULTS and len(CLOSE_CODES) <= TG_CLOSE_CODES
assert len(LIMITS) <= TG_LIMITS and len(SLOW_ACTIONS) <= TG_SLOW_ACTIONS and len(GC_GENERATIONS) == TG_GENERATIONS
assert len(INITIATORS) == TG_INITIATORS

# The result of a handshake by the status of its answer; every other status is a hook's own answer, "rejected".
RESULT_OF_STATUS = {
    101: "ok", 400: "bad_request", 403: "forbidden", 405: "method_not_allowed", 408: "timeout", 413: "too_large",
    414: "too_large", 426: "upgrade_required", 429: "limited", 431: "too_large", 500: "error", 503: "unavailable",
    505: "version_not_supported",
}

Field = namedtuple("Field", "offset size kind bounds ticks")


cdef dict _table():
    cdef const tg_field *field
    cdef size_t i
    fields = {}
    for i in range(TG_FIELD_COUNT):
        field = TG_FIELDS + i
        kind = {TG_COUNTER: "counter", TG_HISTOGRAM: "histogram", TG_GAUGE: "gauge"}[field.kind]
        bounds = tuple([field.bounds[j] for j in range(field.bounds_count)])
        fields[(<bytes>field.name).decode()] = Field(field.offset, field.count, kind, bounds, field.ticks)
    return fields


cdef dict _fields = _table()
FIELDS = MappingProxyType(_fields)  # offsets are used as they are
BOUNDS = {name: field.bounds for name, field in FIELDS.items() if field.bounds}

cdef dict _results = {name: i for i, name in enumerate(HANDSHAKE_RESULTS)}
cdef dict _limits = {name: i for i, name in enumerate(LIMITS)}
cdef dict _slow_actions = {name: i for i, name in enumerate(SLOW_ACTIONS)}
cdef dict _initiators = {name: i for i, name in enumerate(INITIATORS)}


cdef int index_of(dict names, object name, str what) except -1:
    found = names.get(name)
    if found is None:
        raise ValueError(f"unknown {what} {name!r}: it must be one of {', '.join(names)}")
    return found


cdef int _fold_code(int code) noexcept:
    if 1000 <= code < 1016:
        return code - 1000
    if 3000 <= code < 4000:
        return 16
    if 4000 <= code < 5000:
        return 17
    return 18


@cython.no_gc
@cython.final
cdef class Row:
    """What one process counts. `Row()` is a private one, in ordinary memory.

    Native code counts messages, bytes, pauses and handler durations straight into it; the methods are for what is rarer
    than a message. Counts are never checked against each other: who calls `accepted()` must call `handshake()` once.
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

    # One connection's life, in reading order.

    def accepted(self):
        """A TCP connection was accepted: it is handshaking from now."""
        self.data.connections_accepted += 1
        self.data.connections_handshaking += 1

    def handshake(self, result, double seconds):
        """The handshake ended, `seconds` after `accepted()`. With "ok", call `opened()` as well."""
        cdef int i = index_of(_results, result, "handshake result")
        self.data.connections_handshaking -= 1
        self.data.handshakes[i] += 1
        tg_observe(&self.data.handshake_duration, TG_DURATIONS, TG_BOUNDS, seconds)

    def opened(self):
        """The connection is open."""
        self.data.connections_open += 1

    def closing(self):
        """The connection went from open to closing: a close frame was sent or received."""
        self.data.connections_open -= 1
        self.data.connections_closing += 1

    def closed(self, int code, initiator, double seconds, state="closing"):
        """The connection ended, `seconds` after `opened()`, while it was in `state`.

        `code` is the close code (1006 without a close frame); `initiator` one of `INITIATORS`.
        """
        cdef int i = index_of(_initiators, initiator, "initiator")
        if state == "closing":
            self.data.connections_closing -= 1
        elif state == "open":
            self.data.connections_open -= 1
        else:
            raise ValueError(f"unknown state {state!r}: it must be one of open, closing")
        self.data.closes[i][_fold_code(code)] += 1
        tg_observe_in(
            &self.data.connection_duration, TG_LIFETIMES, TG_LIFETIME_BOUNDS, seconds, TG_MICROSECONDS
        )

    def ping_rtt(self, double seconds):
        """A pong came, `seconds` after its ping."""
        tg_observe(&self.data.ping_rtt, TG_DURATIONS, TG_BOUNDS, seconds)

    def pong_timeout(self):
        """A connection was failed for a pong that did not come."""
        self.data.pong_timeouts += 1

    def limit_rejection(self, limit):
        """A connection was turned away because one of `LIMITS` was reached."""
        cdef int i = index_of(_limits, limit, "limit")
        self.data.limit_rejections[i] += 1

    def slow_consumer(self, action):
        """A client read too slowly, and one of `SLOW_ACTIONS` was done about it."""
        cdef int i = index_of(_slow_actions, action, "action")
        self.data.slow_consumers[i] += 1

    # The process's own.

    def log_dropped(self, uint64_t lines):
        """Lines of the process's log were lost: they came faster than they could be written."""
        self.data.log_messages_dropped += lines

    @property
    def connections_of_all(self):
        """Connections of all workers of the daemon now, whatever their state; of this row alone, if it is private."""
        return tg_connections(self.data) if self._owner is None else self._owner.connections

    def tick(self, double now, double lag):
        """The event loop is alive at `now` (`time.monotonic()`), `lag` seconds later than planned."""
        self.data.heartbeat = now
        tg_observe(&self.data.event_loop_lag, TG_LAGS, TG_LAG_BOUNDS, lag)

    @property
    def heartbeat(self):
        """`time.monotonic()` of the last `tick()`; 0.0 before the first one."""
        return self.data.heartbeat

    def collected(self, unsigned int generation, double seconds):
        """The garbage collector has looked at this generation, and for so long nothing else was done."""
        self.data.gc_collections[min(generation, <unsigned int>TG_GENERATIONS - 1)] += 1
        tg_observe(&self.data.gc_pause, TG_DURATIONS, TG_BOUNDS, seconds)

    def send_queues(self, int64_t connections, int64_t total, uint64_t largest):
        """So many connections have more than their write limit to be sent: this much together, the fullest this much,
        in bytes."""
        self.data.send_queue_connections = connections
        self.data.send_queue_bytes = total
        self.data.send_queue_max_bytes = largest

    @property
    def send_queue_max_bytes(self):
        return self.data.send_queue_max_bytes

    @property
    def connections_max(self):
        """How many connections this process can have, and how many all of the daemon may; None: no such limit."""
        return self.data.connections_max, self.data.connections_max_of_all or None

    @connections_max.setter
    def connections_max(self, limits):
        own, of_all = limits
        self.data.connections_max = own
        self.data.connections_max_of_all = of_all or 0

    def words(self, name):
        """The words of the field `name` of `FIELDS`, in its order; see the closed sets above.

        Of "closes": `TG_CLOSE_CODES` words for each initiator. Of "messages": for each direction text, binary.
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
    row = Row()
    free(row.data)
    row.data = data
    row._owner = owner
    row.index = index
    return row


# The row that this process's connections write to. By default one in ordinary memory that nobody reads, so that a
# program without a supervisor needs nothing, and the hot path has no branch.
cdef Row _current = Row()


cdef Row current_row():
    return _current


def current():
    """The row that connections of this process write to; a private one unless `use()` was called."""
    return _current


def use(Row row not None):
    """Make connections that are made from now on write to `row`; returns the row used before.

    A child that is forked later starts with a private row again.
    """
    global _current
    before = _current
    _current = row
    return before


def _forked():
    # A child that a handler forks is not the worker: it must not write to its parent's row.
    if _current._owner is not None:
        use(Row())


os.register_at_fork(after_in_child=_forked)

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False, auto_pickle=False
"""The scoreboard: what every worker counts, in memory that the supervisor makes and everybody can read.

A `Row` is what one process counts, with one writer and no lock; a `Scoreboard` is the shared file with a row for each
worker process and, for each slot, the sum of what its ended workers counted; a `Snapshot` is one consistent read of it.
The memory itself is described in scoreboard.h.

What must not live here: names, help and labels of metrics (metrics/catalog), who is hung or ready (supervisor, admin).
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

import fcntl
import mmap
import os
import time
from collections import namedtuple
from types import MappingProxyType


cdef extern from "scoreboard.h" nogil:
    const double *TG_LIFETIMES
    const int TG_LIFETIME_BOUNDS, TG_LAG_BOUNDS, TG_COUNTER, TG_HISTOGRAM, TG_GAUGE, TG_EXIT_REASONS
    const int TG_OPERATION_BOUNDS, TG_OUTCOMES, TG_SLOW_ACTIONS, TG_GENERATIONS
    const double *TG_LAGS
    const double *TG_OPERATIONS
    const double TG_MICROSECONDS, TG_NANOSECONDS
    const uint64_t TG_MAGIC, TG_LAYOUT
    const size_t TG_FIELD_COUNT, TG_LASTING, TG_SUMMED

    ctypedef struct tg_field:
        const char *name
        size_t offset, count
        int kind
        const double *bounds
        int bounds_count
        double ticks

    const tg_field *TG_FIELDS

    ctypedef struct tg_header:
        uint64_t magic, layout, size, rows, slots
        uint64_t sequence, rows_used, slots_used
        int64_t pid
        double started_at, ticked_at
        uint64_t desired, ready, draining, log_messages_dropped, config_hash
        uint64_t *reloads
        uint64_t *upgrades
        uint64_t last_reload
        double last_reload_at
        tg_histogram *reload_duration
        tg_histogram *drain_duration
        uint64_t admin_cpu, accept_queue_length, accept_queue_limit

    ctypedef struct tg_worker:
        uint64_t taken, slot
        int64_t pid
        uint64_t generation, stage
        double started_at

    ctypedef struct tg_slot:
        uint64_t spawns
        uint64_t *exits
        double backoff_until
        uint64_t cpu, accept_queue_length, accept_queue_limit
        tg_row retired

    void tg_observe_in(tg_histogram *h, const double *bounds, int count, double value, double ticks)
    void tg_add(tg_row *into, const tg_row *row, size_t words)
    size_t tg_size(uint64_t rows, uint64_t slots)
    tg_worker *tg_worker_at(tg_header *h, uint64_t i)
    tg_slot *tg_slot_at(tg_header *h, uint64_t i)
    tg_row *tg_row_at(tg_header *h, uint64_t i)
    int64_t tg_connections(const tg_row *row)
    void tg_write_begin(tg_header *h)
    void tg_write_end(tg_header *h)
    uint64_t tg_read_begin(const tg_header *h)
    bint tg_read_same(const tg_header *h, uint64_t sequence)
    void tg_copy(void *to, const void *source, size_t bytes)


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
STAGES = ("starting", "booted", "ready", "draining", "gone")
EXIT_REASONS = (
    "stopped", "reload", "recycle_age", "recycle_connections", "recycle_memory",
    "crash", "signal", "hung", "oom_suspect", "boot_failed",
)
OUTCOMES = ("success", "failure")
assert len(OUTCOMES) == TG_OUTCOMES
assert len(HANDSHAKE_RESULTS) <= TG_HANDSHAKE_RESULTS and len(CLOSE_CODES) <= TG_CLOSE_CODES
cdef uint64_t STAGE_COUNT = len(STAGES)
assert len(LIMITS) <= TG_LIMITS and len(SLOW_ACTIONS) <= TG_SLOW_ACTIONS and len(GC_GENERATIONS) == TG_GENERATIONS
assert len(INITIATORS) == TG_INITIATORS and len(EXIT_REASONS) <= TG_EXIT_REASONS

# The result of a handshake by the status of its answer; every other status is a hook's own answer, "rejected".
RESULT_OF_STATUS = {
    101: "ok", 400: "bad_request", 403: "forbidden", 405: "method_not_allowed", 408: "timeout", 413: "too_large",
    414: "too_large", 426: "upgrade_required", 429: "limited", 431: "too_large", 500: "error", 503: "unavailable",
    505: "version_not_supported",
}

ROWS = 544  # two generations of 256 workers, and some that are on their way out
SLOTS = 256

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
OPERATION_BOUNDS = tuple([TG_OPERATIONS[i] for i in range(TG_OPERATION_BOUNDS)])
OPERATION_TICKS = TG_NANOSECONDS

cdef dict _results = {name: i for i, name in enumerate(HANDSHAKE_RESULTS)}
cdef dict _limits = {name: i for i, name in enumerate(LIMITS)}
cdef dict _slow_actions = {name: i for i, name in enumerate(SLOW_ACTIONS)}
cdef dict _initiators = {name: i for i, name in enumerate(INITIATORS)}
cdef dict _stages = {name: i for i, name in enumerate(STAGES)}
cdef dict _reasons = {name: i for i, name in enumerate(EXIT_REASONS)}


cdef int _index(dict names, object name, str what) except -1:
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


cdef tuple _words_of(const tg_histogram *h):
    cdef int i
    return (*[h.bucket[i] for i in range(TG_BOUNDS + 1)], h.sum)


@cython.no_gc
@cython.final
cdef class Row:
    # cdef tg_row *data, object _owner: see scoreboard.pxd

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
        self.data.connections_accepted += 1
        self.data.connections_handshaking += 1

    def handshake(self, result, double seconds):
        cdef int i = _index(_results, result, "handshake result")
        self.data.connections_handshaking -= 1
        self.data.handshakes[i] += 1
        tg_observe(&self.data.handshake_duration, TG_DURATIONS, TG_BOUNDS, seconds)

    def opened(self):
        self.data.connections_open += 1

    def closing(self):
        self.data.connections_open -= 1
        self.data.connections_closing += 1

    def closed(self, int code, initiator, double seconds, state="closing"):
        cdef int i = _index(_initiators, initiator, "initiator")
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
        tg_observe(&self.data.ping_rtt, TG_DURATIONS, TG_BOUNDS, seconds)

    def pong_timeout(self):
        self.data.pong_timeouts += 1

    def limit_rejection(self, limit):
        cdef int i = _index(_limits, limit, "limit")
        self.data.limit_rejections[i] += 1

    def slow_consumer(self, action):
        cdef int i = _index(_slow_actions, action, "action")
        self.data.slow_consumers[i] += 1

    # The process's own.

    def log_dropped(self, uint64_t lines):
        self.data.log_messages_dropped += lines

    @property
    def connections_of_all(self):
        return tg_connections(self.data) if self._owner is None else self._owner.connections

    def tick(self, double now, double lag):
        self.data.heartbeat = now
        tg_observe(&self.data.event_loop_lag, TG_LAGS, TG_LAG_BOUNDS, lag)

    @property
    def heartbeat(self):
        return self.data.heartbeat

    def collected(self, unsigned int generation, double seconds):
        self.data.gc_collections[min(generation, <unsigned int>TG_GENERATIONS - 1)] += 1
        tg_observe(&self.data.gc_pause, TG_DURATIONS, TG_BOUNDS, seconds)

    def send_queues(self, int64_t connections, int64_t total, uint64_t largest):
        self.data.send_queue_connections = connections
        self.data.send_queue_bytes = total
        self.data.send_queue_max_bytes = largest

    @property
    def send_queue_max_bytes(self):
        return self.data.send_queue_max_bytes

    @property
    def connections_max(self):
        return self.data.connections_max, self.data.connections_max_of_all or None

    @connections_max.setter
    def connections_max(self, limits):
        own, of_all = limits
        self.data.connections_max = own
        self.data.connections_max_of_all = of_all or 0

    def words(self, name):
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


cdef Row _row_at(tg_row *data, object owner, int index):
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
    return _current


def use(Row row not None):
    global _current
    before = _current
    _current = row
    return before


def _forked():
    # A child that a handler forks is not the worker: it must not write to its parent's row.
    if _current._owner is not None:
        use(Row())


os.register_at_fork(after_in_child=_forked)


@cython.final
cdef class Worker:
    cdef readonly int row, slot, generation
    cdef readonly int64_t pid
    cdef readonly str stage
    cdef readonly double started_at
    cdef readonly Row counts


@cython.final
cdef class Slot:
    cdef readonly int index
    cdef readonly uint64_t spawns
    cdef readonly dict exits
    cdef readonly double backoff_until, cpu_seconds
    cdef readonly tuple accept_queue
    cdef readonly Row counts
    cdef readonly tuple workers


@cython.final
cdef class Snapshot:
    cdef readonly int64_t pid
    cdef readonly double started_at, ticked_at, taken_at
    cdef readonly uint64_t desired, log_messages_dropped, config_hash
    cdef readonly bint ready, draining
    cdef readonly dict reloads, upgrades, reload_duration, drain_duration
    cdef readonly str last_reload
    cdef readonly double last_reload_at, admin_cpu_seconds
    cdef readonly tuple accept_queue
    cdef readonly Row counts
    cdef readonly tuple slots


cdef object _made = object()


@cython.final
cdef class Scoreboard:
    cdef readonly int fd
    cdef object _memory
    cdef Py_buffer _view
    cdef tg_header *_header

    def __cinit__(self, made=None):
        self.fd = -1
        self._header = NULL
        if made is not _made:  # whatever calls __new__, copy and pickle too: no method looks for a header again
            raise TypeError("a Scoreboard is made by Scoreboard.create() or Scoreboard.attach()")

    def __dealloc__(self):
        if self._header != NULL:
            PyBuffer_Release(&self._view)

    @staticmethod
    def create(uint64_t rows=ROWS, uint64_t slots=SLOTS):
        cdef Scoreboard self = Scoreboard.__new__(Scoreboard, _made)
        if not 1 <= slots <= rows <= 65536:
            raise ValueError(f"rows and slots must be 1 <= slots <= rows <= 65536, not {slots} slots and {rows} rows")
        size = tg_size(rows, slots)
        try:
            self.fd = os.memfd_create("tidegate-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except (AttributeError, OSError):  # not Linux, or forbidden: what is forked inherits this as well
            self._map(mmap.mmap(-1, size))
        else:
            os.ftruncate(self.fd, size)
            # Nobody may cut off what others have mapped: they would die of SIGBUS.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._map(mmap.mmap(self.fd, size))
        self._header.layout = TG_LAYOUT
        self._header.size = size
        self._header.rows = rows
        self._header.slots = slots
        self._header.pid = os.getpid()
        self._header.started_at = time.time()
        self._header.ticked_at = time.monotonic()
        self._header.magic = TG_MAGIC
        return self

    @staticmethod
    def attach(int fd):
        cdef Scoreboard self = Scoreboard.__new__(Scoreboard, _made)
        cdef tg_header *header
        size = os.fstat(fd).st_size
        if size < <Py_ssize_t>sizeof(tg_header):
            raise ValueError(f"file descriptor {fd} is no scoreboard: it holds {size} bytes")
        self._map(mmap.mmap(fd, size))
        header = self._header
        if header.magic != TG_MAGIC:
            raise ValueError(f"file descriptor {fd} is no scoreboard: it starts with other bytes")
        if header.layout != TG_LAYOUT:
            raise ValueError(f"the scoreboard has layout {header.layout}, and this tidegate reads {TG_LAYOUT}")
        if header.size != <uint64_t>size or header.rows > 65536 or header.slots > header.rows or (
            tg_size(header.rows, header.slots) != <size_t>size
        ):
            raise ValueError(f"the scoreboard should hold {header.size} bytes, and holds {size}")
        self.fd = fd
        return self

    cdef int _map(self, object memory) except -1:
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        self._memory = memory
        self._header = <tg_header *>self._view.buf
        return 0

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def rows(self):
        return self._header.rows

    @property
    def slots(self):
        return self._header.slots

    def row(self, uint64_t i):
        if i >= self._header.rows:
            raise IndexError(f"the scoreboard has rows 0 to {self._header.rows - 1}, not {i}")
        return _row_at(tg_row_at(self._header, i), self, i)

    # What the supervisor writes. It alone calls these.

    @property
    def pid(self):
        return self._header.pid

    @property
    def started_at(self):
        return self._header.started_at

    @property
    def ticked_at(self):
        return self._header.ticked_at

    def tick(self, double now):
        self._header.ticked_at = now

    @property
    def desired(self):
        return self._header.desired

    @desired.setter
    def desired(self, uint64_t workers):
        self._header.desired = workers

    @property
    def ready(self):
        return self._header.ready != 0

    @ready.setter
    def ready(self, bint value):
        self._header.ready = value

    @property
    def draining(self):
        return self._header.draining != 0

    @draining.setter
    def draining(self, bint value):
        self._header.draining = value

    @property
    def log_messages_dropped(self):
        return self._header.log_messages_dropped

    @log_messages_dropped.setter
    def log_messages_dropped(self, uint64_t lines):
        self._header.log_messages_dropped = lines

    @property
    def config_hash(self):
        return self._header.config_hash

    @config_hash.setter
    def config_hash(self, uint64_t value):
        self._header.config_hash = value

    cdef tg_worker *_worker(self, uint64_t row) except NULL:
        if row >= self._header.rows or not tg_worker_at(self._header, row).taken:
            raise ValueError(f"row {row} is not assigned to a worker")
        return tg_worker_at(self._header, row)

    cdef tg_slot *_slot(self, uint64_t slot) except NULL:
        if slot >= self._header.slots:
            raise ValueError(f"the scoreboard has slots 0 to {self._header.slots - 1}, not {slot}")
        return tg_slot_at(self._header, slot)

    def assign(self, uint64_t slot, uint64_t generation=0, int64_t pid=0):
        cdef tg_header *header = self._header
        cdef uint64_t i
        self._slot(slot)
        for i in range(header.rows):
            worker = tg_worker_at(header, i)
            if not worker.taken:
                break
        else:
            raise RuntimeError(f"all {header.rows} rows of the scoreboard are assigned")
        now = time.time()
        tg_write_begin(header)
        worker.slot = slot
        worker.pid = pid
        worker.generation = generation
        worker.stage = 0
        worker.started_at = now
        worker.taken = 1
        header.rows_used = max(header.rows_used, i + 1)
        header.slots_used = max(header.slots_used, slot + 1)
        tg_write_end(header)
        return i

    def spawn(self, uint64_t row, int64_t pid):
        worker = self._worker(row)
        slot = self._slot(worker.slot)
        tg_write_begin(self._header)
        worker.pid = pid
        slot.spawns += 1
        tg_write_end(self._header)

    def stage(self, uint64_t row, stage):
        cdef int i = _index(_stages, stage, "stage")
        self._worker(row).stage = i

    def retire(self, uint64_t row, reason=None, double cpu_seconds=0.0):
        cdef int i = -1 if reason is None else _index(_reasons, reason, "exit reason")
        worker = self._worker(row)
        slot = self._slot(worker.slot)
        data = tg_row_at(self._header, row)
        tg_write_begin(self._header)
        tg_add(&slot.retired, data, TG_LASTING)
        memset(data, 0, sizeof(tg_row))
        memset(worker, 0, sizeof(tg_worker))
        slot.cpu += <uint64_t>(max(0.0, cpu_seconds) * TG_MICROSECONDS + 0.5)
        if i >= 0:
            slot.exits[i] += 1
        tg_write_end(self._header)

    def retire_admin(self, double cpu_seconds):
        self._header.admin_cpu += <uint64_t>(max(0.0, cpu_seconds) * TG_MICROSECONDS + 0.5)

    def drained(self, bint done, double seconds):
        tg_write_begin(self._header)
        tg_observe(&self._header.drain_duration[not done], TG_OPERATIONS, TG_OPERATION_BOUNDS, seconds)
        tg_write_end(self._header)

    def reloaded(self, bint done, double seconds):
        tg_write_begin(self._header)
        self._header.reloads[not done] += 1
        tg_observe(&self._header.reload_duration[not done], TG_OPERATIONS, TG_OPERATION_BOUNDS, seconds)
        self._reloaded(done)
        tg_write_end(self._header)

    def upgraded(self, bint done):
        tg_write_begin(self._header)
        self._header.upgrades[not done] += 1
        self._reloaded(done)
        tg_write_end(self._header)

    cdef int _reloaded(self, bint done) except -1:
        self._header.last_reload = not done
        self._header.last_reload_at = time.time()
        return 0

    def accept_queue(self, slot, uint64_t length, uint64_t limit):
        cdef tg_slot *place
        if slot is None:
            self._header.accept_queue_length = length
            self._header.accept_queue_limit = limit
        else:
            place = self._slot(slot)
            place.accept_queue_length = length
            place.accept_queue_limit = limit

    @property
    def connections(self):
        cdef uint64_t i
        cdef int64_t total = 0
        for i in range(min(self._header.rows_used, self._header.rows)):
            if tg_worker_at(self._header, i).taken:
                total += tg_connections(tg_row_at(self._header, i))
        return total

    def backoff(self, uint64_t slot, double until):
        self._slot(slot).backoff_until = until

    # What readers do.

    def read(self, double timeout=0.25):
        cdef uint64_t sequence
        cdef double deadline = tg_now() + timeout
        while True:
            sequence = tg_read_begin(self._header)
            if not sequence & 1:
                snapshot = self._snapshot()
                if tg_read_same(self._header, sequence):
                    return _join(snapshot)
            if tg_now() >= deadline:
                raise TimeoutError(f"the supervisor (pid {self._header.pid}) was writing for {timeout:g} s")
            time.sleep(0.0001)

    cdef Snapshot _snapshot(self):
        cdef tg_header header
        cdef tg_worker entry
        cdef tg_slot place
        cdef uint64_t i
        cdef Worker worker
        cdef Slot slot
        cdef Snapshot snapshot = Snapshot.__new__(Snapshot)
        snapshot.taken_at = time.monotonic()
        tg_copy(&header, self._header, sizeof(tg_header))
        snapshot.pid = header.pid
        snapshot.started_at = header.started_at
        snapshot.ticked_at = header.ticked_at
        snapshot.desired = header.desired
        snapshot.ready = header.ready != 0
        snapshot.draining = header.draining != 0
        snapshot.log_messages_dropped = header.log_messages_dropped
        snapshot.config_hash = header.config_hash
        snapshot.reloads = {outcome: header.reloads[j] for j, outcome in enumerate(OUTCOMES)}
        snapshot.upgrades = {outcome: header.upgrades[j] for j, outcome in enumerate(OUTCOMES)}
        snapshot.last_reload = OUTCOMES[header.last_reload % TG_OUTCOMES] if header.last_reload_at else None
        snapshot.last_reload_at = header.last_reload_at
        snapshot.reload_duration = {outcome: _words_of(&header.reload_duration[j]) for j, outcome in enumerate(OUTCOMES)}
        snapshot.drain_duration = {outcome: _words_of(&header.drain_duration[j]) for j, outcome in enumerate(OUTCOMES)}
        snapshot.admin_cpu_seconds = header.admin_cpu / TG_MICROSECONDS
        snapshot.accept_queue = (header.accept_queue_length, header.accept_queue_limit)
        slots = []
        header.slots_used = min(header.slots_used, header.slots)  # whatever a process that went wrong wrote there
        header.rows_used = min(header.rows_used, header.rows)
        for i in range(header.slots_used):
            tg_copy(&place, tg_slot_at(self._header, i), sizeof(tg_slot))
            slot = Slot.__new__(Slot)
            slot.index = i
            slot.spawns = place.spawns
            slot.exits = {reason: place.exits[j] for j, reason in enumerate(EXIT_REASONS)}
            slot.backoff_until = place.backoff_until
            slot.cpu_seconds = place.cpu / TG_MICROSECONDS
            slot.accept_queue = (place.accept_queue_length, place.accept_queue_limit)
            slot.counts = Row()
            slot.counts.data[0] = place.retired
            slot.workers = ()
            slots.append(slot)
        snapshot.slots = tuple(slots)
        for i in range(header.rows_used):
            tg_copy(&entry, tg_worker_at(self._header, i), sizeof(tg_worker))
            if not entry.taken or entry.slot >= header.slots_used or entry.stage >= STAGE_COUNT:
                continue  # all but the first: only while it is being written
            worker = Worker.__new__(Worker)
            worker.row = i
            worker.slot = entry.slot
            worker.pid = entry.pid
            worker.generation = entry.generation
            worker.stage = STAGES[entry.stage]
            worker.started_at = entry.started_at
            worker.counts = Row()
            tg_copy(worker.counts.data, tg_row_at(self._header, i), sizeof(tg_row))
            slot = slots[entry.slot]
            slot.workers += (worker,)
        return snapshot


cdef Snapshot _join(Snapshot snapshot):
    """Adds the live rows to their slots, and the slots to the whole."""
    cdef Slot slot
    cdef Worker worker
    snapshot.counts = Row()
    for slot in snapshot.slots:
        for worker in slot.workers:
            tg_add(slot.counts.data, worker.counts.data, TG_SUMMED)
        tg_add(snapshot.counts.data, slot.counts.data, TG_SUMMED)
    return snapshot

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The reader of the scoreboard.

    Snapshot          one consistent read, with a `Slot` for each slot in it and a `Worker` for each live worker
    STAGES            the stages of a worker, in their order
    DAEMON_COUNTERS, SLOT_COUNTERS   what the supervisor counts, by name: a `counters.Field`
    EXIT_REASONS      why a worker ended
    OUTCOMES          of operations, success first
    OPERATION_BOUNDS, OPERATION_TICKS   of the durations of reloads and drains: bounds, and what sums count in a second

A sum over a snapshot is never below the same sum over an earlier one. What must not live here: what is written to the
scoreboard (scoreboard), what is counted in a row (counters), decisions which worker is hung or ready (supervisor, admin).
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t

import time
from types import MappingProxyType

from tidegate._core.counters cimport (
    TG_BOUNDS,
    TG_MICROSECONDS,
    TG_NANOSECONDS,
    Row,
    read_text,
    table_of,
    tg_histogram,
    tg_now,
    tg_row,
)
from tidegate._core.scoreboard cimport (
    TG_DAEMON_FIELD_COUNT,
    TG_DAEMON_FIELDS,
    TG_OPERATION_BOUNDS,
    TG_OPERATIONS,
    TG_OUTCOMES,
    TG_SLOT_FIELD_COUNT,
    TG_SLOT_FIELDS,
    TG_SUMMED,
    tg_add,
    tg_copy,
    tg_header,
    tg_hub_row,
    tg_read_begin,
    tg_read_same,
    tg_row_at,
    tg_slot,
    tg_slot_at,
    tg_worker,
    tg_worker_at,
)


# The closed sets of what the supervisor writes, in the order of their words. A name is added at the end, and never moved.
STAGES = ("starting", "booted", "ready", "draining", "gone")
cdef uint64_t STAGE_COUNT = len(STAGES)

DAEMON_COUNTERS = MappingProxyType(table_of(TG_DAEMON_FIELDS, TG_DAEMON_FIELD_COUNT))
SLOT_COUNTERS = MappingProxyType(table_of(TG_SLOT_FIELDS, TG_SLOT_FIELD_COUNT))
(OUTCOMES,) = DAEMON_COUNTERS["reloads"].names
(EXIT_REASONS,) = SLOT_COUNTERS["exits"].names

OPERATION_BOUNDS = tuple([TG_OPERATIONS[i] for i in range(TG_OPERATION_BOUNDS)])
OPERATION_TICKS = TG_NANOSECONDS


cdef dict _counted(fields, const uint64_t *words):
    """Return each counter of the supervisor: name of a word -> count; the name of an only word is empty."""
    cdef dict found = {}
    cdef size_t place
    for name, field in fields.items():
        found[name] = counts = {}
        for names, at in field.places.items():
            place = field.offset + at
            counts[" ".join(names)] = words[place]
    return found


cdef tuple _words_of(const tg_histogram *h):
    cdef int i
    return (*[h.bucket[i] for i in range(TG_BOUNDS + 1)], h.sum)


@cython.final
cdef class Worker:
    """A live worker in a `Snapshot`.

    Attributes:
        row, slot, generation: its numbers.
        pid: its process id; 0 before its fork.
        stage: one of `STAGES`.
        started_at: Unix time at which its row was assigned.
        counts: its `Row`, copied.
    """


@cython.final
cdef class Slot:
    """A slot in a `Snapshot`.

    Attributes:
        index: its number.
        counters: of each counter in `SLOT_COUNTERS`, its counts by name.
        backoff_until: `time.monotonic()` at which a successor is forked; 0.0: the slot does not back off.
        cpu_seconds: processor time that its ended workers took.
        accept_queue: how many connections wait in the queues of its own sockets, and how many may; (0, 0): it has none.
        counts: a `Row` with the sum of its live and its ended workers; gauges of the live ones only.
        workers: its live workers.
    """

    @property
    def spawns(self):
        """How many workers were forked for it."""
        return self.counters["spawns"][""]

    @property
    def exits(self):
        """How many of its workers ended, by reason."""
        return self.counters["exits"]


@cython.final
cdef class Snapshot:
    """One consistent read of a `Scoreboard`.

    Attributes:
        pid, started_at, ticked_at, desired, ready, draining, log_messages_dropped, config_hash: as in `Scoreboard`.
        taken_at: `time.monotonic()` of the read.
        counters: of each counter in `DAEMON_COUNTERS`, its counts by name.
        last_reload: the outcome of the last reload or upgrade; None: there was none.
        last_reload_at: Unix time of its end; 0.0: there was none.
        reload_duration, drain_duration: histograms by outcome, each as `Row.words()` of one.
        admin_cpu_seconds: processor time that ended admin processes took.
        accept_queue: as in `Slot`, of the sockets that all slots share.
        hub_pid, hub_started_at: of the hub, and Unix time; 0: there is none.
        bus_url: of the bus that there is if a worker wants it.
        hub: the `Row` of the hub, copied.
        counts: a `Row` with the sum over `slots` and the hub.
        slots: all slots that ever had a worker, in order.
    """

    @property
    def reloads(self):
        """How many reloads ended, by outcome."""
        return self.counters["reloads"]

    @property
    def upgrades(self):
        """How many upgrades in place ended, by outcome."""
        return self.counters["upgrades"]


cdef Snapshot read_snapshot(tg_header *shared, double timeout):
    """Return one consistent read, tried again while the supervisor writes; TimeoutError after `timeout` seconds."""
    cdef uint64_t sequence
    cdef double deadline = tg_now() + timeout
    while True:
        sequence = tg_read_begin(shared)
        if not sequence & 1:
            snapshot = _copied(shared)
            if tg_read_same(shared, sequence):
                return _join(snapshot)
        if tg_now() >= deadline:
            raise TimeoutError(f"the supervisor (pid {shared.pid}) was writing for {timeout:g} s")
        time.sleep(0.0001)


cdef Snapshot _copied(tg_header *shared):
    """Copy what is there now, whether or not it is being written."""
    cdef tg_header header
    cdef tg_worker entry
    cdef tg_slot place
    cdef uint64_t i
    cdef Worker worker
    cdef Slot slot
    cdef Snapshot snapshot = Snapshot.__new__(Snapshot)
    snapshot.taken_at = time.monotonic()
    tg_copy(&header, shared, sizeof(tg_header))
    snapshot.pid = header.pid
    snapshot.started_at = header.started_at
    snapshot.ticked_at = header.ticked_at
    snapshot.desired = header.desired
    snapshot.ready = header.ready != 0
    snapshot.draining = header.draining != 0
    snapshot.log_messages_dropped = header.log_messages_dropped
    snapshot.config_hash = header.config_hash
    snapshot.counters = _counted(DAEMON_COUNTERS, <const uint64_t *>&header)
    snapshot.last_reload = OUTCOMES[header.last_reload % TG_OUTCOMES] if header.last_reload_at else None
    snapshot.last_reload_at = header.last_reload_at
    snapshot.reload_duration = {outcome: _words_of(&header.reload_duration[j]) for j, outcome in enumerate(OUTCOMES)}
    snapshot.drain_duration = {outcome: _words_of(&header.drain_duration[j]) for j, outcome in enumerate(OUTCOMES)}
    snapshot.admin_cpu_seconds = header.admin_cpu / TG_MICROSECONDS
    snapshot.accept_queue = (header.accept_queue_length, header.accept_queue_limit)
    snapshot.hub_pid, snapshot.hub_started_at = header.hub_pid, header.hub_started_at
    snapshot.bus_url = read_text(&header.bus_url)
    snapshot.hub = Row()
    tg_copy(snapshot.hub.data, tg_hub_row(shared), sizeof(tg_row))
    slots = []
    header.slots_used = min(header.slots_used, header.slots)  # whatever a faulty process wrote there
    header.rows_used = min(header.rows_used, header.rows)
    for i in range(header.slots_used):
        tg_copy(&place, tg_slot_at(shared, i), sizeof(tg_slot))
        slot = Slot.__new__(Slot)
        slot.index = i
        slot.counters = _counted(SLOT_COUNTERS, <const uint64_t *>&place)
        slot.backoff_until = place.backoff_until
        slot.cpu_seconds = place.cpu / TG_MICROSECONDS
        slot.accept_queue = (place.accept_queue_length, place.accept_queue_limit)
        slot.counts = Row()
        slot.counts.data[0] = place.retired
        slot.workers = ()
        slots.append(slot)
    snapshot.slots = tuple(slots)
    for i in range(header.rows_used):
        tg_copy(&entry, tg_worker_at(shared, i), sizeof(tg_worker))
        if not entry.taken or entry.slot >= header.slots_used or entry.stage >= STAGE_COUNT:
            continue  # the second and third only while it is being written
        worker = Worker.__new__(Worker)
        worker.row = i
        worker.slot = entry.slot
        worker.pid = entry.pid
        worker.generation = entry.generation
        worker.stage = STAGES[entry.stage]
        worker.started_at = entry.started_at
        worker.counts = Row()
        tg_copy(worker.counts.data, tg_row_at(shared, i), sizeof(tg_row))
        slot = slots[entry.slot]
        slot.workers += (worker,)
    return snapshot


cdef Snapshot _join(Snapshot snapshot):
    """Add the live rows to their slots, and the slots to the whole."""
    cdef Slot slot
    cdef Worker worker
    snapshot.counts = Row()
    tg_add(snapshot.counts.data, snapshot.hub.data, TG_SUMMED)
    for slot in snapshot.slots:
        for worker in slot.workers:
            tg_add(slot.counts.data, worker.counts.data, TG_SUMMED)
        tg_add(snapshot.counts.data, slot.counts.data, TG_SUMMED)
    return snapshot

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The scoreboard: shared memory that the supervisor makes, each worker counts in, and every process of the daemon reads.

    Scoreboard    the memory: a row for each worker process, the supervisor's state, and for each slot the sum of what its
                  ended workers counted
    ROWS, SLOTS   how many there are by default
    LAYOUT        the number of the layout of the memory, which is described in scoreboard.h; memory of a release with
                  another layout is refused

What must not live here: what is in a row (counters), reads of all of it (snapshot), names, help and labels of metrics
(metrics/catalog), decisions which worker is hung or ready (supervisor, admin).
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

import fcntl
import mmap
import os
import time

from tidegate._core.snapshot import OUTCOMES, STAGES

from tidegate._core.counters cimport TG_MICROSECONDS, row_at, table_of, tg_observe, tg_row, word_of, write_text
from tidegate._core.snapshot cimport read_snapshot


ROWS = 544  # two generations of 256 workers, and some that drain
SLOTS = 256

cdef dict _stages = {name: i for i, name in enumerate(STAGES)}
cdef dict _daemon_fields = table_of(TG_DAEMON_FIELDS, TG_DAEMON_FIELD_COUNT)
cdef dict _slot_fields = table_of(TG_SLOT_FIELDS, TG_SLOT_FIELD_COUNT)


LAYOUT = tg_layout()
cdef object _made = object()


cdef int index_of(dict names, object name, str what) except -1:
    found = names.get(name)
    if found is None:
        raise ValueError(f"unknown {what} {name!r}: it must be one of {', '.join(names)}")
    return found


@cython.final
cdef class Scoreboard:
    """The shared memory file. It is made before the forks and inherited by each child; the supervisor owns it.

    Only the supervisor calls methods other than `row()`, `hub_row()`, `read()`, `connections` and `close()`. They raise
    ValueError for a row or a slot that does not exist. `Scoreboard()` raises TypeError: use `create()` or `attach()`.
    `fd` is the file descriptor, -1 if there is none.
    """

    cdef readonly int fd
    cdef object _memory
    cdef Py_buffer _view
    cdef tg_header *_header

    def __cinit__(self, made=None):
        self.fd = -1
        self._header = NULL
        if made is not _made:  # copy and pickle call __new__, too; no method checks for a header again
            raise TypeError("a Scoreboard is made by Scoreboard.create() or Scoreboard.attach()")

    def __dealloc__(self):
        if self._header != NULL:
            PyBuffer_Release(&self._view)

    @staticmethod
    def create(uint64_t rows=ROWS, uint64_t slots=SLOTS):
        """Make a scoreboard for `slots` workers and `rows` worker processes (two generations, and those that drain).

        Memory is used only for rows and slots that had a worker. Where there are no memory files it is anonymous
        shared memory, which only forked children see, and `fd` is -1.
        """
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
            # A file that was cut would end each process that has mapped it, with SIGBUS.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._map(mmap.mmap(self.fd, size))
        self._header.layout = <uint64_t>LAYOUT
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
        """Map the scoreboard behind the descriptor `fd`, and own that. ValueError, if it is none or has another layout."""
        cdef Scoreboard self = Scoreboard.__new__(Scoreboard, _made)
        cdef tg_header *header
        size = os.fstat(fd).st_size
        if size < <Py_ssize_t>sizeof(tg_header):
            raise ValueError(f"file descriptor {fd} is not a scoreboard: it holds {size} bytes")
        self._map(mmap.mmap(fd, size))
        header = self._header
        if header.magic != TG_MAGIC:
            raise ValueError(f"file descriptor {fd} is not a scoreboard: it starts with other bytes")
        if header.layout != LAYOUT:
            raise ValueError(f"the scoreboard has layout {header.layout}, and this tidegate reads {LAYOUT}")
        if header.size != <uint64_t>size or header.rows > 65536 or header.slots > header.rows or (
            tg_size(header.rows, header.slots) != <size_t>size
        ):
            raise ValueError(f"the scoreboard should hold {header.size} bytes, and holds {size}")
        self.fd = fd
        return self

    cdef int _map(self, object memory) except -1:
        """Keep memory and use it as the file."""
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        self._memory = memory
        self._header = <tg_header *>self._view.buf
        return 0

    def close(self):
        """Close the file descriptor. The memory is freed with the last row and the scoreboard itself."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def rows(self):
        """How many worker processes it has room for."""
        return self._header.rows

    @property
    def slots(self):
        """How many slots it has room for."""
        return self._header.slots

    def row(self, uint64_t i):
        """Return the row with index `i`, for its worker: `use(scoreboard.row(i))`."""
        if i >= self._header.rows:
            raise IndexError(f"the scoreboard has rows 0 to {self._header.rows - 1}, not {i}")
        return row_at(tg_row_at(self._header, i), self, i)

    def hub_row(self):
        """Return the row of the hub, in which it counts on where the one before it has ended."""
        return row_at(tg_hub_row(self._header), self, -1)

    # Written by the supervisor alone: its state.

    @property
    def pid(self):
        """Process id of the supervisor that made it."""
        return self._header.pid

    @property
    def started_at(self):
        """Unix time of its making."""
        return self._header.started_at

    @property
    def ticked_at(self):
        """`time.monotonic()` of the supervisor's last `tick()`."""
        return self._header.ticked_at

    def tick(self, double now):
        """Record that the supervisor's loop ran at `now` (`time.monotonic()`); called at least once a second."""
        self._header.ticked_at = now

    @property
    def desired(self):
        """How many workers should be ready."""
        return self._header.desired

    @desired.setter
    def desired(self, uint64_t workers):
        self._header.desired = workers

    @property
    def ready(self):
        """Whether every desired worker has been ready. A crash of one does not change it: the others serve."""
        return self._header.ready != 0

    @ready.setter
    def ready(self, bint value):
        self._header.ready = value

    @property
    def draining(self):
        """Whether the daemon was told to stop."""
        return self._header.draining != 0

    @draining.setter
    def draining(self, bint value):
        self._header.draining = value

    @property
    def log_messages_dropped(self):
        """Lines of its own log that the supervisor has lost."""
        return self._header.log_messages_dropped

    @log_messages_dropped.setter
    def log_messages_dropped(self, uint64_t lines):
        self._header.log_messages_dropped = lines

    @property
    def config_hash(self):
        """A number that differs where the settings of the present generation do; 0: unknown."""
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

    # Written by the supervisor alone: any counter of its own, by its name in the tables of scoreboard.h.

    def inc(self, str counter not None, *names, uint64_t by=1):
        """Count one more, or `by` more, in the word of a counter of the daemon that has these names.

        ValueError, if there is no such counter or word.
        """
        cdef size_t word = word_of(_daemon_fields, counter, names)
        tg_write_begin(self._header)
        (<uint64_t *>self._header)[word] += by
        tg_write_end(self._header)

    def inc_slot(self, uint64_t slot, str counter not None, *names, uint64_t by=1):
        """Do what `inc()` does, for a counter of a slot."""
        cdef tg_slot *counted = self._slot(slot)
        cdef size_t word = word_of(_slot_fields, counter, names)
        tg_write_begin(self._header)
        (<uint64_t *>counted)[word] += by
        tg_write_end(self._header)

    # Written by the supervisor alone: workers, from fork to end.

    def assign(self, uint64_t slot, uint64_t generation=0, int64_t pid=0):
        """Take a free row for a worker that is about to be forked, at the stage "starting". Return its index.

        RuntimeError, if every row is assigned.
        """
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
        """Count a worker that was forked, and set its process id."""
        worker = self._worker(row)
        slot = self._slot(worker.slot)
        tg_write_begin(self._header)
        worker.pid = pid
        (<uint64_t *>slot)[word_of(_slot_fields, "spawns", ())] += 1
        tg_write_end(self._header)

    def stage(self, uint64_t row, stage):
        """Set the stage of a worker, one of `STAGES`."""
        cdef int i = index_of(_stages, stage, "stage")
        self._worker(row).stage = i

    def retire(self, uint64_t row, reason=None, double cpu_seconds=0.0):
        """Add the counts of a worker that has ended, and was waited for, to those of its slot, and free its row.

        `reason` is one of `EXIT_REASONS`; None counts no exit (when the fork failed). `cpu_seconds` is the processor
        time that it took.
        """
        cdef size_t word = 0 if reason is None else word_of(_slot_fields, "exits", (reason,))
        worker = self._worker(row)
        slot = self._slot(worker.slot)
        data = tg_row_at(self._header, row)
        tg_write_begin(self._header)
        tg_add(&slot.retired, data, TG_LASTING)
        memset(data, 0, sizeof(tg_row))
        memset(worker, 0, sizeof(tg_worker))
        slot.cpu += <uint64_t>(max(0.0, cpu_seconds) * TG_MICROSECONDS + 0.5)
        if reason is not None:
            (<uint64_t *>slot)[word] += 1
        tg_write_end(self._header)

    def retire_admin(self, double cpu_seconds):
        """Add the processor time of an admin process that has ended."""
        self._header.admin_cpu += <uint64_t>(max(0.0, cpu_seconds) * TG_MICROSECONDS + 0.5)

    def drained(self, bint done, double seconds):
        """Count the end of a worker, so many seconds after the order to drain; not `done`: it was killed, or crashed."""
        tg_write_begin(self._header)
        tg_observe(&self._header.drain_duration[not done], TG_OPERATIONS, TG_OPERATION_BOUNDS, seconds)
        tg_write_end(self._header)

    def reloaded(self, bint done, double seconds):
        """Count a reload that has ended after so many seconds, or has failed."""
        tg_write_begin(self._header)
        (<uint64_t *>self._header)[word_of(_daemon_fields, "reloads", (OUTCOMES[not done],))] += 1
        tg_observe(&self._header.reload_duration[not done], TG_OPERATIONS, TG_OPERATION_BOUNDS, seconds)
        self._reloaded(done)
        tg_write_end(self._header)

    def upgraded(self, bint done):
        """Count an upgrade, which also reloads, that has ended or failed."""
        tg_write_begin(self._header)
        (<uint64_t *>self._header)[word_of(_daemon_fields, "upgrades", (OUTCOMES[not done],))] += 1
        self._reloaded(done)
        tg_write_end(self._header)

    cdef int _reloaded(self, bint done) except -1:
        self._header.last_reload = not done
        self._header.last_reload_at = time.time()
        return 0

    def hub(self, int64_t pid, double started_at):
        """Set the process id of the hub, and the Unix time of its start; 0: there is none."""
        self._header.hub_pid = pid
        self._header.hub_started_at = started_at

    def bus(self, str url not None):
        """Set the URL of the bus, which must have no secrets."""
        write_text(&self._header.bus_url, url)

    def accept_queue(self, slot, uint64_t length, uint64_t limit):
        """Set how many connections wait in the accept queues of the slot's own sockets, and how many may; None: in the
        queues that all slots share."""
        cdef tg_slot *place
        if slot is None:
            self._header.accept_queue_length = length
            self._header.accept_queue_limit = limit
        else:
            place = self._slot(slot)
            place.accept_queue_length = length
            place.accept_queue_limit = limit

    def backoff(self, uint64_t slot, double until):
        """Set the time (`time.monotonic()`) before which no worker is forked for `slot`; 0: at any time."""
        self._slot(slot).backoff_until = until

    # Read by any process.

    @property
    def connections(self):
        """Connections of all live workers now, whatever their state. Any process may read it; it takes no lock."""
        cdef uint64_t i
        cdef int64_t total = 0
        for i in range(min(self._header.rows_used, self._header.rows)):
            if tg_worker_at(self._header, i).taken:
                total += tg_connections(tg_row_at(self._header, i))
        return total

    def read(self, double timeout=0.25):
        """Return one consistent read, tried again while the supervisor writes.

        TimeoutError, if it writes for longer than `timeout` seconds: it was stopped or killed in the middle.
        """
        return read_snapshot(self._header, timeout)

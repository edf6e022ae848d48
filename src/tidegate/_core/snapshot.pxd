"""Declarations for native code of what a read of the scoreboard holds, and of how to make one."""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from tidegate._core.counters cimport Row
from tidegate._core.scoreboard cimport tg_header


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
    cdef readonly dict counters
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
    cdef readonly dict counters, reload_duration, drain_duration
    cdef readonly str last_reload
    cdef readonly double last_reload_at, admin_cpu_seconds
    cdef readonly tuple accept_queue
    cdef readonly int64_t hub_pid
    cdef readonly double hub_started_at
    cdef readonly str bus_url
    cdef readonly Row hub, counts
    cdef readonly tuple slots


cdef Snapshot read_snapshot(tg_header *shared, double timeout)

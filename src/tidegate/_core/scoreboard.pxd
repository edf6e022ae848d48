"""Declarations for native code of the shared file: its structures, and where each of them lies."""

from libc.stdint cimport int64_t, uint64_t

from tidegate._core.counters cimport tg_field, tg_histogram, tg_row, tg_text


cdef extern from "scoreboard.h" nogil:
    const int TG_OPERATION_BOUNDS, TG_OUTCOMES
    const tg_field *TG_DAEMON_FIELDS
    const tg_field *TG_SLOT_FIELDS
    const size_t TG_DAEMON_FIELD_COUNT, TG_SLOT_FIELD_COUNT
    const double *TG_OPERATIONS
    const uint64_t TG_MAGIC
    const size_t TG_LASTING, TG_SUMMED

    ctypedef struct tg_header:
        uint64_t magic, layout, size, rows, slots
        uint64_t sequence, rows_used, slots_used
        int64_t pid
        double started_at, ticked_at
        uint64_t desired, ready, draining, log_messages_dropped, config_hash
        uint64_t last_reload
        double last_reload_at
        tg_histogram *reload_duration
        tg_histogram *drain_duration
        uint64_t admin_cpu, accept_queue_length, accept_queue_limit
        int64_t hub_pid
        double hub_started_at
        tg_text bus_url

    ctypedef struct tg_worker:
        uint64_t taken, slot
        int64_t pid
        uint64_t generation, stage
        double started_at

    ctypedef struct tg_slot:
        double backoff_until
        uint64_t cpu, accept_queue_length, accept_queue_limit
        tg_row retired

    uint64_t tg_layout()
    void tg_add(tg_row *into, const tg_row *row, size_t words)
    size_t tg_size(uint64_t rows, uint64_t slots)
    tg_worker *tg_worker_at(tg_header *h, uint64_t i)
    tg_row *tg_hub_row(tg_header *h)
    tg_slot *tg_slot_at(tg_header *h, uint64_t i)
    tg_row *tg_row_at(tg_header *h, uint64_t i)
    int64_t tg_connections(const tg_row *row)
    void tg_write_begin(tg_header *h)
    void tg_write_end(tg_header *h)
    uint64_t tg_read_begin(const tg_header *h)
    bint tg_read_same(const tg_header *h, uint64_t sequence)
    void tg_copy(void *to, const void *source, size_t bytes)

"""Declarations for native code of the row that a worker writes, and of how to count in it."""

cimport cython
from libc.stdint cimport int64_t, uint64_t


cdef extern from "counters.h" nogil:
    const int TG_BOUNDS, TG_TEXT_BYTES, TG_RECEIVED, TG_SENT, TG_TEXT, TG_BINARY
    const double TG_MICROSECONDS, TG_NANOSECONDS

    ctypedef struct tg_histogram:
        uint64_t *bucket
        uint64_t sum

    ctypedef struct tg_text:
        char *text

    ctypedef struct tg_window:
        double at
        uint64_t published
        tg_histogram lag

    ctypedef struct tg_row:  # what native code names of it; counters.h has it all
        uint64_t connections_accepted
        uint64_t pauses[2]
        uint64_t http_requests[8]
        tg_histogram http_request_duration
        int64_t connections_handshaking
        int64_t connections_open
        int64_t connections_closing
        int64_t connections_http
        int64_t send_queue_connections
        int64_t send_queue_bytes
        double heartbeat
        uint64_t send_queue_max_bytes
        uint64_t connections_max
        uint64_t connections_max_of_all
        uint64_t bus_engine
        uint64_t bus_up
        uint64_t bus_required
        double bus_changed_at
        tg_text bus_reason
        uint64_t bus_published
        tg_histogram bus_lag
        tg_window bus_window
        tg_window bus_next_window

    ctypedef struct tg_field:
        const char *name
        size_t offset, count
        int kind
        const char *names
        const double *bounds
        int bounds_count
        double ticks

    double tg_now()
    double tg_now_about()
    const double *TG_DURATIONS
    void tg_observe(tg_histogram *h, const double *bounds, int count, double value)
    void tg_observe_in(tg_histogram *h, const double *bounds, int count, double value, double ticks)
    void tg_count_lag(tg_row *row, double lag)
    void tg_count_fanout(tg_row *row, double seconds)
    void tg_count_publish(tg_row *row, double seconds)
    void tg_count_bytes(tg_row *row, int direction, uint64_t size)
    void tg_count_message(tg_row *row, int direction, int opcode, uint64_t size)
    void tg_count_handled(tg_row *row, double since)


@cython.no_gc  # never in a cycle; clearing _owner before the end would free memory of the scoreboard
@cython.final
cdef class Row:
    cdef tg_row *data
    cdef readonly int index  # in its scoreboard; -1: a private row
    cdef object _owner  # keeps the memory alive: a Scoreboard, or None for a private row
    cdef int _inc(self, str name, tuple names, uint64_t by) except -1
    cdef int _observe(self, str name, double value) except -1


cdef dict table_of(const tg_field *table, size_t count)
cdef size_t word_of(dict fields, str name, tuple names) except? 0
cdef Row current_row()
cdef Row row_at(tg_row *data, object owner, int index)
cdef str read_text(const tg_text *text)
cdef int write_text(tg_text *into, str text) except -1

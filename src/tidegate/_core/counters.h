/* What one worker process counts: the table of it, the row (tg_row) that follows from the table, and how it is counted.
 * All of it is 64-bit words, so that a row can be read while it is written, and rows can be added word by word.
 * What must not live here: the shared file (scoreboard.h), anything that knows a Python object. */
#ifndef TIDEGATE_COUNTERS_H
#define TIDEGATE_COUNTERS_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

/* ---- buckets of histograms ---- */

#define TG_BOUNDS 16 /* the most finite bounds that a histogram has */

typedef struct {
    uint64_t bucket[TG_BOUNDS + 1]; /* not cumulative; the one after the last bound is +Inf */
    uint64_t sum;                   /* in ticks: whole numbers, since adding floats in another order moves the last
                                     * digit, and a sum that shrinks by one digit is a counter reset to Prometheus */
} tg_histogram;

/* Bounds of every duration on the hot path, in seconds: 100 us to 10 s, as many as fit a glance. */
static const double TG_DURATIONS[TG_BOUNDS] = {
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
};
/* Bounds of the event loop's lag, in seconds: under a millisecond it is noise, over five it is an outage. */
#define TG_LAG_BOUNDS 11
static const double TG_LAGS[TG_LAG_BOUNDS] = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5};
/* Bounds of a connection's life, in seconds: a second to a day. */
#define TG_LIFETIME_BOUNDS 8
static const double TG_LIFETIMES[TG_LIFETIME_BOUNDS] = {1, 10, 60, 300, 1800, 3600, 14400, 86400};

/* Bounds of the size of a message, in bytes: 64 B to 16 MiB, each four times the one before. */
#define TG_SIZE_BOUNDS 10
static const double TG_SIZES[TG_SIZE_BOUNDS] = {
    64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216,
};

/* Bounds of reloads and drains, in seconds: a tenth of a second to five minutes. */
#define TG_OPERATION_BOUNDS 10
static const double TG_OPERATIONS[TG_OPERATION_BOUNDS] = {0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};

/* Ticks of a sum, in one second. In nanoseconds 64 bits hold 584 years, too few for the lives of connections:
 * 10,000 of them that live a day each add 27 years a day. So those are summed in microseconds. */
#define TG_NANOSECONDS 1e9
#define TG_MICROSECONDS 1e6
#define TG_BYTES 1.0 /* in one byte, of a sum of bytes */

/* ---- the table: what a row counts, each once ----
 * From it follow the members of tg_row, the names and places that Python reads (counters.FIELDS), and the number of the
 * layout (tg_layout() in scoreboard.h). Another line is another layout, which older releases do not read. */

/* Counters: X(name, words, names of the words). Of two dimensions, the names of the first come before the comma.
 * A name is added at the end, as long as there are words for it, and never moved: that keeps the layout. */
#define TG_COUNTERS(X)                                                                                                 \
    X(connections_accepted, , "")                                                                                      \
    /* ok, the reason of an error response, or timeout and disconnected: there was no response. rejected: a hook      \
     * responded, also with a page. error: a hook raised. unavailable: the server was closing. limited: a limit of    \
     * connections was reached. bad_proxy_header, tls_failed: what comes before the handshake did not. */             \
    X(handshakes, [16],                                                                                                \
      "ok bad_request forbidden method_not_allowed upgrade_required too_large version_not_supported rejected error "   \
      "timeout unavailable disconnected limited bad_proxy_header tls_failed")                                          \
    /* local, remote: that side sent the first close frame. abort: the connection was lost or cut. */                  \
    X(closes, [3][20],                                                                                                 \
      "local remote abort, 1000 1001 1002 1003 1004 1005 1006 1007 1008 1009 1010 1011 1012 1013 1014 1015 "           \
      "3xxx 4xxx other")                                                                                               \
    X(messages, [2][2], "received sent, text binary")                                                                  \
    X(bytes, [2], "received sent") /* payload of data messages */                                                      \
    X(pauses, [2], "reading writing") /* for max_queue, for write_limit */                                             \
    X(pong_timeouts, , "")                                                                                             \
    /* Limits of the daemon, of the worker's descriptors, of one client's address at a time, and of its handshakes a   \
     * second. */                                                                                                      \
    X(limit_rejections, [8], "daemon descriptors address rate")                                                        \
    X(log_messages_dropped, , "")                                                                                      \
    X(slow_consumers, [4], "close") /* with code 1013 */                                                               \
    X(gc_collections, [3], "0 1 2") /* generation */                                                                   \
    X(http_requests, [8], "1xx 2xx 3xx 4xx 5xx") /* of an ASGI application, by status */                               \
    /* Channels, as one worker has them; what is missed is repaired, or the members are told. */                       \
    X(bus_state_changes, [4], "up down again")                                                                         \
    X(bus_published, , "")                                                                                             \
    X(bus_publish_failures, [8], "busy down uncertain refused")                                                        \
    X(bus_received, , "")                                                                                              \
    X(bus_delivered, , "")                                                                                             \
    X(bus_duplicates, , "")                                                                                            \
    X(bus_gaps, [2], "repaired told")                                                                                  \
    X(bus_resumes, [4], "new full partial failed")                                                                     \
    X(bus_resumed_messages, , "")                                                                                      \
    X(bus_reads, [2], "read failed")                                                                                   \
    X(bus_dropped, [4], "subscription link") /* by an iterator that is not read, by the hub for a busy worker */       \
    X(bus_closes, [8], "slow gap asked") /* members that were closed by their channels */                              \
    /* The hub. */                                                                                                     \
    X(hub_published, , "")                                                                                             \
    X(hub_delivered, , "")                                                                                             \
    X(journal_stored, , "")                                                                                            \
    X(journal_evicted, [4], "space") /* before the policy of the channel said so */

/* Histograms: X(name, bounds, how many of them, ticks of the sum in one of their unit). */
#define TG_HISTOGRAMS(X)                                                                                               \
    X(handshake_duration, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS)                                                     \
    X(handler_duration, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS)                                                       \
    X(connection_duration, TG_LIFETIMES, TG_LIFETIME_BOUNDS, TG_MICROSECONDS)                                          \
    X(ping_rtt, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS)                                                               \
    X(event_loop_lag, TG_LAGS, TG_LAG_BOUNDS, TG_NANOSECONDS)                                                          \
    X(gc_pause, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS)                                                               \
    X(http_request_duration, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS)                                                  \
    X(message_size_received, TG_SIZES, TG_SIZE_BOUNDS, TG_BYTES) /* these two in the order of TG_RECEIVED, TG_SENT */  \
    X(message_size_sent, TG_SIZES, TG_SIZE_BOUNDS, TG_BYTES)                                                           \
    X(bus_publish, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS) /* with history: until it is stored */                     \
    X(bus_lag, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS)                                                                \
    X(bus_fanout, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS)                                                             \
    X(bus_probe, TG_DURATIONS, TG_BOUNDS, TG_NANOSECONDS)

/* Gauges: X(name). What follows from here on does not outlive the worker. */
#define TG_GAUGES(X)                                                                                                   \
    X(connections_handshaking)                                                                                         \
    X(connections_open)                                                                                                \
    X(connections_closing)                                                                                             \
    X(connections_http) /* that were handed to HTTP, for an ASGI application */                                        \
    X(send_queue_connections) /* those with more than their write_limit to be sent */                                  \
    X(send_queue_bytes)       /* and how much that is */                                                               \
    X(bus_members)                                                                                                     \
    X(bus_topics)                                                                                                      \
    X(bus_subscriptions_pending)                                                                                       \
    X(bus_queue_bytes) /* to the engine */                                                                             \
    X(hub_links)                                                                                                       \
    X(hub_queue_bytes) /* to all links */                                                                              \
    X(hub_topics)                                                                                                      \
    X(journal_messages)                                                                                                \
    X(journal_bytes)

#define TG_TEXT_BYTES 128
typedef struct {
    char text[TG_TEXT_BYTES]; /* UTF-8, and zeros */
} tg_text;

/* What had been counted at a time, from which one read tells what is going on. */
typedef struct {
    double at; /* CLOCK_MONOTONIC seconds; 0: never */
    uint64_t published;
    tg_histogram lag;
} tg_window;

/* What does not add up over rows: X(type, name). */
#define TG_FACTS(X)                                                                                                    \
    X(double, heartbeat) /* CLOCK_MONOTONIC seconds of the worker's last tick */                                       \
    X(uint64_t, send_queue_max_bytes)                                                                                  \
    X(uint64_t, connections_max)        /* what the worker's open files allow */                                       \
    X(uint64_t, connections_max_of_all) /* in the whole daemon; 0: no such limit */                                    \
    X(uint64_t, bus_engine)   /* which of TG_ENGINES, from 1; 0: the worker has no bus */                              \
    X(uint64_t, bus_up)                                                                                                \
    X(uint64_t, bus_required) /* for the daemon to be ready */                                                         \
    X(double, bus_changed_at) /* CLOCK_MONOTONIC seconds of the last change of bus_up */                               \
    X(tg_text, bus_reason)    /* of being down */                                                                      \
    X(tg_window, bus_window)  /* that of 10 to 20 s ago */                                                             \
    X(tg_window, bus_next_window)

/* ---- one row: written by its worker only, read by any process ---- */

enum { TG_RECEIVED = 0, TG_SENT = 1 };
enum { TG_TEXT = 0, TG_BINARY = 1 };

#define TG_COUNTER_MEMBER(name, words, names) uint64_t name words;
#define TG_HISTOGRAM_MEMBER(name, bounds, count, ticks) tg_histogram name;
#define TG_GAUGE_MEMBER(name) int64_t name;
#define TG_FACT_MEMBER(type, name) type name;

typedef struct {
    TG_COUNTERS(TG_COUNTER_MEMBER)
    TG_HISTOGRAMS(TG_HISTOGRAM_MEMBER)
    TG_GAUGES(TG_GAUGE_MEMBER)
    TG_FACTS(TG_FACT_MEMBER)
} tg_row;

/* ---- how it is counted ---- */

static inline double tg_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void tg_observe_in(tg_histogram *h, const double *bounds, int count, double value, double ticks) {
    int i = 0;
    while (i < count && value > bounds[i]) i++;
    h->bucket[i]++;
    /* A clock that stepped back and a NaN add nothing; 1e9 s is more than any life, and still fits the integer. */
    if (value > 0) h->sum += (uint64_t)(int64_t)((value < 1e9 ? value : 1e9) * ticks + 0.5);
}

static inline void tg_observe(tg_histogram *h, const double *bounds, int count, double value) {
    tg_observe_in(h, bounds, count, value, TG_NANOSECONDS);
}

/* tg_now(), or its value of up to two microseconds ago: the clock takes as long as all other counting of a message
 * together, and messages that come together are handled in less than that each. The processor's counter tells when to ask
 * the clock again; if it runs backwards or differs between processors, the clock is only asked more often. */
#if defined(__x86_64__)
#define TG_STALE 4096 /* cycles */
static inline double tg_now_about(void) {
    static double now;
    static uint64_t asked_at;
    uint64_t at = __builtin_ia32_rdtsc();
    if (at - asked_at > TG_STALE) {
        now = tg_now();
        asked_at = at;
    }
    return now;
}
#else
static inline double tg_now_about(void) { return tg_now(); }
#endif

/* ---- what is counted per message; nothing with TIDEGATE_NO_METRICS, which measures what the counting costs ---- */

static inline int tg_size_bucket(uint64_t size) {
    int i;
    if (size <= 64) return 0;
    i = (59 - __builtin_clzll(size - 1)) / 2;
    return i < TG_SIZE_BOUNDS ? i : TG_SIZE_BOUNDS;
}

#ifndef TIDEGATE_NO_METRICS
/* Counts a message of a channel, that was published so many seconds ago. */
static inline void tg_count_lag(tg_row *row, double lag) {
    tg_observe(&row->bus_lag, TG_DURATIONS, TG_BOUNDS, lag);
}

/* Counts what was given to the members of this process at once, in so many seconds. */
static inline void tg_count_fanout(tg_row *row, double seconds) {
    tg_observe(&row->bus_fanout, TG_DURATIONS, TG_BOUNDS, seconds);
}

/* Counts a publication that took so many seconds to be stored. */
static inline void tg_count_publish(tg_row *row, double seconds) {
    tg_observe(&row->bus_publish, TG_DURATIONS, TG_BOUNDS, seconds);
}

/* Counts the payload of a data frame. */
static inline void tg_count_bytes(tg_row *row, int direction, uint64_t size) { row->bytes[direction] += size; }

/* Counts a message at its end, by the payload that its frames had together. */
static inline void tg_count_message(tg_row *row, int direction, int opcode, uint64_t size) {
    tg_histogram *h = &row->message_size_received + direction;
    row->messages[direction][opcode - 1]++;
    h->bucket[tg_size_bucket(size)]++;
    h->sum += size;
}

/* Counts the time that the handler took for the message that arrived then. */
static inline void tg_count_handled(tg_row *row, double since) {
    tg_observe(&row->handler_duration, TG_DURATIONS, TG_BOUNDS, tg_now_about() - since);
}
#else
static inline void tg_count_lag(tg_row *row, double lag) {}
static inline void tg_count_fanout(tg_row *row, double seconds) {}
static inline void tg_count_publish(tg_row *row, double seconds) {}
static inline void tg_count_bytes(tg_row *row, int direction, uint64_t size) {}
static inline void tg_count_message(tg_row *row, int direction, int opcode, uint64_t size) {}
static inline void tg_count_handled(tg_row *row, double since) {}
#endif

/* ---- the table for readers: all fields that add up over rows ---- */

enum { TG_COUNTER = 0, TG_HISTOGRAM = 1, TG_GAUGE = 2 };

typedef struct {
    const char *name;
    size_t offset, count; /* in words */
    int kind;
    const char *names;    /* of a counter's words */
    const double *bounds; /* of a histogram, like the next two */
    int bounds_count;
    double ticks;
} tg_field;

#define TG_WORDS(what) (sizeof(what) / sizeof(uint64_t))
#define TG_PLACE(type, name) #name, offsetof(type, name) / sizeof(uint64_t), TG_WORDS(((type *)0)->name)
#define TG_COUNTER_FIELD(name, words, names) {TG_PLACE(tg_row, name), TG_COUNTER, names, NULL, 0, 0},
#define TG_HISTOGRAM_FIELD(name, bounds, count, ticks) {TG_PLACE(tg_row, name), TG_HISTOGRAM, "", bounds, count, ticks},
#define TG_GAUGE_FIELD(name) {TG_PLACE(tg_row, name), TG_GAUGE, "", NULL, 0, 0},
static const tg_field TG_FIELDS[] = {
    TG_COUNTERS(TG_COUNTER_FIELD) TG_HISTOGRAMS(TG_HISTOGRAM_FIELD) TG_GAUGES(TG_GAUGE_FIELD)
};
#define TG_FIELD_COUNT (sizeof(TG_FIELDS) / sizeof(TG_FIELDS[0]))

#define TG_LASTING (offsetof(tg_row, connections_handshaking) / sizeof(uint64_t)) /* words that outlive a worker */
#define TG_SUMMED (offsetof(tg_row, heartbeat) / sizeof(uint64_t))                /* words that add up over rows */

typedef uint64_t __attribute__((may_alias)) tg_word; /* a counter, a gauge or the bits of a double */

/* The connections that the row's worker has now, read while it counts. */
static inline int64_t tg_connections(const tg_row *row) {
    return __atomic_load_n(&row->connections_handshaking, __ATOMIC_RELAXED) +
           __atomic_load_n(&row->connections_open, __ATOMIC_RELAXED) +
           __atomic_load_n(&row->connections_closing, __ATOMIC_RELAXED) +
           __atomic_load_n(&row->connections_http, __ATOMIC_RELAXED);
}

static inline void tg_add(tg_row *into, const tg_row *row, size_t words) {
    tg_word *a = (tg_word *)into;
    const tg_word *b = (const tg_word *)row;
    for (size_t i = 0; i < words; i++) a[i] += b[i];
}
#endif

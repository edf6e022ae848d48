/* One row of the scoreboard: what one worker process counts, in 64-bit words, so that a row can be read while it is
 * written, and rows can be added word by word. Written by its worker only. Nothing here knows a Python object. */
#ifndef TIDEGATE_SCOREBOARD_H
#define TIDEGATE_SCOREBOARD_H
#include <stdint.h>
#include <time.h>

#define TG_BOUNDS 16 /* the most finite bounds that a histogram has */

typedef struct {
    uint64_t bucket[TG_BOUNDS + 1]; /* not cumulative; the one after the last bound is +Inf */
    double sum;
} tg_histogram;

enum { TG_RECEIVED = 0, TG_SENT = 1 };
enum { TG_TEXT = 0, TG_BINARY = 1 };

/* Handshake results and close codes are small closed sets: scoreboard.pyx has the names in this order. */
#define TG_HANDSHAKE_RESULTS 16
#define TG_CLOSE_CODES 20
#define TG_INITIATORS 3

typedef struct {
    /* counters */
    uint64_t connections_accepted;
    uint64_t handshakes[TG_HANDSHAKE_RESULTS];
    uint64_t closes[TG_INITIATORS][TG_CLOSE_CODES];
    uint64_t messages[2][2]; /* direction, opcode */
    uint64_t bytes[2];       /* direction; payload bytes of data messages */
    uint64_t pauses[2];      /* direction: reading paused by max_queue, writing paused by write_limit */
    uint64_t pong_timeouts;
    /* histograms, in seconds */
    tg_histogram handshake_duration;
    tg_histogram handler_duration;
    tg_histogram connection_duration;
    tg_histogram ping_rtt;
    tg_histogram event_loop_lag;
    /* gauges */
    int64_t connections_handshaking;
    int64_t connections_open;
    int64_t connections_closing;
    double heartbeat; /* CLOCK_MONOTONIC seconds of the worker's last tick */
} tg_row;

/* Bounds of every duration on the hot path, in seconds: 100 us to 10 s, as many as fit a glance. */
static const double TG_DURATIONS[TG_BOUNDS] = {
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
};

static inline double tg_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void tg_observe(tg_histogram *h, const double *bounds, int count, double value) {
    int i = 0;
    while (i < count && value > bounds[i]) i++;
    h->bucket[i]++;
    h->sum += value;
}
#endif

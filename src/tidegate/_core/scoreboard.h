/* The shared file: a header, a directory of workers, a slot for each place of a worker, and every worker's row.
 * What must not live here: what is in a row (counters.h), anything that knows a Python object. */
#ifndef TIDEGATE_SCOREBOARD_H
#define TIDEGATE_SCOREBOARD_H
#include "counters.h"

/* ---- the shared file: header | directory of workers | slots | rows ----
 * The header, the directory and the slots are the supervisor's; row i belongs to the worker in directory entry i.
 * Each slot and each row has pages of its own: nobody waits for another's cache line, and an unused one costs nothing
 * as long as nobody looks at it (in a memory file, reading a hole fills it). */

#define TG_MAGIC UINT64_C(0x4554414745444954) /* "TIDEGATE" */
#define TG_LAYOUT 6                           /* changes with every change of the structures of this file and of counters.h */
#define TG_PAGE 4096
#define TG_EXIT_REASONS 16
#define TG_OUTCOMES 2 /* success, failure */

typedef struct {
    uint64_t magic, layout, size, rows, slots;
    uint64_t sequence; /* odd while the supervisor assigns, retires or counts: readers try again */
    uint64_t rows_used, slots_used; /* how far readers must look */
    /* facts about the supervisor */
    int64_t pid;
    double started_at; /* Unix time */
    double ticked_at;  /* CLOCK_MONOTONIC seconds */
    uint64_t desired;  /* workers that should be ready */
    uint64_t ready, draining;
    uint64_t log_messages_dropped; /* by the supervisor itself */
    uint64_t config_hash; /* of the settings of the present generation; 0: not told */
    /* what was done to the daemon */
    uint64_t reloads[TG_OUTCOMES], upgrades[TG_OUTCOMES];
    uint64_t last_reload;  /* its outcome; an upgrade reloads as well */
    double last_reload_at; /* Unix time; 0: there was none */
    tg_histogram reload_duration[TG_OUTCOMES], drain_duration[TG_OUTCOMES];
    /* as with slots, for what belongs to none */
    uint64_t admin_cpu;
    uint64_t accept_queue_length, accept_queue_limit;
} tg_header;

typedef struct {
    uint64_t taken, slot;
    int64_t pid; /* 0 until it is forked */
    uint64_t generation, stage;
    double started_at; /* Unix time */
    uint64_t spare[2];
} tg_worker;

typedef struct {
    uint64_t spawns;
    uint64_t exits[TG_EXIT_REASONS];
    double backoff_until; /* CLOCK_MONOTONIC seconds; 0: not backing off */
    uint64_t cpu;         /* microseconds of processor time that its ended workers took */
    uint64_t accept_queue_length, accept_queue_limit; /* of its own sockets, now; limit 0: it has none */
    tg_row retired;       /* the sum of what ended workers of this slot counted */
} tg_slot;

#define TG_STRIDE(type) ((sizeof(type) + TG_PAGE - 1) / TG_PAGE * TG_PAGE)

static inline size_t tg_slots_offset(uint64_t rows) {
    return TG_STRIDE(tg_header) + (rows * sizeof(tg_worker) + TG_PAGE - 1) / TG_PAGE * TG_PAGE;
}

static inline size_t tg_size(uint64_t rows, uint64_t slots) {
    return tg_slots_offset(rows) + slots * TG_STRIDE(tg_slot) + rows * TG_STRIDE(tg_row);
}

static inline tg_worker *tg_worker_at(tg_header *h, uint64_t i) {
    return (tg_worker *)((char *)h + TG_STRIDE(tg_header)) + i;
}

static inline tg_slot *tg_slot_at(tg_header *h, uint64_t i) {
    return (tg_slot *)((char *)h + tg_slots_offset(h->rows) + i * TG_STRIDE(tg_slot));
}

static inline tg_row *tg_row_at(tg_header *h, uint64_t i) {
    return (tg_row *)((char *)h + tg_slots_offset(h->rows) + h->slots * TG_STRIDE(tg_slot) + i * TG_STRIDE(tg_row));
}

/* The sequence lock. One supervisor writes; a reader copies between tg_read_begin (odd: not now) and tg_read_same. */
static inline void tg_write_begin(tg_header *h) {
    __atomic_store_n(&h->sequence, h->sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void tg_write_end(tg_header *h) { __atomic_store_n(&h->sequence, h->sequence + 1, __ATOMIC_RELEASE); }

static inline uint64_t tg_read_begin(const tg_header *h) { return __atomic_load_n(&h->sequence, __ATOMIC_ACQUIRE); }

static inline int tg_read_same(const tg_header *h, uint64_t sequence) {
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&h->sequence, __ATOMIC_RELAXED) == sequence;
}

/* Copies word by word, each in one load: the writers of rows do not wait for us. */
static inline void tg_copy(void *to, const void *from, size_t bytes) {
    tg_word *a = (tg_word *)to;
    const tg_word *b = (const tg_word *)from;
    for (size_t i = 0; i < bytes / sizeof(uint64_t); i++) a[i] = __atomic_load_n(b + i, __ATOMIC_RELAXED);
}
#endif

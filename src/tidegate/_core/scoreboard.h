/* The shared file: a header, a directory of workers, a slot for each place of a worker, and every worker's row; and the
 * number that tells this layout from others.
 * What must not live here: what is in a row (counters.h), anything that knows a Python object. */
#ifndef TIDEGATE_SCOREBOARD_H
#define TIDEGATE_SCOREBOARD_H
#include "counters.h"

/* ---- the shared file: header | row of the hub | directory of workers | slots | rows ----
 * The header, the directory and the slots are the supervisor's; row i belongs to the worker in directory entry i. Hubs,
 * of which one after the other writes, count on where the one before ended.
 * Each slot and each row has pages of its own: workers share no cache line, and an unused one takes no memory as long as
 * it is not read (in a memory file, reading a hole fills it). */

#define TG_MAGIC UINT64_C(0x4554414745444954) /* "TIDEGATE" */
#define TG_LAYOUT_6 0x4690db /* the number of the layout that was called 6 when numbers were given by hand */
#define TG_PAGE 4096
#define TG_OUTCOMES 2 /* success, failure */

/* Counters of the supervisor, each once, as in counters.h: those of the daemon, and those of each slot. */
#define TG_DAEMON_COUNTERS(X)                                                                                          \
    X(reloads, [TG_OUTCOMES], "success failure")                                                                       \
    X(upgrades, [TG_OUTCOMES], "success failure")                                                                      \
    X(hub_restarts, , "") /* hubs that ended by themselves */

/* Workers that ended as asked: stopped, reload, recycle_... By themselves: crash (an exit status), signal, oom_suspect
 * (SIGKILL that the supervisor did not send), hung (killed for its heartbeat), boot_failed (never ready). */
#define TG_SLOT_COUNTERS(X)                                                                                            \
    X(spawns, , "")                                                                                                    \
    X(exits, [16],                                                                                                     \
      "stopped reload recycle_age recycle_connections recycle_memory crash signal hung oom_suspect boot_failed")

/* A structure of the file, and its text: both are part of the layout. */
#define TG_SHARED(name, ...)                                                                                           \
    typedef struct {                                                                                                   \
        __VA_ARGS__                                                                                                    \
    } name;                                                                                                            \
    static const char name##_text[] = #__VA_ARGS__;

TG_SHARED(tg_header,
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
    uint64_t config_hash; /* of the settings of the present generation; 0: unknown */
    /* operations */
    TG_DAEMON_COUNTERS(TG_COUNTER_MEMBER)
    uint64_t last_reload;  /* its outcome; an upgrade reloads as well */
    double last_reload_at; /* Unix time; 0: there was none */
    tg_histogram reload_duration[TG_OUTCOMES], drain_duration[TG_OUTCOMES];
    /* as with slots: of the admin process, and of sockets that all slots share */
    uint64_t admin_cpu;
    uint64_t accept_queue_length, accept_queue_limit;
    int64_t hub_pid;       /* 0: there is no hub */
    double hub_started_at; /* Unix time */
    tg_text bus_url;       /* without secrets */
)

TG_SHARED(tg_worker,
    uint64_t taken, slot;
    int64_t pid; /* 0 until it is forked */
    uint64_t generation, stage;
    double started_at; /* Unix time */
    uint64_t spare[2];
)

TG_SHARED(tg_slot,
    TG_SLOT_COUNTERS(TG_COUNTER_MEMBER)
    double backoff_until; /* CLOCK_MONOTONIC seconds; 0: not backing off */
    uint64_t cpu;         /* microseconds of processor time that its ended workers took */
    uint64_t accept_queue_length, accept_queue_limit; /* of its own sockets, now; limit 0: it has none */
    tg_row retired;       /* the sum of what ended workers of this slot counted */
)

#define TG_DAEMON_FIELD(name, words, names) {TG_PLACE(tg_header, name), TG_COUNTER, names, NULL, 0, 0},
#define TG_SLOT_FIELD(name, words, names) {TG_PLACE(tg_slot, name), TG_COUNTER, names, NULL, 0, 0},
static const tg_field TG_DAEMON_FIELDS[] = {TG_DAEMON_COUNTERS(TG_DAEMON_FIELD)};
static const tg_field TG_SLOT_FIELDS[] = {TG_SLOT_COUNTERS(TG_SLOT_FIELD)};
#define TG_DAEMON_FIELD_COUNT (sizeof(TG_DAEMON_FIELDS) / sizeof(TG_DAEMON_FIELDS[0]))
#define TG_SLOT_FIELD_COUNT (sizeof(TG_SLOT_FIELDS) / sizeof(TG_SLOT_FIELDS[0]))

#define TG_STRIDE(type) ((sizeof(type) + TG_PAGE - 1) / TG_PAGE * TG_PAGE)

/* ---- the number of the layout: programs with other structures or another table have another one ---- */

#define TG_FACT_TEXT(type, name) #type " " #name ";"

static inline uint64_t tg_mix(uint64_t hash, const void *what, size_t bytes) { /* FNV-1a */
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const unsigned char *)what)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static inline uint64_t tg_mix_number(uint64_t hash, uint64_t number) { return tg_mix(hash, &number, sizeof(number)); }

static inline uint64_t tg_mix_field(uint64_t hash, const tg_field *field) {
    hash = tg_mix(hash, field->name, strlen(field->name));
    hash = tg_mix_number(hash, field->offset);
    hash = tg_mix_number(hash, field->count);
    hash = tg_mix_number(hash, (uint64_t)field->kind);
    hash = tg_mix(hash, field->bounds, (size_t)field->bounds_count * sizeof(double));
    return tg_mix(hash, &field->ticks, sizeof(double));
}

static inline uint64_t tg_layout(void) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    hash = tg_mix(hash, tg_header_text, sizeof(tg_header_text));
    hash = tg_mix(hash, tg_worker_text, sizeof(tg_worker_text));
    hash = tg_mix(hash, tg_slot_text, sizeof(tg_slot_text));
    hash = tg_mix(hash, TG_FACTS(TG_FACT_TEXT), sizeof(TG_FACTS(TG_FACT_TEXT)));
    hash = tg_mix(hash, TG_OPERATIONS, sizeof(TG_OPERATIONS));
    for (size_t i = 0; i < TG_FIELD_COUNT; i++) hash = tg_mix_field(hash, &TG_FIELDS[i]);
    for (size_t i = 0; i < TG_DAEMON_FIELD_COUNT; i++) hash = tg_mix_field(hash, &TG_DAEMON_FIELDS[i]);
    for (size_t i = 0; i < TG_SLOT_FIELD_COUNT; i++) hash = tg_mix_field(hash, &TG_SLOT_FIELDS[i]);
    hash = tg_mix_number(hash, sizeof(tg_header));
    hash = tg_mix_number(hash, sizeof(tg_worker));
    hash = tg_mix_number(hash, sizeof(tg_slot));
    hash = tg_mix_number(hash, sizeof(tg_row));
    hash = tg_mix_number(hash, TG_PAGE);
    return hash >> 32 == TG_LAYOUT_6 ? 6 : hash >> 32;
}

static inline size_t tg_slots_offset(uint64_t rows) {
    return TG_STRIDE(tg_header) + TG_STRIDE(tg_row) + (rows * sizeof(tg_worker) + TG_PAGE - 1) / TG_PAGE * TG_PAGE;
}

static inline size_t tg_size(uint64_t rows, uint64_t slots) {
    return tg_slots_offset(rows) + slots * TG_STRIDE(tg_slot) + rows * TG_STRIDE(tg_row);
}

static inline tg_worker *tg_worker_at(tg_header *h, uint64_t i) {
    return (tg_worker *)((char *)h + TG_STRIDE(tg_header) + TG_STRIDE(tg_row)) + i;
}

static inline tg_row *tg_hub_row(tg_header *h) { return (tg_row *)((char *)h + TG_STRIDE(tg_header)); }

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

/* Copies word by word, each in one load: the writers of rows do not wait. */
static inline void tg_copy(void *to, const void *from, size_t bytes) {
    tg_word *a = (tg_word *)to;
    const tg_word *b = (const tg_word *)from;
    for (size_t i = 0; i < bytes / sizeof(uint64_t); i++) a[i] = __atomic_load_n(b + i, __ATOMIC_RELAXED);
}
#endif

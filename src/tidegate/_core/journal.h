/* The layout of a journal, which outlives processes and releases: a change of it is another TG_JOURNAL_FORMAT.
 *
 *     a page      tg_journal_head
 *     the table   buckets of TG_WAYS tg_top: where each channel stands, also when its messages are gone
 *     the log     segments of equal size, written one after the other, the oldest again after the last. Each begins with
 *                 a tg_segment, and has tg_records back to back, which end where the next is none
 *
 * One process writes. It may be killed after any byte: a record counts when all of it is there, by its checksum, and is
 * at the place that it says, which no record of an earlier round is. A tg_top changes by a store of 8 bytes.
 * Nothing here allocates, fails or knows a Python object. */
#ifndef TIDEGATE_JOURNAL_H
#define TIDEGATE_JOURNAL_H
#include "crc32c.h"

#define TG_JOURNAL_MAGIC UINT64_C(0x6c6e72756f6a6774) /* "tgjournl" */
#define TG_JOURNAL_FORMAT 1
#define TG_JOURNAL_PAGE 4096
#define TG_SEGMENTS 16
#define TG_WAYS 16
#define TG_ALIGN 8

typedef struct {
    uint64_t magic;
    uint32_t format;
    uint32_t crc; /* of the following up to `boot` */
    uint64_t size; /* of the file */
    uint64_t buckets;
    uint64_t segment; /* bytes of each */
    uint8_t key[16]; /* of the numbers of channels */
    uint64_t boot; /* of the system that wrote last: another one, and not `clean`, means lost pages */
    uint64_t clean;
} tg_journal_head;

typedef struct {
    uint64_t serial; /* grows with each segment that is begun, from 1 */
    uint32_t crc; /* of the serial */
    uint32_t zero[13];
} tg_segment;

typedef struct {
    uint32_t crc; /* of the rest and of the payload that follows */
    uint32_t length; /* of the payload */
    uint8_t flags;
    uint8_t zero[3];
    uint32_t publisher;
    uint64_t channel;
    uint64_t epoch;
    uint64_t offset;
    uint64_t time;
    uint64_t sequence;
    uint64_t place; /* serial of the segment, and where in it: see tg_place */
} tg_record;

typedef struct {
    uint64_t channel;
    uint64_t epoch;
    uint64_t top; /* offset << 16 | check */
    uint32_t crc; /* of channel and epoch; never that of a free one */
    uint32_t used; /* seconds: which one to forget */
} tg_top;

static inline size_t tg_padded(size_t n) { return (n + TG_ALIGN - 1) / TG_ALIGN * TG_ALIGN; }

static inline uint64_t tg_place(uint64_t serial, uint64_t at) { return serial << 32 | at; }

static inline uint32_t tg_head_crc(const tg_journal_head *h) {
    return tg_crc32c(0, &h->size, (size_t)((const uint8_t *)&h->boot - (const uint8_t *)&h->size));
}

static inline uint8_t *tg_log_of(tg_journal_head *h) {
    return (uint8_t *)h + TG_JOURNAL_PAGE + h->buckets * TG_WAYS * sizeof(tg_top);
}

/* How a file of `size` is divided; 0 if it is too small. The table takes about a 32nd. */
static inline int tg_divide(tg_journal_head *h, uint64_t size) {
    h->size = size;
    h->buckets = 1;
    while (h->buckets * 2 * TG_WAYS * sizeof(tg_top) <= size / 32) h->buckets *= 2;
    uint64_t before = TG_JOURNAL_PAGE + h->buckets * TG_WAYS * sizeof(tg_top);
    h->segment = size <= before ? 0 : (size - before) / TG_SEGMENTS / 4096 * 4096;
    return h->segment >= 4096;
}

static inline uint32_t tg_record_crc(const tg_record *head, const void *payload) {
    return tg_crc32c(tg_crc32c(0, &head->length, sizeof(tg_record) - 4), payload, head->length);
}

/* The record at `at` of a segment, or NULL if there is none that counts. */
static inline tg_record *tg_record_at(uint8_t *segment, uint64_t size, uint64_t serial, uint64_t at) {
    if (at + sizeof(tg_record) > size) return NULL;
    tg_record *r = (tg_record *)(segment + at);
    if (r->place != tg_place(serial, at) || r->length > size - at - sizeof(tg_record)) return NULL;
    return tg_record_crc(r, r + 1) == r->crc ? r : NULL;
}

/* The serial of a segment; 0: it is free. */
static inline uint64_t tg_serial_of(const uint8_t *segment) {
    const tg_segment *s = (const tg_segment *)segment;
    return s->serial && tg_crc32c(0, &s->serial, 8) == s->crc && s->serial >> 31 == 0 ? s->serial : 0;
}

static inline void tg_begin_segment(uint8_t *segment, uint64_t serial) {
    tg_segment *s = (tg_segment *)segment;
    __atomic_store_n(&s->crc, 0, __ATOMIC_RELEASE); /* killed from here on, it is free */
    __atomic_store_n(&s->serial, serial, __ATOMIC_RELEASE);
    __atomic_store_n(&s->crc, tg_crc32c(0, &serial, 8), __ATOMIC_RELEASE);
}

static inline uint64_t tg_checked_top(uint64_t channel, uint64_t top) {
    uint64_t pair[2] = {channel, top};
    return top << 16 | (tg_crc32c(0, pair, 16) & 0xffff);
}

static inline int tg_top_counts(const tg_top *t) {
    return tg_crc32c(0, t, 16) == t->crc && tg_checked_top(t->channel, t->top >> 16) == t->top;
}

static inline tg_top *tg_bucket(tg_journal_head *h, uint64_t channel) {
    return (tg_top *)((uint8_t *)h + TG_JOURNAL_PAGE) + (channel & (h->buckets - 1)) * TG_WAYS;
}

/* Where a channel stands, or NULL. */
static inline tg_top *tg_find_top(tg_journal_head *h, uint64_t channel) {
    tg_top *t = tg_bucket(h, channel);
    for (int i = 0; i < TG_WAYS; i++)
        if (t[i].channel == channel && tg_top_counts(&t[i])) return &t[i];
    return NULL;
}

/* Gives a channel a place in the table, its own or that which was used longest ago. */
static inline tg_top *tg_make_top(tg_journal_head *h, uint64_t channel, uint64_t epoch, uint64_t top, uint32_t now) {
    tg_top *t = tg_find_top(h, channel), *bucket = tg_bucket(h, channel);
    for (int i = 0; t == NULL && i < TG_WAYS; i++)
        if (!tg_top_counts(&bucket[i])) t = &bucket[i];
    if (t == NULL) {
        t = bucket;
        for (int i = 1; i < TG_WAYS; i++)
            if (bucket[i].used < t->used) t = &bucket[i];
    }
    uint64_t pair[2] = {channel, epoch};
    uint32_t crc = tg_crc32c(0, pair, 16);
    __atomic_store_n(&t->crc, ~crc, __ATOMIC_RELEASE); /* killed from here on, it is free */
    __atomic_store_n(&t->channel, channel, __ATOMIC_RELEASE);
    __atomic_store_n(&t->epoch, epoch, __ATOMIC_RELEASE);
    __atomic_store_n(&t->top, tg_checked_top(channel, top), __ATOMIC_RELEASE);
    t->used = now;
    __atomic_store_n(&t->crc, crc, __ATOMIC_RELEASE);
    return t;
}

static inline void tg_set_top(tg_top *t, uint64_t top, uint32_t now) {
    __atomic_store_n(&t->top, tg_checked_top(t->channel, top), __ATOMIC_RELEASE);
    t->used = now;
}
#endif

/* Buckets of a log-linear histogram, after HdrHistogram: each power of two is divided into 256 equal parts, so that a
 * bucket is at most 1/256 of its values wide. Values below 512 have a bucket each. What must not live here: counts. */
#ifndef TIDEGATE_HISTOGRAM_H
#define TIDEGATE_HISTOGRAM_H
#include <stdint.h>

#define TG_PARTS 256
#define TG_HIGHEST ((UINT64_C(1) << 42) - 1) /* 73 minutes in nanoseconds: what is more counts as this */
#define TG_BUCKETS 8960                      /* tg_bucket(TG_HIGHEST) + 1 */

static inline uint32_t tg_bucket(uint64_t value) {
    if (value < 2 * TG_PARTS) return (uint32_t)value;
    if (value > TG_HIGHEST) value = TG_HIGHEST;
    int shift = 55 - __builtin_clzll(value);
    return (uint32_t)(shift * TG_PARTS) + (uint32_t)(value >> shift);
}

/* The lowest value of a bucket; that of the next one, less 1, is its highest. */
static inline uint64_t tg_lowest_of(uint32_t bucket) {
    if (bucket < 2 * TG_PARTS) return bucket;
    return (uint64_t)(bucket % TG_PARTS + TG_PARTS) << (bucket / TG_PARTS - 1);
}
#endif

/* How fair turns measure time without asking the clock each time.
 * What must not live here: anything that knows a Python object. */
#ifndef TIDEGATE_TURNS_H
#define TIDEGATE_TURNS_H
#include <stdint.h>
#include <time.h>

/* Ticks of a counter that is cheap to read, and how many may pass before the clock is asked again: 20 to 30 us.
 * If the counter runs backwards or differs between processors, the clock is only asked more often. */
#if defined(__x86_64__)
#define TG_GLANCE 65536
static inline uint64_t tg_ticks(void) { return __builtin_ia32_rdtsc(); }
#else
#define TG_GLANCE 25000
static inline uint64_t tg_ticks(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
#endif
#endif

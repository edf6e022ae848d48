/* How fair turns look at the time without asking the clock each time.
 * What must not live here: anything that knows a Python object. */
#ifndef TIDEGATE_TURNS_H
#define TIDEGATE_TURNS_H
#include <stdint.h>
#include <time.h>

/* Ticks of a counter that is cheap to read, and how many may pass before the clock is asked again: 20 to 30 us.
 * Whatever else the counter may do, run backwards or differ between processors, it is no more than asked too often. */
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

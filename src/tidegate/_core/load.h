/* Time for load.pyx: the clock, and a descriptor that becomes readable at a moment of it. */
#ifndef TIDEGATE_LOAD_H
#define TIDEGATE_LOAD_H
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define TG_SECOND UINT64_C(1000000000)

/* Nanoseconds of the clock that time.monotonic_ns() has. */
static inline uint64_t tg_nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * TG_SECOND + (uint64_t)t.tv_nsec;
}

static inline int tg_new_timer(void) {
    int n = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return n < 0 ? -errno : n;
}

/* Has the timer become readable at a moment, soon if that is past. Setting it also ends its being readable. */
static inline int tg_set_timer(int descriptor, uint64_t moment) {
    struct itimerspec t;
    memset(&t, 0, sizeof t);
    t.it_value.tv_sec = (time_t)(moment / TG_SECOND);
    t.it_value.tv_nsec = (long)(moment % TG_SECOND) + (moment == 0);
    return timerfd_settime(descriptor, TFD_TIMER_ABSTIME, &t, NULL) < 0 ? -errno : 0;
}
#endif

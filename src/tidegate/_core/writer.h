/* What writer.pyx needs from C: buffers to gather in.
 * What must not live here: anything of frames. */
#ifndef TIDEGATE_WRITER_H
#define TIDEGATE_WRITER_H
#include <Python.h>

/* Gathered writes: fixed buffers, lent to a channel for the time of a read callback and given back after it. Popping
 * and pushing happen with the GIL held, so loops in several threads share the stack safely. */
#define TG_GATHER 65536
#define TG_GATHER_SPARE 8

typedef struct {
    size_t size;
    unsigned char data[TG_GATHER];
} tg_gather;

static tg_gather *tg_gather_spare[TG_GATHER_SPARE];
static int tg_gather_spares = 0;

static inline tg_gather *tg_gather_lend(void) {
    tg_gather *g = tg_gather_spares ? tg_gather_spare[--tg_gather_spares] : (tg_gather *)malloc(sizeof(tg_gather));
    if (g) g->size = 0;
    return g;
}

static inline void tg_gather_return(tg_gather *g) {
    if (tg_gather_spares < TG_GATHER_SPARE) {
        tg_gather_spare[tg_gather_spares++] = g;
    } else {
        free(g);
    }
}

#endif

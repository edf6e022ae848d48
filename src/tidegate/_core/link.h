/* A frame's head on the links of the hub, as bus/link.py describes it: the same bytes on every little-endian system.
 * Nothing here allocates, fails or knows a Python object. */
#ifndef TIDEGATE_LINK_H
#define TIDEGATE_LINK_H
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "frames of the hub and the journal are little-endian, and so must be the system"
#endif

#define TG_LINK_PAYLOAD (4 << 20)

/* Kinds that native code knows. */
enum {
    TG_LINK_PUBLISH = 6,
    TG_LINK_MESSAGE = 33,
    TG_LINK_STORED = 34,
    TG_LINK_REFUSED = 35,
    TG_LINK_LOST = 40,
    TG_LINK_TROUBLE = 41,
};

/* Flags that native code knows. */
enum {
    TG_LINK_IS_STORED = 4,
    TG_LINK_ECHO = 8,
    TG_LINK_KEYED = 32,
};

/* Packed, since a head is anywhere in a buffer; nothing is between its fields in any case. */
typedef struct __attribute__((packed)) {
    uint32_t length;
    uint8_t kind;
    uint8_t flags;
    uint16_t zero;
    uint32_t channel;
    uint32_t publisher;
    uint64_t offset;
    uint64_t time;
    uint64_t sequence;
} tg_link_head;

typedef struct {
    uint64_t sequence;
    uint64_t epoch;
    uint64_t offset;
} tg_link_stored;
#endif

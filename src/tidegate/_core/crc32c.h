/* CRC32C (Castagnoli, RFC 3720 appendix B.4), by the processor's instruction where there is one. For journal.h.
 * Nothing here allocates, fails or knows a Python object. */
#ifndef TIDEGATE_CRC32C_H
#define TIDEGATE_CRC32C_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The plain form: a table for four bits at a time, which needs no setting up. */
static inline uint32_t tg_crc32c_plain(uint32_t crc, const uint8_t *p, size_t n) {
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    while (n--) {
        crc ^= *p++;
        crc = table[crc & 15] ^ (crc >> 4);
        crc = table[crc & 15] ^ (crc >> 4);
    }
    return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <nmmintrin.h>
__attribute__((target("sse4.2"))) static inline uint32_t tg_crc32c_fast(uint32_t crc, const uint8_t *p, size_t n) {
    uint64_t wide = crc, word;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&word, p, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    while (n--) crc = _mm_crc32_u8(crc, *p++);
    return crc;
}
#define TG_CRC32C_FAST __builtin_cpu_supports("sse4.2")
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
static inline uint32_t tg_crc32c_fast(uint32_t crc, const uint8_t *p, size_t n) {
    uint64_t word;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&word, p, 8);
        crc = __crc32cd(crc, word);
    }
    while (n--) crc = __crc32cb(crc, *p++);
    return crc;
}
#define TG_CRC32C_FAST 1
#else
#define tg_crc32c_fast tg_crc32c_plain
#define TG_CRC32C_FAST 0
#endif

/* Goes on with the sum of other bytes, 0 at first. */
static inline uint32_t tg_crc32c(uint32_t crc, const void *p, size_t n) {
    const uint8_t *bytes = (const uint8_t *)p;
    return ~(TG_CRC32C_FAST ? tg_crc32c_fast(~crc, bytes, n) : tg_crc32c_plain(~crc, bytes, n));
}
#endif

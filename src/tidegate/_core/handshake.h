/* The opening handshake of a request that is as most are (RFC 6455, 4.2.1): judged from its bytes, and its accept key.
 * What is not certain is no such request, and is http11.py's and server.py's to judge. Plain C on plain memory.
 * What must not live here: responses, anything that knows a Python object. */
#ifndef TIDEGATE_HANDSHAKE_H
#define TIDEGATE_HANDSHAKE_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TG_PLAIN_HEAD 4096 /* bytes of a head, at most */
#define TG_PLAIN_HEADERS 64

typedef struct {
    const char *data;
    size_t size;
} tg_text;

/* What a plain request says. */
typedef struct {
    size_t size; /* of its head, the empty line included */
    tg_text host, connection, upgrade, key, version, origin, extensions;
} tg_plain_request;

/* The headers that are looked at, each of which may come once, and those with which a request is not plain. */
static const struct {
    const char *name;
    size_t place; /* in tg_plain_request; 0: not plain */
} TG_PLAIN_NAMES[] = {
    {"host", offsetof(tg_plain_request, host)},
    {"connection", offsetof(tg_plain_request, connection)},
    {"upgrade", offsetof(tg_plain_request, upgrade)},
    {"sec-websocket-key", offsetof(tg_plain_request, key)},
    {"sec-websocket-version", offsetof(tg_plain_request, version)},
    {"origin", offsetof(tg_plain_request, origin)},
    {"sec-websocket-extensions", offsetof(tg_plain_request, extensions)},
    {"sec-websocket-protocol", 0},
    {"content-length", 0},
    {"transfer-encoding", 0},
    {"proxy-connection", 0},
};

static inline char tg_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 32) : c; }

static inline int tg_same(tg_text text, const char *lower) {
    size_t n = strlen(lower);
    if (text.size != n) return 0;
    for (size_t i = 0; i < n; i++)
        if (tg_lower(text.data[i]) != lower[i]) return 0;
    return 1;
}

static inline int tg_is_alnum(char c) {
    return (c >= '0' && c <= '9') || (tg_lower(c) >= 'a' && tg_lower(c) <= 'z');
}

/* A name and perhaps a port, without escapes; addresses of IPv6 are left to others. */
static inline int tg_plain_host(tg_text host) {
    size_t i = 0, digits = 0;
    while (i < host.size && (tg_is_alnum(host.data[i]) || host.data[i] == '-' || host.data[i] == '.')) i++;
    if (i == 0 || i == host.size) return i != 0;
    if (host.data[i++] != ':') return 0;
    for (; i < host.size; i++, digits++)
        if (host.data[i] < '0' || host.data[i] > '9') return 0;
    return digits >= 1 && digits <= 4; /* so that it is no more than 65535 */
}

/* Sixteen bytes in base64. */
static inline int tg_plain_key(tg_text key) {
    if (key.size != 24 || key.data[22] != '=' || key.data[23] != '=') return 0;
    for (size_t i = 0; i < 22; i++)
        if (!tg_is_alnum(key.data[i]) && key.data[i] != '+' && key.data[i] != '/') return 0;
    return strchr("AQgw", key.data[21]) != NULL; /* no bits are left over */
}

static inline int tg_plain_header(tg_plain_request *r, tg_text name, tg_text value) {
    for (size_t i = 0; i < sizeof TG_PLAIN_NAMES / sizeof *TG_PLAIN_NAMES; i++) {
        if (!tg_same(name, TG_PLAIN_NAMES[i].name)) continue;
        tg_text *place = (tg_text *)((char *)r + TG_PLAIN_NAMES[i].place);
        if (!TG_PLAIN_NAMES[i].place || place->data) return 0;
        *place = value;
        return 1;
    }
    return 1;
}

/* Parses "Name: value\r\n" from p on: what follows it, or NULL. */
static inline const char *tg_plain_line(tg_plain_request *r, const char *p, const char *end) {
    tg_text name = {p, 0}, value;
    while (p < end && (tg_is_alnum(*p) || *p == '-' || *p == '_')) p++;
    name.size = (size_t)(p - name.data);
    if (!name.size || p == end || *p++ != ':') return NULL;
    while (p < end && *p == ' ') p++;
    value.data = p;
    while (p < end && *p >= ' ' && *p <= '~') p++;
    if (end - p < 2 || p[0] != '\r' || p[1] != '\n') return NULL;
    value.size = (size_t)(p - value.data);
    while (value.size && value.data[value.size - 1] == ' ') value.size--;
    return tg_plain_header(r, name, value) ? p + 2 : NULL;
}

/* Judges a request: 1 if it is plain and opens a WebSocket. */
static inline int tg_judge_plain(tg_plain_request *r, const char *p, size_t n) {
    const char *start = p, *end = p + (n < TG_PLAIN_HEAD ? n : TG_PLAIN_HEAD);
    memset(r, 0, sizeof *r);
    if (end - p < 5 || memcmp(p, "GET /", 5)) return 0;
    for (p += 5; p < end && (tg_is_alnum(*p) || strchr("-._~/?&=%+,:;@!$'()*", *p)) && *p; p++) {}
    if (end - p < 11 || memcmp(p, " HTTP/1.1\r\n", 11)) return 0;
    p += 11;
    for (int headers = 0; end - p >= 2; headers++) {
        if (p[0] == '\r') {
            r->size = (size_t)(p + 2 - start);
            return p[1] == '\n' && r->host.data && tg_plain_host(r->host) && r->connection.data &&
                   (tg_same(r->connection, "upgrade") || tg_same(r->connection, "keep-alive, upgrade")) &&
                   r->upgrade.data && tg_same(r->upgrade, "websocket") && r->version.data &&
                   tg_same(r->version, "13") && r->key.data && tg_plain_key(r->key);
        }
        if (headers == TG_PLAIN_HEADERS || !(p = tg_plain_line(r, p, end))) return 0;
    }
    return 0;
}

/* ---- Sec-WebSocket-Accept ---- */

/* SHA-1 (FIPS 180-4) of one block. */
static inline void tg_sha1_block(uint32_t h[5], const uint8_t *p) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 80; i++) {
        uint32_t x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
        w[i] = x << 1 | x >> 31;
    }
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? ((b & c) | (~b & d)) + 0x5a827999
                   : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                   : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                            : (b ^ c ^ d) + 0xca62c1d6;
        uint32_t t = (a << 5 | a >> 27) + f + e + w[i];
        e = d;
        d = c;
        c = b << 30 | b >> 2;
        b = a;
        a = t;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

/* The 28 characters that answer a key of 24 (RFC 6455, 4.2.2, item 5). */
static inline void tg_accept_key(char *out, const char *key) {
    static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t block[128], digest[21];
    /* The key and the GUID are 60 bytes; with the end mark and the length that is two blocks. */
    memset(block, 0, sizeof block);
    memcpy(block, key, 24);
    memcpy(block + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    block[60] = 0x80;
    block[126] = 480 >> 8;
    block[127] = 480 & 255;
    tg_sha1_block(h, block);
    tg_sha1_block(h, block + 64);
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
    digest[20] = 0;
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (int k = 0; k < 4; k++) *out++ = ALPHABET[three >> (18 - 6 * k) & 63];
    }
    out[-1] = '=';
}
#endif

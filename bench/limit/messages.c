/* The messages that both ends send.
 *
 * Comes in: how much is to be said. Goes out: records on a socket. Their contents are zeros: nobody looks at them. */
#include "messages.h"

#include <string.h>

#define SEND_BYTES (64 << 10) /* of one send at most, give or take a record */

const struct shake shakes[2] = {
    {.first = 62, .answer = 230, .last = 188},  /* multistream-select, and Noise XX with identities and muxers */
    {.first = 270, .answer = 900, .last = 720}, /* TLS 1.3 with certificates of P-256 on both sides */
};

static const uint8_t header[FRAME_HEADER_BYTES], zeros[65536];

size_t on_the_wire(int is_tls, size_t n) { return n + 16 + (is_tls ? 5 : 2); }

void say(int fd, struct channel *out, size_t n) {
    uint8_t sealed[MOST_MESSAGE_BYTES + 64];
    send_all(fd, sealed, seal_record(out, sealed, NULL, zeros, n));
}

/* One body of a frame; short writes are gathered, as corking does. */
static const uint8_t *body(size_t n, size_t write) {
    static uint8_t gathered[65536];
    if (!write) return zeros;
    for (size_t at = 0; at < n; at += write) memcpy(gathered + at, zeros, n - at < write ? n - at : write);
    return gathered;
}

void transfer(int fd, struct channel *out, uint8_t *sealed, uint64_t total, size_t write) {
    size_t most = most_plain(out->is_tls) - FRAME_HEADER_BYTES, at = 0;
    while (total > 0) {
        size_t n = total < most ? total : most;
        at += seal_record(out, sealed + at, header, body(n, write), n);
        total -= n;
        if (at >= SEND_BYTES - most || !total) {
            send_all(fd, sealed, at);
            at = 0;
        }
    }
}

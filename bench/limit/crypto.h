/* Records and curve operations; see crypto.c. */
#ifndef CRYPTO_H
#define CRYPTO_H

#include "limit.h"

/* One direction of a connection. */
struct channel {
    void *context; /* of OpenSSL; NULL until the first long record */
    uint64_t nonce;
    int is_tls, is_sealing;
};

void load_libraries(const char *sodium, void *const *openssl);
struct channel channel_new(struct kind kind, int is_sealing);
void channel_free(struct channel *channel);

size_t most_plain(int is_tls); /* of one record */
size_t whole_record(int is_tls, const uint8_t *data, size_t n); /* its size; 0: it is not whole yet */
/* Both give the number of bytes at `out`; `open_record` works in place and gives the plaintext. */
size_t seal_record(struct channel *channel, uint8_t *out, const uint8_t *header, const uint8_t *data, size_t n);
uint8_t *open_record(struct channel *channel, uint8_t *record, size_t size, size_t *n);

/* What one side of a handshake cannot do without, before it answers the first message, and after the last one. */
void curves_of_listener(struct kind kind, int is_last);
void curves_of_dialer(struct kind kind);

#endif

/* How long the messages of a handshake are, and how a transfer is sent; see messages.c. */
#ifndef MESSAGES_H
#define MESSAGES_H

#include "crypto.h"

/* Bytes of a handshake with libp2p's proposals, as p2pcore's own have: the dialer's first message, the listener's
 * answer (as plaintext of one record), the dialer's last message. */
struct shake {
    size_t first, answer, last;
};
extern const struct shake shakes[2];

/* What a new peer and the listener say after it: a question for identify, and an answer with the question of the other
 * side and an echo of 32 bytes; as plaintext. */
#define ASKED_BYTES 60
#define TOLD_BYTES 640
#define MOST_MESSAGE_BYTES 2048

/* Sends `total` bytes in records as large as they may be. write: bytes of one write of the user; 0: large ones. */
void transfer(int fd, struct channel *out, uint8_t *sealed, uint64_t total, size_t write);
void say(int fd, struct channel *out, size_t n); /* n zeros as one record */
size_t on_the_wire(int is_tls, size_t n);        /* bytes of a record of n bytes */

#endif

/* The limit: what this machine can do at all. It moves the bytes of a row through bare sockets and the same ciphers,
 * and does nothing else: no multistream, no frames to parse, no windows, no tasks, no checks of what a peer says.
 *
 * Both ends are this program, with the commands of interop/README.md. For use on the loopback: it trusts its peer, its
 * keys are constants, and what breaks ends the process. */
#ifndef LIMIT_H
#define LIMIT_H

#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>

#define FRAME_HEADER_BYTES 12 /* of a yamux frame: sent as a user's bytes are, and looked at by nobody */
#define BUFFER_BYTES (256 << 10) /* of one read, as p2pcore has it */
#define SPIN_US 50.0 /* how long it looks for the next short message before it sleeps, as p2pcore does */

/* What a connection is for: its first byte. Eight bytes with an amount follow. */
enum mode { UP = 'u', DOWN = 'd', ECHO = 'e', SHAKE_HANDS = 'c' };
#define OPENING_BYTES 9

/* Which connections a row is about. */
struct kind {
    int is_tls;   /* AES-128-GCM in records of 16 KiB and P-256, in place of Noise's */
    int is_fresh; /* the other side has not been seen before: its proof of identity has to be verified */
};

struct options {
    const char *op, *to;
    struct kind kind;
    long n, c;
    uint64_t bytes;
    size_t size;
};

int limit(int count, char **words, void *const *openssl); /* the command line; see main.c */
noreturn void fail(const char *what);
double now_us(void);
double cpu_s(void);
void send_all(int fd, const uint8_t *data, size_t n); /* waits where the socket is full */
int spin_wait(int poll, void *events, int most, int may_spin);
void no_delay(int fd);

void listen_and_serve(const struct options *options);
void dial(const struct options *options);

#endif

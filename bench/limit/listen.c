/* The listening end: one thread, one epoll; what a connection is for stands in its first byte.
 *
 * Comes in: connections, the lines stat, gc and quit. Goes out: bytes, a line of JSON for each. Level-triggered, so a
 * message takes one recv and one send. */
#define _GNU_SOURCE
#include "crypto.h"
#include "messages.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 1024
#define BACKLOG 4096

struct conn {
    int fd;
    char mode; /* 0: its first bytes have not come */
    struct kind kind;
    int steps;     /* of a handshake, done */
    uint64_t left; /* bytes of a transfer */
    struct channel in, out;
    uint8_t *kept; /* an unfinished record, or NULL */
    size_t n_kept;
};

static int polled;
static struct kind kind;
static long conns;
static int may_spin;
static struct conn listener, input; /* only their addresses matter */
static uint8_t buffer[2 * BUFFER_BYTES], sealed[2 * BUFFER_BYTES];

static void watch(int fd, void *who) {
    if (epoll_ctl(polled, EPOLL_CTL_ADD, fd, &(struct epoll_event){EPOLLIN, {.ptr = who}})) fail("epoll_ctl");
}

static void accept_one(void) {
    int fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED) fail("accept4");
        return;
    }
    struct conn *conn = calloc(1, sizeof *conn);
    conn->fd = fd;
    conn->kind = kind;
    conns++;
    watch(fd, conn);
}

static void end(struct conn *conn) {
    close(conn->fd);
    channel_free(&conn->in);
    channel_free(&conn->out);
    free(conn->kept);
    free(conn);
    conns--;
}

/* -- what connections are for --------------------------------------------------------------------- */

static void answer(struct conn *conn, size_t n) {
    static const uint8_t said[MOST_MESSAGE_BYTES];
    send_all(conn->fd, sealed, seal_record(&conn->out, sealed, NULL, said, n));
}

static size_t begin(struct conn *conn, const uint8_t *data, size_t n) {
    if (n < OPENING_BYTES) return 0;
    memcpy(&conn->left, data + 1, 8);
    conn->mode = (char)data[0];
    if (conn->mode == SHAKE_HANDS) conn->kind.is_fresh = (int)conn->left;
    conn->in = channel_new(conn->kind, 0);
    conn->out = channel_new(conn->kind, 1);
    if (conn->mode == DOWN) transfer(conn->fd, &conn->out, sealed, conn->left, 0);
    return OPENING_BYTES;
}

static size_t record(struct conn *conn, uint8_t *data, size_t n) {
    size_t size = whole_record(conn->kind.is_tls, data, n);
    if (!size) return 0;
    uint8_t *plain = open_record(&conn->in, data, size, &n);
    if (conn->mode == ECHO) {
        send_all(conn->fd, sealed, seal_record(&conn->out, sealed, NULL, plain, n));
        may_spin = conns == 1;
    } else if (conn->mode == UP) {
        conn->left -= n - FRAME_HEADER_BYTES;
        if (!conn->left) answer(conn, 1);
    }
    return size;
}

/* A handshake has messages of a known size: the first one, the last one, and for a new peer what is said after it. */
static size_t step(struct conn *conn, uint8_t *data, size_t n) {
    const struct shake *shake = &shakes[conn->kind.is_tls];
    size_t told = on_the_wire(conn->kind.is_tls, TOLD_BYTES);
    size_t wanted = conn->steps == 0 ? shake->first - OPENING_BYTES : conn->steps == 1 ? shake->last : told;
    if (n < wanted) return 0;
    if (conn->steps < 2) curves_of_listener(conn->kind, conn->steps);
    conn->steps++;
    if (conn->steps == 1) answer(conn, shake->answer);
    if (conn->steps == 2 && conn->kind.is_fresh) answer(conn, ASKED_BYTES);
    if (conn->steps == 3) {
        size_t size;
        open_record(&conn->in, data, told, &size);
        answer(conn, TOLD_BYTES);
    }
    return wanted;
}

static size_t take(struct conn *conn, uint8_t *data, size_t n) {
    if (!conn->mode) return begin(conn, data, n);
    return conn->mode == SHAKE_HANDS ? step(conn, data, n) : record(conn, data, n);
}

static void readable(struct conn *conn) {
    size_t n = conn->n_kept, at = 0, k;
    if (n) memcpy(buffer, conn->kept, n);
    ssize_t got = recv(conn->fd, buffer + n, BUFFER_BYTES, 0);
    if (got <= 0) {
        end(conn);
        return;
    }
    n += (size_t)got;
    while (at < n && (k = take(conn, buffer + at, n - at)) > 0) at += k;
    conn->n_kept = n - at;
    if (conn->n_kept) {
        if (!conn->kept) conn->kept = malloc(BUFFER_BYTES);
        memcpy(conn->kept, buffer + at, conn->n_kept);
    }
}

/* -- standard input ------------------------------------------------------------------------------- */

static size_t resident(void) {
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%*s %zu", &pages) != 1) fail("/proc/self/statm");
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void obey(void) {
    char line[256];
    ssize_t n = read(0, line, sizeof line - 1);
    if (n <= 0 || !strncmp(line, "quit", 4)) exit(0);
    printf("{\"rss\": %zu, \"cpu\": %.6f, \"conns\": %ld, \"tasks\": 0}\n", resident(), cpu_s(), conns);
    fflush(stdout);
}

void listen_and_serve(const struct options *options) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    kind = options->kind;
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    no_delay(listener.fd);
    if (bind(listener.fd, (void *)&at, size) || listen(listener.fd, BACKLOG)) fail("listen");
    getsockname(listener.fd, (void *)&at, &size);
    polled = epoll_create1(0);
    watch(listener.fd, &listener);
    watch(0, &input);
    printf("ADDR /ip4/127.0.0.1/tcp/%d/p2p/nobody\n", ntohs(at.sin_port));
    fflush(stdout);
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = spin_wait(polled, events, EVENTS, may_spin);
        may_spin = 0;
        for (int i = 0; i < count; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn == &listener)
                accept_one();
            else if (conn == &input)
                obey();
            else
                readable(conn);
        }
    }
}

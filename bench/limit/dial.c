/* The dialing end: the operations up, down, small, pingpong, conn, strangers and busy.
 *
 * Comes in: the address of a listening end, how much of what. Goes out: the result lines of interop/README.md. */
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

struct conn {
    int fd;
    struct channel in, out;
    double began;
    int steps;
    size_t n; /* bytes that came of what is expected */
    uint8_t data[2 * MOST_MESSAGE_BYTES];
};

static const struct options *asked;
static struct sockaddr_in target;
static uint8_t buffer[2 * BUFFER_BYTES], sealed[2 * BUFFER_BYTES];

static void find_target(void) {
    const char *port = asked->to ? strstr(asked->to, "/tcp/") : NULL;
    if (!port) fail("-to");
    target = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    target.sin_port = htons((uint16_t)atoi(port + 5));
}

static void open_conn(struct conn *conn, int flags) {
    *conn = (struct conn){.fd = socket(AF_INET, SOCK_STREAM | flags, 0), .began = now_us()};
    no_delay(conn->fd);
    conn->in = channel_new(asked->kind, 0);
    conn->out = channel_new(asked->kind, 1);
    if (connect(conn->fd, (void *)&target, sizeof target) && errno != EINPROGRESS) fail("connect");
}

static void begin(struct conn *conn, char mode, uint64_t amount, size_t padding) {
    uint8_t opening[MOST_MESSAGE_BYTES] = {(uint8_t)mode};
    memcpy(opening + 1, &amount, 8);
    send_all(conn->fd, opening, OPENING_BYTES + padding);
}

static void close_conn(struct conn *conn) {
    close(conn->fd);
    channel_free(&conn->in);
    channel_free(&conn->out);
}

/* -- results -------------------------------------------------------------------------------------- */

static double *took;
static long n_took;
static double cpu_before, began;

static void start_clock(void) {
    took = malloc((size_t)(asked->n + asked->c) * sizeof *took);
    n_took = 0;
    cpu_before = cpu_s();
    began = now_us();
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(void) {
    double us = now_us() - began, cpu = (cpu_s() - cpu_before) * 1e6;
    qsort(took, (size_t)n_took, sizeof *took, by_value);
    printf("{\"op\": \"%s\", \"n\": %ld, \"c\": %ld, \"per_s\": %.3f, \"p50_us\": %.3f, \"p99_us\": %.3f, "
           "\"cpu_us_per\": %.4f}\n",
           asked->op, n_took, asked->c, (double)n_took / us * 1e6, took[n_took / 2], took[n_took * 99 / 100],
           cpu / (double)n_took);
    fflush(stdout);
}

/* -- one stream as fast as it goes ---------------------------------------------------------------- */

static uint64_t receive(struct conn *conn, uint64_t total) {
    size_t kept = 0;
    while (total > 0) {
        ssize_t got = recv(conn->fd, buffer + kept, BUFFER_BYTES, 0);
        if (got <= 0) fail("recv");
        size_t n = kept + (size_t)got, at = 0, size, plain;
        while (total > 0 && (size = whole_record(asked->kind.is_tls, buffer + at, n - at)) > 0) {
            open_record(&conn->in, buffer + at, size, &plain);
            total -= plain - FRAME_HEADER_BYTES;
            at += size;
        }
        kept = n - at;
        memmove(buffer, buffer + at, kept);
    }
    return total;
}

static void bulk(int is_down, size_t write) {
    struct conn conn;
    open_conn(&conn, 0);
    double cpu = cpu_s(), start = now_us();
    begin(&conn, is_down ? DOWN : UP, asked->bytes, 0);
    if (is_down) {
        receive(&conn, asked->bytes);
    } else {
        transfer(conn.fd, &conn.out, sealed, asked->bytes, write);
        if (recv(conn.fd, buffer, on_the_wire(asked->kind.is_tls, 1), MSG_WAITALL) <= 0) fail("recv");
    }
    double seconds = (now_us() - start) / 1e6;
    printf("{\"op\": \"%s\", \"MB_s\": %.3f, \"seconds\": %.6f, \"cpu_s\": %.6f}\n", asked->op,
           (double)asked->bytes / seconds / 1e6, seconds, cpu_s() - cpu);
}

/* -- messages there and back ---------------------------------------------------------------------- */

static void send_message(struct conn *conn, size_t n) {
    static const uint8_t zeros[MOST_MESSAGE_BYTES * 8];
    conn->began = now_us();
    conn->n = 0;
    send_all(conn->fd, sealed, seal_record(&conn->out, sealed, NULL, zeros, n));
}

/* What came of the echo; returns the bytes of its plaintext, 0 if it is not whole. */
static size_t echoed(struct conn *conn) {
    ssize_t got = recv(conn->fd, conn->data + conn->n, sizeof conn->data - conn->n, 0);
    if (got <= 0) fail("recv");
    conn->n += (size_t)got;
    size_t size = whole_record(asked->kind.is_tls, conn->data, conn->n), plain;
    if (!size) return 0;
    open_record(&conn->in, conn->data, size, &plain);
    return plain;
}

static void await_line(void) {
    char line[64];
    if (read(0, line, sizeof line) < 0) fail("standard input");
}

/* n messages over `count` connections, on each of them `together` messages in a record. */
static void talk(struct conn *conns, long count, long together) {
    size_t frame = FRAME_HEADER_BYTES + asked->size;
    int polled = epoll_create1(0);
    for (long i = 0; i < count; i++)
        epoll_ctl(polled, EPOLL_CTL_ADD, conns[i].fd, &(struct epoll_event){EPOLLIN, {.ptr = &conns[i]}});
    start_clock();
    for (long i = 0; i < count; i++) send_message(&conns[i], frame * (size_t)together);
    long sent = count * together, came = 0;
    struct epoll_event events[1024];
    while (came < sent) {
        int ready = spin_wait(polled, events, 1024, count == 1);
        for (int i = 0; i < ready; i++) {
            struct conn *conn = events[i].data.ptr;
            long k = (long)(echoed(conn) / frame);
            for (long j = 0; j < k; j++) took[n_took++] = now_us() - conn->began;
            came += k;
            if (k && sent < asked->n) sent += together, send_message(conn, frame * (size_t)together);
        }
    }
    report();
}

static void pingpong(void) {
    struct conn conn;
    open_conn(&conn, 0);
    begin(&conn, ECHO, 0, 0);
    if (asked->c * (long)(FRAME_HEADER_BYTES + asked->size) > (long)sizeof conn.data - 64 || asked->n < asked->c)
        fail("-c");
    talk(&conn, 1, asked->c);
}

static void busy(void) {
    struct conn *conns = calloc((size_t)asked->c, sizeof *conns);
    for (long i = 0; i < asked->c; i++) {
        open_conn(&conns[i], 0);
        begin(&conns[i], ECHO, 0, 0);
        send_message(&conns[i], FRAME_HEADER_BYTES + asked->size);
        if (!echoed(&conns[i])) fail("the first message");
    }
    printf("HELD %ld\n", asked->c);
    fflush(stdout);
    await_line();
    talk(conns, asked->c, 1);
    await_line();
}

/* -- connections ---------------------------------------------------------------------------------- */

static void next_conn(struct conn *conn, int polled) {
    open_conn(conn, SOCK_NONBLOCK);
    epoll_ctl(polled, EPOLL_CTL_ADD, conn->fd, &(struct epoll_event){EPOLLOUT, {.ptr = conn}});
}

/* The bytes of a message of the listener; whether it is whole. */
static int has_come(struct conn *conn, size_t plain) {
    size_t wanted = on_the_wire(asked->kind.is_tls, plain);
    ssize_t got = recv(conn->fd, conn->data + conn->n, wanted - conn->n, 0);
    if (got <= 0) fail("recv");
    conn->n += (size_t)got;
    if (conn->n < wanted) return 0;
    open_record(&conn->in, conn->data, wanted, &plain);
    conn->n = 0;
    conn->steps++;
    return 1;
}

/* One more message of the handshake; whether the connection has done all it should. */
static int advance(struct conn *conn) {
    const struct shake *shake = &shakes[asked->kind.is_tls];
    int is_fresh = asked->kind.is_fresh;
    if (conn->steps == 0 && has_come(conn, shake->answer)) {
        static const uint8_t zeros[MOST_MESSAGE_BYTES];
        curves_of_dialer(asked->kind);
        send_all(conn->fd, zeros, shake->last);
        return !is_fresh;
    }
    if (conn->steps == 1 && has_come(conn, ASKED_BYTES))
        say(conn->fd, &conn->out, TOLD_BYTES);
    else if (conn->steps == 2)
        return has_come(conn, TOLD_BYTES);
    return 0;
}

static void connections(void) {
    struct conn *conns = calloc((size_t)asked->c, sizeof *conns);
    int polled = epoll_create1(0);
    long begun = 0, open = 0;
    start_clock();
    for (; begun < asked->c && begun < asked->n; begun++, open++) next_conn(&conns[begun], polled);
    struct epoll_event events[256];
    while (open > 0) {
        int ready = spin_wait(polled, events, 256, 0);
        for (int i = 0; i < ready; i++) {
            struct conn *conn = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                const struct shake *shake = &shakes[asked->kind.is_tls];
                epoll_ctl(polled, EPOLL_CTL_MOD, conn->fd, &(struct epoll_event){EPOLLIN, {.ptr = conn}});
                begin(conn, SHAKE_HANDS, (uint64_t)asked->kind.is_fresh, shake->first - OPENING_BYTES);
            } else if (advance(conn)) {
                took[n_took++] = now_us() - conn->began;
                close_conn(conn);
                if (begun < asked->n)
                    begun++, next_conn(conn, polled);
                else
                    open--;
            }
        }
    }
    report();
}

static void strangers(void) {
    static struct options fresh;
    fresh = *asked;
    fresh.kind.is_fresh = 1;
    asked = &fresh;
    connections();
}

void dial(const struct options *options) {
    asked = options;
    find_target();
    if (!strcmp(options->op, "up"))
        bulk(0, 0);
    else if (!strcmp(options->op, "down"))
        bulk(1, 0);
    else if (!strcmp(options->op, "small"))
        bulk(0, options->size);
    else if (!strcmp(options->op, "pingpong"))
        pingpong();
    else if (!strcmp(options->op, "busy"))
        busy();
    else if (!strcmp(options->op, "conn"))
        connections();
    else if (!strcmp(options->op, "strangers"))
        strangers();
    else
        fail(options->op);
}

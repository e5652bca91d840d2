/* The command line of the limit, and tools for both of its ends.
 *
 * Comes in: functions of OpenSSL (see crypto.c), and `LIBSODIUM listen|OP [-to ADDR] [-sec noise|tls] [-n N] [-c C] [-bytes B] [-size S]`, as
 * interop/README.md has them. Goes out: its lines; exit 0 if and only if the operation did all it should. */
#define _GNU_SOURCE
#include "crypto.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

noreturn void fail(const char *what) {
    fprintf(stderr, "ERROR %s: %s\n", what, strerror(errno));
    exit(1);
}

double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

void send_all(int fd, const uint8_t *data, size_t n) {
    while (n > 0) {
        ssize_t k = send(fd, data, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EAGAIN)
            poll(&(struct pollfd){fd, POLLOUT, 0}, 1, -1);
        else if (k < 0)
            fail("send");
        else
            data += k, n -= (size_t)k;
    }
}

int spin_wait(int poll, void *events, int most, int may_spin) {
    double end = may_spin ? now_us() + SPIN_US : 0;
    int count = 0;
    do
        count = epoll_wait(poll, events, most, may_spin ? 0 : -1);
    while (count == 0 && now_us() < end);
    if (count == 0) count = epoll_wait(poll, events, most, -1);
    if (count < 0 && errno != EINTR) fail("epoll_wait");
    return count < 0 ? 0 : count;
}

void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void parse(struct options *options, int count, char **words) {
    for (int i = 0; i + 1 < count; i += 2) {
        const char *name = words[i], *value = words[i + 1];
        if (!strcmp(name, "-to"))
            options->to = value;
        else if (!strcmp(name, "-n"))
            options->n = atol(value);
        else if (!strcmp(name, "-c"))
            options->c = atol(value);
        else if (!strcmp(name, "-bytes"))
            options->bytes = strtoull(value, NULL, 10);
        else if (!strcmp(name, "-size"))
            options->size = strtoull(value, NULL, 10);
        else if (!strcmp(name, "-sec") && (!strcmp(value, "noise") || !strcmp(value, "tls")))
            options->kind.is_tls = value[0] == 't';
        else
            fail(name);
    }
}

int limit(int count, char **words, void *const *openssl) {
    if (count < 2) fail("usage: LIBSODIUM listen|OP [options]");
    struct options options = {words[1], NULL, {0, 0}, 1000, 1, 1 << 30, 32};
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    parse(&options, count - 2, words + 2);
    load_libraries(words[0], openssl);
    if (!strcmp(options.op, "listen"))
        listen_and_serve(&options);
    else
        dial(&options);
    return 0;
}

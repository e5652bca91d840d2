"""Counters that the paths of connections and streams write, and that a scrape reads.

Comes in: one call, or one C statement, for each event. Goes out: numbers. Never makes an object for
an event, never grows: whoever makes rows bounds their number.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t

from p2pcore._fast.loop.clock cimport monotonic

cdef enum:
    IP4 = 4                         # codes of multiaddr protocols
    IP6 = 41
    IP6ZONE = 42


@cython.final
cdef class Histogram:
    """How often values fell into each bucket, and their sum.

    Args:
        bounds: the upper ends of the buckets, at least one, rising. An end belongs to its bucket.
    """

    def __cinit__(self, bounds):
        cdef Py_ssize_t i
        self.bounds = tuple(map(float, bounds))
        self.size = len(self.bounds)
        rising = self.size > 0 and self.bounds[0] == self.bounds[0]  # NaN compares with nothing, not even itself
        for i in range(1, self.size):
            rising = rising and self.bounds[i - 1] < self.bounds[i]
        if not rising:
            raise ValueError(f"bounds must be numbers that rise, at least one, not {bounds!r}")
        self.ends = <double *> PyMem_Malloc(self.size * sizeof(double))
        self.counts = <int64_t *> PyMem_Calloc(self.size + 1, sizeof(int64_t))
        if self.ends == NULL or self.counts == NULL:
            raise MemoryError
        for i in range(self.size):
            self.ends[i] = self.bounds[i]

    def __dealloc__(self):
        PyMem_Free(self.ends)
        PyMem_Free(self.counts)

    def observe(self, double value):
        """Counts `value`. One below 0 counts as 0: no clock here goes back, but a rounded one may seem to."""
        self.put(value)

    cdef int put(self, double value) noexcept:
        cdef Py_ssize_t low = 0, high = self.size, middle
        if not value > 0:
            value = 0
        while low < high:
            middle = (low + high) // 2
            if value <= self.ends[middle]:
                high = middle
            else:
                low = middle + 1
        self.counts[low] += 1
        self.sum += value
        return 0

    def read(self):
        """Returns: (the count of each bucket, one more than bounds; the sum of all values)."""
        return [self.counts[i] for i in range(self.size + 1)], self.sum


@cython.final
cdef class ConnRow:
    """The connections that agree in all labels.

    Args:
        labels: their values. bounds: of the histogram of how long they lived, in seconds.
    """

    def __cinit__(self, tuple labels not None, bounds):
        self.labels = labels
        self.durations = Histogram(bounds)

    @property
    def key_types(self):
        """How many peers had each kind of key, by the number of a key protobuf; the last one: others."""
        return [self.keys[i] for i in range(KEY_TYPES)]


@cython.final
cdef class ConnRows:
    """The rows of a node's connections, found by what a connection has at hand.

    Args:
        make: `make(kind, version)` gives the ConnRow of a kind; version: 0 for IPv4, 1 for IPv6, 2 for others.
        handshake_bounds: of the histogram of handshakes, in seconds.
        most: kinds that are remembered; beyond that, `make` is asked again.
    """

    def __cinit__(self, make not None, handshake_bounds not None, Py_ssize_t most):
        self.make = make
        self.handshake_bounds = handshake_bounds
        self.by_kind = {}
        self.most = most

    cdef ConnRow row(self, object kind, object addr):
        cdef list rows = <list> self.by_kind.get(kind)
        cdef int version = 2
        cdef unsigned char code
        if addr is not None:
            code = (<bytes> addr.to_bytes())[0]
            version = 0 if code == IP4 else 1 if code == IP6 or code == IP6ZONE else 2
        if rows is None:
            if len(self.by_kind) >= self.most:
                self.by_kind.clear()
            rows = self.by_kind[kind] = [None, None, None]
        if rows[version] is None:
            rows[version] = self.make(kind, version)
        return <ConnRow> rows[version]

    def add(self, conn, kind):
        """A connection has opened."""
        cdef ConnRow row = self.row(kind, conn.remote_multiaddr)
        cdef bytes peer = conn.remote_peer.to_bytes()
        # An id that has the key in it has the number of its kind in the fourth byte.
        cdef int key_type = peer[3] if peer[0] == 0 else conn.remote_public_key.type
        row.opened += 1
        row.keys[key_type if 0 <= key_type < KEY_TYPES else KEY_TYPES - 1] += 1

    def left(self, conn, kind, double since):
        """A connection has ended. `since`: the monotonic second in which it opened."""
        cdef ConnRow row = self.row(kind, conn.remote_multiaddr)
        row.closed += 1
        row.durations.put(monotonic() - since)

    def dialled(self, made, double since):
        """A dial has made a connection. `since`: the monotonic second in which it began."""
        cdef ConnRow row = self.row(made.kind, made.remote_multiaddr)
        if row.handshakes is None:
            row.handshakes = Histogram(self.handshake_bounds)
        row.handshakes.put(monotonic() - since)


@cython.final
cdef class Traffic:
    """The streams of one protocol in one direction, and the bytes on them. Streams count there themselves.

    Args:
        labels: (direction, protocol).
    """

    def __cinit__(self, tuple labels not None):
        self.labels = labels

    def apart(self):
        """A new row for a single stream. What counts there counts here too."""
        cdef Traffic one = Traffic.__new__(Traffic, self.labels)
        one.all = self
        return one


@cython.final
cdef class Protocols:
    """The rows of the streams of one direction, by protocol. A stream finds its row here.

    Args:
        direction: the label. most: rows; further protocols share one. rest: the name of that one.
    """

    def __cinit__(self, str direction not None, Py_ssize_t most, str rest not None):
        self.direction = direction
        self.most = most
        self.rest = rest
        self.rows = {}

    cdef Traffic of(self, object protocol):
        found = self.rows.get(protocol)
        if found is None:
            if len(self.rows) >= self.most:
                protocol = self.rest
                found = self.rows.get(protocol)
            if found is None:
                found = self.rows[protocol] = Traffic((self.direction, protocol))
        return <Traffic> found

    def row(self, str protocol not None):
        """The row of `protocol`."""
        return self.of(protocol)

    def by_name(self):
        """A copy of the table: row by protocol."""
        return self.rows.copy()

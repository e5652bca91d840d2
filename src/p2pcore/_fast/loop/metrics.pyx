"""Counters that the paths of connections and streams write, and that a scrape reads.

Comes in: one call, or one C statement, for each event. Goes out: numbers. Never looks at a clock, never makes an
object for an event, never grows: whoever makes rows bounds their number.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t


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
        if not self.size or list(self.bounds) != sorted(set(self.bounds)):
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

    def add(self):
        """One more has opened."""
        self.opened += 1

    def end(self, double seconds):
        """One has ended, `seconds` after it opened."""
        self.closed += 1
        self.durations.observe(seconds)


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

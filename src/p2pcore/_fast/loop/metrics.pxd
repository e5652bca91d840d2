# See metrics.pyx.
from libc.stdint cimport int64_t


cdef class Histogram:
    cdef readonly tuple bounds      # the upper ends of the buckets, rising
    cdef double *ends               # the same
    cdef int64_t *counts            # one more than bounds: the last bucket has no end
    cdef Py_ssize_t size            # of bounds
    cdef double sum

    cdef int put(self, double value) noexcept


cdef enum:
    KEY_TYPES = 5                   # those of a key protobuf, and others


cdef class ConnRow:
    cdef readonly tuple labels
    cdef readonly int64_t opened
    cdef readonly int64_t closed
    cdef int64_t[KEY_TYPES] keys
    cdef readonly Histogram durations
    cdef readonly Histogram handshakes  # of dials; None before the first


cdef class ConnRows:
    cdef object make                # makes the row of a kind and an IP version
    cdef object handshake_bounds
    cdef dict by_kind               # kind -> list of rows by IP version, None where there is none
    cdef Py_ssize_t most            # kinds

    cdef ConnRow row(self, object kind, object addr)


cdef class Traffic:
    cdef readonly tuple labels
    cdef readonly int64_t opened
    cdef readonly int64_t open      # now
    cdef readonly int64_t received  # bytes, as the next
    cdef readonly int64_t sent
    cdef public int64_t errors      # handlers that raised
    cdef Traffic all                # counts all streams of its protocol; None: this one does


cdef class Protocols:
    cdef readonly str direction
    cdef Py_ssize_t most            # rows, without the one that the others share
    cdef str rest                   # the name of that one
    cdef dict rows                  # protocol -> Traffic

    cdef Traffic of(self, object protocol)


cdef inline void count_received(Traffic traffic, int64_t n) noexcept:
    traffic.received += n
    if traffic.all is not None:
        traffic.all.received += n


cdef inline void count_sent(Traffic traffic, int64_t n) noexcept:
    traffic.sent += n
    if traffic.all is not None:
        traffic.all.sent += n


cdef inline void count_opened(Traffic traffic, int64_t open) noexcept:
    """One stream more. `open`: 1, or 0 if it has ended already."""
    traffic.opened += 1
    traffic.open += open
    if traffic.all is not None:
        count_opened(traffic.all, open)


cdef inline void count_ended(Traffic traffic) noexcept:
    traffic.open -= 1
    if traffic.all is not None:
        traffic.all.open -= 1

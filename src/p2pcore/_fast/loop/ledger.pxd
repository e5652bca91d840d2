# See ledger.pyx.
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef enum:
    CALM = 0
    CAREFUL = 1
    TIGHT = 2
    FULL = 3


cdef class Share:
    cdef public uint32_t conns
    cdef public uint32_t streams    # inbound, in use
    cdef public uint32_t handlers
    cdef readonly int64_t held      # bytes: unread, unsent, and the fixed cost of its streams


cdef class Ledger:
    cdef uint64_t most_streams      # inbound and outbound; UINT64_MAX: no limit, as in the next two
    cdef uint64_t most_per_conn     # inbound, in use
    cdef uint64_t most_per_peer     # the same
    cdef int64_t budget             # bytes; 0: no limit
    cdef readonly uint32_t num_conns
    cdef readonly uint32_t num_streams
    cdef readonly int64_t unread    # bytes, as all that follow
    cdef readonly int64_t unsent
    cdef readonly int64_t used
    cdef readonly uint64_t bytes_in     # of all connections so far, from here on; as Bottom counts them
    cdef readonly uint64_t bytes_out
    cdef int64_t most_used          # of all times
    cdef int64_t high               # most since memory was last given back
    cdef bint is_trimming           # _trim is due
    cdef uint32_t most_conns
    cdef uint32_t most_streams_seen
    cdef readonly int state
    cdef int told                   # the state that on_state was told last
    cdef bint is_telling            # _tell is due
    cdef int64_t rises_at           # bytes used at which the state changes: this or more,
    cdef int64_t falls_at           # ... or less than this
    cdef public object on_state     # called with the old state and the new one; None: nobody
    cdef readonly object ended      # WeakSet of streams that have ended and hold bytes which nobody has read
    cdef dict shares                # peer id -> Share
    cdef dict counts                # limit -> refusals
    cdef dict warned                # limit -> (second of its last warning, refusals by then)

    cdef int count_conn(self) except -1
    cdef int count_streams(self, Share share, int by) except -1
    cdef str limit_reached(self, uint64_t num_inbound, Share share)
    cdef bint has_its_part(self, Share share) noexcept
    cdef int refuse_stream(self, str limit, object who, uint64_t num_inbound, Share share) except -1
    cdef int _move(self) except -1
    cdef int _aim(self) except -1
    cdef int _drop_ended(self) except -1
    cdef int64_t _part(self, int64_t percent) noexcept


cdef inline int weigh(Ledger ledger, int64_t by) except -1:
    """`by` bytes more are used. If that changes the state, it is told soon."""
    ledger.used += by
    if ledger.used >= ledger.rises_at or ledger.used < ledger.falls_at:
        ledger._move()
    if ledger.used > ledger.high:
        ledger.high = ledger.used
    return 0


cdef inline int count_chain(Ledger ledger, int64_t held, int64_t waits) except -1:
    """Bytes that a connection holds below its streams: nobody's share."""
    ledger.unread += held
    ledger.unsent += waits
    return weigh(ledger, held + waits)


cdef inline int count_unread(Ledger ledger, Share share, int64_t by) except -1:
    ledger.unread += by
    share.held += by
    return weigh(ledger, by)


cdef inline int count_unsent(Ledger ledger, Share share, int64_t by) except -1:
    ledger.unsent += by
    share.held += by
    return weigh(ledger, by)

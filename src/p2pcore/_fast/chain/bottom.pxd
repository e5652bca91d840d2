# See bottom.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.loop.ledger cimport Ledger


cdef class Bottom(Layer):
    # True or False, in a byte: a bint takes four, and every connection has these.
    cdef uint8_t feeding        # inside a feed: an end waits until it returns
    cdef uint8_t ending         # shut() or drop() was called, or the connection is gone: nothing more is sent
    cdef uint8_t fin_sent       # our half has ended, and the drain runs
    cdef uint8_t queued         # bytes wait for the peer, and the layers above are paused
    cdef uint8_t throttled      # an upper layer wants nothing fed for now
    cdef readonly bint is_closed    # lost() has been called, or follows
    cdef uint32_t over          # bytes sent while `queued`: control frames, bounded
    cdef readonly uint32_t held     # bytes that the chain holds unread, below its top, or in a mailbox
    cdef readonly uint32_t waits    # bytes that wait for the peer here, and in the layers that are paused
    cdef readonly uint64_t bytes_in     # bytes fed, as they came from the peer, with all that ciphers and frames add
    cdef readonly uint64_t bytes_out    # bytes sent, the same
    cdef Ledger ledger          # counts held and waits; None before account()
    cdef Py_ssize_t unsent      # num_unsent() when the stall was last checked
    cdef double moved_at        # monotonic second at which the peer was last seen to take something, while `queued`
    cdef object error           # the reason given to the first drop(), which lost() will carry

    # for the subclass
    cdef bint feed_up(self, uint8_t *data, Py_ssize_t n) except -1
    cdef bint feed_eof_up(self) except -1
    cdef int pause_above(self) except -1
    cdef int resume_above(self) except -1
    cdef bint may_queue(self, Py_ssize_t n) except -1
    cdef int go_on_ending(self) except -1
    cdef int lose_soon(self) except -1
    cdef int lose(self, object error) except -1

    # for the subclass to override
    cdef Py_ssize_t num_unsent(self) except -1
    cdef int send_fin(self) except -1
    cdef int break_off(self) except -1
    cdef bint both_ended(self) except -1

    cdef int _feeding_failed(self, object error) except -1

cdef object closed_by(object cause)


cdef inline void count_in(Bottom bottom, uint64_t n) noexcept:
    bottom.bytes_in += n
    if bottom.ledger is not None:
        bottom.ledger.bytes_in += n


cdef inline void count_out(Bottom bottom, uint64_t n) noexcept:
    bottom.bytes_out += n
    if bottom.ledger is not None:
        bottom.ledger.bytes_out += n

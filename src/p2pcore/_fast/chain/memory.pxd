# The bottom of a chain without a socket: two ends in one process, each of which feeds what the other sends.
# Comes in: bytes sent at the other end. Goes out: the same, from the event loop, through the loop's receive
# buffer. Never feeds from within a send; bounded as a socket is.
from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.chain.bottom cimport Bottom


cdef class MemoryWire(Bottom):
    cdef MemoryWire peer        # the other end; None once that, or this, is lost
    cdef ByteQueue inbox        # what the other end has sent and nobody has been fed
    cdef Py_ssize_t over        # bytes sent while `queued`: control frames, bounded
    cdef Py_ssize_t unread      # bytes of ours the other end had not taken when that was last looked at
    cdef bint started           # somebody reads
    cdef bint throttled         # an upper layer wants nothing fed for now
    cdef bint scheduled         # _deliver is due
    cdef bint queued            # the other end's inbox is full: writers wait
    cdef bint fin_sent
    cdef bint fin_got           # the other end sends no more, behind what is in `inbox`
    cdef bint ended             # ... and the chain has been told
    cdef bint gone              # the other end is lost

    cdef int _wake(self) except -1
    cdef int _feed(self) except -1
    cdef int _feed_end(self) except -1
    cdef int _taken(self) except -1
    cdef int _close(self) except -1

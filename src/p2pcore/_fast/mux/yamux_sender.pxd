# Yamux, what goes out: data as far as windows go, credit that grows with the path, control frames.
# Comes in: calls of streams and of the session. Goes out: frames into the record layer's cork, one never
# across two records. Never reads a frame: that is yamux.pyx. Spec: libp2p/specs yamux.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from p2pcore._fast.mux.session cimport Session
from p2pcore._fast.mux.stream cimport Stream


cdef class YamuxStream(Stream):
    cdef YamuxSender session
    cdef uint32_t send_window       # body bytes we may still send
    cdef uint32_t receive_window    # body bytes the peer may still send
    cdef uint32_t max_window        # what receive_window is filled up to
    cdef double granted_at          # monotonic second at which growth was last considered, 0 before
    cdef Py_ssize_t granted         # bytes granted since
    cdef bint acknowledged          # the peer has answered our SYN


cdef class YamuxSender(Session):
    cdef uint32_t max_window        # where auto-tuning of one stream stops
    cdef uint64_t budget            # bytes by which windows may still grow, all streams together
    cdef uint64_t unknown_credit    # body bytes peers may still have under way to streams we have reset

    # the last data frame written, while it can still grow
    cdef YamuxStream open_stream_   # whose it is; None
    cdef uint64_t open_mark         # cork.sealed when it was written
    cdef uint8_t* open_at           # its header
    cdef uint32_t open_body
    cdef Py_ssize_t open_end        # cork.used behind it

    # pings that wait for their answer, and what the answers told
    cdef dict pings                 # value -> (sent at, the Op that waits or None)
    cdef uint32_t ping_value
    cdef readonly double rtt        # seconds, 0 while unknown
    cdef double rtt_at              # when that was measured

    cdef int _control(self, uint8_t kind, uint32_t flags, uint32_t id, uint32_t length) except -1
    cdef bint _can_extend(self) except -1
    cdef Py_ssize_t _put_data(self, YamuxStream stream, const uint8_t* data, Py_ssize_t n) except -1
    cdef int _send_ping(self, object op) except -1
    cdef int _grant(self, YamuxStream stream, Py_ssize_t need) except -1
    cdef int _grow(self, YamuxStream stream, Py_ssize_t missing) except -1

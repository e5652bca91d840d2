# Yamux: received frames to streams, and the life of the session. Spec: libp2p/specs yamux; limits.YAMUX_*.
# Comes in: a byte stream cut anywhere. Goes out: bytes and ends to streams, answers by yamux_sender.pyx.
# Never buffers a frame (bodies go to their streams as they come), never allocates for a length it has not
# checked, never answers a reset.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from p2pcore._fast.loop.rate cimport Bucket
from p2pcore._fast.mux.yamux_frame cimport Header
from p2pcore._fast.mux.yamux_sender cimport YamuxSender, YamuxStream


cdef class YamuxSession(YamuxSender):
    cdef uint32_t next_id           # of the next stream we open
    cdef uint32_t max_inbound
    cdef uint32_t num_inbound
    cdef uint32_t backlog           # most unacknowledged outbound streams
    cdef uint32_t unacknowledged
    cdef double keepalive           # idle seconds before a ping; 0: never

    # the frame being received
    cdef uint8_t partial[12]        # header bytes of which the rest has not come
    cdef int have                   # how many
    cdef uint32_t body_left         # body bytes still to come
    cdef uint32_t flags             # FIN and RST, to be acted on after the body
    cdef YamuxStream current        # whose body it is; None: dropped

    # the end
    cdef double heard_at            # last received bytes, kept only with keepalive
    cdef bint ping_overdue          # a keepalive ping waits for its answer
    cdef object draining            # why no more streams are opened: the peer's GoAway, or no ids left; None
    cdef Bucket pongs
    cdef Bucket refusals
    cdef Bucket resets
    cdef Bucket unknown
    cdef uint64_t late              # frames that may still come for streams that have ended, whatever the rate

    cdef int _parse(self, uint8_t* data, Py_ssize_t n) except -1
    cdef int _frame(self, Header h) except -1
    cdef int _stream_frame(self, Header h) except -1
    cdef YamuxStream _opened_by_peer(self, Header h)
    cdef int _refuse(self, Header h) except -1
    cdef int _unknown(self, Header h) except -1
    cdef int _data(self, YamuxStream stream, Header h) except -1
    cdef int _window_update(self, YamuxStream stream, Header h) except -1
    cdef int _body(self, uint8_t* data, Py_ssize_t n) except -1
    cdef int _ended_by_peer(self, YamuxStream stream, uint32_t flags, uint32_t code) except -1
    cdef int _ping(self, Header h) except -1
    cdef int _pong(self, uint32_t value) except -1
    cdef int _go_away(self, uint32_t code) except -1
    cdef int _drain(self, object reason) except -1
    cdef int _close_if_drained(self) except -1
    cdef bint _is_full(self) except -1
    cdef int _drop_body(self, Header h) except -1
    cdef int _heard(self) except -1
    cdef YamuxStream _make(self, uint32_t id, bint inbound)

# See yamux.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.rate cimport Bucket
from p2pcore._fast.mux.session cimport Session
from p2pcore._fast.mux.stream cimport Stream
from p2pcore._fast.mux.yamux_frame cimport Header


cdef class YamuxSession


cdef class YamuxStream(Stream):
    cdef YamuxSession session
    cdef uint32_t send_window       # body bytes we may still send
    cdef uint32_t receive_window    # body bytes the peer may still send
    cdef uint32_t max_window        # what receive_window is filled up to
    cdef bint acknowledged          # the peer has answered our SYN
    cdef double granted_at          # monotonic second at which growth was last considered, 0 before
    cdef Py_ssize_t granted         # bytes granted since


cdef class _WindowWatch(Flushable):
    cdef YamuxSession session
    cdef bint is_on                 # it is watched
    cdef int num_silent             # looks since anything was received


cdef class YamuxSession(Session):
    cdef uint32_t next_id           # of the next stream we open
    cdef uint32_t backlog           # most unacknowledged outbound streams
    cdef uint32_t unacknowledged
    cdef uint32_t num_outbound      # outbound streams in the table
    cdef uint32_t max_outbound      # most of them
    cdef uint32_t most_outbound     # most of them that we think the peer takes
    cdef bint acks_at_once          # the peer has acknowledged a stream by a frame of its own
    cdef uint32_t regrow_by         # by how many streams; doubles
    cdef double regrow_at           # when to try more after a refusal, 0 before the first
    cdef double keepalive           # idle seconds before a ping; 0: never
    cdef uint64_t budget            # bytes by which windows may still grow, all streams together
    cdef uint64_t unknown_credit    # body bytes peers may still have under way to streams we have reset
    cdef uint32_t max_window        # where auto-tuning of one stream stops

    # the frame being received
    cdef uint32_t body_left         # body bytes still to come
    cdef YamuxStream current        # whose body it is; None: dropped
    cdef uint8_t partial[12]        # header bytes of which the rest has not come
    cdef int have                   # how many
    cdef uint32_t flags             # FIN and RST, to be acted on after the body

    # pings that wait for their answer, and what the answers told
    cdef bint heard                 # anything was received since window_watch looked last
    cdef _WindowWatch window_watch  # None before the first write that waits for a window
    cdef dict pings                 # value -> (sent at, the Op that waits or None)
    cdef readonly double rtt        # seconds, 0 while unknown
    cdef double rtt_at              # when that was measured
    cdef uint32_t ping_value

    # the end
    cdef bint ping_overdue          # a keepalive ping waits for its answer
    cdef double heard_at            # last received bytes, kept only with keepalive
    cdef object draining            # why no more streams are opened: the peer's GoAway, or no ids left; None
    cdef Bucket pongs

    cdef int _frame(self, Header h) except -1
    cdef int _stream_frame(self, Header h) except -1
    cdef YamuxStream _opened_by_peer(self, Header h)
    cdef int _refuse(self, Header h, str limit) except -1
    cdef int _answered(self, YamuxStream stream, Header h) except -1
    cdef int _refused_by_peer(self, YamuxStream stream, uint32_t least) except -1
    cdef int _unknown(self, Header h) except -1
    cdef int _data(self, YamuxStream stream, Header h) except -1
    cdef int _window_update(self, YamuxStream stream, Header h) except -1
    cdef int _body(self, uint8_t *data, Py_ssize_t n) except -1
    cdef int _fin_or_reset(self, YamuxStream stream, uint32_t flags, uint32_t code) except -1
    cdef int _ping(self, Header h) except -1
    cdef int _pong(self, uint32_t value) except -1
    cdef int _go_away(self, uint32_t code) except -1
    cdef int _drain(self, object reason) except -1
    cdef int _close_if_drained(self) except -1
    cdef int _drop_body(self, Header h) except -1
    cdef YamuxStream _make(self, uint32_t id, bint inbound)
    cdef bint _makes_room(self) except -1
    cdef uint32_t _num_accepted(self) noexcept
    cdef int _control(self, uint8_t kind, uint32_t flags, uint32_t id, uint32_t length) except -1
    cdef Py_ssize_t _put_data(self, YamuxStream stream, const uint8_t *data, Py_ssize_t n) except -1
    cdef int _window_watch(self) except -1
    cdef int _send_ping(self, object op) except -1
    cdef int _grant(self, YamuxStream stream, Py_ssize_t need) except -1
    cdef int _grow(self, YamuxStream stream, Py_ssize_t missing, Py_ssize_t buffered) except -1

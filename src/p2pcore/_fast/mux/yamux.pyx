"""Yamux: received frames to streams, and the life of the session. Spec: libp2p/specs yamux; limits.YAMUX_*.

Comes in: a byte stream cut anywhere. Goes out: bytes and ends to streams, answers by yamux_sender.pyx.
Never buffers a frame (bodies go to their streams as they come), never allocates for a length it has
not checked, never answers a reset.
"""

import logging

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from p2pcore import errors, limits

from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.loop.loop_state cimport monotonic
from p2pcore._fast.loop.rate cimport allows
from p2pcore._fast.mux.session cimport Session
from p2pcore._fast.mux.stream cimport Stream
from p2pcore._fast.loop.waiting cimport PENDING, Op, again
from p2pcore._fast.mux.yamux_sender cimport YamuxSender, YamuxStream
from p2pcore._fast.mux.yamux_frame cimport (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Header,
    unpack_header,
)

logger = logging.getLogger("p2pcore.yamux")

cdef uint32_t INITIAL_WINDOW = limits.YAMUX_INITIAL_WINDOW_BYTES
cdef uint32_t MAX_UNKNOWN_BODY = limits.YAMUX_MAX_UNKNOWN_BODY_BYTES
cdef uint64_t MAX_U32 = 0xFFFFFFFF
cdef double PONG_TIMEOUT_S = limits.YAMUX_PONG_TIMEOUT_S
cdef double GO_AWAY_DRAIN_S = limits.YAMUX_GO_AWAY_DRAIN_S
cdef double PONGS_PER_S = limits.YAMUX_MAX_PING_REPLIES_PER_S
cdef double REFUSED_PER_S = limits.YAMUX_MAX_REFUSED_PER_S
cdef double RESETS_PER_S = limits.YAMUX_RESET_RATE_PER_S
cdef double RESET_BURST = limits.YAMUX_RESET_BURST
cdef double UNKNOWN_PER_S = limits.YAMUX_MAX_UNKNOWN_PER_S
cdef uint64_t LATE_FRAMES = limits.YAMUX_LATE_FRAMES

cdef uint32_t PROTOCOL_ERROR = 1


@cython.final
cdef class _PingOp(Op):
    """await of YamuxSession.ping."""

    cdef YamuxSession session
    cdef double rtt             # 0 until the answer is there

    cdef object attempt(self):
        if self.rtt:
            return self.rtt
        if self.session.error is not None:
            raise again(self.session.error)
        return PENDING


@cython.final
cdef class YamuxSession(YamuxSender):
    """One yamux connection; satisfies interfaces.MuxedConn.

    Args:
        is_client: True on the side that dialled: it opens odd stream ids.
        max_inbound_streams, ack_backlog, max_window_bytes, window_budget_bytes, keepalive_s: see
            muxers.yamux.YamuxOptions.
        first_id: of the streams opened here; 0 for the usual 1 or 2. For tests of the last ids.
    """

    def __cinit__(
        self,
        bint is_client,
        *,
        uint32_t max_inbound_streams=limits.YAMUX_MAX_INBOUND_STREAMS,
        uint32_t ack_backlog=limits.YAMUX_ACK_BACKLOG,
        uint32_t max_window_bytes=limits.YAMUX_MAX_WINDOW_BYTES,
        uint64_t window_budget_bytes=limits.YAMUX_WINDOW_BUDGET_BYTES,
        double keepalive_s=0.0,
        uint32_t first_id=0,
    ):
        self.next_id = first_id or (1 if is_client else 2)
        self.max_inbound = max_inbound_streams
        self.backlog = ack_backlog
        self.max_window = max(max_window_bytes, INITIAL_WINDOW)
        self.budget = window_budget_bytes
        self.keepalive = keepalive_s

    @property
    def is_client(self):
        return self.next_id % 2 == 1

    def ping(self):
        """Asks the peer for an answer.

        Returns: an awaitable of the round trip in seconds.
        Raises: LimitExceeded if YAMUX_MAX_PINGS are unanswered; ConnectionClosed.
        """
        self._seated()
        if self.error is not None:
            raise again(self.error)
        cdef _PingOp op = _PingOp.__new__(_PingOp)
        op.state = self.state
        op.session = self
        self._send_ping(op)
        return op

    # -- receiving -----------------------------------------------------------------------------

    cdef int feed(self, uint8_t* data, Py_ssize_t n) except -1:
        if self.error is not None:
            return 0
        if self.keepalive:
            self._heard()
        try:
            self._parse(data, n)
        except (errors.RemoteProtocolError, errors.LimitExceeded) as error:
            self._violated(error)
        return 0

    def _violated(self, error):
        """The peer broke the protocol: it is told, and the connection closed."""
        logger.debug("closing a yamux session: %s", error)
        self.farewell(PROTOCOL_ERROR)
        self.end(error)
        self.shut()

    cdef int _parse(self, uint8_t* data, Py_ssize_t n) except -1:
        cdef Py_ssize_t k
        while n > 0 and self.error is None:
            if self.body_left:
                k = min(n, <Py_ssize_t> self.body_left)
                self.body_left -= <uint32_t> k
                self._body(data, k)
            elif self.have or n < HEADER_BYTES:
                k = min(n, HEADER_BYTES - self.have)
                memcpy(self.partial + self.have, data, k)
                self.have += <int> k
                if self.have == HEADER_BYTES:
                    self.have = 0
                    self._frame(unpack_header(self.partial))
            else:
                k = HEADER_BYTES
                self._frame(unpack_header(data))
            data += k
            n -= k
        return 0

    cdef int _frame(self, Header h) except -1:
        if h.version != 0:
            raise errors.RemoteProtocolError(f"yamux version {h.version}, expected 0")
        if h.type <= WINDOW_UPDATE:
            if h.id == 0:
                raise errors.RemoteProtocolError("yamux stream frame for stream 0")
            return self._stream_frame(h)
        if h.type > GO_AWAY:
            raise errors.RemoteProtocolError(f"yamux frame type {h.type}, expected 0 to 3")
        if h.id != 0:
            raise errors.RemoteProtocolError(f"yamux session frame for stream {h.id}, expected 0")
        return self._ping(h) if h.type == PING else self._go_away(h.length)

    cdef int _stream_frame(self, Header h) except -1:
        cdef YamuxStream stream
        if h.flags & SYN:
            stream = self._opened_by_peer(h)
            if stream is None:
                return 0
        else:
            found = None if self.streams is None else self.streams.get(h.id)
            if found is None:
                return self._unknown(h)
            stream = <YamuxStream> found
            if not stream.acknowledged:
                # Whatever the peer sends on it shows that it has taken the stream.
                stream.acknowledged = True
                self.unacknowledged -= 1
                self.wake_opener()
        if h.type == DATA:
            return self._data(stream, h)
        return self._window_update(stream, h)

    cdef YamuxStream _opened_by_peer(self, Header h):
        """The stream a SYN opens; None if it is refused."""
        cdef YamuxStream stream
        if h.id % 2 == self.next_id % 2:
            raise errors.RemoteProtocolError(f"yamux stream {h.id} opened by the peer, but the id is one of ours")
        if self.streams is not None and h.id in self.streams:
            raise errors.RemoteProtocolError(f"yamux stream {h.id} opened twice")
        if h.type == DATA and h.length > INITIAL_WINDOW:
            raise errors.RemoteProtocolError(f"yamux SYN with {h.length} bytes, over the window of {INITIAL_WINDOW}")
        if self._is_full() or self.draining is not None:
            self._refuse(h)
            return None
        stream = self._make(h.id, True)
        stream.acknowledged = True
        self.num_inbound += 1
        self.arrive(stream)
        return stream

    cdef bint _is_full(self) except -1:
        if self.num_inbound >= self.max_inbound:
            return True
        return self.handler is None and self.arrived is not None and len(self.arrived) >= <Py_ssize_t> self.backlog

    cdef int _refuse(self, Header h) except -1:
        """No more streams: a reset for this one, and an end to a peer that insists."""
        if not allows(&self.refusals, REFUSED_PER_S, REFUSED_PER_S, monotonic()):
            raise errors.LimitExceeded("yamux streams refused in a second", limits.YAMUX_MAX_REFUSED_PER_S + 1,
                                       limits.YAMUX_MAX_REFUSED_PER_S)
        self.unknown_credit += INITIAL_WINDOW
        self._control(WINDOW_UPDATE, RST, h.id, 0)
        if h.type == DATA:
            self._drop_body(h)
        return 0

    cdef int _unknown(self, Header h) except -1:
        """A frame for a stream that has ended, or never was: ignored, within limits."""
        if h.type == DATA and 0 < h.length <= self.unknown_credit:
            self.unknown_credit -= h.length
        elif h.type == DATA and h.length > MAX_UNKNOWN_BODY:
            raise errors.LimitExceeded("yamux body for an unknown stream", h.length, MAX_UNKNOWN_BODY)
        elif self.late:
            self.late -= 1
        elif not allows(&self.unknown, UNKNOWN_PER_S, UNKNOWN_PER_S, monotonic()):
            raise errors.LimitExceeded("yamux frames for unknown streams in a second",
                                       limits.YAMUX_MAX_UNKNOWN_PER_S + 1, limits.YAMUX_MAX_UNKNOWN_PER_S)
        if h.type == DATA:
            self._drop_body(h)
        return 0

    cdef int _drop_body(self, Header h) except -1:
        self.current = None
        self.flags = 0
        self.body_left = h.length
        return 0

    cdef int _data(self, YamuxStream stream, Header h) except -1:
        if h.length > stream.receive_window:
            raise errors.RemoteProtocolError(
                f"yamux data of {h.length} bytes for stream {h.id}, over the window of {stream.receive_window}")
        if stream.fin_received and h.length:
            # Who has said FIN has nothing more to say on this stream.
            stream.send_reset(PROTOCOL_ERROR)
            stream.fail(errors.RemoteProtocolError(f"yamux data after FIN on stream {h.id}"), True)
            return self._drop_body(h)
        stream.receive_window -= h.length
        if h.length == 0:
            return self._ended_by_peer(stream, h.flags, 0)
        self.current = stream
        self.flags = h.flags & (FIN | RST)
        self.body_left = h.length
        return 0

    cdef int _body(self, uint8_t* data, Py_ssize_t n) except -1:
        """A part of a body, `body_left` already counted down."""
        cdef YamuxStream stream = self.current
        if stream is not None:
            if stream.error is None:
                stream.receive(data, n)
            if self.body_left == 0:
                self.current = None
                return self._ended_by_peer(stream, self.flags, 0)
        return 0

    cdef int _window_update(self, YamuxStream stream, Header h) except -1:
        if h.flags & RST:
            return self._ended_by_peer(stream, h.flags, h.length)
        if <uint64_t> stream.send_window + h.length > MAX_U32:
            raise errors.RemoteProtocolError(f"yamux window of stream {h.id} over 2^32-1 bytes")
        stream.send_window += h.length
        if stream.writers and h.length:
            if self.paused:
                self.waiting_add(stream)
            else:
                stream.pump(stream.send_window)
        return self._ended_by_peer(stream, h.flags, 0)

    cdef int _ended_by_peer(self, YamuxStream stream, uint32_t flags, uint32_t code) except -1:
        """Acts on FIN and RST, after the frame's body."""
        if flags & RST:
            if stream.is_inbound and not allows(&self.resets, RESETS_PER_S, RESET_BURST, monotonic()):
                raise errors.LimitExceeded("yamux streams opened and reset in a second", limits.YAMUX_RESET_BURST + 1,
                                           limits.YAMUX_RESET_BURST)
            self.remove(stream)
            return stream.fail(errors.StreamReset(code, True), True)
        if flags & FIN and not stream.fin_received and stream.error is None:
            stream.finish()
            if stream.fin_sent:
                self.remove(stream)
        return 0

    cdef int _ping(self, Header h) except -1:
        if h.flags & SYN:
            if not allows(&self.pongs, PONGS_PER_S, PONGS_PER_S, monotonic()):
                raise errors.LimitExceeded("yamux pings in a second", limits.YAMUX_MAX_PING_REPLIES_PER_S + 1,
                                           limits.YAMUX_MAX_PING_REPLIES_PER_S)
            return self._control(PING, ACK, 0, h.length)
        return self._pong(h.length) if h.flags & ACK else 0

    cdef int _pong(self, uint32_t value) except -1:
        cdef _PingOp op
        found = None if self.pings is None else self.pings.pop(value, None)
        if found is None:
            return 0
        sent_at, waiting = found
        self.rtt_at = monotonic()
        self.rtt = max(1e-9, self.rtt_at - <double> sent_at)
        self.ping_overdue = False
        if waiting is not None:
            op = <_PingOp> waiting
            op.rtt = self.rtt
            op.wake()
        return 0

    cdef int _go_away(self, uint32_t code) except -1:
        if isinstance(self.draining, errors.GoAway) and code == 0:
            return 0  # said before: the time to drain does not begin anew
        self._drain(errors.GoAway(code, True))
        if code != 0:
            self.end(self.draining)
            return self.shut()
        self.state.watch(self, GO_AWAY_DRAIN_S)
        return self._close_if_drained()

    cdef int _drain(self, object reason) except -1:
        """No more streams are opened; those there are go on."""
        self.draining = reason
        for op in self.openers or ():
            (<Op> op).wake()
        return 0

    cdef int _close_if_drained(self) except -1:
        """Where no more streams are opened, the last one takes the connection with it."""
        if not self.streams and self.error is None:
            if not isinstance(self.draining, errors.GoAway):
                self.farewell(0)
            self.end(self.draining)
            return self.shut()
        return 0

    # -- the session's own ---------------------------------------------------------------------

    cdef YamuxStream _make(self, uint32_t id, bint inbound):
        cdef YamuxStream stream = YamuxStream.__new__(YamuxStream)
        stream.state = self.state
        stream.session = self
        stream.id = id
        stream.is_inbound = inbound
        stream.send_window = stream.receive_window = stream.max_window = INITIAL_WINDOW
        if self.streams is None:
            self.streams = {}
        self.streams[id] = stream
        return stream

    cdef Stream new_stream(self):
        cdef YamuxStream stream
        if self.draining is not None:
            raise again(self.draining)
        if self.unacknowledged >= self.backlog:
            return None
        if self.next_id > MAX_U32 - 2:
            self._drain(errors.ConnectionClosed("all stream ids of this yamux session have been used"))
            self.state.flush_soon(self)
            raise again(self.draining)
        stream = self._make(self.next_id, False)
        self.next_id += 2
        self.unacknowledged += 1
        self._control(WINDOW_UPDATE, SYN, stream.id, 0)
        return stream

    cdef int remove(self, Stream ended) except -1:
        cdef YamuxStream stream = <YamuxStream> ended
        if not self.forget(stream):
            return 0
        self.late += LATE_FRAMES
        self.budget += stream.max_window - INITIAL_WINDOW
        if self.open_stream_ is stream:
            self.open_stream_ = None
        if stream.is_inbound:
            self.num_inbound -= 1
        elif not stream.acknowledged:
            stream.acknowledged = True
            self.unacknowledged -= 1
            self.wake_opener()
        if self.draining is not None and not self.streams:
            self.state.flush_soon(self)
        return 0

    cdef int flush(self) except -1:
        if self.draining is not None:
            self._close_if_drained()
        return 0

    cdef int end(self, object error) except -1:
        if self.error is not None:
            return 0
        Session.end(self, error)
        self.current = None
        self.open_stream_ = None
        pings, self.pings = self.pings, None
        for _, op in (pings or {}).values():
            if op is not None:
                (<Op> op).wake()
        return 0

    cdef object eof_reason(self):
        return self.draining

    cdef int seat(self, Layer below) except -1:
        Session.seat(self, below)
        if self.keepalive:
            self.heard_at = monotonic()
            self.state.watch(self, self.keepalive)
        return 0

    cdef int _heard(self) except -1:
        self.heard_at = monotonic()
        return 0

    cdef int overdue(self) except -1:
        """The keepalive time is up, its answer is, or the drain after the peer's go-away is."""
        cdef double idle
        if isinstance(self.draining, errors.GoAway):
            self.end(self.draining)
            return self.shut()
        if self.ping_overdue:
            self.end(errors.ConnectionClosed(f"no answer to a yamux ping for {PONG_TIMEOUT_S:g} s"))
            return self.drop(self.error)
        idle = monotonic() - self.heard_at
        if idle < self.keepalive:
            return self.state.watch(self, self.keepalive - idle)
        self.ping_overdue = True
        if not self.pings:
            self._send_ping(None)
        return self.state.watch(self, PONG_TIMEOUT_S)

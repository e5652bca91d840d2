"""Yamux. Spec: libp2p/specs yamux; limits: limits.YAMUX_*.

Comes in: a byte stream cut anywhere, calls of the streams. Goes out: bytes and ends to streams; frames into the
record layer's cork, none across two records. Never buffers a frame (a body goes to its stream as it comes),
never allocates for a length it has not checked, never answers a reset.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from p2pcore import codes, errors, limits

from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.loop.clock cimport monotonic
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.ledger cimport CALM, FULL, TIGHT
from p2pcore._fast.loop.metrics cimport count_sent
from p2pcore._fast.loop.rate cimport spend
from p2pcore._fast.loop.waiting cimport PENDING, Op, again, failed
from p2pcore._fast.mux.open_frame cimport LEAST_BODY, can_grow, has_grown
from p2pcore._fast.mux.session cimport Allowance, Session, count_held, memory_state
from p2pcore._fast.mux.session import _USUAL
from p2pcore._fast.mux.stream cimport Stream
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
    pack_header,
    put_u32,
    unpack_header,
)

cdef uint32_t INITIAL_WINDOW = limits.YAMUX_INITIAL_WINDOW_BYTES
cdef uint32_t MAX_UNKNOWN_BODY = limits.YAMUX_MAX_UNKNOWN_BODY_BYTES
cdef uint64_t MAX_U32 = 0xFFFFFFFF
cdef double PONG_TIMEOUT_S = limits.YAMUX_PONG_TIMEOUT_S
cdef double WINDOW_LOOK_S = limits.YAMUX_WINDOW_LOOK_S
cdef double WINDOW_GRACE_S = limits.YAMUX_WINDOW_GRACE_S
cdef double GO_AWAY_DRAIN_S = limits.YAMUX_GO_AWAY_DRAIN_S
cdef double PONGS_PER_S = limits.YAMUX_MAX_PING_REPLIES_PER_S
cdef uint32_t CAUTIOUS_STREAMS = limits.YAMUX_CAUTIOUS_STREAMS
cdef double REGROW_S = limits.YAMUX_REGROW_S
cdef uint32_t LEAST_BY_CODE = limits.YAMUX_LEAST_OUTBOUND_STREAMS
cdef uint32_t RESOURCE_LIMIT = codes.STREAM_RESOURCE_LIMIT_EXCEEDED
cdef double UNKNOWN_PER_S = limits.YAMUX_MAX_UNKNOWN_PER_S
cdef uint64_t LATE_FRAMES = limits.YAMUX_LATE_FRAMES
cdef Py_ssize_t RESET_WORK = limits.RESET_WORK
cdef double MAX_TUNING_RTT_S = limits.YAMUX_MAX_TUNING_RTT_S
cdef double RTT_INTERVAL_S = limits.YAMUX_RTT_INTERVAL_S
cdef int MAX_PINGS = limits.YAMUX_MAX_PINGS

cdef uint32_t PROTOCOL_ERROR = 1

# Credit is given in steps of at most this: a frame of 12 bytes for 512 KiB.
cdef Py_ssize_t GRANT_BYTES = 512 * 1024


@cython.final
cdef class YamuxStream(Stream):
    """A stream of a YamuxSession; see interfaces.Stream."""

    @property
    def conn(self):
        """The connection it belongs to, as the swarm gives it out; None without one."""
        return None if self.session is None else self.session.owner

    @property
    def is_acknowledged(self):
        return self.acknowledged

    @property
    def windows(self):
        """(bytes we may send, bytes the peer may send, what the latter is filled up to)."""
        return self.send_window, self.receive_window, self.max_window

    cdef Py_ssize_t push(self, const uint8_t *data, Py_ssize_t n) except -1:
        cdef YamuxSession session = self.session
        cdef Py_ssize_t k, total = 0
        while total < n and self.send_window and not session.paused and session.error is None:
            k = session._put_data(self, data + total, min(n - total, <Py_ssize_t> self.send_window))
            self.send_window -= <uint32_t> k
            total += k
        if self.traffic is not None:
            count_sent(self.traffic, total)
        return total

    cdef int send_fin(self) except -1:
        cdef YamuxSession session = self.session
        if session.error is None:
            # Never on a frame with a body: js-libp2p acts on FIN before the body, and then drops the body
            # (@libp2p/yamux 8.0.3, YamuxStream.handleData).
            session._control(WINDOW_UPDATE, FIN, self.id, 0)
            if self.fin_received:
                session.remove(self)
        return 0

    cdef int send_reset(self, uint32_t code) except -1:
        cdef YamuxSession session = self.session
        if session.error is None:
            session.unknown_credit += self.receive_window
            session._control(WINDOW_UPDATE, RST, self.id, code)
            session.remove(self)
        return 0

    cdef int credit(self, Py_ssize_t n) except -1:
        return self.session._grant(self, 0)

    cdef int want(self, Py_ssize_t n) except -1:
        return self.session._grant(self, n)

    cdef int drop_received(self, Py_ssize_t n) except -1:
        if (self.fin_sent or self.fin_due) and not self.session.drops(self, n):
            return 0
        return self.session._grant(self, 0)

    cdef int closed_here(self) except -1:
        return self.session.linger(self)

    cdef int heard(self) except -1:
        return self.session.arrive(self)

    cdef int write_waits(self) except -1:
        return self.session.waiting_add(self) if self.session.paused else self.session._window_watch()

    cdef int writes_begin(self) except -1:
        self.session.num_writing += 1
        return 0

    cdef int writes_done(self) except -1:
        return self.session.writes_done()

    cdef int count_waits(self, Py_ssize_t by) except -1:
        return self.session.count_waits(by)

    cdef bint may_wait(self) except -1:
        return not self.session.must_shed(0)

    cdef int queue_changed(self) except -1:
        return 0 if self.session is None else count_held(self.session, self)

    cdef bint is_of(self, object session) noexcept:
        return self.session is session

    cdef bint may_push(self) noexcept:
        return self.send_window != 0

    cdef Op session_turn(self, Py_ssize_t work):
        return self.session.turn(work)


@cython.final
cdef class _WindowWatch(Flushable):
    """Looks whether the peer lives while a write waits for its window (docs/decisions/0001)."""

    cdef int overdue(self) except -1:
        cdef YamuxSession session = self.session
        self.num_silent = 0 if session.heard else self.num_silent + 1
        session.heard = False
        if self.num_silent == 0:
            return session.state.timers.watch(self, WINDOW_LOOK_S)
        if self.num_silent == 1:
            if not session.pings:
                session._send_ping(None)
            return session.state.timers.watch(self, PONG_TIMEOUT_S)
        if self.num_silent == 2:
            return session.state.timers.watch(self, WINDOW_GRACE_S)
        session.fail(errors.ConnectionClosed(
            f"a write waits for the peer, which has not answered a yamux ping for {PONG_TIMEOUT_S:g} s"))
        return session.drop(session.error)


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
cdef class YamuxSession(Session):
    """One yamux connection; satisfies interfaces.MuxedConn.

    Args:
        is_client: True on the side that dialled: it opens odd stream ids.
        max_inbound_streams, max_outbound_streams, ack_backlog, max_window_bytes, window_budget_bytes, keepalive_s:
            see muxers.yamux.YamuxOptions.
        allowance: what it says of a peer that opens, or resets, too many streams.
        first_id: of the streams opened here; 0 for the usual 1 or 2. For tests of the last ids.
    """

    def __cinit__(
        self,
        bint is_client,
        *,
        uint32_t max_inbound_streams=limits.YAMUX_MAX_INBOUND_STREAMS,
        uint32_t max_outbound_streams=limits.YAMUX_MAX_OUTBOUND_STREAMS,
        uint32_t ack_backlog=limits.YAMUX_ACK_BACKLOG,
        uint32_t max_window_bytes=limits.YAMUX_MAX_WINDOW_BYTES,
        uint64_t window_budget_bytes=limits.YAMUX_WINDOW_BUDGET_BYTES,
        double keepalive_s=0.0,
        Allowance allowance not None=_USUAL,
        uint32_t first_id=0,
    ):
        self.allowance = allowance
        self.max_outbound = max_outbound_streams
        self.most_outbound = min(max_outbound_streams, CAUTIOUS_STREAMS)
        self.next_id = first_id or (1 if is_client else 2)
        self.max_inbound = max_inbound_streams
        self.backlog = ack_backlog
        self.max_window = max(max_window_bytes, INITIAL_WINDOW)
        self.budget = window_budget_bytes
        self.keepalive = keepalive_s

    @property
    def is_client(self):
        return self.next_id % 2 == 1

    @property
    def can_open(self):
        return self.draining is None and not self.is_closed

    def ping(self):
        """Asks the peer for an answer.

        Returns: an awaitable of the round trip in seconds.
        Raises, when awaited: LimitExceeded if YAMUX_MAX_PINGS are unanswered; ConnectionClosed.
        """
        self._seated()
        if self.error is not None:
            return failed(self.error)
        cdef _PingOp op = _PingOp.__new__(_PingOp)
        op.state = self.state
        op.session = self
        try:
            self._send_ping(op)
        except errors.LimitExceeded as error:
            return failed(error)
        return op

    # -- receiving -----------------------------------------------------------------------------

    cdef Py_ssize_t parse(self, uint8_t *data, Py_ssize_t n, Py_ssize_t least) except -1:
        cdef Py_ssize_t k, given = n
        self.heard = True
        if self.keepalive:
            self.heard_at = monotonic()
        while n > 0 and self.state.rota.room > least and self.error is None:
            self.state.rota.room -= 1
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
        if self.have or self.body_left:
            self.has_begun()
        return given - n

    cdef bint is_unfinished(self) noexcept:
        return self.error is None and (self.have != 0 or self.body_left != 0)

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
        self.is_used = True
        if h.flags & SYN:
            stream = self._opened_by_peer(h)
            if stream is None:
                return 0
        else:
            stream = <YamuxStream> self.find(h.id)
            if stream is None:
                return self._unknown(h)
            if not stream.acknowledged:
                self._answered(stream, h)
        if h.type == DATA:
            return self._data(stream, h)
        return self._window_update(stream, h)

    cdef YamuxStream _opened_by_peer(self, Header h):
        """The stream a SYN opens; None if it is refused."""
        cdef YamuxStream stream
        cdef str limit
        if h.id % 2 == self.next_id % 2:
            raise errors.RemoteProtocolError(f"yamux stream {h.id} opened by the peer, but the id is one of ours")
        if self.streams is not None and h.id in self.streams:
            raise errors.RemoteProtocolError(f"yamux stream {h.id} opened twice")
        if h.type == DATA and h.length > INITIAL_WINDOW:
            raise errors.RemoteProtocolError(f"yamux SYN with {h.length} bytes, over the window of {INITIAL_WINDOW}")
        limit = None if self.draining is not None else self.limit_reached(<Py_ssize_t> self.backlog)
        if limit is not None or self.draining is not None:
            self._refuse(h, limit)
            return None
        stream = self._make(h.id, True)
        stream.acknowledged = True
        self.arrive(stream)
        return stream

    cdef int _refuse(self, Header h, str limit) except -1:
        """Resets one stream too many. A peer that opens very many of them loses the connection."""
        self.refusing(limit)
        self.unknown_credit += INITIAL_WINDOW
        self.late += LATE_FRAMES
        self._control(WINDOW_UPDATE, RST, h.id, RESOURCE_LIMIT if self.draining is None else 0)
        if h.type == DATA:
            self._drop_body(h)
        return 0

    cdef int _answered(self, YamuxStream stream, Header h) except -1:
        """The first frame of the peer for a stream of ours: it has accepted it, or refuses it."""
        stream.acknowledged = True
        self.unacknowledged -= 1
        if h.flags & RST:
            if h.type == DATA or h.length != RESOURCE_LIMIT:  # which _fin_or_reset looks at
                self._refused_by_peer(stream, 1)
        elif not self.acks_at_once and h.type == WINDOW_UPDATE and h.length < INITIAL_WINDOW // 2:
            self.acks_at_once = True
            if self.regrow_at == 0:
                self.most_outbound = self.max_outbound
        if self.regrow_at and not h.flags & RST:
            self.most_outbound = max(self.most_outbound, min(self.max_outbound, self._num_accepted()))
        return self.wake_opener()

    cdef int _refused_by_peer(self, YamuxStream stream, uint32_t least) except -1:
        """The peer has as many streams as it takes: those it has accepted, or that were open before this one.

        We do not go below `least`.
        """
        cdef uint32_t most = max(self._num_accepted() - 1, min(self.most_outbound - 1, <uint32_t> stream.granted))
        self.most_outbound = min(self.most_outbound, max(least, most))
        self.regrow_at = monotonic() + REGROW_S
        self.regrow_by = 1
        return 0

    cdef uint32_t _num_accepted(self) noexcept:
        """Streams of ours that the peer has acknowledged: it takes at least so many."""
        return self.num_outbound - self.unacknowledged

    cdef double retry_at(self) except -2:
        return self.regrow_at if self.num_outbound >= self.most_outbound else 0

    cdef int _unknown(self, Header h) except -1:
        """A frame for a stream that has ended or never was: ignored, within limits."""
        if h.type == DATA and 0 < h.length <= self.unknown_credit:
            self.unknown_credit -= h.length
        elif h.type == DATA and h.length > MAX_UNKNOWN_BODY:
            raise errors.LimitExceeded("yamux body for an unknown stream", h.length, MAX_UNKNOWN_BODY)
        elif self.late:
            self.late -= 1
        else:
            self.count_useless(UNKNOWN_PER_S, "yamux frames for unknown streams in a second")
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
            # Nothing may follow a FIN.
            stream.send_reset(PROTOCOL_ERROR)
            stream.fail(errors.RemoteProtocolError(f"yamux data after FIN on stream {h.id}"), True)
            return self._drop_body(h)
        stream.receive_window -= h.length
        if h.length == 0:
            return self._fin_or_reset(stream, h.flags, 0)
        if memory_state(self) == FULL and not stream.is_read() and self.must_shed(h.length):
            self.shed(stream)
            return self._drop_body(h)
        self.current = stream
        self.flags = h.flags & (FIN | RST)
        self.body_left = h.length
        return 0

    cdef int _body(self, uint8_t *data, Py_ssize_t n) except -1:
        """A part of a body, `body_left` already counted down."""
        cdef YamuxStream stream = self.current
        if stream is not None:
            if stream.error is None:
                stream.receive(data, n)
                count_held(self, stream)
            if self.body_left == 0:
                self.current = None
                return self._fin_or_reset(stream, self.flags, 0)
        return 0

    cdef int _window_update(self, YamuxStream stream, Header h) except -1:
        if h.flags & RST:
            return self._fin_or_reset(stream, h.flags, h.length)
        if <uint64_t> stream.send_window + h.length > MAX_U32:
            raise errors.RemoteProtocolError(f"yamux window of stream {h.id} over 2^32-1 bytes")
        stream.send_window += h.length
        if stream.writers and h.length:
            if self.paused:
                self.waiting_add(stream)
            else:
                stream.pump(stream.send_window)
        return self._fin_or_reset(stream, h.flags, 0)

    cdef int _fin_or_reset(self, YamuxStream stream, uint32_t flags, uint32_t code) except -1:
        """Acts on FIN and RST, after the frame's body."""
        if flags & FIN and not stream.fin_received and stream.error is None:
            stream.receive_fin()
            if stream.fin_sent:
                self.remove(stream)
        if flags & RST:
            self.state.rota.room -= RESET_WORK
            self.count_reset(stream)
            if code == RESOURCE_LIMIT and not stream.is_inbound and stream.receive_window == INITIAL_WINDOW:
                if stream.granted_at == 0:  # it never sent anything: it was refused, not its handler
                    # The code may come from a cap on handlers, which says little about streams.
                    self._refused_by_peer(stream, LEAST_BY_CODE)
            self.remove(stream)
            return stream.fail(errors.reset_by_peer(code), not stream.fin_received)
        return 0

    cdef int _ping(self, Header h) except -1:
        if h.flags & SYN:
            spend(&self.pongs, PONGS_PER_S, PONGS_PER_S, "yamux pings in a second")
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
        if self.ping_overdue:
            self.ping_overdue = False
            if not isinstance(self.draining, errors.GoAway):
                self.state.timers.watch(self, self.keepalive)
        if waiting is not None:
            op = <_PingOp> waiting
            op.rtt = self.rtt
            op.wake()
        return 0

    cdef int _go_away(self, uint32_t code) except -1:
        if isinstance(self.draining, errors.GoAway) and code == 0:
            return 0  # a repetition: the time to drain does not begin anew
        self._drain(errors.go_away_by_peer(code))
        if code != 0:
            self.fail(self.draining)
            return self.shut()
        self.state.timers.watch(self, GO_AWAY_DRAIN_S)
        return self._close_if_drained()

    cdef int _drain(self, object reason) except -1:
        """No more streams are opened. Those that exist go on."""
        self.draining = reason
        if self.excess is not None:
            for op in self.excess.openers or ():
                (<Op> op).wake()
        return 0

    cdef int _close_if_drained(self) except -1:
        """If no more streams are opened and the last one has ended, the connection ends too."""
        if self.num_streams == 0 and self.error is None:
            if not isinstance(self.draining, errors.GoAway):
                self.send_go_away(0)
            self.fail(self.draining)
            return self.shut()
        return 0

    # -- sending -------------------------------------------------------------------------------

    cdef int _control(self, uint8_t kind, uint32_t flags, uint32_t id, uint32_t length) except -1:
        if self.is_lost:
            return 0  # what had come before is still handled; nobody hears the answers
        pack_header(self.cork.room(HEADER_BYTES), kind, flags, id, length)
        return 0

    cdef Py_ssize_t _put_data(self, YamuxStream stream, const uint8_t *data, Py_ssize_t n) except -1:
        """Writes at least one of `n` bytes as data; returns how many. One frame never spans two records.

        Small writes that follow one another on a stream become one frame: the frame still open is
        made longer.
        """
        cdef Py_ssize_t space = self.cork.space()
        if self.growing is stream and space > 0 and can_grow(&self.frame, self.cork):
            n = min(n, space)
            memcpy(self.cork.room(n), data, n)
            self.frame.body += n
            put_u32(self.frame.at + 8, <uint32_t> self.frame.body)
        else:
            if space < HEADER_BYTES + min(n, LEAST_BODY):
                space = self.cork.most
            n = min(n, space - HEADER_BYTES)
            self.frame.at = self.cork.room(HEADER_BYTES + n)
            pack_header(self.frame.at, DATA, 0, stream.id, <uint32_t> n)
            memcpy(self.frame.at + HEADER_BYTES, data, n)
            self.growing = stream
            self.frame.body = n
            self.frame.sealed = self.cork.sealed
        has_grown(&self.frame, self.cork)
        return n

    cdef int writes_done(self) except -1:
        Session.writes_done(self)
        if not self.num_writing and self.window_watch is not None and self.window_watch.is_on:
            self.window_watch.is_on = False
            self.state.timers.unwatch(self.window_watch)
        return 0

    cdef int _window_watch(self) except -1:
        """A write waits for the peer's window."""
        if self.window_watch is None:
            self.window_watch = _WindowWatch.__new__(_WindowWatch)
            self.window_watch.session = self
        if not self.window_watch.is_on:
            self.window_watch.is_on = True
            self.window_watch.num_silent = 0
            self.heard = False
            self.state.timers.watch(self.window_watch, WINDOW_LOOK_S)
        return 0

    cdef int _send_ping(self, object op) except -1:
        if self.pings is None:
            self.pings = {}
        if len(self.pings) >= MAX_PINGS:
            raise errors.LimitExceeded("unanswered yamux pings", MAX_PINGS + 1, MAX_PINGS)
        self.ping_value = <uint32_t> (self.ping_value + 1)
        self.pings[self.ping_value] = (monotonic(), op)
        return self._control(PING, SYN, 0, self.ping_value)

    cdef int _grant(self, YamuxStream stream, Py_ssize_t need) except -1:
        """Lets the peer send more, once enough has been read or a read needs `need` bytes at once.

        Enough is half a window, as in go and rust, but at most GRANT_BYTES. Otherwise, over a long path, the peer
        would stop while half of a large window is on its way here.
        """
        cdef Py_ssize_t buffered = 0 if stream.queue is None else stream.queue.size
        cdef Py_ssize_t usable = stream.receive_window + buffered
        cdef Py_ssize_t most = stream.max_window
        cdef Py_ssize_t missing
        count_held(self, stream)
        if memory_state(self) >= TIGHT:
            most = INITIAL_WINDOW
        missing = most - usable
        if self.error is not None or stream.error is not None or stream.fin_received:
            return 0
        if missing < min(most // 2, GRANT_BYTES) and usable >= need:
            return 0
        if memory_state(self) < TIGHT:
            self._grow(stream, missing, buffered)
            missing = <Py_ssize_t> stream.max_window - usable
        if missing <= 0:
            return 0
        stream.receive_window += <uint32_t> missing
        return self._control(WINDOW_UPDATE, 0, stream.id, <uint32_t> missing)

    cdef int _grow(self, YamuxStream stream, Py_ssize_t missing, Py_ssize_t buffered) except -1:
        """Doubles a window if half of it was read within four round trips and the budget allows it.

        The peer can make its answers late. So a round trip counts for MAX_TUNING_RTT_S at most, and a window grows
        only while the program keeps up: half of a window or less waits to be read.
        """
        cdef uint64_t more
        cdef double now
        cdef bint in_time
        stream.granted += missing
        if stream.granted_at and stream.granted < <Py_ssize_t> (stream.max_window // 2):
            return 0
        now = monotonic()
        if self.rtt == 0 or now - self.rtt_at > RTT_INTERVAL_S:
            if not self.pings:
                self._send_ping(None)
        in_time = self.rtt > 0 and stream.granted_at > 0 and now - stream.granted_at < 4 * min(self.rtt, MAX_TUNING_RTT_S)
        if in_time and buffered <= <Py_ssize_t> (stream.max_window // 2) and memory_state(self) == CALM:
            more = min(<uint64_t> stream.max_window, <uint64_t> (self.max_window - stream.max_window))
            if more <= self.budget:
                self.budget -= more
                stream.max_window += <uint32_t> more
        stream.granted_at = now
        stream.granted = 0
        return 0

    cdef int accepted(self, Stream stream) except -1:
        return self._control(WINDOW_UPDATE, ACK, stream.id, 0)

    cdef int send_go_away(self, uint32_t code) except -1:
        if self.below is not None:
            self._control(GO_AWAY, 0, 0, code)
        return 0

    # -- the session's own ---------------------------------------------------------------------

    cdef YamuxStream _make(self, uint32_t id, bint inbound):
        cdef YamuxStream stream = YamuxStream.__new__(YamuxStream)
        stream.state = self.state
        stream.session = self
        stream.id = id
        stream.is_inbound = inbound
        stream.send_window = stream.receive_window = stream.max_window = INITIAL_WINDOW
        self.enter(stream)
        return stream

    cdef Stream new_stream(self):
        cdef YamuxStream stream
        if self.draining is not None:
            raise again(self.draining)
        if self.unacknowledged >= self.backlog:
            return None
        if self.num_outbound >= self.most_outbound and not self._makes_room():
            return None
        if self.next_id > MAX_U32 - 2:
            self._drain(errors.ConnectionClosed("all stream ids of this yamux session have been used"))
            self.state.flusher.flush_soon(self)
            raise again(self.draining)
        stream = self._make(self.next_id, False)
        self.next_id += 2
        self.unacknowledged += 1
        stream.granted = self.num_outbound  # unused until data flows; says how many the peer had at least
        self.num_outbound += 1
        self._control(WINDOW_UPDATE, SYN, stream.id, 0)
        return stream

    cdef bint _makes_room(self) except -1:
        """Whether one more stream may be opened after all: some were dropped, or the peer may take more by now."""
        cdef double now = monotonic()
        self.sweep_at_limit()
        if self.regrow_at and now >= self.regrow_at and self.most_outbound < self.max_outbound:
            self.regrow_at = now + REGROW_S
            self.most_outbound = min(self.max_outbound, self.most_outbound + self.regrow_by)
            self.regrow_by *= 2
        return self.num_outbound < self.most_outbound

    cdef int linger(self, Stream stream) except -1:
        Session.linger(self, stream)
        if self.draining is not None:
            self.state.flusher.flush_soon(self)
        return 0

    cdef int remove(self, Stream ended) except -1:
        cdef YamuxStream stream = <YamuxStream> ended
        if not self.forget(stream):
            return 0
        self.late += LATE_FRAMES
        self.budget += stream.max_window - INITIAL_WINDOW
        if not stream.is_inbound:
            self.num_outbound -= 1
            if not stream.acknowledged:
                self.unacknowledged -= 1
            self.wake_opener()
        if self.draining is not None:
            self.state.flusher.flush_soon(self)
        return 0

    cdef int flush(self) except -1:
        if self.draining is not None:
            self._close_if_drained()
        return 0

    cdef int fail(self, object error) except -1:
        if self.error is not None:
            return 0
        Session.fail(self, error)
        self.current = None
        if self.window_watch is not None:
            self.state.timers.unwatch(self.window_watch)
            self.window_watch = None
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
            self.state.timers.watch(self, self.keepalive)
        return 0

    cdef int overdue(self) except -1:
        """The keepalive time is over, or the time for a ping's answer, or the drain after the peer's go-away."""
        cdef double idle
        if isinstance(self.draining, errors.GoAway):
            self.fail(self.draining)
            return self.shut()
        if self.ping_overdue:
            self.fail(errors.ConnectionClosed(f"no answer to a yamux ping for {PONG_TIMEOUT_S:g} s"))
            return self.drop(self.error)
        idle = monotonic() - self.heard_at
        if idle < self.keepalive:
            return self.state.timers.watch(self, self.keepalive - idle)
        self.ping_overdue = True
        if not self.pings:
            self._send_ping(None)
        return self.state.timers.watch(self, PONG_TIMEOUT_S)

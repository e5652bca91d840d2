"""Mplex. Spec: libp2p/specs mplex; limits: limits.MPLEX_*.

Comes in: a byte stream cut anywhere, calls of the streams. Goes out: bytes and ends to streams; messages into the
record layer's cork, none across two records. Never buffers a message (a body goes to its stream as it comes),
never waits longer than its options say for a stream that nobody reads, never answers a reset.
"""

import logging

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from p2pcore import errors, limits

from p2pcore._fast.loop.ledger cimport FULL, TIGHT
from p2pcore._fast.loop.metrics cimport count_sent
from p2pcore._fast.mux.mplex_frame cimport (
    CLOSE,
    MAX_HEADER_BYTES,
    MAX_LENGTH_BYTES,
    MESSAGE,
    NEW_STREAM,
    RESET,
    Header,
    put_header,
    read_header,
    varint_size,
)
from p2pcore._fast.loop.waiting cimport Op
from p2pcore._fast.mux.open_frame cimport LEAST_BODY, can_grow, has_grown
from p2pcore._fast.mux.session cimport Allowance, Session, count_held, memory_state
from p2pcore._fast.mux.session import _USUAL
from p2pcore._fast.mux.stream cimport Stream
from p2pcore._fast.codec.varint cimport varint_write

logger = logging.getLogger("p2pcore.mplex")

cdef uint64_t MAX_BODY = limits.MPLEX_MAX_MESSAGE_BYTES
cdef uint64_t LAST_ID = limits.MPLEX_LAST_STREAM_ID
cdef Py_ssize_t MAX_LABEL = limits.MPLEX_MAX_NAME_BYTES
cdef Py_ssize_t LEAST_STREAM = limits.MPLEX_STREAM_BUFFER_BYTES
cdef Py_ssize_t MAX_UNACCEPTED = limits.MPLEX_MAX_UNACCEPTED_STREAMS
cdef double USELESS_PER_S = limits.MPLEX_MAX_USELESS_PER_S
cdef Py_ssize_t RESET_WORK = limits.RESET_WORK
cdef uint64_t LATE = limits.MPLEX_LATE_MESSAGES

# A message that grows may need this many bytes more for its length.
cdef Py_ssize_t GROWTH = MAX_LENGTH_BYTES - 1


@cython.final
cdef class MplexStream(Stream):
    """A stream of an MplexSession; see interfaces.Stream. Reset codes do not reach the peer."""

    @property
    def conn(self):
        """The connection it belongs to, as the swarm gives it out; None without one."""
        return None if self.session is None else self.session.owner

    @property
    def name(self):
        """The name that the peer gave it (its first MPLEX_MAX_NAME_BYTES), for people only; "" if we opened it."""
        return "" if self.label is None else self.label.decode(errors="replace")

    cdef uint64_t key(self) noexcept:
        """Each side may have a stream with this id. The last bit says who opened it."""
        return self.id << 1 | <uint64_t> self.is_inbound

    cdef int flag(self, int kind) noexcept:
        """The flag for `kind` in what we send on this stream."""
        return kind if self.is_inbound else kind + 1

    cdef Py_ssize_t push(self, const uint8_t *data, Py_ssize_t n) except -1:
        cdef MplexSession session = self.session
        cdef Py_ssize_t total = 0
        while total < n and not session.paused and session.error is None:
            total += session._put_data(self, data + total, n - total)
        if self.traffic is not None:
            count_sent(self.traffic, total)
        return total

    cdef int send_fin(self) except -1:
        cdef MplexSession session = self.session
        if session.error is None:
            session._control(self.flag(CLOSE), self.id)
            if self.fin_received:
                session.remove(self)
        return 0

    cdef int send_reset(self, uint32_t code) except -1:
        cdef MplexSession session = self.session
        if session.error is None:
            if not self.fin_received:
                session.late += LATE
            session._control(self.flag(RESET), self.id)
            session.remove(self)
        return 0

    cdef int credit(self, Py_ssize_t n) except -1:
        return self.session._account(self)

    cdef int want(self, Py_ssize_t n) except -1:
        return 0  # a stream may hold as much as a read may ask for

    cdef int drop_received(self, Py_ssize_t n) except -1:
        self.session._account(self)
        if self.fin_sent or self.fin_due:
            self.session.drops(self, n)
        return 0

    cdef int closed_here(self) except -1:
        return self.session.linger(self)

    cdef int heard(self) except -1:
        return self.session.arrive(self)

    cdef int write_waits(self) except -1:
        return self.session.waiting_add(self) if self.session.paused else 0

    cdef int writes_begin(self) except -1:
        self.session.num_writing += 1
        return 0

    cdef int writes_done(self) except -1:
        return self.session.writes_done()

    cdef Op session_turn(self, Py_ssize_t work):
        return self.session.turn(work)

    cdef int count_waits(self, Py_ssize_t by) except -1:
        return self.session.count_waits(by)

    cdef bint may_wait(self) except -1:
        return not self.session.must_shed(0)

    cdef int queue_changed(self) except -1:
        return 0 if self.session is None else count_held(self.session, self)

    cdef bint is_of(self, object session) noexcept:
        return self.session is session


@cython.final
cdef class MplexSession(Session):
    """One mplex connection; satisfies interfaces.MuxedConn.

    Args:
        is_client: True on the side that dialled; mplex itself makes no difference.
        max_inbound_streams, max_outbound_streams, max_stream_bytes, max_buffered_bytes, stall_s: see
            muxers.mplex.MplexOptions.
        allowance: what it says of a peer that opens, or resets, too many streams.
        first_id: of the streams opened here. For tests of the last ids.
    """

    def __cinit__(
        self,
        bint is_client,
        *,
        uint32_t max_inbound_streams=limits.MPLEX_MAX_INBOUND_STREAMS,
        uint32_t max_outbound_streams=limits.MPLEX_MAX_OUTBOUND_STREAMS,
        Py_ssize_t max_stream_bytes=limits.MPLEX_STREAM_BUFFER_BYTES,
        Py_ssize_t max_buffered_bytes=limits.MPLEX_MAX_BUFFERED_BYTES,
        double stall_s=limits.MPLEX_STALL_S,
        Allowance allowance not None=_USUAL,
        uint64_t first_id=0,
    ):
        self.allowance = allowance
        self.is_client = is_client
        self.max_inbound = max_inbound_streams
        self.max_outbound = max_outbound_streams
        self.max_stream = max(max_stream_bytes, LEAST_STREAM)
        self.max_buffered = max(max_buffered_bytes, self.max_stream)
        self.stall = stall_s
        self.next_id = first_id

    @property
    def num_buffered(self):
        """Bytes received and not yet read, of all streams that have not ended."""
        return self.buffered

    @property
    def rtt(self):
        """0: mplex has no ping, so it measures no round trip."""
        return 0.0

    # -- receiving -----------------------------------------------------------------------------

    cdef Py_ssize_t parse(self, uint8_t *data, Py_ssize_t n, Py_ssize_t least) except -1:
        cdef Py_ssize_t k, given = n
        while n > 0 and self.state.rota.room > least and self.error is None:
            self.state.rota.room -= 1
            if self.body_left:
                k = min(n, self.body_left)
                self.body_left -= k
                self._body(data, k)
            else:
                k = self._head(data, n)
            data += k
            n -= k
        if self.have or self.body_left:
            self.has_begun()
        return given - n

    cdef bint is_unfinished(self) noexcept:
        return self.error is None and (self.have != 0 or self.body_left != 0)

    cdef bint is_stalled(self) noexcept:
        return self.stalled

    cdef Py_ssize_t _head(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Reads a header, or what there is of it; returns the bytes used."""
        cdef Header h
        cdef int used
        cdef Py_ssize_t had = self.have
        if had:
            n = min(n, MAX_HEADER_BYTES - had)
            memcpy(self.partial + had, data, n)
            used = read_header(self.partial, had + n, &h)
        else:
            used = read_header(data, n, &h)
        if used < 0:
            raise errors.RemoteProtocolError("an mplex header with a varint over 9 bytes, or not in its shortest form")
        if used > 0:
            self.have = 0
            self._begin(&h)
            return used - had
        if not had:
            memcpy(self.partial, data, n)
        self.have = <int> (had + n)
        return n

    cdef int _begin(self, Header *h) except -1:
        """The header of a message is there."""
        if h.length > MAX_BODY:
            raise errors.RemoteProtocolError(f"an mplex message of {h.length} bytes, at most {MAX_BODY} are allowed")
        if h.flag > RESET + 1:
            raise errors.RemoteProtocolError(f"mplex flag {h.flag} on stream {h.id}, expected 0 to 6")
        self.current = None
        self.is_name = False
        self.is_used = True
        self.body_left = <Py_ssize_t> h.length
        if h.flag == NEW_STREAM:
            return self._opened_by_peer(h)
        # An even flag is the opener's: the stream is one of the peer's.
        cdef MplexStream stream = <MplexStream> self.find(h.id << 1 | <uint64_t> (h.flag % 2 == 0))
        return self._nothing_gained() if stream is None else self._for_stream(stream, h)

    cdef int _for_stream(self, MplexStream stream, Header *h) except -1:
        if h.flag >= RESET:
            return self._reset_by_peer(stream)
        if stream.fin_received or (h.flag < CLOSE and h.length == 0):
            return self._nothing_gained()  # nothing may follow a Close
        if h.flag < CLOSE:
            if memory_state(self) == FULL and not stream.is_read() and self.must_shed(<int64_t> h.length):
                return self.shed(stream)
            self.current = stream
        elif stream.error is None:
            stream.receive_fin()
            self._account(stream)
            if stream.fin_sent:
                self.remove(stream)
        return 0

    cdef int _opened_by_peer(self, Header *h) except -1:
        cdef MplexStream stream
        if self.streams is not None and (h.id << 1 | 1) in self.streams:
            raise errors.RemoteProtocolError(f"mplex stream {h.id} opened twice")
        cdef str limit = self.limit_reached(MAX_UNACCEPTED)
        if limit is not None:
            return self._refuse(h.id, limit)
        stream = self._make(h.id, True)
        if h.length == 0:
            return self.arrive(stream)
        self.current = stream
        self.is_name = True
        return 0

    cdef int _refuse(self, uint64_t id, str limit) except -1:
        """Resets one stream too many. A peer that opens very many of them loses the connection."""
        self.refusing(limit)
        self.late += LATE
        return self._control(RESET, id)

    cdef int _reset_by_peer(self, MplexStream stream) except -1:
        self.state.rota.room -= RESET_WORK
        self.count_reset(stream)
        self.remove(stream)
        return stream.fail(errors.StreamReset(0, True), not stream.fin_received)

    cdef int _nothing_gained(self) except -1:
        """A message for an unknown or ended stream, or an empty one: dropped, within limits."""
        if self.late:
            self.late -= 1
        else:
            self.count_useless(
                USELESS_PER_S, "mplex messages for unknown or ended streams, or empty ones, in a second")
        return 0

    cdef int _body(self, uint8_t *data, Py_ssize_t n) except -1:
        """A part of a body, `body_left` already counted down."""
        cdef MplexStream stream = self.current
        cdef bytes label
        if stream is None:
            return 0
        if self.body_left == 0:
            self.current = None
        if not self.is_name:
            if stream.error is None:
                stream.receive(data, n)
                self._account(stream)
            return 0
        label = stream.label or b""
        if len(label) < MAX_LABEL:
            stream.label = label + (<char *> data)[:min(n, MAX_LABEL - len(label))]
        return self.arrive(stream) if self.body_left == 0 else 0

    # -- what nobody reads ---------------------------------------------------------------------

    cdef int _account(self, MplexStream stream) except -1:
        """Counts what `stream` holds: it has changed, or can grow no more."""
        cdef Py_ssize_t size = 0 if stream.queue is None else stream.queue.size
        cdef bint is_full = size >= self.max_stream or (stream.is_full and size > self.max_stream // 2)
        count_held(self, stream)
        if stream.error is not None or (stream.fin_sent and stream.fin_received) or self.error is not None:
            return 0  # what is left of it counts no longer; has_ended() would be a call for each message
        self.buffered += size - stream.held
        stream.held = size
        if stream.fin_received:
            is_full = False
        if is_full != stream.is_full:
            stream.is_full = is_full
            self.num_full += 1 if is_full else -1
        return self._weigh()

    cdef int _weigh(self) except -1:
        """Pauses reading from the connection while too much waits to be read."""
        cdef Py_ssize_t most = self.max_buffered if memory_state(self) < TIGHT else self.max_stream
        cdef bint stalled = self.num_full > 0 or self.buffered >= most or (self.stalled and self.buffered > most // 2)
        if stalled != self.stalled:
            self.stalled = stalled
            self.settle_reading()
            if stalled:
                self.state.timers.watch(self, self.stall)
            else:
                self.state.timers.unwatch(self)
        return 0

    cdef int overdue(self) except -1:
        """Nobody has read in time. The streams that hold most are reset, so that the others go on."""
        cdef MplexStream stream
        while self.stalled and self.error is None:
            stream = self._fullest()
            unread = errors.LimitExceeded("unread bytes of an mplex stream", stream.held, self.max_stream)
            reset = errors.StreamReset(0, False)
            reset.__cause__ = unread
            logger.debug("resetting mplex stream %d: %s", stream.id, unread)
            stream.send_reset(0)
            stream.fail(reset, True)
        return 0

    cdef MplexStream _fullest(self):
        cdef MplexStream stream, fullest = None
        for item in self.streams.values():
            stream = <MplexStream> item
            if fullest is None or stream.held > fullest.held:
                fullest = stream
        return fullest

    # -- sending -------------------------------------------------------------------------------

    cdef int _control(self, int flag, uint64_t id) except -1:
        """A message without a body."""
        if self.is_lost:
            return 0  # what had come before is still handled; nobody hears the answers
        put_header(self.cork.room(varint_size(id << 3) + 1), id, flag, 0)
        return 0

    cdef Py_ssize_t _put_data(self, MplexStream stream, const uint8_t *data, Py_ssize_t n) except -1:
        """Writes at least one of `n` bytes; returns how many. One message never spans two records.

        Small writes that follow one another on a stream become one message: the one still open is made longer.
        """
        cdef Py_ssize_t space = self.cork.space()
        cdef Py_ssize_t front
        if self.growing is stream and space > GROWTH and can_grow(&self.frame, self.cork):
            return self._extend(data, min(n, space - GROWTH))
        front = varint_size(stream.id << 3) + MAX_LENGTH_BYTES
        if space < front + min(n, LEAST_BODY):
            space = self.cork.most
        n = min(n, space - front)
        front = varint_size(stream.id << 3) + varint_size(<uint64_t> n)
        self.frame.at = self.cork.room(front + n)
        put_header(self.frame.at, stream.id, stream.flag(MESSAGE), <uint64_t> n)
        memcpy(self.frame.at + front, data, n)
        self.frame.at += varint_size(stream.id << 3)
        self.growing = stream
        self.frame.body = n
        self.frame.sealed = self.cork.sealed
        has_grown(&self.frame, self.cork)
        return n

    cdef Py_ssize_t _extend(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Makes the open message longer by `n` bytes. There is room for them."""
        cdef int was = varint_size(<uint64_t> self.frame.body)
        cdef int now = varint_size(<uint64_t> (self.frame.body + n))
        self.cork.room(n + now - was)
        if now != was:
            memmove(self.frame.at + now, self.frame.at + was, self.frame.body)
        memcpy(self.frame.at + now + self.frame.body, data, n)
        self.frame.body += n
        varint_write(self.frame.at, <uint64_t> self.frame.body)
        self.frame.end = self.cork.used
        return n

    # -- the session's own ---------------------------------------------------------------------

    cdef MplexStream _make(self, uint64_t id, bint inbound):
        cdef MplexStream stream = MplexStream.__new__(MplexStream)
        stream.state = self.state
        stream.session = self
        stream.id = id
        stream.is_inbound = inbound
        self.enter(stream)
        return stream

    cdef Stream new_stream(self):
        cdef MplexStream stream
        if self.num_outbound >= self.max_outbound:
            self.sweep_at_limit()
            if self.num_outbound >= self.max_outbound:
                return None
        if self.next_id > LAST_ID:
            self.is_spent = True
            self.state.flusher.flush_soon(self)
            raise errors.ConnectionClosed("all stream ids of this mplex session have been used")
        stream = self._make(self.next_id, False)
        self.next_id += 1
        self.num_outbound += 1
        name = b"%d" % stream.id  # as go does; it has no meaning
        at = self.cork.room(varint_size(stream.id << 3) + 1 + len(name))
        at += put_header(at, stream.id, NEW_STREAM, <uint64_t> len(name))
        memcpy(at, <const char *> name, len(name))
        return stream

    cdef int remove(self, Stream ended) except -1:
        cdef MplexStream stream = <MplexStream> ended
        if not self.forget(stream):
            return 0
        if not stream.is_inbound:
            self.num_outbound -= 1
            self.wake_opener()
        if self.is_spent and self.streams is None:
            self.state.flusher.flush_soon(self)
        self.buffered -= stream.held
        stream.held = 0
        self.num_full -= stream.is_full
        stream.is_full = False
        return self._weigh()

    cdef int flush(self) except -1:
        """If no more streams can be opened and the last one has ended, the connection ends too."""
        if self.is_spent and self.streams is None and self.error is None:
            self.fail(errors.ConnectionClosed("all stream ids of this mplex session have been used"))
            self.shut()
        return 0

    cdef int fail(self, object error) except -1:
        if self.error is None:
            Session.fail(self, error)
            self.current = None
        return 0

    cdef object eof_reason(self):
        if self.have or self.body_left:
            return errors.ConnectionClosed("the connection ended inside an mplex message")
        return None

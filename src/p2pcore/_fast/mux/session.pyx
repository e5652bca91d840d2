"""What every muxer's session has in common: the table of streams, inbound delivery, opening, closing.

Comes in: calls of the swarm, and from the muxer: streams the peer opened, and the end. Goes out: streams to a
handler or to accept_stream(), from the event loop and never from feed(). It has no task and no timer of its own.
"""

import logging
import sys
import warnings

cimport cython
from cpython.dict cimport PyDict_Next
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from p2pcore import codes, errors, limits

from p2pcore._fast.chain.bottom cimport Bottom
from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.crypto.secure cimport Cork
from p2pcore._fast.loop.clock cimport coarse
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.loop.ledger cimport FULL, Ledger, Share, count_unread, count_unsent, weigh
from p2pcore._fast.loop.rate cimport spend
from p2pcore._fast.loop.rota cimport Rota
from p2pcore._fast.mux.stream cimport HEARD, SPOKEN, Stream
from p2pcore._fast.loop.waiting cimport PENDING, Op, again, done

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *object)

logger = logging.getLogger("p2pcore.session")

# The longest header of a data frame, of any muxer.
cdef Py_ssize_t HEADER_BYTES = 12
# The go-away code for a peer that broke the protocol, as yamux has it.
cdef uint32_t PROTOCOL_ERROR = 1
cdef uint32_t RESOURCE_LIMIT = codes.STREAM_RESOURCE_LIMIT_EXCEEDED
cdef str MUXER_OPTION = "max_inbound_streams of YamuxOptions or MplexOptions"
cdef double CLOSE_WRITES_S = limits.CLOSE_WRITES_TIMEOUT_S
cdef Py_ssize_t MAX_LINGERING = limits.MAX_LINGERING_STREAMS
cdef Py_ssize_t LINGER_BYTES = limits.LINGER_BYTES
cdef double SWEEP_FULL_S = limits.STREAM_SWEEP_FULL_S
cdef Py_ssize_t SHARE = limits.TURN_SHARE
cdef Py_ssize_t RENEW_BELOW = limits.TURN_WORK // 2
cdef Py_ssize_t START_WORK = limits.START_WORK
cdef Py_ssize_t OPEN_WORK = limits.OPEN_WORK
cdef Py_ssize_t END_WORK = limits.END_WORK
cdef Py_ssize_t ARRIVED_AT_ONCE = limits.ARRIVED_AT_ONCE
cdef int64_t FAIR_TIMES = limits.MEMORY_FAIR_TIMES
cdef int64_t CONN_COST = limits.CONN_COST_BYTES
cdef int64_t STREAM_COST = limits.STREAM_COST_BYTES


@cython.final
cdef class Allowance:
    """How much more than it may a peer may try before its connection ends. Sessions of one muxer share it.

    Args:
        refused_per_s, refused_burst: streams beyond a limit, which are reset one by one.
        resets_per_s, reset_burst: streams it opens, and resets before we have answered.
    """

    def __cinit__(
        self,
        double refused_per_s=limits.REFUSED_STREAMS_PER_S,
        double refused_burst=limits.REFUSED_STREAMS_BURST,
        double resets_per_s=limits.RESET_STREAMS_PER_S,
        double reset_burst=limits.RESET_STREAMS_BURST,
    ):
        self.refused_per_s = refused_per_s
        self.refused_burst = refused_burst
        self.resets_per_s = resets_per_s
        self.reset_burst = reset_burst


_USUAL = Allowance()


@cython.final
cdef class Excess:
    """What only unusual sessions need: calls that wait, what a peer has done beyond the usual, debug mode."""


@cython.final
cdef class Behind:
    """What a connection has received and not handled: it has had its share of the loop's turn."""

    def __cinit__(self):
        self.held = ByteQueue.__new__(ByteQueue)


@cython.final
cdef class Linger(Flushable):
    """A stream closed here on which the peer goes on sending: how much, and for how long it may."""

    cdef int overdue(self) except -1:
        self.stream.reset(0)
        return 0


cdef class Session(Layer):
    """Base of yamux and mplex; see interfaces.MuxedConn for what each call promises."""

    @property
    def num_streams(self):
        """Streams in use here: in the table, and not closed here both ways. None after the end."""
        if self.streams is None or self.error is not None:
            return 0
        return len(self.streams) - (0 if self.lingering is None else len(self.lingering))

    @property
    def num_refused(self):
        """Streams of the peer that were reset because it had too many."""
        return 0 if self.excess is None else self.excess.num_refused

    @property
    def is_closed(self):
        """Whether nothing can be opened any more."""
        return self.error is not None or self.is_lost or (self.excess is not None and self.excess.closing is not None)

    @property
    def can_open(self):
        """Whether new_stream() may still give one: not closed, and not about to be."""
        return not self.is_closed

    @property
    def has_arrived(self):
        """Whether streams of the peer wait to be taken, also after the end."""
        return bool(self.arrived)

    @property
    def close_reason(self):
        """Why the session ended; None while it lives."""
        return self.error

    @property
    def unread(self):
        """Bytes received and not read that the ledger counts, those of streams that have ended too."""
        return self.held + (0 if self.bottom is None else self.bottom.held)

    @property
    def unsent(self):
        """Bytes written and not sent that the ledger counts."""
        return self.waits + (0 if self.bottom is None else self.bottom.waits)

    @property
    def loop(self):
        """The event loop that it belongs to; None before it is on a chain."""
        return None if self.state is None else self.state.loop

    @property
    def bytes_in(self):
        """Bytes that have come from the peer, with what ciphers and frames add; the handshake too. It never falls."""
        return 0 if self.bottom is None else self.bottom.bytes_in

    @property
    def bytes_out(self):
        """Bytes sent to the peer, the same way. Bytes count when they are sent, even if they wait for the socket."""
        return 0 if self.bottom is None else self.bottom.bytes_out

    def account(self, Ledger ledger not None, Share share not None):
        """From now on `ledger` counts what this session uses, first what it uses already. Called once.

        It gives back the connection and its streams when it ends, and the bytes of a stream when they have been
        read or dropped. The caller drops the share then (Ledger.forget). Streams that the peer has opened already, and
        for which it has no room, are reset.

        Args: share: the peer's, of `ledger`.
        """
        cdef Stream stream
        cdef list refused = []
        if self.ledger is not None:
            raise errors.LocalProtocolError("this session has a ledger")
        self.ledger = ledger
        self.share = share
        if self.bottom is not None:
            self.bottom.set_ledger(ledger)
        if self.error is not None:
            return
        ledger.count_conn()
        share.conns += 1
        weigh(ledger, CONN_COST)
        before = share.streams
        for item in self.living():
            stream = <Stream> item
            if stream.is_inbound and (self.lingering is None or stream not in self.lingering):
                limit = ledger.limit_reached(share.streams - before, share)
                if limit is not None:
                    self._count_refused(limit)
                    refused.append(stream)
                share.streams += 1
            ledger.count_streams(share, 1)
            count_held(self, stream)
            self.count_waits(stream.num_waiting())
        if self._is_behind() is not None:
            self._count_behind(self.excess.behind, self.excess.behind.held.size)
        for item in refused:
            item.reset(RESOURCE_LIMIT)

    def recount(self, streams):
        """Counts anew what the ledger counts of this session. `streams`: all that live, whatever their session."""
        cdef Bottom bottom = self.bottom
        mine = [each for each in streams if isinstance(each, Stream) and (<Stream> each).is_of(self)]
        alive = self.error is None
        return {
            "num_conns": int(alive),
            "num_streams": len(self.living()) if alive else 0,
            "unread": (0 if bottom is None else bottom.held) + sum(each.num_held for each in mine) + self.num_behind,
            "unsent": (0 if bottom is None else bottom.waits) + sum((<Stream> each).num_waiting() for each in mine),
        }

    @property
    def num_behind(self):
        """Bytes received and not handled, because the connection has had its share of the loop's turn."""
        return 0 if self._is_behind() is None else self.excess.behind.held.size

    def open_stream(self):
        """A new outbound stream; waits while too many are unacknowledged.

        Raises: ConnectionClosed, GoAway when no more can be opened.
        """
        self._seated()
        cdef _OpenOp op = _OpenOp.__new__(_OpenOp)
        op.state = self.state
        op.session = self
        return op

    def accept_stream(self):
        """The next stream the peer opens, while no handler is set. Raises ConnectionClosed."""
        self._seated()
        cdef _AcceptOp op = _AcceptOp.__new__(_AcceptOp)
        op.state = self.state
        op.session = self
        return op

    def set_stream_handler(self, handler):
        """Inbound streams go to `handler(stream)`, first those that wait already. None: to accept_stream.

        Set before add_close_callback, it gets also those that wait in a session that has ended, and before the callback.
        """
        self.handler = handler
        if handler is not None and self.arrived:
            self._line_up()

    def add_close_callback(self, callback):
        """`callback(error)` runs once, from the event loop, when the session has ended."""
        if self.is_told:
            self.state.loop.call_soon(callback, self.error)
        elif self.callbacks is None:
            self.callbacks = callback  # most sessions have one: a list takes 88 bytes more
        elif isinstance(self.callbacks, list):
            (<list> self.callbacks).append(callback)
        else:
            self.callbacks = [self.callbacks, callback]

    def close(self, uint32_t code=0):
        """Ends in order: what was written, the ends of streams, a go-away, FIN, a short drain. Idempotent.

        Writes that wait, for the peer's window or the socket, go on for CLOSE_WRITES_TIMEOUT_S at most. Then, or at
        once if none waits, all streams fail.

        Returns: an awaitable that is done when the socket is closed.
        """
        self._seated()
        cdef Excess excess
        if not self.is_closed:
            if self.num_writing:
                excess = self._excess()
                excess.closing = _Closing.__new__(_Closing)
                excess.closing.session = self
                excess.closing.code = code
                self.state.timers.watch(excess.closing, CLOSE_WRITES_S)
                _wake_all(excess.openers)
            else:
                self._close_now(code)
        if self.is_lost:
            return done
        cdef _CloseOp op = _CloseOp.__new__(_CloseOp)
        op.state = self.state
        op.session = self
        return op

    def abort(self, uint32_t code=0, error=None):
        """Ends at once: sends a go-away if the socket takes it now, then closes. Idempotent.

        `error`: what its streams fail with; None: a GoAway of ours.
        """
        self._seated()
        if self.error is None:
            self.send_go_away(code)
            self.fail(errors.GoAway(code, False) if error is None else error)
        if self.below is not None:
            self.cork.flush()
            self.drop(self.error)

    def reset_streams(self, uint32_t code=0):
        """Resets every stream: what has arrived and nobody has read is dropped, which abort() alone leaves."""
        for stream in self.living():
            stream.reset(code)

    cdef int _close_now(self, uint32_t code) except -1:
        for stream in self.living():
            (<Stream> stream).last_chance()
        self.send_go_away(code)
        self.fail(errors.GoAway(code, False))
        return self.shut()

    # -- for the muxer -------------------------------------------------------------------------

    cdef int writes_done(self) except -1:
        """A stream has no write left that waits."""
        self.num_writing -= 1
        if not self.num_writing and self.excess is not None and self.excess.closing is not None:
            self.state.flusher.flush_soon(self.excess.closing)
        return 0

    cdef bint must_shed(self, int64_t more) except -1:
        """Whether `more` bytes for the peer end the stream, because has_too_much(). The refusal is counted."""
        if not self.has_too_much(more):
            return False
        self._count_refused("memory")
        return True

    cdef bint has_too_much(self, int64_t more) noexcept:
        """Whether memory is full, and the peer has more than its part with `more` bytes.

        That is more than four equal parts of the budget, or than one where all of it is used.
        """
        cdef Ledger ledger = self.ledger
        cdef int64_t part
        if ledger is None or ledger.state < FULL:
            return False
        part = ledger.budget // max(1, len(ledger.shares)) * (1 if ledger.used + more > ledger.budget else FAIR_TIMES)
        return self.share.held + more > part

    cdef int shed(self, Stream stream) except -1:
        """Ends `stream`, because must_shed()."""
        reset = errors.StreamReset(RESOURCE_LIMIT, False)
        reset.__cause__ = errors.LimitExceeded("memory", self.ledger.used, self.ledger.budget)
        logger.debug("resetting stream %d: %s", stream.id, reset.__cause__)
        stream.send_reset(RESOURCE_LIMIT)
        return stream.fail(reset, True)

    cdef int count_waits(self, Py_ssize_t by) except -1:
        """`by` bytes more of writes wait."""
        if self.ledger is not None and by:
            self.waits += by
            count_unsent(self.ledger, self.share, by)
        return 0

    cdef int arrive(self, Stream stream) except -1:
        """The peer opened `stream`, or has spoken on it after it was set aside. It is delivered from the event loop."""
        if self.arrived is None:
            self.arrived = []
        self.arrived.append(stream)
        self.state.rota.room -= OPEN_WORK
        return self._line_up()

    cdef str limit_reached(self, Py_ssize_t max_unaccepted):
        """The limit that one more stream of the peer would exceed; None: there is room."""
        cdef str limit = self._limit_now()
        if limit is not None:
            self.sweep_at_limit()
            limit = self._limit_now()
        if limit is None and self.handler is None:
            if self.arrived is not None and len(self.arrived) >= max_unaccepted:
                return "max_unaccepted_streams"
        return limit

    cdef str _limit_now(self):
        if self.num_inbound >= self.max_inbound:
            return "max_inbound_streams"
        return None if self.ledger is None else self.ledger.limit_reached(self.num_inbound, self.share)

    cdef int enter(self, Stream stream) except -1:
        """A new stream, ours or the peer's, takes its place in the table."""
        if self.streams is None:
            self.streams = {}
            if not self.is_swept:
                self.is_swept = True
                self.state.sweeper.add(self)
        self.streams[stream.key()] = stream
        if stream.is_inbound:
            self.num_inbound += 1
            self.num_streams_in += 1
        else:
            self.num_streams_out += 1
        if self.ledger is not None:
            if stream.is_inbound:
                self.share.streams += 1
            self.ledger.count_streams(self.share, 1)
        return 0

    cdef int linger(self, Stream stream) except -1:
        """`stream` is closed here both ways, and waits for the peer's end: its place is free for another one.

        It stays in the table, so that what the peer still sends is known for what it is.
        """
        if self.error is not None:
            return 0
        self.active_at = coarse()
        if self.lingering is None:
            self.lingering = {}
        self.lingering[stream] = None
        if stream.is_inbound:
            self._inbound_left()
        if len(self.lingering) > MAX_LINGERING:
            # Those opened here are bounded by how many may be open, and the peer may still have to read them.
            for item in self.lingering:
                if (<Stream> item).is_inbound:
                    item.reset(0)
                    break
        return 0

    cdef bint drops(self, Stream stream, Py_ssize_t n) except -1:
        """`n` bytes came for a stream closed here both ways. False: too many, it has been reset.

        They are dropped for a while, so that a peer that sends all before it reads gets to read our answer. go and js
        throw away what they have not read when a reset comes.
        """
        cdef Linger linger
        cdef Excess excess
        if self.error is not None or stream.has_ended():
            return False
        excess = self._excess()
        if excess.lingers is None:
            excess.lingers = {}
        linger = excess.lingers.get(stream)
        if linger is None:
            linger = Linger.__new__(Linger)
            linger.stream = stream
            excess.lingers[stream] = linger
            self.state.timers.watch(linger, limits.LINGER_S)
        linger.dropped += n
        if linger.dropped > LINGER_BYTES:
            stream.reset(0)
            return False
        return True

    cdef int refusing(self, str limit) except -1:
        """A stream is about to be reset unseen because of `limit`; None: because nothing new begins.

        Raises LimitExceeded: far too many were.
        """
        cdef Excess excess = self._excess()
        if limit is not None:
            excess.num_refused += 1
            self._count_refused(limit)
        return spend(&excess.refusals, self.allowance.refused_per_s, self.allowance.refused_burst, "streams refused")

    cdef int _count_refused(self, str limit) except -1:
        who = "a connection" if self.owner is None else self.owner.id
        if self.ledger is None:
            return 0
        if limit == "max_inbound_streams":
            self.ledger.refuse(limit, who, self.num_inbound, self.max_inbound, MUXER_OPTION)
        elif limit == "max_unaccepted_streams":
            self.ledger.refuse(limit, who, len(self.arrived), len(self.arrived), "streams nobody has accepted")
        else:
            self.ledger.refuse_stream(limit, who, self.num_inbound, self.share)
        return 0

    cdef int count_reset(self, Stream stream) except -1:
        """The peer resets `stream`. Raises LimitExceeded: too many of its own that we have begun to serve."""
        if not stream.is_inbound or stream.fin_sent:
            return 0
        return spend(&self._excess().resets, self.allowance.resets_per_s, self.allowance.reset_burst,
                     "streams opened and reset")

    cdef int count_useless(self, double per_s, str what) except -1:
        """A frame brings nothing. Raises LimitExceeded: too many in a second."""
        return spend(&self._excess().useless, per_s, per_s, what)

    cdef Excess _excess(self):
        if self.excess is None:
            self.excess = Excess.__new__(Excess)
        return self.excess

    cdef double retry_at(self) except -2:
        """The monotonic second at which an open that waits may try again; 0: it is woken."""
        return 0

    # -- streams nobody holds ------------------------------------------------------------------

    cdef int sweep(self) except -1:
        """Finds the streams that only the table refers to: nobody will ever close them, so this does."""
        cdef Py_ssize_t refs, at = 0
        cdef PyObject *found = NULL
        cdef list dropped = None
        if self.streams is None:
            self.is_swept = False
            return self.state.sweeper.discard(self)
        self.growing = None
        while PyDict_Next(self.streams, &at, NULL, &found):
            refs = Py_REFCNT(found)
            if refs <= 2 and (<Stream> found).is_dropped(refs):
                if dropped is None:
                    dropped = []
                dropped.append(<object> found)
        for item in dropped or ():
            self._drop(<Stream> item)
        return 0

    cdef int sweep_at_limit(self) except -1:
        """As sweep(), where a place is wanted: each SWEEP_FULL_S at most, and once more after the last wish."""
        cdef Excess excess = self._excess()
        if not excess.sweep_is_due:
            excess.sweep_is_due = True
            self.state.loop.call_later(SWEEP_FULL_S, self._sweep_again)
            self.sweep()
        return 0

    def _sweep_again(self):
        cdef Excess excess = self.excess
        excess.sweep_is_due = False
        if self.error is None:
            if excess.openers:
                self.sweep_at_limit()
            else:
                self.sweep()

    cdef int _drop(self, Stream stream) except -1:
        """The program has dropped `stream` without closing it."""
        place = None
        if self.excess is not None and self.excess.places is not None:
            place = self.excess.places.pop(stream.key(), None)
        if stream.fin_sent or stream.fin_due:
            stream.close_read()  # all was said: a reset could take it from a peer that has not read it yet
            return 0
        logger.debug("stream %d was dropped without being closed", stream.id)
        stream.reset(0)
        if place is not None:
            warnings.warn(f"unclosed stream {stream.id} of {stream.protocol}, {place}", ResourceWarning, source=stream)
        return 0

    cdef int violated(self, object error) except -1:
        """The peer broke the protocol or a limit: it is told, where the muxer can, and the connection closes."""
        if self.owner is None:
            logger.debug("closing a session: %s", error)
        else:
            extra = {"conn": self.owner.id, "peer": str(self.owner.remote_peer)}
            logger.debug("%s: closing it: %s", self.owner.id, error, extra=extra)
        self.send_go_away(PROTOCOL_ERROR)
        self.fail(error)
        return self.shut()

    cdef int fail(self, object error) except -1:
        """From now on streams, opens and accepts fail with `error`. Says nothing to the peer.

        What has arrived stays: streams are still delivered, and give what came before the end. If memory is full and the
        peer has more than its part, it is dropped: connections are closed to get it back.

        A share of the streams fails now, and the rest in later turns: others have theirs meanwhile.
        """
        if self.error is not None:
            return 0
        self.is_discarded = self.has_too_much(0)
        self.error = error
        self.paused = True  # no write of a stream that has not failed yet goes on
        self._give_back()
        self.latest = NULL
        self.lingering = None
        if self.excess is not None:
            self._excess_ended()
        if self.is_swept:
            self.is_swept = False
            self.state.sweeper.discard(self)
        self.growing = None
        self.state.timers.unwatch(self)
        self._fail_some(self.state.rota.room - SHARE)
        return self._line_up()

    cdef int _fail_some(self, Py_ssize_t least) except -1:
        """The session has ended, and a share of its streams learns of it."""
        while self.streams and self.state.rota.room > least:
            _, stream = self.streams.popitem()
            self._fail_one(<Stream> stream)
        if not self.streams:
            self.streams = None
        return 0

    cdef int _fail_one(self, Stream stream) except -1:
        self.state.rota.room -= END_WORK
        stream.fail(self.error, self.is_discarded)
        return self._count_ended(stream)

    cdef int _count_ended(self, Stream stream) except -1:
        """`stream` has left the table. The ledger remembers it as long as it holds more than streams cost anyway."""
        stream.left()
        if stream.counted > STREAM_COST:
            self.ledger.ended.add(stream)
        return 0

    cdef int _give_back(self) except -1:
        """The session ends: the ledger counts it and its streams no more, only bytes that can still be read."""
        if self.ledger is not None:
            self.share.conns -= 1
            self.share.streams -= self.num_inbound
            self.ledger.num_conns -= 1
            self.ledger.count_streams(self.share, -len(self.living()))
            weigh(self.ledger, -CONN_COST)
        self.num_inbound = 0
        return 0

    cdef int _inbound_left(self) except -1:
        """The peer has one stream less in use."""
        self.num_inbound -= 1
        if self.ledger is not None:
            self.share.streams -= 1
        return 0

    cdef int _excess_ended(self) except -1:
        cdef Excess excess = self.excess
        if excess.closing is not None:
            self.state.timers.unwatch(excess.closing)
        for linger in (excess.lingers or {}).values():
            self.state.timers.unwatch(<Linger> linger)
        excess.lingers = None
        excess.places = None
        if excess.behind is not None:
            self._count_behind(excess.behind, 0)
            excess.behind = None
        excess.waiting = None
        _wake_all(excess.openers)
        _wake_all(excess.acceptors)
        return 0

    cdef int wake_opener(self) except -1:
        """One more stream may be opened."""
        if self.excess is not None and self.excess.openers:
            (<Op> self.excess.openers[0]).wake()
        return 0

    cdef list living(self):
        """The streams that have not ended both ways."""
        return [] if self.streams is None else list(self.streams.values())

    cdef Stream find(self, uint64_t key):
        """The stream a frame is for, or None. Frames of one stream often come in a row: only the first is looked up."""
        if self.latest is not NULL and (<Stream> self.latest).key() == key:
            return <Stream> self.latest
        found = None if self.streams is None else self.streams.get(key)
        if found is not None:
            self.latest = <PyObject *> found
        return <Stream> found

    cdef bint forget(self, Stream stream) except -1:
        """Takes `stream` out of the tables; False if it was not there. An empty table is given up.

        Another stream may have its number by now: that one stays.
        """
        key = stream.key()
        if self.streams is None or self.streams.get(key) is not stream:
            return False
        if self.latest is <PyObject *> stream:
            self.latest = NULL
        del self.streams[key]
        self.active_at = coarse()
        if not self.streams:
            self.streams = None
        if self.growing is stream:
            self.growing = None
        if self.excess is not None:
            self._forget_excess(stream, key)
        if self.lingering is not None and stream in self.lingering:
            del self.lingering[stream]
            if not self.lingering:
                self.lingering = None
        elif stream.is_inbound:
            self._inbound_left()
        if self.ledger is not None:
            self.ledger.count_streams(self.share, -1)
        self._count_ended(stream)
        return True

    cdef int _forget_excess(self, Stream stream, object key) except -1:
        cdef Excess excess = self.excess
        if excess.waiting is not None:
            excess.waiting.pop(stream, None)
        if excess.places is not None:
            excess.places.pop(key, None)
        if excess.lingers is not None:
            linger = excess.lingers.pop(stream, None)
            if linger is not None:
                self.state.timers.unwatch(<Linger> linger)
            if not excess.lingers:
                excess.lingers = None
        return 0

    cdef int waiting_add(self, Stream stream) except -1:
        """`stream` has writes that go on when the socket takes bytes again."""
        cdef Excess excess = self._excess()
        if excess.waiting is None:
            excess.waiting = {}
        excess.waiting[stream] = None
        return 0

    # -- for the muxer to override -------------------------------------------------------------

    cdef Py_ssize_t parse(self, uint8_t *data, Py_ssize_t n, Py_ssize_t least) except -1:
        """Received bytes, cut anywhere; each frame takes from the rota's room what it costs.

        Returns: the bytes handled: all, unless the room is down to `least`. Raises RemoteProtocolError, LimitExceeded.
        """
        raise NotImplementedError

    cdef bint is_stalled(self) noexcept:
        """Whether the muxer itself wants nothing read for now; see settle_reading()."""
        return False

    cdef int remove(self, Stream stream) except -1:
        """The stream has ended both ways."""
        self.forget(stream)
        return 0

    cdef Stream new_stream(self):
        """An outbound stream, or None while too many are unacknowledged. Raises ConnectionClosed."""
        raise NotImplementedError

    cdef int accepted(self, Stream stream) except -1:
        """The application is about to get this inbound stream."""
        return 0

    cdef int send_go_away(self, uint32_t code) except -1:
        """Tells the peer that the session ends."""
        return 0

    cdef int unpaused(self) except -1:
        """The socket takes bytes again. Each waiting stream sends one frame in turn, so that none takes it all."""
        cdef Stream stream
        cdef Excess excess = self.excess
        while excess is not None and excess.waiting and not self.paused:
            stream = <Stream> next(iter(excess.waiting))
            del excess.waiting[stream]
            stream.pump(self.cork.most - HEADER_BYTES)
            if stream.writers and stream.may_push() and excess.waiting is not None:
                excess.waiting[stream] = None
        return 0

    # -- the chain -----------------------------------------------------------------------------

    cdef int seat(self, Layer below) except -1:
        if not isinstance(below, Cork):
            raise errors.LocalProtocolError("a muxer's session sits on a record layer (NoiseChannel, PlainChannel)")
        cdef Layer bottom = below
        while bottom.below is not None:
            bottom = bottom.below
        self.bottom = <Bottom> bottom if isinstance(bottom, Bottom) else None
        self.cork = <Cork> below
        Layer.seat(self, below)
        # pause() may have come before: the mailbox that this replaces ignores it.
        self.paused = below.is_paused()
        return 0

    cdef bint is_top(self) noexcept:
        return True

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1:
        cdef Py_ssize_t used
        if self.error is not None:
            return 0
        if self.excess is not None or self.arrived is not None or self.state.rota.room <= 0:
            if self._must_wait():
                return self._keep(data, n)
        try:
            used = self.parse(data, n, 0)
            if used < n and self.error is None:
                self._keep(data + used, n - used)
        except (errors.RemoteProtocolError, errors.LimitExceeded) as error:
            self.violated(error)
        if self.is_used:
            self.is_used = False
            self.active_at = coarse()
        if self.state.rota.room < RENEW_BELOW:
            self.state.rota.renew_soon()
        return 0

    cdef bint _must_wait(self) noexcept:
        """Whether what comes now waits for this connection's turn."""
        if self.state.rota.room <= 0 or (self.excess is not None and self.excess.behind is not None):
            return True
        # Handlers start first: of streams that the peer ends at once, there are never more than these.
        return self.arrived is not None and len(self.arrived) >= ARRIVED_AT_ONCE and self.handler is not None

    cdef int pause(self) except -1:
        self.paused = True
        return 0

    cdef int resume(self) except -1:
        if self.error is None:
            self.paused = False
            self.unpaused()
        return 0

    cdef int feed_eof(self) except -1:
        cdef Behind behind = self._end_waits()
        if behind is not None:
            behind.eof = True
            return 0
        self.fail(self.eof_reason() or errors.ConnectionClosed("the peer closed the connection"))
        return self.shut()

    cdef object eof_reason(self):
        """A better reason than the end of input itself, or None."""
        return None

    cdef int lost(self, object error) except -1:
        cdef Behind behind = self._end_waits()
        if behind is None:
            self.fail(error)
        else:
            behind.lost = error
            self.paused = True  # nothing can be sent while the rest is handled
        if self.is_timed:
            self.is_timed = False
            self.state.unfinished.discard(self)
        self.is_lost = True
        self.cork = None
        self.below = self.above = None
        if self.excess is not None:
            _wake_all(self.excess.closers)  # each leaves the list itself: it may be cancelled before it runs
        return 0

    # -- inside --------------------------------------------------------------------------------

    cdef int _seated(self) except -1:
        """Raises LocalProtocolError before the session has its place on a chain."""
        if self.state is None:
            raise errors.LocalProtocolError("this session is on no chain")
        return 0

    # -- its turn ------------------------------------------------------------------------------

    cdef int _line_up(self) except -1:
        if not self.is_lined_up:
            self.is_lined_up = True
            self.state.rota.line_up(self)
        return 0

    cdef int go_on(self) except -1:
        """Starts handlers, then handles what was received. The end is told when all that came before it is done."""
        cdef Py_ssize_t least = self.state.rota.least()
        self.is_lined_up = False
        if self.error is not None and self.streams is not None:
            self._fail_some(least)
            if self.streams is not None:
                return self._line_up()
        if self.excess is not None and self.excess.patient:
            self._call_patient(least)
        if self.handler is not None and self.arrived:
            self._start_arrived(least)
        if self._is_behind() is not None and (self.handler is None or not self.arrived):
            self._catch_up(least)
        if self.handler is None:
            acceptors = None if self.excess is None else self.excess.acceptors
            for op in (acceptors or ())[: len(self.arrived or ())]:
                (<Op> op).wake()
        elif self.arrived:
            return self._line_up()
        if self.error is not None:
            return self._tell_ended()
        if self._is_behind() is not None or (self.excess is not None and self.excess.patient):
            self._line_up()
        return 0

    cdef int _start_arrived(self, Py_ssize_t least) except -1:
        """Hands arrived streams to the handler."""
        cdef Rota rota = self.state.rota
        handler = self.handler
        self.state.flusher.is_held = True  # the peer hears that a stream is accepted together with the first answer
        try:
            while self.arrived and rota.room > least:
                item = self.arrived.pop(0)
                rota.room -= 1
                if self._is_due(<Stream> item):
                    rota.room -= START_WORK
                    try:
                        handler(item)
                    except Exception:
                        logger.exception("a stream handler failed")
                        item.reset()
        finally:
            self.state.flusher.release()
        if not self.arrived:
            self.arrived = None
        return 0

    cdef int _tell_ended(self) except -1:
        callbacks = self.callbacks
        self.callbacks = None
        self.is_told = True
        self.handler = None
        if callbacks is None:
            return 0
        for callback in callbacks if isinstance(callbacks, list) else (callbacks,):
            try:
                callback(self.error)
            except Exception:
                logger.exception("a close callback failed")
        return 0

    # -- received, and not handled yet ---------------------------------------------------------

    cdef Behind _is_behind(self):
        """What waits to be handled; None: nothing."""
        return None if self.excess is None else self.excess.behind

    cdef int _keep(self, const uint8_t *data, Py_ssize_t n) except -1:
        """`data` waits for this connection's turn, and nothing more is read meanwhile: one receive buffer at most."""
        cdef Excess excess = self._excess()
        if excess.behind is None:
            excess.behind = Behind.__new__(Behind)
            self.settle_reading()
        excess.behind.held.push(data, n)
        self._count_behind(excess.behind, excess.behind.held.size)
        return self._line_up()

    cdef Behind _end_waits(self):
        """What the peer's end waits behind; None: it counts now.

        Besides what is not handled yet that is the connection's turn: many streams may end with it.
        """
        if self.streams is not None and self.state.rota.room <= 0 and self._is_behind() is None:
            self._excess().behind = Behind.__new__(Behind)
            self._line_up()
        return self._is_behind()

    cdef int settle_reading(self) except -1:
        """Reads from the connection, or does not."""
        return self.throttle(self.is_stalled() or self._is_behind() is not None)

    cdef int _catch_up(self, Py_ssize_t least) except -1:
        """Handles a share of what was kept."""
        cdef Behind behind = self.excess.behind
        cdef const uint8_t *at
        cdef Py_ssize_t n
        try:
            while behind.held.size and self.error is None and self.state.rota.room > least:
                at = behind.held.front(&n)
                behind.held.skip(self.parse(<uint8_t *> at, n, least))
        except (errors.RemoteProtocolError, errors.LimitExceeded) as error:
            self.violated(error)
        except Exception as error:
            logger.exception("handling what was received failed")
            self.drop(error)
        if self.is_used:
            self.is_used = False
            self.active_at = coarse()
        if self.error is None:
            self._count_behind(behind, behind.held.size)
            if behind.held.size == 0:
                self.excess.behind = None
                self._caught_up(behind)
        return 0

    cdef int _count_behind(self, Behind behind, Py_ssize_t size) except -1:
        """The ledger counts `size` bytes of what waits from now on."""
        if self.ledger is not None:
            self.held += size - behind.counted
            count_unread(self.ledger, self.share, size - behind.counted)
            behind.counted = size
        return 0

    cdef int _caught_up(self, Behind behind) except -1:
        """All that was received is handled. Now the end that came behind it counts, or more is read."""
        if behind.lost is not None:
            return self.fail(behind.lost)
        if behind.eof:
            return self.feed_eof()
        return self.settle_reading()

    # -- calls that let others go first --------------------------------------------------------

    cdef Op turn(self, Py_ssize_t work):
        """An awaitable that is done when it is this connection's turn, after the others have had theirs."""
        cdef _TurnOp op = _TurnOp.__new__(_TurnOp)
        op.state = self.state
        op.session = self
        op.work = work
        return op

    cdef int _call_patient(self, Py_ssize_t least) except -1:
        """Lets some calls go on that have waited for this turn, for half of the share."""
        cdef _TurnOp op
        cdef list patient = self.excess.patient
        while patient and (self.state.rota.room > least + SHARE // 2 or self.error is not None):
            op = <_TurnOp> patient.pop(0)
            op.is_listed = False
            op.is_called = True
            self.state.rota.room -= op.work
            op.wake()
        return 0

    cdef bint _is_due(self, Stream stream) except -1:
        """Whether `stream` is handed out now. If the session lives, the peer is told; else its bytes must be worth it."""
        if stream.silence == HEARD:
            stream.silence = SPOKEN
            return True  # for the second time, and whatever came of it: somebody counts it
        if self.error is None:
            return not stream.has_ended() and self.accepted(stream) == 0
        if self.streams is not None and self.streams.pop(stream.key(), None) is not None:
            self._fail_one(stream)
        return stream.error is self.error and (stream.fin_received or stream.has_bytes())


@cython.final
cdef class _Closing(Flushable):
    """A session that ends when the writes that wait are done, or their time is over."""

    cdef int flush(self) except -1:
        return self.overdue() if not self.session.num_writing else 0

    cdef int overdue(self) except -1:
        return self.session._close_now(self.code) if self.session.error is None else 0


cdef str _place():
    """Where the program is, outside this package."""
    frame = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("p2pcore", "asyncio"):
        frame = frame.f_back
    return "opened somewhere" if frame is None else f"opened at {frame.f_code.co_filename}:{frame.f_lineno}"


cdef int _wake_all(list ops) except -1:
    if ops:
        for op in ops:
            (<Op> op).wake()
    return 0


cdef class _SessionOp(Op):
    """A call that waits in one of the session's lists."""

    cdef Session session
    cdef bint is_listed

    cdef list queue(self):
        raise NotImplementedError

    cdef int suspended(self) except -1:
        if not self.is_listed:
            self.is_listed = True
            self.queue().append(self)
        return 0

    cdef int cancelled(self) except -1:
        return self.unlist()

    cdef int unlist(self) except -1:
        if self.is_listed:
            self.is_listed = False
            self.queue().remove(self)
        return 0

    def close(self):
        """Cancelled. If this one was woken for something, the next one takes it."""
        Op.close(self)
        self.pass_on()

    cdef int pass_on(self) except -1:
        return 0


@cython.final
cdef class _OpenOp(_SessionOp):

    cdef list queue(self):
        cdef Excess excess = self.session._excess()
        if excess.openers is None:
            excess.openers = []
        return excess.openers

    cdef object attempt(self):
        cdef Session session = self.session
        cdef Stream stream
        cdef Excess excess
        if session.error is not None:
            self.unlist()
            raise again(session.error)
        if session.is_lost:
            self.unlist()
            raise errors.ConnectionClosed("the connection is closed")
        if session.excess is not None and session.excess.closing is not None:
            self.unlist()
            raise errors.GoAway(session.excess.closing.code, False)
        try:
            stream = session.new_stream()
        except BaseException:
            self.unlist()
            raise
        if stream is None:
            return PENDING  # in the place it had
        self.unlist()
        session.wake_opener()
        if session.state.is_debug:
            excess = session._excess()
            if excess.places is None:
                excess.places = {}
            excess.places[stream.key()] = _place()
        return stream

    cdef double deadline(self) except -2:
        return self.session.retry_at()

    cdef int pass_on(self) except -1:
        return self.session.wake_opener()


@cython.final
cdef class _AcceptOp(_SessionOp):

    cdef list queue(self):
        cdef Excess excess = self.session._excess()
        if excess.acceptors is None:
            excess.acceptors = []
        return excess.acceptors

    cdef object attempt(self):
        cdef Session session = self.session
        cdef Stream stream
        self.unlist()
        while session.arrived:
            stream = <Stream> session.arrived.pop(0)
            if session._is_due(stream):
                return stream
        if session.error is not None:
            raise again(session.error)
        return PENDING

    cdef int pass_on(self) except -1:
        return self.session._line_up() if self.session.arrived else 0


@cython.final
cdef class _CloseOp(_SessionOp):

    cdef list queue(self):
        cdef Excess excess = self.session._excess()
        if excess.closers is None:
            excess.closers = []
        return excess.closers

    cdef object attempt(self):
        if not self.session.is_lost:
            return PENDING
        self.unlist()
        return None


@cython.final
cdef class _TurnOp(_SessionOp):

    cdef Py_ssize_t work            # what it will do then
    cdef bint is_called

    cdef list queue(self):
        if self.session._excess().patient is None:
            self.session.excess.patient = []
        return self.session.excess.patient

    cdef int suspended(self) except -1:
        _SessionOp.suspended(self)
        return self.session._line_up()

    cdef object attempt(self):
        return None if self.is_called or self.session.error is not None else PENDING

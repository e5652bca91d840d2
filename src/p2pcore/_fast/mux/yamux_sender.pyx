"""Yamux, what goes out: data as far as windows go, credit that grows with the path, control frames.

Comes in: calls of streams and of the session. Goes out: frames into the record layer's cork, one never
across two records. Never reads a frame: that is yamux.pyx. Spec: libp2p/specs yamux; limits: limits.YAMUX_*.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from p2pcore import errors, limits

from p2pcore._fast.loop.loop_state cimport monotonic
from p2pcore._fast.mux.session cimport Session
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
    pack_header,
    put_u32,
)

cdef uint32_t INITIAL_WINDOW = limits.YAMUX_INITIAL_WINDOW_BYTES
cdef double RTT_INTERVAL_S = limits.YAMUX_RTT_INTERVAL_S
cdef int MAX_PINGS = limits.YAMUX_MAX_PINGS

# A new frame is begun in the room left of a record only if this much body fits; else it gets a record of its own.
cdef Py_ssize_t LEAST_BODY = 256

# What has been read is granted anew in steps of at most this: 12 bytes of frame for 512 KiB of credit.
cdef Py_ssize_t GRANT_BYTES = 512 * 1024


@cython.final
cdef class YamuxStream(Stream):
    """A stream of a YamuxSession; see interfaces.Stream."""

    @property
    def conn(self):
        """The connection it belongs to, as the swarm gives it out; None without one."""
        return None if self.session is None else self.session.owner

    @property
    def windows(self):
        """(bytes we may send, bytes the peer may send, what the latter is filled up to)."""
        return self.send_window, self.receive_window, self.max_window

    cdef Py_ssize_t push(self, const uint8_t* data, Py_ssize_t n) except -1:
        cdef YamuxSender session = self.session
        cdef Py_ssize_t k, total = 0
        while total < n and self.send_window and not session.paused and session.error is None:
            k = session._put_data(self, data + total, min(n - total, <Py_ssize_t> self.send_window))
            self.send_window -= <uint32_t> k
            total += k
        return total

    cdef int send_fin(self) except -1:
        cdef YamuxSender session = self.session
        if session.error is None:
            # Never on a frame with a body: js-libp2p acts on FIN before the body, and then drops the body
            # (@libp2p/yamux 8.0.3, YamuxStream.handleData).
            session._control(WINDOW_UPDATE, FIN, self.id, 0)
            if self.fin_received:
                session.remove(self)
        return 0

    cdef int send_reset(self, uint32_t code) except -1:
        cdef YamuxSender session = self.session
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
        if not self.fin_sent and not self.fin_due:
            return self.session._grant(self, 0)
        # Both halves are closed here. What is under way is dropped without a word, as go does; a peer that
        # goes on is told, lest it fill the window and then wait for ever.
        if self.receive_window < self.max_window // 2 and not self.has_ended():
            self.send_reset(0)
            self.fail(errors.StreamReset(0, False), True)
        return 0

    cdef int write_waits(self) except -1:
        return self.session.waiting_add(self) if self.session.paused else 0

    cdef bint may_push(self) noexcept:
        return self.send_window != 0


cdef class YamuxSender(Session):
    """The sending half of YamuxSession, which is the only class to build on it."""

    cdef int _control(self, uint8_t kind, uint32_t flags, uint32_t id, uint32_t length) except -1:
        pack_header(self.cork.room(HEADER_BYTES), kind, flags, id, length)
        return 0

    cdef bint _can_extend(self) except -1:
        """Whether the last data frame is still the last thing in an open record."""
        return self.open_mark == self.cork.sealed and self.open_end == self.cork.used

    cdef Py_ssize_t _put_data(self, YamuxStream stream, const uint8_t* data, Py_ssize_t n) except -1:
        """Writes at least one of `n` bytes as data; returns how many. One frame never spans two records.

        Small writes that follow one another on a stream become one frame: the frame still open is
        made longer.
        """
        cdef Py_ssize_t space = self.cork.space()
        if self.open_stream_ is stream and space > 0 and self._can_extend():
            n = min(n, space)
            memcpy(self.cork.room(n), data, n)
            self.open_body += <uint32_t> n
            put_u32(self.open_at + 8, self.open_body)
        else:
            if space < HEADER_BYTES + min(n, LEAST_BODY):
                space = self.cork.most
            n = min(n, space - HEADER_BYTES)
            self.open_at = self.cork.room(HEADER_BYTES + n)
            pack_header(self.open_at, DATA, 0, stream.id, <uint32_t> n)
            memcpy(self.open_at + HEADER_BYTES, data, n)
            self.open_stream_ = stream
            self.open_body = <uint32_t> n
            self.open_mark = self.cork.sealed
        self.open_end = self.cork.used
        if self.cork.space() == 0:
            self.cork.seal()
        return n

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

        Enough is half a window, as go and rust have it, but at most GRANT_BYTES: over a long path the
        peer would otherwise stand still while half of a large window is on its way here.
        """
        cdef Py_ssize_t buffered = 0 if stream.queue is None else stream.queue.size
        cdef Py_ssize_t usable = stream.receive_window + buffered
        cdef Py_ssize_t missing = <Py_ssize_t> stream.max_window - usable
        if self.error is not None or stream.error is not None or stream.fin_received:
            return 0
        if missing < min(<Py_ssize_t> (stream.max_window // 2), GRANT_BYTES) and usable >= need:
            return 0
        self._grow(stream, missing)
        missing = <Py_ssize_t> stream.max_window - usable
        if missing <= 0:
            return 0
        stream.receive_window += <uint32_t> missing
        return self._control(WINDOW_UPDATE, 0, stream.id, <uint32_t> missing)

    cdef int _grow(self, YamuxStream stream, Py_ssize_t missing) except -1:
        """Doubles a window half of which was read within four round trips, as far as the budget goes."""
        cdef uint64_t more
        cdef double now
        stream.granted += missing
        if stream.granted_at and stream.granted < <Py_ssize_t> (stream.max_window // 2):
            return 0
        now = monotonic()
        if self.rtt == 0 or now - self.rtt_at > RTT_INTERVAL_S:
            if not self.pings:
                self._send_ping(None)
        if self.rtt and stream.granted_at and now - stream.granted_at < 4 * self.rtt:
            more = min(<uint64_t> stream.max_window, <uint64_t> (self.max_window - stream.max_window))
            if more <= self.budget:
                self.budget -= more
                stream.max_window += <uint32_t> more
        stream.granted_at = now
        stream.granted = 0
        return 0

    cdef int accepted(self, Stream stream) except -1:
        return self._control(WINDOW_UPDATE, ACK, stream.id, 0)

    cdef int farewell(self, uint32_t code) except -1:
        if self.below is not None:
            self._control(GO_AWAY, 0, 0, code)
        return 0

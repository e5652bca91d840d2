"""One stream of bytes as the application sees it: received bytes that nobody has read, and writes that wait.

Comes in: received bytes and ends from a session (receive, receive_fin, fail), calls of the application.
Goes out: data, half closes, resets and credit by the methods a muxer's stream overrides. Never
takes a byte out for a task that was cancelled; never holds more than its receive window.
"""

from asyncio import current_task

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from p2pcore import codes, errors, limits
from p2pcore.codes import Direction

from p2pcore._fast.loop.buffer cimport Block, ByteQueue
from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.chain.multistream cimport MSS_HEADER, Answer, take_opening
from p2pcore._fast.codec.endian cimport load_be32, store_be32
from p2pcore._fast.codec.varint cimport MAX_VARINT_BYTES, VARINT_MORE, VARINT_OVERFLOW, varint_read, varint_write
from p2pcore._fast.loop.clock cimport monotonic
from p2pcore._fast.loop.metrics cimport Protocols, Traffic, count_ended, count_opened, count_received
from p2pcore._fast.loop.waiting cimport PENDING, Op, again, done, failed

cdef Py_ssize_t MAX_READ_EXACTLY = limits.YAMUX_INITIAL_WINDOW_BYTES
cdef uint32_t RESOURCE_LIMIT = codes.STREAM_RESOURCE_LIMIT_EXCEEDED
cdef uint32_t NEGOTIATION_FAILED = codes.STREAM_PROTOCOL_NEGOTIATION_FAILED
cdef Py_ssize_t START_WORK = limits.START_WORK
cdef double END_WAIT_S = limits.LAZY_END_WAIT_S
cdef str STREAM_STEP = "stream protocol"
cdef Py_ssize_t MSG_MAX_BYTES = limits.MSG_MAX_BYTES
cdef Py_ssize_t MAX_SIZE_BYTES = limits.MAX_SIZE_BYTES
cdef Py_ssize_t READ_BYTES = 65536  # what read() takes at once unless told otherwise
cdef uint64_t MAX_U32 = 0xFFFFFFFF


cdef class Stream:
    """Base of every muxer's stream; see interfaces.Stream for what each call promises."""

    def __init__(self):
        raise TypeError("a stream is made by its session")

    @property
    def direction(self):
        """Who opened it."""
        return Direction.INBOUND if self.is_inbound else Direction.OUTBOUND

    def __repr__(self):
        conn = self.conn
        way = "inbound" if self.is_inbound else "outbound"
        peer = "" if conn is None else f" {'from' if self.is_inbound else 'to'} {conn.id}"
        return f"<Stream {self.id} {self.protocol or 'without a protocol'} {way}{peer}, {self._state_text()}>"

    @property
    def conn(self):
        """The connection it belongs to, as the swarm gives it out; None without one. A muxer's stream overrides it."""
        return None

    @property
    def close_reason(self):
        """What reads and writes fail with since the stream was reset or its connection ended; None: they do not."""
        return self.error

    @property
    def is_closed(self):
        return self.has_ended()

    @property
    def is_acknowledged(self):
        """False: the peer's muxer has not shown that it has taken this stream. Mplex cannot show it: always True."""
        return True

    @property
    def num_buffered(self):
        """Bytes received and not yet read."""
        return 0 if self.queue is None else self.queue.size

    @property
    def num_held(self):
        """As num_buffered, with those that a read of more than a window has taken aside."""
        return self.aside + self.num_buffered

    def drop_unread(self):
        """The memory is needed: what this stream, which has ended, holds unread is lost. Reads raise StreamReset."""
        if self.error is None:
            self.error = errors.StreamReset(RESOURCE_LIMIT, False)
        self.keeps_input = False
        if self.queue is not None:
            self.queue.clear()
        self.queue_changed()
        self._wake_reader()

    def __del__(self):
        if self.counted:
            self.queue = None
            self.aside = 0
            self.queue_changed()

    def read(self, Py_ssize_t max_bytes=65536):
        """Up to `max_bytes` (at least 1), as soon as there is one; b"" at the end of the stream.

        One reader at a time; cancelling takes nothing out.
        Raises: StreamReset, StreamClosed, DeadlineExceeded, ConnectionClosed; NegotiationError or
            ProtocolNotSupported where the protocol was proposed lazily; ValueError for a smaller `max_bytes`. All of
            them when awaited, as for the other calls.
        """
        if max_bytes < 1:
            return failed(ValueError(f"max_bytes must be at least 1, not {max_bytes}"))
        cdef _Read op = _Read.__new__(_Read)
        op.state = self.state
        op.stream = self
        op.n = max_bytes
        return op

    def read_exactly(self, Py_ssize_t n, Py_ssize_t most=MAX_READ_EXACTLY):
        """Exactly `n` bytes.

        Args:
            n: 0 to `most`. Until they are here, up to `n` bytes are held besides the stream's window.
            most: what the caller is ready to hold, where the peer says how long something is; 262144 (one initial
                window) by default.
        Raises: IncompleteRead if the stream ends before; LimitExceeded for a larger n, ValueError for a negative one;
            as read().
        """
        if n < 0:
            return failed(ValueError(f"n must be at least 0, not {n}"))
        if n > most:
            return failed(errors.LimitExceeded("read_exactly", n, most))
        cdef _ReadExactly op = _ReadExactly.__new__(_ReadExactly)
        op.state = self.state
        op.stream = self
        op.n = n
        return op

    def read_msg(self, Py_ssize_t most=MSG_MAX_BYTES, *, prefix="varint"):
        """One message: a length, and as many bytes. Cancelling takes nothing out, not even the length.

        Args:
            most: bytes of the longest message that is accepted, 0 to limits.MAX_SIZE_BYTES; 4 MiB by default. Until
                all have come, they are held besides the stream's window.
            prefix: how the length is written: "varint" (unsigned, in its shortest form) or "u32" (big-endian).
        Returns: the message without its length; b"" is an empty message.
        Raises: LimitExceeded for a longer one, before memory is taken, and RemoteProtocolError for a length that is no
            varint: nothing has been taken out. IncompleteRead if the stream ends before the message or in it: then
            `partial` is what came of both, and b"" at an end in good order. ValueError; and as read().
        """
        return self._read_msg(most, prefix, False)

    def msgs(self, Py_ssize_t most=MSG_MAX_BYTES, *, prefix="varint"):
        """The messages up to the end of the stream, as `async for message in stream.msgs():`. Raises as read_msg()."""
        cdef _Messages each = _Messages.__new__(_Messages)
        each.stream = self
        each.most = most
        each.prefix = prefix
        return each

    def __aiter__(self):
        """`async for chunk in stream:` gives what comes, 1 to 65536 bytes at a time, until the stream ends."""
        return self

    def __anext__(self):
        cdef _Read op = _Read.__new__(_Read)
        op.state = self.state
        op.stream = self
        op.n = READ_BYTES
        op.iterates = True
        return op

    def wait_closed(self):
        """Done when both halves have ended or the stream has failed; `close_reason` says how. Raises nothing.

        What came before the end may still be unread. A peer that does not end its half keeps it waiting.
        """
        cdef _ClosedOp op = _ClosedOp.__new__(_ClosedOp)
        op.state = self.state
        op.stream = self
        return op

    def take_opening(self):
        """The message behind multistream's header, where both are here by now; None: nothing has been taken."""
        cdef bytes message
        if self.reader is not None or self.read_closed or self.queue is None or self.queue.size == 0:
            return None
        message = take_opening(self.queue)
        if message is not None:
            if self.queue.size == 0:
                self.queue = None  # a stream may stay idle for long after its negotiation
            self.credit(PyBytes_GET_SIZE(MSS_HEADER) + PyBytes_GET_SIZE(message))
        return message

    def set_aside(self):
        """If the peer has said nothing on this stream yet, the session's handler gets it once more when it has: the first
        byte, its end, or the end of the stream. Until then no task has to wait for that.

        Returns: whether it is set aside.
        """
        if self.has_bytes() or self.fin_received or self.error is not None:
            return False
        self.silence = SILENT
        return True

    def turn(self, Py_ssize_t work=START_WORK):
        """Lets other connections go first: done when it is the turn of this one, at the next turn of the loop at the
        earliest. For work that a peer can cause cheaply and that takes longer than a task usually runs.

        Args:
            work: how much will be done then, in units of limits.TURN_WORK; by default that of starting a handler.
        """
        if work < 0:
            raise ValueError(f"work must not be negative, but is {work}")
        return self.session_turn(work)

    def readinto(self, buffer):
        """Fills `buffer` from its start with what is there; 0 at the end of the stream. As read()."""
        cdef _ReadInto op = _ReadInto.__new__(_ReadInto)
        try:
            PyObject_GetBuffer(buffer, &op.view, PyBUF_WRITABLE)
        except (TypeError, BufferError) as error:
            return failed(error)
        op.holds_view = True
        if op.view.len < 1:
            return failed(ValueError("readinto needs a buffer of at least one byte"))
        op.state = self.state
        op.stream = self
        return op

    def write(self, data):
        """Sends `data`. The awaitable waits while the peer's window is used up or the socket is full.

        `data` must not change until then. Several writes go out in the order they were made, awaited or not.
        Raises: StreamReset, StreamClosed, DeadlineExceeded (a prefix may have been sent),
            ConnectionClosed, TypeError; all of them when awaited.
        """
        try:
            op = self._write(data)
        except (errors.P2PError, TypeError, BufferError) as error:
            return failed(error)
        self.state.flusher.relieve()
        return op

    def try_write(self, data):
        """Takes `data` whole, unless earlier writes wait. Never waits, and never sends a part only.

        What window and socket do not take now follows as they allow. Until then `data` must not change, and the stream
        takes no more: so at most one such write waits.
        Returns: whether it was taken. Raises: as write(), but at once.
        """
        taken = self.take_write(data)
        self.state.flusher.relieve()
        return taken

    cdef bint take_write(self, object data) except -1:
        """try_write()."""
        if self.writers and self.error is None:
            return False
        self._write(data)
        return True

    def write_msg(self, data, *, prefix="varint"):
        """Sends the length of `data`, and `data`. They leave together, without a copy unless earlier writes wait.

        Args:
            prefix: see read_msg().
        If the wait is cancelled or its deadline passes while a part of the message has left, the stream is reset: the
        peer could not tell where the next message begins. Raises: as write(); LimitExceeded for more bytes than the
        length can say; ValueError.
        """
        try:
            op = self._write_msg(data, _is_varint(prefix))
        except (errors.P2PError, TypeError, ValueError, BufferError) as error:
            return failed(error)
        self.state.flusher.relieve()
        return op

    cdef Op _write(self, object data):
        """As write(), but what it raises it raises at once."""
        cdef WriteOp op
        cdef Py_ssize_t n, at = 0
        self._check_write()
        if type(data) is bytes and not self.writers:
            n = PyBytes_GET_SIZE(data)
            at = self.push(<const uint8_t *> PyBytes_AS_STRING(data), n)
            if at == n:
                return done
        op = self._write_op(data)
        op.at = at
        return done if op.begin() else op

    cdef Op _write_msg(self, object data, bint is_varint):
        cdef uint8_t head[MAX_VARINT_BYTES + 1]
        cdef WriteOp op = None
        cdef Py_ssize_t n, size, sent = 0, at = 0
        self._check_write()
        if type(data) is bytes:
            n = PyBytes_GET_SIZE(data)
        else:
            op = self._write_op(data)
            n = op.view.len
        size = _put_prefix(head, n, is_varint)
        if not self.writers:
            sent = self.push(head, size)
            if sent == size and op is None:
                at = self.push(<const uint8_t *> PyBytes_AS_STRING(data), n)
                if at == n:
                    return done
        if sent < size:
            # The window or the socket is full already: what is left of the length waits in one piece with the body.
            op = self._write_op(head[sent:size] + bytes(data))
        elif op is None:
            op = self._write_op(data)
        op.at = at
        op.is_msg = True
        op.has_begun = sent > 0
        return done if op.begin() else op

    cdef WriteOp _write_op(self, object data):
        cdef WriteOp op = WriteOp.__new__(WriteOp)
        op.state = self.state
        op.stream = self
        PyObject_GetBuffer(data, &op.view, PyBUF_SIMPLE)
        op.holds_view = True
        return op

    def write_later(self, bytes data not None):
        """Hands `data` on, ahead of all that is written after it, without a wait: the last word of a negotiation.

        Raises: StreamReset, StreamClosed, ConnectionClosed.
        """
        self._write(data)

    def close(self):
        """Ends both halves: the peer gets the end of data, and what still comes is dropped. Idempotent."""
        self.close_read()
        return self.close_write()

    def close_write(self):
        """End of data to the peer, after the writes that wait. Idempotent.

        Where the protocol was proposed less than LAZY_END_WAIT_S ago the end waits until then, or for the answer if
        that comes before (docs/decisions/0014).
        """
        if self.error is None and not self.fin_sent:
            self.fin_due = True
            self._maybe_send_fin()
        return done

    def close_read(self):
        """Drops what still comes. A waiting read raises StreamClosed. Idempotent."""
        cdef Py_ssize_t n
        if not self.read_closed:
            self.read_closed = True
            if self.queue is not None and self.queue.size:
                n = self.queue.size
                self.queue.clear()
                self.queue_changed()
                self.drop_received(n)
            self._wake_reader()
            self._maybe_closed_here()
        return done

    async def __aenter__(self):
        """`async with stream:` closes it at the end, and resets it where the block raises."""
        return self

    async def __aexit__(self, kind, error, traceback):
        if kind is None:
            await self.close()
        else:
            self.reset()

    def reset(self, uint32_t code=0):
        """Aborts both halves at once. The peer learns `code` if the muxer carries codes. Idempotent.

        What has come and nobody has read is dropped, also where the stream or its connection has ended before.
        """
        if not self.has_ended():
            self.send_reset(code)
            self.fail(errors.StreamReset(code, False), True)
        elif self.has_bytes():
            self.drop_unread()

    def set_deadline(self, seconds):
        """set_read_deadline and set_write_deadline."""
        self.set_read_deadline(seconds)
        self.set_write_deadline(seconds)

    def set_read_deadline(self, seconds):
        """`seconds` from now, reads begin to fail with DeadlineExceeded, waiting ones too. None: never."""
        self.read_deadline = _at(seconds)
        if self.reader is not None:
            self.reader.rearm()

    def set_write_deadline(self, seconds):
        """As set_read_deadline, for writes."""
        self.write_deadline = _at(seconds)
        if self.writers:
            for op in self.writers:
                (<WriteOp> op).rearm()

    def expect(self, bytes reply not None, protocol not None, step not None=STREAM_STEP):
        """Lazy negotiation: the peer's first bytes must be `reply`, which no read will see.

        Args:
            reply: multistream header and the echo of the proposal, which is to be sent at once.
            protocol: what was proposed; becomes `self.protocol`.
            step: what is negotiated, as errors name it.
        Readers and writers get ProtocolNotSupported for a refusal, NegotiationTimeout where no answer comes within
        STREAM_NEGOTIATION_TIMEOUT_S, and NegotiationError for anything else; the stream is reset.
        """
        cdef bytes early
        self.protocol = protocol
        self.answer = _LazyAnswer.__new__(_LazyAnswer)
        self.answer.stream = self
        self.answer.begin(reply, protocol, step)
        self.answer.start()
        if self.queue is not None and self.queue.size:
            # A peer may send its header before it has seen our proposal.
            early = self.queue.take_exactly(self.queue.size)
            buffer = bytearray(early)
            self.receive(<uint8_t *> <char *> buffer, len(early))
            self.queue_changed()
        if self.answer is not None and self.fin_received:
            self.receive_fin()

    def count_in(self, Protocols protocols not None, bint apart=False):
        """Counts this stream and its bytes in the row of its protocol, first the bytes that wait to be read. Called once.

        Args:
            apart: count it in a row of its own as well.
        Returns: that row, or the protocol's.
        """
        cdef Traffic traffic = protocols.of(self.protocol)
        if apart:
            traffic = traffic.apart()
        if self.queue is not None:
            count_received(traffic, self.queue.size)
        if self.has_ended():
            count_opened(traffic, 0)
        else:
            count_opened(traffic, 1)
            self.traffic = traffic
        return traffic

    # -- for the session -----------------------------------------------------------------------

    cdef int receive(self, uint8_t *data, Py_ssize_t n) except -1:
        """Bytes of the peer, within the window the session has checked."""
        cdef Py_ssize_t k
        if self.answer is not None:
            k = self._answered(data, n)
            if k:
                self.credit(k)
            data += k
            n -= k
        if n > 0 and self.error is None:
            if self.traffic is not None:
                count_received(self.traffic, n)
            if self.read_closed:
                return self.drop_received(n)
            return self._store(data, n)
        return 0

    cdef int receive_fin(self) except -1:
        """The peer sends no more."""
        self.fin_received = True
        if self.answer is not None:
            self.answer.ended()
            self._give_up(self.answer.error)
        if self.closers is not None:
            self._maybe_wake_closers()
        self._maybe_feed_eof()
        return self._wake_reader()

    cdef int fail(self, object error, bint discard) except -1:
        """Reads and writes fail from now on. Unless `discard`, what was received can be read first, and FIN counts.

        What the peer's end has completed is read as if nothing had happened.
        """
        if self.error is None:
            self.error = error
            self.keeps_input = not discard
        self._settle()
        if discard and self.queue is not None:
            self.queue.clear()
            self.queue_changed()
        if self.handler_task is not None:
            self._maybe_cancel_handler()
        if self.closers is not None:
            self._maybe_wake_closers()
        if self.writers:
            writers, self.writers = self.writers, None
            for op in writers:
                (<WriteOp> op).release()
            self.writes_done()
        self._maybe_lose_sink()
        return self._wake_reader()

    cdef int pump(self, Py_ssize_t most) except -1:
        """Sends up to `most` bytes of the writes that wait, as far as window and socket allow."""
        cdef WriteOp op
        cdef Py_ssize_t k, left
        while self.writers and most > 0:
            op = <WriteOp> self.writers[0]
            left = min(op.view.len - op.at, most)
            k = self.push(<const uint8_t *> op.view.buf + op.at, left)
            op.at += k
            most -= k
            self.count_waits(-k)
            if op.at < op.view.len:
                # The socket may have become full just now. Then this sees to it that somebody calls pump() again.
                return self.write_waits()
            del self.writers[0]
            op.release()
            if not self.writers:
                self.writes_done()
        self._maybe_send_fin()
        if self.sink is not None and not self.writers:
            self.sink.resume()
        return 0

    cdef int last_chance(self) except -1:
        """The session closes: the end of our data goes out even if the negotiation is not answered yet."""
        self._settle()
        return self._maybe_send_fin()

    cdef bint has_bytes(self) noexcept:
        """Whether a read gets bytes at once."""
        return self.queue is not None and self.queue.size > 0

    cdef bint is_read(self) noexcept:
        """Whether somebody waits for bytes: what comes does not stay."""
        return not self.has_bytes() and (self.reader is not None or (self.sink is not None and not self.holding))

    cdef bint has_ended(self) noexcept:
        return self.error is not None or (self.fin_sent and self.fin_received)

    cdef int left(self) noexcept:
        """It has left the session's table."""
        if self.traffic is not None:
            count_ended(self.traffic)
            self.traffic = None
        return 0

    # -- for a sink: the Layer that takes what comes as it comes, in place of reads (decision 0007) ----

    cdef int attach(self, Layer sink) except -1:
        """What comes goes to `sink` from now on: feed, feed_eof, lost. What has come already follows with pour().

        A sink's feed raises nothing: what a stream brings must not harm the connection.
        Raises: LocalProtocolError: it has a sink, or somebody reads or writes; what the stream failed with.
        """
        if self.error is not None:
            raise again(self.error)
        if self.sink is not None or self.reader is not None or self._has_writer() or self.answer is not None:
            raise errors.LocalProtocolError("this stream is in use otherwise")
        self.sink = sink
        return 0

    cdef bint _has_writer(self) except -1:
        """Whether somebody waits for a write. What was written for later goes first, and nobody waits for it."""
        for op in self.writers or ():
            if (<Op> op).future is not None:
                return True
        return False

    cdef int detach(self) except -1:
        """The sink hears nothing more. Idempotent."""
        self.sink = None
        return 0

    cdef int hold(self, bint on) except -1:
        """Whether what comes waits in the queue; after hold(False) the sink calls pour() to get it."""
        self.holding = on
        return 0

    cdef int pour(self) except -1:
        """Feeds the sink what has waited in the queue, until it holds. Never called from its feed()."""
        cdef Block block
        cdef Py_ssize_t n
        if self.sink is not None and self.queue is not None and self.queue.size and not self.holding:
            block = self.state.records.take()
            try:
                while self.sink is not None and self.queue.size and not self.holding:
                    n = self.queue.take_into(block.data, block.size)
                    self.sink.feed(block.data, n)
                    self.credit(n)
            finally:
                self.state.records.give(block)
        self._maybe_feed_eof()
        return self._maybe_lose_sink()

    cdef bint put(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Sends `data` for the sink, and keeps a copy of what cannot go now.

        Returns: True if something waits. The sink gets resume() when all of it has been sent, and sends only what
            it must until then. Raises: as write().
        """
        cdef Py_ssize_t k = 0
        self._check_write()
        if not self.writers:
            k = self.push(data, n)
        if k < n:
            self._write(PyBytes_FromStringAndSize(<const char *> data + k, n - k))
        return bool(self.writers)

    cdef Py_ssize_t num_waiting(self) except -1:
        """Bytes that were written and could not be sent yet."""
        cdef Py_ssize_t n = 0
        for op in self.writers or ():
            n += (<WriteOp> op).size - (<WriteOp> op).at
        return n

    # -- for the muxer's own stream to override ------------------------------------------------

    cdef Py_ssize_t push(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Sends as many bytes of `data` as window and socket allow; returns how many."""
        raise NotImplementedError

    cdef int send_fin(self) except -1:
        """Tells the peer that no more comes."""
        raise NotImplementedError

    cdef int send_reset(self, uint32_t code) except -1:
        """Tells the peer that the stream is aborted."""
        raise NotImplementedError

    cdef int credit(self, Py_ssize_t n) except -1:
        """`n` received bytes have been read."""
        raise NotImplementedError

    cdef int want(self, Py_ssize_t n) except -1:
        """A read waits for `n` bytes at once: the peer must be allowed to send as many."""
        raise NotImplementedError

    cdef int drop_received(self, Py_ssize_t n) except -1:
        """`n` received bytes are dropped, because the read half is closed."""
        raise NotImplementedError

    cdef int write_waits(self) except -1:
        """A write waits: pump() must be called when it can go on."""
        raise NotImplementedError

    cdef int writes_begin(self) except -1:
        """A write waits, and none did before."""
        raise NotImplementedError

    cdef int writes_done(self) except -1:
        """No write waits any more."""
        raise NotImplementedError

    cdef int count_waits(self, Py_ssize_t by) except -1:
        """`by` bytes more of writes wait."""
        raise NotImplementedError

    cdef bint may_wait(self) except -1:
        """Whether one more write may wait; if not, the stream is to be reset."""
        raise NotImplementedError

    cdef int queue_changed(self) except -1:
        """The queue holds more or less, and neither credit() nor drop_received() says so."""
        raise NotImplementedError

    cdef bint is_of(self, object session) noexcept:
        """Whether it is a stream of `session`, also after its end."""
        return False

    cdef bint may_push(self) noexcept:
        """Whether the peer's window, if the muxer has one, lets a write go on."""
        return True

    cdef int closed_here(self) except -1:
        """Both halves are closed here, and the peer's end has not come."""
        return 0

    cdef int heard(self) except -1:
        """The peer has spoken on a stream that was set aside."""
        raise NotImplementedError

    cdef Op session_turn(self, Py_ssize_t work):
        """Done when it is the turn of this stream's connection."""
        raise NotImplementedError

    cdef uint64_t key(self) noexcept:
        """Its place in the session's table."""
        return self.id

    # -- inside --------------------------------------------------------------------------------

    cdef bytes _take(self, Py_ssize_t most):
        cdef bytes out = self.queue.take(most)
        self.credit(PyBytes_GET_SIZE(out))
        return out

    cdef int _claim(self, StreamRead op) except -1:
        """`op` reads now. If another read was given bytes and has not taken them, they are put back first."""
        cdef StreamRead other = self.reader
        if other is not None and other is not op:
            if not other.future.done():
                raise errors.LocalProtocolError("another read of this stream is waiting")
            other.cancelled()
        self.reader = None
        return 0

    cdef int _check_read(self) except -1:
        """Raises if a read can only fail. Buffered bytes come first, unless a deadline has passed."""
        if self.read_deadline and monotonic() >= self.read_deadline:
            raise errors.DeadlineExceeded("the stream's read deadline has passed")
        if self.queue is not None and self.queue.size:
            return 0
        if self.error is not None and not (self.fin_received and self.keeps_input):
            raise again(self.error)  # but after the peer's FIN all data is here: a lost connection changes nothing
        if self.read_closed:
            raise errors.StreamClosed("the stream's read half was closed here")
        return 0

    cdef int _check_write(self) except -1:
        if self.error is not None:
            raise again(self.error)
        if self.fin_sent or self.fin_due:
            raise errors.StreamClosed("the stream's write half was closed here")
        if self.write_deadline and monotonic() >= self.write_deadline:
            raise errors.DeadlineExceeded("the stream's write deadline has passed")
        return 0

    cdef int _store(self, uint8_t *data, Py_ssize_t n) except -1:
        cdef Py_ssize_t k
        if self.sink is not None and not self.holding and (self.queue is None or self.queue.size == 0):
            self.sink.feed(data, n)
            return self.credit(n)
        if self.reader is not None and (self.queue is None or self.queue.size == 0):
            k = self.reader.deliver(data, n)
            data += k
            n -= k
        if n > 0:
            if self.queue is None:
                self.queue = ByteQueue.__new__(ByteQueue)
            self.queue.push(data, n)
        return self._wake_reader()

    cdef int _maybe_feed_eof(self) except -1:
        if self.sink is not None and self.fin_received and not self.eof_fed and not self.holding:
            if self.queue is None or self.queue.size == 0:
                self.eof_fed = True
                self.sink.feed_eof()
        return 0

    cdef int _maybe_lose_sink(self) except -1:
        """The stream has failed: the sink hears of it once it has got what came before, and not while it holds."""
        sink = self.sink
        if self.error is not None and sink is not None and not self.has_bytes():
            self._maybe_feed_eof()
            if self.sink is sink and (self.eof_fed or not self.fin_received or not self.keeps_input):
                self.sink = None
                (<Layer> sink).lost(self.error)
        return 0

    cdef int _put_back(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Puts back bytes that a cancelled read was given, in front of the newer ones."""
        cdef ByteQueue newer = self.queue
        if self.read_closed:
            return self.drop_received(n)
        self.queue = ByteQueue.__new__(ByteQueue)
        self.queue.push(data, n)
        if newer is not None:
            self.queue.append(newer)
        return self.queue_changed()

    cdef Py_ssize_t _answered(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Takes what belongs to the answer to a lazy proposal; returns how many bytes that was."""
        cdef _LazyAnswer answer = self.answer
        cdef Py_ssize_t k = answer.take(data, n)
        if answer.error is not None:
            self._give_up(answer.error)
            return n
        if answer.is_settled:
            self._settle()
            self._maybe_send_fin()
        return k

    cdef int _settle(self) except -1:
        """No answer is waited for any more."""
        if self.answer is not None:
            self.answer.forget()
            self.answer = None
        return 0

    cdef int _give_up(self, object error) except -1:
        """The negotiation has failed."""
        self.send_reset(NEGOTIATION_FAILED)
        return self.fail(error, True)

    cdef int _wake_reader(self) except -1:
        if self.reader is not None:
            self.reader.wake()
        elif self.silence == SILENT:
            self.silence = HEARD
            self.heard()
        return 0

    cdef int _maybe_send_fin(self) except -1:
        if self.fin_due and not self.writers and self.error is None and (self.answer is None or self.answer.is_late):
            self.fin_due = False
            self.fin_sent = True
            self.handler_task = None
            self.send_fin()
            self._maybe_closed_here()
            if self.closers is not None:
                self._maybe_wake_closers()
        return 0

    cdef int _maybe_wake_closers(self) except -1:
        if self.has_ended():
            for op in self.closers:
                (<_ClosedOp> op).wake()
        return 0

    cdef int _maybe_cancel_handler(self) except -1:
        """The stream has failed: the task that serves it is cancelled, once, unless it goes on (docs/streams.md).

        It goes on where it has ended its own half, where bytes are left to read, where all came and the connection
        ended in order, where it waits for this stream (then that call raises), and where it did this itself.
        """
        task, self.handler_task = self.handler_task, None
        if self.fin_due or self.has_bytes():
            return 0
        if self.fin_received and self.keeps_input and isinstance(self.error, errors.GoAway):
            return 0
        if not self._is_awaited(getattr(task, "_fut_waiter", None)) and current_task(self.state.loop) is not task:
            task.cancel(str(self.error))
        return 0

    cdef bint _is_awaited(self, object future) except -1:
        """Whether `future` is what a call of this stream waits for."""
        if future is None:
            return False
        if self.reader is not None and self.reader.future is future:
            return True
        for op in self.writers or ():
            if (<Op> op).future is future:
                return True
        for op in self.closers or ():
            if (<Op> op).future is future:
                return True
        return False

    cdef str _state_text(self):
        if self.error is not None:
            return str(self.error)
        if self.has_ended():
            return "closed"
        if self.fin_received:
            return "open, ended by the peer"
        return "open, ended by us" if self.fin_sent or self.fin_due else "open"

    cdef Op _read_msg(self, Py_ssize_t most, object prefix, bint iterates):
        cdef _ReadMsg op = _ReadMsg.__new__(_ReadMsg)
        if not 0 <= most <= MAX_SIZE_BYTES:
            return failed(ValueError(f"most must be from 0 to {MAX_SIZE_BYTES}, not {most}"))
        try:
            op.is_varint = _is_varint(prefix)
        except ValueError as error:
            return failed(error)
        op.state = self.state
        op.stream = self
        op.most = most
        op.iterates = iterates
        return op

    cdef int _maybe_closed_here(self) except -1:
        """If we want nothing more of the stream while the peer has not ended its half, the session is told."""
        if self.read_closed and self.fin_sent and not self.fin_received and self.error is None:
            self.closed_here()
        return 0

    cdef bint is_dropped(self, Py_ssize_t refs) except -1:
        """Whether nobody is left who could use it: of `refs` references one is the table's, the others our own."""
        if self.answer is not None:
            refs -= 1
        return refs == 1 and not self.writers and self.sink is None and not (self.read_closed and self.fin_sent)


@cython.final
cdef class _LazyAnswer(Answer):
    """The answer to a stream's lazy proposal, with a deadline."""

    cdef int start(self) except -1:
        """The proposal leaves now."""
        return self.stream.state.timers.watch(self, END_WAIT_S)

    cdef int forget(self) except -1:
        """Nobody waits for it any more."""
        if self.stream is not None:
            self.stream.state.timers.unwatch(self)
            self.stream = None
        return 0

    cdef int overdue(self) except -1:
        """It has not come soon, and then not at all."""
        cdef Stream stream = self.stream
        cdef double timeout = limits.STREAM_NEGOTIATION_TIMEOUT_S
        if self.is_late:
            self.fail(errors.NegotiationTimeout(f"{self.step}: no answer to {self.protocol} within {timeout:g} s"))
            return stream._give_up(self.error)
        self.is_late = True
        stream.state.timers.watch(self, timeout - END_WAIT_S)
        return stream._maybe_send_fin()


cdef double _at(seconds) except -1:
    """The monotonic second `seconds` from now; 0 for None. Never 0 for a number."""
    return 0.0 if seconds is None else max(1e-9, monotonic() + <double> seconds)


cdef bint _is_varint(object prefix) except -1:
    if prefix != "varint" and prefix != "u32":
        raise ValueError(f"prefix must be 'varint' or 'u32', not {prefix!r}")
    return prefix == "varint"


cdef Py_ssize_t _put_prefix(uint8_t *out, Py_ssize_t n, bint is_varint) except -1:
    """Writes the length `n` of a message; returns how many bytes that took."""
    if is_varint:
        return varint_write(out, <uint64_t> n)
    if <uint64_t> n > MAX_U32:
        raise errors.LimitExceeded("write_msg", n, MAX_U32)
    store_be32(out, <uint32_t> n)
    return 4


def framed(bytes data not None, prefix):
    """The length of `data`, and `data`, in one piece; see Stream.write_msg(). Raises as it does."""
    cdef uint8_t head[MAX_VARINT_BYTES + 1]
    cdef Py_ssize_t size = _put_prefix(head, PyBytes_GET_SIZE(data), _is_varint(prefix))
    return head[:size] + data


@cython.final
cdef class _Messages:
    """`async for` over the messages of a stream."""

    cdef Stream stream
    cdef Py_ssize_t most
    cdef object prefix

    def __aiter__(self):
        return self

    def __anext__(self):
        return self.stream._read_msg(self.most, self.prefix, True)


@cython.final
cdef class _ClosedOp(Op):
    """await of Stream.wait_closed."""

    cdef Stream stream

    cdef object attempt(self):
        if not self.stream.has_ended():
            return PENDING
        self.cancelled()
        return None

    cdef int suspended(self) except -1:
        if self.stream.closers is None:
            self.stream.closers = []
        if self not in self.stream.closers:
            self.stream.closers.append(self)
        return 0

    cdef int cancelled(self) except -1:
        if self.stream.closers is not None and self in self.stream.closers:
            self.stream.closers.remove(self)
            if not self.stream.closers:
                self.stream.closers = None
        return 0


cdef class StreamRead(Op):
    """What all reads share: one at a time, and the stream's read deadline."""

    cdef Py_ssize_t deliver(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Takes received bytes while it waits; returns how many. Only readinto has somewhere to put them."""
        return 0

    cdef int suspended(self) except -1:
        self.stream.reader = self
        return 0

    cdef int cancelled(self) except -1:
        if self.stream.reader is self:
            self.stream.reader = None
        return 0

    cdef double deadline(self) except -2:
        return self.stream.read_deadline


@cython.final
cdef class _Read(StreamRead):

    cdef object attempt(self):
        cdef Stream stream = self.stream
        stream._claim(self)
        stream._check_read()
        if stream.queue is not None and stream.queue.size:
            return stream._take(self.n)
        if stream.fin_received and self.iterates:
            raise StopAsyncIteration
        return b"" if stream.fin_received else PENDING


cdef class _ReadExactly(StreamRead):

    cdef ByteQueue held             # what has come, where it is more than a window; None: it stays in the stream
    cdef Py_ssize_t head            # bytes of n in front of the result: a message's length

    cdef object attempt(self):
        cdef Stream stream = self.stream
        cdef Py_ssize_t size
        if self.n > MAX_READ_EXACTLY:
            return self._attempt_long()
        stream._claim(self)
        size = 0 if stream.queue is None else stream.queue.size
        if size < self.n and (stream.error is not None or stream.fin_received) and size:
            out = stream.queue.take_exactly(size)
            stream.queue_changed()
            raise errors.IncompleteRead(out, self.n)
        stream._check_read()
        if size >= self.n:
            out = self._out(stream.queue) if self.n else b""
            stream.credit(self.n)
            return out
        if stream.fin_received:
            raise errors.IncompleteRead(b"", self.n)
        stream.want(self.n)
        return PENDING

    cdef bytes _out(self, ByteQueue queue):
        """The result, from a queue that has all of it."""
        cdef uint8_t head[MAX_VARINT_BYTES]
        if self.head:
            queue.take_into(head, self.head)
        return queue.take_exactly(self.n - self.head)

    cdef object _attempt_long(self):
        """The window never holds so much at once, so the bytes are taken as they come."""
        cdef Stream stream = self.stream
        cdef bytes piece
        stream._claim(self)
        if self.held is None:
            self.held = ByteQueue.__new__(ByteQueue)
        while stream.has_bytes() and self.held.size < self.n:
            piece = stream.queue.take(self.n - self.held.size)
            self.held.push(<const uint8_t *> PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
            stream.aside = self.held.size
            stream.credit(PyBytes_GET_SIZE(piece))
        if self.held.size == self.n:
            stream.aside = 0
            stream.queue_changed()
            return self._out(self.held)
        if stream.fin_received or (stream.error is not None and stream.keeps_input and self.held.size):
            stream.aside = 0
            stream.queue_changed()
            raise errors.IncompleteRead(self.held.take_exactly(self.held.size), self.n)
        try:
            stream._check_read()
        except errors.P2PError:
            self._give_back()
            raise
        return PENDING

    cdef int cancelled(self) except -1:
        StreamRead.cancelled(self)
        return self._give_back()

    cdef int _give_back(self) except -1:
        """What was taken is there for the next read, in front of what has come since."""
        cdef Stream stream = self.stream
        cdef ByteQueue held = self.held
        self.held = None
        if held is None:
            return 0
        stream.aside = 0
        stream.queue_changed()
        if held.size and (stream.error is None or stream.keeps_input):
            if stream.read_closed:
                return 0
            if stream.queue is not None:
                held.append(stream.queue)
            stream.queue = held
            stream.queue_changed()
        return 0


@cython.final
cdef class _ReadMsg(_ReadExactly):
    """A read of exactly as many bytes as the length in front of them says, and of the length."""

    cdef Py_ssize_t most            # bytes of the longest message
    cdef bint is_varint

    cdef object attempt(self):
        cdef Stream stream = self.stream
        if self.held is None:
            stream._claim(self)
            if self.iterates and stream.fin_received and not stream.has_bytes():
                stream._check_read()
                raise StopAsyncIteration
            self._measure()
        return _ReadExactly.attempt(self)

    cdef int _measure(self) except -1:
        """Looks at the length. Until all of it is here, this waits for one byte more than there are."""
        cdef uint8_t front[MAX_VARINT_BYTES]
        cdef ByteQueue queue = self.stream.queue
        cdef Py_ssize_t here = 0 if queue is None else queue.peek(front, MAX_VARINT_BYTES if self.is_varint else 4)
        cdef uint64_t length = 0
        cdef int used = VARINT_MORE
        if self.is_varint:
            used = varint_read(front, here, &length)
        elif here == 4:
            used = 4
            length = load_be32(front)
        if used < 0:
            raise errors.RemoteProtocolError(
                f"the length of a message is {'over nine bytes' if used == VARINT_OVERFLOW else 'not in its shortest form'}: "
                f"{(<bytes> front[:here]).hex()}")
        if length > <uint64_t> self.most:
            raise errors.LimitExceeded("read_msg", length, self.most)
        self.head = used
        self.n = used + <Py_ssize_t> length if used else here + 1
        return 0


@cython.final
cdef class _ReadInto(StreamRead):
    """await of Stream.readinto. While it waits, bytes go straight into the caller's buffer: the one copy."""

    cdef Py_buffer view
    cdef bint holds_view
    cdef Py_ssize_t filled          # bytes delivered before the task ran again

    def __dealloc__(self):
        if self.holds_view:
            PyBuffer_Release(&self.view)

    cdef Py_ssize_t deliver(self, const uint8_t *data, Py_ssize_t n) except -1:
        n = min(n, self.view.len - self.filled)
        memcpy(<uint8_t *> self.view.buf + self.filled, data, n)
        self.filled += n
        return n

    cdef object attempt(self):
        cdef Stream stream = self.stream
        cdef Py_ssize_t n = self.filled
        if not self.holds_view:
            raise RuntimeError("this readinto has been awaited already")
        self.filled = 0
        stream._claim(self)
        if n == 0:
            stream._check_read()
        if n < self.view.len and stream.queue is not None and stream.queue.size:
            n += stream.queue.take_into(<uint8_t *> self.view.buf + n, self.view.len - n)
        if n == 0:
            return 0 if stream.fin_received else PENDING
        stream.credit(n)
        # Released at once, so that the caller can resize the buffer.
        self.holds_view = False
        PyBuffer_Release(&self.view)
        return n

    cdef int cancelled(self) except -1:
        """A cancelled read puts back what was delivered to it."""
        cdef Py_ssize_t n = self.filled
        StreamRead.cancelled(self)
        if n:
            self.filled = 0
            self.stream._put_back(<uint8_t *> self.view.buf, n)
        return 0


@cython.final
cdef class WriteOp(Op):
    """await of Stream.write, if not everything could leave at once."""

    def __dealloc__(self):
        if self.holds_view:
            PyBuffer_Release(&self.view)

    cdef bint begin(self) except -1:
        """Sends what it can, or waits behind the other writes. True if all has been sent."""
        cdef Stream stream = self.stream
        self.size = self.view.len
        if not stream.writers and self.at < self.size:
            self.at += stream.push(<const uint8_t *> self.view.buf + self.at, self.size - self.at)
        if self.at == self.size:
            return True
        if not stream.may_wait():
            stream.reset(RESOURCE_LIMIT)
            raise again(stream.error)
        if stream.writers is None:
            stream.writers = []
        if not stream.writers:
            stream.writes_begin()
        stream.writers.append(self)
        self.enlisted = True
        stream.count_waits(self.size - self.at)
        stream.write_waits()
        return False

    cdef int release(self) except -1:
        """It has been sent, or never will be. Gives the caller's data back, and wakes the task."""
        self.enlisted = False
        self.stream.count_waits(self.at - self.size)
        self.holds_view = False
        PyBuffer_Release(&self.view)
        return self.wake()

    cdef object attempt(self):
        if self.enlisted:
            self._check_deadline()
            return PENDING
        if self.at == self.size:
            return None
        if self.stream.error is not None:
            raise again(self.stream.error)
        raise errors.LocalProtocolError(f"this write was given up after {self.at} of {self.size} bytes")

    cdef int _check_deadline(self) except -1:
        cdef double at = self.stream.write_deadline
        if at and monotonic() >= at:
            self.cancelled()
            raise errors.DeadlineExceeded(f"the stream's write deadline has passed after {self.at} bytes")
        return 0

    cdef int cancelled(self) except -1:
        """Leaves the queue. What was not sent of it is never sent."""
        cdef Stream stream = self.stream
        if self.enlisted:
            stream.writers.remove(self)
            self.release()
            if self.is_msg and (self.has_begun or self.at):
                stream.reset(0)  # a part of a message: the peer would take what follows for the rest of it
            stream._maybe_send_fin()
            if not stream.writers:
                stream.writes_done()
        return 0

    cdef double deadline(self) except -2:
        return self.stream.write_deadline

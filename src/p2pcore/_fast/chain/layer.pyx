"""The chain of layers that every connection is, and the top of it during negotiation.

Comes in: received bytes from below (feed), bytes to send from above (send). Goes out: the same, changed by each
layer. Never runs application code, never feeds while it sends. Class Layer has the table of how things end.
"""

cimport cython
from libc.stdint cimport uint8_t, uint64_t

from p2pcore import errors, limits

from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.chain.multistream cimport Answer, take_opening
from p2pcore._fast.loop.ledger cimport Ledger
from p2pcore._fast.loop.waiting cimport PENDING, Op, again

cdef double LOOK_S = limits.UNFINISHED_LOOK_S
cdef Py_ssize_t MAILBOX_BYTES = limits.MAILBOX_BYTES


cdef class Layer(Flushable):
    """One layer of a connection; by itself it hands everything on unchanged.

    feed() goes up to the application, send() down to the socket. A pointer given to feed() is valid until feed()
    returns, and the callee may overwrite the bytes. What send() is given is copied or sent before send() returns,
    and stays as it is. What send_in_place() is given may be overwritten, and headroom() bytes in front of it too.
    A layer may send while it is fed. It never feeds while it sends. No application code runs inside either.

    How things end, from the loop to the API. One verb has one meaning, in every compiled module:

    ==================  ======================  =============================================================
    verb                of                      meaning
    ==================  ======================  =============================================================
    close()             wire, mailbox, session, In order, by us: what was written leaves first, then the peer
                        stream (API)            is told. close_write() and close_read() are one half of it.
    shut()              layer                   close() inside the chain. A cdef class cannot have one name
                                                for Python and for C, so close() has two, as write() has send().
    abort()             wire, mailbox, session, At once, by us: what was not sent is dropped.
                        splice (API)
    drop(error)         layer, splice           abort() inside the chain, with the reason. lost() follows.
    reset(code)         stream (API)            abort() of one stream: the peer is told, the connection stays.
    send_X()            session, stream, layer  Writes the frame X that tells the peer of an end, and does
                                                nothing else: send_fin, send_reset, send_go_away,
                                                send_close_notify.
    feed_eof()          layer                   The peer has ended its half: nothing more will be fed.
    receive_fin()       stream                  The same for one stream.
    fail(error)         session, stream         From now on all calls raise `error`, and waiting ones wake.
                                                Says nothing to the peer.
    lost(error)         layer, sink             The bottom is gone. The last call a layer gets.
    violated(error)     session                 The peer broke the protocol: tell it, fail(), shut().
    drain               session, wire           A time in which what is there goes on and nothing new begins.
    refuse              session                 The peer opened one stream too many: reset it, keep the rest.
    remove, forget      session                 Takes a stream that has ended out of the tables.
    cancelled()         Op                      The task that waited waits no longer.
    overdue()           Flushable               The time given to Timers.watch() is over.
    ==================  ======================  =============================================================

    States are told the same way. `fin_sent`: our half has ended. `fin_received`, `input_ended`: the peer's half has.
    `ending`: an end was asked for. `is_closed`: the end has been decided and nothing works. `is_lost`: lost() came.
    """

    # -- towards the application ---------------------------------------------------------------

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1:
        """Received bytes. If it raises RemoteProtocolError or LimitExceeded, the connection is dropped."""
        return self.above.feed(data, n)

    cdef int feed_eof(self) except -1:
        """The peer sends no more."""
        return self.above.feed_eof()

    cdef int lost(self, object error) except -1:
        """The bottom is gone, with the reason. The last call; it breaks the links."""
        cdef Layer above = self.above
        if self.is_timed:
            self.is_timed = False
            self.state.unfinished.discard(self)
        self.above = self.below = None
        if above is not None:
            above.lost(error)
        return 0

    cdef int pause(self) except -1:
        """The socket takes no more for now: send only what cannot wait."""
        return self.above.pause()

    cdef int resume(self) except -1:
        """The socket has taken everything."""
        return self.above.resume()

    # -- what the peer has begun ---------------------------------------------------------------

    cdef int has_begun(self) except -1:
        """A record or frame has come in part. If nothing more of it comes in time, the connection ends."""
        self.has_moved = True
        if not self.is_timed:
            self.is_timed = True
            self.state.unfinished.add(self)
        return 0

    cdef bint is_unfinished(self) noexcept:
        """Whether a part of a record or frame has come, and not all of it."""
        return False

    cdef uint64_t progress(self) except? 0:
        if not self.is_unfinished():
            return 0
        self.num_moves += self.has_moved
        self.has_moved = False
        return 1 + <uint64_t> self.num_moves

    cdef int never_ended(self, bint is_whole) except -1:
        self.is_timed = False
        if is_whole:
            return 0
        return self.drop(errors.ConnectionClosed(
            f"the peer began a record or a frame, and has not gone on with it for {LOOK_S:g} s"))

    # -- towards the socket --------------------------------------------------------------------

    cdef int send(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Sends bytes. Raises ConnectionClosed after lost(). Between an end and lost() the bytes are dropped."""
        if self.below is None:
            raise errors.ConnectionClosed("the connection is closed")
        return self.below.send(data, n)

    cdef int send_in_place(self, uint8_t *data, Py_ssize_t n) except -1:
        """As send(). The callee may overwrite `data`, and the headroom() bytes in front of it."""
        return self.send(data, n)

    cdef int throttle(self, bint on) except -1:
        """Stops reading from the socket, or goes on."""
        if self.below is not None:
            self.below.throttle(on)
        return 0

    cdef int shut(self) except -1:
        """Ends in order: what was sent leaves, then FIN, a short drain, and lost()."""
        if self.below is not None:
            self.below.shut()
        return 0

    cdef int drop(self, object error) except -1:
        """Ends at once: lost(error) follows from the event loop."""
        if self.below is not None:
            self.below.drop(error)
        return 0

    cdef bint is_paused(self) except -1:
        return self.below is None or self.below.is_paused()

    cdef int seat(self, Layer below) except -1:
        """Links this layer on top of `below`."""
        self.below = below
        self.state = below.state
        below.above = self
        return 0

    cdef bint is_top(self) noexcept:
        """Whether it is the top of a chain: nothing can be above it."""
        return False

    cdef int headroom(self) noexcept:
        """Bytes this layer puts in front of what send_in_place() gives it."""
        return 0

    cdef int set_ledger(self, Ledger ledger) except -1:
        """For the bottom: the ledger counts what tally() tells."""
        raise errors.LocalProtocolError("this chain has no bottom")

    cdef int tally(self, Py_ssize_t held, Py_ssize_t waits) except -1:
        """So many bytes more are held here unread, and wait here unsent. The bottom counts them, until lost()."""
        return self.below.tally(held, waits) if self.below is not None else 0


cdef class _MailboxRead(Op):
    """One call that waits for bytes of a mailbox. Only one may wait at a time."""

    cdef Mailbox mailbox

    cdef int suspended(self) except -1:
        if self.mailbox.reader is not None:
            raise errors.LocalProtocolError("another read of this mailbox is waiting")
        self.mailbox.reader = self
        return self.mailbox._send_put_off()

    cdef int cancelled(self) except -1:
        if self.mailbox.reader is self:
            self.mailbox.reader = None
        return 0


@cython.final
cdef class _ReadExactly(_MailboxRead):
    """await of Mailbox.read_exactly."""

    cdef Py_ssize_t n

    cdef object attempt(self):
        cdef Mailbox box = self.mailbox
        if box.held.size >= self.n:
            return box._taken(self.n)
        if box.error is not None:
            raise again(box.error)
        if box.input_ended:
            raise errors.IncompleteRead(box._taken(box.held.size), self.n)
        return PENDING


@cython.final
cdef class _ReadFrame(_MailboxRead):
    """await of Mailbox.read_frame."""

    cdef Py_ssize_t n           # length of the body; -1 until it has been read

    cdef object attempt(self):
        cdef Mailbox box = self.mailbox
        cdef bytes prefix
        cdef const uint8_t *at
        if self.n < 0 and box.held.size >= 2:
            prefix = box._taken(2)
            at = <const uint8_t *> <const char *> prefix
            self.n = (at[0] << 8) | at[1]
        if self.n >= 0 and box.held.size >= self.n:
            return box._taken(self.n)
        if box.error is not None:
            raise again(box.error)
        if box.input_ended:
            raise errors.IncompleteRead(box._taken(box.held.size), max(self.n, 2))
        return PENDING


@cython.final
cdef class _ReadSome(_MailboxRead):
    """await of Mailbox.read and Mailbox.peek."""

    cdef Py_ssize_t least       # bytes it waits for; the end of input is enough too
    cdef Py_ssize_t most
    cdef bint keeps             # they stay in the mailbox

    cdef object attempt(self):
        cdef Mailbox box = self.mailbox
        if box.held.size < self.least and not box.input_ended:
            if box.error is not None:
                raise again(box.error)
            return PENDING
        data = box._taken(min(box.held.size, self.most))
        if self.keeps:
            box.unread(data)
        return data


@cython.final
cdef class _Turn(Op):
    """await of Mailbox.turn."""

    cdef Mailbox mailbox
    cdef bint is_called

    cdef int suspended(self) except -1:
        self.mailbox.patient = self
        return self.state.rota.line_up(self.mailbox)

    cdef int cancelled(self) except -1:
        self.mailbox.patient = None
        return 0

    cdef object attempt(self):
        return None if self.is_called else PENDING


@cython.final
cdef class Mailbox(Layer):
    """The top of a chain during negotiation: holds bytes until somebody asks for them.

    When a step of the negotiation is done, `insert` puts a layer below the mailbox, or `replace` puts one in its
    place. The new layer first gets the bytes that the mailbox still holds, so nothing a fast peer sent is lost.
    """

    def __cinit__(self):
        self.held = ByteQueue.__new__(ByteQueue)

    def read_exactly(self, Py_ssize_t n):
        """Exactly `n` bytes, 0..MAILBOX_BYTES. One reader at a time.

        Returns: an awaitable of bytes. Cancelling it leaves all bytes in the mailbox.
        Raises: IncompleteRead at the end of input (its `partial` has the rest); ConnectionClosed
            (or the reason given) if the connection broke; LimitExceeded for a larger n.
        """
        if n < 0 or n > MAILBOX_BYTES:
            raise errors.LimitExceeded("mailbox read", n, MAILBOX_BYTES)
        if self.state is None:
            raise errors.LocalProtocolError("this mailbox is on no chain")
        cdef _ReadExactly op = _ReadExactly.__new__(_ReadExactly)
        op.state = self.state
        op.mailbox = self
        op.n = n
        return op

    def read_frame(self):
        """One message with a big-endian length of 2 bytes in front, as Noise has them: 0..65535 bytes.

        Returns: an awaitable of bytes, without the length. If it is cancelled, the length may be gone.
        Raises: IncompleteRead at the end of input; ConnectionClosed, as read_exactly.
        """
        if self.state is None:
            raise errors.LocalProtocolError("this mailbox is on no chain")
        cdef _ReadFrame op = _ReadFrame.__new__(_ReadFrame)
        op.state = self.state
        op.mailbox = self
        op.n = -1
        return op

    def read(self, Py_ssize_t most):
        """What is there, 1 to `most` bytes (most: 1..MAILBOX_BYTES); b"" at the end of input.

        Returns: an awaitable of bytes, as read_exactly's. Raises: ConnectionClosed; LimitExceeded.
        """
        return self._some(1, most, False)

    def peek(self, Py_ssize_t n):
        """The next `n` bytes, which stay where they are; fewer only at the end of input.

        Returns: an awaitable of bytes, as read_exactly's. Raises: ConnectionClosed; LimitExceeded.
        """
        return self._some(n, n, True)

    def turn(self):
        """Lets other connections go first: done when it is this one's turn. One at a time."""
        cdef _Turn op = _Turn.__new__(_Turn)
        op.state = self.state
        op.mailbox = self
        return op

    cdef int go_on(self) except -1:
        cdef _Turn patient = <_Turn> self.patient
        if patient is not None:
            self.patient = None
            patient.is_called = True
            patient.wake()
        return 0

    def take_opening(self):
        """The message behind multistream's header, where both are here by now; None: nothing has been taken."""
        message = None if self.reader is not None else take_opening(self.held)
        self._count(self.held.size)
        return message

    def expect(self, bytes reply not None, protocol not None, step not None):
        """Lazy negotiation: the peer's next bytes must be `reply`, which no read will see.

        Reads get ProtocolNotSupported for a refusal, and NegotiationError for anything else.
        """
        cdef ByteQueue early = self.held
        self.answer = Answer.__new__(Answer)
        self.answer.begin(reply, protocol, step)
        if early.size:
            self.held = ByteQueue.__new__(ByteQueue)
            self._count(0)
            data = bytearray(early.take_exactly(early.size))
            self.feed(<uint8_t *> <char *> data, len(data))
        if self.input_ended:
            self.feed_eof()

    @property
    def is_expecting(self):
        """Whether the answer to a lazy proposal has not come, or was none."""
        return self.answer is not None

    def unread(self, bytes data not None):
        """Puts `data` back in front of the bytes held. Only for what was read last, and not while a read waits."""
        cdef ByteQueue queue = ByteQueue.__new__(ByteQueue)
        if self.reader is not None:
            raise errors.LocalProtocolError("a read of this mailbox is waiting")
        queue.push(<const uint8_t *> <const char *> data, len(data))
        queue.append(self.held)
        self.held = queue
        self._count(queue.size)

    cdef object _some(self, Py_ssize_t least, Py_ssize_t most, bint keeps):
        if most < 1 or most > MAILBOX_BYTES:
            raise errors.LimitExceeded("mailbox read", most, MAILBOX_BYTES)
        if self.state is None:
            raise errors.LocalProtocolError("this mailbox is on no chain")
        cdef _ReadSome op = _ReadSome.__new__(_ReadSome)
        op.state = self.state
        op.mailbox = self
        op.least = least
        op.most = most
        op.keeps = keeps
        return op

    def write(self, bytes data not None):
        """Hands `data` down at once. Give in one call what should leave in one packet.

        Raises: ConnectionClosed if the connection is gone.
        """
        if self.error is not None:
            raise again(self.error)
        if self.put_off is not None:
            data = self.put_off + data
            self.put_off = None
        self.send(<const uint8_t *> <const char *> data, len(data))

    def write_later(self, bytes data not None):
        """Keeps `data` for the next write. It leaves before a read waits and before another layer is seated.

        Raises: as write.
        """
        if self.error is not None:
            raise again(self.error)
        self.put_off = data if self.put_off is None else self.put_off + data

    cdef int _send_put_off(self) except -1:
        cdef bytes data = self.put_off
        if data is not None:
            self.put_off = None
            self.send(<const uint8_t *> <const char *> data, len(data))
        return 0

    def account(self, Ledger ledger not None):
        """From now on `ledger` counts the bytes that wait on this chain."""
        cdef Layer bottom = self
        while bottom.below is not None:
            bottom = bottom.below
        bottom.set_ledger(ledger)

    @property
    def num_held(self):
        """Bytes held."""
        return self.held.size

    @property
    def is_lost(self):
        return self.error is not None or self.below is None

    def insert(self, Layer layer not None):
        """Seats `layer` directly below. The bytes held go through it first.

        Raises: ConnectionClosed if the chain is lost; what the layer raises for those bytes.
        """
        cdef Layer below = self._linked_for(layer)
        cdef ByteQueue held = self.held
        if layer.is_top():
            raise errors.LocalProtocolError("nothing can be above this layer")
        self.held = ByteQueue.__new__(ByteQueue)
        self._count(0)
        layer.seat(below)
        self.seat(layer)
        self._give_from(held, layer)

    def replace(self, Layer layer not None):
        """Gives this place on the chain to `layer`. It is first fed the bytes held.

        Raises: as insert. The mailbox is empty and unlinked afterwards.
        """
        cdef Layer below = self._linked_for(layer)
        if not layer.is_top():
            raise errors.LocalProtocolError("something must be above this layer")
        self._count(0)
        layer.seat(below)
        self.below = None
        self._give(layer)

    def abort(self):
        """Closes the connection at once. Idempotent."""
        self.drop(errors.ConnectionClosed("aborted during negotiation"))

    def close(self):
        """Ends in order: what was written leaves, then FIN, then a short drain.

        Bytes that are held, and bytes that still come, are dropped. Reads fail after lost(). Idempotent.
        """
        self._send_put_off()
        self.closing = True
        self.input_ended = False
        self.held.clear()
        self._count(0)
        self.shut()

    cdef bint is_top(self) noexcept:
        return True

    cdef Layer _linked_for(self, Layer layer):
        """The layer below, after the checks that `layer` may be seated on it."""
        if self.error is not None:
            raise again(self.error)
        if self.below is None:
            raise errors.ConnectionClosed("the connection is closed")
        if layer.state is not None:
            raise errors.LocalProtocolError("this layer is on a chain already")
        self._send_put_off()
        return self.below

    cdef int _give(self, Layer layer) except -1:
        return self._give_from(self.held, layer)

    cdef int _give_from(self, ByteQueue held, Layer layer) except -1:
        cdef bytearray data
        cdef bint input_ended = self.input_ended
        if self.throttled:
            self.throttled = False
            layer.throttle(False)
        if held.size:
            data = bytearray(held.take_exactly(held.size))
            layer.feed(<uint8_t *> <char *> data, len(data))
        if input_ended:
            self.input_ended = False
            layer.feed_eof()
        return 0

    cdef bytes _taken(self, Py_ssize_t n):
        out = self.held.take_exactly(n)
        self._count(self.held.size)
        if self.throttled and self.held.size < MAILBOX_BYTES:
            self.throttled = False
            self.throttle(False)
        return out

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1:
        cdef Py_ssize_t k
        if self.closing:
            return 0
        if self.answer is not None:
            k = self._answered(data, n)
            data += k
            n -= k
        self.held.push(data, n)
        self._count(self.held.size)
        if self.held.size >= MAILBOX_BYTES and not self.throttled:
            self.throttled = True
            self.throttle(True)
        return self._wake()

    cdef int feed_eof(self) except -1:
        self.input_ended = not self.closing
        if self.answer is not None and self.input_ended and self.error is None:
            self.answer.ended()
            self.error = self.answer.error
            self.input_ended = False  # reads raise, and do not find an orderly end
        return self._wake()

    cdef Py_ssize_t _answered(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Takes what belongs to the answer to a lazy proposal; returns how many bytes that was."""
        cdef Py_ssize_t k
        if self.error is not None:
            return n  # it was none: what follows is of no use
        k = self.answer.take(data, n)
        if self.answer.error is not None:
            self.error = self.answer.error
            return n
        if self.answer.is_settled:
            self.answer = None
        return k

    cdef int lost(self, object error) except -1:
        if self.error is None:
            self.error = error
        self.above = self.below = None
        return self._wake()

    cdef int pause(self) except -1:
        return 0

    cdef int resume(self) except -1:
        return 0

    cdef int _count(self, Py_ssize_t size) except -1:
        """`size` bytes are held now."""
        cdef Py_ssize_t more = size - self.counted
        self.counted = size
        return self.tally(more, 0) if more else 0

    cdef int _wake(self) except -1:
        cdef Op reader = self.reader
        if reader is not None:
            self.reader = None
            reader.wake()
        return 0

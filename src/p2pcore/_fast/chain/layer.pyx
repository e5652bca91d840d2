"""The chain every connection is, and its top while steps are negotiated.

Comes in: received bytes from below (feed), bytes to send from above (send). Goes out: the same,
changed by each layer. Never runs application code, never feeds from within a write.
"""

cimport cython
from libc.stdint cimport uint8_t

from p2pcore import errors, limits

from p2pcore._fast.loop.buffer cimport ByteQueue
from p2pcore._fast.loop.waiting cimport PENDING, Op, again

cdef Py_ssize_t MAILBOX_BYTES = limits.MAILBOX_BYTES


cdef class Layer(Flushable):
    """One layer of a connection; by itself it hands everything on unchanged."""

    # -- towards the application ---------------------------------------------------------------

    cdef int feed(self, uint8_t* data, Py_ssize_t n) except -1:
        """Received bytes. Raises RemoteProtocolError or LimitExceeded: the connection is then dropped."""
        return self.above.feed(data, n)

    cdef int feed_eof(self) except -1:
        """The peer sends no more."""
        return self.above.feed_eof()

    cdef int lost(self, object error) except -1:
        """The socket is gone, with the reason. The last call; breaks the links."""
        cdef Layer above = self.above
        self.above = self.below = None
        if above is not None:
            above.lost(error)
        return 0

    cdef int pause(self) except -1:
        """The socket takes no more for now: stop writing what can wait."""
        return self.above.pause()

    cdef int resume(self) except -1:
        """The socket has taken everything."""
        return self.above.resume()

    # -- towards the socket --------------------------------------------------------------------

    cdef int send(self, const uint8_t* data, Py_ssize_t n) except -1:
        """Sends bytes. Raises ConnectionClosed once the chain is lost; between its end and lost() they go nowhere."""
        if self.below is None:
            raise errors.ConnectionClosed("the connection is closed")
        return self.below.send(data, n)

    cdef int send_in_place(self, uint8_t* data, Py_ssize_t n) except -1:
        """As send(), of memory that may be overwritten, and so may the `headroom` bytes in front of it."""
        return self.send(data, n)

    cdef int throttle(self, bint on) except -1:
        """Stops or goes on reading from the socket."""
        if self.below is not None:
            self.below.throttle(on)
        return 0

    cdef int shut(self) except -1:
        """Orderly end: what was written leaves, then FIN, a short drain, and lost()."""
        if self.below is not None:
            self.below.shut()
        return 0

    cdef int drop(self, object error) except -1:
        """End at once: lost(error) follows from the event loop."""
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

    cdef bint is_an_end(self) noexcept:
        """Whether it can be the top of a chain, with nothing above it."""
        return False


cdef class _MailboxRead(Op):
    """An await on a mailbox; one at a time."""

    cdef Mailbox mailbox

    cdef int suspended(self) except -1:
        if self.mailbox.reader is not None:
            raise errors.LocalProtocolError("another read of this mailbox is waiting")
        self.mailbox.reader = self
        return self.mailbox._send_put_off()

    cdef int abandoned(self) except -1:
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
        if box.ended:
            raise errors.IncompleteRead(box._taken(box.held.size), self.n)
        return PENDING


@cython.final
cdef class _ReadFrame(_MailboxRead):
    """await of Mailbox.read_frame."""

    cdef Py_ssize_t n           # of the body; -1 before its length has been read

    cdef object attempt(self):
        cdef Mailbox box = self.mailbox
        cdef bytes prefix
        cdef const uint8_t* at
        if self.n < 0 and box.held.size >= 2:
            prefix = box._taken(2)
            at = <const uint8_t*> <const char*> prefix
            self.n = (at[0] << 8) | at[1]
        if self.n >= 0 and box.held.size >= self.n:
            return box._taken(self.n)
        if box.error is not None:
            raise again(box.error)
        if box.ended:
            raise errors.IncompleteRead(box._taken(box.held.size), max(self.n, 2))
        return PENDING


@cython.final
cdef class _ReadSome(_MailboxRead):
    """await of Mailbox.read_some and Mailbox.peek."""

    cdef Py_ssize_t least       # bytes it waits for, unless the input ends before
    cdef Py_ssize_t most
    cdef bint keeps             # they stay in the mailbox

    cdef object attempt(self):
        cdef Mailbox box = self.mailbox
        if box.held.size < self.least and not box.ended:
            if box.error is not None:
                raise again(box.error)
            return PENDING
        data = box._taken(min(box.held.size, self.most))
        if self.keeps:
            box.unread(data)
        return data


@cython.final
cdef class Mailbox(Layer):
    """The top of a chain during negotiation: holds bytes until somebody asks for them.

    When the step it serves is done, `insert` puts a layer below it or `replace` gives its place
    away; what it still holds goes to the new layer first, so nothing a fast peer sent is lost.
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
        """What is behind a big-endian length of 2 bytes, as Noise has them; 0..65535 bytes.

        Returns: an awaitable of bytes. Cancelled, it may have taken the length.
        Raises: IncompleteRead at the end of input; ConnectionClosed, as read_exactly.
        """
        if self.state is None:
            raise errors.LocalProtocolError("this mailbox is on no chain")
        cdef _ReadFrame op = _ReadFrame.__new__(_ReadFrame)
        op.state = self.state
        op.mailbox = self
        op.n = -1
        return op

    def read_some(self, Py_ssize_t most):
        """What is there, 1 to `most` bytes (most: 1..MAILBOX_BYTES); b"" at the end of input.

        Returns: an awaitable of bytes, as read_exactly's. Raises: ConnectionClosed; LimitExceeded.
        """
        return self._some(1, most, False)

    def peek(self, Py_ssize_t n):
        """The next `n` bytes, which stay where they are; fewer only at the end of input.

        Returns: an awaitable of bytes, as read_exactly's. Raises: ConnectionClosed; LimitExceeded.
        """
        return self._some(n, n, True)

    def take_opening(self):
        """The message behind multistream's header, where both are here by now; None: nothing has been taken."""
        return None if self.reader is not None else self.held.take_opening()

    def unread(self, bytes data not None):
        """Puts `data`, which was read last, back in front of what is held. Not while a read waits."""
        cdef ByteQueue queue = ByteQueue.__new__(ByteQueue)
        if self.reader is not None:
            raise errors.LocalProtocolError("a read of this mailbox is waiting")
        queue.push(<const uint8_t*> <const char*> data, len(data))
        queue.append(self.held)
        self.held = queue

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
        """Hands `data` down at once; what should leave in one packet comes in one call.

        Raises: ConnectionClosed if the connection is gone.
        """
        if self.error is not None:
            raise again(self.error)
        if self.put_off is not None:
            data = self.put_off + data
            self.put_off = None
        self.send(<const uint8_t*> <const char*> data, len(data))

    def write_later(self, bytes data not None):
        """Hands `data` down with the next write; at the latest when a read has to wait, or another layer comes.

        Raises: as write.
        """
        if self.error is not None:
            raise again(self.error)
        self.put_off = data if self.put_off is None else self.put_off + data

    cdef int _send_put_off(self) except -1:
        cdef bytes data = self.put_off
        if data is not None:
            self.put_off = None
            self.send(<const uint8_t*> <const char*> data, len(data))
        return 0

    @property
    def num_held(self):
        """Bytes held."""
        return self.held.size

    @property
    def is_lost(self):
        return self.error is not None or self.below is None

    def insert(self, Layer layer not None):
        """Seats `layer` directly below; held bytes go through it first.

        Raises: ConnectionClosed if the chain is lost; what the layer raises for those bytes.
        """
        cdef Layer below = self._linked_for(layer)
        cdef ByteQueue held = self.held
        if layer.is_an_end():
            raise errors.LocalProtocolError("nothing can be above this layer")
        self.held = ByteQueue.__new__(ByteQueue)
        layer.seat(below)
        self.seat(layer)
        self._give_from(held, layer)

    def replace(self, Layer layer not None):
        """Gives this place on the chain to `layer`; held bytes are fed to it first.

        Raises: as insert. The mailbox is empty and unlinked afterwards.
        """
        cdef Layer below = self._linked_for(layer)
        if not layer.is_an_end():
            raise errors.LocalProtocolError("something must be above this layer")
        layer.seat(below)
        self.below = None
        self._give(layer)

    def abort(self):
        """Closes the connection at once. Idempotent."""
        self.drop(errors.ConnectionClosed("aborted during negotiation"))

    def close(self):
        """Orderly end: what was written leaves, then FIN, and a short drain.

        What is held, and what still comes, is dropped; reads fail once the socket is gone. Idempotent.
        """
        self._send_put_off()
        self.closing = True
        self.ended = False
        self.held.clear()
        self.shut()

    cdef bint is_an_end(self) noexcept:
        return True

    cdef Layer _linked_for(self, Layer layer):
        """The layer below, for a new one that may take its place above it."""
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
        cdef bint ended = self.ended
        if self.throttled:
            self.throttled = False
            layer.throttle(False)
        if held.size:
            data = bytearray(held.take_exactly(held.size))
            layer.feed(<uint8_t*> <char*> data, len(data))
        if ended:
            self.ended = False
            layer.feed_eof()
        return 0

    cdef bytes _taken(self, Py_ssize_t n):
        out = self.held.take_exactly(n)
        if self.throttled and self.held.size < MAILBOX_BYTES:
            self.throttled = False
            self.throttle(False)
        return out

    cdef int feed(self, uint8_t* data, Py_ssize_t n) except -1:
        if self.closing:
            return 0
        self.held.push(data, n)
        if self.held.size >= MAILBOX_BYTES and not self.throttled:
            self.throttled = True
            self.throttle(True)
        return self._wake()

    cdef int feed_eof(self) except -1:
        self.ended = not self.closing
        return self._wake()

    cdef int lost(self, object error) except -1:
        self.error = error
        self.above = self.below = None
        return self._wake()

    cdef int pause(self) except -1:
        return 0

    cdef int resume(self) except -1:
        return 0

    cdef int _wake(self) except -1:
        cdef Op reader = self.reader
        if reader is not None:
            self.reader = None
            reader.wake()
        return 0

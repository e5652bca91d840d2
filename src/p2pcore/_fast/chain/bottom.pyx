"""What every bottom of a chain does the same way: it feeds the chain, holds it back, and ends.

Comes in: shut() and drop() of the chain, and what the peer takes and sends. Goes out: pause() and resume(), the
end of our half, lost(). Never forgets the first reason to end, never ends while it feeds, and never queues
without a bound for a peer that does not read.
"""

import logging

from libc.stdint cimport uint8_t, uint32_t

from p2pcore import errors, limits

from p2pcore._fast.chain.layer cimport Layer, Mailbox
from p2pcore._fast.loop.clock cimport monotonic
from p2pcore._fast.loop.ledger cimport Ledger, count_chain

logger = logging.getLogger("p2pcore.wire")

cdef double STALL_S = limits.WRITE_STALL_TIMEOUT_S
cdef double STALL_LOOK_S = STALL_S / limits.WRITE_STALL_LOOKS
cdef double DRAIN_S = limits.CLOSE_DRAIN_TIMEOUT_S
cdef double FLUSH_S = limits.CLOSE_FLUSH_TIMEOUT_S
cdef Py_ssize_t MAX_QUEUED = limits.MAX_QUEUED_CONTROL_BYTES
# What a layer above has gathered when it is paused, at most: counted whole, as it is a block of this size.
cdef Py_ssize_t GATHERED_BYTES = limits.MAX_NOISE_RECORD_BYTES


cdef class Bottom(Layer):
    """Where a chain begins: a socket, a stream of another connection, the other end of a pair in memory."""

    @property
    def mailbox(self):
        """The Mailbox on top of the chain; None once another layer has replaced it."""
        cdef Layer top = self
        while top.above is not None:
            top = top.above
        return top if isinstance(top, Mailbox) else None

    def open_mailbox(self):
        """As `mailbox`, where there must be one. Raises ConnectionClosed: it has been replaced, or is gone."""
        mailbox = self.mailbox
        if mailbox is None:
            raise errors.ConnectionClosed("the connection is closed, or has been upgraded")
        return mailbox

    def abort(self):
        """Ends at once; unsent bytes are dropped. Idempotent."""
        self.drop(errors.ConnectionClosed("the connection was aborted here"))

    # -- feeding -------------------------------------------------------------------------------

    cdef bint feed_up(self, uint8_t *data, Py_ssize_t n) except -1:
        """Feeds the chain. Returns whether the connection goes on; an end that was asked for has begun."""
        count_in(self, n)
        self.feeding = True
        try:
            self.above.feed(data, n)
        except Exception as error:
            self._feeding_failed(error)
        finally:
            self.feeding = False
        if not self.ending:
            return True
        self.go_on_ending()
        return False

    cdef bint feed_eof_up(self) except -1:
        """As feed_up, with the peer's end."""
        self.feeding = True
        try:
            self.above.feed_eof()
        except Exception as error:
            self._feeding_failed(error)
        finally:
            self.feeding = False
        if not self.ending:
            return True
        self.go_on_ending()
        return False

    cdef int _feeding_failed(self, object error) except -1:
        if not isinstance(error, errors.P2PError):
            logger.error("feeding a connection failed", exc_info=error)  # a bug of ours
        return self.drop(error)

    # -- back-pressure -------------------------------------------------------------------------

    cdef int pause_above(self) except -1:
        """Bytes wait for the peer now: the chain is paused until resume_above(), and the stall is timed."""
        if not self.queued:
            self.queued = True
            self.over = 0
            self.tally(0, GATHERED_BYTES)
            self.moved_at = monotonic()
            self.unsent = self.num_unsent()
            self.state.timers.watch(self, STALL_LOOK_S)
            if self.above is not None:
                self.above.pause()
        return 0

    cdef int resume_above(self) except -1:
        """The peer has taken all that waited."""
        if not self.queued:
            return 0
        self.queued = False
        self.tally(0, -<Py_ssize_t> self.waits)
        self.state.timers.unwatch(self)
        if self.ending:
            return self.go_on_ending()
        return self.above.resume() if self.above is not None else 0

    cdef bint may_queue(self, Py_ssize_t n) except -1:
        """Whether `n` more bytes may wait; if not, the connection ends. While nothing waits, they may."""
        if not self.queued:
            return True
        if n <= MAX_QUEUED - <Py_ssize_t> self.over:
            self.over += <uint32_t> n
            return True
        self.drop(errors.LimitExceeded("bytes queued for a peer that does not read", self.over + n, MAX_QUEUED))
        return False

    cdef int set_ledger(self, Ledger ledger) except -1:
        if self.ledger is not None or self.is_closed:
            return 0
        self.ledger = ledger
        ledger.bytes_in += self.bytes_in
        ledger.bytes_out += self.bytes_out
        return count_chain(ledger, self.held, self.waits)

    cdef int tally(self, Py_ssize_t held, Py_ssize_t waits) except -1:
        if self.is_closed and self.above is None:
            return 0  # lose() has given back all
        self.held = <uint32_t> (<Py_ssize_t> self.held + held)
        self.waits = <uint32_t> (<Py_ssize_t> self.waits + waits)
        return 0 if self.ledger is None else count_chain(self.ledger, held, waits)

    cdef bint is_paused(self) except -1:
        return self.queued or self.is_closed

    cdef int overdue(self) except -1:
        """The peer took nothing for STALL_S, or did not end its half within DRAIN_S after we ended ours.

        As long as it goes on to take what was sent before our end, it has FLUSH_S.
        """
        cdef Py_ssize_t unsent
        if self.fin_sent:
            unsent = self.num_unsent()
            if 0 < unsent < self.unsent and monotonic() - self.moved_at < FLUSH_S:
                self.unsent = unsent
                return self.state.timers.watch(self, DRAIN_S)
            return self.drop(errors.ConnectionClosed("the connection was closed here"))
        unsent = self.num_unsent()
        if unsent < self.unsent:
            self.unsent = unsent
            self.moved_at = monotonic()
        if monotonic() - self.moved_at < STALL_S:
            return self.state.timers.watch(self, STALL_LOOK_S)
        return self.drop(closed_by(TimeoutError(f"the peer took no byte for {STALL_S:g} s")))

    # -- the end -------------------------------------------------------------------------------

    cdef int shut(self) except -1:
        if not self.ending:
            self.ending = True
            self.go_on_ending()
        return 0

    cdef int drop(self, object error) except -1:
        if self.error is None and not self.is_closed:
            self.error = error
        self.ending = True
        return self.go_on_ending()

    cdef int go_on_ending(self) except -1:
        """The next step of an end that was asked for, where one can be taken now."""
        if self.feeding or self.is_closed:
            return 0
        if self.error is not None:
            return self.break_off()
        if not self.queued and not self.fin_sent:
            self.fin_sent = True
            self.throttled = False
            self.moved_at = monotonic()
            self.unsent = self.num_unsent()
            self.state.timers.watch(self, DRAIN_S)
            self.send_fin()
        if self.fin_sent and self.both_ended():
            return self.break_off()
        return 0

    cdef int lose_soon(self) except -1:
        """The connection is closed: lost() follows from the event loop."""
        self.is_closed = self.ending = True
        self.state.timers.unwatch(self)
        self.state.loop.call_soon(self._lose)
        return 0

    def _lose(self):
        self.lose(errors.ConnectionClosed("the connection is closed"))

    cdef int lose(self, object error) except -1:
        """The connection is gone: tells the chain, with `error` unless drop() was given a reason."""
        cdef Layer above = self.above
        self.is_closed = self.ending = True
        self.above = None
        self.state.timers.unwatch(self)
        if self.ledger is not None:
            count_chain(self.ledger, -<Py_ssize_t> self.held, -<Py_ssize_t> self.waits)
            self.ledger = None
        self.held = self.waits = 0
        if above is not None:
            above.lost(self.error or error)
        self.error = None
        return 0

    # -- for the subclass to override ----------------------------------------------------------

    cdef Py_ssize_t num_unsent(self) except -1:
        """Bytes sent here that the peer has not taken."""
        raise NotImplementedError

    cdef int send_fin(self) except -1:
        """Ends our half, and reads what the peer still sends; nothing of ours waits any more."""
        raise NotImplementedError

    cdef int break_off(self) except -1:
        """Closes now, whatever waits. lose_soon() or lose() follows."""
        raise NotImplementedError

    cdef bint both_ended(self) except -1:
        """Whether the peer has ended its half too. Asked after send_fin()."""
        return False


cdef object closed_by(object cause):
    """The reason lost() carries when the connection broke by the exception `cause`; None: an orderly end."""
    if cause is None:
        return errors.ConnectionClosed("the connection is closed")
    closed = errors.ConnectionClosed(f"the connection broke: {cause}")
    closed.__cause__ = cause
    return closed

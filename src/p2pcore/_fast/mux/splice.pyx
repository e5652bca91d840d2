"""Two streams joined to one circuit: what comes on one goes out on the other, without a task or a copy.

Comes in: two negotiated streams, limits of bytes and seconds. Goes out: data, half closes, resets with
their codes, and one call when it has ended. Never holds more than the streams' receive windows and one piece: a stream gets no credit for
what waits. Source: libp2p/specs circuit-v2.
"""

import logging

cimport cython
from libc.stdint cimport int64_t, uint8_t

from p2pcore import codes, errors

from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.loop.flush cimport Flushable
from p2pcore._fast.mux.stream cimport Stream

logger = logging.getLogger("p2pcore.relay")


@cython.final
cdef class SpliceHalf(Layer):
    """One direction: the sink of its source."""

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1:
        if self.target.error is not None:
            return 0  # it cannot be told any more. Its own bytes still go the other way, and then lost() follows
        try:
            if 0 <= self.left < n:
                raise errors.LimitExceeded("bytes of a relayed connection", self.passed + n, self.passed + self.left)
            if self.left >= 0:
                self.left -= n
            self.passed += n
            self.source.hold(self.target.put(data, n))
        except Exception as error:
            if not isinstance(error, errors.P2PError):
                logger.error("relaying failed", exc_info=error)
            self.whole.drop(error)
        return 0

    cdef int feed_eof(self) except -1:
        self.target.close_write()
        return self.whole.drop_if_ended()

    cdef int lost(self, object error) except -1:
        """The source has failed. If its peer had ended before, that end has been passed on, behind all bytes."""
        if self.source.eof_fed and self.target.error is None:
            self.target.close_read()
            return self.whole.drop_if_ended()
        return self.whole.drop(error)

    cdef int resume(self) except -1:
        """Our source has sent all that came the other way. So the other half goes on."""
        self.other.go_on()
        return self.whole.drop_if_ended()

    cdef int go_on(self) except -1:
        self.source.hold(False)
        return self.source.pour()


@cython.final
cdef class Splice(Flushable):
    """One circuit.

    Args:
        one, other: negotiated streams without a reader; owned from `start` on.
        max_bytes: each way, then both are reset; negative for no limit.
        seconds: until both are reset, coarsely; 0 for no limit.
        ended: called once, from the event loop, with why it ended: None if both sides were done, else
            LimitExceeded, TimeoutError, what a stream failed with, or what `abort` was given.
    """

    def __cinit__(self, Stream one not None, Stream other not None, int64_t max_bytes, double seconds, ended):
        self.state = one.state
        self.seconds = seconds
        self.ended = ended
        self.there = _half(self, one, other, max_bytes)
        self.back = _half(self, other, one, max_bytes)
        self.there.other = self.back
        self.back.other = self.there

    @property
    def passed(self):
        """Bytes relayed so far, from `one` and from `other`."""
        return self.there.passed, self.back.passed

    def start(self):
        """Begins, with what the streams hold already.

        Raises: what a stream has failed with. Then the other one stays as it is, and `ended` is not called.
        """
        self.there.source.attach(self.there)
        try:
            self.back.source.attach(self.back)
        except BaseException:
            self.there.source.detach()
            raise
        if self.seconds:
            self.state.timers.watch(self, self.seconds)
        self.there.go_on()
        if not self.is_closed:
            self.back.go_on()

    def abort(self, error not None):
        """Resets both streams at once. Idempotent."""
        self.drop(error)

    cdef int overdue(self) except -1:
        return self.drop(TimeoutError(f"a relayed connection is cut after {self.seconds:g} s"))

    cdef int drop_if_ended(self) except -1:
        """Ends if both streams have ended both ways."""
        if not self.is_closed and self.there.source.has_ended() and self.back.source.has_ended():
            self.drop(None)
        return 0

    cdef int drop(self, object error) except -1:
        """Ends at once; None: both streams have ended in good order."""
        cdef SpliceHalf half
        if self.is_closed:
            return 0
        self.is_closed = True
        self.state.timers.unwatch(self)
        code = 0
        if isinstance(error, (errors.LimitExceeded, TimeoutError)):
            code = codes.STREAM_RESOURCE_LIMIT_EXCEEDED
        elif isinstance(error, errors.StreamReset):
            code = error.code  # a reset stays the same reset
        for item in (self.there, self.back):
            half = <SpliceHalf> item
            half.source.detach()
            half.source.reset(code)
        self.state.loop.call_soon(self._tell, error)
        return 0

    def _tell(self, error):
        ended, self.ended = self.ended, None
        ended(error)


cdef SpliceHalf _half(Splice whole, Stream source, Stream target, int64_t max_bytes):
    cdef SpliceHalf half = SpliceHalf.__new__(SpliceHalf)
    half.whole = whole
    half.source = source
    half.target = target
    half.left = max_bytes
    return half

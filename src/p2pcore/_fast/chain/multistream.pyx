"""What of multistream-select 1.0 touches the data path: its header, and the answer to a lazy proposal.

Comes in: the peer's first bytes. Goes out: the message behind the header, or how a proposal was answered that left
together with data. Never takes a byte behind the answer, never waits for a byte once one has come that is wrong.
The conversation itself is upgrade/multistream.py. Specification: multiformats/multistream-select.
"""

from p2pcore import errors

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from p2pcore._fast.loop.buffer cimport ByteQueue

MSS_HEADER = b"\x13/multistream/1.0.0\n"
HEADER = MSS_HEADER
NOT_AVAILABLE = b"\x03na\n"

cdef bytes REFUSAL = MSS_HEADER + NOT_AVAILABLE
cdef Py_ssize_t HEADER_BYTES = len(MSS_HEADER)
cdef uint8_t NEWLINE = 0x0A
cdef Py_ssize_t MAX_KEPT = 512      # of an answer: two headers and the longest echo, 298 bytes
cdef Py_ssize_t MAX_SHOWN = 64      # of it, in an error

# What bytes begin with that are no multistream-select.
cdef tuple STRANGERS = (
    (b"\x16\x03", "TLS"),
    (b"SSH-", "SSH"),
    ((b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"DELETE ", b"PATCH ", b"HTTP/", b"PRI * "), "HTTP"),
)


def spoken(bytes first not None):
    """The name of the protocol whose first bytes these are; None for an unknown one."""
    for beginning, name in STRANGERS:
        if first.startswith(beginning):
            return name
    return None


cdef bytes take_opening(ByteQueue queue):
    """The message behind the header, if both are here in one piece; None: nothing is taken.

    Returns: the message, its length of one byte before it; nothing but its newline at the end is checked.
    """
    cdef Py_ssize_t n
    cdef const uint8_t *at = queue.front(&n)
    cdef uint8_t length
    if n < HEADER_BYTES + 2 or memcmp(at, PyBytes_AS_STRING(MSS_HEADER), HEADER_BYTES) != 0:
        return None
    length = at[HEADER_BYTES]
    if length == 0 or length >= 0x80 or n - HEADER_BYTES - 1 < length or at[HEADER_BYTES + length] != NEWLINE:
        return None
    queue.take_exactly(HEADER_BYTES)
    return queue.take_exactly(1 + <Py_ssize_t> length)


cdef class Answer(Flushable):
    """The answer to a proposal that was sent with data behind it; whoever receives gives it the first bytes."""

    cdef int begin(self, bytes hoped, object protocol, object step) except -1:
        """Waits for `hoped`, the header and the echo of `protocol`."""
        self.hoped = hoped
        self.protocol = protocol
        self.step = step
        return 0

    cdef Py_ssize_t take(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Takes what belongs to the answer, and says how many bytes that was. To be asked until it is settled."""
        cdef Py_ssize_t left = PyBytes_GET_SIZE(self.hoped) - self.at
        cdef Py_ssize_t k = min(n, left)
        if self.instead is None and memcmp(data, PyBytes_AS_STRING(self.hoped) + self.at, k) == 0:
            self.at += k
            self.is_settled = k == left
            return k
        return self._judge(data, n)

    cdef int ended(self) except -1:
        """The peer sends no more."""
        cdef object error = errors.NegotiationError(
            f"{self.step}: the peer ended it before it answered {self.protocol}")
        error.__cause__ = errors.IncompleteRead(self.hoped[:self.at], PyBytes_GET_SIZE(self.hoped))
        return self.fail(error)

    cdef int fail(self, object error) except -1:
        """It is settled, and badly."""
        error.stage = self.step
        self.error = error
        self.is_settled = True
        return 0

    cdef Py_ssize_t _judge(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Not simply what was hoped for: a header said twice (js), a refusal, the beginning of one, or nonsense."""
        cdef Py_ssize_t had
        cdef bytes other
        if self.instead is None:
            self.instead = bytearray(self.hoped[:self.at])
        had = len(self.instead)
        self.instead += (<const char *> data)[:min(n, MAX_KEPT)]
        for other in (MSS_HEADER + self.hoped, REFUSAL, MSS_HEADER + REFUSAL):
            if self.instead.startswith(other):
                self.is_settled = True
                if other.endswith(REFUSAL):
                    self.fail(errors.ProtocolNotSupported((self.protocol,), self.step))
                return len(other) - had
            if other.startswith(self.instead):
                return n
        what = "sent no answer" if self.instead.startswith(MSS_HEADER) else "does not speak multistream-select"
        self.fail(errors.NegotiationError(
            f"{self.step}: we proposed {self.protocol}, and the peer {what}: {bytes(self.instead[:MAX_SHOWN])!r}"))
        return n

"""The frames of a WebSocket: the layer above gets their payloads, and what it sends leaves as binary frames.

Comes in: frames cut anywhere from below, bytes from above. Goes out: payload bytes unmasked in place; one
binary frame for each send. The borders of messages mean nothing, and text counts as bytes. Never holds a
payload, never allocates by a declared length, never offers or accepts an extension.
Specification: RFC 6455, sections 5 and 7.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy

from p2pcore import errors, limits

from p2pcore._fast.loop.buffer cimport Block
from p2pcore._fast.codec.endian cimport load_be16, load_be64, store_be16, store_be64
from p2pcore._fast.chain.layer cimport Layer

cdef Py_ssize_t MAX_EMPTY_FRAMES = limits.WEBSOCKET_MAX_EMPTY_FRAMES
cdef Py_ssize_t MAX_SEND = limits.MAX_NOISE_RECORD_BYTES + 2    # a whole noise record is one frame

cdef enum:
    FIN = 0x80
    MASKED = 0x80
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10
    MAX_CONTROL = 125           # RFC 6455 section 5.5
    NORMAL = 1000               # section 7.4.1, and the following
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_CODE = 1005
    POLICY = 1008
    MASK_POOL = 4096


@cython.final
cdef class WebsocketLayer(Layer):
    """Between a connection and what is above it, once the HTTP upgrade is done.

    If the peer closes with code 1000, 1001 or none, the input ends. With another code the connection ends with
    ConnectionClosed. The close is answered, and FIN follows. Of several pings in one turn, the newest is answered.

    Args:
        is_client: we dialled. Then our frames are masked, and the peer's must not be.
    """

    def __cinit__(self, bint is_client):
        self.is_client = is_client

    cdef int headroom(self) noexcept:
        return MAX_HEAD_BYTES

    # -- receiving -----------------------------------------------------------------------------

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1:
        cdef Py_ssize_t k
        while n > 0 and not self.input_ended and self.above is not None:
            if self.left == 0:
                k = self._take_head(data, n)
            elif self.control is not None:
                k = self._take_control(data, n)
            else:
                k = n if <uint64_t> n < self.left else <Py_ssize_t> self.left
                self.left -= <uint64_t> k
                if not self.is_client:
                    apply_mask(data, k, self.mask, self.phase)
                    self.phase = (self.phase + k) & 3
                self.above.feed(data, k)
            data += k
            n -= k
        if self.left or self.have:
            self.has_begun()
        return 0

    cdef bint is_unfinished(self) noexcept:
        return not self.input_ended and (self.left != 0 or self.have != 0)

    cdef int _take_head(self, uint8_t *data, Py_ssize_t n) except -1:
        """Reads more of a header; returns the bytes used."""
        cdef int used = 0
        while used < n:
            self.head[self.have] = data[used]
            self.have += 1
            used += 1
            if self.have == 2:
                self._check_start()
            if self.have >= 2 and self.have == self.need:
                self.have = 0
                self._begin()
                break
        return used

    cdef int _check_start(self) except -1:
        """Checks the first two bytes at once, before more has come."""
        cdef uint8_t opcode = self.head[0] & 15
        cdef uint8_t size = self.head[1] & 127
        if self.head[0] & 0x70:
            self._violated("reserved bits are set")
        if opcode >= CLOSE:
            if opcode > PONG:
                self._violated(f"opcode {opcode} is reserved")
            if size > MAX_CONTROL:
                self._violated("a control frame is longer than 125 bytes")
            if not self.head[0] & FIN:
                self._violated("a control frame is fragmented")
        elif opcode > BINARY:
            self._violated(f"opcode {opcode} is reserved")
        elif self.in_message != (opcode == CONTINUATION):
            self._violated(
                "a message begins inside another" if self.in_message else "a continuation of no message")
        if (self.head[1] & MASKED != 0) == self.is_client:
            self._violated("a frame of a server is masked" if self.is_client else "a frame of a client is not masked")
        self.need = 2 + (2 if size == 126 else 8 if size == 127 else 0) + (0 if self.is_client else 4)
        return 0

    cdef int _begin(self) except -1:
        """The header is whole. Next comes its payload, or the next header if it has none."""
        cdef uint8_t opcode = self.head[0] & 15
        cdef uint64_t size = self.head[1] & 127
        if size == 126:
            size = load_be16(self.head + 2)
            if size < 126:
                self._violated(f"a length of {size} takes 16 bits")
        elif size == 127:
            size = load_be64(self.head + 2)
            if size >> 63:
                self._violated("the top bit of a length is set")
            if size <= 0xFFFF:
                self._violated(f"a length of {size} takes 64 bits")
        if not self.is_client:
            memcpy(self.mask, self.head + self.need - 4, 4)
            self.phase = 0
        self.left = size
        if opcode >= CLOSE:
            self.control = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size)
            return self._control_done() if size == 0 else 0
        self.in_message = not self.head[0] & FIN
        self.empty_run = 0 if size else self.empty_run + 1
        if self.empty_run > MAX_EMPTY_FRAMES:
            self._send_last(_code(POLICY))
            raise errors.LimitExceeded("empty WebSocket frames in a row", self.empty_run, MAX_EMPTY_FRAMES)
        return 0

    cdef int _take_control(self, uint8_t *data, Py_ssize_t n) except -1:
        """Reads more of a control frame's payload; returns the bytes used."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.control)
        cdef Py_ssize_t left = <Py_ssize_t> self.left
        cdef int k = <int> min(n, left)
        memcpy(PyBytes_AS_STRING(self.control) + (size - left), data, k)
        self.left -= <uint64_t> k
        if self.left == 0:
            if not self.is_client:
                apply_mask(<uint8_t *> PyBytes_AS_STRING(self.control), size, self.mask, 0)
            self._control_done()
        return k

    cdef int _control_done(self) except -1:
        cdef uint8_t opcode = self.head[0] & 15
        cdef bytes payload = self.control
        self.control = None
        if opcode == PING:
            self.pong = payload
            self.state.flusher.flush_soon(self)
        elif opcode == CLOSE:
            self._closed_by_peer(payload)
        return 0

    cdef int _closed_by_peer(self, bytes payload) except -1:
        cdef int code = NO_CODE
        if len(payload) == 1:
            self._violated("a close frame has half a code")
        if payload:
            code = load_be16(<const uint8_t *> PyBytes_AS_STRING(payload))
            if not _is_code(code):
                self._violated(f"close code {code} must not be sent")
        reason = _text(payload[2:])
        if reason is None:
            self._violated("the reason of a close frame is not UTF-8")
        self.input_ended = True
        self.close_answer = payload[:2]
        if code in (NORMAL, GOING_AWAY, NO_CODE):
            self.above.feed_eof()
            # The layers above may send something at once, a go-away for instance: it still leaves before our answer.
            return self.state.flusher.flush_soon(self)
        self._send_last(self.close_answer)
        return Layer.drop(
            self, errors.ConnectionClosed(f"the peer closed the WebSocket with code {code}, {reason!r}"))

    cdef int feed_eof(self) except -1:
        if self.input_ended:
            return 0
        if self.left or self.have:
            raise errors.ConnectionClosed("the connection ended inside a WebSocket frame")
        return self.above.feed_eof()

    cdef int _send_last(self, bytes payload) except -1:
        """Sends a close frame as the last frame, if it can leave at once. What still comes is dropped."""
        self.input_ended = True
        self._send_close(payload)
        return self.below.flush() if self.below is not None else 0

    cdef int _violated(self, str what) except -1:
        """Tells the peer, and ends the connection. Always raises."""
        self._send_last(_code(PROTOCOL_ERROR))
        raise errors.RemoteProtocolError(f"WebSocket: {what}", PROTOCOL_ERROR)

    # -- sending -------------------------------------------------------------------------------

    cdef int send(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Frames of up to MAX_SEND bytes, copied behind their headers."""
        cdef Py_ssize_t k
        cdef Block block
        if self.below is None:
            raise errors.ConnectionClosed("the connection is closed")
        block = self.state.records.take()
        try:
            while n > 0:
                k = min(n, MAX_SEND)
                memcpy(block.data + MAX_HEAD_BYTES, data, k)
                self._emit(BINARY, block.data + MAX_HEAD_BYTES, k)
                data += k
                n -= k
        finally:
            self.state.records.give(block)
        return 0

    cdef int send_in_place(self, uint8_t *data, Py_ssize_t n) except -1:
        if self.below is None:
            raise errors.ConnectionClosed("the connection is closed")
        return self._emit(BINARY, data, n) if n else 0

    cdef int _emit(self, uint8_t opcode, uint8_t *payload, Py_ssize_t n) except -1:
        """Sends one frame: its header goes in front of `payload`, which is masked where it is."""
        cdef Py_ssize_t head = 2 + (0 if n <= MAX_CONTROL else 2 if n <= 0xFFFF else 8) + (4 if self.is_client else 0)
        cdef uint8_t *at = payload - head
        if self.close_sent:
            return 0  # nothing may follow a close
        at[0] = FIN | opcode
        if n <= MAX_CONTROL:
            at[1] = <uint8_t> n
        elif n <= 0xFFFF:
            at[1] = 126
            store_be16(at + 2, <uint16_t> n)
        else:
            at[1] = 127
            store_be64(at + 2, <uint64_t> n)
        if self.is_client:
            at[1] |= MASKED
            _next_mask(payload - 4)
            apply_mask(payload, n, payload - 4, 0)
        return self.below.send(at, head + n)

    cdef int _send_control(self, uint8_t opcode, bytes payload) except -1:
        cdef uint8_t frame[MAX_HEAD_BYTES + MAX_CONTROL]
        cdef Py_ssize_t n = PyBytes_GET_SIZE(payload)
        memcpy(frame + MAX_HEAD_BYTES, PyBytes_AS_STRING(payload), n)
        return self._emit(opcode, frame + MAX_HEAD_BYTES, n)

    cdef int _send_close(self, bytes payload) except -1:
        if not self.close_sent and self.below is not None:
            self._send_control(CLOSE, payload)
            self.close_sent = True
        return 0

    cdef int flush(self) except -1:
        """Answers the newest ping, if the socket takes bytes, and the peer's close."""
        if self.below is None:
            return 0
        if self.pong is not None and not self.below.is_paused():
            self._send_control(PONG, self.pong)
            self.pong = None
        if self.close_answer is not None:
            self._send_close(self.close_answer)
            self.close_answer = None
            Layer.shut(self)
        return 0

    cdef int resume(self) except -1:
        if self.pong is not None:
            self.state.flusher.flush_soon(self)
        return Layer.resume(self)

    cdef int shut(self) except -1:
        """Ends in order: a close frame behind what was sent, then FIN. The drain reads the peer's answer."""
        self._send_close(_code(NORMAL))
        return Layer.shut(self)

    cdef int lost(self, object error) except -1:
        self.control = self.pong = self.close_answer = None
        return Layer.lost(self, error)


cdef bytes _code(int code):
    return code.to_bytes(2, "big")


cdef bint _is_code(int code) noexcept:
    """Whether a close frame may carry `code`: RFC 6455 section 7.4, and IANA's registry."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


cdef object _text(bytes raw):
    """`raw` as text, None where it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


# -- masks -----------------------------------------------------------------------------------------

cdef void apply_mask(uint8_t *data, Py_ssize_t n, const uint8_t *mask, int phase) noexcept nogil:
    """XORs `data` with the mask repeated, from its byte `phase` on. The loop over words is vectorised."""
    cdef uint8_t turned[8]
    cdef uint64_t eight, word
    cdef Py_ssize_t i
    for i in range(8):
        turned[i] = mask[(phase + i) & 3]
    memcpy(&eight, turned, 8)
    for i in range(n >> 3):
        memcpy(&word, data + 8 * i, 8)
        word ^= eight
        memcpy(data + 8 * i, &word, 8)
    for i in range(n & ~7, n):
        data[i] ^= turned[i & 7]


# Masks must be unpredictable (RFC 6455 section 10.3). One call for random bytes is enough for a thousand masks.
cdef uint8_t[MASK_POOL] _pool
cdef Py_ssize_t _pooled = 0


cdef int _next_mask(uint8_t *out) except -1:
    global _pooled
    if _pooled < 4:
        fresh = os.urandom(MASK_POOL)
        memcpy(_pool, PyBytes_AS_STRING(fresh), MASK_POOL)
        _pooled = MASK_POOL
    _pooled -= 4
    memcpy(out, &_pool[_pooled], 4)
    return 0


def _forget_masks():
    """A forked process must not use the masks of its parent."""
    global _pooled
    _pooled = 0


os.register_at_fork(after_in_child=_forget_masks)

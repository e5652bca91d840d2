# The mplex message header: two varints, (stream id << 3 | flag) and the body's length. Spec: libp2p/specs mplex.
# Comes in: fields or bytes. Goes out: bytes or fields. Checks only that a varint is one: what a value may be
# is the session's business.
from libc.stdint cimport uint8_t, uint64_t

from p2pcore._fast.codec.varint cimport MAX_VARINT_BYTES, varint_read, varint_write

cdef enum:
    MAX_HEADER_BYTES = 18   # two varints of nine bytes
    MAX_LENGTH_BYTES = 3    # the length of a body that may be sent: up to 1 MiB

cdef enum Flag:
    NEW_STREAM = 0
    MESSAGE = 1             # these three as the side sends them that did not open the stream;
    CLOSE = 3               # the opener's are one more
    RESET = 5


cdef struct Header:
    uint64_t id             # up to 2^60-1
    int flag                # 0..7
    uint64_t length         # body bytes


cdef inline int read_header(const uint8_t *data, size_t n, Header *out) noexcept nogil:
    """Bytes of the header; 0 if it is not whole, less for what is no varint (varint.pxd)."""
    cdef uint64_t first
    cdef int used = varint_read(data, n, &first)
    cdef int more
    if used <= 0:
        return used
    more = varint_read(data + used, n - <size_t> used, &out.length)
    if more <= 0:
        return more
    out.id = first >> 3
    out.flag = <int> (first & 7)
    return used + more


cdef inline int varint_size(uint64_t value) noexcept nogil:
    cdef int n = 1
    while value >= 0x80:
        value >>= 7
        n += 1
    return n


cdef inline int put_header(uint8_t *at, uint64_t id, int flag, uint64_t length) noexcept nogil:
    """Bytes written, at most 12 for a body that may be sent."""
    cdef int used = varint_write(at, id << 3 | <uint64_t> flag)
    return used + varint_write(at + used, length)

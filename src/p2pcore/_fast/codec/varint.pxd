# See varint.pyx.
from libc.stdint cimport uint8_t, uint64_t

from p2pcore._fast.codec.cursor cimport Cursor

cdef enum:
    MAX_VARINT_BYTES = 9   # 63 bits, the specification's bound
    VARINT_MORE = 0        # the input ends inside the varint
    VARINT_OVERFLOW = -1   # the ninth byte says another one follows
    VARINT_PADDED = -2     # not the shortest form


cdef inline int varint_read(const uint8_t *data, size_t n, uint64_t *value) noexcept nogil:
    # Bytes used, or one of the codes above; `value` is set only on success.
    cdef size_t i
    cdef uint64_t result = 0
    for i in range(<size_t>MAX_VARINT_BYTES):
        if i == n:
            return VARINT_MORE
        result |= <uint64_t>(data[i] & 0x7F) << (7 * i)
        if data[i] < 0x80:
            value[0] = result
            return VARINT_PADDED if data[i] == 0 and i > 0 else <int>i + 1
    return VARINT_OVERFLOW


cdef inline int varint_write(uint8_t *out, uint64_t value) noexcept nogil:
    # Bytes written, at most ten; nine for every value below 2**63.
    cdef int i = 0
    while value >= 0x80:
        out[i] = <uint8_t>(value | 0x80)
        value >>= 7
        i += 1
    out[i] = <uint8_t>value
    return i + 1


cdef inline int varint_take(Cursor *c, uint64_t *value) noexcept nogil:
    # As varint_read from where the cursor is; moves it only on success.
    cdef int used = varint_read(c.at, <size_t>(c.end - c.at), value)
    if used > 0:
        c.at += used
    return used

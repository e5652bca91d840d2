# A place in a byte string that checks before it moves.
#
# Comes in: a pointer and a length that stay valid while the cursor is used; it owns nothing.
# Goes out: pointers into that string, or NULL where too few bytes are left; then the cursor has
# not moved. Never reads past `end`.

from libc.stdint cimport uint8_t


cdef struct Cursor:
    const uint8_t *at   # the next byte
    const uint8_t *end  # one past the last byte


cdef inline Cursor cursor(const uint8_t *data, size_t n) noexcept nogil:
    cdef Cursor c
    c.at = data
    c.end = data + n
    return c


cdef inline size_t remaining(const Cursor *c) noexcept nogil:
    return <size_t>(c.end - c.at)


cdef inline const uint8_t *take(Cursor *c, size_t n) noexcept nogil:
    cdef const uint8_t *start = c.at
    if n > remaining(c):
        return NULL
    c.at += n
    return start

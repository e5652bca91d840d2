# The last data frame written, while it can still grow: small writes that follow one another on a stream become
# one frame. Stands alone. The session keeps whose frame it is (Session.growing); the muxer writes the header.
from libc.stdint cimport uint8_t, uint64_t

from p2pcore._fast.crypto.secure cimport Cork

cdef enum:
    # A new frame is begun in the room left of a record only if this much body fits; else it gets a record of its own.
    LEAST_BODY = 256


cdef struct OpenFrame:
    uint64_t sealed         # cork.sealed when it was written
    Py_ssize_t end          # cork.used behind it
    Py_ssize_t body         # bytes of its body
    uint8_t *at             # what changes when it grows: yamux, the header; mplex, the length


cdef inline bint can_grow(const OpenFrame *frame, Cork cork) noexcept:
    """Whether it is still the last thing in a record that has not been sent."""
    return frame.sealed == cork.sealed and frame.end == cork.used


cdef inline int has_grown(OpenFrame *frame, Cork cork) except -1:
    """The frame ends where the record does; a full record leaves."""
    frame.end = cork.used
    if cork.space() == 0:
        cork.seal()
    return 0

# See peer_id.pyx.
from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    PEER_ROOM = 128  # what peer_parse needs: MAX_PEER_ID_TEXT_CHARS never decodes to more


cdef int multihash_split(const uint8_t *data, size_t n, uint64_t *code, size_t *digest) noexcept nogil
cdef int peer_check(const uint8_t *data, size_t n, const char **why) noexcept nogil
cdef Py_ssize_t peer_parse(const uint8_t *text, size_t n, uint8_t *out, const char **why) noexcept nogil
cdef Py_ssize_t peer_print(const uint8_t *data, size_t n, uint8_t *out, size_t room) noexcept nogil


cdef class PeerIdValue:
    cdef readonly bytes _bytes  # the multihash

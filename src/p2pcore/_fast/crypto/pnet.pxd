# See pnet.pyx.
from libc.stdint cimport uint8_t, uint64_t

from p2pcore._fast.chain.layer cimport Layer


cdef struct Keystream:
    uint8_t nonce[24]
    uint64_t at             # bytes of it used


cdef class PnetLayer(Layer):
    cdef uint8_t key[32]
    cdef Keystream outgoing
    cdef Keystream incoming
    cdef bint is_begun          # our nonce has been sent
    cdef int num_nonce          # bytes of the peer's nonce that have come
    cdef int num_agreed         # bytes of the multistream header that have come, and were right

    cdef int _begin(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int _nonce_of_peer(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int _feed_first(self, uint8_t *data, Py_ssize_t n) except -1
    cdef int _check(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef int _xor(self, Keystream *stream, uint8_t *out, const uint8_t *data, Py_ssize_t n) noexcept

# See sodium.pyx.
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

cdef int sodium_seal(uint8_t *data, Py_ssize_t n, uint64_t nonce, const uint8_t *key) noexcept
cdef bint sodium_open(uint8_t *data, Py_ssize_t n, uint64_t nonce, const uint8_t *key) noexcept
cdef int sodium_seal_with(uint8_t *out, const uint8_t *plain, Py_ssize_t n, const uint8_t *ad,
                          Py_ssize_t ad_size, uint64_t nonce, const uint8_t *key) noexcept
cdef bint sodium_open_with(uint8_t *out, const uint8_t *sealed, Py_ssize_t n, const uint8_t *ad,
                           Py_ssize_t ad_size, uint64_t nonce, const uint8_t *key) noexcept
cdef bint sodium_x25519(uint8_t *out, const uint8_t *secret, const uint8_t *public) noexcept
cdef int sodium_sha256(uint8_t *out, const uint8_t *first, Py_ssize_t n, const uint8_t *second, Py_ssize_t m) noexcept
cdef int sodium_hkdf(uint8_t *out, const uint8_t *salt, const uint8_t *secret, Py_ssize_t n) noexcept
cdef int sodium_wipe(void *at, size_t n) noexcept


cdef inline void put_nonce(uint8_t *at, uint64_t counter) noexcept:
    """The 12 bytes of Noise's nonce: 4 zero bytes and the counter, little-endian."""
    cdef int i
    memset(at, 0, 4)
    for i in range(8):
        at[4 + i] = <uint8_t> (counter >> (8 * i))

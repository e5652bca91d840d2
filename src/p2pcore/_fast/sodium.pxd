# ChaCha20-Poly1305 of libsodium, called as C: for records so short that a call through Python costs more
# than the cipher. Comes in: pointers to a record, a key, a nonce's counter. Goes out: the record sealed or
# opened in place. Never allocates. (Handshakes use the Python functions of the .pyi.)
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

cdef int sodium_seal(uint8_t* data, Py_ssize_t n, uint64_t nonce, const uint8_t* key) noexcept
cdef bint sodium_open(uint8_t* data, Py_ssize_t n, uint64_t nonce, const uint8_t* key) noexcept


cdef inline void put_nonce(uint8_t* at, uint64_t counter) noexcept:
    """The 12 bytes of Noise's nonce: 4 zero bytes and the counter, little-endian."""
    cdef int i
    memset(at, 0, 4)
    for i in range(8):
        at[4 + i] = <uint8_t> (counter >> (8 * i))

"""ChaCha20-Poly1305 of libsodium, called as C: for records so short that a call through Python costs more.

Comes in: pointers to a record, a key, a nonce's counter. Goes out: the record sealed or opened in
place. Never allocates. The functions are those of the libsodium that PyNaCl carries: its cffi module
tells their addresses. RFC 8439; the nonce is Noise's: 4 zero bytes and the counter, little-endian.
"""

from libc.stdint cimport uint8_t, uint64_t, uintptr_t
from libc.string cimport memset

from nacl import _sodium

ctypedef int (*Encrypt)(
    uint8_t* out, unsigned long long* out_size, const uint8_t* data, unsigned long long n,
    const uint8_t* ad, unsigned long long ad_size, const uint8_t* unused, const uint8_t* nonce,
    const uint8_t* key) noexcept nogil
ctypedef int (*Decrypt)(
    uint8_t* out, unsigned long long* out_size, uint8_t* unused, const uint8_t* data, unsigned long long n,
    const uint8_t* ad, unsigned long long ad_size, const uint8_t* nonce, const uint8_t* key) noexcept nogil


def _address(name):
    return int(_sodium.ffi.cast("uintptr_t", _sodium.ffi.addressof(_sodium.lib, name)))


if _sodium.lib.sodium_init() < 0:
    raise ImportError("libsodium of PyNaCl cannot be initialised")

cdef Encrypt _encrypt = <Encrypt> <uintptr_t> _address("crypto_aead_chacha20poly1305_ietf_encrypt")
cdef Decrypt _decrypt = <Decrypt> <uintptr_t> _address("crypto_aead_chacha20poly1305_ietf_decrypt")


cdef inline void _put_nonce(uint8_t* at, uint64_t counter) noexcept:
    cdef int i
    memset(at, 0, 4)
    for i in range(8):
        at[4 + i] = <uint8_t> (counter >> (8 * i))


cdef int sodium_seal(uint8_t* data, Py_ssize_t n, uint64_t nonce, const uint8_t* key) noexcept:
    """Encrypts `n` bytes in place; the 16 behind them become the tag."""
    cdef uint8_t at[12]
    _put_nonce(at, nonce)
    return _encrypt(data, NULL, data, <unsigned long long> n, NULL, 0, NULL, at, key)


cdef bint sodium_open(uint8_t* data, Py_ssize_t n, uint64_t nonce, const uint8_t* key) noexcept:
    """Decrypts `n` bytes, the tag among them, in place; False if the tag is not theirs."""
    cdef uint8_t at[12]
    _put_nonce(at, nonce)
    return _decrypt(data, NULL, NULL, data, <unsigned long long> n, NULL, 0, at, key) == 0

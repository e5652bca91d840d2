"""ChaCha20-Poly1305 and X25519 of libsodium, called as C: where a call through Python costs more.

Comes in: records and messages, keys, a nonce's counter. Goes out: the same sealed or opened, shared
secrets. The functions are those of the libsodium that PyNaCl carries: its cffi module tells their
addresses. RFC 8439 with Noise's nonce (4 zero bytes and the counter, little-endian), RFC 7748.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from libc.stdint cimport uint8_t, uint64_t, uintptr_t

from nacl import _sodium

ctypedef int (*Encrypt)(
    uint8_t* out, unsigned long long* out_size, const uint8_t* data, unsigned long long n,
    const uint8_t* ad, unsigned long long ad_size, const uint8_t* unused, const uint8_t* nonce,
    const uint8_t* key) noexcept nogil
ctypedef int (*Decrypt)(
    uint8_t* out, unsigned long long* out_size, uint8_t* unused, const uint8_t* data, unsigned long long n,
    const uint8_t* ad, unsigned long long ad_size, const uint8_t* nonce, const uint8_t* key) noexcept nogil
ctypedef int (*Multiply)(uint8_t* out, const uint8_t* secret, const uint8_t* public) noexcept nogil
ctypedef int (*MultiplyBase)(uint8_t* out, const uint8_t* secret) noexcept nogil


def _address(name):
    return int(_sodium.ffi.cast("uintptr_t", _sodium.ffi.addressof(_sodium.lib, name)))


if _sodium.lib.sodium_init() < 0:
    raise ImportError("libsodium of PyNaCl cannot be initialised")

cdef Encrypt _encrypt = <Encrypt> <uintptr_t> _address("crypto_aead_chacha20poly1305_ietf_encrypt")
cdef Decrypt _decrypt = <Decrypt> <uintptr_t> _address("crypto_aead_chacha20poly1305_ietf_decrypt")
cdef Multiply _multiply = <Multiply> <uintptr_t> _address("crypto_scalarmult")
cdef MultiplyBase _multiply_base = <MultiplyBase> <uintptr_t> _address("crypto_scalarmult_base")

cdef Py_ssize_t KEY_BYTES = 32
cdef Py_ssize_t TAG_BYTES = 16


cdef int sodium_seal(uint8_t* data, Py_ssize_t n, uint64_t nonce, const uint8_t* key) noexcept:
    """Encrypts `n` bytes in place; the 16 behind them become the tag."""
    cdef uint8_t at[12]
    put_nonce(at, nonce)
    return _encrypt(data, NULL, data, <unsigned long long> n, NULL, 0, NULL, at, key)


cdef bint sodium_open(uint8_t* data, Py_ssize_t n, uint64_t nonce, const uint8_t* key) noexcept:
    """Decrypts `n` bytes, the tag among them, in place; False if the tag is not theirs."""
    cdef uint8_t at[12]
    put_nonce(at, nonce)
    return _decrypt(data, NULL, NULL, data, <unsigned long long> n, NULL, 0, at, key) == 0


cdef int _check_key(bytes key) except -1:
    if PyBytes_GET_SIZE(key) != KEY_BYTES:
        raise ValueError(f"a key has 32 bytes, not {len(key)}")
    return 0


cdef inline uint8_t* _at(bytes data) noexcept:
    return <uint8_t*> PyBytes_AS_STRING(data)


def seal(bytes key not None, uint64_t nonce, bytes plain not None, bytes ad not None):
    """`plain` encrypted, and its tag; `ad` is authenticated with it. A key and nonce are used once."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(plain)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n + TAG_BYTES)
    cdef uint8_t at[12]
    _check_key(key)
    put_nonce(at, nonce)
    _encrypt(_at(out), NULL, _at(plain), <unsigned long long> n, _at(ad), <unsigned long long> len(ad), NULL, at,
             _at(key))
    return out


def unseal(bytes key not None, uint64_t nonce, bytes sealed not None, bytes ad not None):
    """What `seal` was given; None if the tag does not belong to it."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(sealed) - TAG_BYTES
    cdef bytes out
    cdef uint8_t at[12]
    _check_key(key)
    if n < 0:
        return None
    out = PyBytes_FromStringAndSize(NULL, n)
    put_nonce(at, nonce)
    if _decrypt(_at(out), NULL, NULL, _at(sealed), <unsigned long long> (n + TAG_BYTES), _at(ad),
                <unsigned long long> len(ad), at, _at(key)):
        return None
    return out


def x25519(bytes secret not None, bytes public not None):
    """The shared secret; None for a public key of low order, whose result would be all zeros."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, KEY_BYTES)
    _check_key(secret)
    _check_key(public)
    return None if _multiply(_at(out), _at(secret), _at(public)) else out


def x25519_public(bytes secret not None):
    """The public key of `secret`."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, KEY_BYTES)
    _check_key(secret)
    _multiply_base(_at(out), _at(secret))
    return out

"""libsodium called as C, because a call through Python costs more: its cipher, X25519, SHA-256, HMAC, Ed25519.

Comes in: records and messages, keys, a nonce's counter. Goes out: the same sealed or opened, shared
secrets, hashes, verdicts. The functions are found by name in the libsodium that PyNaCl brings.
RFC 8439 with Noise's nonce (4 zero bytes and the counter, little-endian), RFC 7748, FIPS 180-4, RFC 5869.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from libc.stdint cimport uint8_t, uint64_t
from posix.dlfcn cimport RTLD_NOW, dlopen, dlsym

WORKS_WITH = "pynacl>=1.5,<1.7"  # as pyproject.toml has it; make lowest and make newest prove it

try:
    from nacl import _sodium
except ImportError as why:
    raise ImportError(f"PyNaCl has no bindings of libsodium that p2pcore knows; it works with {WORKS_WITH}") from why

ctypedef int (*Encrypt)(
    uint8_t *out, unsigned long long *out_size, const uint8_t *data, unsigned long long n,
    const uint8_t *ad, unsigned long long ad_size, const uint8_t *unused, const uint8_t *nonce,
    const uint8_t *key) noexcept nogil
ctypedef int (*Decrypt)(
    uint8_t *out, unsigned long long *out_size, uint8_t *unused, const uint8_t *data, unsigned long long n,
    const uint8_t *ad, unsigned long long ad_size, const uint8_t *nonce, const uint8_t *key) noexcept nogil
ctypedef int (*Multiply)(uint8_t *out, const uint8_t *secret, const uint8_t *public) noexcept nogil
ctypedef int (*MultiplyBase)(uint8_t *out, const uint8_t *secret) noexcept nogil
ctypedef int (*HashInit)(HashState *state) noexcept nogil
ctypedef int (*HashUpdate)(HashState *state, const uint8_t *data, unsigned long long n) noexcept nogil
ctypedef int (*HashFinal)(HashState *state, uint8_t *out) noexcept nogil
ctypedef int (*MacInit)(MacState *state, const uint8_t *key, size_t n) noexcept nogil
ctypedef int (*MacUpdate)(MacState *state, const uint8_t *data, unsigned long long n) noexcept nogil
ctypedef int (*MacFinal)(MacState *state, uint8_t *out) noexcept nogil
ctypedef int (*Verify)(
    const uint8_t *signature, const uint8_t *message, unsigned long long n, const uint8_t *public) noexcept nogil
ctypedef void (*Wipe)(void *at, size_t n) noexcept nogil
ctypedef size_t (*Size)() noexcept nogil


# As libsodium's headers have them; their sizes are asked for below.
cdef struct HashState:
    uint64_t words[13]


cdef struct MacState:
    HashState inner
    HashState outer


if _sodium.lib.sodium_init() < 0:
    raise ImportError("libsodium of PyNaCl cannot be initialised")

cdef bytes _path = _sodium.__file__.encode()
cdef void *_library = dlopen(_path, RTLD_NOW)  # loaded already: a second reference to it, never given back


cdef void *_found(const char *name) except NULL:
    cdef void *at = NULL if _library == NULL else dlsym(_library, name)
    if at == NULL:
        raise ImportError(f"{_sodium.__file__} does not give out {name.decode()} of libsodium; p2pcore works with {WORKS_WITH}")
    return at


cdef Encrypt _encrypt = <Encrypt> _found(b"crypto_aead_chacha20poly1305_ietf_encrypt")
cdef Decrypt _decrypt = <Decrypt> _found(b"crypto_aead_chacha20poly1305_ietf_decrypt")
cdef Multiply _multiply = <Multiply> _found(b"crypto_scalarmult_curve25519")
cdef MultiplyBase _multiply_base = <MultiplyBase> _found(b"crypto_scalarmult_curve25519_base")
cdef HashInit _hash_init = <HashInit> _found(b"crypto_hash_sha256_init")
cdef HashUpdate _hash_update = <HashUpdate> _found(b"crypto_hash_sha256_update")
cdef HashFinal _hash_final = <HashFinal> _found(b"crypto_hash_sha256_final")
cdef MacInit _mac_init = <MacInit> _found(b"crypto_auth_hmacsha256_init")
cdef MacUpdate _mac_update = <MacUpdate> _found(b"crypto_auth_hmacsha256_update")
cdef MacFinal _mac_final = <MacFinal> _found(b"crypto_auth_hmacsha256_final")
cdef Verify _verify = <Verify> _found(b"crypto_sign_ed25519_verify_detached")
cdef Wipe _wipe = <Wipe> _found(b"sodium_memzero")

if (<Size> _found(b"crypto_hash_sha256_statebytes"))() > sizeof(HashState) or (
        <Size> _found(b"crypto_auth_hmacsha256_statebytes"))() != sizeof(MacState):
    raise ImportError("the states of libsodium's SHA-256 have another size than this module was built for")

cdef Py_ssize_t KEY_BYTES = 32
cdef Py_ssize_t TAG_BYTES = 16
cdef Py_ssize_t SIGNATURE_BYTES = 64


cdef int sodium_seal(uint8_t *data, Py_ssize_t n, uint64_t nonce, const uint8_t *key) noexcept:
    """Encrypts `n` bytes in place; the 16 behind them become the tag."""
    cdef uint8_t at[12]
    put_nonce(at, nonce)
    return _encrypt(data, NULL, data, <unsigned long long> n, NULL, 0, NULL, at, key)


cdef bint sodium_open(uint8_t *data, Py_ssize_t n, uint64_t nonce, const uint8_t *key) noexcept:
    """Decrypts `n` bytes, the tag among them, in place; False if the tag is not theirs."""
    cdef uint8_t at[12]
    put_nonce(at, nonce)
    return _decrypt(data, NULL, NULL, data, <unsigned long long> n, NULL, 0, at, key) == 0


cdef int sodium_seal_with(uint8_t *out, const uint8_t *plain, Py_ssize_t n, const uint8_t *ad,
                          Py_ssize_t ad_size, uint64_t nonce, const uint8_t *key) noexcept:
    """`n` bytes encrypted to `out`, and their tag behind them; `ad` is authenticated with them."""
    cdef uint8_t at[12]
    put_nonce(at, nonce)
    return _encrypt(out, NULL, plain, <unsigned long long> n, ad, <unsigned long long> ad_size, NULL, at, key)


cdef bint sodium_open_with(uint8_t *out, const uint8_t *sealed, Py_ssize_t n, const uint8_t *ad,
                           Py_ssize_t ad_size, uint64_t nonce, const uint8_t *key) noexcept:
    """`n` bytes, the tag among them, decrypted to `out`; False if the tag is not theirs."""
    cdef uint8_t at[12]
    put_nonce(at, nonce)
    return _decrypt(out, NULL, NULL, sealed, <unsigned long long> n, ad, <unsigned long long> ad_size, at, key) == 0


cdef bint sodium_x25519(uint8_t *out, const uint8_t *secret, const uint8_t *public) noexcept:
    """The shared secret; False for a public key of low order, whose result would be all zeros."""
    return _multiply(out, secret, public) == 0


cdef int sodium_sha256(uint8_t *out, const uint8_t *first, Py_ssize_t n, const uint8_t *second, Py_ssize_t m) noexcept:
    """The hash of `first` and `second` in a row. `out` may be either."""
    cdef HashState state
    _hash_init(&state)
    _hash_update(&state, first, <unsigned long long> n)
    _hash_update(&state, second, <unsigned long long> m)
    return _hash_final(&state, out)


cdef int sodium_hkdf(uint8_t *out, const uint8_t *salt, const uint8_t *secret, Py_ssize_t n) noexcept:
    """64 bytes of HKDF-SHA256 with a salt of 32 bytes and no info. `out` may be `salt`."""
    cdef MacState state, keyed
    cdef uint8_t key[32]
    cdef uint8_t number
    _mac_init(&state, salt, 32)
    _mac_update(&state, secret, <unsigned long long> n)
    _mac_final(&state, key)
    _mac_init(&keyed, key, 32)  # both blocks begin with it
    state = keyed
    number = 1
    _mac_update(&state, &number, 1)
    _mac_final(&state, out)
    number = 2
    _mac_update(&keyed, out, 32)
    _mac_update(&keyed, &number, 1)
    _mac_final(&keyed, out + 32)
    _wipe(&state, sizeof(state))
    _wipe(&keyed, sizeof(keyed))
    _wipe(key, sizeof(key))
    return 0


cdef int sodium_wipe(void *at, size_t n) noexcept:
    """Writes zeros; no compiler leaves this out."""
    _wipe(at, n)
    return 0


cdef int _check_key(bytes key) except -1:
    if PyBytes_GET_SIZE(key) != KEY_BYTES:
        raise ValueError(f"a key has 32 bytes, not {len(key)}")
    return 0


cdef inline uint8_t *_at(bytes data) noexcept:
    return <uint8_t *> PyBytes_AS_STRING(data)


def seal(bytes key not None, uint64_t nonce, bytes plain not None, bytes ad not None):
    """`plain` encrypted, and its tag; `ad` is authenticated with it. A key and nonce are used once."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(plain)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n + TAG_BYTES)
    _check_key(key)
    sodium_seal_with(_at(out), _at(plain), n, _at(ad), len(ad), nonce, _at(key))
    return out


def unseal(bytes key not None, uint64_t nonce, bytes sealed not None, bytes ad not None):
    """What `seal` was given; None if the tag does not belong to it."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(sealed) - TAG_BYTES
    cdef bytes out
    _check_key(key)
    if n < 0:
        return None
    out = PyBytes_FromStringAndSize(NULL, n)
    if not sodium_open_with(_at(out), _at(sealed), n + TAG_BYTES, _at(ad), len(ad), nonce, _at(key)):
        return None
    return out


def x25519(bytes secret not None, bytes public not None):
    """The shared secret; None for a public key of low order, whose result would be all zeros."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, KEY_BYTES)
    _check_key(secret)
    _check_key(public)
    return out if sodium_x25519(_at(out), _at(secret), _at(public)) else None


def x25519_public(bytes secret not None):
    """The public key of `secret`."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, KEY_BYTES)
    _check_key(secret)
    _multiply_base(_at(out), _at(secret))
    return out


def ed25519_verify(bytes public not None, bytes message not None, bytes signature not None):
    """Whether `signature` over `message` was made with the key `public` (32 bytes). False for a wrong length."""
    _check_key(public)
    if len(signature) != SIGNATURE_BYTES:
        return False
    return _verify(_at(signature), _at(message), <unsigned long long> len(message), _at(public)) == 0

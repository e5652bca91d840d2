"""The Noise XX handshake over X25519, ChaCha20-Poly1305 and SHA-256, without any I/O.

Comes in: handshake messages, payloads, key pairs. Goes out: messages, payloads, the keys of the
transport phase. Never allocates by a length a peer sends: a message is whole before it comes here.
All primitives are libsodium's. Noise Protocol Framework revision 34, sections 5 and 7.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from p2pcore.errors import HandshakeError

from p2pcore._fast.crypto.sodium cimport (
    sodium_hkdf,
    sodium_open_with,
    sodium_seal_with,
    sodium_sha256,
    sodium_wipe,
    sodium_x25519,
)

from p2pcore._fast.crypto.sodium import x25519_public

cdef bytes NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"   # 32 bytes, so it is its own initial hash
cdef Py_ssize_t KEY = 32
cdef Py_ssize_t TAG = 16
cdef Py_ssize_t SEALED_KEY = 48


cdef inline uint8_t *_at(bytes data) noexcept:
    return <uint8_t *> PyBytes_AS_STRING(data)


cdef inline bytes _bytes(const uint8_t *at, Py_ssize_t n):
    return PyBytes_FromStringAndSize(<const char *> at, n)


@cython.final
cdef class KeyPair:
    """An X25519 key: 32 bytes each. Raises ValueError for others."""

    def __cinit__(self, bytes secret not None, bytes public not None):
        if len(secret) != KEY or len(public) != KEY:
            raise ValueError(f"an X25519 key has 32 bytes, not {len(secret)} and {len(public)}")
        self.secret = secret
        self.public = public

    @staticmethod
    def of(bytes secret not None):
        """The pair of a 32-byte secret."""
        return KeyPair(secret, x25519_public(secret))


cdef class SymmetricState:
    """Transcript hash, chaining key and cipher of a handshake (Noise, section 5.2)."""

    def __cinit__(self, bytes prologue not None=b""):
        memcpy(self._ck, _at(NAME), KEY)
        sodium_sha256(self._h, _at(NAME), KEY, _at(prologue), len(prologue))

    def __dealloc__(self):
        sodium_wipe(self._ck, sizeof(self._ck))

    @property
    def h(self):
        """The handshake hash so far."""
        return _bytes(self._h, KEY)

    @property
    def ck(self):
        """The chaining key."""
        return _bytes(self._ck, KEY)

    @property
    def key(self):
        """The cipher's key, None before the first."""
        return _bytes(self._ck + KEY, KEY) if self.has_key else None

    cpdef object mix_hash(self, bytes data):
        """Adds `data` to the transcript."""
        sodium_sha256(self._h, self._h, KEY, _at(data), PyBytes_GET_SIZE(data))

    cpdef object mix_key(self, bytes secret):
        """A new chaining key and a new key of the cipher."""
        sodium_hkdf(self._ck, self._ck, _at(secret), PyBytes_GET_SIZE(secret))
        self.has_key = True
        self.nonce = 0

    cpdef object encrypt_and_hash(self, bytes plaintext):
        """`plaintext` sealed; before the first key, as it is. The transcript gets what is returned."""
        cdef Py_ssize_t n = PyBytes_GET_SIZE(plaintext)
        cdef bytes sealed = plaintext
        if self.has_key:
            sealed = _bytes(NULL, n + TAG)
            sodium_seal_with(_at(sealed), _at(plaintext), n, self._h, KEY, self.nonce, self._ck + KEY)
            self.nonce += 1
        sodium_sha256(self._h, self._h, KEY, _at(sealed), PyBytes_GET_SIZE(sealed))
        return sealed

    cpdef object decrypt_and_hash(self, bytes sealed):
        """What encrypt_and_hash was given. Raises HandshakeError if `sealed` does not authenticate."""
        cdef Py_ssize_t n = PyBytes_GET_SIZE(sealed)
        cdef bytes plaintext = sealed
        if self.has_key:
            plaintext = None if n < TAG else _bytes(NULL, n - TAG)
            if plaintext is None or not sodium_open_with(
                    _at(plaintext), _at(sealed), n, self._h, KEY, self.nonce, self._ck + KEY):
                raise HandshakeError("a noise handshake message does not authenticate")
            self.nonce += 1
        sodium_sha256(self._h, self._h, KEY, _at(sealed), n)
        return plaintext

    def split(self):
        """The keys of the transport phase: the initiator sends with the first."""
        cdef uint8_t both[64]
        sodium_hkdf(both, self._ck, both, 0)
        keys = _bytes(both, KEY), _bytes(both + KEY, KEY)
        sodium_wipe(both, sizeof(both))
        return keys


cdef class Party:
    """What both sides of XX share.

    Args:
        static: our static key; ephemeral: 32 fresh random bytes; prologue: what both sides must know.

    Attributes:
        state: the transcript, whose last `h` is the handshake hash.
        remote_static: the peer's static key, authenticated once the call that reads it has returned.
    """

    def __cinit__(self, KeyPair static not None, bytes ephemeral not None, bytes prologue not None=b""):
        self.state = SymmetricState(prologue)
        self.remote_static = self.remote_ephemeral = b""
        self._static = static
        self._ephemeral = KeyPair.of(ephemeral)

    cdef int mix_dh(self, KeyPair ours, bytes theirs) except -1:
        """Mixes in the shared secret. Raises HandshakeError for a key of low order, or none."""
        cdef bytes shared = _bytes(NULL, KEY)
        if len(theirs) != KEY or not sodium_x25519(_at(shared), _at(ours.secret), _at(theirs)):
            raise HandshakeError("the peer's X25519 key has a low order")
        self.state.mix_key(shared)
        return 0


@cython.final
cdef class Initiator(Party):
    """The dialler's side of XX; call write_1, read_2, write_3, split, in this order."""

    def write_1(self, bytes payload not None=b""):
        """`-> e`. The payload is sent in clear."""
        public = self._ephemeral.public
        self.state.mix_hash(public)
        return public + self.state.encrypt_and_hash(payload)

    def read_2(self, bytes message not None):
        """`<- e, ee, s, es`; returns the payload. Raises HandshakeError."""
        if len(message) < KEY + SEALED_KEY + TAG:
            raise HandshakeError(f"noise message 2 has only {len(message)} bytes")
        self.remote_ephemeral = message[:KEY]
        self.state.mix_hash(self.remote_ephemeral)
        self.mix_dh(self._ephemeral, self.remote_ephemeral)
        self.remote_static = self.state.decrypt_and_hash(message[KEY:KEY + SEALED_KEY])
        self.mix_dh(self._ephemeral, self.remote_static)
        return self.state.decrypt_and_hash(message[KEY + SEALED_KEY:])

    def write_3(self, bytes payload not None):
        """`-> s, se`. Raises HandshakeError where read_2 was not called."""
        sealed = self.state.encrypt_and_hash(self._static.public)
        self.mix_dh(self._static, self.remote_ephemeral)
        return sealed + self.state.encrypt_and_hash(payload)

    def split(self):
        """(key to send with, key to receive with)."""
        return self.state.split()


@cython.final
cdef class Responder(Party):
    """The listener's side of XX; call read_1, write_2, read_3, split, in this order."""

    def read_1(self, bytes message not None):
        """`-> e`; returns the payload, which nobody has authenticated. Raises HandshakeError."""
        if len(message) < KEY:
            raise HandshakeError(f"noise message 1 has only {len(message)} bytes")
        self.remote_ephemeral = message[:KEY]
        self.state.mix_hash(self.remote_ephemeral)
        return self.state.decrypt_and_hash(message[KEY:])

    def write_2(self, bytes payload not None):
        """`<- e, ee, s, es`. Raises HandshakeError for a low-order key."""
        ephemeral = self._ephemeral
        self.state.mix_hash(ephemeral.public)
        self.mix_dh(ephemeral, self.remote_ephemeral)
        sealed = self.state.encrypt_and_hash(self._static.public)
        self.mix_dh(self._static, self.remote_ephemeral)
        return ephemeral.public + sealed + self.state.encrypt_and_hash(payload)

    def read_3(self, bytes message not None):
        """`-> s, se`; returns the payload. Raises HandshakeError."""
        if len(message) < SEALED_KEY + TAG:
            raise HandshakeError(f"noise message 3 has only {len(message)} bytes")
        self.remote_static = self.state.decrypt_and_hash(message[:SEALED_KEY])
        self.mix_dh(self._ephemeral, self.remote_static)
        return self.state.decrypt_and_hash(message[SEALED_KEY:])

    def split(self):
        """(key to send with, key to receive with)."""
        receive, send = self.state.split()
        return send, receive

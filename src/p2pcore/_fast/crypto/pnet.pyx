"""A private network's layer: every byte of a connection under the keystream of a shared key.

Comes in: what goes to the socket, and what came from it. Goes out: the same xor XSalsa20(key, nonce), each
direction with its own nonce, sent in the clear before it. Never changes the data it is given to send, never
lets a byte of a stranger pass: the first ones must be the multistream header. The cipher is that of PyNaCl's
libsodium. Spec: libp2p pnet, "Private-Networks-PSK-V1".
"""

import ctypes

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

from nacl import _sodium

from p2pcore import errors
from p2pcore._fast.chain.multistream import spoken

from p2pcore._fast.loop.buffer cimport Block
from p2pcore._fast.chain.layer cimport Layer
from p2pcore._fast.chain.multistream cimport MSS_HEADER

ctypedef int (*Xor)(
    uint8_t *out, const uint8_t *data, unsigned long long n, const uint8_t *nonce, uint64_t block,
    const uint8_t *key) noexcept nogil
ctypedef int (*Stream)(uint8_t *out, unsigned long long n, const uint8_t *nonce, const uint8_t *key) noexcept nogil


def _address(name):
    """The address of a function that is in PyNaCl's library but not in its cffi table."""
    try:
        return ctypes.cast(ctypes.CDLL(_sodium.__file__)[name], ctypes.c_void_p).value
    except (AttributeError, OSError) as error:
        raise ImportError(f"private networks need {name} of libsodium, which this PyNaCl ({_sodium.__file__}) does not "
                          "export; its wheels from PyPI do") from error


if _sodium.lib.sodium_init() < 0:
    raise ImportError("libsodium of PyNaCl cannot be initialised")

cdef Xor _xsalsa20_xor = <Xor> <uintptr_t> _address("crypto_stream_xsalsa20_xor_ic")
cdef Stream _salsa20 = <Stream> <uintptr_t> _address("crypto_stream_salsa20")

cdef enum:
    KEY_BYTES = 32
    NONCE_BYTES = 24
    SALSA_NONCE_BYTES = 8
    BLOCK_BYTES = 64            # of the keystream
    HEADER_BYTES = 20           # of MSS_HEADER

if PyBytes_GET_SIZE(MSS_HEADER) != HEADER_BYTES:
    raise ImportError("p2pcore._fast.crypto.pnet: HEADER_BYTES is not the length of the multistream header")


@cython.final
cdef class PnetLayer(Layer):
    """Goes between the socket and the mailbox, before any negotiation.

    Args:
        key: the network's, 32 bytes.
        nonce: of what is sent, 24 random bytes that no other connection has.
    If the peer does not begin with the multistream header, feed() raises WrongNetworkKey, and the connection ends.
    """

    def __cinit__(self, bytes key not None, bytes nonce not None):
        if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
            raise ValueError(f"a network key has 32 bytes and its nonce 24, not {len(key)} and {len(nonce)}")
        memcpy(self.key, PyBytes_AS_STRING(key), KEY_BYTES)
        memcpy(self.outgoing.nonce, PyBytes_AS_STRING(nonce), NONCE_BYTES)

    @property
    def has_agreed(self):
        """Whether the peer has shown that it has the key."""
        return self.num_agreed == HEADER_BYTES

    # -- the chain -----------------------------------------------------------------------------

    cdef int seat(self, Layer below) except -1:
        Layer.seat(self, below)
        # js sends nothing before it has our nonce. The nonce leaves together with what is written in this iteration.
        return self.state.flusher.flush_soon(self)

    cdef int flush(self) except -1:
        if not self.is_begun and self.below is not None:
            self._begin(NULL, 0)
        return 0

    cdef int send(self, const uint8_t *data, Py_ssize_t n) except -1:
        cdef Block block
        cdef Py_ssize_t k
        if not self.is_begun:
            k = min(n, self.state.records.block_size - NONCE_BYTES)
            self._begin(data, k)
            data += k
            n -= k
        while n > 0:
            block = self.state.records.take()
            try:
                k = min(n, block.size)
                self._xor(&self.outgoing, block.data, data, k)
                Layer.send(self, block.data, k)
            finally:
                self.state.records.give(block)
            data += k
            n -= k
        return 0

    cdef int feed(self, uint8_t *data, Py_ssize_t n) except -1:
        cdef int k
        if self.num_nonce < NONCE_BYTES:
            k = self._nonce_of_peer(data, n)
            data += k
            n -= k
        if n > 0:
            self._xor(&self.incoming, data, data, n)
            if self.num_agreed < HEADER_BYTES:
                return self._feed_first(data, n)
            return self.above.feed(data, n)
        return 0

    # -- inside --------------------------------------------------------------------------------

    cdef int _begin(self, const uint8_t *data, Py_ssize_t n) except -1:
        """The nonce, and the first `n` bytes behind it."""
        cdef Block block = self.state.records.take()
        self.is_begun = True
        try:
            memcpy(block.data, self.outgoing.nonce, NONCE_BYTES)
            self._xor(&self.outgoing, block.data + NONCE_BYTES, data, n)
            Layer.send(self, block.data, NONCE_BYTES + n)
        finally:
            self.state.records.give(block)
        return 0

    cdef int _nonce_of_peer(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Takes what belongs to the peer's nonce; returns how many bytes that was."""
        cdef int k = <int> min(n, NONCE_BYTES - self.num_nonce)
        memcpy(self.incoming.nonce + self.num_nonce, data, k)
        self.num_nonce += k
        if self.num_nonce >= HEADER_BYTES and memcmp(self.incoming.nonce, PyBytes_AS_STRING(MSS_HEADER), HEADER_BYTES) == 0:
            raise _stranger((<char *> self.incoming.nonce)[:self.num_nonce])
        return k

    cdef int _feed_first(self, uint8_t *data, Py_ssize_t n) except -1:
        """Hands nothing on before the header is whole. What came of it earlier is known, so it is not kept."""
        cdef uint8_t early[HEADER_BYTES]
        cdef int k = self.num_agreed
        self._check(data, n)
        if self.num_agreed < HEADER_BYTES:
            return 0
        if k > 0:
            memcpy(early, PyBytes_AS_STRING(MSS_HEADER), k)
            self.above.feed(early, k)
        return self.above.feed(data, n) if self.above is not None else 0

    cdef int _check(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Both dialler and listener begin with the multistream header."""
        cdef int k = <int> min(n, HEADER_BYTES - self.num_agreed)
        if memcmp(data, PyBytes_AS_STRING(MSS_HEADER) + self.num_agreed, k) != 0:
            raise _stranger((<char *> self.incoming.nonce)[:NONCE_BYTES])
        self.num_agreed += k
        return 0

    cdef int _xor(self, Keystream *stream, uint8_t *out, const uint8_t *data, Py_ssize_t n) noexcept:
        """`n` bytes of `data` under the next of the keystream; `out` may be `data`."""
        cdef uint8_t part[BLOCK_BYTES]
        cdef int begun = <int> (stream.at % BLOCK_BYTES)
        cdef Py_ssize_t k = 0
        if begun and n > 0:
            # The cipher starts at whole blocks only.
            k = min(n, BLOCK_BYTES - begun)
            memcpy(part + begun, data, k)
            _xsalsa20_xor(part, part, <unsigned long long> (begun + k), stream.nonce, stream.at // BLOCK_BYTES, self.key)
            memcpy(out, part + begun, k)
            stream.at += <uint64_t> k
        if n > k:
            _xsalsa20_xor(out + k, data + k, <unsigned long long> (n - k), stream.nonce, stream.at // BLOCK_BYTES,
                          self.key)
            stream.at += <uint64_t> (n - k)
        return 0


cdef object _stranger(bytes first):
    """The error for a peer whose first bytes, the nonce had it one, were `first`."""
    cdef object name = "libp2p without a network key" if first.startswith(MSS_HEADER) else spoken(first)
    if name is not None:
        return errors.WrongNetworkKey(f"the peer is not in our private network: it speaks {name}", name)
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in first):
        return errors.WrongNetworkKey("the peer is not in our private network: it speaks some text protocol", "text")
    return errors.WrongNetworkKey("wrong network key: the peer is in another private network, or speaks no libp2p")


def salsa20(bytes key not None, bytes nonce not None, Py_ssize_t n):
    """The first `n` bytes (0..1024) of Salsa20's keystream for a key of 32 and a nonce of 8 bytes."""
    if len(key) != KEY_BYTES or len(nonce) != SALSA_NONCE_BYTES or not 0 <= n <= 1024:
        raise ValueError(f"salsa20 of {n} bytes with a key of {len(key)} and a nonce of {len(nonce)}")
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n)
    _salsa20(<uint8_t *> PyBytes_AS_STRING(out), <unsigned long long> PyBytes_GET_SIZE(out),
             <const uint8_t *> PyBytes_AS_STRING(nonce), <const uint8_t *> PyBytes_AS_STRING(key))
    return out

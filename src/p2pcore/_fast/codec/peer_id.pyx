"""Peer ids: the checks and the text forms, and the compiled base of `p2pcore.values.peer_id.PeerId`.

Comes in: untrusted multihash bytes or text of any form. Goes out: a value that has passed every
check, or IdentityError. Never reads more than the limits allow, never parses the key inside an
identity hash. Source: libp2p specs peer-ids, multiformats multihash.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject_RichCompare
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memmove

from p2pcore._fast.codec.multibase cimport base_alphabet, base_decode, base_encode, multibase_decode
from p2pcore._fast.codec.cursor cimport Cursor, cursor, remaining
from p2pcore._fast.codec.varint cimport varint_take

from p2pcore import limits
from p2pcore.errors import IdentityError

cdef enum:
    _SHA2_256 = 0x12
    _IDENTITY = 0x00
    _CID_VERSION = 1
    _LIBP2P_KEY = 0x72

cdef size_t _max_bytes = limits.MAX_PEER_ID_BYTES
cdef size_t _max_chars = limits.MAX_PEER_ID_TEXT_CHARS
cdef size_t _max_identity = limits.MAX_IDENTITY_DIGEST_BYTES

if _max_chars > PEER_ROOM or _max_bytes > PEER_ROOM - 2:
    raise ImportError("p2pcore.limits: a peer id is larger than p2pcore._fast.codec.peer_id has room for")


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


cdef int multihash_split(const uint8_t *data, size_t n, uint64_t *code, size_t *digest) noexcept nogil:
    # Hash code and digest length; -1 unless exactly that many bytes follow.
    cdef Cursor c = cursor(data, n)
    cdef uint64_t length = 0
    if varint_take(&c, code) <= 0 or varint_take(&c, &length) <= 0 or length != remaining(&c):
        return -1
    digest[0] = <size_t>length
    return 0


cdef int peer_check(const uint8_t *data, size_t n, const char **why) noexcept nogil:
    cdef uint64_t code = 0
    cdef size_t digest = 0
    if n > _max_bytes:
        why[0] = "a peer id within the size limit expected"
    elif multihash_split(data, n, &code, &digest) < 0:
        why[0] = "a multihash whose length fits its digest expected"
    elif code == _SHA2_256 and digest == 32:
        return 0
    elif code == _IDENTITY and digest <= _max_identity:
        return 0
    else:
        why[0] = "a sha2-256 or short identity multihash expected"
    return -1


cdef Py_ssize_t _parse_cid(const uint8_t *text, size_t n, uint8_t *out, const char **why) noexcept nogil:
    cdef Py_ssize_t used = multibase_decode(text, n, out, PEER_ROOM)
    if used < 0:
        why[0] = "base58btc of a multihash, or a CID in a known multibase, expected"
        return -1
    if used < 2 or out[0] != _CID_VERSION or out[1] != _LIBP2P_KEY:
        why[0] = "a CID of version 1 with the codec libp2p-key expected"
        return -1
    used -= 2
    memmove(out, out + 2, <size_t>used)
    return used


cdef Py_ssize_t peer_parse(const uint8_t *text, size_t n, uint8_t *out, const char **why) noexcept nogil:
    # `out` has room for PEER_ROOM bytes.
    cdef Py_ssize_t used
    if n == 0 or n > _max_chars:
        why[0] = "peer id text within the size limit expected"
        return -1
    if text[0] == c'1' or (n > 1 and text[0] == c'Q' and text[1] == c'm'):
        used = base_decode(base_alphabet(c'z'), text, n, out, PEER_ROOM)
        if used < 0:
            why[0] = "base58btc expected"
    else:
        used = _parse_cid(text, n, out, why)
    if used < 0 or peer_check(out, <size_t>used, why) < 0:
        return -1
    return used


cdef Py_ssize_t peer_print(const uint8_t *data, size_t n, uint8_t *out, size_t room) noexcept nogil:
    return base_encode(base_alphabet(c'z'), data, n, out, room)


cdef bytes _from_text(str text):
    cdef uint8_t out[PEER_ROOM]
    cdef const char *why = ""
    cdef const char *source
    cdef Py_ssize_t size = 0, used = -1
    if not text.isascii():
        raise IdentityError(f"peer id {text[:80]!r}: ASCII expected")
    source = PyUnicode_AsUTF8AndSize(text, &size)
    used = peer_parse(<const uint8_t *>source, <size_t>size, out, &why)
    if used < 0:
        raise IdentityError(f"peer id {text[:80]!r}: {why.decode()}")
    return out[:used]


cdef bytes _from_bytes(bytes data):
    cdef const char *why = ""
    if peer_check(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), &why) < 0:
        raise IdentityError(f"peer id {data[:64].hex() or 'without bytes'}: {why.decode()}")
    return data


cdef str _base58(bytes data):
    cdef uint8_t out[PEER_ROOM]
    cdef Py_ssize_t used = peer_print(
        <const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), out, sizeof(out)
    )
    return PyUnicode_DecodeASCII(<char *>out, used, NULL)


cdef str _cid(bytes data, uint8_t prefix):
    cdef uint8_t cid[PEER_ROOM]
    cdef uint8_t out[256]  # base32 takes 1.6 characters a byte
    cdef size_t n = <size_t>PyBytes_GET_SIZE(data)
    cdef Py_ssize_t used
    cid[0], cid[1] = _CID_VERSION, _LIBP2P_KEY
    memcpy(cid + 2, PyBytes_AS_STRING(data), n)
    out[0] = prefix
    used = base_encode(base_alphabet(prefix), cid, n + 2, out + 1, sizeof(out) - 1)
    return PyUnicode_DecodeASCII(<char *>out, used + 1, NULL)


cdef class PeerIdValue:
    """A checked multihash that compares, hashes and sorts by its bytes."""

    def __cinit__(self, value, /):
        if isinstance(value, str):
            self._bytes = _from_text(str.__str__(value))
        elif isinstance(value, (bytes, bytearray, memoryview)):
            self._bytes = _from_bytes(bytes(value))
        elif isinstance(value, PeerIdValue):
            self._bytes = (<PeerIdValue>value)._bytes
        else:
            raise TypeError(f"a peer id is made of str or bytes, not {type(value).__name__}")

    def __hash__(self):
        return hash(self._bytes)

    def __richcmp__(self, other, int op):
        if type(self) is not type(other):
            return NotImplemented
        return PyObject_RichCompare(self._bytes, (<PeerIdValue>other)._bytes, op)

    def __str__(self):
        return _base58(self._bytes)

    def __reduce__(self):
        return type(self), (self._bytes,)

    def to_bytes(self):
        """The multihash, 2..44 bytes."""
        return self._bytes

    def __bytes__(self):
        return self._bytes

    def to_base32(self):
        """CIDv1 in lower-case base32 ("b…"), as browsers and DNS names want it."""
        return _cid(self._bytes, c'b')

    def to_base36(self):
        """CIDv1 in lower-case base36 ("k…"), short enough for a DNS label."""
        return _cid(self._bytes, c'k')

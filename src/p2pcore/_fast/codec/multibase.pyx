"""Text encodings of bytes: base58btc and every letter-and-digit base of multibase.

Comes in: bytes or ASCII text. Goes out: the other one; IdentityError for a character, length or
padding the base does not have. Upper and lower case are one where the alphabet has one case, and
unused low bits of the last digit are ignored, both as go-multibase does. base10, 36 and 58 take at
most BASE_MAX_BYTES bytes. Source: multiformats multibase, RFC 4648.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from p2pcore.errors import IdentityError

cdef enum:
    _LIMBS = 40  # of 32 bits: BASE_MAX_BYTES
    _DIGITS = 400  # of BASE_MAX_BYTES in base10, which takes 2.41 a byte
    _COUNT = 22

cdef Alphabet _alphabets[_COUNT]
cdef int8_t _by_prefix[128]

_B16 = b"0123456789abcdef"
_B32 = b"abcdefghijklmnopqrstuvwxyz234567"
_B32HEX = b"0123456789abcdefghijklmnopqrstuv"
_B36 = b"0123456789abcdefghijklmnopqrstuvwxyz"
_B58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_B64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_B64URL = _B64.replace(b"+/", b"-_")

_TABLE = (  # prefix, digits, group of the padded forms
    (b"0", b"01", 0),
    (b"7", b"01234567", 0),
    (b"9", b"0123456789", 0),
    (b"f", _B16, 0),
    (b"F", _B16.upper(), 0),
    (b"b", _B32, 0),
    (b"B", _B32.upper(), 0),
    (b"c", _B32, 8),
    (b"C", _B32.upper(), 8),
    (b"v", _B32HEX, 0),
    (b"V", _B32HEX.upper(), 0),
    (b"t", _B32HEX, 8),
    (b"T", _B32HEX.upper(), 8),
    (b"h", b"ybndrfg8ejkmcpqxot1uwisza345h769", 0),
    (b"k", _B36, 0),
    (b"K", _B36.upper(), 0),
    (b"z", _B58, 0),
    (b"Z", b"123456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ", 0),
    (b"m", _B64, 0),
    (b"M", _B64, 4),
    (b"u", _B64URL, 0),
    (b"U", _B64URL, 4),
)


cdef int _fill(Alphabet *a, bytes digits, int group) except -1:
    cdef int i
    a.base = <uint32_t>len(digits)
    a.bits = 0 if len(digits) & (len(digits) - 1) else len(digits).bit_length() - 1
    a.group = group
    a.digits = <const uint8_t *>PyBytes_AS_STRING(digits)  # kept alive by _TABLE
    a.chunk, a.chunk_digits = 1, 0
    while <uint64_t>a.chunk * a.base <= 0xFFFFFFFF:
        a.chunk *= a.base
        a.chunk_digits += 1
    memset(a.values, -1, sizeof(a.values))
    one_case = len(set(digits.lower())) == len(digits)
    for i, digit in enumerate(digits):
        for same in {digit, *(bytes([digit]).lower() + bytes([digit]).upper())} if one_case else {digit}:
            a.values[<int>same] = <int8_t>i
    return 0


cdef int _prepare() except -1:
    cdef int i
    memset(_by_prefix, -1, sizeof(_by_prefix))
    if len(_TABLE) != _COUNT:
        raise ImportError("p2pcore._fast.codec.multibase: _COUNT does not match the table of bases")
    for i, (prefix, digits, group) in enumerate(_TABLE):
        _by_prefix[<int>prefix[0]] = <int8_t>i
        _fill(&_alphabets[i], digits, group)
    return 0


_prepare()


cdef const Alphabet *base_alphabet(uint8_t prefix) noexcept nogil:
    if prefix >= 128 or _by_prefix[prefix] < 0:
        return NULL
    return &_alphabets[_by_prefix[prefix]]


cdef Py_ssize_t _encode_bits(
    const Alphabet *a, const uint8_t *data, size_t n, uint8_t *out, size_t room
) noexcept nogil:
    cdef uint32_t held = 0
    cdef int have = 0
    cdef size_t i, used = 0
    if room < (n * 8 + a.bits - 1) // a.bits + a.group:
        return -1
    for i in range(n):
        held = ((held & 0xFF) << 8) | data[i]  # fewer than eight bits are left over
        have += 8
        while have >= a.bits:
            have -= a.bits
            out[used] = a.digits[(held >> have) & (a.base - 1)]
            used += 1
    if have:
        out[used] = a.digits[((held & 0xFF) << (a.bits - have)) & (a.base - 1)]
        used += 1
    while a.group and used % <size_t>a.group:
        out[used] = c'='
        used += 1
    return <Py_ssize_t>used


cdef Py_ssize_t _without_padding(const Alphabet *a, const uint8_t *text, size_t n) noexcept nogil:
    cdef size_t left = n
    if a.group == 0:
        return <Py_ssize_t>n
    while left and text[left - 1] == c'=':
        left -= 1
    return -1 if n % <size_t>a.group or n - left >= <size_t>a.group else <Py_ssize_t>left


cdef Py_ssize_t _decode_bits(
    const Alphabet *a, const uint8_t *text, size_t n, uint8_t *out, size_t room
) noexcept nogil:
    cdef uint32_t held = 0
    cdef int have = 0, value
    cdef size_t i, used = 0
    cdef Py_ssize_t digits = _without_padding(a, text, n)
    if digits < 0 or <size_t>digits * a.bits // 8 > room:
        return -1
    for i in range(<size_t>digits):
        value = a.values[text[i]]
        if value < 0:
            return -1
        held = ((held & 0xFF) << a.bits) | <uint32_t>value  # fewer than eight bits are left over
        have += a.bits
        if have >= 8:
            have -= 8
            out[used] = <uint8_t>(held >> have)
            used += 1
    return -1 if have >= a.bits else <Py_ssize_t>used  # a whole digit that adds no byte is one too many


cdef inline size_t _count_leading(const uint8_t *data, size_t n, uint8_t what) noexcept nogil:
    cdef size_t i = 0
    while i < n and data[i] == what:
        i += 1
    return i


cdef size_t _load_limbs(const uint8_t *data, size_t n, uint32_t *limbs) noexcept nogil:
    # Big-endian bytes to limbs, most significant first; the first limb takes the odd bytes.
    cdef size_t i, count = (n + 3) // 4
    memset(limbs, 0, count * sizeof(uint32_t))
    for i in range(n):
        limbs[count - 1 - (n - 1 - i) // 4] |= <uint32_t>data[i] << (8 * ((n - 1 - i) % 4))
    return count


cdef inline uint32_t _divide(uint32_t *limbs, size_t first, size_t count, uint32_t by) noexcept nogil:
    # Divides in place; returns the remainder.
    cdef size_t i
    cdef uint64_t rest = 0
    for i in range(first, count):
        rest = (rest << 32) | limbs[i]
        limbs[i] = <uint32_t>(rest // by)
        rest %= by
    return <uint32_t>rest


cdef Py_ssize_t _encode_number(
    const Alphabet *a, const uint8_t *data, size_t n, uint8_t *out, size_t room
) noexcept nogil:
    cdef uint32_t limbs[_LIMBS]
    cdef uint8_t digits[_DIGITS]  # least significant first
    cdef size_t zeros, count, first = 0, used = 0, i
    cdef uint32_t rest
    if n > BASE_MAX_BYTES:
        return -1
    zeros = _count_leading(data, n, 0)
    count = _load_limbs(data + zeros, n - zeros, limbs)
    while first < count:
        # The constant lets the compiler divide base58, the common one, by multiplying.
        rest = _divide(limbs, first, count, 656356768) if a.base == 58 else _divide(limbs, first, count, a.chunk)
        while first < count and limbs[first] == 0:
            first += 1
        for i in range(<size_t>a.chunk_digits):  # no-cython-lint: a C loop needs a variable of C
            if first == count and rest == 0:
                break
            digits[used] = a.digits[rest % a.base]
            rest //= a.base
            used += 1
    if zeros + used > room:
        return -1
    memset(out, a.digits[0], zeros)
    for i in range(used):
        out[zeros + i] = digits[used - 1 - i]
    return <Py_ssize_t>(zeros + used)


cdef inline Py_ssize_t _multiply_add(uint32_t *limbs, size_t count, uint32_t by, uint32_t plus) noexcept nogil:
    # limbs, least significant first, times `by` plus `plus`; the new count, or -1 if it is too large.
    cdef size_t i
    cdef uint64_t carry = plus
    for i in range(count):
        carry += <uint64_t>limbs[i] * by
        limbs[i] = <uint32_t>carry
        carry >>= 32
    if carry == 0:
        return <Py_ssize_t>count
    if count == _LIMBS:
        return -1
    limbs[count] = <uint32_t>carry
    return <Py_ssize_t>count + 1


cdef Py_ssize_t _store_limbs(
    const uint32_t *limbs, size_t count, size_t zeros, uint8_t *out, size_t room
) noexcept nogil:
    cdef size_t i, n = count * 4
    while n and (limbs[(n - 1) // 4] >> (8 * ((n - 1) % 4))) & 0xFF == 0:
        n -= 1
    if zeros + n > room or zeros + n > BASE_MAX_BYTES:
        return -1
    memset(out, 0, zeros)
    for i in range(n):
        out[zeros + n - 1 - i] = <uint8_t>(limbs[i // 4] >> (8 * (i % 4)))
    return <Py_ssize_t>(zeros + n)


cdef Py_ssize_t _decode_number(
    const Alphabet *a, const uint8_t *text, size_t n, uint8_t *out, size_t room
) noexcept nogil:
    cdef uint32_t limbs[_LIMBS]
    cdef uint32_t chunk = 0, scale = 1
    cdef int value
    cdef Py_ssize_t count = 0
    cdef size_t i, zeros = _count_leading(text, n, a.digits[0])
    for i in range(zeros, n):
        value = a.values[text[i]]
        if value < 0:
            return -1
        chunk = chunk * a.base + <uint32_t>value
        scale *= a.base
        if scale == a.chunk or i + 1 == n:
            count = _multiply_add(limbs, <size_t>count, scale, chunk)
            if count < 0:
                return -1
            chunk, scale = 0, 1
    return _store_limbs(limbs, <size_t>count, zeros, out, room)


cdef Py_ssize_t base_encode(
    const Alphabet *a, const uint8_t *data, size_t n, uint8_t *out, size_t room
) noexcept nogil:
    return _encode_bits(a, data, n, out, room) if a.bits else _encode_number(a, data, n, out, room)


cdef Py_ssize_t base_decode(
    const Alphabet *a, const uint8_t *text, size_t n, uint8_t *out, size_t room
) noexcept nogil:
    return _decode_bits(a, text, n, out, room) if a.bits else _decode_number(a, text, n, out, room)


cdef Py_ssize_t multibase_decode(const uint8_t *text, size_t n, uint8_t *out, size_t room) noexcept nogil:
    cdef const Alphabet *a = base_alphabet(text[0]) if n else NULL
    return -1 if a == NULL else base_decode(a, text + 1, n - 1, out, room)


cdef const Alphabet *_named(str prefix) except NULL:
    cdef const Alphabet *a = base_alphabet(<uint8_t>ord(prefix)) if len(prefix) == 1 and prefix.isascii() else NULL
    if a == NULL:
        raise IdentityError(f"{prefix[:8]!r}: a multibase prefix expected")
    return a


cdef bytes _decode(const Alphabet *a, str text, Py_ssize_t skip):
    cdef bytes source, result
    cdef Py_ssize_t used = -1
    if text.isascii():
        source = text.encode()
        result = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(source) + BASE_MAX_BYTES)
        used = base_decode(
            a,
            <const uint8_t *>PyBytes_AS_STRING(source) + skip,
            <size_t>(PyBytes_GET_SIZE(source) - skip),
            <uint8_t *>PyBytes_AS_STRING(result),
            <size_t>PyBytes_GET_SIZE(result),
        )
    if used < 0:
        raise IdentityError(f"{text[:80]!r}: not well-formed base{a.base}, or too long")
    return result[:used]


def encode(str prefix, bytes data):
    """`data` as multibase text, the prefix included.

    Args:
        prefix: the multibase code, one of 0 7 9 f F b B c C v V t T h k K z Z m M u U.
        data: up to BASE_MAX_BYTES (160) for 9, k, K, z, Z; any length otherwise.

    Raises:
        IdentityError: no such prefix, or too long.
    """
    cdef const Alphabet *a = _named(prefix)
    cdef size_t n = <size_t>PyBytes_GET_SIZE(data)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(n * 8 + 16))
    cdef Py_ssize_t used = base_encode(
        a,
        <const uint8_t *>PyBytes_AS_STRING(data),
        n,
        <uint8_t *>PyBytes_AS_STRING(result),
        <size_t>PyBytes_GET_SIZE(result),
    )
    if used < 0:
        raise IdentityError(f"{n} bytes are over the {BASE_MAX_BYTES} that base{a.base} takes")
    return prefix + PyUnicode_DecodeASCII(PyBytes_AS_STRING(result), used, NULL)


def decode(str text):
    """The bytes of multibase text, whose first character names the base.

    Raises:
        IdentityError: unknown prefix, or not well-formed in that base.
    """
    return _decode(_named(text[:1]), text, 1)


def encode58(bytes data):
    """`data` (up to 160 bytes) in base58btc without a prefix. Raises IdentityError if longer."""
    return encode("z", data)[1:]


def decode58(str text):
    """The bytes of base58btc text without a prefix. Raises IdentityError if it is not that."""
    return _decode(_named("z"), text, 0)

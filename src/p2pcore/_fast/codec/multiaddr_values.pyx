"""Values of multiaddr components; for other compiled modules only, Python sees nothing of it.

Comes in: one value as text (a token without its slashes) or bytes, untrusted, with its kind. Goes
out: the other form, or what was expected. Text never decides equality: several texts may have the
same bytes, and only the canonical one is printed. Never allocates, never reads outside its input.
Source: multiformats multiaddr, RFC 4291, RFC 5952, RFC 3986 section 2.
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from p2pcore._fast.codec.multibase cimport base_alphabet, base_decode, base_encode, multibase_decode
from p2pcore._fast.codec.endian cimport load_be16, load_be64, store_be16, store_be64
from p2pcore._fast.codec.peer_id cimport PEER_ROOM, multihash_split, peer_check, peer_parse, peer_print

from p2pcore import limits

cdef enum:
    _ONION_BYTES = 10
    _ONION3_BYTES = 35
    _GARLIC64_MIN_BYTES = 386  # a destination without certificate (I2P common structures)
    _GARLIC32_BYTES = 32
    _GARLIC32_ENCRYPTED_MIN_BYTES = 35  # b33 names of encrypted lease sets
    _CERTHASH_ROOM = 128

cdef size_t _max_host = limits.MAX_HOST_NAME_BYTES
cdef size_t _max_certhash = limits.MAX_CERTHASH_DIGEST_BYTES
cdef const uint8_t *_MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"

if _max_certhash + 18 > _CERTHASH_ROOM:
    raise ImportError("p2pcore.limits: a certhash is larger than multiaddr_values has room for")


# -- numbers -----------------------------------------------------------------------------------


cdef Py_ssize_t _parse_number(
    const uint8_t *text, size_t n, size_t max_digits, uint64_t maximum, uint64_t *value
) noexcept nogil:
    cdef size_t i
    cdef uint64_t result = 0, digit
    if n == 0 or n > max_digits:
        return -1
    for i in range(n):
        if not c'0' <= text[i] <= c'9':
            return -1
        digit = text[i] - c'0'
        if result > (maximum - digit) // 10:
            return -1
        result = result * 10 + digit
    value[0] = result
    return 0


cdef size_t _print_number(uint64_t value, uint8_t *out) noexcept nogil:
    cdef uint8_t digits[20]
    cdef size_t n = 0, i
    while True:
        digits[n] = c'0' + <uint8_t>(value % 10)
        value //= 10
        n += 1
        if value == 0:
            break
    for i in range(n):
        out[i] = digits[n - 1 - i]
    return n


cdef Py_ssize_t _parse_port(const uint8_t *text, size_t n, uint8_t *out) noexcept nogil:
    cdef uint64_t value = 0
    if _parse_number(text, n, 5, 65535, &value) < 0:
        return -1
    store_be16(out, <uint16_t>value)
    return 2


cdef Py_ssize_t _parse_byte(const uint8_t *text, size_t n, uint8_t *out) noexcept nogil:
    cdef uint64_t value = 0
    if _parse_number(text, n, 5, 255, &value) < 0:
        return -1
    out[0] = <uint8_t>value
    return 1


cdef Py_ssize_t _parse_memory(const uint8_t *text, size_t n, uint8_t *out) noexcept nogil:
    cdef uint64_t value = 0
    if _parse_number(text, n, 20, <uint64_t>0xFFFFFFFFFFFFFFFF, &value) < 0:
        return -1
    store_be64(out, value)
    return 8


# -- IP addresses ------------------------------------------------------------------------------


cdef Py_ssize_t _parse_ip4(const uint8_t *text, size_t n, uint8_t *out) noexcept nogil:
    cdef size_t i = 0, start
    cdef unsigned int value
    cdef int octet
    for octet in range(4):
        if octet:
            if i == n or text[i] != c'.':
                return -1
            i += 1
        start, value = i, 0
        while i < n and i - start < 3 and c'0' <= text[i] <= c'9':
            value = value * 10 + (text[i] - c'0')
            i += 1
        # A leading zero means octal to some resolvers, so nobody accepts it.
        if i == start or value > 255 or (text[start] == c'0' and i - start > 1):
            return -1
        out[octet] = <uint8_t>value
    return 4 if i == n else -1


cdef size_t _print_ip4(const uint8_t *value, uint8_t *out) noexcept nogil:
    cdef size_t used = 0
    cdef int octet
    for octet in range(4):
        if octet:
            out[used] = c'.'
            used += 1
        used += _print_number(value[octet], out + used)
    return used


cdef inline int _hex(uint8_t character) noexcept nogil:
    if c'0' <= character <= c'9':
        return character - c'0'
    if c'a' <= (character | 0x20) <= c'f':
        return (character | 0x20) - c'a' + 10
    return -1


cdef int _place_ip6(const uint8_t *groups, size_t used, Py_ssize_t gap, uint8_t *out) noexcept nogil:
    # Puts the zeros that "::" stands for (at byte `gap`) between what was read.
    cdef size_t head = used if gap < 0 else <size_t>gap
    if (gap < 0) != (used == 16):
        return -1
    memset(out, 0, 16)
    memcpy(out, groups, head)
    memcpy(out + 16 - (used - head), groups + head, used - head)
    return 16


cdef Py_ssize_t _parse_ip6(const uint8_t *text, size_t n, uint8_t *out) noexcept nogil:
    cdef uint8_t groups[16]
    cdef size_t i = 0, used = 0, start
    cdef Py_ssize_t gap = -1
    cdef unsigned int value
    if n >= 2 and text[0] == c':' and text[1] == c':':
        gap, i = 0, 2
    while i < n or gap != <Py_ssize_t>used:
        if used == 16:
            return -1
        start, value = i, 0
        while i < n and i - start < 4 and _hex(text[i]) >= 0:
            value = value << 4 | <unsigned int>_hex(text[i])
            i += 1
        if i == start:
            return -1
        if i < n and text[i] == c'.':
            if used > 12 or _parse_ip4(text + start, n - start, groups + used) < 0:
                return -1
            used += 4
            break
        store_be16(groups + used, <uint16_t>value)
        used += 2
        if i == n:
            break
        if text[i] != c':':
            return -1
        i += 1
        if i < n and text[i] == c':':
            if gap >= 0:
                return -1
            gap, i = <Py_ssize_t>used, i + 1
    return _place_ip6(groups, used, gap, out)


cdef size_t _print_hex(unsigned int value, uint8_t *out) noexcept nogil:
    cdef const uint8_t *digits = b"0123456789abcdef"
    cdef size_t used = 0
    cdef int shift
    for shift in range(12, -4, -4):
        if used or value >> shift or shift == 0:
            out[used] = digits[(value >> shift) & 15]
            used += 1
    return used


cdef void _longest_zeros(const uint8_t *value, int *first, int *count) noexcept nogil:
    # The leftmost longest run of two zero groups or more; count 0 if there is none.
    cdef int i, run = 0
    first[0], count[0] = -1, 0
    for i in range(8):
        run = run + 1 if load_be16(value + 2 * i) == 0 else 0
        if run >= 2 and run > count[0]:
            first[0], count[0] = i + 1 - run, run


cdef size_t _print_ip6(const uint8_t *value, uint8_t *out) noexcept nogil:
    cdef size_t used = 0
    cdef int i = 0, first = -1, count = 0
    if memcmp(value, _MAPPED, 12) == 0:
        memcpy(out, <const uint8_t *>b"::ffff:", 7)
        return 7 + _print_ip4(value + 12, out + 7)
    _longest_zeros(value, &first, &count)
    while i < 8:
        if i == first:
            out[used], out[used + 1] = c':', c':'
            used, i = used + 2, i + count
            continue
        if i and i != first + count:
            out[used] = c':'
            used += 1
        used += _print_hex(load_be16(value + 2 * i), out + used)
        i += 1
    return used


# -- text values -------------------------------------------------------------------------------


cdef inline size_t _utf8_follows(const uint8_t *p, size_t n) noexcept nogil:
    # Continuation bytes of the character at p; 4 if it is malformed, overlong or a surrogate.
    cdef size_t need = 4, i
    if 0xC2 <= p[0] <= 0xDF:
        need = 1
    elif p[0] >> 4 == 0xE:
        need = 2
    elif 0xF0 <= p[0] <= 0xF4:
        need = 3
    if need >= n:
        return 4
    for i in range(1, need + 1):
        if p[i] >> 6 != 2:
            return 4
    if (p[0] == 0xE0 and p[1] < 0xA0) or (p[0] == 0xED and p[1] > 0x9F):
        return 4
    if (p[0] == 0xF0 and p[1] < 0x90) or (p[0] == 0xF4 and p[1] > 0x8F):
        return 4
    return need


cdef int _check_utf8(const uint8_t *value, size_t n) noexcept nogil:
    cdef size_t i = 0, need
    while i < n:
        if value[i] < 0x80:
            i += 1
            continue
        need = _utf8_follows(value + i, n - i)
        if need > 3:
            return -1
        i += need + 1
    return 0


cdef int _check_name(const uint8_t *value, size_t n, size_t maximum) noexcept nogil:
    if n > maximum or memchr(value, 0, n) != NULL or memchr(value, c'/', n) != NULL:
        return -1
    return _check_utf8(value, n)


cdef int _check_path(const uint8_t *value, size_t n) noexcept nogil:
    if n < 2 or value[0] != c'/' or value[n - 1] == c'/' or memchr(value, 0, n) != NULL:
        return -1
    return _check_utf8(value, n)


cdef Py_ssize_t _parse_http_path(const uint8_t *text, size_t n, uint8_t *out) noexcept nogil:
    cdef size_t i = 0, used = 0
    while i < n:
        if text[i] != c'%':
            out[used] = text[i]
            i += 1
        elif i + 2 < n and _hex(text[i + 1]) >= 0 and _hex(text[i + 2]) >= 0:
            out[used] = <uint8_t>(_hex(text[i + 1]) << 4 | _hex(text[i + 2]))
            i += 3
        else:
            return -1
        used += 1
    return <Py_ssize_t>used


cdef Py_ssize_t _parse_path(const uint8_t *text, size_t n, uint8_t *out) noexcept nogil:
    # Every %XX is a byte of the path. js-libp2p escapes the first slash too: "/%2Ftmp%2Fx.sock" is "/tmp/x.sock".
    if n > 3 and text[1] == c'%' and text[2] == c'2' and (text[3] | 0x20) == c'f':
        return _parse_http_path(text + 1, n - 1, out)
    return _parse_http_path(text, n, out)


cdef size_t _print_path(const uint8_t *value, size_t n, uint8_t *out) noexcept nogil:
    cdef size_t i, used = 0
    for i in range(n):
        out[used] = value[i]
        used += 1
        if value[i] == c'%':
            memcpy(out + used, b"25", 2)
            used += 2
    return used


cdef inline bint _is_unreserved(uint8_t byte) noexcept nogil:
    if c'a' <= (byte | 0x20) <= c'z' or c'0' <= byte <= c'9':
        return True
    return byte == c'-' or byte == c'_' or byte == c'.' or byte == c'~'


cdef size_t _print_http_path(const uint8_t *value, size_t n, uint8_t *out) noexcept nogil:
    cdef const uint8_t *digits = b"0123456789ABCDEF"
    cdef size_t i, used = 0
    for i in range(n):
        if _is_unreserved(value[i]):
            out[used] = value[i]
            used += 1
            continue
        out[used], out[used + 1], out[used + 2] = c'%', digits[value[i] >> 4], digits[value[i] & 15]
        used += 3
    return used


# -- base32, base64 and multibase --------------------------------------------------------------


cdef Py_ssize_t _parse_onion(const uint8_t *text, size_t n, size_t host, uint8_t *out) noexcept nogil:
    cdef size_t digits = host * 8 // 5  # both kinds of onion fill their last digit
    if n < digits + 2 or text[digits] != c':':
        return -1
    if base_decode(base_alphabet(c'b'), text, digits, out, host) != <Py_ssize_t>host:
        return -1
    if _parse_port(text + digits + 1, n - digits - 1, out + host) < 0:
        return -1
    return <Py_ssize_t>host + 2


cdef size_t _print_onion(const uint8_t *value, size_t host, uint8_t *out) noexcept nogil:
    cdef size_t used = <size_t>base_encode(base_alphabet(c'b'), value, host, out, host * 2)
    out[used] = c':'
    return used + 1 + _print_number(load_be16(value + host), out + used + 1)


cdef Py_ssize_t _parse_garlic32(const uint8_t *text, size_t n, uint8_t *out) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if c'A' <= text[i] <= c'Z':
            return -1
    return base_decode(base_alphabet(c'b'), text, n, out, n)


cdef Py_ssize_t _parse_garlic64(const uint8_t *text, size_t n, uint8_t *out) noexcept nogil:
    # I2P writes "-" for "+" and "~" for "/"; in `out`, which has room for the text, it is plain base64.
    cdef size_t i
    for i in range(n):
        if text[i] == c'+' or text[i] == c'/':
            return -1
        out[i] = c'+' if text[i] == c'-' else c'/' if text[i] == c'~' else text[i]
    return base_decode(base_alphabet(c'M'), out, n, out, n)  # never overtakes what it reads


cdef size_t _print_garlic64(const uint8_t *value, size_t n, uint8_t *out) noexcept nogil:
    cdef size_t i, used = <size_t>base_encode(base_alphabet(c'M'), value, n, out, n * 2 + 8)
    for i in range(used):
        out[i] = c'-' if out[i] == c'+' else c'~' if out[i] == c'/' else out[i]
    return used


cdef int _check_certhash(const uint8_t *value, size_t n) noexcept nogil:
    cdef uint64_t code = 0
    cdef size_t digest = 0
    return -1 if multihash_split(value, n, &code, &digest) < 0 or digest > _max_certhash else 0


cdef Py_ssize_t _parse_certhash(const uint8_t *text, size_t n, uint8_t *out) noexcept nogil:
    cdef uint8_t value[_CERTHASH_ROOM]
    cdef Py_ssize_t used = multibase_decode(text, n, value, _CERTHASH_ROOM)
    if used > 0:
        memcpy(out, value, <size_t>used)
    return used


cdef Py_ssize_t _parse_peer(const uint8_t *text, size_t n, uint8_t *out, const char **why) noexcept nogil:
    cdef uint8_t value[PEER_ROOM]
    cdef Py_ssize_t used = peer_parse(text, n, value, why)
    if used > 0:
        memcpy(out, value, <size_t>used)
    return used


# -- by kind -----------------------------------------------------------------------------------


cdef Py_ssize_t value_parse(
    Kind kind, const uint8_t *text, size_t n, uint8_t *out, const char **why
) noexcept nogil:
    if kind == KIND_IP4:
        why[0] = "four decimal octets without leading zeros expected"
        return _parse_ip4(text, n, out)
    if kind == KIND_PORT:
        why[0] = "a decimal number of 0..65535 expected"
        return _parse_port(text, n, out)
    if kind == KIND_PEER:
        return _parse_peer(text, n, out, why)
    if kind == KIND_IP6:
        why[0] = "an IPv6 address without zone expected"
        return _parse_ip6(text, n, out)
    if kind == KIND_BYTE:
        why[0] = "a decimal number of 0..255 expected"
        return _parse_byte(text, n, out)
    if kind == KIND_MEMORY:
        why[0] = "a decimal number below 2**64 expected"
        return _parse_memory(text, n, out)
    if kind == KIND_ONION or kind == KIND_ONION3:
        why[0] = "base32 of 16 (onion) or 56 (onion3) characters, a colon and a port expected"
        return _parse_onion(text, n, _ONION_BYTES if kind == KIND_ONION else _ONION3_BYTES, out)
    if kind == KIND_HTTP_PATH:
        why[0] = "two hexadecimal digits after each percent sign expected"
        return _parse_http_path(text, n, out)
    if kind == KIND_PATH:
        why[0] = "two hexadecimal digits after each percent sign expected"
        return _parse_path(text, n, out)
    if kind == KIND_CERTHASH:
        why[0] = "a multihash in a known multibase expected"
        return _parse_certhash(text, n, out)
    if kind == KIND_GARLIC32:
        why[0] = "lower-case base32 without padding expected"
        return _parse_garlic32(text, n, out)
    if kind == KIND_GARLIC64:
        why[0] = "padded base64 of I2P expected"
        return _parse_garlic64(text, n, out)
    memcpy(out, text, n)  # the kinds whose text is their value
    return <Py_ssize_t>n


cdef int value_check(Kind kind, const uint8_t *value, size_t n, const char **why) noexcept nogil:
    # Fixed sizes have been checked by whoever found the value.
    if kind == KIND_PEER:
        return peer_check(value, n, why)
    if kind == KIND_HOST:
        why[0] = "a host name of at most 253 bytes of UTF-8 without slash or NUL expected"
        return _check_name(value, n, _max_host)
    if kind == KIND_ZONE:
        why[0] = "a zone name in UTF-8 without slash or NUL expected"
        return _check_name(value, n, n)
    if kind == KIND_PATH:
        why[0] = "a path in UTF-8 with a slash before and none after it expected"
        return _check_path(value, n)
    if kind == KIND_HTTP_PATH:
        why[0] = "a path in UTF-8 expected"
        return _check_utf8(value, n)
    if kind == KIND_CERTHASH:
        why[0] = "a multihash with a digest of at most 64 bytes expected"
        return _check_certhash(value, n)
    if kind == KIND_ONION or kind == KIND_ONION3:
        why[0] = "a port above 0 expected"
        return -1 if load_be16(value + n - 2) == 0 else 0
    if kind == KIND_GARLIC32:
        why[0] = "32 bytes, or 35 and more, of I2P address expected"
        return 0 if n == _GARLIC32_BYTES or n >= _GARLIC32_ENCRYPTED_MIN_BYTES else -1
    if kind == KIND_GARLIC64:
        why[0] = "an I2P destination of at least 386 bytes expected"
        return 0 if n >= _GARLIC64_MIN_BYTES else -1
    return 0


cdef size_t _print_multibase(uint8_t prefix, const uint8_t *value, size_t n, uint8_t *out) noexcept nogil:
    out[0] = prefix
    return 1 + <size_t>base_encode(base_alphabet(prefix), value, n, out + 1, n * 2)


cdef size_t value_print(Kind kind, const uint8_t *value, size_t n, uint8_t *out) noexcept nogil:
    if kind == KIND_IP4:
        return _print_ip4(value, out)
    if kind == KIND_PORT:
        return _print_number(load_be16(value), out)
    if kind == KIND_PEER:
        return <size_t>peer_print(value, n, out, n * 2)
    if kind == KIND_IP6:
        return _print_ip6(value, out)
    if kind == KIND_BYTE:
        return _print_number(value[0], out)
    if kind == KIND_MEMORY:
        return _print_number(load_be64(value), out)
    if kind == KIND_ONION or kind == KIND_ONION3:
        return _print_onion(value, n - 2, out)
    if kind == KIND_HTTP_PATH:
        return _print_http_path(value, n, out)
    if kind == KIND_PATH:
        return _print_path(value, n, out)
    if kind == KIND_CERTHASH:
        return _print_multibase(c'u', value, n, out)
    if kind == KIND_GARLIC32:
        return <size_t>base_encode(base_alphabet(c'b'), value, n, out, n * 2)
    if kind == KIND_GARLIC64:
        return _print_garlic64(value, n, out)
    memcpy(out, value, n)
    return n


cdef size_t value_text_bound(Kind kind, size_t n) noexcept nogil:
    if kind == KIND_IP6:
        return 39  # a mapped IPv4 address is shorter
    if kind == KIND_HTTP_PATH or kind == KIND_PATH:
        return 3 * n
    if kind == KIND_MEMORY:
        return 20
    if kind <= KIND_BYTE:
        return 15
    if kind <= KIND_ONION3:
        return n * 2
    if kind <= KIND_ZONE:
        return n
    return n * 8 // 5 + 8  # base32, base58 and base64

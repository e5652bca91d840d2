"""The usual form of a libp2p certificate, read in one pass.

Comes in: the DER of a peer's certificate, untrusted. Goes out: its parts, or None if it has any other form: then
security/tls_cert.py reads it the general way. Every certificate that is read here would be read there, with the same
parts. Never checks a signature, never reads past the end, never allocates by a length that it has not compared.
The usual form: version 3, a key on P-256, ECDSA with SHA-256, names of short ASCII texts, and the libp2p extension
only. RFC 5280, 4.1; libp2p tls, "libp2p Public Key Extension".
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from p2pcore._fast.codec.cursor cimport Cursor, cursor, remaining, take

cdef enum:
    INTEGER = 0x02
    BIT_STRING = 0x03
    OCTET_STRING = 0x04
    OID = 0x06
    UTF8 = 0x0C
    PRINTABLE = 0x13
    UTC_TIME = 0x17
    GENERAL_TIME = 0x18
    SEQUENCE = 0x30
    SET = 0x31
    EXTENSIONS = 0xA3
    MAX_SERIAL = 20     # bytes (RFC 5280, 4.1.2.2)
    MAX_TEXT = 64       # characters of a name's part (RFC 5280, appendix A.1)

cdef bytes VERSION_3 = bytes.fromhex("a003020102")
cdef bytes ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
cdef bytes P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
cdef Py_ssize_t SPKI_BYTES = 91
cdef bytes LIBP2P = bytes.fromhex("060a2b0601040183a25a0101")
cdef bytes CRITICAL = bytes.fromhex("0101ff")


cdef bint _tlv(Cursor *c, uint8_t tag, Cursor *inside) noexcept nogil:
    # Takes the next element if it has this tag and a length in its shortest form, at most 65,535. With another tag,
    # nothing is taken.
    cdef const uint8_t *head
    cdef const uint8_t *more
    cdef size_t n
    cdef const uint8_t *body
    if remaining(c) < 2 or c.at[0] != tag:
        return False
    head = take(c, 2)
    n = head[1]
    if n == 0x81:
        more = take(c, 1)
        if more == NULL or more[0] < 0x80:
            return False
        n = more[0]
    elif n == 0x82:
        more = take(c, 2)
        if more == NULL or more[0] == 0:
            return False
        n = (<size_t> more[0] << 8) | more[1]
    elif n >= 0x80:
        return False
    body = take(c, n)
    if body == NULL:
        return False
    inside[0] = cursor(body, n)
    return True


cdef bint _is_next(Cursor *c, bytes wanted) noexcept:
    # Takes these bytes if they come next.
    cdef size_t n = <size_t> PyBytes_GET_SIZE(wanted)
    if n > remaining(c) or memcmp(c.at, PyBytes_AS_STRING(wanted), n) != 0:
        return False
    c.at += n
    return True


cdef bint _serial(Cursor *c) noexcept nogil:
    # A positive number in its shortest form.
    cdef Cursor number
    cdef size_t n
    if not _tlv(c, INTEGER, &number):
        return False
    n = remaining(&number)
    if n < 1 or n > MAX_SERIAL or number.at[0] >= 0x80:
        return False
    return number.at[0] != 0 or (n > 1 and number.at[1] >= 0x80)


cdef bint _name(Cursor *c) noexcept nogil:
    # A Name whose parts have one attribute each, of X.520 (2.5.4.x), with a text of letters, digits, space, - and .
    cdef Cursor name, part, attribute, oid, text
    if not _tlv(c, SEQUENCE, &name):
        return False
    while remaining(&name):
        if not _tlv(&name, SET, &part) or not _tlv(&part, SEQUENCE, &attribute) or remaining(&part):
            return False
        if not _tlv(&attribute, OID, &oid) or remaining(&oid) != 3:
            return False
        if oid.at[0] != 0x55 or oid.at[1] != 4 or oid.at[2] >= 0x80:
            return False
        if not _tlv(&attribute, PRINTABLE, &text) and not _tlv(&attribute, UTF8, &text):
            return False
        if remaining(&attribute) or not _is_plain(&text):
            return False
    return True


cdef bint _is_plain(const Cursor *text) noexcept nogil:
    cdef const uint8_t *at = text.at
    if text.at == text.end or remaining(text) > MAX_TEXT:
        return False
    while at < text.end:
        if not (c"0" <= at[0] <= c"9" or c"a" <= at[0] <= c"z" or c"A" <= at[0] <= c"Z" or at[0] == c" "
                or at[0] == c"-" or at[0] == c"."):
            return False
        at += 1
    return True


cdef tuple _time(Cursor *c):
    # Year, month, day, hour, minute, second. UTCTime before 2050, GeneralizedTime from then on (RFC 5280, 4.1.2.5).
    cdef Cursor text
    cdef const uint8_t *at
    cdef int year, i
    cdef bint is_long = remaining(c) > 0 and c.at[0] == GENERAL_TIME
    cdef int digits = 14 if is_long else 12
    if not _tlv(c, GENERAL_TIME if is_long else UTC_TIME, &text) or remaining(&text) != <size_t> digits + 1:
        return None
    at = text.at
    for i in range(digits):
        if at[i] < c"0" or at[i] > c"9":
            return None
    if at[digits] != c"Z":
        return None
    year = _two(at)
    if is_long:
        at += 2
        year = 100 * year + _two(at)
        if year < 2050:
            return None
    else:
        year += 1900 if year >= 50 else 2000
    return year, _two(at + 2), _two(at + 4), _two(at + 6), _two(at + 8), _two(at + 10)


cdef int _two(const uint8_t *at) noexcept nogil:
    return 10 * (at[0] - c"0") + at[1] - c"0"


cdef bytes _since(const uint8_t *start, const uint8_t *end):
    return PyBytes_FromStringAndSize(<const char *> start, end - start)


cdef tuple _signed_key(Cursor *extensions):
    # The two values in the one extension, which is libp2p's.
    cdef Cursor listed, one, value, content, key, signature
    if not _tlv(extensions, SEQUENCE, &listed) or remaining(extensions):
        return None
    if not _tlv(&listed, SEQUENCE, &one) or remaining(&listed) or not _is_next(&one, LIBP2P):
        return None
    _is_next(&one, CRITICAL)
    if not _tlv(&one, OCTET_STRING, &value) or remaining(&one):
        return None
    if not _tlv(&value, SEQUENCE, &content) or remaining(&value):
        return None
    if not _tlv(&content, OCTET_STRING, &key) or not _tlv(&content, OCTET_STRING, &signature) or remaining(&content):
        return None
    return _since(key.at, key.end), _since(signature.at, signature.end)


def read_usual(bytes der not None):
    """The parts of a certificate in the usual form; None for any other one, well-formed or not.

    Returns: the signed body; the key (SubjectPublicKeyInfo, 91 bytes); the certificate's own signature; of the
        extension, the host's public key and its signature; the beginning and the end of the validity, as year, month,
        day, hour, minute, second, which may be no date.
    """
    cdef Cursor whole = cursor(<const uint8_t *> PyBytes_AS_STRING(der), <size_t> PyBytes_GET_SIZE(der))
    cdef Cursor outer, body, validity, extensions, bits
    cdef const uint8_t *start
    cdef const uint8_t *spki
    if not _tlv(&whole, SEQUENCE, &outer) or remaining(&whole):
        return None
    start = outer.at
    if not _tlv(&outer, SEQUENCE, &body):
        return None
    signed = _since(start, outer.at)
    if not _is_next(&body, VERSION_3) or not _serial(&body) or not _is_next(&body, ECDSA_SHA256):
        return None
    if not _name(&body) or not _tlv(&body, SEQUENCE, &validity):
        return None
    since, until = _time(&validity), _time(&validity)
    if since is None or until is None or remaining(&validity) or not _name(&body):
        return None
    spki = body.at
    if not _is_next(&body, P256) or take(&body, <size_t> (SPKI_BYTES - PyBytes_GET_SIZE(P256))) == NULL:
        return None
    if not _tlv(&body, EXTENSIONS, &extensions) or remaining(&body):
        return None
    signed_key = _signed_key(&extensions)
    if signed_key is None or not _is_next(&outer, ECDSA_SHA256):
        return None
    if not _tlv(&outer, BIT_STRING, &bits) or remaining(&outer) or remaining(&bits) < 1 or bits.at[0] != 0:
        return None
    return (signed, _since(spki, spki + SPKI_BYTES), _since(bits.at + 1, bits.end), *signed_key, since, until)

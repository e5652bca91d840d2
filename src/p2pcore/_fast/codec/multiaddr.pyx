"""The multiaddr codec, and the compiled base of `p2pcore.values.multiaddr.Multiaddr`.

Comes in: untrusted text or bytes. Goes out: checked bytes and canonical text; AddressError with
the value and what was expected for everything else. Work and memory are bounded by the limits;
text and bytes pass through buffers on the stack, once. Never resolves names, never imports the
`multiaddr` package. Source: multiformats multiaddr and its table of protocols.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject_RichCompare
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from p2pcore._fast.codec.cursor cimport Cursor, cursor, remaining, take
from p2pcore._fast.codec.multiaddr_values cimport (
    KIND_BYTE,
    KIND_CERTHASH,
    KIND_GARLIC32,
    KIND_GARLIC64,
    KIND_HOST,
    KIND_HTTP_PATH,
    KIND_IP4,
    KIND_IP6,
    KIND_MEMORY,
    KIND_NONE,
    KIND_ONION,
    KIND_ONION3,
    KIND_PATH,
    KIND_PEER,
    KIND_PORT,
    KIND_ZONE,
    value_check,
    value_parse,
    value_print,
    value_text_bound,
)
from p2pcore._fast.codec.varint cimport varint_take, varint_write

from p2pcore import limits
from p2pcore.address_hint import meant
from p2pcore.errors import AddressError

cdef enum:
    _MAX_BYTES = 2048   # what the buffers below have room for
    _MAX_COMPONENTS = 64
    # A component grows by less than VALUE_ROOM (32) when it is parsed, and by less than 32 characters when
    # it is printed beyond three a byte (http-path).
    _BINARY_ROOM = 4096  # _MAX_BYTES + _MAX_COMPONENTS * 32
    _TEXT_ROOM = 8192    # _MAX_BYTES * 3 + _MAX_COMPONENTS * 32
    _TOP = 0x7FFFFFFF   # of codes and lengths, as in go-multiaddr
    _COUNT = 44
    _NAME_SLOTS = 256
    _SMALL_CODES = 1024

cdef size_t _max_bytes = limits.MAX_MULTIADDR_BYTES
cdef size_t _max_components = limits.MAX_MULTIADDR_COMPONENTS

if _max_bytes > _MAX_BYTES or _max_components > _MAX_COMPONENTS:
    raise ImportError("p2pcore.limits: a multiaddr is larger than p2pcore._fast.codec.multiaddr has room for")


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    Py_ssize_t PyUnicode_GET_LENGTH(object text)


# -- the table of protocols --------------------------------------------------------------------

cdef Protocol _protocols[_COUNT]
cdef int8_t _by_name[_NAME_SLOTS]   # index into _protocols, or -1; open addressing
cdef int8_t _by_code[_SMALL_CODES]  # the same, for every code but the large one
cdef int _large = -1                # index of the one code that is not below _SMALL_CODES

_DEFINITIONS = (  # name, code, bytes of the value (-1: variable), kind; an alias follows its protocol
    (b"ip4", 4, 4, KIND_IP4),
    (b"tcp", 6, 2, KIND_PORT),
    (b"dccp", 33, 2, KIND_PORT),
    (b"ip6", 41, 16, KIND_IP6),
    (b"ip6zone", 42, -1, KIND_ZONE),
    (b"ipcidr", 43, 1, KIND_BYTE),
    (b"dns", 53, -1, KIND_HOST),
    (b"dns4", 54, -1, KIND_HOST),
    (b"dns6", 55, -1, KIND_HOST),
    (b"dnsaddr", 56, -1, KIND_HOST),
    (b"sctp", 132, 2, KIND_PORT),
    (b"udp", 273, 2, KIND_PORT),
    (b"p2p-webrtc-star", 275, 0, KIND_NONE),
    (b"p2p-webrtc-direct", 276, 0, KIND_NONE),
    (b"p2p-stardust", 277, 0, KIND_NONE),
    (b"webrtc-direct", 280, 0, KIND_NONE),
    (b"webrtc", 281, 0, KIND_NONE),
    (b"p2p-circuit", 290, 0, KIND_NONE),
    (b"udt", 301, 0, KIND_NONE),
    (b"utp", 302, 0, KIND_NONE),
    (b"unix", 400, -1, KIND_PATH),
    (b"p2p", 421, -1, KIND_PEER),
    (b"ipfs", 421, -1, KIND_PEER),
    (b"https", 443, 0, KIND_NONE),
    (b"onion", 444, 12, KIND_ONION),
    (b"onion3", 445, 37, KIND_ONION3),
    (b"garlic64", 446, -1, KIND_GARLIC64),
    (b"garlic32", 447, -1, KIND_GARLIC32),
    (b"tls", 448, 0, KIND_NONE),
    (b"sni", 449, -1, KIND_HOST),
    (b"noise", 454, 0, KIND_NONE),
    (b"quic", 460, 0, KIND_NONE),
    (b"quic-v1", 461, 0, KIND_NONE),
    (b"webtransport", 465, 0, KIND_NONE),
    (b"certhash", 466, -1, KIND_CERTHASH),
    (b"ws", 477, 0, KIND_NONE),
    (b"wss", 478, 0, KIND_NONE),
    (b"p2p-websocket-star", 479, 0, KIND_NONE),
    (b"http", 480, 0, KIND_NONE),
    (b"http-path", 481, -1, KIND_HTTP_PATH),
    (b"memory", 777, 8, KIND_MEMORY),
    (b"plaintextv2", 7367777, 0, KIND_NONE),
)

TABLE = tuple(
    (name.decode(), code, size * 8 if size > 0 else size, kind == KIND_PATH)
    for name, code, size, kind in _DEFINITIONS
)
"""(name, code, bits of the value or -1, is a path), aliases after the name that is printed."""


cdef inline size_t _hash_name(const uint8_t *name, size_t n) noexcept nogil:
    # Length, ends and middle tell the names of the table apart but for a few, which probing finds.
    return (name[0] * 7 + name[n - 1] * 31 + name[n // 2] * 3 + n * 17) % _NAME_SLOTS


cdef const Protocol *_find_name(const uint8_t *name, size_t n) noexcept nogil:
    cdef size_t slot
    cdef const Protocol *protocol
    if n == 0:
        return NULL
    slot = _hash_name(name, n)
    while _by_name[slot] >= 0:
        protocol = &_protocols[_by_name[slot]]
        if protocol.name_length == n and memcmp(protocol.name, name, n) == 0:
            return protocol
        slot = (slot + 1) % _NAME_SLOTS
    return NULL


cdef const Protocol *_find_code(uint64_t code) noexcept nogil:
    if code < _SMALL_CODES:
        return &_protocols[_by_code[code]] if _by_code[code] >= 0 else NULL
    return &_protocols[_large] if code == _protocols[_large].code else NULL


cdef int _enter_code(int i) except -1:
    global _large
    if _protocols[i].code >= _SMALL_CODES:
        if _large >= 0:
            raise ImportError("p2pcore._fast.codec.multiaddr: two large codes")
        _large = i
    elif _by_code[_protocols[i].code] < 0:  # an alias comes second and is never printed
        _by_code[_protocols[i].code] = <int8_t>i
    return 0


cdef int _enter_name(int i) except -1:
    cdef size_t slot = _hash_name(_protocols[i].name, _protocols[i].name_length)
    while _by_name[slot] >= 0:
        slot = (slot + 1) % _NAME_SLOTS
    _by_name[slot] = <int8_t>i
    return 0


cdef int _prepare() except -1:
    cdef int i
    if len(_DEFINITIONS) > _COUNT:
        raise ImportError("p2pcore._fast.codec.multiaddr: _COUNT is too small for the table")
    memset(_by_name, -1, sizeof(_by_name))
    memset(_by_code, -1, sizeof(_by_code))
    for i, (name, code, size, kind) in enumerate(_DEFINITIONS):
        _protocols[i].name = <const uint8_t *>PyBytes_AS_STRING(name)  # kept alive by _DEFINITIONS
        _protocols[i].name_length = <size_t>len(name)
        _protocols[i].code = code
        _protocols[i].prefix_length = <size_t>varint_write(_protocols[i].prefix, code)
        _protocols[i].size = size
        _protocols[i].kind = kind
        _enter_code(i)
        _enter_name(i)
    return 0


_prepare()


# -- bytes -------------------------------------------------------------------------------------


cdef inline int _refuse(
    Fault *fault, const char *why, const Protocol *protocol, const uint8_t *at, size_t length
) noexcept nogil:
    fault.why = why
    fault.protocol = protocol
    fault.at = at
    fault.length = length
    return -1


cdef int _take_number(Cursor *c, uint64_t *value, Fault *fault) noexcept nogil:
    cdef const uint8_t *at = c.at
    if varint_take(c, value) <= 0:
        return _refuse(fault, "a complete varint in its shortest form expected", NULL, at, remaining(c))
    if value[0] > _TOP:
        return _refuse(fault, "a code or length below 2**31 expected", NULL, at, <size_t>(c.at - at))
    return 0


cdef int next_component(Cursor *c, Component *component, Fault *fault) noexcept nogil:
    # 1 with the next component, 0 at the end, -1. The value is located, not checked.
    cdef uint64_t number = 0
    component.start = c.at
    if remaining(c) == 0:
        return 0
    if _take_number(c, &number, fault) < 0:
        return -1
    component.protocol = _find_code(number)
    if component.protocol == NULL:
        return _refuse(fault, "the code of a known protocol expected", NULL, component.start, <size_t>(c.at - component.start))
    number = <uint64_t>component.protocol.size
    if component.protocol.size < 0 and _take_number(c, &number, fault) < 0:
        return -1
    if number == 0 and component.protocol.size:
        return _refuse(fault, "a value that is not empty expected", component.protocol, c.at, 0)
    component.length = <size_t>number
    component.value = take(c, component.length)
    if component.value == NULL:
        return _refuse(fault, "a value as long as announced expected", component.protocol, c.at, remaining(c))
    return 1


cdef inline size_t _text_bound(const Component *component) noexcept nogil:
    return component.protocol.name_length + 2 + value_text_bound(component.protocol.kind, component.length)


cdef size_t _print(const uint8_t *data, size_t n, uint8_t *out) noexcept nogil:
    # The text of checked bytes; `out` has room for _TEXT_ROOM.
    cdef Cursor c = cursor(data, n)
    cdef Component component
    cdef Fault fault
    cdef size_t used = 0
    while next_component(&c, &component, &fault) > 0:
        out[used] = c'/'
        memcpy(out + used + 1, component.protocol.name, component.protocol.name_length)
        used += 1 + component.protocol.name_length
        if component.length:
            if component.protocol.kind != KIND_PATH:  # a path brings its own slash
                out[used] = c'/'
                used += 1
            used += value_print(component.protocol.kind, component.value, component.length, out + used)
    return used


cdef int _check_sizes(const uint8_t *data, size_t n, size_t bound, Fault *fault) noexcept nogil:
    # `bound` is at least the length of the text, which is printed only if that leaves a doubt.
    cdef uint8_t text[_TEXT_ROOM]
    if n > _max_bytes or (bound > _max_bytes and _print(data, n, text) > _max_bytes):
        return _refuse(fault, "text and bytes within the size limit expected", NULL, data, n)
    return 0


cdef int _check(const uint8_t *data, size_t n, Fault *fault) noexcept nogil:
    cdef Cursor c = cursor(data, n)
    cdef Component component
    cdef const char *why = ""
    cdef size_t count = 0, bound = 0
    cdef int more = 1
    if n == 0 or n > _max_bytes:
        return _refuse(fault, "1 to 2048 bytes expected", NULL, data, n)
    while True:
        more = next_component(&c, &component, fault)
        if more <= 0:
            break
        if component.length and value_check(component.protocol.kind, component.value, component.length, &why) < 0:
            return _refuse(fault, why, component.protocol, component.value, component.length)
        if component.protocol.kind == KIND_PATH and remaining(&c):
            return _refuse(fault, "nothing after a path expected", component.protocol, c.at, remaining(&c))
        count += 1
        if count > _max_components:
            return _refuse(fault, "fewer components expected", NULL, data, n)
        bound += _text_bound(&component)
    return more if more < 0 else _check_sizes(data, n, bound, fault)


# -- text --------------------------------------------------------------------------------------


cdef inline const uint8_t *_token_end(const Cursor *c) noexcept nogil:
    cdef const uint8_t *slash = <const uint8_t *>memchr(c.at, c'/', remaining(c))
    return c.end if slash == NULL else slash


cdef Py_ssize_t _parse_value(const Protocol *protocol, Cursor *c, uint8_t *out, Fault *fault) noexcept nogil:
    # Reads "/value" and writes the value, its length first if that varies; returns the bytes written.
    cdef const uint8_t *start = c.at + 1
    cdef const char *why = ""
    cdef size_t head = 2 if protocol.size < 0 else 0
    cdef Py_ssize_t used
    if remaining(c) < 2:
        return _refuse(fault, "a value expected", protocol, c.at, 0)
    c.at += 1
    c.at = c.end if protocol.kind == KIND_PATH else _token_end(c)
    if protocol.kind == KIND_PATH:
        start -= 1
    used = value_parse(protocol.kind, start, <size_t>(c.at - start), out + head, &why)
    if used < 0 or value_check(protocol.kind, out + head, <size_t>used, &why) < 0:
        return _refuse(fault, why, protocol, start, <size_t>(c.at - start))
    if used == 0:
        return _refuse(fault, "a value that is not empty expected", protocol, start, 0)
    if head:
        head = <size_t>varint_write(out, <uint64_t>used)  # one or two bytes: the text is bounded
        if head == 1:
            memmove(out + 1, out + 2, <size_t>used)
            out[0] = <uint8_t>used
    return <Py_ssize_t>head + used


cdef Py_ssize_t _parse_component(Cursor *c, uint8_t *out, Component *component, Fault *fault) noexcept nogil:
    # Reads "/name" and the value if there is one; returns the bytes written.
    cdef const uint8_t *start = c.at + 1
    cdef const Protocol *protocol
    cdef Py_ssize_t used = 0
    if c.at[0] != c'/':
        return _refuse(fault, "a slash expected", NULL, c.at, remaining(c))
    c.at += 1
    c.at = _token_end(c)
    protocol = _find_name(start, <size_t>(c.at - start))
    if protocol == NULL:
        return _refuse(fault, "the name of a known protocol expected", NULL, start, <size_t>(c.at - start))
    memcpy(out, protocol.prefix, 4)
    if protocol.size:
        used = _parse_value(protocol, c, out + protocol.prefix_length, fault)
    component.protocol = protocol
    component.length = <size_t>used  # with its own length: this only makes the bound larger
    return used if used < 0 else <Py_ssize_t>protocol.prefix_length + used


cdef Py_ssize_t _parse(const uint8_t *text, size_t n, uint8_t *out, Fault *fault) noexcept nogil:
    # The bytes of `text`; `out` has room for _BINARY_ROOM.
    cdef Cursor c
    cdef Component component
    cdef size_t used = 0, count = 0, bound = 0
    cdef Py_ssize_t more
    while n and text[n - 1] == c'/':
        n -= 1
    if n == 0:
        return _refuse(fault, "at least one component expected", NULL, text, 0)
    c = cursor(text, n)
    while remaining(&c):
        if count == _max_components:
            return _refuse(fault, "fewer components expected", NULL, c.at, remaining(&c))
        more = _parse_component(&c, out + used, &component, fault)
        if more < 0:
            return -1
        used += <size_t>more
        count += 1
        bound += _text_bound(&component)
    return -1 if _check_sizes(out, used, bound, fault) < 0 else <Py_ssize_t>used


# -- the Python side ---------------------------------------------------------------------------


cdef object _error(str shown, const Fault *fault, str what, str hint=None):
    prefix = shown if len(shown) <= 120 else shown[:117] + "..."
    name = f"{fault.protocol.name[:fault.protocol.name_length].decode()} " if fault.protocol != NULL else ""
    perhaps = f"; perhaps {hint} is meant" if hint else ""
    return AddressError(f"multiaddr {prefix}: {name}{what}: {fault.why.decode()}{perhaps}")


cdef str _text_part(const Fault *fault):
    cdef Py_ssize_t n = <Py_ssize_t>fault.length if fault.length < 80 else 80
    part = fault.at[:n].decode("utf-8", "replace")
    return repr(part) if part else "at the end"


cpdef bytes to_bytes(str text):
    """The binary form of a multiaddr's text.

    Raises:
        AddressError: it is malformed, has an unknown protocol, or is over the limits.
    """
    cdef uint8_t out[_BINARY_ROOM]
    cdef Fault fault
    cdef const char *source
    cdef Py_ssize_t n = 0, used
    if <size_t>PyUnicode_GET_LENGTH(text) > _max_bytes:
        raise AddressError(f"multiaddr {text[:80]}...: over {_max_bytes} bytes")
    try:
        source = PyUnicode_AsUTF8AndSize(text, &n)
    except UnicodeEncodeError:
        raise AddressError(f"multiaddr {text[:80]!r}: text without lone surrogates expected") from None
    if <size_t>n > _max_bytes:
        raise AddressError(f"multiaddr {text[:80]}...: over {_max_bytes} bytes")
    used = _parse(<const uint8_t *>source, <size_t>n, out, &fault)
    if used < 0:
        raise _error(repr(text), &fault, _text_part(&fault), meant(text))
    return PyBytes_FromStringAndSize(<char *>out, used)


cdef int _check_bytes(bytes data) except -1:
    cdef Fault fault
    cdef Py_ssize_t n
    if _check(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), &fault) < 0:
        n = <Py_ssize_t>fault.length if fault.length < 40 else 40
        part = fault.at[:n].hex() or "at the end"
        raise _error(data[:60].hex() or "''", &fault, part)
    return 0


cdef str _to_text(bytes data):
    cdef uint8_t out[_TEXT_ROOM]
    cdef size_t used = _print(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), out)
    return PyUnicode_DecodeUTF8(<char *>out, <Py_ssize_t>used, NULL)


def to_text(bytes data):
    """The canonical text of a multiaddr's binary form.

    Raises:
        AddressError: as to_bytes.
    """
    _check_bytes(data)
    return _to_text(data)


cdef object _value_text(const Component *component):
    cdef uint8_t out[_TEXT_ROOM]
    cdef size_t used
    if component.length == 0:
        return None
    used = value_print(component.protocol.kind, component.value, component.length, out)
    return PyUnicode_DecodeUTF8(<char *>out, <Py_ssize_t>used, NULL)


cdef inline Cursor _cursor_of(bytes data) noexcept:
    return cursor(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))


_EMPTY = object()


def empty(cls):
    """A `cls` without components, which neither text nor bytes can give."""
    return cls(_EMPTY)


cdef class MultiaddrValue:
    """Checked bytes that compare, hash and sort by what they are; and the ways to look into them."""

    def __cinit__(self, addr, /):
        if type(addr) is str:
            self._bytes = to_bytes(addr)
        elif type(addr) is bytes:
            _check_bytes(addr)
            self._bytes = addr
        elif isinstance(addr, MultiaddrValue):
            self._bytes = (<MultiaddrValue>addr)._bytes
        elif addr is _EMPTY:
            self._bytes = b""
        elif isinstance(addr, str):
            self._bytes = to_bytes(str.__str__(addr))  # of a subclass: the plain text
        elif isinstance(addr, (bytes, bytearray, memoryview)):
            self._bytes = bytes(addr)
            _check_bytes(self._bytes)
        else:
            self._bytes = self._convert(addr)

    @staticmethod
    def _convert(addr):
        """The binary form of anything else; a subclass may know more."""
        raise TypeError(f"a multiaddr is made of str, bytes or another multiaddr, not {type(addr).__name__}")

    def __hash__(self):
        return hash(self._bytes)

    def __richcmp__(self, other, int op):
        if type(self) is not type(other):
            return NotImplemented
        return PyObject_RichCompare(self._bytes, (<MultiaddrValue>other)._bytes, op)

    def __str__(self):
        return _to_text(self._bytes)

    def to_bytes(self):
        """The binary form."""
        return self._bytes

    def __bytes__(self):
        return self._bytes

    def __len__(self):
        cdef Cursor c = _cursor_of(self._bytes)
        cdef Component component
        cdef Fault fault
        cdef Py_ssize_t n = 0
        while next_component(&c, &component, &fault) > 0:
            n += 1
        return n

    def components(self):
        """(name, value) of each component, in order; the value is text, or None if there is none."""
        cdef Cursor c = _cursor_of(self._bytes)
        cdef Component component
        cdef Fault fault
        cdef list found = []
        while next_component(&c, &component, &fault) > 0:
            name = component.protocol.name[:component.protocol.name_length].decode("ascii")
            found.append((name, _value_text(&component)))
        return tuple(found)

    def _codes(self):
        """The protocol code of each component."""
        cdef Cursor c = _cursor_of(self._bytes)
        cdef Component component
        cdef Fault fault
        cdef list found = []
        while next_component(&c, &component, &fault) > 0:
            found.append(component.protocol.code)
        return tuple(found)

    def _offsets(self):
        """Where each component begins."""
        cdef Cursor c = _cursor_of(self._bytes)
        cdef const uint8_t *first = c.at
        cdef Component component
        cdef Fault fault
        cdef list found = []
        while next_component(&c, &component, &fault) > 0:
            found.append(component.start - first)
        return tuple(found)

    def _value(self, uint32_t code, default):
        """Text of the first value with this code, None if that protocol has none, or `default`."""
        cdef Cursor c = _cursor_of(self._bytes)
        cdef Component component
        cdef Fault fault
        while next_component(&c, &component, &fault) > 0:
            if component.protocol.code == code:
                return _value_text(&component)
        return default

    def _raw_value(self, uint32_t code):
        """Bytes of the first value with this code, or None."""
        cdef Cursor c = _cursor_of(self._bytes)
        cdef Component component
        cdef Fault fault
        while next_component(&c, &component, &fault) > 0:
            if component.protocol.code == code:
                return component.value[:component.length]
        return None

    def _last(self, bytes part):
        """Where `part`, whole components, occurs last; -1 if it does not."""
        cdef Cursor c = _cursor_of(self._bytes)
        cdef const uint8_t *first = c.at
        cdef size_t n = <size_t>PyBytes_GET_SIZE(part)
        cdef Component component
        cdef Fault fault
        cdef Py_ssize_t found = -1
        while next_component(&c, &component, &fault) > 0:
            if n <= <size_t>(c.end - component.start) and memcmp(component.start, PyBytes_AS_STRING(part), n) == 0:
                found = component.start - first
        return found

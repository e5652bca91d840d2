# See multiaddr_values.pyx.
from libc.stdint cimport uint8_t

cdef enum:
    VALUE_ROOM = 32  # value_parse writes at most as many bytes as the text has, and at least this room


cdef enum Kind:
    KIND_NONE       # no value
    KIND_IP4        # 4 bytes
    KIND_IP6        # 16 bytes
    KIND_PORT       # 2 bytes
    KIND_BYTE       # 1 byte, a prefix length
    KIND_MEMORY     # 8 bytes
    KIND_ONION      # 10 bytes and a port
    KIND_ONION3     # 35 bytes and a port
    KIND_HOST       # UTF-8, bounded as host names are; this and the kinds below have variable size
    KIND_ZONE       # UTF-8
    KIND_PATH       # UTF-8 that begins with a slash; its first part may be percent-encoded in text
    KIND_HTTP_PATH  # UTF-8, percent-encoded in text
    KIND_PEER       # multihash of a peer id
    KIND_CERTHASH   # any multihash
    KIND_GARLIC32   # I2P, base32
    KIND_GARLIC64   # I2P, base64


cdef Py_ssize_t value_parse(Kind kind, const uint8_t *text, size_t n, uint8_t *out, const char **why) noexcept nogil
cdef int value_check(Kind kind, const uint8_t *value, size_t n, const char **why) noexcept nogil
cdef size_t value_print(Kind kind, const uint8_t *value, size_t n, uint8_t *out) noexcept nogil
cdef size_t value_text_bound(Kind kind, size_t n) noexcept nogil

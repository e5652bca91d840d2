# See multibase.pyx.
from libc.stdint cimport int8_t, uint8_t, uint32_t

cdef enum:
    BASE_MAX_BYTES = 160  # of one value in base10, 36 or 58: room for two 64-byte digests and their prefixes


cdef struct Alphabet:
    uint32_t base            # how many digits
    int bits                 # of one digit; 0 if the base is no power of two
    int group                # digits that padding fills up to; 0: no padding
    int chunk_digits         # digits that fit 32 bits (bases that are no power of two)
    uint32_t chunk           # base ** chunk_digits
    const uint8_t *digits    # `base` characters
    int8_t values[256]       # of each character; -1: not in the alphabet


cdef const Alphabet *base_alphabet(uint8_t prefix) noexcept nogil  # NULL: no such multibase
cdef Py_ssize_t base_encode(const Alphabet *a, const uint8_t *data, size_t n, uint8_t *out, size_t room) noexcept nogil
cdef Py_ssize_t base_decode(const Alphabet *a, const uint8_t *text, size_t n, uint8_t *out, size_t room) noexcept nogil
cdef Py_ssize_t multibase_decode(const uint8_t *text, size_t n, uint8_t *out, size_t room) noexcept nogil

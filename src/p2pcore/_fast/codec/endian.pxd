# Fixed-width unsigned integers in byte strings.
#
# Comes in: a pointer to at least as many bytes as the integer has (the caller has checked).
# Goes out: the integer, or its bytes. Works by shifts, so it never depends on alignment or on
# the byte order of the machine; compilers turn each into one load or store.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef inline uint16_t load_be16(const uint8_t *p) noexcept nogil:
    return <uint16_t>((<uint32_t>p[0] << 8) | p[1])


cdef inline uint32_t load_be32(const uint8_t *p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline uint64_t load_be64(const uint8_t *p) noexcept nogil:
    return (<uint64_t>load_be32(p) << 32) | load_be32(p + 4)


cdef inline uint32_t load_le32(const uint8_t *p) noexcept nogil:
    return (<uint32_t>p[3] << 24) | (<uint32_t>p[2] << 16) | (<uint32_t>p[1] << 8) | p[0]


cdef inline uint64_t load_le64(const uint8_t *p) noexcept nogil:
    return (<uint64_t>load_le32(p + 4) << 32) | load_le32(p)


cdef inline void store_be16(uint8_t *p, uint16_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 8)
    p[1] = <uint8_t>value


cdef inline void store_be32(uint8_t *p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 24)
    p[1] = <uint8_t>(value >> 16)
    p[2] = <uint8_t>(value >> 8)
    p[3] = <uint8_t>value


cdef inline void store_be64(uint8_t *p, uint64_t value) noexcept nogil:
    store_be32(p, <uint32_t>(value >> 32))
    store_be32(p + 4, <uint32_t>value)


cdef inline void store_le32(uint8_t *p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>value
    p[1] = <uint8_t>(value >> 8)
    p[2] = <uint8_t>(value >> 16)
    p[3] = <uint8_t>(value >> 24)


cdef inline void store_le64(uint8_t *p, uint64_t value) noexcept nogil:
    store_le32(p, <uint32_t>value)
    store_le32(p + 4, <uint32_t>(value >> 32))

# The yamux frame header: 12 bytes, big-endian. Spec: libp2p/specs yamux, "Framing".
# Comes in: fields or bytes. Goes out: bytes or fields. Never checks: what a value may be is the session's business.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    HEADER_BYTES = 12

cdef enum FrameType:
    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3

cdef enum Flag:
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


cdef struct Header:
    uint8_t version
    uint8_t type
    uint16_t flags
    uint32_t id         # stream, 0 for the session
    uint32_t length     # body bytes, window increment, ping value or code


cdef inline Header unpack_header(const uint8_t *at) noexcept nogil:
    cdef Header out
    out.version = at[0]
    out.type = at[1]
    out.flags = <uint16_t> ((at[2] << 8) | at[3])
    out.id = (<uint32_t> at[4] << 24) | (<uint32_t> at[5] << 16) | (<uint32_t> at[6] << 8) | at[7]
    out.length = (<uint32_t> at[8] << 24) | (<uint32_t> at[9] << 16) | (<uint32_t> at[10] << 8) | at[11]
    return out


cdef inline void put_u32(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t> (value >> 24)
    at[1] = <uint8_t> (value >> 16)
    at[2] = <uint8_t> (value >> 8)
    at[3] = <uint8_t> value


cdef inline void pack_header(uint8_t *at, uint8_t kind, uint16_t flags, uint32_t id, uint32_t length) noexcept nogil:
    at[0] = 0
    at[1] = kind
    at[2] = <uint8_t> (flags >> 8)
    at[3] = <uint8_t> flags
    put_u32(at + 4, id)
    put_u32(at + 8, length)

# See blocks.pyx.
from libc.stdint cimport int64_t, uint64_t


cdef struct Ip:
    uint64_t hi         # the first 64 bits of an IPv6 address
    uint64_t lo         # its last 64 bits, or an IPv4 address
    bint is_v6


cdef class Network:
    cdef Ip first
    cdef Ip mask
    cdef readonly object value

    cdef bint has(self, Ip *ip) noexcept


cdef class Networks:
    cdef list items     # of Network, the narrowest first

    cdef Network find(self, Ip *ip)


cdef class Kind:
    cdef str limit
    cdef int64_t most   # connections; INT64_MAX: there is no limit
    cdef int64_t factor # of the rate; 0: there is no rate
    cdef int bits       # the free bits of an address
    cdef int64_t key    # of a network of its own
    cdef int64_t peak   # the most connections that a block of this kind has had


cdef class BlockName:
    cdef Ip ip
    cdef int bits       # the free bits of an address


cdef struct Block:
    void *kind          # a Kind that the Blocks holds
    int64_t key


cdef class Blocks:
    cdef readonly dict counts
    cdef readonly bint are_counted
    cdef dict full_at   # key -> the second at which its bucket is full again
    cdef Py_ssize_t sweep_at
    cdef int64_t most_conns     # INT64_MAX: there is no limit, as in the next
    cdef int64_t most_of_peer
    cdef double interval        # of the rate, seconds; 0: there is no rate
    cdef int64_t burst
    cdef Networks networks
    cdef Kind ip4
    cdef Kind subnet
    cdef Kind site

    cdef int64_t count_of(self, int64_t key) except -1
    cdef int count(self, Block *block) except -1
    cdef int find(self, object where, Ip *ip, Block *found) except -1
    cdef int sweep(self, double now) except -1

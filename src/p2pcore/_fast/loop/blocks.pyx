"""Blocks of addresses: how many connections each has, and how fast new ones come.

Comes in: packed IP addresses (4 or 16 bytes), the time. Goes out: the limit that is reached, or nothing. A block with
connections takes one entry of a dict. Never resolves a name, never reads a clock.

A block is an IPv4 address, an IPv6 /56 and /48, or a network of Limits.subnets. An address of Limits.exempt has none.
Rates are token buckets, each kept as the time at which it will be full again (GCRA).
"""

import ipaddress
import socket

cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint8_t

from p2pcore import limits

from p2pcore._fast.codec.cursor cimport Cursor, cursor
from p2pcore._fast.codec.endian cimport load_be32, load_be64
from p2pcore._fast.codec.multiaddr cimport Component, Fault, MultiaddrValue, next_component

cdef int SUBNET_BITS = 72
cdef int SITE_BITS = 80
cdef int64_t SUBNET_TAG = <int64_t> 1 << 60  # of the key of a /56: it differs from those of IPv4 and of a /48
cdef int64_t SITE_TAG = <int64_t> 1 << 61
cdef int64_t TAGS = SUBNET_TAG | SITE_TAG
cdef int64_t SITE_FACTOR = limits.SITE_FACTOR
cdef int CODE_IP4 = 4, CODE_IP6 = 41, CODE_CIRCUIT = 290
cdef Py_ssize_t MAX_RATED = limits.MAX_RATED_SUBNETS
cdef Py_ssize_t MIN_SWEEP = 64  # entries below which no old one is looked for


def packed_of(str host not None):
    """The packed form of a numeric IP address, with or without a zone. A mapped IPv4 address is an IPv4 address."""
    if ":" not in host:
        return socket.inet_aton(host)
    return _unmapped(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]))


def packed_in(MultiaddrValue addr):
    """The packed IP address at the start of `addr`; None: there is none, or the address is relayed."""
    cdef Cursor c
    cdef Component component
    cdef Fault fault
    cdef bytes found = None
    if addr is None:
        return None
    c = cursor(<const uint8_t *> <const char *> addr._bytes, len(addr._bytes))
    while next_component(&c, &component, &fault) > 0:
        if component.protocol.code == CODE_CIRCUIT:
            return None
        if found is None and component.protocol.code in (CODE_IP4, CODE_IP6):
            found = component.value[: component.length]
    return None if found is None else _unmapped(found)


cdef bytes _unmapped(bytes packed):
    return packed[12:] if len(packed) == 16 and packed.startswith(b"\0\0\0\0\0\0\0\0\0\0\xff\xff") else packed


cdef int _read(bytes packed, Ip *ip) except -1:
    cdef const uint8_t *p = <const uint8_t *> <const char *> packed
    if len(packed) == 4:
        ip.hi, ip.lo, ip.is_v6 = 0, load_be32(p), False
    elif len(packed) == 16:
        ip.hi, ip.lo, ip.is_v6 = load_be64(p), load_be64(p + 8), True
    else:
        raise ValueError(f"{packed!r} is no packed IP address")
    return 0


@cython.final
cdef class Network:
    """One network, as "10.0.0.0/8", and its value."""

    def __cinit__(self, str text not None, value):
        net = ipaddress.ip_network(text, strict=False)
        first, mask = net.network_address.packed, net.netmask.packed
        if mask.startswith(b"\xff" * 12):  # it may be a network of mapped IPv4 addresses
            first = _unmapped(first)
            mask = mask[-len(first):]
        _read(first, &self.first)
        _read(mask, &self.mask)
        self.value = value

    cdef bint has(self, Ip *ip) noexcept:
        return (ip.is_v6 == self.first.is_v6 and ip.hi & self.mask.hi == self.first.hi
                and ip.lo & self.mask.lo == self.first.lo)


@cython.final
cdef class Networks:
    """Networks, each with a value. Of several networks with an address, the narrowest counts.

    Args:
        entries: texts as "10.0.0.0/8", each with its value.
    """

    def __cinit__(self, entries):
        entries = sorted(entries, key=lambda entry: -ipaddress.ip_network(entry[0], strict=False).prefixlen)
        self.items = [Network.__new__(Network, text, value) for text, value in entries]

    def get(self, bytes packed not None):
        """The value of the narrowest network with this address; None: there is none."""
        cdef Ip ip
        _read(packed, &ip)
        network = self.find(&ip)
        return None if network is None else (<Network> network).value

    cdef Network find(self, Ip *ip):
        for network in self.items:
            if (<Network> network).has(ip):
                return <Network> network
        return None


@cython.final
cdef class Kind:
    """What all blocks of one kind share."""


cdef Kind _kind(str limit, object most, int64_t factor, int bits):
    cdef Kind kind = Kind.__new__(Kind)
    kind.limit = limit
    kind.most = INT64_MAX if most is None else most
    kind.factor = factor
    kind.bits = bits
    return kind


@cython.final
cdef class Blocks:
    """The blocks of one node.

    Args:
        in_force: a Limits without AUTO.

    Attributes:
        counts: the connections of each block that has any, by a key.
        are_counted: whether any block has a limit.
    """

    def __cinit__(self, in_force):
        self.counts = {}
        self.full_at = {}
        self.sweep_at = MIN_SWEEP
        self.set_limits(in_force)

    def set_limits(self, in_force):
        """New limits from now on. Forgets the counts, since blocks change: count all connections again."""
        most, most_of_site, rate = (
            in_force.max_conns_per_subnet, in_force.max_conns_per_site, in_force.conn_rate_per_subnet)
        self.interval = 0.0 if rate is None else 1.0 / rate
        self.burst = in_force.conn_burst_per_subnet
        self.are_counted = most is not None or most_of_site is not None or bool(in_force.subnets)
        self.ip4 = _kind("max_conns_per_subnet", most, 1, 0)
        self.subnet = _kind("max_conns_per_subnet", most, 1, SUBNET_BITS)
        self.site = _kind("max_conns_per_site", most_of_site, SITE_FACTOR, SITE_BITS)
        own = [(text, _own(text, most, -1 - i)) for i, (text, most) in enumerate(in_force.subnets.items())]
        self.networks = Networks([*own, *((text, None) for text in in_force.exempt)])
        self.counts.clear()

    @property
    def num_rated(self):
        """Blocks whose last new connections are remembered."""
        return len(self.full_at)

    @property
    def peaks(self):
        """The most connections that a block has had since the limits were set, by limit."""
        own = [(<Kind> network.value).peak for network in self.networks.items if network.value is not None]
        return {
            "max_conns_per_subnet": max(self.ip4.peak, self.subnet.peak),
            "max_conns_per_site": self.site.peak,
            "subnets": max(own, default=0),
        }

    @property
    def most(self):
        """The connections of the block that has most now, by limit. Looks at every block."""
        most = {"max_conns_per_subnet": 0, "max_conns_per_site": 0, "subnets": 0}
        for key, count in self.counts.items():
            limit = "subnets" if key < 0 else "max_conns_per_site" if key & TAGS == SITE_TAG else "max_conns_per_subnet"
            most[limit] = max(most[limit], count)
        return most

    # -- connections ---------------------------------------------------------------------------

    def full(self, bytes packed not None):
        """Whether the address has as many connections as it may.

        Returns: None: no. Else the field of Limits, how many there are, how many there may be, the block as text.
        """
        cdef Block found[2]
        cdef Kind kind
        cdef int i
        for i in range(self.find(packed, found)):
            kind = <Kind> found[i].kind
            count = self.counts.get(found[i].key, 0)
            if count >= kind.most:
                return (kind.limit, count, kind.most, _text(packed, kind.bits))
        return None

    def add(self, bytes packed not None):
        """Counts a connection from this address."""
        cdef Block found[2]
        cdef Kind kind
        cdef int64_t count
        cdef int i
        for i in range(self.find(packed, found)):
            kind = <Kind> found[i].kind
            count = self.counts.get(found[i].key, 0) + 1
            self.counts[found[i].key] = count
            if count > kind.peak:
                kind.peak = count

    def remove(self, bytes packed not None):
        """Stops counting a connection that was added."""
        cdef Block found[2]
        cdef int64_t count
        cdef int i
        for i in range(self.find(packed, found)):
            count = self.counts[found[i].key] - 1
            if count:
                self.counts[found[i].key] = count
            else:
                del self.counts[found[i].key]

    def take(self, bytes packed not None, double now):
        """A new connection comes from this address. If one block refuses it, the others have lost nothing.

        Returns: as `full`, for the block that has too many new ones.
        """
        cdef Block found[2]
        cdef double late[2]
        cdef Kind kind
        cdef int i, count
        if not self.interval:
            return None
        count = self.find(packed, found)
        for i in range(count):
            kind = <Kind> found[i].kind
            if kind.factor:
                late[i] = max(0.0, <double> self.full_at.get(found[i].key, now) - now)
                if late[i] > (self.burst * kind.factor - 1) * self.interval / kind.factor:
                    most = self.burst * kind.factor
                    return ("conn_rate_per_subnet", most, most, _text(packed, kind.bits))
        for i in range(count):
            kind = <Kind> found[i].kind
            if kind.factor:
                self.full_at[found[i].key] = now + late[i] + self.interval / kind.factor
        if len(self.full_at) > self.sweep_at:
            self.sweep(now)
        return None

    # -- inside --------------------------------------------------------------------------------

    cdef int sweep(self, double now) except -1:
        """Forgets the blocks whose buckets are full, and if too many are left, those that are fullest."""
        left = {key: at for key, at in self.full_at.items() if <double> at > now}
        if len(left) > MAX_RATED // 2:
            latest = sorted(left.items(), key=lambda item: item[1])
            left = dict(latest[len(latest) - MAX_RATED // 2:])
        self.full_at = left
        self.sweep_at = max(MIN_SWEEP, 2 * len(left))
        return 0

    cdef int find(self, bytes packed, Block *found) except -1:
        """The blocks of an address, the narrowest first. Returns: how many, 0 to 2."""
        cdef Ip ip
        cdef Network network
        _read(packed, &ip)
        network = self.networks.find(&ip)
        if network is not None:
            if network.value is None:
                return 0
            found[0].kind = <void *> network.value
            found[0].key = (<Kind> network.value).key
            return 1
        if not ip.is_v6:
            found[0].kind = <void *> self.ip4
            found[0].key = <int64_t> ip.lo
            return 1
        found[0].kind = <void *> self.subnet
        found[0].key = SUBNET_TAG | <int64_t> (ip.hi >> (SUBNET_BITS - 64))
        found[1].kind = <void *> self.site
        found[1].key = SITE_TAG | <int64_t> (ip.hi >> (SITE_BITS - 64))
        return 2


cdef Kind _own(str text, object most, int64_t key):
    net = ipaddress.ip_network(text, strict=False)
    cdef Kind kind = _kind("subnets", most, 0, net.max_prefixlen - net.prefixlen)
    kind.key = key
    return kind


cdef str _text(bytes packed, int bits):
    """The block of this address, for people."""
    if not bits:
        return str(ipaddress.ip_address(packed))
    return str(ipaddress.ip_network((packed, 8 * len(packed) - bits), strict=False))

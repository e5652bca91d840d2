"""Blocks of addresses: how many connections each has, and how fast new ones come.

Comes in: IP addresses, as text or in multiaddrs. Goes out: whether there is room, or the limit that is reached. A
block with connections takes one entry of a dict. Never resolves a name.

A block is an IPv4 address, an IPv6 /56 and /48, or a network of Limits.subnets. An address of Limits.exempt has none.
Rates are token buckets, each kept as the time at which it will be full again (GCRA).
"""

import ipaddress

cimport cython
from cpython.unicode cimport PyUnicode_AsUTF8
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t

from p2pcore import limits
from p2pcore.options import parsed_network

from p2pcore._fast.codec.cursor cimport Cursor, cursor
from p2pcore._fast.codec.endian cimport load_be32, load_be64
from p2pcore._fast.codec.multiaddr cimport Component, Fault, MultiaddrValue, next_component
from p2pcore._fast.loop.clock cimport monotonic

cdef extern from "arpa/inet.h" nogil:
    enum: AF_INET
    enum: AF_INET6
    int inet_pton(int family, const char *text, void *packed)

cdef object ALL = (1 << 64) - 1

cdef int SUBNET_BITS = 72
cdef int SITE_BITS = 80
cdef int64_t SUBNET_TAG = <int64_t> 1 << 60  # of the key of a /56: it differs from those of IPv4 and of a /48
cdef int64_t SITE_TAG = <int64_t> 1 << 61
cdef int64_t TAGS = SUBNET_TAG | SITE_TAG
cdef int64_t SITE_FACTOR = limits.SITE_FACTOR
cdef int CODE_IP4 = 4, CODE_IP6 = 41, CODE_CIRCUIT = 290
cdef Py_ssize_t MAX_RATED = limits.MAX_RATED_SUBNETS
cdef Py_ssize_t MIN_SWEEP = 64  # entries below which no old one is looked for


cdef bint _read(object where, Ip *ip) except -1:
    """The IP address in `where`: a numeric text, or the start of a multiaddr. A mapped IPv4 address is an IPv4 address.

    Returns: whether there is one. None and relayed addresses have none.
    """
    if isinstance(where, MultiaddrValue):
        return _read_multiaddr(<MultiaddrValue> where, ip)
    if where is None:
        return False
    _read_text(where, ip)
    return True


cdef int _read_text(str host, Ip *ip) except -1:
    cdef uint8_t packed[16]
    cdef const char *text = PyUnicode_AsUTF8(host)
    if inet_pton(AF_INET, text, packed) == 1:
        _read_packed(packed, 4, ip)
    elif inet_pton(AF_INET6, text, packed) == 1:
        _read_packed(packed, 16, ip)
    elif "%" in host:  # a zone
        _read_text(host.partition("%")[0], ip)
    else:
        raise ValueError(f"{host!r} is no numeric IP address")
    return 0


cdef bint _read_multiaddr(MultiaddrValue addr, Ip *ip) except -1:
    cdef Cursor c = cursor(<const uint8_t *> <const char *> addr._bytes, len(addr._bytes))
    cdef Component component
    cdef Fault fault
    cdef bint found = False
    while next_component(&c, &component, &fault) > 0:
        if component.protocol.code == CODE_CIRCUIT:
            return False
        if not found and component.protocol.code in (CODE_IP4, CODE_IP6):
            _read_packed(component.value, component.length, ip)
            found = True
    return found


cdef int _read_packed(const uint8_t *p, size_t length, Ip *ip) except -1:
    if length == 4:
        ip.hi, ip.lo, ip.is_v6 = 0, load_be32(p), False
        return 0
    ip.hi, ip.lo = load_be64(p), load_be64(p + 8)
    ip.is_v6 = ip.hi != 0 or ip.lo >> 32 != 0xFFFF
    if not ip.is_v6:
        ip.lo &= 0xFFFFFFFF
    return 0


@cython.final
cdef class Network:
    """One network, as "10.0.0.0/8", and its value."""

    def __cinit__(self, str text not None, value):
        net = parsed_network(text, False)
        _read(str(net.network_address), &self.first)
        bits = net.max_prefixlen - net.prefixlen  # that are free
        self.mask.hi = <uint64_t> (ALL >> max(0, bits - 64) << max(0, bits - 64)) if self.first.is_v6 else 0
        self.mask.lo = <uint64_t> ((ALL >> min(64, bits) << min(64, bits)) & ALL)
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
        entries = sorted(entries, key=lambda entry: -parsed_network(entry[0], False).prefixlen)
        self.items = [Network.__new__(Network, text, value) for text, value in entries]

    def get(self, where):
        """The value of the narrowest network with the address in `where`; None: there is none.

        Args: where: a numeric IP address or a Multiaddr; None: there is no address.
        """
        cdef Ip ip
        network = self.find(&ip) if _read(where, &ip) else None
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
        self.most_conns = INT64_MAX if in_force.max_conns is None else in_force.max_conns
        self.most_of_peer = INT64_MAX if in_force.max_conns_per_peer is None else in_force.max_conns_per_peer
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
    # `where` is a numeric IP address or a Multiaddr; None: there is no address, and nothing is counted.

    def accept(self, where, int64_t num_conns, now=None):
        """Whether a new connection may begin its handshake: there is room, and they do not come too fast.

        Args: num_conns: how many there are in all. now: as for `take`.
        Returns: if not, a limit is reached: see `full` and `take`.
        """
        if num_conns >= self.most_conns:
            return False
        return (not self.are_counted or self.full(where) is None) and self.take(where, now) is None

    def enter(self, where, int64_t num_conns, int64_t of_peer):
        """Counts a connection if there is room for it.

        Args: num_conns, of_peer: how many there are in all, and with the peer.
        Returns: whether it was counted. If not, a limit is reached: see `full`.
        """
        cdef Block found[2]
        cdef Ip ip
        cdef int i, count
        if num_conns >= self.most_conns or of_peer >= self.most_of_peer:
            return False
        count = self.find(where, &ip, found) if self.are_counted else 0
        for i in range(count):
            if self.count_of(found[i].key) >= (<Kind> found[i].kind).most:
                return False
        for i in range(count):
            self.count(&found[i])
        return True

    def full(self, where):
        """Whether the address has as many connections as it may.

        Returns: None: no. Else the field of Limits, how many there are, how many there may be, the BlockName.
        """
        cdef Block found[2]
        cdef Ip ip
        cdef Kind kind
        cdef int i
        if not self.are_counted:
            return None
        for i in range(self.find(where, &ip, found)):
            kind = <Kind> found[i].kind
            count = self.count_of(found[i].key)
            if count >= kind.most:
                return (kind.limit, count, kind.most, _name(&ip, kind.bits))
        return None

    def add(self, where):
        """Counts a connection, though there may be no room for it."""
        cdef Block found[2]
        cdef Ip ip
        cdef int i
        if self.are_counted:
            for i in range(self.find(where, &ip, found)):
                self.count(&found[i])

    def remove(self, where):
        """Stops counting a connection that was counted."""
        cdef Block found[2]
        cdef Ip ip
        cdef int64_t count
        cdef int i
        if not self.are_counted:
            return
        for i in range(self.find(where, &ip, found)):
            count = self.counts[found[i].key] - 1
            if count:
                self.counts[found[i].key] = count
            else:
                del self.counts[found[i].key]

    def take(self, where, now=None):
        """A new connection comes from this address. If one block refuses it, the others have lost nothing.

        Args: now: monotonic seconds; None: reads the clock.
        Returns: as `full`, for the block that has too many new ones.
        """
        cdef Block found[2]
        cdef double late[2]
        cdef double at
        cdef Ip ip
        cdef Kind kind
        cdef int i, count
        count = self.find(where, &ip, found) if self.interval else 0
        if not count:
            return None
        at = monotonic() if now is None else <double> now
        for i in range(count):
            kind = <Kind> found[i].kind
            if kind.factor:
                late[i] = max(0.0, <double> self.full_at.get(found[i].key, at) - at)
                if late[i] > (self.burst * kind.factor - 1) * self.interval / kind.factor:
                    most = self.burst * kind.factor
                    return ("conn_rate_per_subnet", most, most, _name(&ip, kind.bits))
        for i in range(count):
            kind = <Kind> found[i].kind
            if kind.factor:
                self.full_at[found[i].key] = at + late[i] + self.interval / kind.factor
        if len(self.full_at) > self.sweep_at:
            self.sweep(at)
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

    cdef int64_t count_of(self, int64_t key) except -1:
        count = self.counts.get(key)
        return 0 if count is None else <int64_t> count

    cdef int count(self, Block *block) except -1:
        cdef Kind kind = <Kind> block.kind
        cdef int64_t count = self.count_of(block.key) + 1
        self.counts[block.key] = count
        kind.peak = max(kind.peak, count)
        return 0

    cdef int find(self, object where, Ip *ip, Block *found) except -1:
        """The blocks of an address, the narrowest first. Returns: how many, 0 to 2."""
        cdef Network network
        if not _read(where, ip):
            return 0
        network = self.networks.find(ip)
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
    net = parsed_network(text, False)
    cdef Kind kind = _kind("subnets", most, 0, net.max_prefixlen - net.prefixlen)
    kind.key = key
    return kind


@cython.final
cdef class BlockName:
    """The block of an address, for people. Under attack nobody reads it, so the text is made when it is asked for."""

    def __str__(self):
        number = self.ip.lo | (<object> self.ip.hi) << 64
        address = ipaddress.IPv6Address(number) if self.ip.is_v6 else ipaddress.IPv4Address(number)
        if not self.bits:
            return str(address)
        return str(ipaddress.ip_network((address, address.max_prefixlen - self.bits), strict=False))


cdef BlockName _name(Ip *ip, int bits):
    cdef BlockName name = BlockName.__new__(BlockName)
    name.ip = ip[0]
    name.bits = bits
    return name

"""Which connections go first when there are too many: one order for trims, shortages and drains.

Comes in: the connections of a node, part by part. Goes out: the least useful ones, in order. Never closes
anything. The order is the tuple that `Choice` makes for each connection (docs/connection-manager.md); it is
made only here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from p2pcore import limits

if TYPE_CHECKING:
    from p2pcore.resources.held import HeldConn, Standing
    from p2pcore.resources.tags import Protections, Tags
    from p2pcore.values.multiaddr import Multiaddr

_IP4, _IP6, _IP6_ZONE = 0x04, 0x29, 0x2A  # multiaddr codes
_IP4_BYTES, _IP6_BLOCK_BYTES = 5, 8  # the code, then an IPv4 address, or the first 56 bits of an IPv6 address


Entry = tuple[Any, ...]
"""The place of a connection in the order. The connection itself is last; VALUE is where its peer's value
is."""
VALUE = 2


def block_of(addr: Multiaddr | None) -> bytes | None:
    """The IPv4 address or the IPv6 /56 of `addr`. None: it has none, or leads through a relay."""
    if addr is None or addr.is_relayed:
        return None
    raw = addr.to_bytes()
    if raw[0] == _IP6_ZONE:  # a length and a name come first
        raw = raw[2 + raw[1] :]
    if raw[0] == _IP4:
        return raw[:_IP4_BYTES]
    return raw[:_IP6_BLOCK_BYTES] if raw[0] == _IP6 else None


class Crowds:
    """The blocks and the peers that have more than `share` connections each."""

    def __init__(self, share: int) -> None:
        self.share = share
        self._counts: Counter[object] = Counter()
        self._crowded: dict[object, int] = {}

    def count(self, part: list[HeldConn]) -> None:
        """Counts the connections of one part."""
        self._counts.update(map(block_of, map(attrgetter("remote_multiaddr"), part)))
        self._counts.update(map(attrgetter("remote_peer"), part))

    def settle(self) -> None:
        """All parts are counted."""
        del self._counts[None]
        self._crowded = {key: num for key, num in self._counts.items() if num > self.share}
        self._counts.clear()

    def of(self, conn: HeldConn) -> tuple[object, int]:
        """The most crowded of the block and the peer of `conn`, and its connections; (None, 0) if neither
        is."""
        if not self._crowded:
            return None, 0
        keys: tuple[object, object] = (block_of(conn.remote_multiaddr), conn.remote_peer)
        found = [(self._crowded[key], key) for key in keys if key in self._crowded]
        num, key = max(found, key=lambda each: each[0], default=(0, None))
        return key, num


class Least:
    """The `most` smallest of all entries it is given."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.kept: list[Entry] = []

    def add(self, entries: list[Entry]) -> None:
        kept = self.kept
        if len(kept) >= self._most:
            last = kept[-1]
            entries = [entry for entry in entries if entry < last]
        kept += entries
        kept.sort()
        del kept[self._most :]


class Choice:
    """Looks at all connections, part by part, and finds the least useful.

    Args:
        standing: gives a connection's own part of the order.
        tags, protections: of all peers; now: the event loop's time.
        young_after: connections that came later are young.
        takes_young: also young connections may go, after all others.
        before: connections with this ordinal or a later one are left alone.
        crowds: of the same connections.

    Attributes:
        num_open, num_young, num_protected: of the connections it has looked at; a connection may be both.
        next_grown: when the oldest young one came.
    """

    def __init__(
        self,
        standing: Callable[[Any], Standing],
        tags: Tags,
        protections: Protections,
        now: float,
        young_after: float = math.inf,
        takes_young: bool = False,
        *,
        before: float = math.inf,
        crowds: Crowds | None = None,
        most: int = limits.MAX_TRIM_CONNS,
    ) -> None:
        self._standing = standing
        self._tags = tags
        self._protections = protections
        self._now = now
        self._young_after = young_after
        self._takes_young = takes_young
        self._before = before
        self._crowds = crowds or Crowds(0)
        self._crowded = Least(most)
        self._usual = Least(most)
        self.num_open = self.num_young = self.num_protected = 0
        self.next_grown = math.inf

    def look(self, part: list[HeldConn]) -> None:
        """Looks at one part."""
        crowded: list[Entry] = []
        usual: list[Entry] = []
        for conn in part:
            standing = self._standing(conn)
            since, ordinal = -standing[3], standing[4]
            is_young = since > self._young_after
            self.num_open += 1
            if is_young:
                self.num_young += 1
                self.next_grown = min(self.next_grown, since)
            if self._protections and self._protections.has(conn.remote_peer, self._now):
                self.num_protected += 1
                continue
            if ordinal >= self._before:
                continue
            value = self._tags.value(conn.remote_peer, self._now) if self._tags else 0.0
            entry = (is_young, value, *standing, conn)
            _, crowd = self._crowds.of(conn)
            if crowd:
                crowded.append((-crowd, *entry))
            if self._takes_young or not is_young:
                usual.append((0, *entry))
        self._crowded.add(crowded)
        self._usual.add(usual)

    @property
    def num_established(self) -> int:
        """Connections that are not young."""
        return self.num_open - self.num_young

    def crowded(self, num: int) -> list[Entry]:
        """At most `num` connections of crowded blocks and peers: none loses more than it has above its
        share."""
        chosen: list[Entry] = []
        lost: Counter[object] = Counter()
        for entry in self._crowded.kept:
            if len(chosen) >= num:
                break
            key, count = self._crowds.of(entry[-1])
            if lost[key] < count - self._crowds.share:
                lost[key] += 1
                chosen.append(entry)
        return chosen

    def usual(self, num: int, without: Iterable[Entry] = ()) -> list[Entry]:
        """At most `num` connections, the least useful first, that are not in `without`."""
        gone = {entry[-1] for entry in without}
        return [entry for entry in self._usual.kept if entry[-1] not in gone][: max(0, num)]

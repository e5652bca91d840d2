"""How much each peer is worth, and which peers are protected: what a program tells the connection manager.

Comes in: tags with values, protections, the time. Goes out: the value of a peer. A value that halves with
time is worked out when it is read, so there is no task and no timer. Only peers with a tag or a protection
cost memory. The tags of a peer that is not connected are kept for a while, and only those of so many peers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.errors import LimitExceeded

if TYPE_CHECKING:
    from p2pcore.values.peer_id import PeerId


@dataclass(slots=True)
class _Tag:
    """A value that was set at a time. It halves each `half_life_s` seconds; None: it stays."""

    value: float
    at: float
    half_life_s: float | None

    def now(self, now: float) -> float:
        if self.half_life_s is None:
            return self.value
        return self.value * math.pow(0.5, max(0.0, now - self.at) / self.half_life_s)

    def has_faded(self, now: float) -> bool:
        return self.half_life_s is not None and abs(self.now(now)) < limits.TAG_FADED


class Tags:
    """The tags of all peers. Every method takes the time `now` of the event loop, in seconds.

    Args:
        absent_ttl_s: how long the tags of a peer that is not connected are kept.
    """

    __slots__ = ("_absent", "_absent_ttl_s", "_by_peer")

    def __init__(self, absent_ttl_s: float = limits.TAG_TTL_S) -> None:
        self._absent_ttl_s = absent_ttl_s
        self._by_peer: dict[PeerId, dict[str, _Tag]] = {}
        self._absent: dict[PeerId, float] = {}  # until when; the next one to go is first

    def __len__(self) -> int:
        return len(self._by_peer)

    def __contains__(self, peer: object) -> bool:
        return peer in self._by_peer

    def set(
        self, peer: PeerId, name: str, value: float, half_life_s: float | None, now: float, is_absent: bool
    ) -> None:
        """Sets one tag. `is_absent`: the peer is not connected. Raises LimitExceeded: it has too many
        tags."""
        self._expire(now)
        mine = self._by_peer.setdefault(peer, {})
        if name not in mine and len(mine) >= limits.MAX_TAGS_PER_PEER:
            raise LimitExceeded("MAX_TAGS_PER_PEER", len(mine) + 1, limits.MAX_TAGS_PER_PEER)
        mine[name] = _Tag(value, now, half_life_s)
        if is_absent:
            self.left(peer, now)

    def bump(
        self,
        peer: PeerId,
        name: str,
        by: float,
        cap: float,
        half_life_s: float | None,
        now: float,
        is_absent: bool,
    ) -> None:
        """Adds `by` to one tag, up to `cap`. Raises as `set`."""
        old = self._by_peer.get(peer, {}).get(name)
        value = min((0.0 if old is None else old.now(now)) + by, cap)
        self.set(peer, name, value, half_life_s, now, is_absent)

    def remove(self, peer: PeerId, name: str) -> None:
        """Removes one tag. If there is none, nothing happens."""
        mine = self._by_peer.get(peer)
        if mine is not None:
            mine.pop(name, None)
            if not mine:
                self._forget(peer)

    def of(self, peer: PeerId, now: float) -> dict[str, float]:
        """The tags of `peer` with their values now. Those that have faded are dropped."""
        self._expire(now)
        mine = self._by_peer.get(peer)
        if mine is None:
            return {}
        for name in [name for name, tag in mine.items() if tag.has_faded(now)]:
            self.remove(peer, name)
        return {name: tag.now(now) for name, tag in mine.items()}

    def value(self, peer: PeerId, now: float) -> float:
        """The sum of all tags of `peer`; 0 without any."""
        return math.fsum(self.of(peer, now).values()) if peer in self._by_peer else 0.0

    def joined(self, peer: PeerId) -> None:
        """`peer` is connected: its tags stay."""
        self._absent.pop(peer, None)

    def left(self, peer: PeerId, now: float) -> None:
        """`peer` is not connected any more: its tags have a time to live from now on."""
        if peer in self._by_peer:
            self._absent.pop(peer, None)
            self._absent[peer] = now + self._absent_ttl_s
            self._expire(now)

    def _expire(self, now: float) -> None:
        while self._absent:
            peer, until = next(iter(self._absent.items()))
            if until > now and len(self._absent) <= limits.MAX_ABSENT_TAGGED_PEERS:
                return
            self._forget(peer)

    def _forget(self, peer: PeerId) -> None:
        self._absent.pop(peer, None)
        self._by_peer.pop(peer, None)


class Protections:
    """The peers that are never closed to make room. Every method takes the time `now` of the event loop."""

    __slots__ = ("_by_peer",)

    def __init__(self) -> None:
        self._by_peer: dict[PeerId, dict[str, float]] = {}

    def __len__(self) -> int:
        return len(self._by_peer)

    def add(self, peer: PeerId, tag: str, ttl_s: float | None, now: float) -> None:
        """Protects `peer` under the name `tag`. It is not counted: once more changes only the time.

        Raises: LimitExceeded: too many peers are protected, or this one under too many names.
        """
        mine = self._by_peer.get(peer, {})
        if not mine and len(self._by_peer) >= limits.MAX_PROTECTED_PEERS:
            self._expire(now)
            num, most = len(self._by_peer) + 1, limits.MAX_PROTECTED_PEERS
            if num > most:
                raise LimitExceeded("MAX_PROTECTED_PEERS", num, most)
        if tag not in mine and len(mine) >= limits.MAX_TAGS_PER_PEER:
            raise LimitExceeded("MAX_TAGS_PER_PEER", len(mine) + 1, limits.MAX_TAGS_PER_PEER)
        mine[tag] = math.inf if ttl_s is None else now + ttl_s
        self._by_peer[peer] = mine

    def remove(self, peer: PeerId, tag: str) -> None:
        """Ends the protection under `tag`. If there is none, nothing happens."""
        mine = self._by_peer.get(peer)
        if mine is not None:
            mine.pop(tag, None)
            if not mine:
                del self._by_peer[peer]

    def has(self, peer: PeerId, now: float, tag: str | None = None) -> bool:
        """Whether `peer` is protected under `tag`; None: under any name. Drops what has ended."""
        mine = self._by_peer.get(peer)
        if mine is None:
            return False
        for name in [name for name, until in mine.items() if until <= now]:
            self.remove(peer, name)
        return bool(mine) if tag is None else tag in mine

    def _expire(self, now: float) -> None:
        for peer in list(self._by_peer):
            self.has(peer, now)

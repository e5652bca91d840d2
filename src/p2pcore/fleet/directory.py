"""Who is in the fleet, and where a peer is connected.

Comes in: the entries of two buckets: a lease for each process, and an entry for each peer and process. Goes
out: places. An entry of a process without a lease counts for nothing. Never writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from p2pcore.errors import BusDown, IdentityError
from p2pcore.fleet.presence import key_of
from p2pcore.limits import FLEET_LATE_S, FLEET_LEASE_S, FLEET_REFRESH_S, FLEET_REMEMBER_S
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from p2pcore.fleet.bus import Bucket
    from p2pcore.fleet.hints import Hints
    from p2pcore.interfaces import Network

_STOOD_STILL_S: Final = 2 * FLEET_REFRESH_S
"""A tick that comes so late shows that our own event loop stood still, with leases still to be read."""


@dataclass(frozen=True, slots=True)
class Place:
    """A process of the fleet.

    Attributes:
        process: its id, a new one at each start. machine: the name of its machine. pid: of the process.
        host_peer: the peer id of its host; several processes may share one. num_peers: peers connected to it.
        is_local: True: it is this process.
    """

    process: str
    machine: str
    pid: int
    host_peer: PeerId
    num_peers: int
    is_local: bool


LEASES: Final = "lease"
"""The keys of all leases begin with it."""


def lease_key(process: str) -> str:
    """The key of the lease of `process`."""
    return f"{LEASES}.{process}"


def lease_of(place: Place, beat: int, news: bytes = b"") -> bytes:
    """What a process says of itself in its lease: a line of JSON, then marks of peers that are new with it.

    Args:
        beat: another number each time, else no watch is told.
        news: see hints.marks_of.
    """
    said = {
        "beat": beat,
        "machine": place.machine,
        "pid": place.pid,
        "host": str(place.host_peer),
        "peers": place.num_peers,
    }
    return json.dumps(said).encode() + b"\n" + news


def _place(process: str, lease: bytes) -> Place | None:
    """What the first line of a lease says; None: it is none."""
    try:
        said: dict[str, Any] = json.loads(lease)
        host = PeerId(said["host"])
        return Place(process, str(said["machine"]), int(said["pid"]), host, int(said["peers"]), False)
    except (ValueError, KeyError, TypeError, IdentityError):
        return None


class Directory:
    """See above.

    Args:
        network: the host's swarm. here: what this process says of itself now.
        clock: the event loop's time. hints: learns where peers are.
        came: called with each process that has a lease for the first time, or again.
        ended: called with each that has none any more.
    """

    __slots__ = (
        *(
            "_came",
            "_clock",
            "_died",
            "_ended",
            "_heard",
            "_here",
            "_hints",
            "_is_away",
            "_network",
            "_process",
        ),
        *("_ticked_at", "_trusted_until"),
    )

    def __init__(
        self,
        network: Network,
        here: Callable[[], Place],
        clock: Callable[[], float],
        hints: Hints,
        came: Callable[[str], None],
        ended: Callable[[str], None],
    ) -> None:
        self._network = network
        self._here = here
        self._process = here().process
        self._clock = clock
        self._hints = hints
        self._came = came
        self._ended = ended
        self._heard: dict[str, tuple[float, bytes]] = {}
        self._died: dict[str, float] = {}  # for FLEET_REMEMBER_S
        self._ticked_at = self._trusted_until = clock()
        self._is_away = False

    # -- leases --------------------------------------------------------------------------------

    def lease(self, key: str, value: bytes | None) -> None:
        """The watch of the leases says this. None: it was given back, or has run out."""
        self._lease(key.rpartition(".")[2], value)

    def _lease(self, process: str, value: bytes | None) -> None:
        if process == self._process:
            return
        if value is not None:
            lease, _, news = value.partition(b"\n")
            is_new = process not in self._heard
            self._heard[process] = (self._clock(), lease)
            self._died.pop(process, None)
            if news:
                self._hints.note(news, process)
            if is_new:
                self._came(process)
        elif not self._is_away and self._heard.pop(process, None) is not None:
            self._died[process] = self._clock()
            self._hints.ended(process)
            self._ended(process)

    def away(self) -> None:
        """The engine is away: no lease ends until `back`. What it forgets says nothing about a process."""
        self._is_away = True

    def back(self) -> None:
        """The engine is back: leases that held when it went away hold until they can have been renewed."""
        self._is_away = False
        self._ticked_at = self._clock()
        self._trusted_until = self._ticked_at + FLEET_LEASE_S

    def tick(self) -> list[str]:
        """Each FLEET_LOOK_S: forgets the processes that were not heard of for FLEET_LEASE_S.

        Returns: those that are late. Ask each, and call `nobody` if nobody listens there.
        """
        now = self._clock()
        if now - self._ticked_at > _STOOD_STILL_S:
            self._trusted_until = max(self._trusted_until, now + FLEET_LATE_S)
        self._ticked_at = now
        if self._is_away:
            return []
        for process in [each for each in self._heard if not self.is_alive(each)]:
            self._lease(process, None)
        for process in [each for each, at in self._died.items() if now - at > FLEET_REMEMBER_S]:
            del self._died[process]
        return [process for process in self._heard if self._is_late(process)]

    def _is_late(self, process: str) -> bool:
        heard_at, _ = self._heard.get(process, (self._clock(), b""))
        return self._clock() - heard_at >= FLEET_LATE_S

    def nobody(self, process: str) -> None:
        """Nobody takes messages to `process`: if it is still late, it has ended."""
        if self._is_late(process):
            self._lease(process, None)

    def is_alive(self, process: str) -> bool:
        """Whether `process` has a lease."""
        if process == self._process:
            return True
        heard_at, _ = self._heard.get(process, (None, b""))
        if heard_at is None:
            return False
        if self._is_away:
            return True
        now = self._clock()
        return (
            now - heard_at < FLEET_LEASE_S
            or now < self._trusted_until
            or now - self._ticked_at > _STOOD_STILL_S
        )

    @property
    def ids(self) -> list[str]:
        """The ids of all processes, this one first."""
        return [self._process, *filter(self.is_alive, self._heard)]

    def places(self) -> list[Place]:
        """All processes, this one first."""
        others = (self._maybe_place(process) for process in list(self._heard))
        return [self._here(), *(place for place in others if place is not None)]

    def _maybe_place(self, process: str) -> Place | None:
        heard = self._heard.get(process)
        return _place(process, heard[1]) if heard is not None and self.is_alive(process) else None

    # -- peers ---------------------------------------------------------------------------------

    def is_here(self, peer: PeerId) -> bool:
        """Whether `peer` is connected to this process."""
        return bool(self._network.conns_to_peer(peer))

    async def where(self, peer: PeerId, peers: Bucket | None, leases: Bucket | None) -> tuple[Place, ...]:
        """The processes that `peer` is connected to, this one first.

        Args: peers, leases: None: the engine has never been there.

        Raises: BusDown: the engine is away, and the peer is not connected to this process.
        """
        here = (self._here(),) if self.is_here(peer) else ()
        try:
            if peers is None or leases is None:
                raise BusDown("the engine of the bus has not been reached yet")
            return here + await self._elsewhere(peer, peers, leases)
        except BusDown:
            if here:
                return here
            raise

    async def _elsewhere(self, peer: PeerId, peers: Bucket, leases: Bucket) -> tuple[Place, ...]:
        found = []
        for key in await peers.get(key_of(peer)):
            process = key.rpartition(".")[2]
            if process != self._process and await self.has_lease(process, leases):
                place = self._maybe_place(process)
                if place is not None:
                    found.append(place)
        return tuple(found)

    async def has_lease(self, process: str, leases: Bucket) -> bool:
        """As `is_alive`, but asks the engine about a process that was never heard of. Raises BusDown."""
        if self.is_alive(process):
            return True
        if process in self._died:
            return False
        lease = (await leases.get(lease_key(process))).get(lease_key(process))
        if lease is None:
            self._died[process] = self._clock()
            return False
        self._lease(process, lease)
        return True

"""Caps on connections over the whole fleet: of one peer, and from one block of addresses.

Comes in: the host's connects and disconnects, as a Notifiee; what other processes report. Goes out: reports,
as entries of a bucket, and connections that are closed because there are too many. No connection waits for
the network.

Each process has a share of each cap that it need not report: half of the cap, divided among all processes.
What it uses beyond its share it reports. It counts on what the others report, and on the share of those that
do not; so all together stay within the cap, but for the time that a report takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from p2pcore import codes, options
from p2pcore.codes import Direction
from p2pcore.limits import FLEET_BATCH, FLEET_EXPIRY_S
from p2pcore.values.scope import Scope, scope_of, subnet_of

if TYPE_CHECKING:
    from p2pcore.fleet.bus import Bucket, Bus, Subscription
    from p2pcore.fleet.directory import Directory
    from p2pcore.interfaces import Conn, Network
    from p2pcore.values.multiaddr import Multiaddr

logger = logging.getLogger("p2pcore.fleet")

_KIND: Final = "conns"


@dataclass(frozen=True, slots=True)
class FleetCaps:
    """How many connections all processes of a fleet may have together. All processes need the same caps.

    A cap of less than twice the number of processes costs an entry of the bus for each connection.

    Attributes:
        per_peer: with one peer. per_subnet: inbound ones from one IPv4 address or IPv6 /56, without relayed
            ones. None: no cap.
        exempt_private: do not count loopback and private addresses, which many peers may share.

    Raises: TypeError, ValueError: a field is wrong.
    """

    per_peer: int | None = None
    per_subnet: int | None = None
    exempt_private: bool = True

    def __post_init__(self) -> None:
        for name in ("per_peer", "per_subnet"):
            if getattr(self, name) is not None:
                options.whole(name, getattr(self, name), 1)
        options.flag("exempt_private", self.exempt_private)

    def keys(self, conn: Conn) -> list[tuple[str, int]]:
        """What `conn` counts for, and the cap of each."""
        found = []
        if self.per_peer is not None:
            found.append((f"{_KIND}.peer.{conn.remote_peer}", self.per_peer))
        addr = conn.remote_multiaddr
        if self.per_subnet is not None and conn.direction is Direction.INBOUND and conn.is_direct:
            subnet = None if addr is None else subnet_of(addr)
            if subnet and not (self.exempt_private and scope_of(addr) is not Scope.PUBLIC):
                word = subnet.replace(".", "-").replace(":", "_").replace("/", "-in-")
                found.append((f"{_KIND}.net.{word}", self.per_subnet))
        return found


class Caps:
    """See above.

    Args:
        caps: what is allowed. bus: of the fleet. name: of the bucket. directory: of the processes.
        process: the id of this one. changed: called when something begins to wait for `write`.

    Attributes:
        closed: connections that were closed, by the kind of the cap.
    """

    def __init__(
        self,
        caps: FleetCaps,
        bus: Bus,
        name: str,
        directory: Directory,
        process: str,
        changed: Callable[[], None],
    ) -> None:
        self._caps = caps
        self._bus = bus
        self._name = name
        self._directory = directory
        self._process = process
        self._tell = changed
        self._bucket: Bucket | None = None
        self._mine: dict[str, dict[Conn, None]] = {}  # oldest first
        self._theirs: dict[str, dict[str, int]] = {}  # by key and process
        self._reported: dict[str, int] = {}
        self._changed: dict[str, None] = {}
        self._num_processes = 1
        self.closed: Counter[str] = Counter()

    async def watch(self) -> Subscription:
        """Reads the reports of the others from now on. Raises BusDown."""
        self._bucket = await self._bus.bucket(self._name, expiry_s=FLEET_EXPIRY_S)
        return await self._bucket.watch(_KIND, self._heard)

    # -- what the host tells -------------------------------------------------------------------

    def connected(self, network: Network, conn: Conn) -> None:
        """See interfaces.Notifiee. A connection that is one too many is closed in the loop's next turn."""
        for key, cap in self._caps.keys(conn):
            mine = self._mine.setdefault(key, {})
            mine[conn] = None
            if len(mine) > self._allowed(key, cap):
                self._close(key, conn)
            self._note(key)

    def disconnected(self, network: Network, conn: Conn) -> None:
        """See interfaces.Notifiee."""
        for key, _ in self._caps.keys(conn):
            mine = self._mine.get(key)
            if mine is not None and mine.pop(conn, self) is None:
                if not mine:
                    del self._mine[key]
                self._note(key)

    def listen(self, network: Network, addr: Multiaddr) -> None:
        """See interfaces.Notifiee."""

    def listen_close(self, network: Network, addr: Multiaddr) -> None:
        """See interfaces.Notifiee."""

    def _close(self, key: str, conn: Conn) -> None:
        self.closed[key.split(".")[1]] += 1
        logger.debug("%s: closed, because the fleet has too many of %s", conn.id, key)
        asyncio.get_running_loop().call_soon(conn.abort, codes.CONN_RESOURCE_LIMIT_EXCEEDED)

    # -- shares --------------------------------------------------------------------------------

    def _share(self, cap: int) -> int:
        """What each process may use without a report."""
        return cap // (2 * self._num_processes)

    def _cap(self, key: str) -> int:
        cap = self._caps.per_peer if key.startswith(f"{_KIND}.peer.") else self._caps.per_subnet
        return cap or 0

    def _others(self, key: str) -> dict[str, int]:
        """What the processes that live have reported."""
        theirs = self._theirs.get(key, {})
        return {process: count for process, count in theirs.items() if self._directory.is_alive(process)}

    def _allowed(self, key: str, cap: int) -> int:
        """What this process may use of a cap now."""
        if self._num_processes == 1:
            return cap
        share = self._share(cap)
        others = self._others(key)
        silent = max(0, self._num_processes - 1 - len(others))
        used = sum(max(count, share) for count in others.values()) + silent * share
        return max(cap - used, share)

    def _trim(self, key: str) -> None:
        """Closes the newest ones, if several processes have reported too much at the same moment.

        The process with the greatest id closes first, so that all together close no more than they must.
        """
        mine = self._mine.get(key, {})
        others = self._others(key)
        excess = len(mine) + sum(others.values()) - self._cap(key)
        excess -= sum(count for process, count in others.items() if process > self._process)
        for conn in list(mine)[-excess:] if excess > 0 else ():
            self._close(key, conn)

    # -- reports -------------------------------------------------------------------------------

    def _heard(self, key: str, value: bytes | None) -> None:
        """An entry of the bucket."""
        key, _, process = key.rpartition(".")
        if process == self._process:
            return
        theirs = self._theirs.setdefault(key, {})
        if value is not None and value.isdigit():
            theirs[process] = int(value)
            if key in self._mine:
                self._trim(key)
            return
        theirs.pop(process, None)
        if not theirs:
            del self._theirs[key]

    def _report(self, key: str) -> int | None:
        """What is to be reported; None: nothing."""
        count = len(self._mine.get(key, ()))
        return count if count > self._share(self._cap(key)) else None

    def _note(self, key: str) -> None:
        if self._report(key) != self._reported.get(key):
            if not self._changed:
                self._tell()
            self._changed[key] = None

    @property
    def has_changes(self) -> bool:
        """Whether something waits for `write`."""
        return bool(self._changed)

    def restore(self) -> None:
        """Writes all reports again: the engine may have lost some, and forgets them after FLEET_EXPIRY_S."""
        self._changed = dict.fromkeys((*self._mine, *self._reported))
        if self._changed:
            self._tell()

    def look(self) -> None:
        """Each FLEET_REFRESH_S: the shares follow the number of processes."""
        num = len(self._directory.ids)
        if num != self._num_processes:
            self._num_processes = num
            self.restore()

    async def write(self) -> None:
        """Writes the reports that wait, FLEET_BATCH at most. Raises BusDown: call `restore` later."""
        assert self._bucket is not None
        keys = list(islice(self._changed, FLEET_BATCH))
        batch: dict[str, bytes | None] = {}
        for key in keys:
            del self._changed[key]
            count = self._report(key)
            if count is not None:
                self._reported[key] = count
                batch[f"{key}.{self._process}"] = b"%d" % count
            elif self._reported.pop(key, None) is not None:
                batch[f"{key}.{self._process}"] = None
        if batch:
            await self._bucket.put(batch)

    async def withdraw(self) -> None:
        """Deletes the reports of this process. Raises BusDown."""
        if self._bucket is not None and self._reported:
            await self._bucket.put({f"{key}.{self._process}": None for key in self._reported})
            self._reported.clear()

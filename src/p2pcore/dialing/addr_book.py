"""The address book of a node: where each peer may be reached, who said so, and for how long we believe it.

Comes in: addresses from the program, signed records, and what each connection brings: the address that was
dialled, and what the peer tells by identify. Goes out: the addresses to dial. While a connection lives, the
book keeps nothing of it: it reads the connection when it is asked, and once more at its end. It has no timer
for an entry: what is over is dropped when somebody looks, or when room is needed. See docs/address-book.md.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from p2pcore import limits, options
from p2pcore.codes import Direction
from p2pcore.errors import AddressError, IdentityError, LimitExceeded
from p2pcore.late import Late
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId
from p2pcore.values.record import open_peer_record
from p2pcore.values.scope import Scope, scope_of, told_to

if TYPE_CHECKING:
    from p2pcore.dialing import book_file
    from p2pcore.interfaces import Conn
    from p2pcore.protocols import identify, identify_unread
    from p2pcore.protocols.identify_message import IdentifyInfo
else:
    book_file = Late("p2pcore.dialing.book_file")
    identify, identify_unread = Late("p2pcore.protocols.identify"), Late("p2pcore.protocols.identify_unread")

logger = logging.getLogger("p2pcore.dialing.addr_book")

_PEER_BYTES = 600
"""Memory of a peer in the book, without its addresses: three objects and two tables."""
_ASIDE_BYTES = 300
"""Memory of what is set aside of a peer, without the bytes of the message."""
_ADDR_BYTES = 160
"""Memory of an address in the book, without its bytes: the object, and its place in a table."""


class AddrSource(enum.IntEnum):
    """Where an address came from. We trust a greater one more.

    IDENTIFY: the peer claims it. RECORD: the peer has signed it. CONNECTION: we have reached the peer there.
    USER: the program has added it.
    """

    IDENTIFY = 1
    RECORD = 2
    CONNECTION = 3
    USER = 4


_CONNECTION = AddrSource.CONNECTION  # a member of an enum costs more to look up
_CLAIMED = (AddrSource.IDENTIFY, AddrSource.RECORD)


@dataclass(frozen=True, slots=True)
class KnownAddr:
    """One address of a peer in the book.

    Attributes:
        addr: the address, without /p2p/ID of the peer.
        source: where it came from.
        expires_at: `time.time()` after which it is not believed; None: never. For a connected peer, it counts
            from now.
    """

    addr: Multiaddr
    source: AddrSource
    expires_at: float | None


class _Aside(NamedTuple):
    """What a peer told on a connection that has ended, unread; from how far away; until when it counts."""

    told: identify_unread.Unread
    scope: Scope
    until: float


class _Known:
    """What the book has of one peer: addresses with (source, time of expiry), and its last signed record.

    What is set aside belongs to it, but nobody has checked it. It must be read before the rest is used.
    """

    __slots__ = ("addrs", "aside", "envelope", "has_names", "seq", "size")

    def __init__(self) -> None:
        self.aside: _Aside | None = None
        self.addrs: dict[Multiaddr, tuple[AddrSource, float]] = {}
        self.seq = -1
        self.envelope: bytes | None = None
        self.size = 0
        self.has_names = False  # has addresses that are believed until the last connection ends

    @property
    def is_pinned(self) -> bool:
        """Whether the program has added an address for good."""
        return (AddrSource.USER, math.inf) in self.addrs.values()

    def put(self, addr: Multiaddr, source: AddrSource, until: float) -> None:
        """Adds `addr`. What is known of it already counts on, where it is better."""
        before = self.addrs.get(addr, (source, until))
        self.addrs[addr] = max(source, before[0]), max(until, before[1])

    def drop(self, sources: Sequence[AddrSource]) -> None:
        self.addrs = {addr: each for addr, each in self.addrs.items() if each[0] not in sources}

    def is_over(self, now: float) -> bool:
        """Whether nothing of it is believed any more."""
        if self.aside is not None and self.aside.until > now:
            return False
        return not any(until > now for _, until in self.addrs.values())

    def purge(self, now: float) -> None:
        """Forgets what is not believed any more."""
        if any(until <= now for _, until in self.addrs.values()):
            self.addrs = {addr: each for addr, each in self.addrs.items() if each[1] > now}
        if self.seq >= 0 and not any(source is AddrSource.RECORD for source, _ in self.addrs.values()):
            self.seq, self.envelope = -1, None

    def cut(self) -> None:
        """Forgets what is trusted least, down to MAX_BOOK_ADDRS."""
        while len(self.addrs) > limits.MAX_BOOK_ADDRS:
            del self.addrs[min(self.addrs, key=self.addrs.__getitem__)]

    def count(self) -> int:
        """Counts its memory anew. Returns: by how much it has grown."""
        size = _PEER_BYTES + sum(_ADDR_BYTES + len(addr.to_bytes()) for addr in self.addrs)
        size += len(self.envelope or b"")
        if self.aside is not None:
            size += _ASIDE_BYTES + self.aside.told.size
        grown, self.size = size - self.size, size
        return grown


class AddrBook:
    """The addresses of peers that a host has learned. `Host` takes one; `host.addr_book` gives it.

    Args:
        path: a file in which the book is kept: an SQLite database. It is made if it is missing. None: the
            book ends with the program.
        recent_s: how long addresses are believed after the last connection to their peer has ended, in
            seconds. None: limits.BOOK_RECENT_S, or with `path` limits.BOOK_RECENT_STORED_S.
        max_peers: peers that it remembers, without those that the program has added for good; as many of
            these may come on top.
        now: gives unix seconds.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value. The message names it.
        AddrBookError: the file is damaged, is something else, cannot be opened, or another program has locked
            it. It waits BOOK_OPEN_BUSY_S for that, no longer.

    Attributes:
        has_names: whether it has ever heard of a peer that was reached at a name.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        recent_s: float | None = None,
        max_peers: int = limits.MAX_BOOK_PEERS,
        now: Callable[[], float] = time.time,
    ) -> None:
        if recent_s is None:
            recent_s = limits.BOOK_RECENT_S if path is None else limits.BOOK_RECENT_STORED_S
        options.seconds("recent_s", recent_s)
        options.whole("max_peers", max_peers, 1)
        if path is not None:
            options.instance("path", path, str, os.PathLike)
        self._recent_s = recent_s
        self._max_peers = max_peers
        self._now = now
        self._peers: dict[PeerId, _Known] = {}  # heard of longest ago first
        self._pinned: dict[PeerId, _Known] = {}
        self._size = 0
        self._conns_of: Callable[[PeerId], Iterable[Conn]] = _no_conns
        self._added: Callable[[PeerId], None] = _ignore
        self._file: book_file.BookFile | None = None
        self.has_names = False
        if path is not None:
            from p2pcore.dialing.addr_store import AddrStore  # here, because few programs need sqlite3

            store = AddrStore(path)
            self._load(store.load(now()))
            self._file = book_file.BookFile(store.write, self._row)

    # -- for the swarm -------------------------------------------------------------------------

    def attach(
        self, conns_of: Callable[[PeerId], Iterable[Conn]], added: Callable[[PeerId], None] | None = None
    ) -> None:
        """From now on it looks at the connections of one swarm. Raises ValueError: it looks at another one's.

        Args:
            conns_of: gives the connections to a peer.
            added: called with each peer that addresses have come for, from anywhere but its connections.
        """
        if self._conns_of is not _no_conns:
            raise ValueError("this AddrBook belongs to another host: make one for each host")
        self._conns_of = conns_of
        self._added = added or _ignore

    async def close(self) -> None:
        """Writes what has changed, and belongs to no swarm any more. Idempotent."""
        self._conns_of, self._added = _no_conns, _ignore
        if self._file is not None:
            await self._file.close()

    def identified(self, conn: Conn) -> None:
        """The peer of `conn` has told about itself. Only a book with a file takes it down before the end."""
        if self._file is not None:
            self._learn(conn)

    def dialled(self, peer: PeerId, addr: Multiaddr) -> None:
        """`peer` was reached at `addr`, and no connection will show that: it is a name, or has one in it."""
        known = self._put(peer, (addr.without_p2p(),), AddrSource.CONNECTION, math.inf)
        known.has_names = self.has_names = True

    def disproved(self, peer: PeerId, addr: Multiaddr) -> None:
        """Somebody else than `peer` answered at `addr`. Forgets it, unless the program has added it."""
        known = self._find(peer)
        if known is not None and known.addrs.get(addr, (AddrSource.USER, 0.0))[0] is not AddrSource.USER:
            del known.addrs[addr]
            self._changed(peer, known)

    def left(self, conn: Conn) -> None:
        """`conn` has ended, and its swarm does not list it any more.

        Call it for each connection that was dialled or identified, and if `has_names`, for every one. Nearly
        always the peer was only reached where it was before, so that is quick.
        """
        peer, remote = conn.remote_peer, conn.remote_multiaddr
        known = self._peers.get(peer)
        if known is not None and remote is not None and conn._info is None and self._file is None:
            before = known.addrs.get(remote)
            if before is not None and before[0] is _CONNECTION:
                if before[1] != math.inf:
                    known.addrs[remote] = _CONNECTION, self._now() + self._recent_s
                if not known.has_names:
                    return
        if isinstance(conn._info, identify_unread.Unread) and self._file is None:
            self._reached(conn)
            self._set_aside(conn, conn._info)
        elif conn._info is not None or conn.direction is Direction.OUTBOUND:
            self._learn(conn)
        known = self._lookup(peer)
        if known is not None and known.has_names and not list(self._conns_of(peer)):
            self._fade(known)
            self._changed(peer, known)

    def _fade(self, known: _Known) -> None:
        """What was believed as long as its peer was connected will be over some time."""
        known.has_names = False
        until = self._now() + self._recent_s
        for addr, (source, before) in known.addrs.items():
            if source is AddrSource.CONNECTION and before == math.inf:
                known.addrs[addr] = (source, until)

    # -- learning ------------------------------------------------------------------------------

    def _learn(self, conn: Conn) -> None:
        """Takes down what `conn` shows now."""
        self._reached(conn)
        info = identify.info_of(conn)
        if info is not None:
            self._believe(info, scope_of(conn.remote_multiaddr), self._now() + self._recent_s)

    def _reached(self, conn: Conn) -> None:
        """Takes down where we have reached the peer of `conn`."""
        remote = conn.remote_multiaddr
        if conn.direction is Direction.OUTBOUND and remote is not None:
            until = self._now() + self._recent_s
            self._put(conn.remote_peer, (remote.without_p2p(),), AddrSource.CONNECTION, until)

    def _set_aside(self, conn: Conn, told: identify_unread.Unread) -> None:
        """Keeps what a peer has told until somebody asks for the peer. Only then its signature is checked.

        Nearly nobody asks for a peer that has dialled us, and a check costs more than all the rest.
        """
        peer, scope = conn.remote_peer, scope_of(conn.remote_multiaddr)
        known = self._lookup(peer)
        if known is None and not told.may_lead_from(scope):
            return
        if known is None or (before := known.aside) is None:
            known = known or _Known()
        elif before.scope is not scope or not told.tells_as(before.told):
            known = self._find(peer) or _Known()  # what came first counts first
        known.aside = _Aside(told, scope, self._now() + self._recent_s)
        self._changed(peer, known)

    def _read_aside(self, peer: PeerId, known: _Known) -> None:
        """Checks what was set aside of `peer`, and takes down what it says."""
        aside, known.aside = known.aside, None
        self._changed(peer, known)
        if aside is not None and aside.until > self._now():
            self._believe(aside.told.read(), aside.scope, aside.until)

    def _believe(self, info: IdentifyInfo, scope: Scope, until: float) -> None:
        """Takes down what a peer tells about itself. It is believed only as far as the peer is away.

        A peer on the internet could else send us to services of our own machine or network.
        """
        known = self._find(info.peer)
        if not info.addrs or (known is not None and info.record_seq < known.seq):
            return  # nothing, or an old record, or claims of a peer that has signed some
        addrs = told_to(scope, info.addrs)
        if info.record_addrs is None:
            self._put(info.peer, addrs, AddrSource.IDENTIFY, until)
        else:
            self._put(info.peer, addrs, AddrSource.RECORD, until, info.record_seq, info.signed_record)

    def _put(
        self,
        peer: PeerId,
        addrs: Iterable[Multiaddr],
        source: AddrSource,
        until: float,
        seq: int = -1,
        envelope: bytes | None = None,
    ) -> _Known:
        """Adds `addrs`. What a peer claims or signs replaces all that it claimed or signed before."""
        known = (self._find(peer) if source in _CLAIMED else self._lookup(peer)) or _Known()
        if source in _CLAIMED:
            known.drop(_CLAIMED)
        for addr in addrs:
            known.put(addr, source, until)
        if seq >= 0:
            known.seq, known.envelope = seq, envelope
        known.cut()
        self._changed(peer, known)
        return known

    def _changed(self, peer: PeerId, known: _Known) -> None:
        """Puts `known` in its table, behind all others, and makes room."""
        self._remove(peer)
        if known.addrs or known.aside is not None:
            self._size += known.count()
            table = self._pinned if known.is_pinned else self._peers
            table[peer] = known
            self._make_room()
        self._write(peer)

    def _remove(self, peer: PeerId) -> None:
        known = self._peers.pop(peer, None) or self._pinned.pop(peer, None)
        if known is not None:
            self._size -= known.size
            known.size = 0

    def _make_room(self) -> None:
        """Forgets the peers heard of longest ago while there are too many, and two that are over."""
        now = self._now()
        for _ in range(2):
            oldest = next(iter(self._peers), None)
            if oldest is None or not self._peers[oldest].is_over(now):
                break
            self._forget(oldest)
        while len(self._peers) > 1 and (
            len(self._peers) > self._max_peers or self._size > limits.MAX_BOOK_BYTES
        ):
            self._forget(next(iter(self._peers)))

    def _forget(self, peer: PeerId) -> None:
        self._remove(peer)
        self._write(peer)

    def _find(self, peer: PeerId) -> _Known | None:
        """What the book has of `peer` that is still believed."""
        known = self._lookup(peer)
        if known is not None and known.aside is not None:
            self._read_aside(peer, known)
            known = self._lookup(peer)
        return known

    def _lookup(self, peer: PeerId) -> _Known | None:
        """The same, without what is set aside."""
        known = self._peers.get(peer) or self._pinned.get(peer)
        if known is not None:
            known.purge(self._now())
        return known

    # -- the file ------------------------------------------------------------------------------

    def _write(self, peer: PeerId) -> None:
        if self._file is not None:
            self._file.changed(peer)

    def _row(self, peer: PeerId) -> book_file.Row:
        """What the file shall have of `peer`."""
        known = self._find(peer)
        if known is None:
            return book_file.Row(peer.to_bytes(), ())
        addrs = tuple(
            (addr.to_bytes(), int(source), None if until == math.inf else until)
            for addr, (source, until) in known.addrs.items()
        )
        return book_file.Row(peer.to_bytes(), addrs, known.seq, known.envelope)

    def _load(self, rows: Iterable[book_file.Row]) -> None:
        num_bad = 0
        for row in rows:
            try:
                peer, known = PeerId(row.peer), _Known()
                for addr, source, until in row.addrs:
                    known.put(
                        Multiaddr(addr), AddrSource(source), math.inf if until is None else float(until)
                    )
                known.seq, known.envelope = row.seq, row.envelope
            except (AddressError, IdentityError, LimitExceeded, TypeError, ValueError):
                num_bad += 1
                continue
            self._fade(known)  # the program may have ended before the connection
            self._changed(peer, known)
        if num_bad:
            logger.warning("%d peers of the address book cannot be read and are left out", num_bad)

    # -- for the program -----------------------------------------------------------------------

    def add(self, peer: PeerId | str, *addrs: Multiaddr | str, ttl_s: float | None = None) -> None:
        """Adds addresses of `peer`. Host names may be in them. A /p2p/ID at the end must be the peer's.

        Args:
            ttl_s: how long they are believed; None: until `forget`, and after a restart if there is a file.

        Raises:
            TypeError, ValueError: a wrong argument. AddressError, IdentityError: malformed, or of another
                peer.
            LimitExceeded: more than MAX_BOOK_ADDRS addresses, or too many peers that were added for good.
        """
        peer = PeerId(peer)
        if ttl_s is not None:
            options.seconds("ttl_s", ttl_s)
        given = [_bare(peer, Multiaddr(addr)) for addr in addrs]
        if len(given) > limits.MAX_BOOK_ADDRS:
            raise LimitExceeded("MAX_BOOK_ADDRS", len(given), limits.MAX_BOOK_ADDRS)
        if ttl_s is None and peer not in self._pinned and len(self._pinned) >= self._max_peers:
            raise LimitExceeded(
                "max_peers", len(self._pinned) + 1, self._max_peers, setting="AddrBook(max_peers=...)"
            )
        if given:
            until = math.inf if ttl_s is None else self._now() + ttl_s
            self._put(peer, given, AddrSource.USER, until)
            self._added(peer)

    def add_record(self, envelope: bytes, *, ttl_s: float = limits.BOOK_RECORD_S) -> PeerId:
        """Takes a signed peer record that came from anywhere, for instance from a third peer.

        If it is newer than the one the book has, its addresses replace all that the peer has claimed or
        signed before. An older one changes nothing. Unlike those from a connection, addresses of private
        networks are taken too: only you know how far away the peer is.

        Args:
            envelope: the bytes of the envelope, as they came. ttl_s: how long it is believed.

        Returns: the peer that has signed it.
        Raises: IdentityError: it is malformed, or not signed by the peer it is about. TypeError, ValueError.
        """
        options.instance("envelope", envelope, bytes)
        options.seconds("ttl_s", ttl_s)
        record = open_peer_record(envelope)
        known = self._find(record.peer_id)
        if known is None or record.seq > known.seq:
            addrs = [addr.without_p2p() for addr in record.addrs if addr.peer_id in (None, record.peer_id)]
            until = self._now() + ttl_s
            self._put(record.peer_id, addrs, AddrSource.RECORD, until, record.seq, envelope)
            self._added(record.peer_id)
        return record.peer_id

    def addrs(self, peer: PeerId | str) -> list[Multiaddr]:
        """The addresses of `peer` that are believed now, those that we trust most first, without /p2p/ID."""
        return [known.addr for known in self.entries(peer)]

    def entries(self, peer: PeerId | str) -> list[KnownAddr]:
        """The same, with where each came from and how long it is believed."""
        peer = PeerId(peer)
        for conn in self._conns_of(peer):
            self._learn(conn)
        known = self._find(peer)
        found = [] if known is None else [KnownAddr(addr, *each) for addr, each in known.addrs.items()]
        found.sort(key=lambda each: each.source, reverse=True)
        return [
            KnownAddr(each.addr, each.source, None) if each.expires_at == math.inf else each for each in found
        ]

    def record(self, peer: PeerId | str) -> bytes | None:
        """The last signed record of `peer`, as it came, to be passed on. None: there is none any more."""
        peer = PeerId(peer)
        for conn in self._conns_of(peer):
            self._learn(conn)
        known = self._find(peer)
        return None if known is None else known.envelope

    def forget(self, peer: PeerId | str, *addrs: Multiaddr | str) -> None:
        """Forgets these addresses of `peer`, or without any: all, and its record.

        What the peer tells on a connection that is open comes back.
        """
        peer = PeerId(peer)
        known = self._find(peer)
        if known is None:
            return
        if not addrs:
            self._forget(peer)
            return
        for addr in addrs:
            known.addrs.pop(Multiaddr(addr).without_p2p(), None)
        self._changed(peer, known)

    def peers(self) -> list[PeerId]:
        """The peers that the book has addresses of. Connected ones may be missing: see `host.swarm.peers`.

        What a peer told on its last connection is read only when you ask for that peer. So a peer may be here
        whose record then turns out to be forged, and whose only addresses were in it.
        """
        now = self._now()
        found = []
        for peer, known in [*self._pinned.items(), *self._peers.items()]:
            if known.aside is None:
                known.purge(now)
            if not known.is_over(now):
                found.append(peer)
        return found

    def __len__(self) -> int:
        """The number of peers in it; some may be over already."""
        return len(self._peers) + len(self._pinned)

    def __contains__(self, peer: object) -> bool:
        """Whether it has an address of `peer` that is believed now."""
        with contextlib.suppress(TypeError, IdentityError):
            return bool(self.addrs(PeerId(peer)))  # type: ignore[arg-type]
        return False

    def __iter__(self) -> Iterator[PeerId]:
        return iter(self.peers())


def _bare(peer: PeerId, addr: Multiaddr) -> Multiaddr:
    """`addr` without /p2p/ID at its end. Raises AddressError: it leads to another peer."""
    if addr.peer_id not in (None, peer):
        raise AddressError(f"{addr} leads to another peer than {peer}")
    return addr.without_p2p()


def _no_conns(_: PeerId) -> Iterable[Conn]:
    return ()


def _ignore(_: PeerId) -> None:
    """Nobody wants to know."""

"""The connection manager: which connections a node keeps when it has many.

Comes in: connections as they open and end; tags, protections and wishes of the program. Goes out: closings,
in the order of p2pcore.resources.order, in short turns of the loop; reports of them. A connection costs
nothing here until there are too many, unless an idle time is set. It never closes a protected peer to make
room. See docs/connection-manager.md; faults of go's that are not copied: CM-F1 to F11 there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from p2pcore import codes, limits, options
from p2pcore.aio.callbacks import RAISED, Complaints
from p2pcore.errors import LimitExceeded
from p2pcore.resources.held import Held, HeldConn, NoConns, Row, parts
from p2pcore.resources.idle import IdleWatch
from p2pcore.resources.keeper import Keeper, KeepReports
from p2pcore.resources.network_watch import NetworkWatch
from p2pcore.resources.order import VALUE, Choice, Crowds, Entry
from p2pcore.resources.relief import Memory, Relief
from p2pcore.resources.tags import Protections, Tags
from p2pcore.resources.turns import Turns
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId

if TYPE_CHECKING:
    from p2pcore.interfaces import Conn

logger = logging.getLogger("p2pcore.resources")

MayClose = Callable[["Conn"], bool]
"""Called with a connection that is idle. True lets it be closed; an exception keeps it open."""

_KEEP = "keep"  # the protection of a kept peer


class Reports(KeepReports, Protocol):
    """Hears what the manager does."""

    def conn_trimmed(self, conn: HeldConn, reason: str, value: float) -> None:
        """`conn` is being closed: "marks", "crowd", "idle", "memory" or "room". `value`: of its peer."""


class ConnManager:
    """Keeps the number of connections of one host between two marks, and closes idle ones.

    Args:
        low, high: when there are more than `high` connections, the least useful are closed until there are
            `low`. None: 0.8 and 0.9 of the host's `max_conns`; no marks if that is None. `high=0`: no marks.
        grace_s: connections younger than this are left alone, unless their block or peer has too many.
        idle_s: a connection without a stream for so long is closed. None: never.
        may_close: is asked before an idle connection is closed. It must be fast, and not raise.
        tag_ttl_s: how long the tags of a peer that is not connected are kept.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value. The message names it.

    Attributes:
        joined_above: the swarm calls `joined` while it has more connections than this.
        wants_ends: whether the swarm calls `left`. Without tags, kept peers and idle time, most connections
            cost only these two looks.
    """

    def __init__(
        self,
        low: int | None = None,
        high: int | None = None,
        *,
        grace_s: float = limits.CONN_GRACE_S,
        idle_s: float | None = None,
        may_close: MayClose | None = None,
        tag_ttl_s: float = limits.TAG_TTL_S,
    ) -> None:
        for name, mark, least in (("low", low, 1), ("high", high, 0)):
            if mark is not None:
                options.whole(name, mark, least)
        options.seconds("grace_s", grace_s, or_zero=True)
        options.seconds("tag_ttl_s", tag_ttl_s)
        if idle_s is not None:
            options.seconds("idle_s", idle_s)
        if may_close is not None:
            options.function("may_close", may_close)
        self._given = low, high
        self._grace_s = grace_s
        self._may_close = may_close
        self._wants_all = False
        self.wants_ends = False
        self.set_max_conns(None)
        self._tags = Tags(tag_ttl_s)
        self._protections = Protections()
        self._keepers: dict[PeerId, Keeper] = {}
        self._network = NetworkWatch(self._misses_somebody, self._network_changed)
        self._idle_s = idle_s
        self._idle: IdleWatch | None = None
        self._closing: dict[HeldConn, asyncio.Task[None] | None] = {}
        self._trims = Turns()
        self._relief = Relief(self._is_protected, self._relieve_of)
        self._drains = Turns()
        self._again: asyncio.TimerHandle | None = None
        self._rest_until = 0.0
        self._has_warned = False
        self._is_stopped = False
        self._complaints = Complaints(logger)
        self._held: Held = NoConns()
        self._reports: Reports
        self._dial: Callable[[PeerId, tuple[Multiaddr, ...]], Awaitable[HeldConn]]

    # -- for the swarm -------------------------------------------------------------------------

    def attach(
        self,
        held: Held,
        reports: Reports,
        dial: Callable[[PeerId, tuple[Multiaddr, ...]], Awaitable[HeldConn]],
    ) -> None:
        """Begins to manage the connections of one swarm. Raises ValueError: it manages another one
        already."""
        if not isinstance(self._held, NoConns):
            raise ValueError("this ConnManager belongs to another host: make one for each host")
        self._held, self._reports, self._dial = held, reports, dial
        if self._idle_s is not None:
            self._idle = IdleWatch(self._idle_s, held.active_at, self._found_idle)
            self._watch_all()

    def set_max_conns(self, max_conns: int | None) -> None:
        """Sets the marks that follow from `max_conns`. Raises ValueError: the high mark is above it.

        This alone closes nothing: the next new connection has the marks looked at.
        """
        self._low, self._high = _marks(*self._given, max_conns)
        self.joined_above = -1 if self._wants_all else self._high or math.inf

    def _watch_all(self) -> None:
        """From now on it hears of every connection."""
        self._wants_all = self.wants_ends = True
        self.joined_above = -1

    def joined(self, conn: HeldConn) -> None:
        """The swarm has taken `conn` over. See `joined_above`."""
        if self._tags:
            self._tags.joined(conn.remote_peer)
        if self._keepers and (keeper := self._keepers.get(conn.remote_peer)) is not None:
            keeper.joined(conn)
        if self._idle is not None:
            self._idle.joined(conn)
        if self._high and self._held.num_conns - len(self._closing) > self._high:
            self._trim_soon(self._held.standing(conn)[-1])

    def left(self, conn: HeldConn, error: BaseException | None) -> None:
        """`conn` has ended, and the swarm does not list it any more. See `wants_ends`."""
        if self._closing:
            self._closing.pop(conn, None)
        if self._idle is not None:
            self._idle.left(conn)
        if not self._tags and not self._keepers:
            return
        peer = conn.remote_peer
        if self._held.of(peer):
            return
        self._tags.left(peer, self._now())
        if not self._is_stopped and (keeper := self._keepers.get(peer)) is not None:
            keeper.left(error)
            self._network.watch()

    async def close(self) -> None:
        """Closes nothing any more, and waits until kept peers are not dialled any more. Idempotent."""
        self.stop()
        keepers, self._keepers = self._keepers, {}
        for keeper in keepers.values():
            await keeper.stop()
        tasks = [task for task in self._closing.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def stop(self) -> None:
        """Closes nothing any more of its own accord, and dials nothing. Idempotent."""
        self._is_stopped = True
        self._network.stop()
        for keeper in self._keepers.values():
            keeper.halt()
        for work in (self._trims, self._relief, self._drains):
            work.stop()
        if self._idle is not None:
            self._idle.stop()
        if self._again is not None:
            self._again.cancel()
            self._again = None

    @property
    def _num_open(self) -> int:
        """Connections without those that are being closed here."""
        return self._held.num_conns - len(self._closing)

    @property
    def _has_too_many(self) -> bool:
        return 0 < self._high < self._num_open

    @staticmethod
    def _now() -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:  # a program may tag peers before its loop runs; the clock is the same
            return time.monotonic()

    # -- what peers are worth ------------------------------------------------------------------

    def tag(self, peer: PeerId | str, name: str, value: float, *, half_life_s: float | None = None) -> None:
        """Sets the tag `name` of `peer`. The value of a peer is the sum of its tags; less goes first.

        The peer need not be connected. Then its tags are kept for `tag_ttl_s` seconds.

        Args:
            value: any finite number. half_life_s: it halves each time so many seconds pass; None: it stays.

        Raises:
            TypeError, ValueError: a wrong argument. LimitExceeded: the peer has MAX_TAGS_PER_PEER tags.
        """
        options.number("value", value)
        _check_half_life(half_life_s)
        peer = PeerId(peer)
        self._watch_all()
        self._tags.set(peer, name, value, half_life_s, self._now(), self._is_absent(peer))

    def bump(
        self,
        peer: PeerId | str,
        name: str,
        by: float,
        *,
        cap: float = math.inf,
        half_life_s: float | None = None,
    ) -> None:
        """Adds `by` to the tag `name` of `peer`, up to `cap`. Otherwise like `tag`."""
        options.number("by", by)
        if cap != math.inf:
            options.number("cap", cap)
        _check_half_life(half_life_s)
        peer = PeerId(peer)
        self._watch_all()
        self._tags.bump(peer, name, by, cap, half_life_s, self._now(), self._is_absent(peer))

    def untag(self, peer: PeerId | str, name: str) -> None:
        """Removes the tag `name` of `peer`. If there is none, nothing happens."""
        self._tags.remove(PeerId(peer), name)

    def tags(self, peer: PeerId | str) -> dict[str, float]:
        """The tags of `peer` with their values now."""
        return self._tags.of(PeerId(peer), self._now())

    def value(self, peer: PeerId | str) -> float:
        """The sum of the tags of `peer`; 0 without any."""
        return self._tags.value(PeerId(peer), self._now())

    def protect(self, peer: PeerId | str, tag: str, *, ttl_s: float | None = None) -> None:
        """Never closes `peer` to make room, until `unprotect` with the same `tag`, or for `ttl_s` seconds.

        A peer may be protected under several tags. Under one tag, it is protected once, however often you
        call.

        Raises: TypeError, ValueError: a wrong argument. LimitExceeded: too many peers, or too many tags.
        """
        if ttl_s is not None:
            options.seconds("ttl_s", ttl_s)
        self._protections.add(PeerId(peer), tag, ttl_s, self._now())

    def unprotect(self, peer: PeerId | str, tag: str) -> bool:
        """Ends the protection under `tag`. Returns: whether `peer` is still protected under another one."""
        peer = PeerId(peer)
        self._protections.remove(peer, tag)
        return self._protections.has(peer, self._now())

    def is_protected(self, peer: PeerId | str, tag: str | None = None) -> bool:
        """Whether `peer` is protected under `tag`; None: under any tag."""
        return self._protections.has(PeerId(peer), self._now(), tag)

    def _is_absent(self, peer: PeerId) -> bool:
        return not self._held.of(peer)

    # -- kept peers ----------------------------------------------------------------------------

    def keep(self, peer: PeerId | str, addrs: Iterable[Multiaddr | str] = ()) -> None:
        """Dials `peer` now, and again whenever its last connection is lost, until `unkeep`. It is protected.

        It is dialled at `addrs` and where the address book says. The pauses grow from a second to five
        minutes, and end early when addresses of the peer come, or when those of our interfaces change. They
        begin anew after a connection of a minute. Events: KeepLost, KeepRestored. Call it on the host's loop.
        Another call replaces the addresses. If the peer is blocked, this ends.

        Raises:
            AddressError, IdentityError: malformed. LimitExceeded: MAX_KEPT_PEERS peers are kept.
            RuntimeError: there is no host yet, or it does not run.
        """
        given = options.listed("addrs", addrs, "multiaddrs", str, Multiaddr)
        peer, where = PeerId(peer), tuple(Multiaddr(addr) for addr in given)
        keeper = self._keepers.get(peer)
        if keeper is None:
            self._keep(peer, where)
        else:
            keeper.addrs = where
            keeper.wake()

    def hold(self, peer: PeerId, addrs: Iterable[Multiaddr]) -> Keeper:
        """As `keep`, until `release` of what it returns.

        Addresses are added to those that are known. Beyond MAX_BOOK_ADDRS, the oldest go.
        """
        keeper = self._keepers.get(peer)
        if keeper is None:
            return self._keep(peer, tuple(addrs))
        keeper.num_holders += 1
        keeper.addrs = tuple(dict.fromkeys([*keeper.addrs, *addrs]))[-limits.MAX_BOOK_ADDRS :]
        keeper.wake()
        return keeper

    def release(self, keeper: Keeper) -> None:
        """Ends one `hold`. With the last one, the peer is not kept any more."""
        keeper.num_holders -= 1
        if not keeper.num_holders and self._keepers.get(keeper.peer) is keeper:
            self.stop_keeping(keeper.peer)

    def holds(self, keeper: Keeper) -> bool:
        """Whether the peer of `keeper` is still kept by it."""
        return self._keepers.get(keeper.peer) is keeper and not self._is_stopped

    def _keep(self, peer: PeerId, addrs: tuple[Multiaddr, ...]) -> Keeper:
        if len(self._keepers) >= limits.MAX_KEPT_PEERS:
            raise LimitExceeded("MAX_KEPT_PEERS", len(self._keepers) + 1, limits.MAX_KEPT_PEERS)
        if isinstance(self._held, NoConns) or self._is_stopped:
            raise RuntimeError("a ConnManager keeps peers only while its host runs")
        self._watch_all()
        self.protect(peer, _KEEP)
        keeper = self._keepers[peer] = Keeper(peer, addrs, self._dial, self._reports)
        keeper.start()
        self._network.watch()
        return keeper

    def _network_changed(self) -> None:
        for keeper in self._keepers.values():
            keeper.wake()

    def _misses_somebody(self) -> bool:
        return any(not keeper.is_connected for keeper in self._keepers.values())

    async def unkeep(self, peer: PeerId | str) -> None:
        """Dials `peer` no more when it is lost, and protects it no more. A connection stays open."""
        keeper = self._keepers.pop(PeerId(peer), None)
        if keeper is not None:
            self.unprotect(peer, _KEEP)
            await keeper.stop()

    def stop_keeping(self, peer: PeerId) -> None:
        """As `unkeep`, without waiting for a dial that is being cancelled."""
        keeper = self._keepers.pop(peer, None)
        if keeper is not None:
            self.unprotect(peer, _KEEP)
            keeper.end()

    def addrs_came(self, peer: PeerId) -> None:
        """There are new addresses of `peer`: if it is kept and lost, it is dialled now."""
        if not self._is_stopped and (keeper := self._keepers.get(peer)) is not None:
            keeper.wake()

    @property
    def kept(self) -> list[PeerId]:
        """The peers that are kept."""
        return list(self._keepers)

    # -- too many connections ------------------------------------------------------------------

    @property
    def low(self) -> int | None:
        """The low mark now. None: there are no marks."""
        return self._low if self._high else None

    @property
    def high(self) -> int | None:
        """The high mark now. None: there are no marks."""
        return self._high or None

    @property
    def is_trimming(self) -> bool:
        """True while a trim is under way."""
        return self._trims.is_busy

    @property
    def num_closing(self) -> int:
        """Connections that are being closed here."""
        return len(self._closing)

    def make_room(self, num: int) -> None:
        """Closes the `num` least useful connections, whatever the marks say: something has run short.

        The order is that of a trim, but young connections go too, after all others. Protected ones stay. As
        it looks at all connections, it closes at least a 64th of them. While it or a trim is under way,
        another call changes nothing.
        """
        if not self._trims.is_busy and not self._is_stopped:
            self._trims.start(self._room(max(num, self._num_open // limits.ROOM_PARTS)))

    def _room(self, num: int) -> Iterator[None]:
        rows = self._held.rows()
        crowds = yield from _count(rows, self._num_open)
        choice = Choice(
            self._held.standing,
            self._tags,
            self._protections,
            self._now(),
            self._young_after,
            True,
            crowds=crowds,
        )
        yield from self._look(choice, rows)
        crowd = choice.crowded(num)
        yield from self._close_all(crowd, "room", at_once=True)
        yield from self._close_all(choice.usual(num - len(crowd), crowd), "room", at_once=True)

    def _trim_soon(self, before: float) -> None:
        """Trims in the next turn. Connections with the ordinal `before` or a later one are left alone."""
        if self._is_stopped or self._trims.is_busy:
            return
        if self._now() < self._rest_until:
            self._trim_at(self._rest_until)
        else:
            self._trims.start(self._trim(before))

    def _trim_at(self, at: float) -> None:
        """Looks again at the time `at`, or at an earlier one that was asked for before."""
        if self._again is not None:
            if self._again.when() <= at:
                return
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_at(at, self._trim_again)

    def _trim_again(self) -> None:
        self._again = None
        if self._has_too_many:
            self._trim_soon(math.inf)

    def _trim(self, before: float) -> Iterator[None]:
        """One pass: looks at all connections, then closes down to the low mark. More passes follow if
        needed."""
        rows = self._held.rows()
        crowds = yield from _count(rows, self._low)
        young_after = self._young_after
        choice = Choice(
            self._held.standing,
            self._tags,
            self._protections,
            self._now(),
            young_after,
            before=before,
            crowds=crowds,
        )
        yield from self._look(choice, rows)
        num = min(choice.num_open, self._num_open) - self._low
        crowd = choice.crowded(num)
        # Young connections alone never push out old ones: then it waits until they have grown up.
        may_close = choice.num_established >= self._low
        usual = choice.usual(num - len(crowd), crowd) if may_close else []
        yield from self._close_all(crowd, "crowd", at_once=True)
        yield from self._close_all(usual, "marks")
        self._trims.stop()
        self._trimmed(choice, len(crowd) + len(usual), before)

    @property
    def _young_after(self) -> float:
        return self._now() - self._grace_s if self._grace_s else math.inf

    def _look(self, choice: Choice, rows: Sequence[Row]) -> Iterator[None]:
        """`choice` looks at all connections that are not being closed."""
        for part in parts(rows):
            choice.look([conn for conn in part if conn not in self._closing])
            yield

    def _trimmed(self, choice: Choice, num: int, before: float) -> None:
        """A pass has closed `num` connections. Goes on, waits or warns while there are still too many."""
        if num or not self._has_too_many:
            self._has_warned = False
        if num and (self._has_too_many or (num >= limits.MAX_TRIM_CONNS and self._num_open > self._low)):
            self._trims.start(self._trim(before))
        elif self._has_too_many:
            self._could_close_nothing(choice)

    def _could_close_nothing(self, choice: Choice) -> None:
        """Rests before the next pass, which a new connection may ask for; waits for those that are young."""
        now = self._now()
        self._rest_until = now + choice.num_open * limits.TRIM_REST_PER_CONN_S
        if choice.num_young:
            self._trim_at(max(choice.next_grown + self._grace_s, now + self._grace_s / 8))
        elif not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%d connections, over the high mark of %d, but none can be closed: %d are protected",
                self._num_open,
                self._high,
                choice.num_protected,
            )

    # -- closing -------------------------------------------------------------------------------

    def _close_all(self, entries: list[Entry], reason: str, at_once: bool = False) -> Iterator[None]:
        """Closes those of `entries` that may still go, some in each turn."""
        for at in range(0, len(entries), limits.TRIM_CLOSINGS):
            for entry in entries[at : at + limits.TRIM_CLOSINGS]:
                conn, value, had_streams = entry[-1], entry[VALUE], entry[VALUE + 1]
                if self._may_go(conn) and (had_streams or at_once or not conn.num_streams):
                    # Without a stream nothing is lost: the go-away is sent, and no turn has to wait for FINs.
                    now = at_once or not conn.num_streams
                    self._trim_one(conn, reason, value, codes.CONN_GARBAGE_COLLECTED, now)
            yield

    def _may_go(self, conn: HeldConn) -> bool:
        """Things may have changed since the pass has looked at it."""
        return not (conn.is_closed or conn in self._closing or self._is_protected(conn.remote_peer))

    def _trim_one(self, conn: HeldConn, reason: str, value: float, code: int, at_once: bool) -> None:
        self._reports.conn_trimmed(conn, reason, value)
        self._end(conn, code, at_once)

    def _end(self, conn: HeldConn, code: int, at_once: bool) -> None:
        """Closes `conn`. At once: nothing waits, and its descriptor is free."""
        self.wants_ends = True
        if at_once:
            self._closing[conn] = None
            conn.abort(code)
            return
        task = asyncio.get_running_loop().create_task(conn.close(code))
        self._closing[conn] = task
        task.add_done_callback(_look_at_error)

    # -- idle connections ----------------------------------------------------------------------

    def _found_idle(self, conn: HeldConn) -> None:
        """Closes it, unless its peer is protected or worth something, or the program wants to keep it."""
        if not self._may_go(conn) or self._tags.value(conn.remote_peer, self._now()) > 0:
            return
        try:
            if self._may_close is not None and not self._may_close(conn):  # type: ignore[arg-type]
                return
        except RAISED:
            self._complaints.raised("may_close of the connection manager")
            return
        self._trim_one(conn, "idle", 0.0, codes.CONN_GARBAGE_COLLECTED, at_once=False)

    # -- memory --------------------------------------------------------------------------------

    def relieve(self, memory: Memory) -> None:
        """Closes the connections that hold most bytes until memory is not full any more; protected ones last.

        Call it when the state of `memory` has become `full`; it goes on until that ends.
        """
        if not self._is_stopped:
            self._relief.start(memory, self._held)

    def _relieve_of(self, conn: HeldConn) -> None:
        # What handlers do not read would stay: a connection that ends leaves what has arrived.
        conn.session.reset_streams(codes.STREAM_RESOURCE_LIMIT_EXCEEDED)
        value = self._tags.value(conn.remote_peer, self._now())
        self._trim_one(conn, "memory", value, codes.CONN_RESOURCE_LIMIT_EXCEEDED, at_once=True)

    def _is_protected(self, peer: PeerId) -> bool:
        return bool(self._protections) and self._protections.has(peer, self._now())

    # -- draining ------------------------------------------------------------------------------

    def drain(self, opened_before: float) -> None:
        """Closes, in the order of a trim, the connections without streams that are older than
        `opened_before`.

        Call it again and again while a node drains. Protected connections go too.
        """
        if not self._drains.is_busy:
            self._drains.start(self._drain(opened_before))

    def _drain(self, opened_before: float) -> Iterator[None]:
        least = Choice(self._held.standing, self._tags, Protections(), self._now(), young_after=opened_before)
        for part in parts(self._held.rows()):
            least.look([conn for conn in part if not conn.num_streams and conn not in self._closing])
            yield
        chosen = least.usual(limits.MAX_TRIM_CONNS)
        for at in range(0, len(chosen), limits.TRIM_CLOSINGS):
            for entry in chosen[at : at + limits.TRIM_CLOSINGS]:
                conn = entry[-1]
                if not conn.num_streams and not conn.is_closed:
                    self._end(conn, codes.CONN_SHUTDOWN, at_once=False)
            yield


def _marks(low: int | None, high: int | None, max_conns: int | None) -> tuple[int, int]:
    """The marks; 0, 0: none. Raises ValueError: they do not fit each other, or `max_conns`."""
    if high == 0:
        return 0, 0
    if high is None:
        if max_conns is None:
            return 0, 0
        tenth = int(max_conns * limits.CONN_SPARE_SHARE)
        high, usual_low = max_conns - tenth, max_conns - 2 * tenth
    else:
        usual_low = high - high // 9
    if max_conns is not None and high > max_conns:
        raise ValueError(
            f"high must be at most max_conns ({max_conns}), not {high}: it would never be reached"
        )
    if low is None:
        low = usual_low
    if low > high:
        raise ValueError(f"low must be at most high ({high}), not {low}")
    return low, high


def _count(rows: Sequence[Row], share_of: int) -> Generator[None, None, Crowds]:
    """Finds the crowds: blocks and peers with more than a share of so many connections."""
    crowds = Crowds(max(int(share_of * limits.CROWD_SHARE), limits.CROWD_MIN_CONNS))
    for part in parts(rows):
        crowds.count(part)
        yield
    crowds.settle()
    return crowds


def _check_half_life(half_life_s: float | None) -> None:
    if half_life_s is not None:
        options.seconds("half_life_s", half_life_s)


def _look_at_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.debug("closing a connection failed", exc_info=task.exception())

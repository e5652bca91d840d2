"""Closes the connections that hold most while memory is full.

Comes in: a budget of memory, the connections of a node. Goes out: a call for each connection that has to go.
It looks at all connections in short turns, as long as memory is full. A connection that holds less than half
an equal part of the budget is never the cause, and stays.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from p2pcore import limits
from p2pcore._fast.loop.ledger import FULL
from p2pcore.resources.held import Held, HeldConn, parts
from p2pcore.resources.order import Entry, Least, block_of
from p2pcore.resources.turns import Turns

if TYPE_CHECKING:
    from p2pcore.values.peer_id import PeerId


_MINUS_BYTES = 2  # of an entry


class Memory(Protocol):
    """The part of a ledger that says how full memory is."""

    @property
    def memory(self) -> int:
        """The budget, bytes."""

    @property
    def used(self) -> int:
        """Bytes of it that are used."""

    @property
    def state(self) -> int:
        """At least FULL: memory is full."""


class Relief:
    """Relieves one node.

    Args:
        is_protected: of a peer; protected ones go last.
        close: closes a connection at once, and drops what nobody has read.
    """

    __slots__ = ("_close", "_is_protected", "_timer", "_turns")

    def __init__(self, is_protected: Callable[[PeerId], bool], close: Callable[[HeldConn], None]) -> None:
        self._is_protected = is_protected
        self._close = close
        self._turns = Turns()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, memory: Memory, held: Held) -> None:
        """Begins, unless it has begun already. It goes on until memory is not full any more."""
        if not self._turns.is_busy and self._timer is None:
            self._turns.start(self._relieve(memory, held))

    def stop(self) -> None:
        """Closes nothing any more. Idempotent."""
        self._turns.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _relieve(self, memory: Memory, held: Held) -> Iterator[None]:
        rows = held.rows()
        totals: Counter[object] = Counter()
        for part in parts(rows):
            for conn in part:
                totals[_group_of(conn)] += _holding(conn)
            yield
        least = memory.memory // max(1, 2 * held.num_conns)
        most = Least(limits.MAX_TRIM_CONNS)
        for part in parts(rows):
            large = [(num_bytes, conn) for conn in part if (num_bytes := _holding(conn)) >= least]
            most.add([self._entry(conn, num_bytes, totals, held) for num_bytes, conn in large])
            yield
        too_much = memory.used - memory.memory * limits.MEMORY_FULL_END_PERCENT // 100
        chosen = list(_enough(most.kept, too_much))
        for at in range(0, len(chosen), limits.TRIM_CLOSINGS):
            for conn in chosen[at : at + limits.TRIM_CLOSINGS]:
                if not conn.is_closed:
                    self._close(conn)
            yield
        wait = limits.RELIEVE_LOOK_S if chosen else limits.RELIEVE_REST_S
        self._timer = asyncio.get_running_loop().call_later(wait, self._look, memory, held)

    def _look(self, memory: Memory, held: Held) -> None:
        self._timer = None
        if memory.state >= FULL:
            self.start(memory, held)

    def _entry(self, conn: HeldConn, num_bytes: int, totals: Counter[object], held: Held) -> Entry:
        """Sorts by what the block holds, then by what the connection holds, most first; protected ones last.

        So many connections that hold a little each go before one of another block that holds more.
        """
        is_protected = self._is_protected(conn.remote_peer)
        return is_protected, -totals[_group_of(conn)], -num_bytes, *held.standing(conn), conn


def _group_of(conn: HeldConn) -> object:
    return block_of(conn.remote_multiaddr) or conn.remote_peer


def _holding(conn: HeldConn) -> int:
    session = conn.session
    fixed = limits.CONN_COST_BYTES + conn.num_streams * limits.STREAM_COST_BYTES
    return session.unread + session.unsent + fixed


def _enough(entries: list[Entry], num_bytes: int) -> Iterator[HeldConn]:
    """The first connections that hold `num_bytes` together."""
    for entry in entries:
        if num_bytes <= 0:
            return
        num_bytes += entry[_MINUS_BYTES]
        yield entry[-1]

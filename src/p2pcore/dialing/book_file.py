"""When an address book is written to its file: in batches, in a thread, some seconds after a change.

Comes in: peers that have changed. Goes out: rows. One write runs at a time. If one fails, the book goes on in
memory, with one warning, and the write is tried again later. Never waits on the event loop. Without a running
loop, changes wait for the next change on one, or for `close`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.errors import AddrBookError

if TYPE_CHECKING:
    from p2pcore.values.peer_id import PeerId

logger = logging.getLogger("p2pcore.dialing.addr_book")


@dataclass(frozen=True, slots=True)
class Row:
    """All that is known of one peer; without addresses: the peer is forgotten.

    Attributes:
        peer: its multihash. addrs: (multiaddr, source, until); until is in unix seconds, None: for ever.
        seq, envelope: of its signed record; None: there is none.
    """

    peer: bytes
    addrs: tuple[tuple[bytes, int, float | None], ...]
    seq: int = -1
    envelope: bytes | None = None


class BookFile:
    """The changes of one book that its file does not have yet.

    Args:
        write: replaces all that the file has of some peers; it runs in a thread.
        row: gives what the file shall have of a peer.
    """

    __slots__ = ("_batch", "_changed", "_has_warned", "_row", "_timer", "_write", "_writing")

    def __init__(self, write: Callable[[list[Row]], None], row: Callable[[PeerId], Row]) -> None:
        self._write = write
        self._row = row
        self._changed: dict[PeerId, None] = {}
        self._batch: list[PeerId] = []  # what is being written
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._has_warned = False

    def changed(self, peer: PeerId) -> None:
        """The file is out of date for `peer`."""
        self._changed[peer] = None
        if self._timer is None and self._writing is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            self._timer = loop.call_later(limits.BOOK_WRITE_S, self._begin)

    def _begin(self) -> None:
        """Begins to write the next batch."""
        self._timer = None
        self._batch = list(islice(self._changed, limits.BOOK_BATCH_PEERS))
        for peer in self._batch:
            del self._changed[peer]
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, self._write, [self._row(peer) for peer in self._batch])
        self._writing.add_done_callback(self._ended)

    def _ended(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        error = None if writing.cancelled() else writing.exception()
        if error is not None:
            self._failed(error)
            return
        self._has_warned = False
        if self._changed:
            self._begin()

    def _failed(self, error: BaseException) -> None:
        """Keeps what was not written for the next try. Beyond MAX_BOOK_CHANGED, the oldest goes."""
        waiting = [*self._batch, *self._changed]
        self._changed = dict.fromkeys(waiting[-limits.MAX_BOOK_CHANGED :])
        self._timer = asyncio.get_running_loop().call_later(limits.BOOK_WRITE_S, self._begin)
        level = logging.DEBUG if self._has_warned else logging.WARNING
        self._has_warned = True
        if not isinstance(error, AddrBookError):
            level = logging.ERROR
        logger.log(level, "cannot write the address book; it goes on in memory: %s", error)

    async def close(self) -> None:
        """Writes all changes that are left. Idempotent. A write that fails is not tried again."""
        self._stop_timer()
        if self._writing is None and self._changed:
            self._begin()
        while self._writing is not None:
            await asyncio.wait([self._writing])
            await asyncio.sleep(0)  # _ended() runs now, and may begin the next write
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

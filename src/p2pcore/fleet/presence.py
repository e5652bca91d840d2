"""Which peers are connected to this process, as the other processes of the fleet read it.

Comes in: the host's connects and disconnects, as a Notifiee. Goes out: entries of a bucket, one for each
peer, in batches. What waits to be written is derived from the connections of the host: it is no queue. Never
waits in a notification.

The key of an entry is `<peer>.<process>`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Final

from p2pcore.fleet.hints import marks_of
from p2pcore.limits import FLEET_BATCH, FLEET_MAX_CHANGED, FLEET_MAX_NEWS, FLEET_MAX_TOLD

if TYPE_CHECKING:
    from p2pcore.fleet.bus import Bucket
    from p2pcore.interfaces import Conn, Network
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

_HERE: Final = b"1"


def key_of(peer: PeerId) -> str:
    """The key under which the entries of `peer` are, one for each process."""
    return str(peer)


class Presence:
    """See above.

    Args:
        network: the host's swarm. process: the id of this process.
        changed: called when something begins to wait for `write`.

    Attributes:
        num_peers: peers that are connected to this process now.
    """

    __slots__ = ("_changed", "_is_away", "_network", "_news", "_suffix", "_tell", "_written", "num_peers")

    def __init__(self, network: Network, process: str, changed: Callable[[], None]) -> None:
        self._network = network
        self._suffix = f".{process}"
        self._tell = changed
        self._changed: dict[PeerId, bool] = {}  # True: written anew, whatever was written before
        self._written: set[PeerId] = set()  # all that the bucket may have of us
        self._news: list[PeerId] = []  # what of it was written since `take_news`
        self._is_away = True
        self.num_peers = len(network.peers())

    @property
    def num_written(self) -> int:
        """The entries that the bucket has of this process."""
        return len(self._written)

    @property
    def has_changes(self) -> bool:
        """Whether something waits for `write`."""
        return bool(self._changed)

    # -- what the host tells -------------------------------------------------------------------

    def connected(self, network: Network, conn: Conn) -> None:
        """See interfaces.Notifiee."""
        peer = conn.remote_peer
        if len(network.conns_to_peer(peer)) == 1:
            self.num_peers += 1
            self._note(peer)

    def disconnected(self, network: Network, conn: Conn) -> None:
        """See interfaces.Notifiee."""
        peer = conn.remote_peer
        if not network.conns_to_peer(peer):
            self.num_peers -= 1
            self._note(peer)

    def listen(self, network: Network, addr: Multiaddr) -> None:
        """See interfaces.Notifiee."""

    def listen_close(self, network: Network, addr: Multiaddr) -> None:
        """See interfaces.Notifiee."""

    def _note(self, peer: PeerId) -> None:
        if self._is_away:  # `restore` will compare all
            return
        changed = self._changed
        if not changed:
            self._tell()
        elif len(changed) >= FLEET_MAX_CHANGED and len(changed) > 2 * (len(self._written) + self.num_peers):
            self.restore()  # peers come and go faster than the bus takes it
            return
        changed.setdefault(peer, False)

    # -- what the bus gets ---------------------------------------------------------------------

    def away(self) -> None:
        """The engine is away: nothing is noted until `restore`."""
        self._is_away = True
        self._changed.clear()

    def restore(self) -> None:
        """Writes all entries anew from the connections that there are.

        The engine may have lost some, and it forgets them FLEET_EXPIRY_S after they were written.
        """
        self._is_away = False
        self._changed = dict.fromkeys(self._network.peers(), True)
        for peer in self._written:
            self._changed.setdefault(peer, False)
        if self._changed:
            self._tell()

    async def write(self, bucket: Bucket) -> None:
        """Writes the changes that wait, FLEET_BATCH at most. One call at a time.

        Raises: BusDown: some may be written. Call `away`, and `restore` when the engine is back.
        """
        batch, gone = self._batch()
        if batch:
            await bucket.put(batch)
            self._written.difference_update(gone)

    def take_news(self) -> bytes:
        """The marks of peers whose entries were written since the last call, FLEET_MAX_NEWS at most."""
        marks = marks_of(self._news)
        self._news.clear()
        return marks

    def marks(self) -> bytes:
        """The marks of all peers whose entries are written, FLEET_MAX_TOLD at most."""
        return marks_of(islice(self._written, FLEET_MAX_TOLD))

    async def withdraw(self, bucket: Bucket) -> None:
        """Deletes all entries of this process. Raises BusDown."""
        self.away()
        while self._written:
            gone = list(islice(self._written, FLEET_BATCH))
            await bucket.put({key_of(peer) + self._suffix: None for peer in gone})
            self._written.difference_update(gone)

    def _batch(self) -> tuple[dict[str, bytes | None], list[PeerId]]:
        """What is written now, and the peers of it whose entries go."""
        batch: dict[str, bytes | None] = {}
        gone: list[PeerId] = []
        written, suffix, changed = self._written, self._suffix, self._changed
        conns_to_peer = self._network.conns_to_peer
        while changed and len(batch) < FLEET_BATCH:
            peer, is_anew = changed.popitem()
            if conns_to_peer(peer):
                if is_anew or peer not in written:
                    batch[key_of(peer) + suffix] = _HERE
                    written.add(peer)
                    if len(self._news) < FLEET_MAX_NEWS:
                        self._news.append(peer)
            elif peer in written:
                batch[key_of(peer) + suffix] = None
                gone.append(peer)
        return batch, gone

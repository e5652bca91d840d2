"""Circuit relay v2, the client: dials and listens on addresses with /p2p-circuit in them.

Comes in: `/…/p2p/RELAY/p2p-circuit[/p2p/TARGET]`, a network to reach relays. Goes out: upgraded connections
and listeners, our addresses through reservations. It costs nothing until it is used: stop streams are served
only while something listens. Never accepts a circuit from a relay without a reservation.
Specification: libp2p relay/circuit-v2.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.aio.log_fields import of_conn
from p2pcore.errors import AddressError, IncompleteRead, LimitExceeded, RemoteProtocolError
from p2pcore.late import Late
from p2pcore.relay.conn import RelayedConn, came_relayed
from p2pcore.relay.listener import RelayListener

if TYPE_CHECKING:
    from p2pcore.interfaces import CapableConn, Conn, Listener, Network, Stream, Upgrader
    from p2pcore.relay import client, messages
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId
else:
    client, messages = Late("p2pcore.relay.client"), Late("p2pcore.relay.messages")

logger = logging.getLogger("p2pcore.relay")


class RelayTransport:
    """The relay client; satisfies interfaces.Transport.

    Args:
        upgrader: secures and multiplexes dialled and accepted connections, end to end.
        network: the swarm; it reaches relays and takes the handler of stop streams.
        changed: called when the addresses of `announced` have changed.
        now: unix seconds.
    """

    protocols = ("p2p-circuit",)
    is_proxy = True

    def __init__(
        self,
        upgrader: Upgrader,
        network: Network,
        changed: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._upgrader = upgrader
        self._network = network
        self._changed = changed
        self._now = now
        self._keepers: dict[PeerId, client.ReservationKeeper] = {}
        self._listeners: dict[PeerId | None, RelayListener] = {}

    @property
    def reservations(self) -> list[client.ReservationKeeper]:
        """All reservations that we keep, held now or not."""
        return list(self._keepers.values())

    # -- dialling ------------------------------------------------------------------------------

    def can_dial(self, addr: Multiaddr) -> bool:
        """True for one relay, with or without a target after it."""
        if not addr.is_relayed:
            return False
        try:
            messages.route_of(addr)
        except AddressError:
            return False
        return True

    async def dial(self, addr: Multiaddr, peer: PeerId | None) -> CapableConn:
        """Connects to the relay, asks it for a circuit, upgrades the circuit.

        Args:
            addr: as for route_of; peer: the target, which must prove this id; None: the one in `addr`.

        Raises:
            AddressError: not such an address, no target, or two targets.
            RelayRefused: see its status; DialError: the relay cannot be reached; TimeoutError.
            RemoteProtocolError, LimitExceeded, StreamError, ConnectionClosed: the relay failed.
            NegotiationError, HandshakeError, UpgradeTimeout: the upgrade failed, see `.stage`.
        """
        route = messages.route_of(addr)
        target = peer if route.target is None else route.target
        if target is None or (peer is not None and peer != target):
            raise AddressError(f"{addr} has no target, or another target than the peer {peer}")
        if target == route.relay:
            raise AddressError(f"{addr} leads through a relay to itself")
        relay = await client.reach(self._network, route)
        stream, answer = await client.connect(relay, target)
        conn = RelayedConn(stream, relay, answer.limit is not None)
        return await self._upgrader.upgrade_outbound(conn, target)

    # -- listening -----------------------------------------------------------------------------

    async def listen(self, addr: Multiaddr) -> Listener:
        """Listens behind the relay of `addr`; `/p2p-circuit`: behind all relays of `reserve`.

        It asks for a reservation until the relay grants one, and keeps it: listening works even if the relay
        is down or full now. `announced` has our address while a reservation is held.

        Raises:
            AddressError: not such an address; OSError: we listen there already, or keep a reservation there.
        """
        relay = None if addr == messages.CIRCUIT else messages.route_of(addr).relay
        if relay in self._listeners:
            raise OSError(errno.EADDRINUSE, f"this node already listens on {addr}")
        keeper = None if relay is None else self._new_keeper(addr)
        if not self._listeners:
            self._network.set_stream_handler(messages.STOP, self.serve_stop)
        listener = self._listeners[relay] = RelayListener(addr, self._listener_closed)
        try:
            if keeper is not None:
                await keeper.begin_somehow()
        except BaseException:
            await listener.close()
            raise
        return self._upgrader.upgrade_listener(listener)

    async def reserve(self, addr: Multiaddr) -> client.ReservationKeeper:
        """Reserves at the relay of `addr` (`/…/p2p/RELAY/p2p-circuit`), and keeps that until `close`.

        Raises:
            AddressError: not such an address; OSError: we keep a reservation there already.
            RelayRefused, DialError, TimeoutError, RemoteProtocolError, IdentityError: no reservation.
        """
        keeper = self._new_keeper(addr)
        try:
            await keeper.begin()
        except BaseException:
            self._keepers.pop(keeper.relay, None)
            raise
        return keeper

    def _new_keeper(self, addr: Multiaddr) -> client.ReservationKeeper:
        """A keeper that has not begun. Raises AddressError, OSError: as `reserve`."""
        route = messages.route_of(addr)
        if route.target not in (None, self._network.local_peer):
            raise AddressError(f"{addr} leads to another peer")
        if route.relay in self._keepers:
            raise OSError(errno.EADDRINUSE, f"a reservation at {route.relay} is kept already")
        keeper = self._keepers[route.relay] = client.ReservationKeeper(
            self._network, route, self._now, self._changed
        )
        return keeper

    def announced(self, addrs: list[Multiaddr]) -> list[Multiaddr]:
        """`addrs`, where the addresses of held reservations replace those of relay listeners."""
        if not self._listeners:
            return addrs
        found: dict[Multiaddr, None] = {}
        for addr in addrs:
            if addr == messages.CIRCUIT:
                free = [keeper for relay, keeper in self._keepers.items() if relay not in self._listeners]
                found.update((each, None) for keeper in free for each in keeper.addrs)
            elif addr.is_relayed:
                keeper = self._keepers.get(messages.route_of(addr).relay)
                found.update((each, None) for each in (keeper.addrs if keeper is not None else ()))
            else:
                found[addr] = None
        return list(found)

    async def _listener_closed(self, listener: RelayListener) -> None:
        relay = next(relay for relay, each in self._listeners.items() if each is listener)
        del self._listeners[relay]
        if not self._listeners:
            self._network.remove_stream_handler(messages.STOP)
        if relay is not None and (keeper := self._keepers.pop(relay, None)) is not None:
            await keeper.close()

    async def close(self) -> None:
        """Stops keeping reservations. The owners of listeners close them. Idempotent."""
        keepers, self._keepers = self._keepers, {}
        for keeper in keepers.values():
            await keeper.close()

    # -- circuits that come --------------------------------------------------------------------

    async def serve_stop(self, stream: Stream) -> Stream | None:
        """The stream handler of the stop protocol. Returns: `stream` if it has become a connection."""
        relay = stream.conn
        if relay is None:
            raise IncompleteRead(b"", 1)
        stream.set_deadline(limits.RELAY_STREAM_TIMEOUT_S)
        request = await _read_stop(stream)
        status = (
            request if isinstance(request, messages.Status) else await self._offer(stream, relay, request)
        )
        if status is messages.Status.OK:
            return stream
        await stream.write(messages.Stop(messages.StopType.STATUS, status=status).encode())
        return None

    async def _offer(self, stream: Stream, relay: Conn, request: messages.Stop) -> messages.Status:
        """Offers the circuit to the listener there. OK: the listener has taken it; its `start` answers.

        Circuits are never nested: a relay that offers one within another one is refused.
        """
        listener = None if came_relayed(relay) else self._listener_behind(relay.remote_peer)
        if listener is None:
            return messages.Status.PERMISSION_DENIED
        if listener.is_paused:
            return messages.Status.RESOURCE_LIMIT_EXCEEDED
        answer = messages.Stop(messages.StopType.STATUS, status=messages.Status.OK).encode()
        conn = RelayedConn(stream, relay, request.limit is not None, request.peer, answer)
        return messages.Status.OK if await listener.offer(conn) else messages.Status.CONNECTION_FAILED

    def _listener_behind(self, relay: PeerId) -> RelayListener | None:
        """The listener for circuits from `relay`; None if we hold no reservation there."""
        keeper = self._keepers.get(relay)
        if keeper is None or not keeper.is_held:
            return None
        return self._listeners.get(relay) or self._listeners.get(None)


async def _read_stop(stream: Stream) -> messages.Stop | messages.Status:
    """The relay's request, or what is wrong with it."""
    try:
        request = messages.Stop.parse(await messages.read_body(stream))
    except (RemoteProtocolError, LimitExceeded, IncompleteRead) as error:
        logger.debug("%s: bad stop message: %s", stream.conn, error, extra=of_conn(stream.conn))
        return messages.Status.MALFORMED_MESSAGE
    if request.type is not messages.StopType.CONNECT:
        return messages.Status.UNEXPECTED_MESSAGE
    return request if request.peer is not None else messages.Status.MALFORMED_MESSAGE

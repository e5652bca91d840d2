"""Streams to peers that are connected to another worker of this machine.

Comes in: a worker, the id of its process in the fleet, requests. Goes out: streams that speak a protocol of
the peer. Their bytes go through a UNIX socket to the other worker, which passes them on without a task. The
protocol is agreed between the ends. Processes of other supervisors and machines are refused, or left to
pipes.py.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.codes import Undelivered
from p2pcore.errors import BusDown, LimitExceeded, NobodyListens, NotDelivered, P2PError
from p2pcore.fleet.opened import negotiated, open_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from p2pcore._fast.mux.stream import Stream as LinkStream
    from p2pcore.fleet.directory import Place
    from p2pcore.fleet.pipes import Pipes
    from p2pcore.interfaces import Network, Stream
    from p2pcore.values.peer_id import PeerId
    from p2pcore.workers.hub_client import Handle
    from p2pcore.workers.worker import Worker


class Opener:
    """The part of one worker. Call `start` before anything else.

    Args:
        network: the host's swarm. worker: of this process. process: its id in the fleet, one word.
    """

    def __init__(self, network: Network, worker: Worker, process: str) -> None:
        self._network = network
        self._hub = worker.hub
        self._links = worker.links
        self._process = process
        self._subscription: Handle | None = None
        self._numbers: dict[str, int] = {}  # of workers, by their ids in the fleet

    async def start(self) -> None:
        """From now on other workers can open streams to the peers of this one. Raises BusDown."""

        def answer(subject: str, data: bytes, answer: Callable[[bytes], None] | None) -> None:
            if answer is not None:
                answer(str(self._links.number).encode())

        self._links.serve(_kind(self._process), lambda request: open_for(self._network, request))
        self._subscription = await self._hub.subscribe(_kind(self._process), answer)

    def close(self) -> None:
        """No more streams are opened. Those that are open go on. Idempotent."""
        self._links.stop_serving(_kind(self._process))
        if self._subscription is not None:
            self._subscription.close()

    async def open(self, process: str, peer: PeerId, protocol: str, *, timeout_s: float) -> Stream:
        """A stream of `protocol` to `peer`, which is connected to another process of this machine.

        It is negotiated lazily, as `Host.new_stream` does: if the peer does not speak `protocol`, the first
        read raises ProtocolNotSupported. If the connection of the peer or its worker is lost, reads and
        writes raise StreamReset or ConnectionClosed. `stream.conn` is the link to the worker.

        Raises:
            NotDelivered: there is no stream. `may_have_arrived` is False, and `reason` says why:
                ELSEWHERE: `process` is not of this supervisor. NOT_CONNECTED: it has no connection to `peer`.
                GONE: it has just ended. REFUSED: the peer's connection takes no stream. TIMEOUT. BUS_DOWN:
                the supervisor has ended.
        """
        return await negotiated(
            self._open(process, peer, protocol), peer, protocol, timeout_s, lambda: self._hub.is_up
        )

    async def _open(self, process: str, peer: PeerId, protocol: str) -> LinkStream:
        number = await self._number(process, peer)
        return await self._links.open(number, _kind(process), peer=str(peer), protocol=protocol)

    async def _number(self, process: str, peer: PeerId) -> int:
        """The worker that is `process`. Workers of other supervisors do not hear the question."""
        number = self._numbers.get(process)
        if number is None:
            try:
                _, answer = await self._hub.ask("request", subject=_kind(process))
            except NobodyListens:
                raise NotDelivered(
                    peer, Undelivered.ELSEWHERE, detail=f"process {process} is not of this machine"
                ) from None
            except (BusDown, LimitExceeded) as error:
                reason = Undelivered.BUSY if isinstance(error, LimitExceeded) else Undelivered.BUS_DOWN
                raise NotDelivered(peer, reason, detail=str(error)) from error
            number = int(answer)
            if len(self._numbers) >= limits.MAX_WORKERS:  # most of them have ended
                self._numbers.clear()
            self._numbers[process] = number
        return number


async def open_anywhere(
    peer: PeerId,
    protocol: str,
    timeout_s: float,
    network: Network,
    where: Callable[[PeerId], Awaitable[tuple[Place, ...]]],
    opener: Opener | None,
    pipes: Pipes | None,
) -> Stream:
    """A stream to `peer` from this process, or else through another one. Raises NotDelivered: see Opener.

    Args:
        where: the processes that a peer is connected to.
        opener: to other workers; None: this process is no worker.
        pipes: to processes that `opener` does not reach; None: these are refused.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    failure = NotDelivered(peer, Undelivered.NOT_CONNECTED)
    try:
        async with asyncio.timeout_at(deadline):
            if network.conns_to_peer(peer):
                return await network.new_stream(peer, protocol, allow_limited=True)
            places = await where(peer)
    except TimeoutError:
        raise NotDelivered(peer, Undelivered.TIMEOUT) from None
    except (P2PError, OSError) as error:
        reason = Undelivered.BUS_DOWN if isinstance(error, BusDown) else Undelivered.REFUSED
        raise NotDelivered(peer, reason, detail=str(error)) from error
    for place in places:
        try:
            return await _open_at(place.process, peer, protocol, deadline, opener, pipes)
        except NotDelivered as error:
            failure = error
    try:
        raise failure
    finally:
        del failure  # else it keeps itself alive by its traceback


async def _open_at(
    process: str, peer: PeerId, protocol: str, deadline: float, opener: Opener | None, pipes: Pipes | None
) -> Stream:
    """A stream through `process`: by a socket between workers if there can be one. Raises NotDelivered."""
    now = asyncio.get_running_loop().time
    if opener is not None:
        try:
            return await opener.open(process, peer, protocol, timeout_s=deadline - now())
        except NotDelivered as error:
            if pipes is None or error.reason is not Undelivered.ELSEWHERE:
                raise
    if pipes is None:
        raise NotDelivered(peer, Undelivered.ELSEWHERE, detail="this process is no worker")
    return await pipes.open(process, peer, protocol, timeout_s=deadline - now())


def _kind(process: str) -> str:
    """The subject on the hub, and the kind of requests to it."""
    return f"fleet-open.{process}"

"""The workers of one supervisor as one relay: one ledger for all, and circuits from any worker to any other.

Comes in: requests of the relay in each worker. Goes out: permission from the supervisor, whose ledger holds
the limits of all together; and the stream to a target, spliced by the worker that has its connection. If the
supervisor does not answer, nothing is granted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from p2pcore import limits
from p2pcore.aio.pace import Pace
from p2pcore.errors import BusDown, LimitExceeded
from p2pcore.relay.ledger import Ledger, NotPermitted
from p2pcore.relay.messages import Status
from p2pcore.relay.options import RelayOptions
from p2pcore.values.peer_id import PeerId
from p2pcore.workers.frames import Header
from p2pcore.workers.hub import Hub, Member
from p2pcore.workers.hub_client import HubClient
from p2pcore.workers.links import Far, LinkRefused, Request, WorkerLinks

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream
    from p2pcore.relay.service import RelayService

_KIND = "relay-circuit"
_MINUTE_S = 60.0


class RelayDesk:
    """The supervisor's side. A worker is a holder, named by its number.

    Attributes:
        ledger: None until a worker is a relay.
    """

    def __init__(self, hub: Hub) -> None:
        self.ledger: Ledger | None = None
        for op in ("options", "reserve", "release", "open", "closed"):
            hub.add_service(f"relay-{op}", getattr(self, f"_{op}"))
        hub.on_left(self._left)

    def _options(self, member: Member, header: Header) -> Header:
        """A worker is a relay with these limits. Those of the newest worker hold for all."""
        options = RelayOptions(**header["numbers"])
        if self.ledger is None:
            self.ledger = Ledger(options)
        elif self.ledger.options != options:
            self.ledger.set_options(options)
        return {}

    def _reserve(self, member: Member, header: Header) -> Header:
        try:
            self._books.reserve(member.number, PeerId(header["peer"]), header["ip"], header["expire"])
        except NotPermitted as refused:
            return _told(refused)
        return {}

    def _release(self, member: Member, header: Header) -> Header:
        self._books.release(member.number, PeerId(header["peer"]))
        return {}

    def _open(self, member: Member, header: Header) -> Header:
        source, target = PeerId(header["source"]), PeerId(header["target"])
        try:
            holder = self._books.open(member.number, header["circuit"], source, header["ip"], target)
        except NotPermitted as refused:
            return _told(refused)
        return {"holder": holder}

    def _closed(self, member: Member, header: Header) -> Header:
        self._books.closed(member.number, header["circuit"], header["bytes"])
        return {}

    def _left(self, number: int) -> None:
        if self.ledger is not None:
            self.ledger.left(number)

    @property
    def _books(self) -> Ledger:
        assert self.ledger is not None, "a relay tells its options first"
        return self.ledger


def _told(refused: NotPermitted) -> Header:
    return {"status": int(refused.status), "reason": refused.reason}


class _Askers:
    """How often peers may make this worker ask the supervisor: as often as it would grant at most.

    So a flood of requests ends here, and does not keep the supervisor busy.
    """

    def __init__(self, per_min_per_peer: int, per_min_per_ip: int) -> None:
        self._peers = Pace[PeerId](per_min_per_peer, _MINUTE_S)
        self._ips = Pace[str](per_min_per_ip, _MINUTE_S)

    def check(self, peer: PeerId, ip: str, status: Status) -> None:
        """Counts a request. Raises NotPermitted with `status`."""
        now = asyncio.get_running_loop().time()
        if not self._peers.has_room(peer, now):
            raise NotPermitted(status, f"{peer} asks too often")
        if not self._ips.has_room(ip, now):
            raise NotPermitted(status, f"peers from {ip} ask too often")
        self._peers.spend(peer, now)
        self._ips.spend(ip, now)


class SharedBoard:
    """A worker's side; satisfies relay.ledger.Board."""

    def __init__(self, hub: HubClient, links: WorkerLinks, options: RelayOptions) -> None:
        self._hub = hub
        self._links = links
        self._reserving = _Askers(options.reservations_per_min_per_peer, options.reservations_per_min_per_ip)
        self._opening = _Askers(options.circuits_per_min_per_peer, options.circuits_per_min_per_ip)
        self._peers: set[PeerId] = set()  # whose reservations the supervisor may have counted for us
        self._circuits: set[int] = set()

    async def reserve(self, peer: PeerId, ip: str, expire: float) -> None:
        self._reserving.check(peer, ip, Status.RESERVATION_REFUSED)
        self._peers.add(peer)
        fields = {"peer": str(peer), "ip": ip, "expire": expire}
        await self._ask("relay-reserve", Status.RESERVATION_REFUSED, **fields)

    def release(self, peer: PeerId) -> None:
        if peer in self._peers:
            self._peers.discard(peer)
            self._hub.tell("relay-release", peer=str(peer))

    async def open(self, number: int, source: PeerId, ip: str, target: PeerId) -> Hashable:
        self._opening.check(source, ip, Status.RESOURCE_LIMIT_EXCEEDED)
        self._circuits.add(number)
        fields = {"circuit": number, "source": str(source), "ip": ip, "target": str(target)}
        answer = await self._ask("relay-open", Status.RESOURCE_LIMIT_EXCEEDED, **fields)
        holder: int = answer["holder"]
        return None if holder == self._links.number else holder

    def closed(self, number: int, num_bytes: int) -> None:
        if number in self._circuits:
            self._circuits.discard(number)
            self._hub.tell("relay-closed", circuit=number, bytes=num_bytes)

    async def open_stop(self, holder: Hashable, source: PeerId, target: PeerId) -> Stream:
        try:
            return await self._links.open(int(str(holder)), _KIND, source=str(source), target=str(target))
        except LinkRefused as refused:
            status = Status.__members__.get(refused.reason, Status.CONNECTION_FAILED)
            raise NotPermitted(status, refused) from refused
        except (BusDown, LimitExceeded, TimeoutError) as error:
            raise NotPermitted(Status.CONNECTION_FAILED, error) from error

    async def _ask(self, op: str, otherwise: Status, **fields: Any) -> Header:
        """Raises NotPermitted, with the status `otherwise` if there is no answer."""
        try:
            async with asyncio.timeout(limits.HUB_ANSWER_S):
                answer, _ = await self._hub.ask(op, **fields)
        except (BusDown, LimitExceeded, TimeoutError) as error:
            raise NotPermitted(otherwise, f"the supervisor does not answer: {error}") from error
        if "status" in answer:
            raise NotPermitted(Status(answer["status"]), answer["reason"])
        return answer


async def share_relay(service: RelayService, hub: HubClient, links: WorkerLinks) -> None:
    """Makes the relay of this worker one with those of the others. Raises BusDown."""

    async def serve(request: Request) -> Far:
        try:
            return Far(*await service.open_for(PeerId(request["source"]), PeerId(request["target"])))
        except NotPermitted as refused:
            raise LinkRefused(refused.status.name, refused.reason) from refused

    await hub.ask("relay-options", numbers=service.options.numbers)
    links.serve(_KIND, serve)
    service.share(SharedBoard(hub, links, service.options))

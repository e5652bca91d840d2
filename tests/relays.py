"""A relay and two hosts that connect through it, on the loopback; and relays and clients by hand.

Comes in: options. Goes out: hosts, all closed at the end; the answers to any bytes.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import worker_hosts
from hosts import BARE
from loop_thread import LoopThread
from p2pcore import DialError, Host, ListenError, Multiaddr, RelayOptions, Stream, Supervisor
from p2pcore.relay.messages import HOP, STOP, Hop, HopType, Reservation, Status, Stop, read_body

UNLIMITED = RelayOptions(circuit_s=0, circuit_bytes=0)


def behind(relay: Host) -> Multiaddr:
    """The address to listen on, to be reached through `relay`."""
    return relay.addrs_with_peer[0].encapsulate("/p2p-circuit")


class FourWorkers:
    """Relays of four workers, one for each set of options, in an event loop of their own, until `close`."""

    def __init__(self) -> None:
        self._thread = LoopThread()
        self._nodes: dict[RelayOptions, WorkersRelay] = {}

    def node(self, options: RelayOptions) -> Any:
        """A relay with these options: what tests ask a Host for."""
        if options not in self._nodes:
            supervisor = self._thread.started(worker_hosts.relaying, options, workers=4)
            self._nodes[options] = WorkersRelay(supervisor)
        return self._nodes[options]

    def close(self) -> None:
        for node in self._nodes.values():
            self._thread.result(node.supervisor.drain(0))
        self._thread.close()


class WorkersRelay:
    """A supervisor, as far as a relay's tests ask a Host."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.addrs_with_peer = supervisor.addrs_with_peer
        self.peer_id = supervisor.peer_id

    @property
    def relay_service(self) -> Any:
        return self.supervisor._relay.ledger

    @property
    def swarm(self) -> Any:
        pytest.skip("it looks into the relay's own swarm, and workers have several")


workers: FourWorkers | None = None
"""None: a relay is a host in this process. Set by the fixtures of tests that run on both."""


@asynccontextmanager
async def relay_host(options: RelayOptions = UNLIMITED, **more: Any) -> AsyncIterator[Host]:
    """A node that relays."""
    if workers is not None:
        yield workers.node(options)
        return
    async with Host(relay_service=options, **BARE | more) as host:
        yield host


@dataclass
class Relayed:
    """`target` listens behind `relay`; `dialer` has no connection yet."""

    relay: Host
    target: Host
    dialer: Host

    @property
    def addr(self) -> Multiaddr:
        """The address that `dialer` dials."""
        return self.target.addrs_with_peer[0]

    @property
    def service(self) -> Any:
        return self.relay.relay_service


@asynccontextmanager
async def relayed(
    options: RelayOptions = UNLIMITED,
    target: dict[str, Any] | None = None,
    dialer: dict[str, Any] | None = None,
) -> AsyncIterator[Relayed]:
    """Three hosts; by default they serve nothing and do not identify one another."""
    async with (
        relay_host(options) as relay,
        Host(**BARE | {"listen": [behind(relay)]} | (target or {})) as one,
        Host(**BARE | {"listen": []} | (dialer or {})) as two,
    ):
        yield Relayed(relay, one, two)


# -- by hand -----------------------------------------------------------------------------------


@asynccontextmanager
async def fake_relay(
    answer: Callable[[Stream, Hop], Awaitable[Any]], **more: Any
) -> AsyncIterator[tuple[Host, list[Hop]]]:
    """A host that answers hop streams with `answer`; and the requests that came."""
    asked: list[Hop] = []

    async def serve(stream: Stream) -> Stream | None:
        request = Hop.parse(await read_body(stream))
        asked.append(request)
        kept: Stream | None = await answer(stream, request)
        return kept

    async with Host(**BARE | more) as host:
        host.set_stream_handler(HOP, serve)
        yield host, asked


async def ask(host: Host, target: Any, protocol: str, data: bytes, end: bool = True) -> bytes:
    """Sends `data` on a stream of `protocol`; the body of the one message that comes back before the end."""
    stream = await host.new_stream(target, protocol, True)
    await stream.write(data)
    if end:
        await stream.close_write()
    body = await read_body(stream)
    assert await stream.read() == b""
    return body


async def ask_hop(host: Host, relay: Any, data: bytes | Hop, end: bool = True) -> Hop:
    """What a relay answers to `data` on a hop stream."""
    return Hop.parse(await ask(host, relay, HOP, data.encode() if isinstance(data, Hop) else data, end))


async def ask_stop(host: Host, target: Any, data: bytes | Stop, end: bool = True) -> Stop:
    """What a client answers to `data` on a stop stream."""
    return Stop.parse(await ask(host, target, STOP, data.encode() if isinstance(data, Stop) else data, end))


async def grant(stream: Stream, request: Hop) -> None:
    """A relay that grants every request, for an hour, without a voucher, as rust-libp2p does."""
    expire = int(time.time()) + 3600
    await stream.write(Hop(HopType.STATUS, reservation=Reservation(expire), status=Status.OK).encode())


def cause_of(error: DialError | ListenError) -> BaseException:
    """Why the only address failed."""
    ((_, cause),) = error.causes
    return cause


@asynccontextmanager
async def tasks_unchanged() -> AsyncIterator[None]:
    """Checks that the block leaves no new tasks."""
    before = asyncio.all_tasks()
    yield
    gc.collect()
    assert asyncio.all_tasks() == before

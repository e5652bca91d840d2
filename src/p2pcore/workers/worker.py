"""A worker process: makes its host, serves until it is told to end, then drains.

Comes in: the descriptor of the channel to the supervisor, which sends the settings. Goes out: an exit status,
0 after a drain. It drains when the supervisor tells it to, at SIGTERM, and when the supervisor is gone. A
second SIGTERM ends it at once. Never shows a traceback unless P2PCORE_DEBUG is set.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import pickle
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from multiprocessing import spawn
from typing import Any

from p2pcore import limits, options
from p2pcore.admin.status import describe, rss_bytes
from p2pcore.aio.descriptors import raise_limit
from p2pcore.errors import P2PError
from p2pcore.host import Host, run
from p2pcore.metrics.family import to_json
from p2pcore.resources.options import Limits
from p2pcore.swarm.options import ConnOptions
from p2pcore.transports.tcp.ports import TcpOptions
from p2pcore.transports.unix import UnixOptions
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.workers.channel import Channel, Message, receive_bytes
from p2pcore.workers.hub import Ticket
from p2pcore.workers.hub_client import HubClient
from p2pcore.workers.links import WorkerLinks
from p2pcore.workers.relays import share_relay
from p2pcore.workers.turn_proxy import HasRestartCell, TurnProxy

HostFactory = Callable[..., "Host | Awaitable[Host]"]
"""Each worker calls it as `factory(worker, *args)`. It returns a host that is not started."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that a worker gets at its start."""

    index: int
    key: bytes
    listen: tuple[str, ...]
    fds: tuple[int, ...]
    backlog: int
    drain_s: float
    ticket: Ticket
    heartbeat_s: float = limits.WORKER_HEARTBEAT_S
    limits: Limits | None = None  # of all workers together
    num_workers: int = 1


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The load of one worker.

    Attributes:
        index, pid: which worker. conns, streams: the numbers that are open now.
        cpu_s: seconds of CPU time so far. rss_bytes: resident memory.
        silent_s: 0, or for how many seconds the worker has given no sign of life: it was stopped, or its
            event loop is blocked. Then the other numbers are the last that it told, or 0.
    """

    index: int
    pid: int
    conns: int
    streams: int
    cpu_s: float
    rss_bytes: int
    silent_s: float = 0.0


class Worker:
    """The first argument of a factory.

    Attributes:
        index: 0 to the number of workers minus 1. A worker that replaces another has the same index.
        private_key: the identity that all workers share.
        listen: the addresses, with real ports; those behind relays only at index 0.
        sockets: a listening socket for each port or file.
        backlog: connections the kernel may queue for this worker.
        hub, links: to the other workers; see p2pcore.fleet.WorkersBus.
    """

    def __init__(self, settings: Settings, channel: Channel, hub: HubClient, links: WorkerLinks) -> None:
        self._channel = channel
        self.hub = hub
        self.links = links
        self.index = settings.index
        self.private_key = PrivateKey.from_protobuf(settings.key)
        self.listen = [Multiaddr(addr) for addr in settings.listen]
        self.sockets = [_inherited(fd) for fd in settings.fds]
        self.backlog = settings.backlog
        self._beside: list[AbstractAsyncContextManager[Any]] = []
        self._limits = settings.limits or Limits()
        self._num_workers = settings.num_workers

    @property
    def limits(self) -> Limits:
        """The part of this worker of the limits of all workers. Reads now what the machine allows."""
        return self._limits.resolved(workers=self._num_workers)

    def host(self, *, tcp: TcpOptions | None = None, unix: UnixOptions | None = None, **more: Any) -> Host:
        """A host with the identity, addresses and sockets of this worker.

        Args:
            tcp, unix: see Host. The worker itself sets their sockets, backlog and reuse_port.
            more: further arguments of Host. Without `limits` among them, the host has those of this worker.
        """
        files = tuple(sock for sock in self.sockets if sock.family == socket.AF_UNIX)
        ports = tuple(sock for sock in self.sockets if sock.family != socket.AF_UNIX)
        tcp, unix = options.given("tcp", tcp, TcpOptions), options.given("unix", unix, UnixOptions)
        conns = options.given("conns", more.get("conns"), ConnOptions)
        if conns.raise_descriptors:
            raise_limit()  # as the host does; our limits follow from it
        return Host(
            self.private_key,
            self.listen,
            tcp=replace(tcp, sockets=ports, reuse_port=True, backlog=self.backlog),
            unix=replace(unix, sockets=files, backlog=self.backlog),
            **{"limits": self.limits} | more,
        )

    def beside(self, context: AbstractAsyncContextManager[Any]) -> None:
        """Enters `context`, such as a Fleet, when the host has started, and leaves it when it has drained.

        The worker is ready once all contexts are entered, in the order of these calls. If one raises, the
        worker has failed. Supervisors whose workers have the same Fleet beside them restart by turns.
        """
        self._beside.append(context)

    def report(self, **fields: object) -> bool:
        """Sends `fields` to the supervisor, which makes an event of kind "report".

        Args:
            fields: values that JSON can hold.

        Returns: False if the report was dropped, because the supervisor reads too slowly.
        """
        return self._channel.send(event="report", fields=fields)


def _inherited(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    return sock


def main(fd: int) -> int:
    """Runs a worker to its end. Returns: its exit status."""
    sock = _inherited(fd)
    try:
        preparation, settings, work = pickle.loads(receive_bytes(sock))
    except EOFError:
        return 0
    return run(_work(sock, preparation, settings, work))


async def _work(sock: socket.socket, preparation: dict[str, Any], settings: Settings, work: bytes) -> int:
    channel = await Channel.over(sock)
    stop = _Stop(channel)
    hub, links = await _joined(settings)
    try:
        spawn.prepare(preparation)
        factory, args = pickle.loads(work)  # imports the user's modules, so it may fail like the factory
        worker = Worker(settings, channel, hub, links)
        made = factory(worker, *args)
        host: Host = await made if inspect.isawaitable(made) else made
        if host.relay_service is not None:
            await share_relay(host.relay_service, hub, links)
        await _serve(host, worker, settings, stop)
    except Exception as error:
        if os.environ.get("P2PCORE_DEBUG"):
            raise
        text = str(error) if isinstance(error, (P2PError, OSError)) else f"{type(error).__name__}: {error}"
        channel.send(event="failed", error=text)
        return 1
    finally:
        await links.close()
        hub.close()
        await channel.flush()
        stop.listening.cancel()
        channel.close()
    return 0


async def _joined(settings: Settings) -> tuple[HubClient, WorkerLinks]:
    """The connections to the other workers."""
    ticket = settings.ticket
    hub = await HubClient.connected(_inherited(ticket.hub_fd))
    peer = PrivateKey.from_protobuf(settings.key).peer_id()
    return hub, WorkerLinks(hub, _inherited(ticket.links_fd), ticket.number, peer)


async def _serve(host: Host, worker: Worker, settings: Settings, stop: _Stop) -> None:
    async with host, AsyncExitStack() as stack:
        for context in worker._beside:
            await stack.enter_async_context(context)
            if isinstance(context, HasRestartCell) and context.restart_cell is not None:
                stop.turn = TurnProxy(context.restart_cell, stop.channel)
        gc.freeze()  # the present objects stay for ever, so collections need not look at them
        stop.arm(host, settings.index)
        addrs = [str(addr) for addr in host.addrs_with_peer]
        stop.channel.send(event="ready", addrs=addrs, has_turn=stop.turn is not None)
        _beat(stop.channel, settings.heartbeat_s)
        order = await stop.ordered
        timeout_s = order.get("timeout_s", settings.drain_s)
        await host.drain(timeout_s, accept_queued=order.get("accept_queued", True), delay_s=0)
        _send_metrics(stop.channel, host)


def _beat(channel: Channel, seconds: float) -> None:
    """Tells the supervisor now and then that this event loop runs."""
    channel.send(event="alive")
    asyncio.get_running_loop().call_later(seconds, _beat, channel, seconds)


class _Stop:
    """Waits for a reason to end: an order of the supervisor, SIGTERM, or the end of the supervisor.

    At SIGTERM we ask the supervisor first. It closes its copies of our listening sockets before we drain.
    Only then can we empty their queues.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.turn: TurnProxy | None = None
        self.ordered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._host: Host | None = None
        self._index = -1
        self._is_told = False
        self.listening = asyncio.get_running_loop().create_task(self._listen())

    def arm(self, host: Host, index: int) -> None:
        self._host, self._index = host, index
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminated)

    def _terminated(self) -> None:
        if self._is_told or self.ordered.done():
            os._exit(128 + signal.SIGTERM)
        self._is_told = True
        if not self.channel.send(event="stopping"):
            self._order({})

    def _order(self, order: Message) -> None:
        if not self.ordered.done():
            self.ordered.set_result(order)

    async def _listen(self) -> None:
        while (message := await self.channel.receive()) is not None:
            if message["do"] == "drain":
                self._order(message)
            elif message["do"] == "turn" and self.turn is not None:
                self.turn.heard(message)
            elif message["do"] == "metrics" and self._host is not None:
                _send_metrics(self.channel, self._host)
            elif message["do"] == "status" and self._host is not None:
                details = describe(self._host) if message.get("with_details") else None
                self.channel.send(event="status", fields=_status(self._host, self._index), details=details)
        self._order({})


def _send_metrics(channel: Channel, host: Host) -> None:
    channel.send(event="metrics", families=to_json(host.metrics.families()))


def _status(host: Host, index: int) -> dict[str, int | float]:
    return {
        "index": index,
        "pid": os.getpid(),
        "conns": host.swarm.num_conns,
        "streams": sum(conn.num_streams for conn in host.swarm.conns()),
        "cpu_s": time.process_time(),
        "rss_bytes": rss_bytes(),
    }


__all__ = ["HostFactory", "Settings", "Worker", "WorkerStatus", "main"]

"""Starts workers, restarts those that die, replaces and drains them.

Comes in: a factory of hosts, addresses, method calls, signals. Goes out: the addresses of the node, events.
Keeps one listening socket for each worker and address open while workers end and start. Never accepts a
connection itself, and never forks: each worker is a fresh interpreter.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from p2pcore import limits, options
from p2pcore.admin.status import about, total
from p2pcore.aio.callbacks import RAISED
from p2pcore.errors import ListenError, LocalProtocolError, WorkerFailed
from p2pcore.host import run
from p2pcore.limits import MAX_DRAIN_DELAY_S, MAX_WORKERS
from p2pcore.manet.accept_errors import Backoff
from p2pcore.metrics.health import Health
from p2pcore.metrics.server import MetricsServer
from p2pcore.resources.options import Limits
from p2pcore.values.keys import PrivateKey
from p2pcore.values.multiaddr import Multiaddr
from p2pcore.values.peer_id import PeerId
from p2pcore.workers.channel import Message
from p2pcore.workers.fleet_metrics import FleetMetrics
from p2pcore.workers.hub import Hub
from p2pcore.workers.ports import Ports, close_all
from p2pcore.workers.process import Process, pickled
from p2pcore.workers.relays import RelayDesk
from p2pcore.workers.turns import RestartTurn
from p2pcore.workers.worker import HostFactory, Settings, WorkerStatus

logger = logging.getLogger("p2pcore.workers")


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """Something that happened to a worker. Each "started" is followed by one "exited".

    Attributes:
        kind: "started" (it serves), "draining" (it was told to drain), "exited", "report" (Worker.report).
        index, pid: which worker.
        status: for "exited": the exit status, negative for a signal.
        restart_s: for "exited": seconds until another worker starts in its place; None: no other starts.
        fields: for "report": its arguments.
    """

    kind: str
    index: int
    pid: int
    status: int | None = None
    restart_s: float | None = None
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Slot:
    """The place of one worker."""

    index: int
    backoff: Backoff
    sockets: list[socket.socket]
    process: Process | None = None
    is_stopped: bool = False
    keeping: asyncio.Task[None] | None = None


class Supervisor:
    """One node in `workers` processes. An async context manager: it drains them at its end.

    Args:
        factory: makes the host of a worker. It is called as `factory(worker, *args)` with a `Worker`, and
            usually returns `worker.host(...)`. It must be a function at the top level of a module that can be
            imported.
        args: further arguments of `factory`; they must be picklable.
        workers: the number of processes, 1 to limits.MAX_WORKERS.
        listen: addresses to listen on. Port 0 takes a free port, the same for all workers. Behind a relay,
            the first worker listens, and holds the reservation.
        private_key: the identity that all workers share; by default a new one.
        drain_s: seconds that a worker has to drain, if a method gets no `timeout_s`.
        drain_delay_s: seconds in which only `is_draining` has changed, before all workers drain. Workers that
            are replaced drain at once.
        backlog: connections the kernel may queue for each worker.
        unix_mode: permissions of the files of /unix addresses; None: by the umask.
        limits: of all workers together: `max_conns`, `max_streams` and `memory` are divided among them. The
            limits of peers and subnets hold in each worker. See Limits.
        max_blocked_s: seconds that the event loop of a worker may be blocked before the worker is replaced;
            0: for ever. A worker that was stopped (SIGSTOP) is replaced sooner, one under a debugger never.
        on_event: called with each WorkerEvent. It must be quick and must not raise.

    Attributes:
        on_state: called with "draining", "restarting" and "serving" when that begins. It must be quick and
            must not raise.
        hub: carries messages between the workers; see Hub.
        metrics: the metrics of all workers together; see FleetMetrics.
        alive, ready: the checks behind /healthz and /readyz of a MetricsServer.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value. The message names it.
        ValueError: `factory` or `args` cannot be pickled, or there is no address.
        LocalProtocolError: this is a frozen program (PyInstaller).
    """

    def __init__(
        self,
        factory: HostFactory,
        args: Sequence[Any] = (),
        *,
        workers: int,
        listen: Sequence[Multiaddr | str] = ("/ip4/127.0.0.1/tcp/0",),
        private_key: PrivateKey | None = None,
        drain_s: float = limits.DRAIN_TIMEOUT_S,
        drain_delay_s: float = 0.0,
        backlog: int = limits.LISTEN_BACKLOG,
        unix_mode: int | None = None,
        limits: Limits | None = None,
        max_blocked_s: float = limits.WORKER_BLOCKED_S,
        on_event: Callable[[WorkerEvent], None] | None = None,
    ) -> None:
        if getattr(sys, "frozen", False):  # sys.executable is the program itself: it would start again
            raise LocalProtocolError("worker processes need a Python interpreter; a frozen program has none")
        options.whole("workers", workers, 1, MAX_WORKERS)
        options.items("listen", listen, "addresses", Multiaddr, str)
        options.items("args", args, "arguments", object)
        if private_key is not None:
            options.instance("private_key", private_key, PrivateKey, is_secret=True)
        options.seconds("drain_s", drain_s, or_zero=True)
        options.seconds("drain_delay_s", drain_delay_s, or_zero=True, most=MAX_DRAIN_DELAY_S)
        options.whole("backlog", backlog)
        options.seconds("max_blocked_s", max_blocked_s, or_zero=True)
        if unix_mode is not None:
            options.file_mode("unix_mode", unix_mode)
        if on_event is not None:
            options.function("on_event", on_event)
        if not listen:
            raise ValueError("workers share addresses to listen on: give at least one")
        self.private_key = private_key or PrivateKey.generate()
        self._work = pickled(factory, args)
        self._num_workers = workers
        self._listen = [Multiaddr(addr) for addr in listen]
        self._drain_s = drain_s
        self._drain_delay_s = drain_delay_s
        self._backlog = backlog
        self._unix_mode = unix_mode
        self._limits = options.given("limits", limits, Limits)
        self._limits.resolved(workers=workers)  # finds a contradiction here, not in each worker
        self._max_blocked_s = max_blocked_s
        self._on_event = on_event
        self.on_state: Callable[[str], None] = lambda state: None
        self._ports: Ports | None = None
        self._slots: list[_Slot] = []
        self._processes: set[Process] = set()
        self._addrs: list[Multiaddr] = []
        self._restarting = asyncio.Lock()
        self._is_ending = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self.hub = Hub()
        self._relay = RelayDesk(self.hub)
        self._turns = RestartTurn(lambda: self._processes)
        self.metrics = FleetMetrics(lambda: self._processes, lambda: self.hub.num_dropped)
        self.alive = Health("alive", {"workers": self._none_alive})
        self.ready = Health("ready", {"draining": self._drains, "workers": self._none_serves})

    # -- what it is ----------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerId:
        """The id that all workers share."""
        return self.private_key.peer_id()

    @property
    def addrs_with_peer(self) -> list[Multiaddr]:
        """The addresses that peers dial, with real ports and /p2p/ID. Empty before `start`.

        The addresses of the interfaces replace a wildcard.
        """
        return list(self._addrs)

    @property
    def is_draining(self) -> bool:
        """True from the moment all workers are to end: send new peers elsewhere."""
        return self._is_ending

    def _drains(self) -> str | None:
        return "all workers are to end" if self.is_draining else None

    def _none_serves(self) -> str | None:
        return None if self.pids else "no worker serves"

    def _none_alive(self) -> str | None:
        """What is wrong with the workers; nothing before the first one serves."""
        serving = [each for each in self._processes if each.is_ready and not each.ended.done()]
        if self._addrs and not serving:
            return "no worker lives"
        silent = [str(each.index) for each in serving if each.silent_s > limits.HEALTH_HANG_S]
        return f"no sign of life of worker {', '.join(silent)}" if silent else None

    @property
    def listen_failures(self) -> list[tuple[Multiaddr, Exception]]:
        """The addresses that could not be bound, each with its error."""
        return [] if self._ports is None else list(self._ports.failures)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that serve now, including those that drain."""
        return [each.pid for each in self._processes if each.is_ready and not each.ended.done()]

    async def status(self) -> list[WorkerStatus]:
        """The status of each worker now, by index. A worker that does not serve now is left out.

        One that does not answer within limits.WORKER_ANSWER_S has `silent_s`.
        """
        current = [slot.process for slot in self._slots if slot.process is not None]
        answers = await asyncio.gather(*(process.status() for process in current))
        return [answer for answer in answers if answer is not None]

    def summary(self) -> str:
        """What it does, in one line."""
        return f"serving with {len(self.pids)} workers"

    async def describe(self) -> dict[str, Any]:
        """The status of the node, for its admin socket; see p2pcore.admin.describe.

        Returns: the same with `kind` "supervisor" and with sums, and `workers`: the status of each worker
            that serves, with `index` and `silent_s`.
        """
        current = [slot.process for slot in self._slots if slot.process is not None]
        answers = await asyncio.gather(*(process.status(with_details=True) for process in current))
        workers = [
            process.details | {"index": answer.index, "pid": answer.pid, "silent_s": answer.silent_s}
            for process, answer in zip(current, answers, strict=True)
            if answer is not None
        ]
        told = about("supervisor", str(self.peer_id), self.is_draining, self._addrs)
        return told | total(workers) | {"workers": workers}

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Binds the addresses, starts all workers, returns when all serve.

        Raises:
            ListenError: no address could be bound.
            WorkerFailed: a worker could not start. The others are ended.
        """
        self._ports = Ports(self._listen, self._backlog, self._unix_mode)
        for addr, error in self._ports.failures:
            logger.warning("cannot listen on %s: %s", addr, error)
        try:
            for index in range(self._num_workers):
                backoff = Backoff(limits.WORKER_BACKOFF_MIN_S, limits.WORKER_BACKOFF_MAX_S)
                self._slots.append(_Slot(index, backoff, self._ports.open_sockets()))
            started = [await self._start_process(slot) for slot in self._slots]
            await asyncio.gather(*(self._serving(process) for process in started))
        except BaseException:
            for process in self._processes:
                process.kill()
                if process.is_ready:
                    self._tell_end_of(process)
            await self._drained()
            raise
        for slot, process in zip(self._slots, started, strict=True):
            slot.process = process
            slot.keeping = asyncio.get_running_loop().create_task(self._keep(slot))
        self._addrs = [Multiaddr(addr) for addr in started[0].addrs]

    async def drain(self, timeout_s: float | None = None) -> None:
        """Drains every worker, and waits until all have ended. After `timeout_s`, kills the rest.

        First `is_draining` becomes True, and `drain_delay_s` passes. `kill` cuts that short.
        """
        timeout_s = self._grace(timeout_s)
        self._is_ending = True
        self._turns.close()
        await self._delay()
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()  # a restart that is running
        if self._ports is not None:
            self._ports.close_listening()
        for slot in self._slots:
            self._release(slot)
        for process in self._processes:
            self._drain_process(process, timeout_s, True)
        await self._wait_or_kill(list(self._processes), timeout_s)
        await self._drained()

    async def _delay(self) -> None:
        """Waits `drain_delay_s`, the first time and while there are workers."""
        self.on_state("draining")
        delay_s, self._drain_delay_s = self._drain_delay_s, 0.0
        living = [process.ended for process in self._processes if not process.ended.done()]
        if delay_s and living:
            await asyncio.wait(living, timeout=delay_s, return_when=asyncio.ALL_COMPLETED)

    def _grace(self, timeout_s: float | None) -> float:
        """Seconds that workers have to drain. Raises TypeError, ValueError: it is not a valid time."""
        if timeout_s is None:
            return self._drain_s
        options.seconds("timeout_s", timeout_s, or_zero=True)
        return timeout_s

    def kill(self) -> None:
        """Kills every worker. `drain` and `wait` return soon after."""
        self._is_ending = True
        self._turns.close()
        for process in self._processes:
            process.kill()

    async def wait(self) -> None:
        """Returns when no worker is left and no new one will start."""
        while self._slots:
            keeping = [slot.keeping for slot in self._slots if slot.keeping and not slot.keeping.done()]
            ending = [process.ended for process in self._processes if not process.ended.done()]
            if not keeping and not ending:
                return
            left: list[asyncio.Future[Any]] = [*keeping, *ending]
            await asyncio.wait(left)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()

    # -- changes -------------------------------------------------------------------------------

    async def restart(self, timeout_s: float | None = None) -> None:
        """Replaces the workers one after another. The new worker serves before the old one drains.

        Both accept connections from the same sockets, so no connection is refused. If a new worker cannot
        start, the old one goes on. If workers have a Fleet beside them (`Worker.beside`) that reaches other
        supervisors, it waits first until none of these restarts.

        Raises:
            WorkerFailed: a new worker could not start.
            TimeoutError: other supervisors restarted, or the bus was away, for limits.FLEET_TURN_TIMEOUT_S;
                or the workers are to end.
        """
        timeout_s = self._grace(timeout_s)
        async with self._restarting, self._turns.taken(timeout_s + limits.WORKER_EXIT_S):
            self.on_state("restarting")
            try:
                for slot in self._slots:
                    if not slot.is_stopped and not self._is_ending:
                        await self._replace(slot, timeout_s)
            finally:
                if not self._is_ending:
                    self.on_state("serving")

    async def stop_worker(self, index: int, timeout_s: float | None = None) -> None:
        """Drains one worker and starts no other in its place. New connections go to the other workers."""
        slot = self._slots[index]
        timeout_s = self._grace(timeout_s)
        process = self._retire(slot, timeout_s)
        if process is not None:
            await self._wait_or_kill([process], timeout_s)

    # -- one worker ----------------------------------------------------------------------------

    async def _start_process(self, slot: _Slot) -> Process:
        assert self._ports is not None
        if not slot.sockets:
            slot.sockets = self._ports.open_sockets()
        fds = tuple(sock.fileno() for sock in slot.sockets)
        relayed = () if slot.index else self._ports.relayed
        listen = tuple(map(str, (*self._ports.addrs, *relayed)))
        key = self.private_key.to_protobuf()
        ticket, theirs = await self.hub.seat()
        settings = Settings(
            slot.index,
            key,
            listen,
            fds,
            self._backlog,
            self._drain_s,
            ticket,
            limits.WORKER_HEARTBEAT_S,
            limits=self._limits,
            num_workers=self._num_workers,
        )
        sockets = [*slot.sockets, *theirs]
        try:
            process = await Process.start(settings, self._work, sockets, self._heard, self._max_blocked_s)
        finally:
            close_all(theirs)
        self._processes.add(process)
        if self._is_ending:
            process.kill()
        return process

    async def _serving(self, process: Process) -> None:
        """Returns once `process` serves; it may have ended since. Raises WorkerFailed: it never served."""
        try:
            await asyncio.wait([process.ready], timeout=limits.WORKER_START_TIMEOUT_S)
        except asyncio.CancelledError:
            process.kill()
            raise
        if process.is_ready:
            self._tell("started", process)
            return
        late = not process.ready.done()
        process.kill()
        status = await process.ended
        self._processes.discard(process)
        why = f"it did not serve within {limits.WORKER_START_TIMEOUT_S:g} s" if late else process.error
        raise WorkerFailed(process.index, status, why or f"it ended with status {status}")

    async def _keep(self, slot: _Slot) -> None:
        """Keeps a worker in `slot` until the slot is stopped."""
        while not slot.is_stopped and not self._is_ending:
            process = slot.process
            if process is None:
                await self._try_to_start(slot)
                continue
            status = await process.ended
            if slot.process is process:  # it was not replaced
                slot.process = None
                self._processes.discard(process)
                await self._pause(slot, process, status)

    async def _try_to_start(self, slot: _Slot) -> None:
        try:
            process = await self._start_process(slot)
            await self._serving(process)
        except (WorkerFailed, OSError) as error:
            delay = self._next_pause(slot)
            logger.warning("%s; another attempt in %g s", error, delay)
            await asyncio.sleep(delay)
            return
        if slot.process is None:
            slot.process = process
        else:  # `restart` has put another worker there in the meantime
            self._tell_end_of(process)
            self._drain_process(process, self._drain_s, False)

    async def _pause(self, slot: _Slot, process: Process, status: int) -> None:
        """Reports the end of a worker, and waits before the next one starts."""
        if slot.is_stopped or self._is_ending:
            self._tell("exited", process, status)
            return
        now = asyncio.get_running_loop().time()
        if now - process.ready_at >= limits.WORKER_STEADY_S:
            slot.backoff.reset()
        delay = self._next_pause(slot)
        what = f"was ended by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        why = f" ({process.error})" if process.error else ""
        logger.warning(
            "worker %d (pid %d) %s%s; another starts in %g s", slot.index, process.pid, what, why, delay
        )
        self._tell("exited", process, status, delay)
        await asyncio.sleep(delay)

    def _next_pause(self, slot: _Slot) -> float:
        """Seconds until the next start. If it is long, closes the sockets: no peer waits in their queues."""
        delay = slot.backoff.next()
        if delay > limits.WORKER_HOLD_QUEUE_S:
            close_all(slot.sockets)
        return delay

    async def _replace(self, slot: _Slot, timeout_s: float) -> None:
        if slot.process is None:  # it died: a new worker starts there anyway
            return
        process = await self._start_process(slot)
        await self._serving(process)
        if process.ended.done():
            self._gone(process)
            status = process.ended.result()
            why = process.error or f"it ended with status {status}"
            raise WorkerFailed(process.index, status, why)
        try:
            await self._turns.hold()
        except BaseException:  # the old one goes on
            self._tell_end_of(process)
            self._drain_process(process, timeout_s, False)
            raise
        old, slot.process = slot.process, process
        if slot.is_stopped or self._is_ending:  # `_keep` has ended
            self._tell_end_of(process)
            self._drain_process(process, timeout_s, True)
        if old is None:
            return
        self._tell_end_of(old)
        self._drain_process(old, timeout_s, False)
        await self._wait_or_kill([old], timeout_s)

    def _tell_end_of(self, process: Process) -> None:
        """Reports the end of a worker that `_keep` does not watch, when it comes."""
        process.ended.add_done_callback(lambda _: self._gone(process))

    def _gone(self, process: Process) -> None:
        self._processes.discard(process)
        self._tell("exited", process, process.ended.result())

    def _retire(self, slot: _Slot, timeout_s: float) -> Process | None:
        """Stops `slot` and drains its worker. The worker empties the queues of its sockets."""
        slot.is_stopped = True
        self._release(slot)
        if slot.process is not None:
            self._drain_process(slot.process, timeout_s, True)
        return slot.process

    def _release(self, slot: _Slot) -> None:
        """Closes our copies of the sockets of `slot`. Starts no worker there."""
        close_all(slot.sockets)
        if slot.keeping is not None and slot.process is None:
            slot.keeping.cancel()

    def _drain_process(self, process: Process, timeout_s: float, accept_queued: bool) -> None:
        if not process.is_draining and not process.ended.done():
            self._tell("draining", process)
            process.drain(timeout_s, accept_queued)

    async def _wait_or_kill(self, processes: list[Process], timeout_s: float) -> None:
        ends = [process.ended for process in processes]
        if not ends:
            return
        _, late = await asyncio.wait(ends, timeout=timeout_s + limits.WORKER_EXIT_S)
        if late:
            for process in processes:
                process.kill()
            await asyncio.wait(ends)

    async def _drained(self) -> None:
        """Returns when all workers have ended, then closes the ports. Workers must have been told to end."""
        if self._processes:
            await asyncio.wait([process.ended for process in self._processes])
        tasks = [slot.keeping for slot in self._slots if slot.keeping is not None]
        for slot in self._slots:
            close_all(slot.sockets)
        if tasks:
            await asyncio.wait(tasks, timeout=limits.WORKER_EXIT_S)
        if self._ports is not None:
            self._ports.close()
        self.hub.close()

    # -- messages of workers -------------------------------------------------------------------

    def _heard(self, process: Process, message: Message) -> None:
        event = message["event"]
        if event == "report":
            self._tell("report", process, fields=message["fields"])
        elif event == "stopping":
            self._asked_to_stop(process)
        elif event == "ready":
            self.metrics.started(process)
        elif event == "turn":
            self._turns.heard(message)
        elif event == "metrics":
            self.metrics.heard(process, message["families"])

    def _asked_to_stop(self, process: Process) -> None:
        """A worker got SIGTERM: drains it. No other starts in its place, unless one is there already."""
        for slot in self._slots:
            if slot.process is process:
                self._retire(slot, self._drain_s)
                return
        self._drain_process(process, self._drain_s, False)

    def _tell(
        self,
        kind: str,
        process: Process,
        status: int | None = None,
        restart_s: float | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        if self._on_event is not None:
            try:
                self._on_event(WorkerEvent(kind, process.index, process.pid, status, restart_s, fields or {}))
            except RAISED:
                logger.exception("on_event raised")

    # -- signals -------------------------------------------------------------------------------

    async def run(self, on_start: Callable[[Supervisor], None] | None = None) -> None:
        """Starts the workers, handles signals, returns when no worker is left.

        SIGINT and SIGTERM drain; a second one kills. SIGHUP replaces the workers one after another.

        Args:
            on_start: called once, when all workers serve.

        Raises: the errors of `start`, and any error of `on_start`.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.drain_or_kill)
        loop.add_signal_handler(signal.SIGHUP, self._begin, self._restart_quietly)
        try:
            await self._run(on_start)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def _run(self, on_start: Callable[[Supervisor], None] | None) -> None:
        try:
            await self.start()
        except WorkerFailed:
            if not self._is_ending:
                raise
        try:
            if on_start is not None and not self._is_ending:
                on_start(self)
            await self.wait()
        finally:
            await self.drain()
            while self._tasks:
                await asyncio.wait(self._tasks)

    def drain_or_kill(self) -> None:
        """The first call begins to drain and does not wait; a second call kills. For signal handlers."""
        if self._is_ending:
            self.kill()
        else:
            self._is_ending = True
            self._begin(self.drain)

    def _begin(self, work: Callable[[], Awaitable[None]]) -> None:
        async def owned() -> None:
            await work()

        task = asyncio.get_running_loop().create_task(owned())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _restart_quietly(self) -> None:
        try:
            await self.restart()
        except (WorkerFailed, ListenError, OSError) as error:
            logger.warning("cannot restart the workers: %s", error)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def serve(
    factory: HostFactory,
    args: Sequence[Any] = (),
    *,
    workers: int,
    metrics: str | None = None,
    on_start: Callable[[Supervisor], None] | None = None,
    **options: Any,
) -> None:
    """Runs `workers` processes until SIGINT or SIGTERM, then drains them. A program needs nothing else.

    Call it under `if __name__ == "__main__":`, because workers import the program again.

    Args:
        metrics: the address of a MetricsServer for all workers together, such as "127.0.0.1:9464". It answers
            from before the workers start until they have ended. None: there is none.
        on_start: called once, when all workers serve. It may print `supervisor.addrs_with_peer`.
        options: further arguments of Supervisor.

    Raises:
        TypeError, ValueError: `metrics` is no such address.
        ListenError: `metrics` cannot be used. The errors of Supervisor and Supervisor.start.
    """

    async def main() -> None:
        supervisor = Supervisor(factory, args, workers=workers, **options)
        async with nullcontext() if metrics is None else MetricsServer(supervisor, metrics):
            await supervisor.run(on_start)

    run(main())

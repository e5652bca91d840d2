"""`p2pcore listen --workers N`: runs the same node in several processes.

Comes in: the options of the command. Goes out: the addresses, once; with -v also workers and connections when
they start or end. Only the supervisor writes to standard output. Workers send it what to show.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import p2pcore
from p2pcore import DrainOptions, Host, Multiaddr, Supervisor, Worker, WorkerEvent
from p2pcore.admin import AdminServer, Systemd
from p2pcore.cli.limits_shown import show_at_signal
from p2pcore.cli.logs import set_up_logs
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.observed import observed
from p2pcore.cli.operating_options import OperatingOptions
from p2pcore.cli.output import Output, OutputFailed, errors_never_wait, finish, log_level, prepare
from p2pcore.cli.serving_options import ServingOptions
from p2pcore.cli.shown import Shown, show_addrs
from p2pcore.cli.tunnel import Serve, serve_all


def make_host(
    worker: Worker,
    node: NodeOptions,
    serving: ServingOptions,
    perf: bool,
    served: tuple[Serve, ...],
    refuse_after_s: float,
    verbosity: int,
) -> Host:
    """The factory. It runs in each worker."""
    prepare()
    errors_never_wait()
    log_level(verbosity)
    set_up_logs(serving.log_format, serving.access_log)
    settings = node.settings() | serving.settings(node, worker.listen)
    drain = DrainOptions(refuse_after_s=refuse_after_s)
    host = worker.host(perf=perf, echo=True, drain=drain, **settings)
    serve_all(host, served)

    def show(line: str, **fields: object) -> None:
        worker.report(line=line, **fields)

    show_at_signal(host, show)
    if verbosity > 0:
        host.notify(Shown(show))
    return host


def listen(
    workers: int,
    addrs: Sequence[Multiaddr | str],
    node: NodeOptions,
    serving: ServingOptions,
    perf: bool,
    served: tuple[Serve, ...],
    operating: OperatingOptions,
    verbosity: int,
    output: Output,
) -> None:
    """Serves until a signal comes.

    Raises: CommandFailed, OSError: a file cannot be used. OutputFailed. The errors of Supervisor.start.
    """
    node.settings(), serving.settings(node, ())  # reports a bad file once, before the workers start
    show = _Show(output, verbosity > 0)
    supervisor = Supervisor(
        make_host,
        (node, serving, perf, served, operating.refuse_after_s, verbosity),
        workers=workers,
        listen=addrs,
        private_key=node.private_key(),
        drain_s=operating.drain_s,
        drain_delay_s=operating.drain_delay_s,
        unix_mode=serving.unix_mode,
        limits=serving.limits,
        on_event=show.event,
    )
    show.supervisor = supervisor

    async def serve() -> None:
        output.never_wait(show.output_failed)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell_workers, supervisor)
        await _run(supervisor, operating, show.started)
        if show.failed is None:  # a signal ended it: exit now, so that another signal cannot kill us
            finish()
            os._exit(0)

    p2pcore.run(observed(serve(), supervisor, serving.metrics))
    if show.failed is not None:
        raise show.failed


async def _run(
    supervisor: Supervisor, operating: OperatingOptions, on_start: Callable[[Supervisor], None]
) -> None:
    """Runs `supervisor` to its end, with its admin socket and reports to systemd."""
    systemd = Systemd(supervisor, operating.stop_s)

    def started(supervisor: Supervisor) -> None:
        on_start(supervisor)
        systemd.start()

    admin = nullcontext() if operating.admin is None else AdminServer(supervisor, operating.admin)
    async with admin:
        try:
            await supervisor.run(started)
        finally:
            await systemd.close()


def _tell_workers(supervisor: Supervisor) -> None:
    """Each worker shows its limits."""
    for pid in supervisor.pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)


class _Show:
    """Shows the addresses, then events. Events that came earlier wait."""

    def __init__(self, output: Output, with_workers: bool) -> None:
        self._output = output
        self._with_workers = with_workers
        self._early: list[WorkerEvent] | None = []
        self.supervisor: Supervisor | None = None
        self.failed: OutputFailed | None = None

    def started(self, supervisor: Supervisor) -> None:
        show_addrs(supervisor.addrs_with_peer, self._output.show)
        early, self._early = self._early or [], None
        for event in early:
            self.event(event)

    def event(self, event: WorkerEvent) -> None:
        if self._early is not None:
            self._early.append(event)
        else:
            self._show(event)

    def output_failed(self, error: OutputFailed) -> None:
        """Nobody can read the output any more: the node ends."""
        self.failed = error
        assert self.supervisor is not None
        self.supervisor.drain_or_kill()

    def _show(self, event: WorkerEvent) -> None:
        if event.kind == "report":
            self._output.show(event.fields.pop("line"), **event.fields, worker=event.index)
            return
        if not self._with_workers:
            return
        fields: dict[str, Any] = {"event": f"worker_{event.kind}", "worker": event.index, "pid": event.pid}
        if event.status is not None:
            fields |= {"status": event.status, "restart_s": event.restart_s}
        self._output.show(_line(event), **fields)


def _line(event: WorkerEvent) -> str:
    text = f"* worker {event.index} (pid {event.pid}) {event.kind}"
    if event.status is not None:
        text += f" with status {event.status}"
    if event.restart_s is not None:
        text += f", another starts in {event.restart_s:g} s"
    return text

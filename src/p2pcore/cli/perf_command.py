"""`p2pcore perf`: measures throughput to a peer and back.

Comes in: an address, two sizes. Goes out: the rate of each second, a summary, and on a terminal a progress
bar. A byte counts when the stream has taken it, so the last bytes of an upload may still be on the way. The
summary measures until the peer has answered.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import click

from p2pcore import Multiaddr, PerfRun
from p2pcore.cli.node import dialled, run
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.output import Output
from p2pcore.cli.params import SizeType, target_options

PROTOCOL = "/perf/1.0.0"
SECOND = 1.0
REDRAW_S = 0.1
Draw = Callable[[int, int], None]


@click.command()
@target_options
@click.option("-u", "--upload", type=SizeType(), default="64MiB", show_default=True, help="Bytes to send.")
@click.option("-d", "--download", type=SizeType(), default="64MiB", show_default=True, help="Bytes to get.")
def command(
    target: Multiaddr, any_peer: bool, node: NodeOptions, as_json: bool, upload: int, download: int
) -> None:
    """Measure throughput to TARGET, a multiaddr ending with /p2p/PEER_ID: upload, then download.

    The peer must serve /perf/1.0.0: `p2pcore listen --perf` does.
    """
    if not upload and not download:
        message = "nothing to do: --upload and --download are both 0"
        raise click.UsageError(message, click.get_current_context())
    run(_perf(target, any_peer, node, Output(as_json), upload, download))


async def _perf(
    target: Multiaddr, any_peer: bool, node: NodeOptions, output: Output, upload: int, download: int
) -> None:
    async with dialled(target, any_peer, node) as (host, conn):
        measured = PerfRun(await host.new_stream(conn, PROTOCOL), upload, download)
        with _bar(upload, download, output) as draw:
            watching = asyncio.create_task(_watch(measured, output, draw))
            running = asyncio.create_task(measured.run())
            try:
                await asyncio.wait((watching, running), return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    watching.result()  # raises: it ends only if standard output is broken
                await running
                draw(measured.sent, measured.received)
            finally:
                watching.cancel()
                running.cancel()
                await asyncio.gather(watching, running, return_exceptions=True)
        show_summary(measured, str(conn.remote_peer), output)


async def _watch(measured: PerfRun, output: Output, draw: Draw) -> None:
    """Draws the progress bar, and shows the rate of each second; never returns."""
    began = last = perf_counter()
    before = {"upload": 0, "download": 0}
    while True:
        await asyncio.sleep(REDRAW_S)
        draw(measured.sent, measured.received)
        now = perf_counter()
        if now - last < SECOND:
            continue
        counts = {"upload": measured.sent, "download": measured.received}
        for direction, count in counts.items():
            if count > before[direction]:
                _show_second(direction, now - began, count - before[direction], now - last, output)
        last, before = now, counts


def _show_second(direction: str, at: float, count: int, seconds: float, output: Output) -> None:
    rate = count / seconds / 1e6
    output.show(
        f"{at:6.1f} s  {direction:<8}  {rate:8.1f} MB/s",
        event="interval",
        direction=direction,
        at_s=at,
        bytes=count,
        seconds=seconds,
        MB_s=rate,
    )


def show_summary(measured: PerfRun, peer: str, output: Output) -> None:
    """Shows the result of each direction."""
    for direction, count, seconds in (
        ("upload", measured.sent, measured.upload_s),
        ("download", measured.received, measured.download_s),
    ):
        if not count or seconds is None:
            continue
        rate = count / max(seconds, 1e-9) / 1e6
        output.show(
            f"{direction}: {count} bytes in {seconds:.3f} s = {rate:.1f} MB/s",
            event="summary",
            direction=direction,
            peer=peer,
            bytes=count,
            seconds=seconds,
            MB_s=rate,
        )


@contextmanager
def _bar(upload: int, download: int, output: Output) -> Iterator[Draw]:
    """A progress bar on standard error, if that is a terminal. Result lines appear above it."""
    if output.is_json or not sys.stderr.isatty():
        yield lambda sent, received: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    parts = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*parts, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as progress:
        tasks = [progress.add_task(name, total=total) for name, total in (("up", upload), ("down", download))]

        def draw(sent: int, received: int) -> None:
            progress.update(tasks[0], completed=sent)
            progress.update(tasks[1], completed=received)

        yield draw

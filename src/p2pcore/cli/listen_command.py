"""`p2pcore listen`: a node that serves ping, identify and echo until it is told to end.

Comes in: addresses, a key. Goes out: the multiaddrs to dial, and with -v each connection that comes and goes.
At the first signal it drains for as long as --drain says; the second one ends it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import click

from p2pcore import Host, Multiaddr
from p2pcore.cli.node import run
from p2pcore.cli.node_options import NodeOptions, node_options
from p2pcore.cli.output import Output, OutputFailed, log_level
from p2pcore.cli.params import AddressType, SecondsType, WorkersType, json_option
from p2pcore.cli.serving_options import ServingOptions, serving_options
from p2pcore.cli.shown import Shown, show_addrs

DEFAULT = "/ip4/127.0.0.1/tcp/0"
WORKERS_DRAIN_S = 10.0
"""--drain with --workers: what most programs that answer requests need for those under way."""


@click.command()
@click.option(
    "--addr",
    "addrs",
    multiple=True,
    type=AddressType(),
    metavar="MULTIADDR",
    help=f"Where to listen; may be repeated. Default: {DEFAULT}, a free port for this machine alone.",
)
@node_options
@serving_options
@click.option("--perf", is_flag=True, help="Serve perf too: peers may then use all the bandwidth there is.")
@click.option(
    "--workers",
    type=WorkersType(),
    metavar="N",
    help="Serve in N processes that share the ports and the identity, and are restarted where they die.",
)
@click.option(
    "--drain",
    "drain_s",
    type=SecondsType(),
    metavar="SECONDS",
    help="How long streams may go on after Ctrl-C or SIGTERM, and with --workers when one is replaced. "
    f"Default: {WORKERS_DRAIN_S:g} with --workers, else 0.",
)
@click.option("-v", "--verbose", count=True, help="Show connections; -vv and -vvv also what is logged.")
@json_option
def command(
    addrs: tuple[Multiaddr, ...],
    node: NodeOptions,
    serving: ServingOptions,
    perf: bool,
    workers: int | None,
    drain_s: float | None,
    verbose: int,
    as_json: bool,
) -> None:
    """Run a node that serves ping, identify and echo, until Ctrl-C.

    Prints each of its multiaddrs, with /p2p/PEER_ID, on a line of its own.
    """
    serving.check(addrs, is_alone=workers is None)
    log_level(verbose)
    if workers is not None:
        from p2pcore.cli.listen_workers import listen

        grace_s = WORKERS_DRAIN_S if drain_s is None else drain_s
        listen(workers, addrs or (DEFAULT,), node, serving, perf, grace_s, verbose, Output(as_json))
        return
    host = node.host(listen=addrs or (DEFAULT,), perf=perf, echo=True, **serving.settings(node, addrs))
    run(_serve(host, Output(as_json), verbose > 0, drain_s or 0), interrupted=0, grace_s=drain_s or 0)


async def _serve(host: Host, output: Output, with_conns: bool, drain_s: float) -> None:
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if with_conns:
        host.notify(Shown(_or_fail(output, failed)))
    async with host:
        show_addrs(host.addrs_with_peer, output)
        try:
            await failed
        except asyncio.CancelledError:  # a signal
            if drain_s:
                await host.drain(drain_s)
            raise


def _or_fail(output: Output, failed: asyncio.Future[None]) -> Callable[..., None]:
    """`output.show` for a notifiee, which must not raise: the failure goes to `failed`."""

    def show(line: str, **fields: Any) -> None:
        try:
            output.show(line, **fields)
        except OutputFailed as error:
            if not failed.done():
                failed.set_exception(error)

    return show

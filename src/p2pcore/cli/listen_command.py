"""`p2pcore listen`: runs a node that serves ping, identify and echo until a signal comes.

Comes in: addresses, a key. Goes out: the multiaddrs to dial, and with -v each connection that opens or ends.
At the first signal it drains for as long as --drain says. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import click

from p2pcore import Host, Multiaddr, PeerId
from p2pcore.cli.limits_shown import show_at_signal, show_limits
from p2pcore.cli.logs import set_up_logs
from p2pcore.cli.node import run
from p2pcore.cli.node_options import NodeOptions, node_options
from p2pcore.cli.observed import observed
from p2pcore.cli.output import Output, OutputFailed, error_line, log_level
from p2pcore.cli.params import AddressType, SecondsType, WorkersType, json_option
from p2pcore.cli.serving_options import ServingOptions, serving_options
from p2pcore.cli.shown import Shown, show_addrs
from p2pcore.swarm.events import AddrsChanged, Subscription

DEFAULT = "/ip4/127.0.0.1/tcp/0"
DRAIN_S = 10.0
"""The default of --drain: enough for most programs to answer the requests they have."""


@click.command()
@click.option(
    "--addr",
    "addrs",
    multiple=True,
    type=AddressType(),
    metavar="MULTIADDR",
    help=f"Address to listen on; may be repeated. Default: {DEFAULT}, a free port that only this machine "
    "can reach.",
)
@node_options
@serving_options
@click.option("--perf", is_flag=True, help="Serve perf too. Peers may then use all your bandwidth.")
@click.option(
    "--workers",
    type=WorkersType(),
    metavar="N",
    help="Serve in N processes that share the ports and the identity. A process that dies is restarted.",
)
@click.option(
    "--drain",
    "drain_s",
    type=SecondsType(),
    metavar="SECONDS",
    default=DRAIN_S,
    help="How long streams may go on after Ctrl-C or SIGTERM, and when a worker is replaced. "
    f"Default: {DRAIN_S:g}.",
)
@click.option(
    "-v",
    "--verbose",
    count=True,
    help="Show connections, and limits at the end; -vv and -vvv also show the log.",
)
@json_option
def command(
    addrs: tuple[Multiaddr, ...],
    node: NodeOptions,
    serving: ServingOptions,
    perf: bool,
    workers: int | None,
    drain_s: float,
    verbose: int,
    as_json: bool,
) -> None:
    """Run a node that serves ping, identify and echo, until Ctrl-C.

    Prints each of its multiaddrs, with /p2p/PEER_ID, on a line of its own. An address behind a relay is
    printed when the relay has reserved a place. At SIGUSR1 it prints how much of each limit is used.
    """
    serving.check(addrs, is_alone=workers is None)
    log_level(verbose)
    set_up_logs(serving.log_format, serving.access_log)
    if workers is not None:
        from p2pcore.cli.listen_workers import listen

        listen(workers, addrs or (DEFAULT,), node, serving, perf, drain_s, verbose, Output(as_json))
        return
    host = node.host(
        listen=addrs or (DEFAULT,),
        perf=perf,
        echo=True,
        limits=serving.limits,
        **serving.settings(node, addrs),
    )
    serve = _serve(host, Output(as_json), verbose > 0, drain_s)
    run(observed(serve, host, serving.metrics), interrupted=0, grace_s=drain_s)


async def _serve(host: Host, output: Output, with_conns: bool, drain_s: float) -> None:
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def output_failed(error: OutputFailed) -> None:
        if not failed.done():
            failed.set_exception(error)

    output.never_wait(output_failed)
    show_at_signal(host, output.show)
    if with_conns:
        host.notify(Shown(output.show))
    async with host:
        reserved = asyncio.create_task(_show_reserved(host, host.events(AddrsChanged), output.show))
        try:
            await failed
        except asyncio.CancelledError:  # a signal
            if drain_s:
                await host.drain(drain_s)
            raise
        finally:
            if with_conns:
                show_limits(host, output.show)
            reserved.cancel()


async def _show_reserved(host: Host, changes: Subscription, show: Callable[..., None]) -> None:
    """Shows the addresses of `host`, then each address behind a relay when the relay has reserved a place."""
    shown = set(host.addrs_with_peer)
    show_addrs(host.addrs_with_peer, show)
    reserved = set(map(_relay_of, shown))
    for result in host.listen_results:
        if result.error is None and result.addr.is_relayed and _relay_of(result.addr) not in reserved:
            error_line(f"p2pcore: waiting until the relay reserves a place for {result.addr}")
    async for _ in changes:
        new = [addr for addr in host.addrs_with_peer if addr.is_relayed and addr not in shown]
        shown.update(new)
        show_addrs(new, show)


def _relay_of(addr: Multiaddr) -> PeerId | None:
    """The relay in `addr`; None: it has none."""
    through = addr.decapsulate_code("p2p-circuit") if addr.is_relayed else None
    return None if through is None else through.peer_id

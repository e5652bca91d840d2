"""`p2pcore listen`: runs a node that serves ping, identify and echo until a signal comes.

Comes in: addresses, a key. Goes out: the multiaddrs to dial, and with -v each connection that opens or ends.
At the first signal it drains for as long as --drain says. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypeVar

import click

from p2pcore import Host, Multiaddr, PeerId
from p2pcore.admin import AdminServer, Systemd
from p2pcore.cli.configured import ConfiguredCommand
from p2pcore.cli.limits_shown import show_at_signal, show_limits
from p2pcore.cli.logs import set_up_logs
from p2pcore.cli.node import run
from p2pcore.cli.node_options import NodeOptions, node_options
from p2pcore.cli.observed import observed
from p2pcore.cli.operating_options import OperatingOptions, config_option, operating_options
from p2pcore.cli.output import Output, OutputFailed, error_line, log_level
from p2pcore.cli.params import AddressType, WorkersType, json_option
from p2pcore.cli.serving_options import ServingOptions, serving_options
from p2pcore.cli.shown import Shown, show_addrs
from p2pcore.cli.tunnel import Serve, ServeType, serve_all
from p2pcore.swarm.events import AddrsChanged
from p2pcore.swarm.subscriptions import Subscription

DEFAULT = "/ip4/127.0.0.1/tcp/0"

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--addr",
        "addrs",
        multiple=True,
        type=AddressType(),
        metavar="MULTIADDR",
        help=f"Address to listen on; may be repeated. Default: {DEFAULT}, a free port that only this machine "
        "can reach.",
    ),
    node_options,
    serving_options,
    click.option("--perf", is_flag=True, help="Serve perf too. Peers may then use all your bandwidth."),
    click.option(
        "--serve",
        "served",
        multiple=True,
        type=ServeType(),
        metavar="PROTOCOL=ADDRESS",
        help="Serve PROTOCOL with connections to ADDRESS: HOST:PORT, PORT or unix:PATH; may be repeated. The "
        "other end is `p2pcore forward` or `p2pcore connect`.",
    ),
    click.option(
        "--workers",
        type=WorkersType(),
        metavar="N",
        help="Serve in N processes that share the ports and the identity. A process that dies is restarted.",
    ),
    operating_options,
    click.option(
        "-v",
        "--verbose",
        count=True,
        help="Show connections, and limits at the end; -vv and -vvv also show the log.",
    ),
    config_option,
)


def listen_options(function: F) -> F:
    """Adds the options of a node. `listen` and `config` have them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command(cls=ConfiguredCommand)
@listen_options
@json_option
def command(
    addrs: tuple[Multiaddr, ...],
    node: NodeOptions,
    serving: ServingOptions,
    perf: bool,
    served: tuple[Serve, ...],
    workers: int | None,
    operating: OperatingOptions,
    verbose: int,
    as_json: bool,
) -> None:
    """Run a node that serves ping, identify and echo, until Ctrl-C.

    Prints each of its multiaddrs, with /p2p/PEER_ID, on a line of its own. An address behind a relay is
    printed when the relay has reserved a place. At SIGUSR1 it prints how much of each limit is used.

    Each option can also stand in a file (--config), and in a variable: P2PCORE_MAX_CONNS is --max-conns.
    """
    serving.check(addrs)
    log_level(verbose)
    set_up_logs(serving.log_format, serving.access_log)
    if workers is not None:
        from p2pcore.cli.listen_workers import listen

        listen(workers, addrs or (DEFAULT,), node, serving, perf, served, operating, verbose, Output(as_json))
        return
    host = node.host(
        listen=addrs or (DEFAULT,),
        perf=perf,
        echo=True,
        limits=serving.limits,
        drain=operating.drain,
        **serving.settings(node, addrs),
    )
    serve_all(host, served)
    serve = _serve(host, Output(as_json), verbose > 0, operating)
    run(observed(serve, host, serving.metrics), interrupted=0, grace_s=operating.stop_s)


@asynccontextmanager
async def _operated(host: Host, operating: OperatingOptions) -> AsyncIterator[None]:
    """The admin socket of `host`, and reports to systemd. Raises OSError: the socket cannot be made."""
    admin = nullcontext() if operating.admin is None else AdminServer(host, operating.admin)
    async with admin, Systemd(host, operating.stop_s):
        yield


async def _serve(host: Host, output: Output, with_conns: bool, operating: OperatingOptions) -> None:
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def output_failed(error: OutputFailed) -> None:
        if not failed.done():
            failed.set_exception(error)

    output.never_wait(output_failed)
    show_at_signal(host, output.show)
    if with_conns:
        host.notify(Shown(output.show))
    async with host, _operated(host, operating):
        reserved = asyncio.create_task(_show_reserved(host, host.events(AddrsChanged), output.show))
        try:
            await failed
        except asyncio.CancelledError:  # a signal
            if operating.stop_s:
                await host.drain(operating.drain_s)
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

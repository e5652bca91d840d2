"""`p2pcore connect`: like netcat, with a protocol of a peer.

Comes in: standard input. Goes out: what the peer sends, on standard output. The end of standard input ends
our half of the stream, and no more: what the peer still sends comes out.
"""

from __future__ import annotations

import time

import click

from p2pcore import Multiaddr
from p2pcore.cli.exchange import Exchange
from p2pcore.cli.node import dialled, run
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.output import Output
from p2pcore.cli.params import ProtocolType, allow_limited_option, target_options


@click.command()
@target_options
@click.argument("protocol", type=ProtocolType())
@allow_limited_option
def command(
    target: Multiaddr, any_peer: bool, node: NodeOptions, as_json: bool, protocol: str, allow_limited: bool
) -> None:
    """Connect standard input and output to PROTOCOL of TARGET, a multiaddr ending with /p2p/PEER_ID.

    Ends when both sides have ended; with status 1 if the peer does not speak PROTOCOL or resets the stream.
    With --json, what the peer sends is counted but not printed.
    """
    run(_connect(target, any_peer, node, Output(as_json), protocol, allow_limited))


async def _connect(
    target: Multiaddr, any_peer: bool, node: NodeOptions, output: Output, protocol: str, allow_limited: bool
) -> None:
    async with dialled(target, any_peer, node) as (host, conn):
        began = time.perf_counter()
        stream = await host.new_stream(conn, protocol, allow_limited)
        exchange = Exchange(stream, is_shown=not output.is_json)
        await exchange.run()
        if output.is_json:
            output.show(
                "",
                event="summary",
                peer=str(conn.remote_peer),
                protocol=protocol,
                sent=exchange.sent,
                received=exchange.received,
                seconds=time.perf_counter() - began,
            )

"""`p2pcore forward`: a TCP port or UNIX socket of this machine that leads to a protocol of a peer.

Comes in: connections of local programs. Goes out: a stream to the peer for each. Half-closes and resets pass
in both directions. If the connection to the peer is lost, the next stream dials again.
"""

from __future__ import annotations

import asyncio

import click

from p2pcore import Multiaddr, Stream
from p2pcore.cli.node import dialled, run
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.output import Output
from p2pcore.cli.params import ProtocolType, target_options
from p2pcore.cli.tunnel import Forwarding, Local, LocalType


@click.command()
@click.argument("local", type=LocalType())
@target_options
@click.argument("protocol", type=ProtocolType())
@click.option(
    "--allow-limited",
    is_flag=True,
    help="Use the connection even if a relay limits its bytes or its time.",
)
def command(
    local: Local,
    target: Multiaddr,
    any_peer: bool,
    node: NodeOptions,
    as_json: bool,
    protocol: str,
    allow_limited: bool,
) -> None:
    """Forward connections to LOCAL to PROTOCOL of TARGET, a multiaddr ending with /p2p/PEER_ID.

    LOCAL is HOST:PORT, PORT (of 127.0.0.1; 0 takes a free one) or unix:PATH. Prints the address that it
    listens on. The other end is `p2pcore listen --serve PROTOCOL=ADDRESS`, or a program with that protocol.
    """
    run(_forward(local, target, any_peer, node, Output(as_json), protocol, allow_limited), interrupted=0)


async def _forward(
    local: Local,
    target: Multiaddr,
    any_peer: bool,
    node: NodeOptions,
    output: Output,
    protocol: str,
    allow_limited: bool,
) -> None:
    async with dialled(target, any_peer, node) as (host, conn):
        peer = target if target.peer_id is not None else target.with_p2p(conn.remote_peer)

        async def open_stream() -> Stream:
            return await host.new_stream(peer, protocol, allow_limited)

        async with Forwarding(local, open_stream) as forwarding:
            output.show(
                str(forwarding.local), event="forwarding", local=str(forwarding.local), peer=str(peer)
            )
            await asyncio.Event().wait()

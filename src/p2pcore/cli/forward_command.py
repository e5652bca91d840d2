"""`p2pcore forward`: a TCP port or UNIX socket of this machine that leads to a protocol of a peer.

Comes in: connections of local programs. Goes out: a stream to the peer for each. Half-closes and resets pass
in both directions. If the connection to the peer is lost, the next stream dials again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import click

from p2pcore import Conn, Host, Multiaddr, P2PError, Stream
from p2pcore.cli.node import dialled, run
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.output import Output, error_line
from p2pcore.cli.params import ProtocolType, allow_limited_option, target_options
from p2pcore.cli.tunnel import LocalType, shown
from p2pcore.streams import forward


@click.command()
@click.argument("local", type=LocalType())
@target_options
@click.argument("protocol", type=ProtocolType())
@allow_limited_option
def command(
    local: Multiaddr,
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
    local: Multiaddr,
    target: Multiaddr,
    any_peer: bool,
    node: NodeOptions,
    output: Output,
    protocol: str,
    allow_limited: bool,
) -> None:
    async with dialled(target, any_peer, node) as (host, conn):
        await _warn_of_another_protocol(host, conn, protocol)
        peer = target if target.peer_id is not None else target.with_p2p(conn.remote_peer)

        async def open_stream() -> Stream:
            return await host.new_stream(peer, protocol, allow_limited)

        async with forward(local, open_stream) as port:
            assert port.local is not None
            where = shown(port.local)
            output.show(where, event="forwarding", local=where, peer=str(peer))
            await asyncio.Event().wait()


async def _warn_of_another_protocol(host: Host, conn: Conn, protocol: str) -> None:
    """Warns if the peer does not say that it speaks `protocol`. Streams show it later, by a reset."""
    with suppress(P2PError, OSError):
        if protocol not in (await host.identify(conn)).protocols:
            error_line(f"p2pcore forward: warning: the peer does not say that it speaks {protocol}")

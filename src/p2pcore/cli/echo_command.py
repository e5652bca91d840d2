"""`p2pcore echo`: sends standard input to a peer, and prints what comes back.

Comes in: bytes, with or without an end. Goes out: the same bytes, or with --json their count and the time. A
digest compares every byte that comes back. At most one read in each direction is in memory.
"""

from __future__ import annotations

import hashlib
import time

import click

from p2pcore import Multiaddr, Stream
from p2pcore.cli.exchange import Exchange
from p2pcore.cli.failure import CommandFailed
from p2pcore.cli.node import dialled, run
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.output import Output
from p2pcore.cli.params import allow_limited_option, target_options

PROTOCOL = "/echo/1.0.0"


@click.command()
@target_options
@allow_limited_option
def command(target: Multiaddr, any_peer: bool, node: NodeOptions, as_json: bool, allow_limited: bool) -> None:
    """Send standard input to TARGET, a multiaddr ending with /p2p/PEER_ID; print what comes back.

    With --json, what comes back is compared and counted but not printed.
    """
    run(_echo(target, any_peer, node, Output(as_json), allow_limited))


async def _echo(
    target: Multiaddr, any_peer: bool, node: NodeOptions, output: Output, allow_limited: bool
) -> None:
    async with dialled(target, any_peer, node) as (host, conn):
        began = time.perf_counter()
        stream = await host.new_stream(conn, PROTOCOL, allow_limited)
        exchange = Echo(stream, is_shown=not output.is_json)
        await exchange.run()
        exchange.check()
        if output.is_json:
            seconds = time.perf_counter() - began
            output.show("", event="summary", peer=str(conn.remote_peer), bytes=exchange.sent, seconds=seconds)


class Echo(Exchange):
    """An exchange in which what comes back must be what was sent."""

    def __init__(self, stream: Stream, is_shown: bool) -> None:
        super().__init__(stream, is_shown)
        self._there = hashlib.sha256()
        self._back = hashlib.sha256()

    def sending(self, data: bytes) -> None:
        self._there.update(data)

    def receiving(self, data: bytes) -> None:
        self._back.update(data)
        if self.received > self.sent:
            raise CommandFailed("more bytes came back than were sent")

    def check(self) -> None:
        """Raises CommandFailed: the bytes that came back are not the bytes that were sent."""
        if self.received < self.sent:
            raise CommandFailed(f"only {self.received} of {self.sent} bytes came back")
        if self._there.digest() != self._back.digest():
            raise CommandFailed("the bytes that came back are not the bytes that were sent")

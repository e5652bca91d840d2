"""`p2pcore echo`: sends standard input to a peer, and prints what comes back.

Comes in: bytes, with or without an end. Goes out: the same bytes, or with --json their count and the time. A
digest compares every byte that comes back. At most one read in each direction is in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time

import click

from p2pcore import Multiaddr, Stream
from p2pcore.cli.failure import CommandFailed
from p2pcore.cli.node import Background, dialled, run
from p2pcore.cli.node_options import NodeOptions
from p2pcore.cli.output import Output, OutputFailed
from p2pcore.cli.params import target_options

PROTOCOL = "/echo/1.0.0"
CHUNK_BYTES = 64 * 1024
INPUT, OUTPUT = 0, 1


@click.command()
@target_options
@click.option(
    "--allow-limited",
    is_flag=True,
    help="Use the connection even if a relay limits its bytes or its time.",
)
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
        exchange = Exchange(stream, is_shown=not output.is_json)
        await exchange.run()
        exchange.check()
        if output.is_json:
            seconds = time.perf_counter() - began
            output.show("", event="summary", peer=str(conn.remote_peer), bytes=exchange.sent, seconds=seconds)


class Exchange:
    """Sends and receives on one echo stream at the same time.

    Attributes:
        sent, received: the number of bytes so far.
    """

    def __init__(self, stream: Stream, is_shown: bool) -> None:
        self._stream = stream
        self._is_shown = is_shown
        self._there = hashlib.sha256()
        self._back = hashlib.sha256()
        self.sent = 0
        self.received = 0

    async def run(self) -> None:
        """Returns when both sides have ended. If it fails or is cancelled, the stream is reset."""
        sending = asyncio.create_task(self._send())
        receiving = asyncio.create_task(self._receive())
        both = (sending, receiving)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
            for task in both:
                if task.done():
                    task.result()
        except BaseException:
            self._stream.reset()
            raise
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        await self._stream.close()

    async def _send(self) -> None:
        source = Background()
        while data := await source.call(lambda: os.read(INPUT, CHUNK_BYTES)):
            self._there.update(data)
            self.sent += len(data)
            await self._stream.write(data)
        await self._stream.close_write()

    async def _receive(self) -> None:
        sink = Background()
        while data := await self._stream.read(CHUNK_BYTES):
            self._back.update(data)
            self.received += len(data)
            if self.received > self.sent:
                raise CommandFailed("more bytes came back than were sent")
            if self._is_shown:
                await sink.call(lambda data=data: _write_all(data))  # type: ignore[misc]

    def check(self) -> None:
        """Raises CommandFailed: the bytes that came back are not the bytes that were sent."""
        if self.received < self.sent:
            raise CommandFailed(f"only {self.received} of {self.sent} bytes came back")
        if self._there.digest() != self._back.digest():
            raise CommandFailed("the bytes that came back are not the bytes that were sent")


def _write_all(data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(OUTPUT, rest) :]
    except OSError as error:
        raise OutputFailed from error

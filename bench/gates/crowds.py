"""Works of a listener with many peers, over TCP on the loopback. Counts have both sides of a connection."""

from __future__ import annotations

from collections.abc import Iterator

from crowd import ECHO, Stranger, echo, there_and_back
from gates.conns import Hosts, Watch
from p2pcore import Host, PrivateKey, Stream, tune_loop

MESSAGE_BYTES = 32
NUM_CONNS = 64
"""Connections of `Busy`: so many that one turn of the loop has many messages."""


class NewPeers:
    """Peers that the listener has never seen. Each is identified both ways, echoes once, and goes."""

    def __init__(self, security: str, count: int) -> None:
        self.server = Host(PrivateKey.from_seed(bytes(32)), security=(security,), echo=True)
        self._watch = Watch()
        self.server.notify(self._watch)
        keys = (PrivateKey.from_seed(number.to_bytes(32, "big")) for number in range(1, count + 1))
        self._peers = [Stranger(security, key) for key in keys]
        self._next: Iterator[Stranger] = iter(self._peers)

    async def open(self) -> None:
        """All are up, so that no count has the start of a host."""
        tune_loop(spin_s=0)  # whether a loop looks for an answer before it sleeps depends on the clock
        await self.server.start()
        self._target = self.server.addrs_with_peer[0]
        for peer in self._peers:
            await peer.__aenter__()

    async def once(self) -> None:
        """One peer, until both sides have forgotten the connection."""
        conn = await next(self._next).meet(self._target)
        await echo(conn, MESSAGE_BYTES)
        await conn.close()
        await self._watch.until(0)

    async def close(self) -> None:
        """Closes all."""
        for peer in self._peers:
            await peer.__aexit__()
        await self.server.close()


class Busy(Hosts):
    """Messages on NUM_CONNS connections with a stream each."""

    async def open(self) -> None:
        """Starts both, and connects."""
        await super().open()
        self.streams: list[Stream] = []
        for _ in range(NUM_CONNS):
            conn = await self.dialer.swarm.dial_addr(self._target)
            self.streams.append(await conn.new_stream(ECHO))
            await there_and_back(self.streams[-1], bytes(MESSAGE_BYTES))

    async def once(self) -> None:
        """A message there and back on each of them, all at once."""
        for stream in self.streams:
            await stream.write(bytes(MESSAGE_BYTES))
        for stream in self.streams:
            await stream.read_exactly(MESSAGE_BYTES)

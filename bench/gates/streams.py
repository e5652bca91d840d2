"""Works of two ends of one connection over a socket pair, both on the same event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any

from p2pcore import KeyType, PrivateKey
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.chain.multistream import HEADER
from p2pcore._fast.chain.wire import Wire
from p2pcore._fast.crypto.pnet import PnetLayer
from p2pcore._fast.crypto.secure import NoiseChannel
from p2pcore._fast.loop.ledger import Ledger
from p2pcore._fast.mux.mplex import MplexSession
from p2pcore._fast.mux.stream import Stream
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.interfaces import SecureTransport
from p2pcore.security.noise import NoiseTransport
from p2pcore.security.tls import TlsTransport

KEY_A, KEY_B = bytes(range(32)), bytes(range(32, 64))
NONCE_A, NONCE_B = bytes(range(24)), bytes(range(24, 48))
MUXERS = ("/yamux/1.0.0",)


class Pair:
    """Two wires."""

    a: Wire
    b: Wire

    async def connect(self) -> tuple[Mailbox, Mailbox]:
        """Makes them; returns what is on top of each."""
        near, far = socket.socketpair()
        self.a, self.b = await _wire(near), await _wire(far)
        assert self.a.mailbox is not None
        assert self.b.mailbox is not None
        return self.a.mailbox, self.b.mailbox

    async def close(self) -> None:
        """Closes both."""
        self.a.abort()
        self.b.abort()
        await self.a.wait_closed()
        await self.b.wait_closed()


async def _wire(sock: socket.socket) -> Wire:
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    wire = Wire(loop)
    await loop.connect_accepted_socket(lambda: wire, sock)  # type: ignore[type-var]
    return wire


async def by_noise(a: Mailbox, b: Mailbox) -> None:
    """Noise channels below both."""
    a.insert(NoiseChannel(KEY_A, KEY_B))
    b.insert(NoiseChannel(KEY_B, KEY_A))


async def by_tls(a: Mailbox, b: Mailbox) -> None:
    """TLS channels below both."""
    client, server = (TlsTransport(PrivateKey.generate(KeyType.ED25519)) for _ in range(2))
    await asyncio.gather(client.secure_outbound(a, None, ()), server.secure_inbound(b, None, ()))


Secure = Callable[[Mailbox, Mailbox], Coroutine[Any, Any, None]]


class Records(Pair):
    """Records from one mailbox to the other."""

    def __init__(self, size: int, secure: Secure) -> None:
        self._data = bytes(size)
        self._secure = secure

    async def open(self) -> None:
        """Makes the channels."""
        self._from, self._to = await self.connect()
        await self._secure(self._from, self._to)

    async def once(self) -> None:
        """One write, read whole."""
        self._from.write(self._data)
        await self._to.read_exactly(len(self._data))


class Private(Pair):
    """A private network's layer alone, between two mailboxes."""

    def __init__(self, size: int) -> None:
        self._data = bytes(size)

    async def open(self) -> None:
        """Makes the layers, and lets them agree."""
        self._from, self._to = await self.connect()
        self._from.insert(PnetLayer(KEY_A, NONCE_A))
        self._to.insert(PnetLayer(KEY_A, NONCE_B))
        self._from.write(HEADER)
        await self._to.read_exactly(len(HEADER))

    async def once(self) -> None:
        """One write, read whole."""
        self._from.write(self._data)
        await self._to.read_exactly(len(self._data))


class Streams(Pair):
    """One stream through the whole chain."""

    session: type[YamuxSession | MplexSession] = YamuxSession
    near: Stream
    far: Stream

    def __init__(self, size: int) -> None:
        self._data = bytes(size)

    async def open(self) -> None:
        """Makes the chain and opens the stream."""
        a, b = await self.connect()
        a.insert(NoiseChannel(KEY_A, KEY_B))
        b.insert(NoiseChannel(KEY_B, KEY_A))
        client, server = self.session(True), self.session(False)
        a.replace(client)
        b.replace(server)
        self._sessions = client, server
        self.near = await client.open_stream()
        await self.near.write(b"x")
        self.far = await server.accept_stream()
        await self.far.read_exactly(1)

    async def once(self) -> None:
        """One write, read whole."""
        await self.near.write(self._data)
        await self.far.read_exactly(len(self._data))


class MplexStreams(Streams):
    """The same over mplex."""

    session = MplexSession


class RoundTrips(Streams):
    """The same there and back."""

    async def once(self) -> None:
        """One message and its answer."""
        await self.near.write(self._data)
        await self.far.write(await self.far.read_exactly(len(self._data)))
        await self.near.read_exactly(len(self._data))


class Openings(Streams):
    """Streams opened and closed on one connection, which a ledger counts if `has_limits`."""

    def __init__(self, has_limits: bool) -> None:
        super().__init__(32)
        self._has_limits = has_limits

    async def open(self) -> None:
        """Makes the chain, and a ledger with limits that are never reached."""
        await super().open()
        if self._has_limits:
            for session in self._sessions:
                ledger = Ledger(1 << 20, 1 << 20, 1 << 20, 1 << 40)
                session.account(ledger, ledger.share("the peer"))

    async def once(self) -> None:
        """One stream: 32 bytes there and back, and an orderly end."""
        client, server = self._sessions
        near = await client.open_stream()
        await near.write(self._data)
        await near.close_write()
        far = await server.accept_stream()
        await far.write(await far.read_exactly(len(self._data)))
        await far.read()
        await far.close()
        await near.read_exactly(len(self._data))
        await near.read()
        await near.close()


class Handshakes:
    """A security handshake of libp2p, both sides, each on a mailbox of a new socket pair."""

    def __init__(self, make: Callable[[PrivateKey], SecureTransport]) -> None:
        self._a, self._b = (make(PrivateKey.generate(KeyType.ED25519)) for _ in range(2))

    async def once(self) -> None:
        """One handshake."""
        pair = Pair()
        a, b = await pair.connect()
        await asyncio.gather(
            self._a.secure_outbound(a, None, MUXERS),
            self._b.secure_inbound(b, None, MUXERS),
        )
        await pair.close()

    async def close(self) -> None:
        """Nothing is left."""


Start = Callable[[], Coroutine[Any, Any, Any]]


def records(size: int, secure: Secure = by_noise) -> Start:
    """Records of writes of `size` bytes."""
    return _opened(lambda: Records(size, secure))


def openings(has_limits: bool) -> Start:
    """Streams of one connection, with a ledger or without."""
    return _opened(lambda: Openings(has_limits))


async def noise_handshakes() -> Handshakes:
    """Those of Noise, always with the same ephemeral keys."""
    numbers = count(1)
    return Handshakes(lambda key: NoiseTransport(key, entropy=lambda n: next(numbers).to_bytes(n, "big")))


async def tls_handshakes() -> Handshakes:
    """Those of TLS between hosts that know each other's certificates."""
    return Handshakes(TlsTransport)


def one_way(size: int) -> Start:
    """A stream with writes of `size` bytes."""
    return _opened(lambda: Streams(size))


def one_way_mplex(size: int) -> Start:
    """The same over mplex."""
    return _opened(lambda: MplexStreams(size))


def private(size: int) -> Start:
    """Writes of `size` bytes in a private network."""
    return _opened(lambda: Private(size))


def _opened(make: Callable[[], Any]) -> Start:
    async def start() -> Any:
        work = make()
        await work.open()
        return work

    return start


round_trips = _opened(lambda: RoundTrips(32))

"""A libp2p peer made by hand: Noise and yamux over one socket, with any frame an attack needs.

Comes in: an address, a source address, an identity. Goes out: frames, encrypted; frames of the node, to
`on_frame`. It checks nothing, and follows no window. It answers yamux pings, if it is not told otherwise.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

from p2pcore import Multiaddr, PrivateKey
from p2pcore._fast.crypto.noise import Initiator, KeyPair
from p2pcore._fast.crypto.sodium import seal, unseal
from p2pcore.pb.noise_pb2 import NoiseExtensions, NoiseHandshakePayload
from p2pcore.security.noise import SIGNATURE_PREFIX

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
HEADER_BYTES = 12
RECORD_BYTES = 65519
IP_BIND_ADDRESS_NO_PORT = 24
PATIENCE_S = 20.0
"""How long a raw peer waits for one step of its handshake."""

Pause = Callable[[], Awaitable[object]]
OnFrame = Callable[[int, int, int, int, bytes], None]


def message(text: str) -> bytes:
    """One multistream-select message."""
    body = text.encode() + b"\n"
    head = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
    return head + body


HEADER = message("/multistream/1.0.0")
NOISE = message("/noise")


def frame(kind: int, flags: int, stream: int, length: int, body: bytes = b"") -> bytes:
    """One yamux frame."""
    return struct.pack(">BBHII", 0, kind, flags, stream, length) + body


def opening(stream: int, protocol: str, body: bytes = b"") -> bytes:
    """A new stream that proposes `protocol`, with `body` behind the proposal."""
    body = HEADER + message(protocol) + body
    return frame(DATA, SYN, stream, len(body), body)


def place_of(addr: str) -> tuple[str, int]:
    """Host and port of a TCP multiaddr."""
    parsed = Multiaddr(addr)
    return str(parsed.get("ip4") or parsed.get("ip6")), int(parsed.get("tcp") or 0)


def tcp_socket(source: str) -> socket.socket:
    """A non-blocking socket that will connect from `source`, from any port."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    return sock


class Identity:
    """A key, and the payload of its handshakes: signed once, for any number of connections."""

    def __init__(self, entropy: bytes) -> None:
        self.key = PrivateKey.from_seed(entropy)
        self.static = KeyPair.of(entropy)
        self.payload = NoiseHandshakePayload(
            identity_key=self.key.public_key.to_protobuf(),
            identity_sig=self.key.sign(SIGNATURE_PREFIX + self.static.public),
            extensions=NoiseExtensions(stream_muxers=[b"/yamux/1.0.0"]),
        ).SerializeToString()


class RawPeer(asyncio.Protocol):
    """One connection. `connect` makes it; `write` sends frames.

    Attributes:
        lost: done when it has ended. go_away: the code of the node's last one.
        on_frame: called with kind, flags, stream, length and body of each frame of the node.
        pong_delay_s: how late pings are answered; None: never.
        is_deaf: throws away whatever comes, which costs nothing.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.lost: asyncio.Future[None] = loop.create_future()
        self.on_frame: OnFrame | None = None
        self.pong_delay_s: float | None = 0.0
        self.go_away: int | None = None
        self.is_deaf = False
        self._pongs: list[asyncio.Future[None]] = []
        self._raw, self._plain = bytearray(), bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._keys: tuple[bytes, bytes] | None = None
        self._sent = self._received = 0

    @classmethod
    async def connect(
        cls, addr: str, source: str, identity: Identity, entropy: bytes, pause: Pause | None = None
    ) -> RawPeer:
        """Connects and finishes the handshake.

        Args:
            entropy: 32 bytes for the ephemeral key.
            pause: is awaited before each of its two messages.

        Raises: OSError, TimeoutError: the node does not finish it.
        """
        loop = asyncio.get_running_loop()
        sock = tcp_socket(source)
        try:
            await asyncio.wait_for(loop.sock_connect(sock, place_of(addr)), PATIENCE_S)
            _, peer = await loop.create_connection(cls, sock=sock)
        except BaseException:
            sock.close()
            raise
        try:
            await peer._shake(identity, entropy, pause or _no_pause)
        except BaseException:
            peer.abort()
            raise
        return peer

    async def _shake(self, identity: Identity, entropy: bytes, pause: Pause) -> None:
        noise = Initiator(identity.static, entropy)
        await pause()
        self._send(HEADER + NOISE + _framed(noise.write_1()))
        await self._take(len(HEADER) + len(NOISE))
        noise.read_2(await self._take(int.from_bytes(await self._take(2))))
        await pause()
        self._send(_framed(noise.write_3(identity.payload)))
        self._keys = noise.split()
        self._records()

    def _send(self, data: bytes) -> None:
        if not self.is_open:
            raise ConnectionResetError("the node has ended the handshake")
        self.transport.write(data)

    async def _take(self, n: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            while len(self._raw) < n:
                if self.lost.done():
                    raise ConnectionResetError("the node has ended the handshake")
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        taken = bytes(self._raw[:n])
        del self._raw[:n]
        return taken

    # -- what comes ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.is_deaf:
            return
        self._raw += data
        if self._keys is None:
            self._wake()
        else:
            self._records()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)
        self._writable.set()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _records(self) -> None:
        assert self._keys is not None
        at, raw = 0, self._raw
        while len(raw) - at >= 2 and len(raw) - at - 2 >= (size := int.from_bytes(raw[at : at + 2])):
            plain = unseal(self._keys[1], self._received, bytes(raw[at + 2 : at + 2 + size]), b"")
            assert plain is not None
            self._received += 1
            at += 2 + size
            self._plain += plain
        if at:
            del raw[:at]
            self._frames()

    def _frames(self) -> None:
        at, plain = 0, self._plain
        while len(plain) - at >= HEADER_BYTES:
            _, kind, flags, stream, length = struct.unpack_from(">BBHII", plain, at)
            size = length if kind == DATA else 0
            if len(plain) - at - HEADER_BYTES < size:
                break
            at += HEADER_BYTES + size
            self._frame(kind, flags, stream, length, bytes(plain[at - size : at]))
        del plain[:at]

    def _frame(self, kind: int, flags: int, stream: int, length: int, body: bytes) -> None:
        if kind == PING and flags & SYN and self.pong_delay_s is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self.pong_delay_s, self.write, frame(PING, ACK, 0, length))
        if kind == PING and flags & ACK and self._pongs:
            self._pongs.pop(0).set_result(None)
        if kind == GO_AWAY:
            self.go_away = length
        if self.on_frame is not None:
            self.on_frame(kind, flags, stream, length, body)

    # -- what goes -----------------------------------------------------------------------------

    def write(self, plain: bytes) -> None:
        """Sends bytes of the session, in records as large as they may be."""
        if not self.is_open:
            return
        assert self._keys is not None
        for at in range(0, len(plain), RECORD_BYTES):
            sealed = seal(self._keys[0], self._sent, plain[at : at + RECORD_BYTES], b"")
            self._sent += 1
            self.transport.write(_framed(sealed))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def drain(self) -> None:
        """Returns once the kernel has taken most of what was written, or at the end."""
        await self._writable.wait()

    async def ping(self) -> None:
        """Returns when the node has answered a ping, or has ended the connection."""
        pong = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self.write(frame(PING, SYN, 0, 0))
        await asyncio.wait([pong, self.lost], return_when="FIRST_COMPLETED")

    @property
    def is_open(self) -> bool:
        """Whether the node has not ended it."""
        return not self.lost.done() and not self.transport.is_closing()

    def abort(self) -> None:
        """Ends it at once."""
        self.transport.abort()


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(2) + body


async def _no_pause() -> None:
    return

"""Noise records on a real wire: cutting, joining, empty and forged ones, and the end of input."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from harness import cuts, looped
from p2pcore._fast.chain.wire import Wire
from p2pcore._fast.crypto.secure import NoiseChannel
from p2pcore.errors import ConnectionClosed, IncompleteRead, LimitExceeded, RemoteProtocolError
from p2pcore.limits import MAX_EMPTY_RECORDS, MAX_NOISE_PLAINTEXT_BYTES

SEND_KEY = bytes(range(32))
RECEIVE_KEY = bytes(range(32, 64))


class Peer:
    """The other end: seals and opens records by the cipher alone, with its own counters."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._seal = ChaCha20Poly1305(RECEIVE_KEY)
        self._open = ChaCha20Poly1305(SEND_KEY)
        self._sealed = self._opened = 0

    def record(self, plaintext: bytes) -> bytes:
        """The next record to us."""
        nonce = bytes(4) + self._sealed.to_bytes(8, "little")
        self._sealed += 1
        body = self._seal.encrypt(nonce, plaintext, None)
        return len(body).to_bytes(2) + body

    async def opened(self) -> bytes:
        """The plaintext of the next record from us."""
        size = int.from_bytes(await self._exactly(2))
        nonce = bytes(4) + self._opened.to_bytes(8, "little")
        self._opened += 1
        return self._open.decrypt(nonce, await self._exactly(size), None)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def _exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            chunk = await asyncio.get_running_loop().sock_recv(self.sock, n - len(data))
            assert chunk
            data += chunk
        return data


@asynccontextmanager
async def secured() -> AsyncIterator[tuple[Any, Peer]]:
    """A mailbox on a NoiseChannel on a Wire, and its peer."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    wire = Wire(loop)
    await loop.create_connection(lambda: wire, sock=ours)
    mailbox = wire.mailbox
    assert mailbox is not None
    mailbox.insert(NoiseChannel(SEND_KEY, RECEIVE_KEY))
    try:
        yield mailbox, Peer(theirs)
    finally:
        wire.abort()
        await wire.wait_closed()
        theirs.close()


@looped
async def test_records_arrive_whole_for_any_cut() -> None:
    sizes = (1, 0, 40)

    lengths = [size + 18 for size in sizes]
    for chunks in cuts(bytes(sum(lengths))):
        async with secured() as (mailbox, peer):
            plaintexts = [bytes([size]) * size for size in sizes]
            data = b"".join(map(peer.record, plaintexts))
            for chunk in chunks:
                await peer.send(data[: len(chunk)])
                data = data[len(chunk) :]
                await asyncio.sleep(0)
            assert await mailbox.read_exactly(sum(sizes)) == b"".join(plaintexts)


@looped
async def test_largest_record_is_taken() -> None:
    async with secured() as (mailbox, peer):
        plaintext = bytes(range(256)) * 256
        await peer.send(peer.record(plaintext[:MAX_NOISE_PLAINTEXT_BYTES]))
        assert await mailbox.read_exactly(MAX_NOISE_PLAINTEXT_BYTES) == plaintext[:-17]


@looped
async def test_writes_of_one_iteration_leave_as_one_record() -> None:
    async with secured() as (mailbox, peer):
        for part in (b"one ", b"two ", b"three"):
            mailbox.write(part)
        assert await peer.opened() == b"one two three"
        mailbox.write(b"four")
        assert await peer.opened() == b"four"


@looped
async def test_long_writes_are_cut_at_full_records_in_order() -> None:
    async with secured() as (mailbox, peer):
        data = bytes(i * 7 % 251 for i in range(150_000))
        mailbox.write(data[:100_000])
        mailbox.write(data[100_000:])
        records = []
        while sum(map(len, records)) < len(data):
            records.append(await peer.opened())
        assert b"".join(records) == data
        assert [len(record) for record in records] == [65519, 65519, 150_000 - 2 * 65519]


@looped
async def test_empty_records_are_skipped_up_to_a_bound() -> None:
    async with secured() as (mailbox, peer):
        for _ in range(2):  # a record with bytes starts the count anew
            await peer.send(b"".join(peer.record(b"") for _ in range(MAX_EMPTY_RECORDS)))
            await peer.send(peer.record(b"x"))
            assert await mailbox.read_exactly(1) == b"x"
        await peer.send(b"".join(peer.record(b"") for _ in range(MAX_EMPTY_RECORDS + 1)))
        with pytest.raises(LimitExceeded):
            await mailbox.read_exactly(1)


@pytest.mark.parametrize("size", range(16))
@looped
async def test_record_shorter_than_its_tag_closes_the_connection(size: int) -> None:
    async with secured() as (mailbox, peer):
        await peer.send(size.to_bytes(2) + bytes(size))
        with pytest.raises(RemoteProtocolError):
            await mailbox.read_exactly(1)
        with pytest.raises((RemoteProtocolError, ConnectionClosed)):
            mailbox.write(b"x")


@looped
async def test_any_damage_closes_the_connection_and_delivers_nothing() -> None:
    for at in range(2, 2 + 5 + 16):
        async with secured() as (mailbox, peer):
            data = bytearray(peer.record(b"hello"))
            data[at] ^= 1
            await peer.send(bytes(data))
            with pytest.raises(RemoteProtocolError):
                await mailbox.read_exactly(1)


@looped
async def test_repeated_lost_or_swapped_records_do_not_authenticate() -> None:
    for order in ((0, 0), (1,), (0, 2)):
        async with secured() as (mailbox, peer):
            records = [peer.record(bytes([i])) for i in range(3)]
            await peer.send(b"".join(records[i] for i in order))
            with pytest.raises(RemoteProtocolError):
                await mailbox.read_exactly(3)


@looped
async def test_end_of_input_between_records_is_an_end() -> None:
    async with secured() as (mailbox, peer):
        await peer.send(peer.record(b"last"))
        peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(IncompleteRead) as caught:
            await mailbox.read_exactly(5)
        assert caught.value.partial == b"last"


@looped
async def test_end_of_input_inside_a_record_is_an_error() -> None:
    for length in (1, 2, 3, 21):
        async with secured() as (mailbox, peer):
            await peer.send(peer.record(b"last")[:length])
            peer.sock.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionClosed):
                await mailbox.read_exactly(1)

"""Bytes that wait on a chain, below its streams, are counted and given back: handshakes, records, pipes.

Comes in: bytes on sockets. Goes out: the counts of a ledger.
"""

from __future__ import annotations

import asyncio

import pytest

from _fast.chains import KEY_A, KEY_B, socket_pair, wire_on
from harness import eventually, looped, settle
from p2pcore import limits
from p2pcore._fast.chain.memory import memory_pair
from p2pcore._fast.crypto.secure import NoiseChannel
from p2pcore._fast.loop.ledger import Ledger

BLOCK = limits.MAX_NOISE_RECORD_BYTES


@looped
async def test_bytes_of_a_handshake_are_counted_until_they_are_read() -> None:
    near, far = await socket_pair()
    wire, ledger = await wire_on(near), Ledger()
    box = wire.open_mailbox()
    far.send(bytes(300))
    await eventually(lambda: box.num_held == 300)
    box.account(ledger)
    far.send(bytes(700))
    await eventually(lambda: ledger.unread == 1000)
    await box.read_exactly(400)
    assert ledger.unread == ledger.used == wire.held == 600
    box.unread(bytes(50))
    assert ledger.unread == 650
    wire.abort()
    await wire.wait_closed()
    assert ledger.used == 0
    far.close()


@pytest.mark.parametrize("ends", [True, False])
@looped
async def test_half_a_record_is_counted_as_what_it_takes(ends: bool) -> None:
    near, far = await socket_pair()
    wire, ledger = await wire_on(near), Ledger()
    box = wire.open_mailbox()
    box.insert(NoiseChannel(KEY_A, KEY_B))
    box.account(ledger)
    far.send(b"\xff\xff" + bytes(10))
    await eventually(lambda: ledger.unread >= BLOCK)
    if ends:
        far.close()
    else:
        wire.abort()
    await wire.wait_closed()
    assert ledger.used == 0
    far.close()


@looped
async def test_what_waits_in_a_memory_pipe_is_counted_at_its_sender() -> None:
    one, two = memory_pair(asyncio.get_running_loop())
    ledger = Ledger()
    sender, receiver = one.open_mailbox(), two.open_mailbox()
    sender.account(ledger)
    one.start()
    sender.write(bytes(1000))
    assert ledger.unsent == one.waits == 1000
    two.start()
    assert await receiver.read_exactly(1000) == bytes(1000)
    assert ledger.unsent == 0
    sender.write(bytes(2 * limits.MEMORY_PIPE_BYTES))
    assert ledger.unsent > 2 * limits.MEMORY_PIPE_BYTES, "and what a layer above may have gathered"
    while receiver.num_held or ledger.unsent:
        await receiver.read(limits.MAILBOX_BYTES)
        await settle()
    sender.write(bytes(1000))
    one.abort()
    await settle()
    assert ledger.used == 0
    two.abort()
    await settle()

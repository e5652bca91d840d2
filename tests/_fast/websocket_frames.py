"""WebSocket frames by hand, for tests that play a peer.

Comes in: opcodes and payloads, or raw bytes. Goes out: raw frames, or frames taken apart. Independent of the
code under test: RFC 6455 section 5.2 in the plainest way.
"""

from __future__ import annotations

from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = bytes.fromhex("37fa213d")


def masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def frame(
    payload: bytes = b"", opcode: int = BINARY, *, fin: bool = True, mask: bytes | None = None, rsv: int = 0
) -> bytes:
    """One frame with the shortest form of its length."""
    n = len(payload)
    bit = 0x80 if mask is not None else 0
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if n <= 125:
        head = first + bytes([bit | n])
    elif n <= 65535:
        head = first + bytes([bit | 126]) + n.to_bytes(2, "big")
    else:
        head = first + bytes([bit | 127]) + n.to_bytes(8, "big")
    return head + (payload if mask is None else mask + masked(payload, mask))


def close(code: int | None = 1000, reason: bytes = b"", mask: bytes | None = None) -> bytes:
    return frame(b"" if code is None else code.to_bytes(2, "big") + reason, CLOSE, mask=mask)


@dataclass(frozen=True)
class Frame:
    """A received frame, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    mask: bytes | None = None


def frames(raw: bytes) -> list[Frame]:
    """All frames of `raw`, which must end with a whole one."""
    out = []
    while raw:
        first, second = raw[0], raw[1]
        assert not first & 0x70
        n, at = second & 127, 2
        if n > 125:
            at = 4 if n == 126 else 10
            n = int.from_bytes(raw[2:at], "big")
        mask = None
        if second & 0x80:
            mask = raw[at : at + 4]
            at += 4
        payload = raw[at : at + n]
        assert len(payload) == n, f"{len(payload)} of {n} bytes"
        out.append(Frame(first & 15, masked(payload, mask) if mask else payload, bool(first & 0x80), mask))
        raw = raw[at + n :]
    return out

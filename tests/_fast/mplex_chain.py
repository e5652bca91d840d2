"""An mplex session and its peer by hand: messages over a record layer without encryption.

Comes in: messages, or bytes. Goes out: what the session has sent, as messages. The encoder is not the one
under test.
"""

from __future__ import annotations

from dataclasses import dataclass

from _fast.chains import RawMuxer
from harness import settle
from p2pcore import errors
from p2pcore._fast.mux.mplex import MplexSession
from p2pcore._fast.mux.stream import Stream

NEW, MSG_R, MSG_I, CLOSE_R, CLOSE_I, RESET_R, RESET_I, INVALID = range(8)
"""Flags: the side that opened the stream sends I, the other side sends R."""
BUFFER = 262144


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@dataclass(frozen=True)
class Message:
    """One message."""

    flag: int
    id: int
    body: bytes = b""

    def __bytes__(self) -> bytes:
        return uvarint(self.id << 3 | self.flag) + uvarint(len(self.body)) + self.body


def msg(flag: int, id: int, body: bytes = b"") -> bytes:
    return bytes(Message(flag, id, body))


def read_uvarint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def messages(raw: bytes) -> list[Message]:
    """All messages of `raw`, which must end with a whole one."""
    out, at = [], 0
    while at < len(raw):
        head, at = read_uvarint(raw, at)
        size, at = read_uvarint(raw, at)
        assert at + size <= len(raw), "a message that is not whole"
        out.append(Message(head & 7, head >> 3, raw[at : at + size]))
        at += size
    return out


class RawMplex(RawMuxer):
    """An mplex session, and its peer."""

    kind = MplexSession
    session: MplexSession

    async def answers(self) -> list[Message]:
        """The messages it has sent since the last call."""
        return messages(await self.all_sent())

    async def open_inbound(self, id: int = 1) -> Stream:
        """A stream the peer opened, accepted."""
        self.deliver(msg(NEW, id))
        return await self.session.accept_stream()

    async def open_outbound(self) -> Stream:
        """A stream opened here; the message that opens it is removed."""
        stream = await self.session.open_stream()
        assert [m.flag for m in await self.answers()] == [NEW]
        return stream


async def refused(peer: RawMplex, kind: type[Exception] = errors.RemoteProtocolError) -> None:
    """Checks that the session ended because of the peer."""
    assert isinstance(peer.session.close_reason, kind), peer.session.close_reason
    await settle()
    assert peer.eof_written

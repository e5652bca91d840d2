"""multistream-select 1.0: both roles, and the lazy form for streams.

Comes in: a Mailbox or a Stream (anything with `read_exactly` and `write`) and protocol ids. Goes
out: the agreed id; the next byte of `io` is the protocol's first. Never reads past the message it
needs, never waits for the peer's header before it proposes, never answers without a bound. The
caller sets the deadline and, on any error, closes the connection or resets the stream.
Specification: libp2p connections, multiformats/multistream-select.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Sequence
from functools import lru_cache
from typing import Final, Protocol

from p2pcore.aio.eager import Begun
from p2pcore.errors import (
    IncompleteRead,
    LimitExceeded,
    LocalProtocolError,
    NegotiationError,
    ProtocolNotSupported,
)
from p2pcore.limits import MAX_MULTISTREAM_BYTES, MAX_MULTISTREAM_PROPOSALS, MAX_PROTOCOL_ID_BYTES

_NEWLINE: Final = 0x0A
_HIGH_BIT: Final = 0x80


class Channel(Protocol):
    """What a negotiation talks through: a Mailbox, or a Stream (whose writes are awaited).

    Where it has a `take_opening`, as both have, an opening that has come whole costs one call; where it has a
    `write_later`, as a Mailbox has, the last answer leaves with what follows.
    """

    def read_exactly(self, n: int, /) -> Awaitable[bytes]: ...
    def write(self, data: bytes, /) -> Awaitable[None] | None: ...


# -- messages ----------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def encode(text: str) -> bytes:
    """The message that carries `text`: length, text, newline.

    Args:
        text: a protocol id, or one of the fixed texts; 1..255 bytes of UTF-8 without a newline.

    Raises:
        LocalProtocolError: `text` is empty or has a newline.
        LimitExceeded: it is too long.
    """
    body = text.encode() + b"\n"
    if len(body) - 1 > MAX_PROTOCOL_ID_BYTES:
        raise LimitExceeded("MAX_PROTOCOL_ID_BYTES", len(body) - 1, MAX_PROTOCOL_ID_BYTES)
    if len(body) == 1 or body.index(_NEWLINE) != len(body) - 1:
        raise LocalProtocolError(f"{text!r} is no protocol id: empty, or with a newline")
    return _prefix(len(body)) + body


def _prefix(length: int) -> bytes:
    return bytes((length,)) if length < _HIGH_BIT else bytes((length & 0x7F | _HIGH_BIT, length >> 7))


HEADER: Final = encode("/multistream/1.0.0")
NOT_AVAILABLE: Final = encode("na")


def body_length(prefix: bytes) -> int:
    """Bytes that follow `prefix`, a length of one byte, or of two where the first has its high bit set.

    Raises:
        NegotiationError: zero, over the limit, longer than two bytes, or not in its shortest form.
    """
    length = prefix[0]
    if length >= _HIGH_BIT:
        length = length & 0x7F | prefix[1] << 7
        if length < _HIGH_BIT:  # a third byte would make it too long for the next check
            raise NegotiationError(f"{prefix.hex()} is no multistream-select length")
    if not 0 < length <= MAX_MULTISTREAM_BYTES:
        raise NegotiationError(f"a multistream-select message of {length} bytes")
    return length


def text_of(message: bytes) -> str | None:
    """The text of a whole message, or None where it cannot be a protocol id (newline inside, bad UTF-8)."""
    text = message[2 if message[0] >= _HIGH_BIT else 1 : -1]
    if _NEWLINE in text:
        return None
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


async def _read_message(io: Channel, prefix: bytes) -> bytes:
    """The message that begins with the byte `prefix`, read to its end and not further; prefix included."""
    if prefix[0] >= _HIGH_BIT:
        prefix += await io.read_exactly(1)
    message = prefix + await io.read_exactly(body_length(prefix))
    if message[-1] != _NEWLINE:
        raise NegotiationError("a multistream-select message does not end with a newline")
    return message


def _take_opening(io: Channel) -> bytes | None:
    """The message behind HEADER, if both have come; None: nothing has been taken."""
    take: Callable[[], bytes | None] | None = getattr(io, "take_opening", None)
    return None if take is None else take()


async def _read_header(io: Channel) -> None:
    if await io.read_exactly(len(HEADER)) != HEADER:
        raise NegotiationError("the peer does not speak multistream-select 1.0")


# -- initiator ---------------------------------------------------------------------------------


async def select(io: Channel, protocols: Sequence[str]) -> str:
    """Proposes `protocols` in order until the peer takes one.

    Header and first proposal leave in one write. Cancelled or failed: `io` is of no further use.

    Returns:
        The protocol the peer took.

    Raises:
        ProtocolNotSupported: the peer wants none of them.
        NegotiationError: the peer ended or broke the negotiation.
        LimitExceeded, LocalProtocolError: `protocols` cannot be proposed.
        ConnectionClosed, StreamReset: `io` failed.
    """
    proposals = [encode(protocol) for protocol in protocols]
    if not proposals:
        raise LocalProtocolError("no protocol to propose")
    if len(proposals) > MAX_MULTISTREAM_PROPOSALS:
        raise LimitExceeded("MAX_MULTISTREAM_PROPOSALS", len(proposals), MAX_MULTISTREAM_PROPOSALS)
    try:
        taken = await _propose(io, proposals)
    except IncompleteRead as error:
        raise NegotiationError("the peer ended the negotiation before it agreed") from error
    if taken is None:
        raise ProtocolNotSupported(protocols)
    return protocols[taken]


async def _propose(io: Channel, proposals: Sequence[bytes]) -> int | None:
    """The index of the proposal that the peer echoed; None if it echoed none."""
    await _write(io, HEADER + proposals[0])
    answer = _take_opening(io)
    if answer is None:
        await _read_header(io)
    for index, proposal in enumerate(proposals):
        if index:
            await _write(io, proposal)
        if index or answer is None:
            answer = await _read_message(io, await io.read_exactly(1))
        if not index and answer == HEADER:  # js may repeat it
            answer = await _read_message(io, await io.read_exactly(1))
        if answer == proposal:
            return index
        if answer != NOT_AVAILABLE:
            raise NegotiationError("the peer neither took nor refused a proposal")
    return None


def lazy_open(protocol: str) -> tuple[bytes, bytes]:
    """For a stream with one candidate: send the first, with data behind it; expect the second.

    The answers are checked when they come (`Stream.expect`). Only where a request that the peer
    throws away is no loss: it may refuse after we have sent.
    """
    opening = HEADER + encode(protocol)
    return opening, opening


# -- responder ---------------------------------------------------------------------------------


async def handle(io: Channel, supported: Container[str]) -> str:
    """Answers proposals until one is in `supported`.

    Header and answer leave in one write where the peer sent header and proposal in one; on a Mailbox the last
    answer leaves with the next write, or when a read has to wait.
    Cancelled or failed: `io` is of no further use.

    Args:
        supported: protocol ids we speak; asked once a proposal.

    Returns:
        The protocol agreed. What the peer sent behind its proposal is still in `io`.

    Raises:
        NegotiationError: the peer ended or broke the negotiation, or has made 64 proposals in vain.
        ConnectionClosed, StreamReset: `io` failed.
    """
    try:
        return await _answer(io, supported)
    except IncompleteRead as error:
        raise NegotiationError("the peer ended the negotiation before it agreed") from error


async def _answer(io: Channel, supported: Container[str]) -> str:
    header = HEADER
    message = _take_opening(io)
    if message is None:
        await _read_header(io)
        first = Begun(io.read_exactly(1))
        if not first.is_done:  # the peer waits for our header before it proposes (py-libp2p)
            await _write(io, header)
            header = b""
        message = await _read_message(io, await first)
    for _ in range(MAX_MULTISTREAM_PROPOSALS):
        text = text_of(message)
        if text is not None and text in supported:
            await _write_last(io, header + message)
            return text
        await _write(io, header + NOT_AVAILABLE)
        header = b""
        message = await _read_message(io, await io.read_exactly(1))
    raise NegotiationError(f"the peer made {MAX_MULTISTREAM_PROPOSALS} proposals, none of them ours")


async def _write_last(io: Channel, data: bytes) -> None:
    """Where the channel can, `data` leaves with what the agreed protocol says first: one packet less."""
    later: Callable[[bytes], None] | None = getattr(io, "write_later", None)
    if later is None:
        await _write(io, data)
    else:
        later(data)


async def _write(io: Channel, data: bytes) -> None:
    writing = io.write(data)
    if writing is not None:
        await writing

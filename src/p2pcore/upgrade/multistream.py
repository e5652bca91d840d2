"""multistream-select 1.0: both roles, and the lazy form.

Comes in: a Channel (a Mailbox or a Stream) and protocol ids. Goes out: the agreed id; the next byte of the
channel is the protocol's first. Never reads past the message it needs, never waits for the peer's header
before it proposes, never waits for a byte once one has come that is wrong, never answers without a bound. The
caller sets the deadline and, on any error, closes the connection or resets the stream. What touches the data
path is in _fast/chain/multistream.pyx. Specification: libp2p connections, multiformats/multistream-select.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from p2pcore._fast.chain.multistream import HEADER, NOT_AVAILABLE, spoken
from p2pcore.aio.eager import Begun
from p2pcore.errors import (
    ConnectionClosed,
    IncompleteRead,
    LimitExceeded,
    LocalProtocolError,
    NegotiationError,
    ProtocolNotSupported,
    StreamReset,
)
from p2pcore.limits import MAX_MULTISTREAM_BYTES, MAX_MULTISTREAM_PROPOSALS, MAX_PROTOCOL_ID_BYTES

if TYPE_CHECKING:
    from p2pcore.interfaces import Channel

STREAM_STEP: Final = "stream protocol"
"""What a negotiation at the start of a stream is for, as `stage` of its errors."""

_NEWLINE: Final = 0x0A
_HIGH_BIT: Final = 0x80
_SHOWN: Final = 8  # proposals in an error
_BEGUN: Final = {"TLS": "a TLS handshake", "HTTP": "an HTTP request or answer", "SSH": "an SSH session"}


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
        raise NegotiationError(_strange(message))
    return message


async def _read_one_of(io: Channel, *hoped: bytes) -> bytes:
    """The one of these messages that comes. Fails at the first byte that none of them has."""
    got = b""
    while True:
        piece = await io.read(min(len(each) for each in hoped) - len(got))
        if not piece:
            raise IncompleteRead(got, len(hoped[0]))
        got += piece
        hoped = tuple(each for each in hoped if each.startswith(got))
        if not hoped:
            raise NegotiationError(_strange(got))
        if got in hoped:
            return got


def _strange(data: bytes) -> str:
    """What `data` is, which is no message that may come now."""
    name = spoken(data)
    begun = "" if name is None else f": these bytes begin {_BEGUN[name]}"
    return f"{data[:32]!r} came in place of a message of multistream-select{begun}"


# -- initiator ---------------------------------------------------------------------------------


async def select(io: Channel, protocols: Sequence[str], step: str = STREAM_STEP) -> str:
    """Proposes `protocols` in order until the peer takes one.

    Header and first proposal leave in one write. Cancelled or failed: `io` is of no further use.

    Args:
        io: where to negotiate.
        protocols: what we want, the most wanted first; 1 to 64.
        step: what the negotiation is for, as errors name it in their text and in `stage`.

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
        why = f"the peer ended it before it took one of {_listed(protocols)}"
        raise _failed(step, why) from error
    except NegotiationError as error:
        raise _failed(step, f"we proposed {_listed(protocols)}, and {error}") from None
    if taken is None:
        raise ProtocolNotSupported(protocols, step)
    return protocols[taken]


async def _propose(io: Channel, proposals: Sequence[bytes]) -> int | None:
    """The index of the proposal that the peer echoed; None if it echoed none."""
    await _write(io, HEADER + proposals[0])
    answer = io.take_opening()
    if answer is None:
        await _read_one_of(io, HEADER)
        answer = await _read_one_of(io, proposals[0], NOT_AVAILABLE, HEADER)
    if answer == HEADER:  # js may repeat it
        answer = await _read_one_of(io, proposals[0], NOT_AVAILABLE)
    for index, proposal in enumerate(proposals):
        if index:
            await _write(io, proposal)
            answer = await _read_one_of(io, proposal, NOT_AVAILABLE)
        if answer == proposal:
            return index
        if answer != NOT_AVAILABLE:
            raise NegotiationError(_strange(answer))
    return None


def propose(io: Channel, protocol: str, step: str = STREAM_STEP) -> None:
    """The lazy form, for one candidate: the proposal leaves with what is written next, and nobody waits.

    The answer is checked as it comes, before anything that a read gives (Channel.expect). Only where a
    request that the peer throws away is no loss: it may refuse after we have sent.

    Raises:
        LimitExceeded, LocalProtocolError: `protocol` cannot be proposed.
        ConnectionClosed, StreamReset: `io` failed.
    """
    opening = _opening(protocol)
    io.expect(opening, protocol, step)
    io.write_later(opening)


@lru_cache(maxsize=512)
def _opening(protocol: str) -> bytes:
    """What proposes `protocol`, and what takes it."""
    return HEADER + encode(protocol)


# -- responder ---------------------------------------------------------------------------------


async def handle(io: Channel, supported: Container[str], step: str = STREAM_STEP) -> str:
    """Answers proposals until one is in `supported`.

    Header and answer leave in one write where the peer sent header and proposal in one; on a Mailbox the last
    answer leaves with the next write, or when a read has to wait.
    Cancelled or failed: `io` is of no further use.

    Args:
        io: where to negotiate.
        supported: protocol ids we speak; asked once a proposal.
        step: what the negotiation is for, as errors name it in their text and in `stage`.

    Returns:
        The protocol agreed. What the peer sent behind its proposal is still in `io`.

    Raises:
        ProtocolNotSupported: the peer went on, or ended, after it had proposed what we do not support.
        NegotiationError: the peer ended or broke the negotiation, or has made 64 proposals in vain.
        ConnectionClosed, StreamReset: `io` failed.
    """
    refused: list[bytes] = []
    try:
        return await _answer(io, supported, refused)
    except (IncompleteRead, NegotiationError, ConnectionClosed) as error:
        if 0 < len(refused) < MAX_MULTISTREAM_PROPOSALS:
            raise _refused(step, refused, error) from error
        if isinstance(error, ConnectionClosed):
            raise
        if isinstance(error, IncompleteRead):
            raise _failed(step, "the peer ended it before it made a proposal") from error
        raise _failed(step, str(error)) from None


async def _answer(io: Channel, supported: Container[str], refused: list[bytes]) -> str:
    header = HEADER
    message = io.take_opening()
    if message is None:
        await _read_one_of(io, HEADER)
        first = Begun(io.read_exactly(1))
        if not first.is_done:  # the peer waits for our header before it proposes (py-libp2p)
            await _write(io, header)
            header = b""
        message = await _read_message(io, await first)
    for _ in range(MAX_MULTISTREAM_PROPOSALS):
        text = text_of(message)
        if text is not None and text in supported:
            try:
                io.write_later(header + message)
            except (ConnectionClosed, StreamReset):
                return text  # nobody hears the answer to what came with the end. It is served all the same
            return text
        refused.append(message)
        await _write(io, header + NOT_AVAILABLE)
        header = b""
        message = await _read_message(io, await io.read_exactly(1))
    raise NegotiationError(f"the peer made {MAX_MULTISTREAM_PROPOSALS} proposals, none of them ours")


async def _write(io: Channel, data: bytes) -> None:
    writing = io.write(data)
    if writing is not None:
        await writing


# -- errors ------------------------------------------------------------------------------------


def _failed(step: str, why: str) -> NegotiationError:
    error = NegotiationError(f"{step}: {why}")
    error.stage = step
    return error


def _refused(step: str, refused: Sequence[bytes], error: Exception) -> ProtocolNotSupported:
    """The peer has not gone on negotiating: it had no more to propose, or did not wait for our answer."""
    names = [text_of(message) or repr(message) for message in refused[:_SHOWN]]
    detail = f"; then {error}" if isinstance(error, NegotiationError) else ""
    return ProtocolNotSupported(names, step, True, detail)


def _listed(protocols: Sequence[str]) -> str:
    return ", ".join(protocols[:_SHOWN])

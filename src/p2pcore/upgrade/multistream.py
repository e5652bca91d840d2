"""multistream-select 1.0: both roles, and the lazy form.

Comes in: a Channel (a Mailbox or a Stream) and protocol ids. Goes out: the agreed id. The next byte of the
channel is then the protocol's first byte. Never reads past the message it needs, and never waits for the
peer's header before it proposes. It fails at the first wrong byte, and the number of answers is bounded. The
caller sets the deadline; on any error it closes the connection or resets the stream. The part on the data
path is _fast/chain/multistream.pyx. Specification: libp2p connections, multiformats/multistream-select.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeVar

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
from p2pcore.limits import (
    MAX_MULTISTREAM_BYTES,
    MAX_MULTISTREAM_PROPOSALS,
    MAX_PROTOCOL_ID_BYTES,
    PROPOSALS_AT_ONCE,
)

if TYPE_CHECKING:
    from p2pcore.interfaces import Channel

C = TypeVar("C", bound="Channel")

STREAM_STEP: Final = "stream protocol"
"""The `stage` of errors in the negotiation at the start of a stream."""

_NEWLINE: Final = 0x0A
_HIGH_BIT: Final = 0x80
_SHOWN: Final = 8  # proposals in the text of an error
_BEGUN: Final = {"TLS": "a TLS handshake", "HTTP": "an HTTP request or answer", "SSH": "an SSH session"}


# -- messages ----------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def encode(text: str) -> bytes:
    """The message that carries `text`: length, text, newline.

    Args:
        text: a protocol id, or one of the fixed texts; 1..255 bytes of UTF-8 without a newline.

    Raises:
        LocalProtocolError: `text` is empty, has a newline or is no Unicode.
        LimitExceeded: it is too long.
    """
    try:
        body = text.encode() + b"\n"
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{text!r} is not a protocol id: {error.reason}") from None
    if len(body) - 1 > MAX_PROTOCOL_ID_BYTES:
        raise LimitExceeded("MAX_PROTOCOL_ID_BYTES", len(body) - 1, MAX_PROTOCOL_ID_BYTES)
    if len(body) == 1 or body.index(_NEWLINE) != len(body) - 1:
        raise LocalProtocolError(f"{text!r} is not a protocol id: it is empty or has a newline")
    return _prefix(len(body)) + body


def _prefix(length: int) -> bytes:
    return bytes((length,)) if length < _HIGH_BIT else bytes((length & 0x7F | _HIGH_BIT, length >> 7))


def body_length(prefix: bytes) -> int:
    """The number of bytes after `prefix`, a length of one byte, or two if the first has its high bit set.

    Raises:
        NegotiationError: zero, over the limit, longer than two bytes, or not in its shortest form.
    """
    length = prefix[0]
    if length >= _HIGH_BIT:
        length = length & 0x7F | prefix[1] << 7
        if length < _HIGH_BIT:  # a third byte would make it too long for the next check
            raise NegotiationError(f"{prefix.hex()} is not a valid multistream-select length")
    if not 0 < length <= MAX_MULTISTREAM_BYTES:
        raise NegotiationError(
            f"a multistream-select message of {length} bytes; 1 to {MAX_MULTISTREAM_BYTES} are allowed"
        )
    return length


def text_of(message: bytes) -> str | None:
    """The text of a whole message. None: it cannot be a protocol id (newline inside, bad UTF-8)."""
    text = message[2 if message[0] >= _HIGH_BIT else 1 : -1]
    if _NEWLINE in text:
        return None
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


async def _read_message(io: Channel, prefix: bytes) -> bytes:
    """Reads exactly to the end of the message that begins with `prefix`. Returns: it, with the prefix."""
    if prefix[0] >= _HIGH_BIT:
        prefix += await io.read_exactly(1)
    message = prefix + await io.read_exactly(body_length(prefix))
    # The random bytes of a TLS hello have a newline at the end of such a "message" once in 256 times.
    if message[-1] != _NEWLINE or (text_of(message) is None and spoken(message) is not None):
        raise NegotiationError(_strange(message))
    return message


async def _read_one_of(io: Channel, *hoped: bytes) -> bytes:
    """Reads one of the `hoped` messages. Fails at the first byte that fits none of them."""
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
    """Describes `data`, which is not one of the expected messages."""
    name = spoken(data)
    begun = "" if name is None else f": these bytes begin {_BEGUN[name]}"
    return f"{data[:32]!r} came in place of a multistream-select message{begun}"


# -- initiator ---------------------------------------------------------------------------------


async def select(io: Channel, protocols: Sequence[str], step: str = STREAM_STEP) -> str:
    """Proposes `protocols` in order until the peer takes one.

    The header and the first proposal are sent in one write. If this is cancelled or fails, `io` cannot be
    used any more.

    Args:
        io: the channel to negotiate on.
        protocols: 1 to 64 protocol ids, in order of preference.
        step: the purpose of the negotiation. Errors have it in their text and in `stage`.

    Returns:
        The protocol that the peer took.

    Raises:
        ProtocolNotSupported: the peer speaks none of them.
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
        why = f"the peer ended the negotiation before it took one of {_listed(protocols)}"
        raise _failed(step, why) from error
    except NegotiationError as error:
        raise _failed(step, f"we proposed {_listed(protocols)}, and {error}") from None
    if taken is None:
        raise ProtocolNotSupported(protocols, step)
    return protocols[taken]


async def _propose(io: Channel, proposals: Sequence[bytes]) -> int | None:
    """The index of the proposal that the peer has echoed. None: it has echoed none."""
    await _write(io, HEADER + proposals[0])
    answer = io.take_opening()
    if answer is None:
        await _read_one_of(io, HEADER)
        answer = await _read_one_of(io, proposals[0], NOT_AVAILABLE, HEADER)
    if answer == HEADER:  # js-libp2p may repeat it
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
    """The lazy form, for a single protocol: does not wait. The proposal is sent with the next write.

    The answer is checked when it comes, before a read gives any data (Channel.expect). The peer may refuse
    after we have sent a request. So use this only if it does no harm that the peer drops the request.

    Raises:
        LimitExceeded, LocalProtocolError: `protocol` cannot be proposed.
        ConnectionClosed, StreamReset: `io` failed.
    """
    opening = _opening(protocol)
    io.expect(opening, protocol, step)
    io.write_later(opening)


@lru_cache(maxsize=512)
def _opening(protocol: str) -> bytes:
    """The message that proposes `protocol`. The message that accepts it is the same."""
    return HEADER + encode(protocol)


# -- responder ---------------------------------------------------------------------------------


async def handle(
    io: C, supported: Container[str], step: str = STREAM_STEP, is_long: Callable[[C], None] | None = None
) -> str:
    """Answers proposals until one is in `supported`.

    If the peer sent its header and proposal in one write, our header and answer leave in one write too. The
    last answer leaves with the next write, or when a read has to wait. If this is cancelled or fails, `io`
    cannot be used any more.

    Args:
        io: the channel to negotiate on.
        supported: the protocol ids we speak. It is asked once for each proposal.
        step: the purpose of the negotiation. Errors have it in their text and in `stage`.
        is_long: called once, with `io`, when PROPOSALS_AT_ONCE proposals were refused. What it raises ends
            the negotiation.

    Returns:
        The agreed protocol. Bytes that the peer sent after its proposal are still in `io`.

    Raises:
        ProtocolNotSupported: we refused a proposal, and the peer did not go on or sent something else.
        NegotiationError: the peer ended or broke the negotiation, or we have refused 64 proposals.
        ConnectionClosed, StreamReset: `io` failed.
    """
    refused: list[bytes] = []
    try:
        opening = io.take_opening()
        agreed = None if opening is None else _taken(io, supported, HEADER, opening)
        if agreed is not None:  # nearly always
            return agreed
        return await _answer(io, supported, opening, refused, is_long)
    except (IncompleteRead, NegotiationError, ConnectionClosed) as error:
        if 0 < len(refused) < MAX_MULTISTREAM_PROPOSALS:
            raise _refused(step, refused, error) from error
        if isinstance(error, ConnectionClosed):
            raise
        if isinstance(error, IncompleteRead):
            raise _failed(step, "the peer ended the negotiation before it made a proposal") from error
        raise _failed(step, str(error)) from None


async def _answer(
    io: C,
    supported: Container[str],
    message: bytes | None,
    refused: list[bytes],
    is_long: Callable[[C], None] | None,
) -> str:
    """Goes on behind the header and `message`, which we do not support; None: nothing has been read yet."""
    header = HEADER
    is_refused = message is not None
    if message is None:
        await _read_one_of(io, HEADER)
        first = Begun(io.read_exactly(1))
        if not first.is_done:  # the peer waits for our header before it proposes (py-libp2p)
            await _write(io, header)
            header = b""
        message = await _read_message(io, await first)
    for count in range(MAX_MULTISTREAM_PROPOSALS):
        if count and count % PROPOSALS_AT_ONCE == 0:
            if count == PROPOSALS_AT_ONCE and is_long is not None:
                is_long(io)
            await io.turn()
        agreed = None if is_refused else _taken(io, supported, header, message)
        if agreed is not None:
            return agreed
        is_refused = False
        refused.append(message if count < _SHOWN else b"")
        await _write(io, header + NOT_AVAILABLE)
        header = b""
        message = await _read_message(io, await io.read_exactly(1))
    raise NegotiationError(f"the peer made {MAX_MULTISTREAM_PROPOSALS} proposals, and we support none")


def _taken(io: Channel, supported: Container[str], header: bytes, message: bytes) -> str | None:
    """The protocol that `message` proposes, after we have answered; None: we do not support it."""
    text = text_of(message)
    if text is None or text not in supported:
        return None
    try:
        io.write_later(header + message)
    except (ConnectionClosed, StreamReset):
        pass  # nobody hears the answer to what came with the end. It is served all the same
    return text


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
    """The error if the peer stops after we refused: it has no other proposal, or does not wait for us."""
    names = [text_of(message) or repr(message) for message in refused[:_SHOWN]]
    detail = f"; then {error}" if isinstance(error, NegotiationError) else ""
    return ProtocolNotSupported(names, step, True, detail)


def _listed(protocols: Sequence[str]) -> str:
    return ", ".join(protocols[:_SHOWN])

"""The messages of a call: how they are packed, read and checked. docs/rpc.md describes them, with vectors.

Comes in: parts of a request or an answer; a stream to read from. Goes out: bytes for one write; parts.
Whatever a peer sends, a read returns, or raises RemoteProtocolError, LimitExceeded or what the stream raises.
A length is checked before anything is awaited or allocated for it.
"""

from __future__ import annotations

import math
from struct import Struct
from typing import TYPE_CHECKING, Final

from p2pcore import limits
from p2pcore.codes import RpcCode
from p2pcore.errors import IncompleteRead, LimitExceeded, RemoteProtocolError, RpcError, rpc_error

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream

REQUEST: Final = Struct(">BBII")
"""Flags (0), length of the method's name, milliseconds left (0: no deadline), length of the body."""
ANSWER: Final = Struct(">BI")
"""Kind, length of the body."""

RESULT: Final = 0
ITEM: Final = 1
END: Final = 2
ERROR: Final = 3

_JOIN_BYTES: Final = 16 * 1024  # up to here, a copy costs less than a second write

Parts = tuple[bytes, ...]
"""What to write, in order: one write each."""


def pack_request(name: bytes, body: bytes, left_s: float | None) -> Parts:
    """A request. `left_s`: seconds until the deadline, more than 0; None: there is none."""
    left_ms = 0 if left_s is None else math.ceil(min(left_s, limits.RPC_MAX_TIMEOUT_S) * 1000)
    head = REQUEST.pack(0, len(name), left_ms, len(body)) + name
    return (head + body,) if len(body) <= _JOIN_BYTES else (head, body)


def pack_answer(kind: int, body: bytes = b"") -> Parts:
    """An answer or an item."""
    head = ANSWER.pack(kind, len(body))
    return (head + body,) if len(body) <= _JOIN_BYTES else (head, body)


def pack_error(error: RpcError) -> Parts:
    """An error. A text that is too long is cut."""
    text = error.message.encode(errors="replace")[: limits.RPC_MAX_ERROR_BYTES]
    return pack_answer(ERROR, bytes((error.code,)) + text)


def unpack_request_head(head: bytes) -> tuple[int, float | None, int]:
    """The length of the method's name, seconds left or None, the length of the body.

    Raises: RemoteProtocolError: it cannot be the head of a request.
    """
    flags, name_size, left_ms, size = REQUEST.unpack(head)
    if flags:
        raise RemoteProtocolError(f"a request with flags {flags:#04x}; this version has none")
    if not name_size:
        raise RemoteProtocolError("a request that names no method")
    return name_size, left_ms / 1000 if left_ms else None, size


async def read_answer(stream: Stream, most: int) -> tuple[int, bytes]:
    """The kind and the body of the next answer; of an error, it raises it.

    Raises:
        RpcError: the answer is an error.
        LimitExceeded: it has more than `most` bytes. RemoteProtocolError: it is no answer.
        IncompleteRead: the stream ended; its `partial` is empty if nothing of the answer has come.
    """
    head = await stream.read_exactly(ANSWER.size)
    kind, size = ANSWER.unpack(head)
    if kind == ERROR:
        raise await _read_error(stream, head, size)
    if kind > ERROR or (kind == END and size):
        raise RemoteProtocolError(f"an answer of kind {kind} with {size} bytes")
    if size > most:
        raise LimitExceeded("max_answer_bytes", size, most, setting="rpc.Client(max_answer_bytes=...)")
    if not size:
        return kind, b""
    try:
        return kind, await stream.read_exactly(size, size)
    except IncompleteRead as error:
        raise _incomplete(head, size, error) from None


async def _read_error(stream: Stream, head: bytes, size: int) -> RpcError:
    if not 1 <= size <= limits.RPC_MAX_ERROR_BYTES + 1:
        raise RemoteProtocolError(f"an error of {size} bytes; expected 1 to {limits.RPC_MAX_ERROR_BYTES + 1}")
    try:
        body = await stream.read_exactly(size, size)
    except IncompleteRead as error:
        raise _incomplete(head, size, error) from None
    try:
        code = RpcCode(body[0])
    except ValueError:
        code = RpcCode.UNKNOWN
    return rpc_error(code, body[1:].decode(errors="replace"))


def _incomplete(head: bytes, size: int, error: IncompleteRead) -> IncompleteRead:
    """The stream ended within the body of an answer."""
    return IncompleteRead(head + error.partial, len(head) + size)

"""Who dialled, and the error codes of resets and go-aways.

The codes have 32 bits. A code may get lost on the way, so nothing may depend on its delivery.
Source: libp2p/specs error-codes; the numbers are go-libp2p's (core/network).
"""

from __future__ import annotations

import enum
from typing import Final


class Direction(enum.Enum):
    """Who dialled, or who opened a stream: the peer (INBOUND) or we (OUTBOUND)."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


CONN_PROTOCOL_NEGOTIATION_FAILED: Final = 0x1000
CONN_RESOURCE_LIMIT_EXCEEDED: Final = 0x1001
CONN_RATE_LIMITED: Final = 0x1002
CONN_PROTOCOL_VIOLATION: Final = 0x1003
CONN_SUPPLANTED: Final = 0x1004
CONN_GARBAGE_COLLECTED: Final = 0x1005
CONN_SHUTDOWN: Final = 0x1006
CONN_GATED: Final = 0x1007
CONN_CODE_OUT_OF_RANGE: Final = 0x1008

STREAM_PROTOCOL_NEGOTIATION_FAILED: Final = 0x1001
STREAM_RESOURCE_LIMIT_EXCEEDED: Final = 0x1002
STREAM_RATE_LIMITED: Final = 0x1003
STREAM_PROTOCOL_VIOLATION: Final = 0x1004
STREAM_SUPPLANTED: Final = 0x1005
STREAM_GARBAGE_COLLECTED: Final = 0x1006
STREAM_SHUTDOWN: Final = 0x1007
STREAM_GATED: Final = 0x1008
STREAM_CODE_OUT_OF_RANGE: Final = 0x1009

_CONN_REASONS: Final = {0: "in good order", 1: "protocol error", 2: "internal error"}  # as yamux has them
_STREAM_REASONS: Final[dict[int, str]] = {}
for _name, _value in list(globals().items()):
    _kind, _, _words = _name.partition("_")
    if _kind in ("CONN", "STREAM") and isinstance(_value, int):
        (_CONN_REASONS if _kind == "CONN" else _STREAM_REASONS)[_value] = _words.replace("_", " ").lower()


class RpcCode(enum.IntEnum):
    """Why a call failed. The names, numbers and meanings are gRPC's; a peer's other numbers mean UNKNOWN."""

    CANCELLED = 1
    """The caller no longer wants the answer."""
    UNKNOWN = 2
    """The peer sent a number that is not in this table."""
    INVALID_ARGUMENT = 3
    """The request is wrong, whatever the state of the service."""
    DEADLINE_EXCEEDED = 4
    """The deadline passed. The call may have run, or may still run."""
    NOT_FOUND = 5
    """What the request names is not there."""
    ALREADY_EXISTS = 6
    """What the request would create is there."""
    PERMISSION_DENIED = 7
    """This peer may not."""
    RESOURCE_EXHAUSTED = 8
    """A limit of the service or of the caller: too many calls, or a message that is too large."""
    FAILED_PRECONDITION = 9
    """The state of the service does not allow it. The same call fails again until somebody changes that."""
    ABORTED = 10
    """Another call came in between. The caller may begin again from the start."""
    OUT_OF_RANGE = 11
    """Past the end of something."""
    UNIMPLEMENTED = 12
    """The peer has no such service or method."""
    INTERNAL = 13
    """The service failed, or one side broke the protocol of calls."""
    UNAVAILABLE = 14
    """The peer cannot be reached now, or the connection was lost. The call may have run."""
    DATA_LOSS = 15
    """Data is lost for good."""
    UNAUTHENTICATED = 16
    """The request does not show who asks."""


class Undelivered(enum.IntEnum):
    """Why a message to a peer of a fleet failed. The numbers travel between the processes of a fleet."""

    NOT_CONNECTED = 1
    """No process of the fleet has a connection to the peer."""
    GONE = 2
    """The connection, or the process that had it, has ended meanwhile."""
    REFUSED = 3
    """The peer reset the stream, or ended it without an answer."""
    NOT_SUPPORTED = 4
    """The peer does not speak the protocol."""
    BAD_ANSWER = 5
    """The answer of the peer is malformed or too long."""
    TIMEOUT = 6
    """The deadline passed."""
    BUS_DOWN = 7
    """The engine of the bus is away, and the peer is not connected to this process."""
    BUSY = 8
    """Too many requests are under way in this process, or in the one that has the connection."""
    ELSEWHERE = 9
    """A stream was asked for that does not go over the bus, and no worker of this machine has the peer."""


RPC_RESET_BASE: Final = 0x10000
"""A reset that ends a call has this plus its RpcCode as code. 0 to 10000, a decimal number, are libp2p's (its
specification "Error Codes"); this is above it, also for who takes that number as hexadecimal."""
for _code in RpcCode:
    _STREAM_REASONS[RPC_RESET_BASE + _code] = f"call {_code.name.replace('_', ' ').lower()}"


def conn_reason(code: int) -> str:
    """What the code of a go-away means: "gated (0x1007)". The code of an application is a number: "0x2a"."""
    return _reason(_CONN_REASONS, code)


def stream_reason(code: int) -> str:
    """What the code of a reset means, as `conn_reason`."""
    return _reason(_STREAM_REASONS, code)


def _reason(reasons: dict[int, str], code: int) -> str:
    words = reasons.get(code)
    return f"{code:#x}" if words is None else f"{words} ({code:#x})"

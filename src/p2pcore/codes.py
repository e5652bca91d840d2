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


def conn_reason(code: int) -> str:
    """What the code of a go-away means: "gated (0x1007)". The code of an application is a number: "0x2a"."""
    return _reason(_CONN_REASONS, code)


def stream_reason(code: int) -> str:
    """What the code of a reset means, as `conn_reason`."""
    return _reason(_STREAM_REASONS, code)


def _reason(reasons: dict[int, str], code: int) -> str:
    words = reasons.get(code)
    return f"{code:#x}" if words is None else f"{words} ({code:#x})"

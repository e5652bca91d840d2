"""Who dialled a connection, or opened a stream.

Comes in: nothing. Goes out: an enum that every layer shares. Never anything else.
"""

from __future__ import annotations

import enum


class Direction(enum.Enum):
    """The peer did (INBOUND) or we did (OUTBOUND)."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"

"""The attributes of log records that name a connection.

Comes in: a connection. Goes out: a dict for the argument `extra` of a logger. Making it takes microseconds,
so look at `isEnabledFor` first where records are frequent.
"""

from __future__ import annotations

from typing import Any, Protocol


class Named(Protocol):
    """What is read of a connection."""

    @property
    def id(self) -> str: ...
    @property
    def remote_peer(self) -> object: ...


def of_conn(conn: Named | None) -> dict[str, Any]:
    """`conn`: its id, and `peer`: the id of the peer. Empty for None: the connection has ended."""
    return {} if conn is None else {"conn": conn.id, "peer": str(conn.remote_peer)}

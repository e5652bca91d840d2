"""What `p2pcore listen` shows, in one process or in several: addresses, and connections that open and end.

Comes in: addresses, notifications of a host. Goes out: lines and JSON objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from p2pcore import Conn, Multiaddr, Network


def show_addrs(addrs: Sequence[Multiaddr], show: Callable[..., object]) -> None:
    """Shows each address on a line of its own, with `show(line, **fields)`."""
    for addr in addrs:
        show(str(addr), event="listening", addr=str(addr))


class Shown:
    """Shows connections when they open and end, with `show(line, **fields)`."""

    def __init__(self, show: Callable[..., object]) -> None:
        self._show = show
        self._since: dict[Conn, float] = {}

    def listen(self, network: Network, addr: Multiaddr) -> None:
        """Shows nothing: `show_addrs` shows the addresses."""

    def listen_close(self, network: Network, addr: Multiaddr) -> None:
        """Shows nothing: the log has it."""

    def connected(self, network: Network, conn: Conn) -> None:
        self._since[conn] = time.monotonic()
        state = conn.state
        self._show(
            f"+ {conn.remote_peer} {conn.remote_multiaddr or '-'} {state.security} {state.muxer}",
            event="connected",
            peer=str(conn.remote_peer),
            addr=_text(conn.remote_multiaddr),
            direction=conn.direction.value,
            security=state.security,
            muxer=state.muxer,
        )

    def disconnected(self, network: Network, conn: Conn) -> None:
        seconds = time.monotonic() - self._since.pop(conn, time.monotonic())
        self._show(
            f"- {conn.remote_peer} {conn.remote_multiaddr or '-'} after {seconds:.1f} s",
            event="disconnected",
            peer=str(conn.remote_peer),
            addr=_text(conn.remote_multiaddr),
            seconds=round(seconds, 3),
        )


def _text(addr: Multiaddr | None) -> str | None:
    """The text of `addr`, or None if the peer has no address (UNIX socket)."""
    return None if addr is None else str(addr)

"""What `p2pcore listen` shows, in one process or in several: its addresses, connections that come and go.

Comes in: addresses, notifications of a host. Goes out: lines and JSON objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from p2pcore import Conn, Multiaddr, Network
from p2pcore.cli.output import Output


def show_addrs(addrs: Sequence[Multiaddr], output: Output) -> None:
    """Shows each address on a line of its own."""
    for addr in addrs:
        output.show(str(addr), event="listening", addr=str(addr))


class Shown:
    """Shows connections as they come and go, with `show(line, **fields)`."""

    def __init__(self, show: Callable[..., object]) -> None:
        self._show = show
        self._since: dict[Conn, float] = {}

    def listen(self, network: Network, addr: Multiaddr) -> None:
        """Shown by `show_addrs`, with the interface addresses."""

    def listen_close(self, network: Network, addr: Multiaddr) -> None:
        """The log says so."""

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
    """None where the peer has no address: on a UNIX socket."""
    return None if addr is None else str(addr)

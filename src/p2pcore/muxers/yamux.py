"""The yamux multiplexer: its name and its options.

_fast/mux/yamux.pyx reads and writes the frames. Spec: libp2p/specs yamux.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pcore import limits, options
from p2pcore._fast.mux.yamux import YamuxSession
from p2pcore.muxers.start import SessionStarter

PROTOCOL: Final = "/yamux/1.0.0"


@dataclass(frozen=True, slots=True)
class YamuxOptions:
    """The bounds of one session.

    Attributes:
        max_inbound_streams: streams of the peer in use here; further ones are reset one by one.
        max_outbound_streams: our open streams; open_stream waits above that, or earlier if the peer takes
            fewer.
        ack_backlog: our streams that the peer has not acknowledged; open_stream waits above that.
        max_window_bytes: the largest receive window of a stream, 262144 bytes to 1 GiB.
        window_budget_bytes: how many bytes all windows together may grow.
        keepalive_s: idle seconds before a ping that the peer must answer within 10 s; 0: no pings. 0 is right
            on TCP: the kernel's keepalive finds a dead peer without waking this process. A write that waits
            for the peer's window sends a ping by itself.
        refused_per_s, refused_burst: if the peer opens streams beyond a limit, each is refused. How many we
            refuse per second and at once before the connection ends.
        resets_per_s, reset_burst: how many streams the peer may open and reset before we have answered, per
            second and at once, before the connection ends.

    Raises:
        TypeError, ValueError: a field has a wrong type or value.
    """

    max_inbound_streams: int = limits.YAMUX_MAX_INBOUND_STREAMS
    max_outbound_streams: int = limits.YAMUX_MAX_OUTBOUND_STREAMS
    ack_backlog: int = limits.YAMUX_ACK_BACKLOG
    max_window_bytes: int = limits.YAMUX_MAX_WINDOW_BYTES
    window_budget_bytes: int = limits.YAMUX_WINDOW_BUDGET_BYTES
    keepalive_s: float = 0.0
    refused_per_s: int = limits.REFUSED_STREAMS_PER_S
    refused_burst: int = limits.REFUSED_STREAMS_BURST
    resets_per_s: int = limits.RESET_STREAMS_PER_S
    reset_burst: int = limits.RESET_STREAMS_BURST

    def __post_init__(self) -> None:
        for name in ("refused_per_s", "refused_burst", "resets_per_s", "reset_burst"):
            options.whole(name, getattr(self, name), 1)
        least, most = limits.YAMUX_INITIAL_WINDOW_BYTES, limits.YAMUX_HIGHEST_WINDOW_BYTES
        options.whole("max_inbound_streams", self.max_inbound_streams)
        options.whole("max_outbound_streams", self.max_outbound_streams, 1)
        options.whole("ack_backlog", self.ack_backlog, 1)
        options.whole("max_window_bytes", self.max_window_bytes, least, most)
        options.whole("window_budget_bytes", self.window_budget_bytes, most=limits.MAX_SIZE_BYTES)
        options.seconds("keepalive_s", self.keepalive_s, or_zero=True, why="never")


class YamuxMultiplexer(SessionStarter[YamuxSession]):
    """Starts yamux sessions; satisfies interfaces.Multiplexer."""

    __slots__ = ()

    protocol = PROTOCOL

    def __init__(self, options: YamuxOptions | None = None) -> None:
        super().__init__(YamuxSession, options or YamuxOptions())

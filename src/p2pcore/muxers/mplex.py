"""The mplex multiplexer: its name and its options. Deprecated, for peers that support nothing better.

It has no flow control. _fast/mux/mplex.pyx reads and writes the messages. Spec: libp2p/specs mplex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pcore import limits, options
from p2pcore._fast.mux.mplex import MplexSession
from p2pcore.muxers.start import SessionStarter

PROTOCOL: Final = "/mplex/6.7.0"


@dataclass(frozen=True, slots=True)
class MplexOptions:
    """The bounds of one session.

    Attributes:
        max_inbound_streams: streams of the peer in use here; further ones are reset one by one.
        max_outbound_streams: our open streams; open_stream waits above that.
        max_stream_bytes: received and unread bytes at which a stream is full, at least 262144; up to one
            receive buffer (limits.RECEIVE_BUFFER_BYTES) more may arrive.
        max_buffered_bytes: the same for all streams together, at least max_stream_bytes.
        stall_s: seconds without reading the connection when a stream is full, until half of it has been
            read; then that stream is reset.
        refused_per_s, refused_burst: how many streams of the peer we refuse so, per second and at once,
            before the connection ends.
        resets_per_s, reset_burst: how many streams the peer may open and reset before we have answered, per
            second and at once, before the connection ends.

    Raises:
        TypeError, ValueError: a field has a wrong type or value.
    """

    max_inbound_streams: int = limits.MPLEX_MAX_INBOUND_STREAMS
    max_outbound_streams: int = limits.MPLEX_MAX_OUTBOUND_STREAMS
    max_stream_bytes: int = limits.MPLEX_STREAM_BUFFER_BYTES
    max_buffered_bytes: int = limits.MPLEX_MAX_BUFFERED_BYTES
    stall_s: float = limits.MPLEX_STALL_S
    refused_per_s: int = limits.REFUSED_STREAMS_PER_S
    refused_burst: int = limits.REFUSED_STREAMS_BURST
    resets_per_s: int = limits.RESET_STREAMS_PER_S
    reset_burst: int = limits.RESET_STREAMS_BURST

    def __post_init__(self) -> None:
        for name in ("refused_per_s", "refused_burst", "resets_per_s", "reset_burst"):
            options.whole(name, getattr(self, name), 1)
        least, most = limits.MPLEX_STREAM_BUFFER_BYTES, limits.MAX_SIZE_BYTES
        options.whole("max_inbound_streams", self.max_inbound_streams)
        options.whole("max_outbound_streams", self.max_outbound_streams)
        options.whole("max_stream_bytes", self.max_stream_bytes, least, most)
        options.whole("max_buffered_bytes", self.max_buffered_bytes, self.max_stream_bytes, most)
        options.seconds("stall_s", self.stall_s, or_zero=True)


class MplexMultiplexer(SessionStarter[MplexSession]):
    """Starts mplex sessions; satisfies interfaces.Multiplexer."""

    __slots__ = ()

    protocol = PROTOCOL

    def __init__(self, options: MplexOptions | None = None) -> None:
        super().__init__(MplexSession, options or MplexOptions())

"""The mplex multiplexer: its name, its options, and how a session takes its place on a chain.

Comes in: a mailbox on top of a record layer. Goes out: an MplexSession. Never reads or writes a message
itself: that is _fast.mplex. Deprecated, and without flow control: for peers that have nothing better.
Spec: libp2p/specs mplex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pcore import limits, options
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.mux.mplex import MplexSession
from p2pcore._fast.mux.session import Allowance

PROTOCOL: Final = "/mplex/6.7.0"


@dataclass(frozen=True, slots=True)
class MplexOptions:
    """Bounds of one session.

    Attributes:
        max_inbound_streams: streams of the peer in use here; more are reset one by one.
        max_outbound_streams: open streams of ours; open_stream waits beyond.
        max_stream_bytes: received and unread bytes at which a stream is full, at least 262144; up to one
            receive buffer (limits.RECEIVE_BUFFER_BYTES) more may be under way.
        max_buffered_bytes: the same of all streams together, at least max_stream_bytes.
        stall_s: for how long the connection is not read when a stream is full, until it is read down to
            half; then that stream is reset.
        refused_per_s, refused_burst: streams of the peer that are reset so, each second and at once,
            before the connection ends.
        resets_per_s, reset_burst: streams the peer may open, then reset before we have answered, each second
            and at once, before the connection ends.

    Raises:
        TypeError, ValueError: a field is not what is said above.
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


class MplexMultiplexer:
    """Starts mplex sessions; satisfies interfaces.Multiplexer."""

    __slots__ = ("_allowance", "options")

    protocol = PROTOCOL

    def __init__(self, options: MplexOptions | None = None) -> None:
        o = self.options = options or MplexOptions()
        self._allowance = Allowance(o.refused_per_s, o.refused_burst, o.resets_per_s, o.reset_burst)

    def start(self, mailbox: Mailbox, is_client: bool) -> MplexSession:
        """A session in the place of `mailbox`; what that holds is the session's first input.

        Raises:
            ConnectionClosed: the chain is gone.
            LocalProtocolError: there is no record layer below.
        """
        o = self.options
        session = MplexSession(
            is_client,
            max_inbound_streams=o.max_inbound_streams,
            max_outbound_streams=o.max_outbound_streams,
            max_stream_bytes=o.max_stream_bytes,
            max_buffered_bytes=o.max_buffered_bytes,
            stall_s=o.stall_s,
            allowance=self._allowance,
        )
        mailbox.replace(session)
        return session

"""The yamux multiplexer: its name, its options, and how a session takes its place on a chain.

Comes in: a mailbox on top of a record layer. Goes out: a YamuxSession. Never reads or writes a
frame itself: that is _fast.yamux. Spec: libp2p/specs yamux.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pcore import limits, options
from p2pcore._fast.chain.layer import Mailbox
from p2pcore._fast.mux.session import Allowance
from p2pcore._fast.mux.yamux import YamuxSession

PROTOCOL: Final = "/yamux/1.0.0"


@dataclass(frozen=True, slots=True)
class YamuxOptions:
    """Bounds of one session.

    Attributes:
        max_inbound_streams: streams of the peer in use here; more are reset one by one.
        max_outbound_streams: open streams of ours; open_stream waits beyond, and earlier where the peer
            takes fewer.
        ack_backlog: streams we opened that the peer has not acknowledged; open_stream waits beyond.
        max_window_bytes: where a stream's receive window stops growing, 262144 bytes to 1 GiB.
        window_budget_bytes: by how much the windows of all streams together may grow.
        keepalive_s: idle seconds before a ping that must be answered within 10 s; 0 for never, which is
            right on TCP: the kernel's keepalive finds a dead peer without waking this process.
        refused_per_s, refused_burst: streams of the peer that are reset so, each second and at once,
            before the connection ends.
        resets_per_s, reset_burst: streams the peer may open, then reset before we have answered, each second
            and at once, before the connection ends.

    Raises:
        TypeError, ValueError: a field is not what is said above.
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


class YamuxMultiplexer:
    """Starts yamux sessions; satisfies interfaces.Multiplexer."""

    __slots__ = ("_allowance", "options")

    protocol = PROTOCOL

    def __init__(self, options: YamuxOptions | None = None) -> None:
        o = self.options = options or YamuxOptions()
        self._allowance = Allowance(o.refused_per_s, o.refused_burst, o.resets_per_s, o.reset_burst)

    def start(self, mailbox: Mailbox, is_client: bool) -> YamuxSession:
        """A session in the place of `mailbox`; what that holds is the session's first input.

        Raises:
            ConnectionClosed: the chain is gone.
            LocalProtocolError: there is no record layer below.
        """
        o = self.options
        session = YamuxSession(
            is_client,
            max_inbound_streams=o.max_inbound_streams,
            max_outbound_streams=o.max_outbound_streams,
            ack_backlog=o.ack_backlog,
            max_window_bytes=o.max_window_bytes,
            window_budget_bytes=o.window_budget_bytes,
            keepalive_s=o.keepalive_s,
            allowance=self._allowance,
        )
        mailbox.replace(session)
        return session

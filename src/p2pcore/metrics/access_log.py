"""The access log: a record when a connection ends, is refused or fails, and if asked when a stream ends.

Comes in: ends and refusals, from the event loop. Goes out: records of the logger "p2pcore.access", with a
short text and the facts in `extra`. A flood of refusals makes few records: ACCESS_LOG_PER_S a second for each
kind, and one with the number of the others. Never a payload, never a key. Off, it does not exist.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from p2pcore import limits, options
from p2pcore.aio.log_fields import of_conn
from p2pcore.errors import GaterRefused, GoAway, LimitExceeded, StreamReset
from p2pcore.metrics.names import OTHER

if TYPE_CHECKING:
    from p2pcore._fast.loop.metrics import Traffic
    from p2pcore.interfaces import Conn, Stream
    from p2pcore.values.multiaddr import Multiaddr

logger = logging.getLogger("p2pcore.access")


@dataclass(frozen=True, slots=True)
class AccessLogOptions:
    """What the access log records.

    Attributes:
        streams: also each inbound stream, when its handler has returned.
        refused: also connections that were refused, or whose handshake failed.
        every: one of so many connections, with its streams; 1: all. Refusals are not sampled.

    Raises:
        TypeError, ValueError: a field has a wrong type or value. The message names it.
    """

    streams: bool = False
    refused: bool = True
    every: int = 1

    def __post_init__(self) -> None:
        options.flag("streams", self.streams)
        options.flag("refused", self.refused)
        options.whole("every", self.every, 1)


class Refusal(Protocol):
    """What is read of an event Refused."""

    @property
    def peer(self) -> object: ...
    @property
    def addr(self) -> object: ...
    @property
    def error(self) -> BaseException: ...


class AccessLog:
    """The access log of one host. Make it while nothing is connected; call it from the event loop.

    Args:
        settings: see AccessLogOptions.
    """

    def __init__(self, settings: AccessLogOptions) -> None:
        self._settings = settings
        self._refusals = Flood()

    def conn_closed(self, conn: Conn, error: BaseException | None, seconds: float) -> None:
        """`conn` has ended with `error`, `seconds` after it opened."""
        if not is_sampled(conn, self._settings.every) or not logger.isEnabledFor(logging.INFO):
            return
        stat, state = conn.stat, conn.state
        fields = {
            **of_conn(conn),
            "event": "connection",
            "addr": _text(conn.remote_multiaddr),
            "dir": conn.direction.value,
            "transport": state.transport,
            "security": state.security,
            "muxer": state.muxer,
            "seconds": round(seconds, 6),
            "bytes_in": stat.bytes_in,
            "bytes_out": stat.bytes_out,
            "streams_in": stat.num_streams_in,
            "streams_out": stat.num_streams_out,
            "agent": stat.agent,
            **reason(error),
        }
        text = "%s connection %s ended after %.3f s: %s"
        logger.info(text, fields["dir"], conn.id, seconds, fields["reason"], extra=fields)

    @property
    def streams(self) -> StreamLog | None:
        """Takes the streams; None: they are not recorded."""
        return StreamLog(self._settings.every) if self._settings.streams else None

    def refused(self, event: Callable[[], Refusal]) -> None:
        """The gater or a limit has refused a connection. `event` is made only if it is recorded."""
        if self._is_wanted("refused"):
            made = event()
            fields = {"event": "refused", "peer": _text(made.peer), "addr": _text(made.addr)}
            fields |= reason(made.error)
            logger.info("refused %s: %s", fields["addr"], fields["reason"], extra=fields)

    def failed(self, stage: str, error: BaseException, remote: Multiaddr | None) -> None:
        """The upgrade of an inbound connection has failed in `stage`."""
        if self._is_wanted(stage):
            fields = {"event": "failed", "addr": _text(remote), "reason": stage, "error": str(error)}
            logger.info("handshake with %s failed: %s", fields["addr"], stage, extra=fields)

    def _is_wanted(self, why: str) -> bool:
        """Whether one more record of this kind is made now."""
        return (
            self._settings.refused and logger.isEnabledFor(logging.INFO) and self._refusals.has_room_for(why)
        )

    def close(self) -> None:
        """Says how many records were not made in the present second. Idempotent."""
        self._refusals.close()


class Flood:
    """Bounds records by their reason: so many a second, then one with the number of the others."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def has_room_for(self, why: str) -> bool:
        """Whether one more record for this reason is made. The first one begins a second."""
        if why not in self._counts and len(self._counts) >= limits.MAX_ACCESS_REASONS:
            why = OTHER
        count = self._counts[why] = self._counts.get(why, 0) + 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self.close)
        return count <= limits.ACCESS_LOG_PER_S

    def close(self) -> None:
        """Ends the second."""
        counts, self._counts = self._counts, {}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for why, count in counts.items():
            left_out = count - limits.ACCESS_LOG_PER_S
            if left_out > 0:
                fields = {"event": "left out", "reason": why, "count": left_out}
                logger.info("%d more refused or failed within a second: %s", left_out, why, extra=fields)


class StreamLog:
    """Records inbound streams.

    Args:
        every: see AccessLogOptions.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._begun: dict[Stream, tuple[float, Traffic]] = {}

    def stream_began(self, stream: Stream, traffic: Traffic) -> None:
        """A handler gets `stream`, which `traffic` alone counts."""
        if is_sampled(stream.conn, self._every) and logger.isEnabledFor(logging.INFO):
            self._begun[stream] = (asyncio.get_running_loop().time(), traffic)

    def stream_ended(self, stream: Stream, error: BaseException | None) -> None:
        """The handler of `stream` has returned, or raised `error`."""
        began_at, traffic = self._begun.pop(stream, (0.0, None))
        if traffic is None:
            return
        seconds = asyncio.get_running_loop().time() - began_at
        fields = {
            **of_conn(stream.conn),
            "event": "stream",
            "protocol": stream.protocol,
            "stream": stream.id,
            "seconds": round(seconds, 6),
            "bytes_in": traffic.received,
            "bytes_out": traffic.sent,
            **reason(error),
        }
        text = "stream %d of %s on %s ended after %.3f s: %s"
        logger.info(text, stream.id, stream.protocol, fields["conn"], seconds, fields["reason"], extra=fields)


# -- fields ------------------------------------------------------------------------------------


def reason(error: BaseException | None) -> dict[str, Any]:
    """The fields that say why something has ended: a word of ours, and the code that was sent or received."""
    if error is None:
        return {"reason": "ended", "code": None}
    if isinstance(error, (GoAway, StreamReset)):
        who = "by the peer" if error.remote else "here"
        what = "closed" if isinstance(error, GoAway) else "reset"
        return {"reason": f"{what} {who}", "code": error.code}
    if isinstance(error, LimitExceeded):
        return {"reason": error.limit.partition(" of /")[0], "code": None, "limit": error.maximum}
    if isinstance(error, GaterRefused):
        return {"reason": "gater", "code": error.code, "point": error.point, "why": error.reason}
    return {"reason": type(error).__name__, "code": getattr(error, "code", None), "error": str(error)}


def is_sampled(conn: Conn, every: int) -> bool:
    """Whether this connection is one of those that are recorded: its number says so, for its streams too."""
    return every == 1 or int(conn.id.rpartition("-")[2]) % every == 0


def _text(value: object) -> str | None:
    return None if value is None else str(value)

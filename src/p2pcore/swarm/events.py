"""What happens to a node, as values: `async for event in host.events(...)`.

Comes in: what an event is about. Goes out: frozen values. Never acts. A node that nobody watches does not
import this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pcore.codes import Direction
    from p2pcore.errors import P2PError
    from p2pcore.interfaces import Conn
    from p2pcore.swarm.conns import Connectedness
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId


@dataclass(frozen=True, slots=True)
class Event:
    """Root of all events."""


@dataclass(frozen=True, slots=True)
class ListenerOpened(Event):
    """Something listens on `addr`, with its real port."""

    addr: Multiaddr


@dataclass(frozen=True, slots=True)
class ListenerRetrying(Event):
    """The listener on `addr` pauses or binds again because of `error`. It continues to try."""

    addr: Multiaddr
    error: BaseException


@dataclass(frozen=True, slots=True)
class ListenerRecovered(Event):
    """The listener on `addr` takes connections again."""

    addr: Multiaddr


@dataclass(frozen=True, slots=True)
class ListenerEnded(Event):
    """The listener on `addr` has ended. `error` is the reason, or None if somebody closed it."""

    addr: Multiaddr
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class ConnOpened(Event):
    """The swarm has taken `conn` over."""

    conn: Conn


@dataclass(frozen=True, slots=True)
class ConnClosed(Event):
    """`conn` has ended.

    Attributes:
        conn: the connection. Only its description can be used now.
        error: the reason: a GoAway, a ConnectionClosed or another error. None: unknown.
        code: the code of the go-away (see p2pcore.codes). None: there was no go-away.
        by_peer: True if the peer sent the go-away.
    """

    conn: Conn
    error: BaseException | None
    code: int | None
    by_peer: bool


@dataclass(frozen=True, slots=True)
class ConnTrimmed(Event):
    """The connection manager closes `conn`. A ConnClosed follows.

    Attributes:
        conn: the connection.
        reason: "marks": there were too many connections. "crowd": too many of them from its block or its
            peer. "room": something has run short. "idle": it had no stream for too long. "memory": it held
            too much.
        value: the sum of the tags of its peer.
    """

    conn: Conn
    reason: str
    value: float


@dataclass(frozen=True, slots=True)
class KeepLost(Event):
    """A peer that is kept (see ConnManager.keep) is not connected any more, or cannot be reached at first.

    It is dialled until a KeepRestored. `error`: why it was lost; None: unknown.
    """

    peer: PeerId
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class KeepRestored(Event):
    """A peer that is kept is connected again, by `conn`."""

    peer: PeerId
    conn: Conn


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """This node has begun to drain: it is not ready for new peers any more.

    Attributes:
        delay_s: seconds until its listeners close.
        timeout_s: seconds that streams may go on after that.
    """

    delay_s: float
    timeout_s: float


@dataclass(frozen=True, slots=True)
class PeerDraining(Event):
    """The peer of `conn` is draining. Streams on `conn` go on; new streams take another connection."""

    conn: Conn


@dataclass(frozen=True, slots=True)
class UpgradeFailed(Event):
    """A raw connection was made, but the upgrade (security and multiplexer) failed.

    Attributes:
        direction: who dialled. stage: the step that failed, or another reason ("timeout").
        error: the error. local, remote: our address (of the listener, if inbound), and the peer's.
    """

    direction: Direction
    stage: str
    error: BaseException
    local: Multiaddr | None
    remote: Multiaddr | None


@dataclass(frozen=True, slots=True)
class DialFailed(Event):
    """No address worked in a dial. `peer`: None if any peer would do. `error` is usually a DialError."""

    peer: PeerId | None
    error: BaseException


@dataclass(frozen=True, slots=True)
class AddrsChanged(Event):
    """The addresses we listen on have changed. In `addrs`, interface addresses replace a wildcard."""

    addrs: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class ConnectednessChanged(Event):
    """The connectedness of `peer` has changed. `connectedness` is the new one."""

    peer: PeerId
    connectedness: Connectedness


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The gater or a cap has refused a connection.

    Attributes:
        peer, addr: None if not known at that moment.
        error: GaterRefused with its `point`, or LimitExceeded with its `limit`.
    """

    peer: PeerId | None
    addr: Multiaddr | None
    error: P2PError


@dataclass(frozen=True, slots=True)
class Missed(Event):
    """`count` events before the next one were dropped, because the subscriber did not read them in time."""

    count: int

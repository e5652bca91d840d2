"""p2pcore: a libp2p networking core. The public names, and nothing else.

Importing it opens no socket, starts no event loop and reads no file; each name is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from p2pcore.version import __version__

if TYPE_CHECKING:
    from p2pcore.errors import (
        AddressError,
        AddressInBackoff,
        BlackHoleSuspected,
        ConnectionClosed,
        DeadlineExceeded,
        DialError,
        GaterRefused,
        GoAway,
        HandshakeError,
        IdentityError,
        IncompleteRead,
        LimitedConnection,
        LimitExceeded,
        ListenerClosed,
        ListenError,
        LocalProtocolError,
        NegotiationError,
        NegotiationTimeout,
        NoTransport,
        P2PError,
        PeerIdMismatch,
        PeerIsSelf,
        ProtocolError,
        ProtocolNotSupported,
        RelayRefused,
        RemoteProtocolError,
        ResolutionError,
        StreamClosed,
        StreamError,
        StreamReset,
        SwarmClosed,
        WorkerFailed,
        WrongNetworkKey,
    )
    from p2pcore.host import Host, run
    from p2pcore.interfaces import (
        Conn,
        ConnStat,
        ConnState,
        Direction,
        Gater,
        Network,
        Notifiee,
        Resolver,
        Stream,
    )
    from p2pcore.protocols.identify_message import IdentifyInfo
    from p2pcore.protocols.perf import PerfRun
    from p2pcore.relay.service import RelayOptions
    from p2pcore.security.pnet import PSK
    from p2pcore.swarm.conns import Connectedness
    from p2pcore.swarm.gater import BasicGater
    from p2pcore.swarm.listeners import ListenResult
    from p2pcore.swarm.swarm import Swarm
    from p2pcore.transports.websocket.tls import WebCertificate
    from p2pcore.transports.websocket.transport import WebsocketOptions
    from p2pcore.transports.websocket.upgrade import HttpAnswer
    from p2pcore.values.keys import KeyType, PrivateKey, PublicKey
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId
    from p2pcore.workers import Supervisor, Worker, WorkerEvent, WorkerStatus

_MODULES = {
    "errors": (
        "AddressError AddressInBackoff BlackHoleSuspected ConnectionClosed DeadlineExceeded DialError "
        "GaterRefused GoAway HandshakeError IdentityError IncompleteRead LimitExceeded LimitedConnection "
        "ListenError ListenerClosed LocalProtocolError NegotiationError NegotiationTimeout NoTransport "
        "P2PError PeerIdMismatch PeerIsSelf ProtocolError ProtocolNotSupported RelayRefused "
        "RemoteProtocolError ResolutionError StreamClosed "
        "StreamError StreamReset SwarmClosed WorkerFailed WrongNetworkKey"
    ),
    "swarm.gater": "BasicGater",
    "host": "Host run",
    "interfaces": "Conn ConnStat ConnState Direction Gater Network Notifiee Resolver Stream",
    "values.keys": "KeyType PrivateKey PublicKey",
    "values.multiaddr": "Multiaddr",
    "values.peer_id": "PeerId",
    "protocols.identify_message": "IdentifyInfo",
    "protocols.perf": "PerfRun",
    "security.pnet": "PSK",
    "relay.service": "RelayOptions",
    "swarm.swarm": "Swarm",
    "swarm.conns": "Connectedness",
    "swarm.listeners": "ListenResult",
    "transports.websocket.tls": "WebCertificate",
    "transports.websocket.transport": "WebsocketOptions",
    "transports.websocket.upgrade": "HttpAnswer",
    "workers": "Supervisor Worker WorkerEvent WorkerStatus",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [
    "PSK",
    "AddressError",
    "AddressInBackoff",
    "BasicGater",
    "BlackHoleSuspected",
    "Conn",
    "ConnStat",
    "ConnState",
    "Connectedness",
    "ConnectionClosed",
    "DeadlineExceeded",
    "DialError",
    "Direction",
    "Gater",
    "GaterRefused",
    "GoAway",
    "HandshakeError",
    "Host",
    "HttpAnswer",
    "IdentifyInfo",
    "IdentityError",
    "IncompleteRead",
    "KeyType",
    "LimitExceeded",
    "LimitedConnection",
    "ListenError",
    "ListenResult",
    "ListenerClosed",
    "LocalProtocolError",
    "Multiaddr",
    "NegotiationError",
    "NegotiationTimeout",
    "Network",
    "NoTransport",
    "Notifiee",
    "P2PError",
    "PeerId",
    "PeerIdMismatch",
    "PeerIsSelf",
    "PerfRun",
    "PrivateKey",
    "ProtocolError",
    "ProtocolNotSupported",
    "PublicKey",
    "RelayOptions",
    "RelayRefused",
    "RemoteProtocolError",
    "ResolutionError",
    "Resolver",
    "Stream",
    "StreamClosed",
    "StreamError",
    "StreamReset",
    "Supervisor",
    "Swarm",
    "SwarmClosed",
    "WebCertificate",
    "WebsocketOptions",
    "Worker",
    "WorkerEvent",
    "WorkerFailed",
    "WorkerStatus",
    "WrongNetworkKey",
    "__version__",
    "run",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

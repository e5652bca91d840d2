"""p2pcore: a libp2p networking core. This module has only the public names.

To import it opens no socket, starts no event loop and reads no file. Each name is loaded when it is first
used. Type checkers and editors read `__init__.pyi`, which has the same names; a test compares the two.
"""

from __future__ import annotations

from importlib import import_module

from p2pcore.values.version import __version__

_MODULES = {
    "dialing.addr_book": "AddrBook AddrSource KnownAddr",
    "dialing.dialer": "DialOptions",
    "errors": (
        "AddrBookError AddressError AddressInBackoff BlackHoleSuspected ConnectionClosed DeadlineExceeded "
        "DialError GaterRefused GoAway HandshakeError IdentityError IncompleteRead LimitExceeded "
        "LimitedConnection ListenError ListenerClosed LocalProtocolError NegotiationError "
        "NegotiationTimeout NoTransport P2PError PeerIdMismatch PeerIsSelf ProtocolError "
        "ProtocolNotSupported RefusedByPeer RelayRefused RemoteProtocolError ResolutionError StreamClosed "
        "StreamError StreamReset SwarmClosed WorkerFailed WrongNetworkKey"
    ),
    "host": "Host run tune_loop",
    "interfaces": "Conn ConnStat ConnState Direction Gater Network Notifiee Refusal Resolver Stream",
    "metrics.access_log": "AccessLogOptions",
    "metrics.server": "MetricsServer",
    "metrics.traces": "TraceOptions",
    "muxers.mplex": "MplexOptions",
    "muxers.yamux": "YamuxOptions",
    "protocols.identify": "IdentifyOptions",
    "protocols.identify_message": "IdentifyInfo",
    "protocols.perf": "PerfRun",
    "relay.options": "RelayOptions",
    "resources.conn_manager": "ConnManager",
    "resources.options": "Limits Reserved",
    "resources.report": "LimitUse",
    "security.pnet": "PSK",
    "swarm.announce": "AnnounceOptions",
    "swarm.conns": "Connectedness",
    "swarm.gater": "BasicGater",
    "swarm.kept": "Kept",
    "swarm.listeners": "ListenResult",
    "swarm.options": "ConnOptions DrainOptions",
    "swarm.swarm": "Swarm",
    "transports.tcp.ports": "TcpOptions",
    "transports.unix": "UnixOptions",
    "transports.websocket.tls": "WebCertificate",
    "transports.websocket.transport": "WebsocketOptions",
    "transports.websocket.upgrade": "HttpAnswer",
    "upgrade.listener": "ListenerOptions",
    "values.keys": "KeyType PrivateKey PublicKey",
    "values.multiaddr": "Multiaddr",
    "values.peer_id": "PeerId",
    "workers": "Supervisor Worker WorkerEvent WorkerStatus",
}
"""The public names of each module. `__all__` and `__getattr__` use this table."""
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

"""What type checkers and editors see of p2pcore: the names of the table in `__init__.py`."""

from typing import Final

from p2pcore.dialing.addr_book import (
    AddrBook as AddrBook,
    AddrSource as AddrSource,
    KnownAddr as KnownAddr,
)
from p2pcore.dialing.dialer import (
    DialOptions as DialOptions,
)
from p2pcore.errors import (
    AddrBookError as AddrBookError,
    AddressError as AddressError,
    AddressInBackoff as AddressInBackoff,
    BlackHoleSuspected as BlackHoleSuspected,
    ConnectionClosed as ConnectionClosed,
    DeadlineExceeded as DeadlineExceeded,
    DialError as DialError,
    GaterRefused as GaterRefused,
    GoAway as GoAway,
    HandshakeError as HandshakeError,
    IdentityError as IdentityError,
    IncompleteRead as IncompleteRead,
    LimitedConnection as LimitedConnection,
    LimitExceeded as LimitExceeded,
    ListenerClosed as ListenerClosed,
    ListenError as ListenError,
    LocalProtocolError as LocalProtocolError,
    NegotiationError as NegotiationError,
    NegotiationTimeout as NegotiationTimeout,
    NoTransport as NoTransport,
    P2PError as P2PError,
    PeerIdMismatch as PeerIdMismatch,
    PeerIsSelf as PeerIsSelf,
    ProtocolError as ProtocolError,
    ProtocolNotSupported as ProtocolNotSupported,
    RefusedByPeer as RefusedByPeer,
    RelayRefused as RelayRefused,
    RemoteProtocolError as RemoteProtocolError,
    ResolutionError as ResolutionError,
    StreamClosed as StreamClosed,
    StreamError as StreamError,
    StreamReset as StreamReset,
    SwarmClosed as SwarmClosed,
    WorkerFailed as WorkerFailed,
    WrongNetworkKey as WrongNetworkKey,
)
from p2pcore.host import (
    Host as Host,
    run as run,
    tune_loop as tune_loop,
)
from p2pcore.interfaces import (
    Conn as Conn,
    ConnStat as ConnStat,
    ConnState as ConnState,
    Direction as Direction,
    Gater as Gater,
    Network as Network,
    Notifiee as Notifiee,
    Refusal as Refusal,
    Resolver as Resolver,
    Stream as Stream,
)
from p2pcore.metrics.access_log import (
    AccessLogOptions as AccessLogOptions,
)
from p2pcore.metrics.server import (
    MetricsServer as MetricsServer,
)
from p2pcore.metrics.traces import (
    TraceOptions as TraceOptions,
)
from p2pcore.muxers.mplex import (
    MplexOptions as MplexOptions,
)
from p2pcore.muxers.yamux import (
    YamuxOptions as YamuxOptions,
)
from p2pcore.protocols.identify import (
    IdentifyOptions as IdentifyOptions,
)
from p2pcore.protocols.identify_message import (
    IdentifyInfo as IdentifyInfo,
)
from p2pcore.protocols.perf import (
    PerfRun as PerfRun,
)
from p2pcore.relay.options import (
    RelayOptions as RelayOptions,
)
from p2pcore.resources.conn_manager import (
    ConnManager as ConnManager,
)
from p2pcore.resources.options import (
    Limits as Limits,
    Reserved as Reserved,
)
from p2pcore.resources.report import (
    LimitUse as LimitUse,
)
from p2pcore.security.pnet import (
    PSK as PSK,
)
from p2pcore.swarm.announce import (
    AnnounceOptions as AnnounceOptions,
)
from p2pcore.swarm.conns import (
    Connectedness as Connectedness,
)
from p2pcore.swarm.gater import (
    BasicGater as BasicGater,
)
from p2pcore.swarm.kept import (
    Kept as Kept,
)
from p2pcore.swarm.listeners import (
    ListenResult as ListenResult,
)
from p2pcore.swarm.options import (
    ConnOptions as ConnOptions,
    DrainOptions as DrainOptions,
)
from p2pcore.swarm.swarm import (
    Swarm as Swarm,
)
from p2pcore.transports.tcp.ports import (
    TcpOptions as TcpOptions,
)
from p2pcore.transports.unix import (
    UnixOptions as UnixOptions,
)
from p2pcore.transports.websocket.tls import (
    WebCertificate as WebCertificate,
)
from p2pcore.transports.websocket.transport import (
    WebsocketOptions as WebsocketOptions,
)
from p2pcore.transports.websocket.upgrade import (
    HttpAnswer as HttpAnswer,
)
from p2pcore.upgrade.listener import (
    ListenerOptions as ListenerOptions,
)
from p2pcore.values.keys import (
    KeyType as KeyType,
    PrivateKey as PrivateKey,
    PublicKey as PublicKey,
)
from p2pcore.values.multiaddr import (
    Multiaddr as Multiaddr,
)
from p2pcore.values.peer_id import (
    PeerId as PeerId,
)
from p2pcore.workers import (
    Supervisor as Supervisor,
    Worker as Worker,
    WorkerEvent as WorkerEvent,
    WorkerStatus as WorkerStatus,
)

__version__: Final[str]

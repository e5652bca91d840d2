"""What type checkers and editors see of p2pcore: the names of the table in `__init__.py`."""

from typing import Final

from p2pcore.dialing.dialer import (
    DialOptions as DialOptions,
)
from p2pcore.errors import (
    AddressError as AddressError,
)
from p2pcore.errors import (
    AddressInBackoff as AddressInBackoff,
)
from p2pcore.errors import (
    BlackHoleSuspected as BlackHoleSuspected,
)
from p2pcore.errors import (
    ConnectionClosed as ConnectionClosed,
)
from p2pcore.errors import (
    DeadlineExceeded as DeadlineExceeded,
)
from p2pcore.errors import (
    DialError as DialError,
)
from p2pcore.errors import (
    GaterRefused as GaterRefused,
)
from p2pcore.errors import (
    GoAway as GoAway,
)
from p2pcore.errors import (
    HandshakeError as HandshakeError,
)
from p2pcore.errors import (
    IdentityError as IdentityError,
)
from p2pcore.errors import (
    IncompleteRead as IncompleteRead,
)
from p2pcore.errors import (
    LimitedConnection as LimitedConnection,
)
from p2pcore.errors import (
    LimitExceeded as LimitExceeded,
)
from p2pcore.errors import (
    ListenerClosed as ListenerClosed,
)
from p2pcore.errors import (
    ListenError as ListenError,
)
from p2pcore.errors import (
    LocalProtocolError as LocalProtocolError,
)
from p2pcore.errors import (
    NegotiationError as NegotiationError,
)
from p2pcore.errors import (
    NoTransport as NoTransport,
)
from p2pcore.errors import (
    P2PError as P2PError,
)
from p2pcore.errors import (
    PeerIdMismatch as PeerIdMismatch,
)
from p2pcore.errors import (
    ProtocolError as ProtocolError,
)
from p2pcore.errors import (
    ProtocolNotSupported as ProtocolNotSupported,
)
from p2pcore.errors import (
    RelayRefused as RelayRefused,
)
from p2pcore.errors import (
    RemoteProtocolError as RemoteProtocolError,
)
from p2pcore.errors import (
    ResolutionError as ResolutionError,
)
from p2pcore.errors import (
    StreamClosed as StreamClosed,
)
from p2pcore.errors import (
    StreamError as StreamError,
)
from p2pcore.errors import (
    StreamReset as StreamReset,
)
from p2pcore.errors import (
    SwarmClosed as SwarmClosed,
)
from p2pcore.errors import (
    WorkerFailed as WorkerFailed,
)
from p2pcore.errors import (
    WrongNetworkKey as WrongNetworkKey,
)
from p2pcore.host import (
    Host as Host,
)
from p2pcore.host import (
    run as run,
)
from p2pcore.host import (
    tune_loop as tune_loop,
)
from p2pcore.interfaces import (
    CapableConn as CapableConn,
)
from p2pcore.interfaces import (
    ConnState as ConnState,
)
from p2pcore.interfaces import (
    Direction as Direction,
)
from p2pcore.interfaces import (
    Gater as Gater,
)
from p2pcore.interfaces import (
    Network as Network,
)
from p2pcore.interfaces import (
    Notifiee as Notifiee,
)
from p2pcore.interfaces import (
    Resolver as Resolver,
)
from p2pcore.interfaces import (
    Stream as Stream,
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
from p2pcore.relay.service import (
    RelayOptions as RelayOptions,
)
from p2pcore.security.pnet import (
    PSK as PSK,
)
from p2pcore.swarm.conn import (
    ConnStat as ConnStat,
)
from p2pcore.swarm.conn import (
    SwarmConn as SwarmConn,
)
from p2pcore.swarm.conns import (
    Connectedness as Connectedness,
)
from p2pcore.swarm.gater import (
    BasicGater as BasicGater,
)
from p2pcore.swarm.listeners import (
    ListenResult as ListenResult,
)
from p2pcore.swarm.options import (
    ConnOptions as ConnOptions,
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
)
from p2pcore.values.keys import (
    PrivateKey as PrivateKey,
)
from p2pcore.values.keys import (
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
)
from p2pcore.workers import (
    Worker as Worker,
)
from p2pcore.workers import (
    WorkerEvent as WorkerEvent,
)
from p2pcore.workers import (
    WorkerStatus as WorkerStatus,
)

__version__: Final[str]

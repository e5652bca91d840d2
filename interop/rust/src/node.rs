//! A swarm in a task of its own: dial, close, open streams; streams that come in are served.
//!
//! Comes in: addresses, protocols. Goes out: connections, streams. Transports and limits are those a user gets; only
//! idle connections stay open.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::StreamExt;
use libp2p::core::upgrade::{InboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade};
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    SubstreamProtocol, SwarmEvent, THandlerInEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder};
use libp2p::{identify, multiaddr, noise, ping, tcp, tls, yamux};
use tokio::sync::{mpsc, oneshot};

use crate::streams;

pub type Failure = Box<dyn Error + Send + Sync>;
type Opened = oneshot::Sender<Result<Stream, Failure>>;
type Open = (StreamProtocol, Opened);
type Openers = Arc<Mutex<HashMap<ConnectionId, mpsc::UnboundedSender<Open>>>>;

// -- streams of one connection -----------------------------------------------------------------------------------

/// Accepts a stream of any protocol we serve, and keeps which one it is.
pub struct Served;

impl UpgradeInfo for Served {
    type Info = &'static str;
    type InfoIter = std::array::IntoIter<&'static str, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        [streams::ECHO, streams::PERF].into_iter()
    }
}

impl InboundUpgrade<Stream> for Served {
    type Output = (Stream, &'static str);
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: &'static str) -> Self::Future {
        std::future::ready(Ok((stream, protocol)))
    }
}

/// Opens what it is told to, and serves what comes, each stream in a task.
pub struct Handler(mpsc::UnboundedReceiver<Open>);

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Served;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Served> {
        SubstreamProtocol::new(Served, ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Opened, Infallible>> {
        match self.0.poll_recv(context) {
            Poll::Ready(Some((protocol, opened))) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(protocol), opened),
            }),
            _ => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Served, ReadyUpgrade<StreamProtocol>, (), Opened>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, name), .. }) => {
                tokio::spawn(async move {
                    // A dialer that goes away in the middle is its own affair.
                    let _ = match name {
                        streams::ECHO => streams::serve_echo(stream).await,
                        _ => streams::serve_perf(stream).await,
                    };
                });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let _ = info.send(Ok(protocol));
            }
            ConnectionEvent::DialUpgradeError(error) => {
                let _ = error.info.send(Err(error.error.to_string().into()));
            }
            _ => {}
        }
    }
}

/// Gives each connection its `Handler`, and `openers` the way to tell it.
struct Streams(Openers);

impl Streams {
    fn handler(&self, id: ConnectionId) -> Handler {
        let (opener, requests) = mpsc::unbounded_channel();
        self.0.lock().unwrap().insert(id, opener);
        Handler(requests)
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(id))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(id))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.0.lock().unwrap().remove(&closed.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    streams: Streams,
    ping: Toggle<ping::Behaviour>,
    identify: Toggle<identify::Behaviour>,
}

// -- the swarm -----------------------------------------------------------------------------------------------------

enum Order {
    Dial(DialOpts, oneshot::Sender<Result<(), Failure>>),
    Close(ConnectionId, oneshot::Sender<Result<(), Failure>>),
}

/// One open connection.
#[derive(Clone)]
pub struct Conn {
    pub id: ConnectionId,
    opener: mpsc::UnboundedSender<Open>,
}

impl Conn {
    pub async fn open(&self, protocol: &'static str) -> Result<Stream, Failure> {
        let (opened, stream) = oneshot::channel();
        self.opener.send((StreamProtocol::new(protocol), opened)).map_err(|_| "the connection is closed")?;
        stream.await?
    }
}

/// What connections are secured with.
#[derive(Clone, Copy)]
pub enum Security {
    Noise,
    Tls,
}

/// A swarm on TCP and WebSocket. A macro, because each security has types of its own until the swarm is built.
macro_rules! swarm {
    ($security:expr, $behaviour:expr) => {
        SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), $security, yamux::Config::default)?
            .with_websocket($security, yamux::Config::default)
            .await?
            .with_behaviour($behaviour)?
            .build()
    };
}

/// A running swarm.
#[derive(Clone)]
pub struct Node {
    orders: mpsc::UnboundedSender<Order>,
    openers: Openers,
    conns: Arc<AtomicUsize>,
    addrs: Vec<Multiaddr>,
}

impl Node {
    /// Starts it; with addresses (separated by commas) it has begun to listen on each when this returns.
    pub async fn new(security: Security, bare: bool, listen: Option<&str>) -> Result<Node, Failure> {
        let openers = Openers::default();
        let behaviour = |key: &Keypair| Behaviour {
            streams: Streams(openers.clone()),
            ping: (!bare).then(ping::Behaviour::default).into(),
            identify: (!bare)
                .then(|| identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".into(), key.public())))
                .into(),
        };
        let mut swarm = match security {
            Security::Noise => swarm!(noise::Config::new, behaviour),
            Security::Tls => swarm!(tls::Config::new, behaviour),
        };
        let mut addrs = Vec::new();
        for addr in listen.iter().flat_map(|text| text.split(',')) {
            swarm.listen_on(addr.parse()?)?;
            addrs.push(listening(&mut swarm).await);
        }
        let (orders, todo) = mpsc::unbounded_channel();
        let conns = Arc::new(AtomicUsize::new(0));
        tokio::spawn(drive(swarm, todo, conns.clone()));
        Ok(Node { orders, openers, conns, addrs })
    }

    pub fn addrs(&self) -> &[Multiaddr] {
        &self.addrs
    }

    /// How many connections are open.
    pub fn conns(&self) -> usize {
        self.conns.load(Ordering::Relaxed)
    }

    /// A new connection to `to` (which ends with the peer id), whether there is one already or not.
    pub async fn dial(&self, to: &Multiaddr) -> Result<Conn, Failure> {
        let Some(multiaddr::Protocol::P2p(peer)) = to.iter().last() else {
            return Err(format!("{to} does not end with a peer id").into());
        };
        let opts = DialOpts::peer_id(peer).addresses(vec![to.clone()]).condition(PeerCondition::Always).build();
        let id = opts.connection_id();
        self.order(|done| Order::Dial(opts, done)).await?;
        let opener = self.openers.lock().unwrap().get(&id).cloned().ok_or("closed at once")?;
        Ok(Conn { id, opener })
    }

    /// Closes a connection, and waits until it is.
    pub async fn close(&self, id: ConnectionId) -> Result<(), Failure> {
        self.order(|done| Order::Close(id, done)).await
    }

    async fn order(&self, make: impl FnOnce(oneshot::Sender<Result<(), Failure>>) -> Order) -> Result<(), Failure> {
        let (done, result) = oneshot::channel();
        self.orders.send(make(done)).map_err(|_| "the swarm has ended")?;
        result.await?
    }
}

/// The next address the swarm listens on, with its peer id.
async fn listening(swarm: &mut Swarm<Behaviour>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address.with(multiaddr::Protocol::P2p(*swarm.local_peer_id()));
        }
    }
}

/// Polls the swarm for as long as anyone may give it orders.
async fn drive(mut swarm: Swarm<Behaviour>, mut todo: mpsc::UnboundedReceiver<Order>, conns: Arc<AtomicUsize>) {
    let mut dials = HashMap::new();
    let mut closes = HashMap::new();
    loop {
        tokio::select! {
            order = todo.recv() => match order {
                None => return,
                Some(Order::Dial(opts, done)) => {
                    let id = opts.connection_id();
                    match swarm.dial(opts) {
                        Ok(()) => drop(dials.insert(id, done)),
                        Err(error) => drop(done.send(Err(error.into()))),
                    }
                }
                Some(Order::Close(id, done)) => {
                    if swarm.close_connection(id) {
                        closes.insert(id, done);
                    } else {
                        drop(done.send(Ok(())));
                    }
                }
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                    conns.fetch_add(1, Ordering::Relaxed);
                    dials.remove(&connection_id).map(|done| done.send(Ok(())));
                }
                SwarmEvent::ConnectionClosed { connection_id, .. } => {
                    conns.fetch_sub(1, Ordering::Relaxed);
                    closes.remove(&connection_id).map(|done: oneshot::Sender<_>| done.send(Ok(())));
                }
                SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                    dials.remove(&connection_id).map(|done| done.send(Err(error.into())));
                }
                _ => {}
            },
        }
    }
}

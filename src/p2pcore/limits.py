"""Every bound of p2pcore: name with its unit, default, and why it is what it is.

The bounds are integers (bytes, counts) and floats (seconds), and are never computed at run time. "go", "rust"
and "js" mean go-libp2p, rust-libp2p and js-libp2p; "spec" means the libp2p specifications.
"""

from __future__ import annotations

from typing import Final

# -- what a program may set ----------------------------------------------------------------------
MAX_TIMEOUT_S: Final = 31_536_000.0
"""Any time in seconds: a year. A longer time is a mistake (milliseconds, infinity), and timers refuse it."""
MAX_COUNT: Final = 2**31 - 1
"""Any count: a C int. listen(2) and the compiled modules take no more."""
MAX_SIZE_BYTES: Final = 1 << 48
"""Any size: no machine has as much memory, and it fits the 64 bits of the compiled modules."""
MAX_LINGER_S: Final = 32767
"""SO_LINGER, seconds: the most that every kernel can store (some use a C short)."""
MAX_FILE_MODE: Final = 0o777
"""Permissions of a socket's file: chmod(2) without its special bits."""

# -- addresses and identities ------------------------------------------------------------------
MAX_MULTIADDR_BYTES: Final = 2048
"""Text or binary form of one multiaddr: room for a garlic64 destination (about 520 chars)."""
MAX_MULTIADDR_COMPONENTS: Final = 32
"""Components of one multiaddr; real ones have at most about ten."""
MAX_HOST_NAME_BYTES: Final = 253
"""dns, dns4, dns6, dnsaddr, sni: RFC 1035 section 3.1."""
MAX_HOST_LABEL_BYTES: Final = 63
"""One part of a host name, between its dots: RFC 1035 section 3.1."""
MAX_CERTHASH_DIGEST_BYTES: Final = 64
"""Digest of one certhash component: sha2-512; real ones are sha2-256."""
MAX_PEER_ID_BYTES: Final = 64
"""A multihash of a peer id; the longest legal one today has 44."""
MAX_PEER_ID_TEXT_CHARS: Final = 128
"""Base58 decoding is quadratic, so the text is bounded first."""
MAX_IDENTITY_DIGEST_BYTES: Final = 42
"""A serialized public key up to this length is its own digest (spec peer-ids)."""
MIN_RSA_BITS: Final = 2048
"""go, rust and js refuse smaller keys."""
MAX_RSA_BITS: Final = 8192
"""The same in go and js. It bounds the CPU time that a hostile handshake can cost."""
MAX_RSA_EXPONENT_BITS: Final = 64
"""Public exponent: with a long one, each verification costs 30 ms; go takes 31 bits."""
MAX_PUBLIC_KEY_BYTES: Final = 1100
"""`Data` of a PublicKey protobuf: an RSA key of 8192 bits with a 64-bit exponent."""
MAX_PRIVATE_KEY_BYTES: Final = 8192
"""`Data` of a PrivateKey protobuf: an RSA key of 8192 bits has about 4,700."""
MAX_KEY_FILE_BYTES: Final = 64 * 1024
"""A file with a host key: the PEM of an RSA key of 8192 bits has about 6,400; comments may be around it."""
MAX_CERTIFICATE_FILE_BYTES: Final = 1024 * 1024
"""A file with a certificate and its chain: a chain of ten certificates takes about 20 KiB."""
MAX_ENVELOPE_BYTES: Final = 8192
"""A signed envelope travels inside an identify message, which has the same bound (go)."""
MAX_RECORD_ADDRS: Final = 64
"""Addresses taken from one signed peer record."""
MAX_RECORD_ADDR_BYTES: Final = 512
"""One address of a signed peer record; longer ones are skipped."""

# -- negotiation -------------------------------------------------------------------------------
MAX_MULTISTREAM_BYTES: Final = 1024
"""One multistream-select message after its length prefix (go, js)."""
MAX_MULTISTREAM_PROPOSALS: Final = 64
"""Proposals answered in one negotiation; go has no bound (its fault W37)."""
MAX_PROTOCOL_ID_BYTES: Final = 255
"""A protocol id we send or register."""
STREAM_NEGOTIATION_TIMEOUT_S: Final = 10.0
"""multistream-select on one stream (go, rust, js)."""
LAZY_END_WAIT_S: Final = 0.5
"""How long the end of our data waits for the answer to a lazy proposal. js loses a stream that ends before
js has read the proposal. It needs one turn of its event loop to read it (docs/decisions/0014)."""

# -- upgrade -----------------------------------------------------------------------------------
ACCEPT_TIMEOUT_S: Final = 15.0
"""From the moment of accept to a finished upgrade handed over (go)."""
ACCEPT_QUEUE_LENGTH: Final = 16
"""Finished connections that wait for `accept()` before the listener stops taking more (go)."""
MAX_UPGRADING: Final = 128
"""Handshakes in progress on one listener, without the slow ones; go has no such bound (its fault W4)."""
UPGRADE_SLOW_S: Final = 0.1
"""A handshake that takes longer is slow: it waits for its peer, so others may begin. A LAN needs 5 ms."""
MAX_SLOW_UPGRADES: Final = 4096
"""Slow handshakes on one listener, about 5 KB each, or 0.9 KB if the peer has not said a word; one more ends
the oldest of the block with the most."""
EAGER_UPGRADES: Final = 32
"""While fewer connections of a listener are unfinished, the next begins at once, else with the first byte:
22,000 instructions more for an honest peer, 4 KB less for a silent one (docs/decisions/0046)."""
MAX_WAITING_UPGRADES: Final = 4096
"""Accepted connections of one listener that wait for their turn, 1 KB each: as many as LISTEN_BACKLOG."""
ACCEPTS_PER_TURN: Final = 64
"""Connections a listener accepts before the other work of the loop goes on: 1 to 2 ms."""
BEGUN_PER_TURN: Final = 32
"""Waiting handshakes that begin in one turn of the loop: 3 to 5 ms."""
MAX_DESCRIPTORS: Final = 1 << 20
"""Where RLIMIT_NOFILE allows more, we ask for no more: a million idle connections need about 10 GB."""
ACCEPT_BACKOFF_MIN_S: Final = 0.001
"""First pause after a temporary accept error; each further pause is twice as long (go-temp-err-catcher)."""
ACCEPT_BACKOFF_MAX_S: Final = 1.0
"""Longest pause after a temporary accept error (go-temp-err-catcher)."""
LISTEN_BACKLOG: Final = 4096
"""Connections the kernel may queue; it cuts this to net.core.somaxconn."""
SOCKET_PROBE_S: Final = 5.0
"""How often a listener checks that nobody closed the descriptor of its socket: epoll does not report that."""
MAX_NOISE_MUXERS: Final = 100
"""Entries of a peer's stream_muxers list; a longer list is ignored (go)."""
MAX_NOISE_PROOFS: Final = 1024
"""Peers whose proof of identity is kept, so that they connect again without a verification. 512 KB (0006)."""
MAX_NOISE_PROOF_BYTES: Final = 512
"""Static key and payload of one kept proof; an Ed25519 or ECDSA identity needs about 200."""
MAILBOX_BYTES: Final = 128 * 1024
"""Bytes held for a handshake step before reading pauses: one noise frame and the data behind it."""

# -- dialling ----------------------------------------------------------------------------------
TCP_CONNECT_TIMEOUT_S: Final = 5.0
"""The TCP handshake alone (go)."""
DIAL_TIMEOUT_S: Final = 15.0
"""Connect and upgrade of one public address (go)."""
DIAL_TIMEOUT_LOCAL_S: Final = 5.0
"""The same for a private or loopback address (go)."""
DIAL_PEER_TIMEOUT_S: Final = 60.0
"""All addresses of one peer (go)."""
MAX_DIALS_PER_PEER: Final = 8
"""Addresses of one peer dialled at once (go)."""
MAX_DIAL_ADDRS: Final = 100
"""Addresses tried for one peer in one dial (go)."""
MAX_DIAL_CAUSES_SHOWN: Final = 16
"""Addresses named in the text of a DialError (go); all are in its `causes`."""
MAX_DIALS: Final = 160
"""Addresses of all peers dialled at once, each with a descriptor; more of them wait (go refuses: W23)."""
DIAL_DELAY_PUBLIC_S: Final = 0.25
"""Head start of IPv6 over IPv4, and of the first addresses over the others, on the internet (go)."""
DIAL_DELAY_PRIVATE_S: Final = 0.03
"""The same for private and loopback addresses (go)."""
DIAL_DELAY_RELAY_S: Final = 0.5
"""Head start of public addresses over relays (go)."""
DIAL_DELAY_OTHER_PUBLIC_S: Final = 1.0
"""Head start of TCP over other public addresses, and of both over addresses without an IP address (go)."""
DIAL_DELAY_OTHER_PRIVATE_S: Final = 0.1
"""The same for private addresses (go)."""
NEW_STREAM_TIMEOUT_S: Final = 15.0
"""Opening a stream, without the dial (go)."""

# -- dns, black holes, back-off, events -----------------------------------------------------------
MAX_RESOLVED_ADDRS: Final = 100
"""Addresses that one address with a name may lead to (go)."""
MAX_DNSADDR_DEPTH: Final = 4
"""How many times in a row a dnsaddr may lead to another dnsaddr (go)."""
MAX_DNS_QUERIES: Final = 64
"""Names looked up for one address: hostile records may lead to many more."""
DNS_TIMEOUT_S: Final = 10.0
"""Resolving one address, all its names together."""
BLACK_HOLE_WINDOW: Final = 100
"""Dials that decide whether UDP, or IPv6, works from here. If not, one dial in this many is tried (go)."""
BLACK_HOLE_MIN_SUCCESSES: Final = 5
"""Successes among those dials; with fewer, UDP or IPv6 counts as not working (go)."""
BACKOFF_BASE_S: Final = 5.0
"""An address that failed is not dialled for this long ... (go)"""
BACKOFF_STEP_S: Final = 1.0
"""... plus this, times the square of the number of failures, ... (go)"""
BACKOFF_MAX_S: Final = 300.0
"""... at most this long (go)."""
MAX_BACKOFF_ADDRS: Final = 8192
"""Addresses remembered as failed, 300 bytes each; the oldest failure is forgotten first."""
MAX_BOOK_PEERS: Final = 16_384
"""Peers of an address book that no program has added for good; the one heard of longest ago goes first."""
MAX_BOOK_BYTES: Final = 32 * 1024 * 1024
"""Memory of those peers and their addresses: 2 KiB each, as much as an identified connection has."""
MAX_BOOK_ADDRS: Final = 64
"""Addresses of one peer in an address book (go)."""
BOOK_RECENT_S: Final = 1800.0
"""How long addresses are believed after the last connection to their peer ended (go: 900, before 0.40 1,800):
a restart of the peer, or an outage of the network, is over by then."""
BOOK_RECENT_STORED_S: Final = 604_800.0
"""The same for a book with a file: the program itself may be away over a week-end."""
BOOK_RECORD_S: Final = 3600.0
"""How long a signed record that the program hands in is believed (go, its AddressTTL)."""
BOOK_WRITE_S: Final = 5.0
"""Between a change of an address book and its write to the file; a crash loses no more than that."""
BOOK_BATCH_PEERS: Final = 256
"""Peers that the loop hands to one write: to copy their addresses takes a millisecond."""
MAX_BOOK_CHANGED: Final = 65_536
"""Peers that wait to be written while the file of an address book cannot be: 8 MiB of ids."""
BOOK_BUSY_S: Final = 5.0
"""How long a write, which runs in a thread, waits for another process that uses the same file."""
BOOK_OPEN_BUSY_S: Final = 0.1
"""The same when a book is made: its event loop may wait too. A commit of another p2pcore takes some 10 ms."""
EVENT_QUEUE_LENGTH: Final = 256
"""Events that a subscriber may leave unread. Above that, the oldest are dropped and counted."""
MAX_EVENT_QUEUE_LENGTH: Final = 65536
"""The largest queue that a subscriber may ask for."""
MAX_EVENT_SUBSCRIBERS: Final = 64
"""Subscriptions of one host; each event is copied to the queue of every subscription that wants it."""

# -- admission -------------------------------------------------------------------------------------
GATER_TIMEOUT_S: Final = 5.0
"""How long a gater may think about one question, for instance with a database. Then the answer is no."""
MAX_REASON_CHARS: Final = 1024
"""The text of a refusal: a sentence or two, for a log."""
MAX_GATER_WAITS: Final = 1024
"""Complete connections of one listener that wait for the gater; then the listener waits too."""

# -- private networks ------------------------------------------------------------------------------
MAX_PSK_FILE_BYTES: Final = 1024
"""A key file has about a hundred."""

# -- tls, plaintext --------------------------------------------------------------------------------
MAX_PLAINTEXT_EXCHANGE_BYTES: Final = 4096
"""Id and key in plaintext v2: an RSA key of 8192 bits takes 1.1 KiB; go accepts 64 KiB, rust 100 bytes."""
MAX_TLS_PLAINTEXT_BYTES: Final = 16384
"""Data of one TLS record (RFC 8446, section 5.1)."""
MAX_TLS_RECORD_BYTES: Final = MAX_TLS_PLAINTEXT_BYTES + 2048
"""Bytes after a TLS record's header: the bound of TLS 1.2. OpenSSL keeps TLS 1.3 to 256 over the data."""
MAX_TLS_CONTROL_RECORDS_PER_S: Final = 100
"""Records without data (tickets, key updates) per second; each key update costs two key derivations."""
MAX_TLS_CERTIFICATE_BYTES: Final = 16 * 1024
"""A peer's libp2p certificate; with the largest RSA keys in it, it has about 5 KiB."""
TLS_CERTIFICATES_KEPT: Final = 256
"""Certificates of peers that need no second verification; about 500 bytes each, at most 16 KiB."""
TLS_CERTIFICATE_DAYS: Final = 365
"""How long our own certificate is valid ..."""
TLS_RENEW_DAYS: Final = 30
"""... and how much of that is left when we make a new one: the clock of a peer may be that far ahead."""
TLS_CLOCK_SKEW_S: Final = 3600.0
"""Our own certificate is valid from this long ago: clocks may be off by an hour (go)."""
MAX_TLS_HANDSHAKE_BYTES: Final = 64 * 1024
"""Bytes a peer may send in one TLS handshake: a hello, and a certificate of 16 KiB or a long chain."""

# -- websocket, http -------------------------------------------------------------------------------
WEBSOCKET_HANDSHAKE_TIMEOUT_S: Final = 15.0
"""TLS (if used), proxy and HTTP upgrade of one connection, together (go)."""
MAX_HTTP_HEAD_BYTES: Final = 8 * 1024
"""Request or status line and headers of one HTTP message; common servers have the same bound."""
MAX_HTTP_HEADERS: Final = 64
"""Header lines of one HTTP message; a browser sends about 20."""
MAX_HTTP_INTERIM_ANSWERS: Final = 4
"""Interim answers (100, 103) before the final answer; each is a head of its own."""
MAX_HTTP_ANSWER_BYTES: Final = 256 * 1024
"""Body of a handler's answer to plain HTTP: a page or a list of metrics; it is copied to the socket."""
WEBSOCKET_MAX_EMPTY_FRAMES: Final = 1000
"""Data frames without a payload in a row; each is legal."""

# -- shared ports, unix, udp, memory ---------------------------------------------------------------
PEEK_TIMEOUT_S: Final = 5.0
"""From accept to the first three bytes of a connection on a shared port (go)."""
MAX_PEEKS: Final = 64
"""Connections of one shared port whose first bytes have not come, without the slow ones (go)."""
MAX_SLOW_PEEKS: Final = 1024
"""Connections of one shared port that are silent for longer than UPGRADE_SLOW_S; one more ends the oldest."""
MAX_PEEKED: Final = 64
"""Connections of one shared port of a known kind that wait for their listener; then accepting pauses."""
PEEKED_TIMEOUT_S: Final = 10.0
"""How long such a connection waits for its listener. With the peek this makes ACCEPT_TIMEOUT_S (go: 30 s)."""
MAX_UNIX_PATH_BYTES: Final = 107
"""Path of a UNIX socket: sun_path of Linux without its NUL. macOS and BSD allow 103; bind(2) refuses more."""
UNIX_BIND_TIMEOUT_S: Final = 1.0
"""How long we wait for another process that binds in the same directory; a bind takes microseconds."""
UNIX_CONNECT_PAUSE_S: Final = 0.01
"""Pause between attempts to connect to a UNIX listener whose backlog is full: no event reports room."""
MAX_DATAGRAM_BYTES: Final = 65535
"""One received datagram; UDP over IPv4 carries 65,507."""
MAX_QUEUED_DATAGRAMS: Final = 256
"""Datagrams of one packet connection that nobody has read yet; further datagrams are dropped."""
MAX_DATAGRAMS_A_TURN: Final = 64
"""Datagrams read in one turn of the loop: a flood of them must not stop other connections."""
MEMORY_BACKLOG: Final = 128
"""Dialled memory connections that nobody has accepted; further dials are refused."""
MEMORY_PIPE_BYTES: Final = 256 * 1024
"""Bytes in one direction of a memory connection before its writers wait: the size of a socket's buffer."""
MEMORY_LINK_BYTES: Final = 4 * 1024 * 1024
"""The same where a link with delay carries them (p2pcore.testing): the most that Linux lets a TCP socket send
(net.ipv4.tcp_wmem)."""

# -- relay -----------------------------------------------------------------------------------------
MAX_CIRCUIT_MESSAGE_BYTES: Final = 4096
"""One hop or stop message after its length prefix (spec circuit-v2)."""
MAX_RESERVATION_ADDRS: Final = 64
"""Addresses of one reservation, read or sent; as in a signed peer record."""
RELAY_CONNECT_TIMEOUT_S: Final = 5.0
"""Connecting to the relay of an address that is dialled or listened on (go)."""
RELAY_DIAL_TIMEOUT_S: Final = 60.0
"""From our CONNECT to the relay's status (go); the dial's own deadline is shorter."""
RELAY_RESERVE_TIMEOUT_S: Final = 60.0
"""From our RESERVE to the relay's status (go)."""
RELAY_STREAM_TIMEOUT_S: Final = 60.0
"""A peer's first message on a hop or stop stream, and our answer to it (go)."""
RELAY_STOP_CONNECT_TIMEOUT_S: Final = 30.0
"""Opening the relay's stop stream to the target (go)."""
RELAY_STOP_HANDSHAKE_TIMEOUT_S: Final = 60.0
"""The target's answer on the stop stream (go)."""
RELAY_ACCEPT_TIMEOUT_S: Final = 10.0
"""How long a relayed connection waits until its listener accepts it (go)."""
MAX_RELAY_WAITING: Final = 16
"""Relayed connections that one listener has not accepted yet; the same as ACCEPT_QUEUE_LENGTH."""
RELAY_REFRESH_S: Final = 120.0
"""A reservation is renewed this long before it ends (go), a short one at 3/4 of its life (rust)."""
MAX_RESERVATION_S: Final = 86400.0
"""A reservation is renewed at least once a day: the clock of a relay may be far off."""
RELAY_RETRY_MIN_S: Final = 1.0
"""First pause before we ask for a lost reservation again; doubles. Also the least time between renewals."""
RELAY_RETRY_MAX_S: Final = 300.0
"""Longest such pause: a relay that comes back is used again within five minutes."""
RELAY_RESERVATION_TTL_S: Final = 3600
"""Life of a reservation at our relay, seconds (go, rust)."""
RELAY_MAX_RESERVATIONS: Final = 128
"""Reservations at our relay, one a peer (go, rust)."""
RELAY_MAX_RESERVATIONS_PER_IP: Final = 8
"""Reservations from one IPv4 address or IPv6 /56 (go; its 32 per ASN need a table that we do not have)."""
RELAY_MAX_CIRCUITS_PER_PEER: Final = 16
"""Open circuits of one peer, as dialler or as target (go)."""
RELAY_MAX_CIRCUITS_PER_IP: Final = 64
"""Circuits dialled from one IPv4 address or IPv6 /56: as many as four peers have; go has no such bound."""
RELAY_RESERVATION_VALUE: Final = 10
"""What a peer with a reservation here is worth to the connection manager (go) ..."""
RELAY_CIRCUIT_VALUE: Final = 5
"""... and a peer at an end of a circuit, as long as there is one (go)."""
RELAY_CIRCUIT_S: Final = 120
"""Life of one circuit, seconds (go, rust, js)."""
RELAY_CIRCUIT_BYTES: Final = 128 * 1024
"""Bytes of one circuit in each direction (go, rust)."""
RELAY_CIRCUITS_PER_MIN_PER_PEER: Final = 600
"""Circuits that one peer may open in a minute, also all at once: 16 at a time that live for 1.6 s each."""
RELAY_CIRCUITS_PER_MIN_PER_IP: Final = 2400
"""The same for one IPv4 address or IPv6 /56: as many as four peers, like RELAY_MAX_CIRCUITS_PER_IP."""
RELAY_CIRCUITS_PER_MIN_PER_TARGET: Final = 12_000
"""Circuits that all peers together may open to one target. A target that is asked for more of them than
RESET_STREAMS_BURST and RESET_STREAMS_PER_S allow would close its connection to the relay."""
RELAY_RESERVATIONS_PER_MIN_PER_PEER: Final = 60
"""Reservations that one peer may ask for in a minute: each costs a signature. We ask once a second."""
RELAY_RESERVATIONS_PER_MIN_PER_IP: Final = 480
"""The same for one IPv4 address or IPv6 /56: as many as eight peers, like RELAY_MAX_RESERVATIONS_PER_IP."""
RELAY_SWEEP_S: Final = 60.0
"""Time between two searches for expired reservations (go)."""

# -- rates of many keys ----------------------------------------------------------------------------
MAX_PACED_KEYS: Final = 8192
"""Peers, or blocks of addresses, whose rate of one thing is remembered: about 200 bytes each. The one that
was active longest ago is forgotten first; after a minute or two there is nothing to remember of it."""

# -- mplex -----------------------------------------------------------------------------------------
MPLEX_MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Body of one message (spec mplex)."""
MPLEX_LAST_STREAM_ID: Final = (1 << 28) - 1
"""Ids of the streams we open: js builds headers with 32-bit shifts."""
MPLEX_MAX_NAME_BYTES: Final = 64
"""Characters kept of the name that a peer gives a stream; the name is only for people."""
MPLEX_MAX_INBOUND_STREAMS: Final = 1024
"""Streams a peer may have open on one connection, as in yamux (js); rust's 128 are few for a busy node."""
MPLEX_MAX_OUTBOUND_STREAMS: Final = 1024
"""Streams we may have open on one connection; open_stream waits above that: mplex has no acknowledgement."""
MPLEX_MAX_UNACCEPTED_STREAMS: Final = 256
"""Streams of the peer that wait for accept_stream(), as in yamux."""
MPLEX_STREAM_BUFFER_BYTES: Final = 256 * 1024
"""Bytes received and not read on one stream before we stop reading the connection: yamux's initial window."""
MPLEX_MAX_BUFFERED_BYTES: Final = 4 * 1024 * 1024
"""The same for all streams of a connection together (js's decoder)."""
MPLEX_STALL_S: Final = 5.0
"""How long one unread stream may stop us reading the connection; then that stream is reset (go-mplex)."""
MPLEX_MAX_USELESS_PER_S: Final = 1000
"""Messages for unknown or ended streams, and empty messages, per second; js closes at 5."""
MPLEX_LATE_MESSAGES: Final = 8192
"""Messages already sent on a stream when we reset it: 32 MiB of socket buffers in go's 4 KiB each."""

# -- swarm -------------------------------------------------------------------------------------
MAX_HANDLERS_PER_CONN: Final = 2048
"""Handlers for inbound streams of one connection: twice the streams, as a handler may outlive its stream."""
DUPLICATE_LOOK_S: Final = 1.0
"""Time between two checks whether a superfluous connection still has streams."""
SWARM_CLOSE_TIMEOUT_S: Final = 5.0
"""Each step of closing a swarm: listeners, handlers, connections. Then the rest is aborted (W29)."""
DRAIN_TIMEOUT_S: Final = 30.0
"""How long streams may go on after a node is told to end; common supervisors allow as much."""
DRAIN_GRACE_S: Final = 1.0
"""How long a new connection may be without a stream before a drain closes it: several long round trips."""
DRAIN_LOOK_S: Final = 0.1
"""Time between two checks whether connections of a drain still have streams."""
DRAIN_REFUSE_AFTER_S: Final = 2.0
"""For how long a drain still takes new streams: peers hear of it, in some long round trips."""
DRAIN_TELLS: Final = 512
"""Peers that are told at one time that a drain has begun: 10,000 of them on a path of 100 ms take 2 s."""
MAX_DRAIN_DELAY_S: Final = 3600.0
"""The longest time between the end of readiness and the drain. Load balancers look every few seconds."""
LEAVING_LOOK_S: Final = 1.0
"""Time between two checks whether a connection to a peer that is draining still has streams."""
INTERFACE_ADDRS_TTL_S: Final = 5.0
"""Age at which the interface addresses behind a wildcard are read again; go keeps them 60 s (W48)."""

# -- what a node may use (resources/) ---------------------------------------------------------------
MEMORY_SHARE: Final = 0.5
"""Of the memory the process may have, the share for connections and streams; the program needs some too."""
MIN_MEMORY_BYTES: Final = 1024 * 1024
"""The least memory a node can be given: a few streams with full windows."""
CONN_SHARE_BYTES: Final = 16 * 1024
"""Memory for each connection where their number follows from the memory: an idle one takes 4 to 8 KB."""
STREAM_SHARE_BYTES: Final = 4 * 1024
"""Memory for each stream where their number follows from it: an idle one with its handler takes 4 KB."""
RESERVED_DESCRIPTORS: Final = 64
"""Descriptors that accepted connections leave free: for listeners, dials, DNS, the program's files and log.
Where there are few, it is a fourth of all."""
DESCRIPTOR_FREE_S: Final = 0.1
"""Closed descriptors count as free for so long, by the clock of the loop: they are, a few turns later."""
MAX_CONNS_PER_PEER: Final = 256
"""Connections with one peer: its workers share one identity, and each may have one (MAX_WORKERS; go: 8)."""
MAX_CONNS_PER_SUBNET: Final = 512
"""Connections from one IPv4 address or IPv6 /56: an office may have 300. go: 8, which break NATs."""
MAX_CONNS_PER_SITE: Final = 2048
"""The same from one IPv6 /48, which has 256 subnets; four times as much (go: eight times)."""
SITE_FACTOR: Final = 4
"""A /48 may connect so many times as often as a /56 (go: 2.5 times)."""
CONN_RATE_PER_SUBNET: Final = 50.0
"""New connections in a second from one subnet, for ever: at 0.3 ms each 1.5 % of a core (go: 0.2) ..."""
CONN_BURST_PER_SUBNET: Final = 512
"""... and this many at once: all of one office come back together after a restart."""
MAX_RATED_SUBNETS: Final = 8192
"""Subnets whose last new connections are remembered, 150 bytes each; the oldest is forgotten first."""
NETWORKS_KEPT: Final = 64
"""Texts of networks that are remembered parsed: those of the default limits are nine; each takes 0.5 KB."""
MAX_STREAMS_PER_CONN: Final = 4096
"""Streams of a peer on one connection; a multiplexer allows 1,024 by default."""
MAX_STREAMS_PER_PEER: Final = 8192
"""The same on all connections with one peer: eight connections with 1,024 each, or 256 with 32."""
MAX_HANDLERS_PER_PEER: Final = 8192
"""Handlers that run for one peer: as many as its streams. At 4 KB each, 32 MB."""
REFUSAL_WARNING_S: Final = 10.0
"""Between two warnings about the same limit; each says how many refusals there were."""

# -- connection manager ------------------------------------------------------------------------
CONN_SPARE_SHARE: Final = 0.1
"""Of max_conns: so much is left above the high mark, for new connections while a trim runs, and so much lies
between the marks: nine of ten peers notice nothing. Fewer than ten connections leave nothing to trim."""
CONN_GRACE_S: Final = 20.0
"""Age below which a trim leaves a connection alone, unless its block has too many: kubo's value; go has
60."""
MAX_TRIM_CONNS: Final = 2048
"""Connections that one pass over all of them chooses; more take another pass. They are held sorted
meanwhile."""
TRIM_PART_CONNS: Final = 512
"""Connections a pass looks at in one turn of the loop: about 2 ms (bench/trim.py)."""
TRIM_CLOSINGS: Final = 32
"""Connections closed, or looked at because they may be idle, in one turn: 2 to 3 ms, about 75 us each."""
ROOM_PARTS: Final = 64
"""Where something has run short, at least this part of the connections goes: one look at all of them, 4 us
each, then costs 0.3 ms for each connection that goes."""
TRIM_REST_PER_CONN_S: Final = 50e-6
"""After a pass that could close nothing, until the next one, for each connection: ten times what a pass
costs. So 18,000 connections, all young or protected, are looked at once a second, and a crowd that comes
then is found in time: 2,000 in a second fit above the high mark."""
CROWD_SHARE: Final = 0.25
"""Share of the low mark above which connections of one block or peer are a crowd, and go first. With less,
no honest office or proxy is cut, and an attacker needs four blocks to get past it."""
CROWD_MIN_CONNS: Final = 64
"""A crowd has more connections than this: what one public block may have by default."""
TAG_TTL_S: Final = 600.0
"""How long the tags of a peer without a connection are kept: it comes back from a restart or another
network."""
MAX_ABSENT_TAGGED_PEERS: Final = 8192
"""Such peers; one more drops the one that has been away longest. About 400 bytes each."""
MAX_TAGS_PER_PEER: Final = 64
"""Tags, and also names of protections, of one peer: a few for each protocol."""
TAG_FADED: Final = 0.5
"""A value that halves with time is dropped below this."""
MAX_PROTECTED_PEERS: Final = 65536
"""Peers with a protection, connected or not: only the program adds them, about 400 bytes each."""
MAX_KEPT_PEERS: Final = 1024
"""Peers that are dialled again whenever they are lost: each may have a dial under way."""
KEEP_PAUSE_MIN_S: Final = 1.0
"""First pause before a kept peer is dialled again (js); it doubles, and each is cut or stretched by half
..."""
KEEP_PAUSE_MAX_S: Final = 300.0
"""... up to this: a peer that is back is found within minutes."""
KEEP_LOOK_S: Final = 5.0
"""How often the addresses of the interfaces are read while a kept peer is lost, 0.1 ms each: when the
network is back, nobody waits for the end of a pause."""
KEEP_STEADY_S: Final = 60.0
"""After a connection has lived this long, the next pause is the first one again."""
IDLE_SLOTS: Final = 64
"""Parts of the idle time in which connections are looked at together: idle ones are found up to one part
late."""
RELIEVE_LOOK_S: Final = 0.1
"""Between two looks whether memory is still full after the largest holders were closed ..."""
RELIEVE_REST_S: Final = 1.0
"""... and if none was large enough to be closed."""

# -- admin socket ------------------------------------------------------------------------------
MAX_ADMIN_CLIENTS: Final = 16
"""Conversations on the admin socket of a node: some terminals and some scripts."""
MAX_ADMIN_REQUEST_BYTES: Final = 4096
"""One request: a line of some 20 bytes."""
MAX_ADMIN_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""One answer: about 4 KiB for a node, and as much for each of MAX_WORKERS."""
ADMIN_IDLE_S: Final = 60.0
"""How long a client may wait between two requests; `p2pcore top` asks each second."""
SYSTEMD_STATUS_S: Final = 30.0
"""Between two lines of status for systemd: often enough for who looks, and rare in the journal."""
ADMIN_ANSWER_S: Final = 5.0
"""How long an answer may take, and how long a client may take to read it. A worker has 2 s."""

# -- workers -----------------------------------------------------------------------------------
MAX_WORKERS: Final = 256
"""Processes of one supervisor: more than the cores of most machines."""
WORKER_START_TIMEOUT_S: Final = 60.0
"""From the start of a worker's interpreter until it serves: one second, on a busy machine a few."""
WORKER_BACKOFF_MIN_S: Final = 0.1
"""First pause before a dead worker is started again; it doubles."""
WORKER_BACKOFF_MAX_S: Final = 10.0
"""Longest pause before a worker that keeps dying is started again."""
WORKER_STEADY_S: Final = 10.0
"""After a worker has served this long, its next pause is the first one again."""
WORKER_HOLD_QUEUE_S: Final = 1.0
"""Above this pause, the sockets of a worker are closed: nobody would serve what the kernel queues there."""
GC_OLDEST_THRESHOLD: Final = 100
"""Third of gc.set_threshold under `p2pcore.run`: Python looks at all objects ten times less often (0046)."""
WORKER_EXIT_S: Final = 5.0
"""From the end of a drain, or of a worker's channel, to the end of its process; then it is killed."""
WORKER_HEARTBEAT_S: Final = 2.0
"""Between two signs of life of a worker, and between two looks for them: one timer in each process."""
WORKER_SILENT_S: Final = 6.0
"""After this long without one, a worker that was stopped (SIGSTOP) is replaced: within 8 s of the last."""
WORKER_BLOCKED_S: Final = 60.0
"""The same for a worker that runs: its event loop is blocked, perhaps by a long call that will end."""
WORKER_ANSWER_S: Final = 2.0
"""How long `Supervisor.status` waits for a worker before it tells what was known last."""
MAX_WORKER_MESSAGE_BYTES: Final = 1024 * 1024
"""One message between a worker and its supervisor: the metrics of a worker take up to 200 KiB."""
WORKER_QUEUE_BYTES: Final = 2 * 1024 * 1024
"""Messages that wait for a supervisor that does not read; more are dropped."""
HUB_MAX_HEADER_BYTES: Final = 256 * 1024
"""The JSON of one frame between a worker and its hub: HUB_BATCH_ENTRIES keys with their lengths."""
HUB_MAX_BODY_BYTES: Final = 2 * 1024 * 1024
"""What is behind it: one message (BUS_MAX_MESSAGE_BYTES), or HUB_BATCH_BYTES and one more value."""
HUB_BATCH_BYTES: Final = 256 * 1024
"""Entries of a bucket in one frame: the loop of the supervisor has one in its hands for less than 2 ms."""
HUB_BATCH_ENTRIES: Final = 1000
"""The same as a number of entries."""
HUB_QUEUE_BYTES: Final = 8 * 1024 * 1024
"""Messages that wait for a worker that does not read; more are lost. MAX_WORKERS such queues fit in 2 GiB."""
HUB_MAX_ENTRIES: Final = 4_000_000
"""Entries of one bucket: one for each connection of a large machine. Each takes 0.8 KB."""
HUB_MAX_BUCKETS: Final = 64
"""Buckets of one hub: a fleet has four."""
HUB_MAX_MISSED: Final = 1_000_000
"""Entries that changed while a worker did not read; above that its bus is cut."""
HUB_MAX_SUBSCRIPTIONS: Final = 100_000
"""Subjects that a worker has subscribed, and watches that it has."""
HUB_MAX_ASKING: Final = 20_000
"""Frames of a worker that wait for their replies, requests to other workers among them."""
HUB_ANSWER_S: Final = 5.0
"""How long a relay in a worker waits for its supervisor, before it refuses a request."""
HUB_MAX_DESCRIPTORS: Final = 2 * MAX_WORKERS
"""Sockets that wait to be passed to a worker: two for each of MAX_WORKERS."""
LINK_TIMEOUT_S: Final = 5.0
"""How long a worker waits for a socket to another one, and for the request on it: the loop may be busy."""
LINK_ANSWER_S: Final = RELAY_STOP_CONNECT_TIMEOUT_S + RELAY_STOP_HANDSHAKE_TIMEOUT_S + 5.0
"""How long it waits until the other worker has opened a stream: so long may the target of a circuit take."""
LINK_MESSAGE_BYTES: Final = 8192
"""A request of one worker to another: two peer ids and a protocol id in JSON."""
LINK_MAX_STREAMS: Final = 8192
"""Streams that one worker has open at another one: more than the streams of a usual connection."""
LINK_WINDOW_BYTES: Final = 1024 * 1024
"""What a stream between workers may have under way: on one machine, a longer window makes nothing faster."""

# -- metrics, health, access log -----------------------------------------------------------------
MAX_METRIC_ROWS: Final = 512
"""Kinds of connection that are found without making labels: of what a node has configured there are fewer."""
MAX_METRIC_PROTOCOLS: Final = 64
"""Protocols with samples of their own, each way; others are added up as "other"."""
MAX_METRIC_LISTENERS: Final = 64
"""Addresses of listeners with samples of their own; others are added up as "other"."""
LOOP_LAG_EVERY_S: Final = 1.0
"""Between two looks at how late a timer is: often enough for a rate over a minute, and costs 5 us."""
METRICS_HEAD_BYTES: Final = 8 * 1024
"""Head of one request for metrics: as MAX_HTTP_HEAD_BYTES."""
METRICS_TIMEOUT_S: Final = 5.0
"""From the connection to the end of the answer: a scraper on the same network needs milliseconds."""
MAX_METRICS_CONNS: Final = 16
"""Connections to a metrics server at a time: two Prometheus servers, probes, and people."""
WORKER_METRICS_S: Final = 1.0
"""How long a scrape waits for a worker; one that does not answer is left out."""
ACCESS_LOG_PER_S: Final = 10
"""Lines about refused connections in a second, for each reason; the others are counted in one more line."""
MAX_ACCESS_REASONS: Final = 64
"""Reasons that are counted apart there; there are about 30."""
HEALTH_HANG_S: Final = 30.0
"""A worker that has given no sign of life for so long is not healthy."""

# -- wire and records --------------------------------------------------------------------------
RECEIVE_BUFFER_BYTES: Final = 256 * 1024
"""The one receive buffer of an event loop: four full noise records, the fastest measured on loopback."""
MAX_NOISE_RECORD_BYTES: Final = 65535
"""Noise messages have a 16-bit length (spec noise)."""
MAX_NOISE_PLAINTEXT_BYTES: Final = 65519
"""A noise message without its 16-byte tag."""
MAX_HEADROOM_BYTES: Final = 14
"""Bytes a layer below a record layer may put before a record: the header of a WebSocket frame."""
TURN_WORK: Final = 16384
"""Work that one turn of the loop takes from all its connections, in frames: one takes 0.1 to 0.2 us, so a
turn takes 2 to 3 ms at most. What is left waits for the next turn (docs/decisions/0022)."""
TURN_SHARE: Final = 512
"""The part of it that one connection has before the next one has its own."""
WAKE_WORK: Final = 64
"""What waking one task counts for: the task costs 6 to 12 us when it runs."""
START_WORK: Final = 128
"""What a new stream's handler counts for: a task, a negotiation, about 20 us. So 64 start in a turn."""
OPEN_WORK: Final = 8
"""What a stream counts for that the peer opens, without its handler: about 1 us."""
RESET_WORK: Final = 16
"""What a stream counts for that the peer resets: about 2 us, and its task is woken."""
OVERDUE_PER_TURN: Final = 64
"""Of deadlines that run out together, and of what is looked at now and then, what one turn of the loop takes:
1,900 silent handshakes took 41 ms together; 64 take 1.5 ms."""
END_WORK: Final = 24
"""What a stream counts for that ends with its connection: 3.6 us."""
PROPOSALS_AT_ONCE: Final = 4
"""Proposals refused in one negotiation before others have a turn: a peer that waits for answers never has two
here at once. Each costs 5 us."""
MAX_LONG_NEGOTIATIONS: Final = 64
"""Streams of one connection that have refused PROPOSALS_AT_ONCE proposals and negotiate on, for 10 s at
most. Few programs have so many protocols to propose; with 1,024 of them a pass of Python's collector takes
100 ms."""
ARRIVED_AT_ONCE: Final = 64
"""Streams of a connection whose handlers have not started when its next frames begin to wait."""
FLUSH_AFTER_TASKS: Final = 32
"""Tasks whose writes share a record while others wait to run; then the record leaves (0002; measured)."""
FLUSH_AFTER_WRITES: Final = 16
"""Connections with gathered output when a further write sends it: each holds a record buffer of 64 KiB until
then. A broadcast to 5,000 would take 330 MB, and its first peer would wait for the last."""
BROADCAST_PER_TURN: Final = 256
"""Streams that a broadcast writes to in one turn of the loop: about 2.5 ms, most of it send(2)."""
UNFINISHED_LOOK_S: Final = 30.0
"""Between two looks at records and frames that a peer has begun; the connection ends after two without
progress. A record of 64 KiB in a minute is 1 KB/s: slower than any path in use."""
MAX_EMPTY_RECORDS: Final = 1000
"""Empty records in a row; each is legal and each costs a decryption."""
MAX_CIPHERED_CHANNELS: Final = 1024
"""Noise channels of a loop that keep their ciphers (4.6 KB); other idle ones make them again, in 2 us."""
MAX_SPILL_BUFFERS: Final = 64
"""Free spill buffers that a loop keeps; the others go back to the allocator."""
WRITE_STALL_TIMEOUT_S: Final = 10.0
"""If bytes are queued and the peer takes none for this long, its connection is closed (go)."""
WRITE_STALL_LOOKS: Final = 10
"""Checks during that time: a stalled peer is found at most a tenth of it later."""
MAX_QUEUED_CONTROL_BYTES: Final = 256 * 1024
"""Bytes queued for a peer that does not read, without what windows allow: pongs, credit, resets."""
CLOSE_DRAIN_TIMEOUT_S: Final = 1.0
"""From our FIN to the peer's at an orderly close. Then the socket is closed without it."""
CLOSE_WRITES_TIMEOUT_S: Final = 3.0
"""How long a close waits for writes that the peer's window or the socket holds up: less than swarms allow."""
CLOSE_FLUSH_TIMEOUT_S: Final = 10.0
"""After our FIN, while the peer still takes what was sent before it. Then the kernel sends the rest."""
SPIN_S: Final = 50e-6
"""How long a loop looks for the answer to a short message before it sleeps (docs/decisions/0009)."""
MAX_SPIN_S: Final = 0.001
"""The longest time a user may set for that: above it, sleeping costs less than a hundredth of the wait."""
SPIN_AFTER_ANSWERS: Final = 16
"""The loop begins this after so many fast answers in a row; one late answer starts the count again."""
QUICK_ANSWER_S: Final = 200e-6
"""An answer within this time is fast. It includes the wake-up of a sleeping process on both sides."""
SPIN_MESSAGE_BYTES: Final = 2048
"""The most bytes of a short message: one packet or two."""
TCP_KEEPALIVE_IDLE_S: Final = 30
"""Idle time before the kernel probes the peer (go)."""
TCP_KEEPALIVE_INTERVAL_S: Final = 10
"""Time between unanswered probes. With the 75 s of Linux, a dead peer is kept for 12 minutes."""
TCP_KEEPALIVE_PROBES: Final = 3
"""Unanswered probes before the kernel ends the connection: one or two packets may get lost."""
TCP_USER_TIMEOUT_S: Final = TCP_KEEPALIVE_IDLE_S + TCP_KEEPALIVE_INTERVAL_S * TCP_KEEPALIVE_PROBES
"""How long sent bytes, and probes, may stay unacknowledged: a minute (Linux: about 15). With less than that,
Linux would end an idle connection before the last probe (tcp(7))."""

# -- streams of any muxer ------------------------------------------------------------------------
REFUSED_STREAMS_PER_S: Final = 10_000
"""Streams beyond a limit that are reset in a second, for ever. One costs 0.2 us: 0.2 % of a core ..."""
REFUSED_STREAMS_BURST: Final = 50_000
"""... and this many at once. More is no program that waits for its answers, and ends the connection."""
RESET_STREAMS_PER_S: Final = 5_000
"""Streams a peer may open and reset in a second, before we have answered them, for ever. With its handler,
started and thrown away, one costs what an answered one costs: about 12 us (docs/decisions/0018) ..."""
RESET_STREAMS_BURST: Final = 20_000
"""... and this many at once: all streams of a connection time out together, many times in a row."""
REFUSED_WARNING_S: Final = 10.0
"""Between two warnings that a connection has more streams than it may."""
MAX_LINGERING_STREAMS: Final = 1024
"""Streams closed here whose other half the peer keeps open, on one connection; then its oldest is reset."""
LINGER_BYTES: Final = 16 * 1024 * 1024
"""What a peer may go on sending on a stream closed here before it is reset: one window at its largest."""
LINGER_S: Final = 30.0
"""The same in time, from the first such byte (nginx's lingering_time). An answer can be read until then."""
STREAM_SWEEP_S: Final = 5.0
"""Between two looks for streams that the program has dropped without closing them."""
STREAM_SWEEP_FULL_S: Final = 0.5
"""The same where a limit of streams is reached: a look costs 20 us for 1,000 streams."""

# -- the budget of memory ------------------------------------------------------------------------
CONN_COST_BYTES: Final = 3 * 1024
"""An idle connection with default options: 2.9 KB resident (docs/gates.md). Its queues are counted apart."""
STREAM_COST_BYTES: Final = 2 * 1024
"""An open stream with its handler: 1.9 KB resident, 263,000 idle echo streams together."""
MEMORY_CAREFUL_PERCENT: Final = 50
"""Of the budget: from here on receive windows grow no more (go: 50.4 %, its priority 128)."""
MEMORY_CAREFUL_END_PERCENT: Final = 45
"""Below this it is calm again. It is less than where it began, so that the state does not flap."""
MEMORY_TIGHT_PERCENT: Final = 80
"""Of the budget: windows are filled to their initial size only, and accepting pauses (go: 79.7 %, high)."""
MEMORY_TIGHT_END_PERCENT: Final = 70
"""Below this it ends."""
MEMORY_PAUSE_S: Final = 1.0
"""The longest time for which tight memory keeps new peers waiting, each time it becomes tight: a peer that
holds much must not close the door for ever. A new connection costs 3 KB; those who hold most go when it is
full."""
MEMORY_FULL_PERCENT: Final = 95
"""Of the budget: no new streams, and those who hold most go. The rest is for what one turn brings."""
MEMORY_FULL_END_PERCENT: Final = 85
"""Below this it ends."""
MEMORY_ENDED_S: Final = 1.0
"""While memory is full, a stream that has ended keeps what nobody has read for so long."""
MEMORY_TRIM_BYTES: Final = 16 * 1024 * 1024
"""If at least so much was used and less than half of it still is, free memory goes back to the system ..."""
MEMORY_TRIM_AFTER_S: Final = 2.0
"""... this long later: what has ended is freed by then (an orderly close drains for a second)."""
MEMORY_FAIR_TIMES: Final = 4
"""While memory is tight, a peer that holds more than so many equal parts of it gets no new streams;
where it is full, one that holds more than half a part."""

# -- yamux -------------------------------------------------------------------------------------
MSG_MAX_BYTES: Final = 4 * 1024 * 1024
"""One message that read_msg accepts, unless the caller says otherwise (grpc; go-msgio takes 8 MiB)."""
STREAM_TRANSPORT_HIGH_BYTES: Final = 64 * 1024
"""Unsent bytes above which a StreamTransport tells its protocol to pause (asyncio)."""
STREAM_TRANSPORT_LOW_BYTES: Final = 16 * 1024
"""Unsent bytes at which it tells it to go on (asyncio)."""
STREAM_TRANSPORT_MAX_BYTES: Final = 64 * 1024 * 1024
"""Unsent bytes after which one more write ends the stream: its protocol ignores the pause."""
FORWARD_MAX_CONNS: Final = 1024
"""Local connections of one forwarded port at once, up to 300 KB each; more wait in the kernel's queue."""
YAMUX_INITIAL_WINDOW_BYTES: Final = 256 * 1024
"""Each direction of a new stream (spec yamux)."""
YAMUX_MAX_WINDOW_BYTES: Final = 16 * 1024 * 1024
"""The window of one stream at which auto-tuning stops (go, rust, js)."""
YAMUX_HIGHEST_WINDOW_BYTES: Final = 1 << 30
"""The most a program may set there: windows have 32 bits (spec yamux), and tuning doubles them."""
YAMUX_WINDOW_BUDGET_BYTES: Final = 64 * 1024 * 1024
"""Receive windows of one connection above their initial size, all streams together."""
YAMUX_MAX_FRAME_BODY_BYTES: Final = MAX_NOISE_PLAINTEXT_BYTES - 12
"""A data frame and its header fit one noise record (go's do not: its fault W40)."""
YAMUX_MAX_INBOUND_STREAMS: Final = 1024
"""Streams a peer may have open on one connection; more are reset."""
YAMUX_MAX_OUTBOUND_STREAMS: Final = 1000
"""Streams we have open on one connection; one more waits. js takes 1,000, go 1,024."""
YAMUX_CAUTIOUS_STREAMS: Final = 448
"""The same until the peer has acknowledged a stream by a frame of its own. rust does not, and ends the
connection at 512, its own streams and those it has not dropped yet included."""
YAMUX_REGROW_S: Final = 10.0
"""After a refusal we open no more streams than were open then; this long later one more, then
two, then four: the peer may take more by now."""
YAMUX_LEAST_OUTBOUND_STREAMS: Final = 128
"""We go on opening at least so many streams after resets with STREAM_RESOURCE_LIMIT_EXCEEDED: they may come
from a cap on handlers, and handlers of calls that timed out say nothing about streams (rust takes 512)."""
YAMUX_ACK_BACKLOG: Final = 256
"""Streams opened and not yet acknowledged, each way (go, rust)."""
YAMUX_MAX_PING_REPLIES_PER_S: Final = 100
"""Ping requests answered per second; the connection of a peer that sends more is closed."""
YAMUX_MAX_UNKNOWN_PER_S: Final = 1000
"""Frames for unknown streams per second; they are legal just after a reset."""
YAMUX_LATE_FRAMES: Final = 8
"""Extra such frames that each ended stream allows: js sends window updates even after a stream has ended."""
YAMUX_MAX_UNKNOWN_BODY_BYTES: Final = 1024 * 1024
"""Body of one data frame for an unknown stream."""
YAMUX_MAX_PINGS: Final = 32
"""Our own pings that may be unanswered at one time (go's backlog)."""
YAMUX_PONG_TIMEOUT_S: Final = 10.0
"""After this long without an answer to a keepalive ping, the connection ends (go's write timeout)."""
YAMUX_WINDOW_LOOK_S: Final = 8.0
"""Between two checks of a write that waits for the peer's window. After one or two checks without any byte
of the peer, we send a ping. With the time for the answer, that takes 19 to 28 s; a user accepts 30."""
YAMUX_WINDOW_GRACE_S: Final = 1.0
"""One more check before that ends a connection: an answer may be here unread if this process stood still."""
YAMUX_GO_AWAY_DRAIN_S: Final = 60.0
"""Streams that are still open this long after the peer's orderly go-away are ended."""
YAMUX_MAX_TUNING_RTT_S: Final = 0.5
"""A longer round trip counts as this when windows grow: the peer can answer pings late, and windows must
not grow for a reader that is slow. A path by satellite has 0.6 s, and half a window in 2 s is still enough
there."""
YAMUX_RTT_INTERVAL_S: Final = 30.0
"""Age at which the round trip is measured again, only while data flows (go and rust probe idle links too)."""

# -- protocols ---------------------------------------------------------------------------------
MAX_IDENTIFY_MESSAGE_BYTES: Final = 8192
"""One identify message (go, js)."""
MAX_IDENTIFY_MESSAGES: Final = 10
"""Messages merged into one identify (go, js)."""
MAX_IDENTIFY_SEND_BYTES: Final = 4096
"""One identify message that we send: rust reads only the first message, up to this size."""
MAX_IDENTIFY_PROTOCOLS: Final = 512
"""Protocol ids looked at in what a peer tells; one takes half a microsecond (go keeps 1,000)."""
MAX_IDENTIFY_PROTOCOLS_BYTES: Final = 7 * 1024
"""Memory for those that are kept of one peer: about 80 of usual length."""
MAX_IDENTIFY_ADDRS: Final = 256
"""Addresses looked at in what a peer tells; one takes a microsecond (go keeps 500)."""
MAX_IDENTIFY_ADDRS_BYTES: Final = 7 * 1024
"""Memory for those that are kept of one peer, its signed record included: about 65 addresses. With the ids
and texts that is less than 16 KiB a peer."""
MAX_IDENTIFY_UNREAD_BYTES: Final = 4096
"""A message of identify up to this long is kept as it is, and read when somebody asks. Honest ones have 400
to 1,500 bytes."""
MAX_IDENTIFY_AT_ONCE_BYTES: Final = 4096
"""A longer identify is read when it is its connection's turn: 80 KiB take 1.6 ms."""
MAX_AGENT_CHARS: Final = 256
"""Characters of a peer's agentVersion and of its protocolVersion, which are free text."""
IDENTIFY_TIMEOUT_S: Final = 5.0
"""One identify exchange (go, js)."""
MAX_IDENTIFY_PER_MINUTE: Final = 60
"""Identify requests, and pushes, answered per minute on one connection: a program that starts registers
dozens of protocols, with a push each (in go, which does not gather them). One costs at most 2 ms."""
IDENTIFY_PUSH_DELAY_S: Final = 1.0
"""Changes of protocols and addresses within this time are sent as one push (js)."""
IDENTIFY_ADDRS_TTL_S: Final = 0.05
"""Our addresses are asked for anew after this time, or when something has changed: it takes 10 us."""
MAX_IDENTIFY_PUSHES: Final = 32
"""Pushes sent at the same time (go)."""
PING_BYTES: Final = 32
"""One ping (spec ping)."""
PING_TIMEOUT_S: Final = 10.0
"""From a ping to its answer (go, js)."""
PING_IDLE_TIMEOUT_S: Final = 30.0
"""Silence that ends an inbound ping stream; go ends it after 30 s of activity too (its fault W36)."""
MAX_PING_STREAMS: Final = 2
"""Inbound ping streams of one peer (spec ping)."""
PERF_BLOCK_BYTES: Final = 64 * 1024
"""One write of perf (spec perf)."""
PERF_TIMEOUT_S: Final = 600.0
"""One inbound perf stream."""
MAX_PERF_DOWNLOAD_BYTES: Final = 1 << 40
"""Bytes that one inbound perf stream may ask for: more than PERF_TIMEOUT_S allows at 10 Gbit/s."""

# -- calls (rpc/) ------------------------------------------------------------------------------
RPC_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""One request or answer, by default; each side says otherwise if it wants (gRPC)."""
RPC_MAX_METHOD_BYTES: Final = 255
"""The name of a method: its length is one byte of the request."""
RPC_MAX_ERROR_BYTES: Final = 4096
"""The text of an error. It is for people; what programs need is the code."""
RPC_TIMEOUT_S: Final = 30.0
"""A call whose caller names no deadline: a person has given up by then (the AWS clients take 60 s)."""
RPC_MAX_TIMEOUT_S: Final = 4_294_967.0
"""The longest deadline that travels: 49 days, in 32 bits of milliseconds."""
RPC_IDLE_S: Final = 15.0
"""A caller closes a stream that no call has used for so long, up to twice ..."""
RPC_SERVER_IDLE_S: Final = 60.0
"""... and a service one that brings no request. The caller's time is shorter, so that it ends them itself."""
RPC_LOOK_S: Final = 0.5
"""Between two looks at the streams of a service that have no call, while there are any."""
RPC_REQUEST_TIMEOUT_S: Final = 30.0
"""From the head of a request to its last byte: 4 MiB at 1.2 Mbit/s."""
RPC_WRITE_TIMEOUT_S: Final = 60.0
"""One answer, or one item of a stream, to a caller that does not read: it keeps a place of the service."""
RPC_MAX_MOVES: Final = 2
"""New streams on which a peer that ends may refuse one call. Then the call fails: there is no other node."""
RPC_MAX_STREAMS: Final = 100
"""Calls of one client under way at once, each on a stream of its own (HTTP/2 and gRPC take 100)."""
RPC_MAX_WAITING: Final = 10_000
"""Calls of one client that wait for a stream; one takes about 2 KB."""
RPC_MAX_RUNNING: Final = 1000
"""Calls of one service that run at once: as many as ten busy peers make ..."""
RPC_MAX_RUNNING_PER_PEER: Final = 500
"""... and of one peer: half of all: several processes may share one identity (docs/decisions/0021)."""
RPC_MAX_QUEUED: Final = 8192
"""Calls of one service that wait to run. With their streams they take about 2.5 KB each, and the request."""
RPC_MAX_QUEUED_PER_PEER: Final = 4096
"""The same of one peer: at most half of all."""
RPC_MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Requests of all calls that wait to run, together."""
RPC_RETRY_PAUSE_S: Final = 0.05
"""The longest pause before the second attempt; it doubles before each further one. The pause is random ..."""
RPC_MAX_RETRY_PAUSE_S: Final = 2.0
"""... and never longer than this."""
RPC_MAX_ATTEMPTS: Final = 10
"""Attempts of one call: more of them only add to what the service cannot do."""
# -- p2pcore.testing -------------------------------------------------------------------------------
TEST_PACKET_BYTES: Final = 1400
"""A packet that a network of testing.Conditions may lose: what Ethernet's 1,500 bytes leave to TCP, about."""
TEST_RETRANSMIT_S: Final = 0.2
"""A lost packet comes so much later: the least time after which Linux's TCP sends again (TCP_RTO_MIN)."""
TEST_TICK_S: Final = 0.001
"""What is due within this time arrives now: timers of uvloop count whole milliseconds."""
VIRTUAL_THREAD_S: Final = 10.0
"""So long a virtual event loop waits for a thread of its executor, which no virtual clock can hurry."""
TABLE_MAX_EXPIRED: Final = 1000
"""Entries that a table forgets in one turn of the loop: 2 ms. A killed process may leave a million."""
# -- p2pcore.fleet -----------------------------------------------------------------------------
BUS_MAX_MESSAGE_BYTES: Final = 1_000_000
"""One message on the bus of a fleet, with what the fleet adds: NATS takes 1 MiB (max_payload) by default."""
BUS_MAX_VALUE_BYTES: Final = 64 * 1024
"""The value of one entry of a bucket: one look-up may bring thousands of them."""
BUS_MAX_NAME_CHARS: Final = 256
"""A subject or a key: the id of a peer has 52 characters; NATS takes 4,096 bytes for a whole line."""
BUS_MIN_EXPIRY_S: Final = 1.0
"""The shortest life of an entry: what NATS allows."""
BUS_CONNECT_TIMEOUT_S: Final = 2.0
"""Each step of connecting to one server of an engine (nats-py)."""
BUS_TIMEOUT_S: Final = 5.0
"""An engine that is up answers a question about a bucket within this time (nats-py)."""
BUS_CLOSE_TIMEOUT_S: Final = 1.0
"""To send what is buffered when a bus is closed."""
BUS_LOOK_S: Final = 1.0
"""Between two looks at the connection to an engine."""
BUS_PING_S: Final = 2.0
"""Between two pings of an engine. After two without an answer it counts as away."""
BUS_MAX_REASONS: Final = 10
"""Reasons why an engine is away that are logged as warnings until it is back; each once."""
BUS_RETRY_MIN_S: Final = 0.05
"""The pause before the second attempt to reach an engine. It doubles before each further one ..."""
BUS_RETRY_MAX_S: Final = 1.0
"""... up to this: presence must be right two seconds after an engine is back."""
BUS_MAX_PENDING_BYTES: Final = 4 * 1024 * 1024
"""Sent and not yet taken by the system: four of the longest messages. Who sends more waits."""
BUS_MAX_UNREAD: Final = 65_536
"""Messages of one subscription that came and were not delivered; further ones are dropped and counted ..."""
BUS_MAX_UNREAD_BYTES: Final = 64 * 1024 * 1024
"""... and their bytes: as much as NATS keeps for a slow client (max_pending)."""
BUS_MAX_ANSWERS: Final = 10_000
"""Answers that wait for their turn to leave; with their bytes they count as sent. Further ones are dropped
and counted."""
BUS_HEARTBEAT_S: Final = 2.0
"""NATS says so often that it still serves a watch which has nothing to tell."""
BUS_MAX_HEARTBEATS_MISSED: Final = 3
"""After so many without one the watch asks anew."""
BUS_WATCH_ATTEMPTS: Final = 4
"""A watch that gets nothing for BUS_HEARTBEAT_S, with entries still to come, asks anew so often."""
BUS_CONSUMER_EXPIRY_S: Final = 30.0
"""NATS forgets a watch so long after its process is gone."""
BUS_MARKER_S: Final = 5.0
"""NATS keeps the note that an entry in its memory is gone so long, for watches that are a little late."""
BUS_MAX_BATCH: Final = 500
"""Entries that are put at once: as many as NATS acknowledges together (fast ingest)."""
BUS_MAX_BATCH_BYTES: Final = 1_000_000
"""Their values together: four of such batches may wait to leave."""
BUS_MAX_BATCH_ID_CHARS: Final = 64
"""The name of a batch (NATS)."""
BUS_PUT_ATTEMPTS: Final = 4
"""A batch that NATS did not store as a whole is sent so often, within 2 s."""
FLEET_LEASE_S: Final = 1.75
"""A process of a fleet that was not heard of for so long counts as ended: presence is right within 2 s."""
FLEET_REFRESH_S: Final = 0.5
"""How often a process says that it lives: two of three such messages may get lost."""
FLEET_LATE_S: Final = 0.75
"""A process that says so this late is asked. If the bus finds nobody, as after a kill -9, it has ended."""
FLEET_LOOK_S: Final = 0.25
"""Between two looks at who is late. So the end of a killed process is known after FLEET_LATE_S + FLEET_LOOK_S
and a round trip of the bus: a second is left of two for an event loop that is busy."""
FLEET_BATCH_S: Final = 0.05
"""Connects and disconnects of so long are written together: a hundred of them cost one wake-up."""
FLEET_BATCH: Final = 500
"""Entries of one write (BUS_MAX_BATCH): with the pauses 10,000 a second, more than a process can accept."""
FLEET_MAX_CHANGED: Final = 65_536
"""Peers whose change waits to be written. Beyond it all connections are compared instead: 8 MiB of ids."""
FLEET_BUS_WAIT_S: Final = 5.0
"""An engine that leaves a write of presence so long without an answer counts as away."""
FLEET_EXPIRY_S: Final = 3600.0
"""What a process that was killed leaves on the bus goes after this time; it counts for nothing before ..."""
FLEET_RENEW_S: Final = 1200.0
"""... and what a living one has there is written again after this time, or sooner by up to a half."""
FLEET_REMEMBER_S: Final = 120.0
"""How long a process is remembered as ended, so that nobody has to ask the bus about it."""
FLEET_CLOSE_S: Final = 2.0
"""How long a process that leaves takes to delete its own entries; what is left counts for nothing."""
FLEET_TIMEOUT_S: Final = 10.0
"""A request to a peer whose caller names no deadline."""
FLEET_MAX_TIMEOUT_S: Final = 86_400.0
"""The longest deadline of a request: a day, in 32 bits of milliseconds."""
FLEET_MAX_HEAD_BYTES: Final = 1024
"""What a fleet adds to a message on the bus: ids of process, peer, protocol and message, all bounded."""
FLEET_MAX_MESSAGE_BYTES: Final = BUS_MAX_MESSAGE_BYTES - FLEET_MAX_HEAD_BYTES
"""One message to a peer, and one answer."""
FLEET_MAX_ID_BYTES: Final = 128
"""The id of a message that may be sent more than once: a UUID has 36."""
FLEET_MAX_ASKED: Final = 8192
"""Requests of one process under way, about 5 KB each and the message; one more fails at once."""
FLEET_HINT_BITS: Final = 20
"""Of the index of a table that guesses where a peer is: a million places, 4 MiB in each process."""
FLEET_MAX_TOLD: Final = 65_536
"""Peers that a process tells one that has just come: 256 KiB, and 15 ms of its event loop."""
FLEET_MAX_NEWS: Final = 8192
"""Peers that a process says are new with it, each FLEET_REFRESH_S: 32 KiB. It can hardly accept so many."""
FLEET_MAX_SERVED: Final = 8192
"""Requests from the bus that one process serves at once ..."""
FLEET_MAX_SERVED_PER_PROCESS: Final = 4096
"""... and those of one asking process: at most half of all ..."""
FLEET_MAX_SERVED_BYTES: Final = 64 * 1024 * 1024
"""... and their messages, together."""
FLEET_MAX_DONE: Final = 8192
"""Ids of messages that a process knows as done. The oldest is forgotten first ..."""
FLEET_MAX_DONE_BYTES: Final = 16 * 1024 * 1024
"""... and their answers, together."""
FLEET_ATTEMPT_S: Final = 2.0
"""A message with an id whose attempt has no answer after this time is sent again."""
FLEET_RETRY_PAUSE_S: Final = 0.05
"""The longest pause before the second attempt; it doubles before each further one. The pause is random ..."""
FLEET_MAX_RETRY_PAUSE_S: Final = 1.0
"""... and never longer than this: a process that ended is known after two seconds."""
FLEET_MAX_TOPICS: Final = 16_384
"""Topics that peers of one process subscribe to: each is a subscription on the bus, about 1 KB here."""
FLEET_TOPIC_QUEUE: Final = 64
"""Messages of one topic from the bus that wait for their broadcast; more are dropped and counted ..."""
FLEET_TOPIC_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""... and those of all topics, together."""
FLEET_MAX_MISSED: Final = 50
"""Messages in a row that a subscriber may miss because its peer is slow; after more its stream is reset."""
FLEET_TOPIC_LOOK_S: Final = 10.0
"""Between two looks for subscribed streams that have ended while nothing was published."""
FLEET_MAX_BLOCKS: Final = 100_000
"""Peers and networks on the block list of a fleet: about 300 bytes each in every process."""
FLEET_MAX_REASON_CHARS: Final = 200
"""The text of a block, or of a failure on another process: a sentence for a log."""
FLEET_TURN_EXPIRY_S: Final = 10.0
"""Who has a turn of a fleet and is not heard of for so long has it no more ..."""
FLEET_TURN_MAX_EXPIRY_S: Final = 86_400.0
"""The longest such time that a holder may choose: a day ..."""
FLEET_TURN_RENEWALS: Final = 4
"""... because it is renewed after a fourth of this time."""
FLEET_TURN_LOOK_S: Final = 0.5
"""Between two looks of those that wait for a turn, on average: 100 of them ask the bus 200 times a second."""
FLEET_TURN_TIMEOUT_S: Final = 3600.0
"""How long one waits for a turn: a fleet of 60 machines restarts one a minute."""
FLEET_TURN_MAX_BYTES: Final = 4096
"""Who has a turn: a name of BUS_MAX_NAME_CHARS, a time and two numbers in JSON."""
WORKER_TURN_ANSWER_S: Final = 2 * BUS_TIMEOUT_S + 2.0
"""How long a supervisor waits for what a worker does on the bus for its turn: two questions."""
FLEET_PIPE_CHUNK_BYTES: Final = 64 * 1024
"""Bytes of streams over the bus in one of its messages: others wait behind it for less than 1 ms ..."""
FLEET_PIPE_CHUNKS: Final = 16
"""... and such messages under way each way between two processes: 1 MiB, in each of them too. It is more than
a bus carries in the round trip that their answers take."""
FLEET_PIPE_WINDOW_BYTES: Final = 256 * 1024
"""What one stream over the bus may have under way: the least that yamux allows. The bus has one such window
in its hands within some milliseconds."""
FLEET_PIPE_ANSWER_S: Final = 5.0
"""A process that takes no bytes of a stream over the bus for so long is given up: it only passes them on."""
FLEET_PIPE_LOOK_S: Final = 2.0
"""Between two questions whether the other process still has the streams over the bus that this one has."""
FLEET_PIPE_IDLE_LOOKS: Final = 30
"""After so many of these times without a stream, two processes forget each other: a minute."""
FLEET_MAX_PIPES: Final = 256
"""Processes that one process has streams over the bus with: two descriptors each, and at most 2 MiB."""
FLEET_MAX_BUS_STREAMS: Final = 1024
"""Streams over the bus of one process, for its own callers and for others: at most 512 MiB are under way."""

"""Every bound of p2pcore: name with its unit, default, and why it is what it is.

Comes in: nothing. Goes out: integers (bytes, counts) and floats (seconds). Never computed at run
time. "go", "rust" and "js" name go-libp2p, rust-libp2p and js-libp2p; "spec" the libp2p specifications.
"""

from __future__ import annotations

from typing import Final

# -- what a program may set ----------------------------------------------------------------------
MAX_TIMEOUT_S: Final = 31_536_000.0
"""Any time in seconds: a year. More is milliseconds, or infinity, by mistake; timers take neither."""
MAX_COUNT: Final = 2**31 - 1
"""Any count: an int of C, as listen(2) and the compiled modules take."""
MAX_SIZE_BYTES: Final = 1 << 48
"""Any size: more than a machine has memory, and it fits the 64 bits of the compiled modules."""
MAX_LINGER_S: Final = 32767
"""SO_LINGER, seconds: what every kernel keeps of it (a short on some)."""
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
"""go and js agree; bounds the CPU a hostile handshake can cost."""
MAX_RSA_EXPONENT_BITS: Final = 64
"""Public exponent: a long one costs 30 ms a verification; go takes 31 bits."""
MAX_PUBLIC_KEY_BYTES: Final = 1100
"""`Data` of a PublicKey protobuf: an RSA key of 8192 bits with a 64-bit exponent."""
MAX_PRIVATE_KEY_BYTES: Final = 8192
"""`Data` of a PrivateKey protobuf: an RSA key of 8192 bits has about 4,700."""
MAX_KEY_FILE_BYTES: Final = 64 * 1024
"""A file with a host key: the PEM of an RSA key of 8192 bits has about 6,400; comments may be around it."""
MAX_CERTIFICATE_FILE_BYTES: Final = 1024 * 1024
"""A file with a certificate and those that lead to an authority: a chain of ten takes about 20 KiB."""
MAX_ENVELOPE_BYTES: Final = 8192
"""A signed envelope rides in identify, whose messages have the same bound (go)."""
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
"""How long the end of our data waits for the answer to a lazy proposal. js loses a stream that has ended
before it has read the proposal; it needs one turn of its event loop for that (docs/decisions/0014)."""

# -- upgrade -----------------------------------------------------------------------------------
ACCEPT_TIMEOUT_S: Final = 15.0
"""From the moment of accept to a finished upgrade handed over (go)."""
ACCEPT_QUEUE_LENGTH: Final = 16
"""Finished connections that wait for `accept()` before the listener stops taking more (go)."""
MAX_UPGRADING: Final = 128
"""Handshakes in flight on one listener, slow ones aside; go has no bound of its own (its fault W4)."""
UPGRADE_SLOW_S: Final = 0.1
"""A handshake that takes longer waits for its peer, and no longer keeps others out: a LAN needs 5 ms."""
MAX_SLOW_UPGRADES: Final = 4096
"""Such handshakes on one listener, about 5 KB each; one more ends the oldest."""
ACCEPT_BACKOFF_MIN_S: Final = 0.001
"""First pause after a temporary accept error; doubles (go-temp-err-catcher)."""
ACCEPT_BACKOFF_MAX_S: Final = 1.0
"""Longest pause after a temporary accept error (go-temp-err-catcher)."""
LISTEN_BACKLOG: Final = 4096
"""Connections the kernel may queue; it cuts this to net.core.somaxconn."""
SOCKET_PROBE_S: Final = 5.0
"""How long a listening socket whose descriptor was closed under it may go unnoticed; epoll never tells."""
MAX_NOISE_MUXERS: Final = 100
"""Entries of a peer's stream_muxers list; a longer list is ignored (go)."""
MAX_NOISE_PROOFS: Final = 1024
"""Peers whose proof of identity is kept: one who comes back costs no verification. Half a MB (0006)."""
MAX_NOISE_PROOF_BYTES: Final = 512
"""Static key and payload of one kept proof; with an Ed25519 or ECDSA identity they have about 200."""
MAILBOX_BYTES: Final = 128 * 1024
"""Bytes held for a handshake step before reading is paused: one noise frame and a burst behind it."""

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
"""Addresses of all peers dialled at once, each with a descriptor; more wait in line (go refuses: W23)."""
DIAL_DELAY_PUBLIC_S: Final = 0.25
"""Head start of IPv6 over IPv4, and of the first addresses over the others, on the internet (go)."""
DIAL_DELAY_PRIVATE_S: Final = 0.03
"""The same for private and loopback addresses (go)."""
DIAL_DELAY_RELAY_S: Final = 0.5
"""Head start of public addresses over relays (go)."""
DIAL_DELAY_OTHER_PUBLIC_S: Final = 1.0
"""Head start of TCP over public addresses of any other kind, and of all over what is no IP address (go)."""
DIAL_DELAY_OTHER_PRIVATE_S: Final = 0.1
"""The same for private addresses (go)."""
NEW_STREAM_TIMEOUT_S: Final = 15.0
"""Opening a stream, a dial not included (go)."""

# -- dns, black holes, back-off, events -----------------------------------------------------------
MAX_RESOLVED_ADDRS: Final = 100
"""Addresses that one address with a name may lead to (go)."""
MAX_DNSADDR_DEPTH: Final = 4
"""How often a dnsaddr may lead to another dnsaddr (go)."""
MAX_DNS_QUERIES: Final = 64
"""Names looked up for one address, so that hostile records cannot multiply."""
DNS_TIMEOUT_S: Final = 10.0
"""Resolving one address, all its names together."""
BLACK_HOLE_WINDOW: Final = 100
"""Dials that decide whether UDP, or IPv6, works from here, and every how many one is tried if not (go)."""
BLACK_HOLE_MIN_SUCCESSES: Final = 5
"""Successes among those; with fewer it does not work (go)."""
BACKOFF_BASE_S: Final = 5.0
"""An address that failed is left alone this long ... (go)"""
BACKOFF_STEP_S: Final = 1.0
"""... and this times the square of how often it has failed, ... (go)"""
BACKOFF_MAX_S: Final = 300.0
"""... at most this long (go)."""
MAX_BACKOFF_ADDRS: Final = 8192
"""Addresses remembered as failed, 300 bytes each; the one that failed longest ago is forgotten first."""
EVENT_QUEUE_LENGTH: Final = 256
"""Events a subscriber may leave unread before the oldest are dropped and counted."""
MAX_EVENT_QUEUE_LENGTH: Final = 65536
"""What a subscriber may ask for."""
MAX_EVENT_SUBSCRIBERS: Final = 64
"""Subscriptions of one host; each event is put into the queues of all that want it."""

# -- private networks ------------------------------------------------------------------------------
MAX_PSK_FILE_BYTES: Final = 1024
"""A key file has about a hundred."""

# -- tls, plaintext --------------------------------------------------------------------------------
MAX_PLAINTEXT_EXCHANGE_BYTES: Final = 4096
"""Id and key in plaintext v2: an RSA key of 8192 bits has 1.1 KiB; go takes 64 KiB, rust 100 bytes."""
MAX_TLS_PLAINTEXT_BYTES: Final = 16384
"""Data of one TLS record (RFC 8446, section 5.1)."""
MAX_TLS_RECORD_BYTES: Final = MAX_TLS_PLAINTEXT_BYTES + 2048
"""What follows a TLS record's header: what TLS 1.2 allows; OpenSSL holds 1.3 to 256 over."""
MAX_TLS_CONTROL_RECORDS_PER_S: Final = 100
"""Records without data (tickets, key updates) in a second; each key update costs two key derivations."""
MAX_TLS_CERTIFICATE_BYTES: Final = 16 * 1024
"""A peer's libp2p certificate; with the largest RSA keys in it, it has about 5 KiB."""
TLS_CERTIFICATES_KEPT: Final = 256
"""Peers' certificates whose signatures are not checked again; one has about 500 bytes, at most 16 KiB."""
TLS_CERTIFICATE_DAYS: Final = 365
"""How long a certificate of ours is valid ..."""
TLS_RENEW_DAYS: Final = 30
"""... and how long it still is when a new one is made: a peer's clock may be that far ahead."""
TLS_CLOCK_SKEW_S: Final = 3600.0
"""A certificate of ours is valid from this long ago: clocks may be off by an hour (go)."""
MAX_TLS_HANDSHAKE_BYTES: Final = 64 * 1024
"""What a peer may send in one TLS handshake: a hello, a certificate of 16 KiB or a long chain, and room."""

# -- websocket, http -------------------------------------------------------------------------------
WEBSOCKET_HANDSHAKE_TIMEOUT_S: Final = 15.0
"""TLS where there is any, proxy and HTTP upgrade of one connection (go)."""
MAX_HTTP_HEAD_BYTES: Final = 8 * 1024
"""Request or status line and headers of one HTTP message; what common servers take."""
MAX_HTTP_HEADERS: Final = 64
"""Header lines of one HTTP message; a browser sends about 20."""
MAX_HTTP_INTERIM_ANSWERS: Final = 4
"""Answers 1xx in front of the one that counts (100, 103); each is a head of its own."""
MAX_HTTP_ANSWER_BYTES: Final = 256 * 1024
"""Body of what a handler answers to plain HTTP: a page or a list of metrics; it is copied to the socket."""
WEBSOCKET_MAX_EMPTY_FRAMES: Final = 1000
"""Data frames without a payload in a row; each is legal."""

# -- shared ports, unix, udp, memory ---------------------------------------------------------------
PEEK_TIMEOUT_S: Final = 5.0
"""From accept to the first three bytes of a connection on a shared port (go)."""
MAX_PEEKS: Final = 64
"""Connections of one shared port whose first bytes are awaited, slow ones aside (go)."""
MAX_SLOW_PEEKS: Final = 1024
"""Such connections that are silent for longer than UPGRADE_SLOW_S; one more ends the oldest."""
MAX_PEEKED: Final = 64
"""Connections of one shared port that are told apart and wait for their listener; then none is accepted."""
PEEKED_TIMEOUT_S: Final = 10.0
"""How long such a connection waits for its listener: with the peek ACCEPT_TIMEOUT_S (go: 30 s)."""
MAX_UNIX_PATH_BYTES: Final = 107
"""Path of a UNIX socket: sun_path of Linux less its NUL. macOS and BSD have 103; bind(2) says so there."""
UNIX_BIND_TIMEOUT_S: Final = 1.0
"""Waiting for another process that binds in the same directory, which takes it microseconds."""
UNIX_CONNECT_PAUSE_S: Final = 0.01
"""Between attempts to connect to a UNIX listener with a full backlog, of which the kernel tells no end."""
MAX_DATAGRAM_BYTES: Final = 65535
"""One received datagram; UDP over IPv4 carries 65,507."""
MAX_QUEUED_DATAGRAMS: Final = 256
"""Datagrams of one packet connection that nobody has taken yet; further ones are dropped."""
MAX_DATAGRAMS_A_TURN: Final = 64
"""Datagrams read in one turn of the loop, so that a flood leaves room for others."""
MEMORY_BACKLOG: Final = 128
"""Dialled memory connections that nobody has accepted; further dials are refused."""
MEMORY_PIPE_BYTES: Final = 256 * 1024
"""Bytes on their way through a memory connection, each way, before its writers wait: a socket's buffer."""

# -- relay -----------------------------------------------------------------------------------------
MAX_CIRCUIT_MESSAGE_BYTES: Final = 4096
"""One hop or stop message after its length prefix (spec circuit-v2)."""
MAX_RESERVATION_ADDRS: Final = 64
"""Addresses taken from, or told in, one reservation; as in a signed peer record."""
RELAY_CONNECT_TIMEOUT_S: Final = 5.0
"""Reaching the relay of an address that is dialled or listened on (go)."""
RELAY_DIAL_TIMEOUT_S: Final = 60.0
"""From our CONNECT to the relay's status (go); the dial's own deadline is shorter."""
RELAY_RESERVE_TIMEOUT_S: Final = 60.0
"""From our RESERVE to the relay's status (go)."""
RELAY_STREAM_TIMEOUT_S: Final = 60.0
"""A peer's first message on a hop or stop stream, and our answer to it (go)."""
RELAY_STOP_CONNECT_TIMEOUT_S: Final = 30.0
"""The relay's stop stream to the target (go)."""
RELAY_STOP_HANDSHAKE_TIMEOUT_S: Final = 60.0
"""The target's answer on it (go)."""
RELAY_ACCEPT_TIMEOUT_S: Final = 10.0
"""How long a relayed connection waits for its listener to take it (go)."""
MAX_RELAY_WAITING: Final = 16
"""Relayed connections that wait so on one listener; as ACCEPT_QUEUE_LENGTH."""
RELAY_REFRESH_S: Final = 120.0
"""A reservation is renewed so long before it expires (go), or at three quarters of a short life (rust)."""
MAX_RESERVATION_S: Final = 86400.0
"""A reservation is renewed once a day whatever it says: a relay's clock may be far off."""
RELAY_RETRY_MIN_S: Final = 1.0
"""First pause before a lost reservation is asked for anew; doubles. Also the least time between renewals."""
RELAY_RETRY_MAX_S: Final = 300.0
"""Longest such pause: a relay that comes back is in use again within five minutes."""
RELAY_RESERVATION_TTL_S: Final = 3600
"""Life of a reservation at our relay, seconds (go, rust)."""
RELAY_MAX_RESERVATIONS: Final = 128
"""Reservations at our relay, one a peer (go, rust)."""
RELAY_MAX_RESERVATIONS_PER_IP: Final = 8
"""Of those from one IPv4 address or one IPv6 /56 (go; its 32 per ASN need a table we do not have)."""
RELAY_MAX_CIRCUITS_PER_PEER: Final = 16
"""Circuits a peer may be an end of (go)."""
RELAY_MAX_CIRCUITS_PER_IP: Final = 64
"""Circuits dialled from one IPv4 address or IPv6 /56: four peers' worth; go has no such bound."""
RELAY_CIRCUIT_S: Final = 120
"""Life of one circuit, seconds (go, rust, js)."""
RELAY_CIRCUIT_BYTES: Final = 128 * 1024
"""Bytes of one circuit each way (go, rust)."""
RELAY_SWEEP_S: Final = 60.0
"""Between two looks at which reservations have expired (go)."""

# -- mplex -----------------------------------------------------------------------------------------
MPLEX_MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Body of one message (spec mplex)."""
MPLEX_LAST_STREAM_ID: Final = (1 << 28) - 1
"""Of the streams we open: js puts headers together with 32-bit shifts."""
MPLEX_MAX_NAME_BYTES: Final = 64
"""Kept of the name a peer gives a stream, which is for people only."""
MPLEX_MAX_INBOUND_STREAMS: Final = 1024
"""Streams a peer may have open on one connection, as with yamux (js); rust's 128 are few for a busy node."""
MPLEX_MAX_OUTBOUND_STREAMS: Final = 1024
"""Streams we have open on one connection; one more waits (nothing is acknowledged that could bound them)."""
MPLEX_MAX_UNACCEPTED_STREAMS: Final = 256
"""Streams of the peer that wait for accept_stream(), as with yamux."""
MPLEX_STREAM_BUFFER_BYTES: Final = 256 * 1024
"""Received and not read, on one stream, before the connection stands still: one initial window of yamux."""
MPLEX_MAX_BUFFERED_BYTES: Final = 4 * 1024 * 1024
"""The same of all streams of a connection together (js's decoder)."""
MPLEX_STALL_S: Final = 5.0
"""How long the connection stands still for a stream that nobody reads, which is then reset (go-mplex)."""
MPLEX_MAX_USELESS_PER_S: Final = 1000
"""Messages for unknown or ended streams, and empty ones, in a second; js closes at 5."""
MPLEX_LATE_MESSAGES: Final = 8192
"""Messages on a stream under way when we reset it: 32 MiB of socket buffers in go's 4 KiB each."""

# -- swarm -------------------------------------------------------------------------------------
MAX_HANDLERS_PER_CONN: Final = 2048
"""Handlers of one connection's inbound streams: twice the streams, for a handler may outlive its stream."""
MAX_HANDLERS: Final = 262144
"""The same of all connections: at 4 KB each a gigabyte."""
DUPLICATE_LOOK_S: Final = 1.0
"""Between two looks at whether a superfluous connection has lost its last stream."""
SWARM_CLOSE_TIMEOUT_S: Final = 5.0
"""Each step of closing a swarm: listeners, handlers, connections; what is left is aborted (W29)."""
DRAIN_TIMEOUT_S: Final = 30.0
"""How long streams may go on once a node is told to end; what common supervisors allow."""
DRAIN_GRACE_S: Final = 1.0
"""What a new connection has for its first stream before a drain closes it: several long round trips."""
DRAIN_LOOK_S: Final = 0.1
"""Between two looks at which connections of a drain have no stream left."""
INTERFACE_ADDRS_TTL_S: Final = 5.0
"""Age at which the interface addresses behind a wildcard are read anew; go keeps them 60 s (W48)."""

# -- workers -----------------------------------------------------------------------------------
MAX_WORKERS: Final = 256
"""Processes of one supervisor: more than the cores of most machines."""
WORKER_START_TIMEOUT_S: Final = 60.0
"""From the start of a worker's interpreter until it serves; it takes a second, on a busy machine a few."""
WORKER_BACKOFF_MIN_S: Final = 0.1
"""First pause before a worker that died is started anew; doubles."""
WORKER_BACKOFF_MAX_S: Final = 10.0
"""Longest pause before a worker that keeps dying is started anew."""
WORKER_STEADY_S: Final = 10.0
"""A worker that has served this long has not been dying: the pauses begin anew."""
WORKER_HOLD_QUEUE_S: Final = 1.0
"""In a longer pause nobody would serve what the kernel queues for a worker, so its sockets are closed."""
WORKER_GC_THRESHOLDS: Final = (700, 10, 100)
"""gc.set_threshold: Python's own, but the oldest generation, all connections, ten times less often (0005)."""
WORKER_EXIT_S: Final = 5.0
"""From the end of a drain, or of a worker's channel, to the end of its process; then it is killed."""
MAX_WORKER_MESSAGE_BYTES: Final = 64 * 1024
"""One message between a worker and its supervisor."""
WORKER_QUEUE_BYTES: Final = 1024 * 1024
"""Messages waiting for a supervisor that does not read; more are dropped."""

# -- wire and records --------------------------------------------------------------------------
RECEIVE_BUFFER_BYTES: Final = 256 * 1024
"""The one receive buffer of an event loop: four full noise records, measured best on loopback."""
MAX_NOISE_RECORD_BYTES: Final = 65535
"""Noise messages have a 16-bit length (spec noise)."""
MAX_NOISE_PLAINTEXT_BYTES: Final = 65519
"""A noise message less its 16-byte tag."""
MAX_HEADROOM_BYTES: Final = 14
"""What a layer below a record layer may put in front of a record: the header of a WebSocket frame."""
FLUSH_AFTER_TASKS: Final = 32
"""Tasks whose writes share a record while others wait to run: then the peer begins (0002; measured)."""
MAX_EMPTY_RECORDS: Final = 1000
"""Empty records in a row; each is legal and each costs a decryption."""
MAX_CIPHERED_CHANNELS: Final = 1024
"""Noise channels of a loop that keep their ciphers (4.6 KB); idle ones beyond make them anew, in 2 us."""
MAX_SPILL_BUFFERS: Final = 64
"""Free spill buffers a loop keeps; more are given back to the allocator."""
WRITE_STALL_TIMEOUT_S: Final = 10.0
"""A peer that takes no byte for this long while some are queued has its connection closed (go)."""
WRITE_STALL_LOOKS: Final = 10
"""How often that is looked at meanwhile: a stall is found within a tenth of the time beyond it."""
MAX_QUEUED_CONTROL_BYTES: Final = 256 * 1024
"""Bytes queued for a peer that does not read, beyond what windows allow: pongs, credit, resets."""
CLOSE_DRAIN_TIMEOUT_S: Final = 1.0
"""From our FIN to the peer's at an orderly close, then the socket is closed anyway."""
SPIN_S: Final = 50e-6
"""How long a loop looks for the answer to a short message before it sleeps (docs/decisions/0009)."""
MAX_SPIN_S: Final = 0.001
"""What a user may set that to: beyond, sleeping costs less than a hundredth of the wait."""
SPIN_AFTER_ANSWERS: Final = 16
"""It does so once that many answers in a row have come soon; one that does not come in time starts anew."""
QUICK_ANSWER_S: Final = 200e-6
"""What soon is, the wake-up of a sleeping process on either side included."""
SPIN_MESSAGE_BYTES: Final = 2048
"""What a short message is: one packet or two."""
TCP_KEEPALIVE_IDLE_S: Final = 30
"""Idle time before the kernel probes the peer (go)."""
TCP_KEEPALIVE_INTERVAL_S: Final = 10
"""Time between probes that are not answered; the 75 s of Linux keep a peer that is gone for 12 minutes."""
TCP_KEEPALIVE_PROBES: Final = 3
"""Probes that are not answered before the kernel ends the connection: one lost packet, or two, may happen."""
TCP_USER_TIMEOUT_S: Final = TCP_KEEPALIVE_IDLE_S + TCP_KEEPALIVE_INTERVAL_S * TCP_KEEPALIVE_PROBES
"""How long what we sent, a probe too, may go unacknowledged: a minute, where Linux has about 15. With less
Linux would end an idle connection before the last probe (tcp(7))."""

# -- streams of any muxer ------------------------------------------------------------------------
REFUSED_STREAMS_PER_S: Final = 10_000
"""Streams beyond a limit that are reset in a second, for ever. One costs 0.2 us: 0.2 % of a core ..."""
REFUSED_STREAMS_BURST: Final = 50_000
"""... and this many at once. More is no program that waits for its answers, and ends the connection."""
RESET_STREAMS_PER_S: Final = 5_000
"""Streams a peer may open and reset in a second, before we have answered them, for ever. With its handler,
started and thrown away, one costs what an answered one costs: about 12 us (docs/decisions/0016) ..."""
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

# -- yamux -------------------------------------------------------------------------------------
YAMUX_INITIAL_WINDOW_BYTES: Final = 256 * 1024
"""Each direction of a new stream (spec yamux)."""
YAMUX_MAX_WINDOW_BYTES: Final = 16 * 1024 * 1024
"""Where auto-tuning of one stream stops (go, rust, js)."""
YAMUX_HIGHEST_WINDOW_BYTES: Final = 1 << 30
"""What a program may set that to: windows have 32 bits (spec yamux), and tuning doubles them."""
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
YAMUX_ACK_BACKLOG: Final = 256
"""Streams opened and not yet acknowledged, each way (go, rust)."""
YAMUX_MAX_PING_REPLIES_PER_S: Final = 100
"""Ping requests answered in a second; a peer that sends more is closed."""
YAMUX_MAX_UNKNOWN_PER_S: Final = 1000
"""Frames for unknown streams in a second; they are legal just after a reset."""
YAMUX_LATE_FRAMES: Final = 8
"""Of those, what each stream that ends leaves room for: js grants what it reads when all is over."""
YAMUX_MAX_UNKNOWN_BODY_BYTES: Final = 1024 * 1024
"""Body of one data frame for an unknown stream."""
YAMUX_MAX_PINGS: Final = 32
"""Pings of ours unanswered at once (go's backlog)."""
YAMUX_PONG_TIMEOUT_S: Final = 10.0
"""A keepalive ping unanswered for this long ends the connection (go's write timeout)."""
YAMUX_GO_AWAY_DRAIN_S: Final = 60.0
"""Streams still open this long after the peer's orderly go-away are ended."""
YAMUX_RTT_INTERVAL_S: Final = 30.0
"""Age at which a round-trip sample is renewed, only while data flows (go and rust probe idle links too)."""

# -- protocols ---------------------------------------------------------------------------------
MAX_IDENTIFY_MESSAGE_BYTES: Final = 8192
"""One identify message (go, js)."""
MAX_IDENTIFY_MESSAGES: Final = 10
"""Messages merged into one identify (go, js)."""
MAX_IDENTIFY_SEND_BYTES: Final = 4096
"""One identify message we send: rust reads only the first, up to this size."""
MAX_IDENTIFY_PROTOCOLS: Final = 1024
"""Protocol ids kept of one peer (go)."""
MAX_IDENTIFY_ADDRS: Final = 500
"""Addresses kept of one peer (go)."""
MAX_AGENT_CHARS: Final = 256
"""agentVersion and protocolVersion of a peer, which are free text."""
IDENTIFY_TIMEOUT_S: Final = 5.0
"""One identify exchange (go, js)."""
MAX_IDENTIFY_PER_MINUTE: Final = 10
"""Identify requests, and pushes, answered on one connection in a minute (spec sheet)."""
IDENTIFY_PUSH_DELAY_S: Final = 1.0
"""Changes of protocols and addresses gathered into one push (js)."""
MAX_IDENTIFY_PUSHES: Final = 32
"""Pushes sent at once (go)."""
PING_BYTES: Final = 32
"""One ping (spec ping)."""
PING_TIMEOUT_S: Final = 10.0
"""One ping answered (go, js)."""
PING_IDLE_TIMEOUT_S: Final = 30.0
"""Silence that ends an inbound ping stream; go ends it after 30 s of activity too (its fault W36)."""
MAX_PING_STREAMS: Final = 2
"""Inbound ping streams of one peer (spec ping)."""
PERF_BLOCK_BYTES: Final = 64 * 1024
"""One write of perf (spec perf)."""
PERF_TIMEOUT_S: Final = 600.0
"""One inbound perf stream."""
MAX_PERF_DOWNLOAD_BYTES: Final = 1 << 40
"""What one inbound perf stream may ask for: more than PERF_TIMEOUT_S carries at 10 Gbit/s."""

"""libp2p TLS 1.3: mutual TLS. Certificates carry the hosts' identities; ALPN negotiates the muxer.

Comes in: the mailbox of a raw chain, a host key. Goes out: a TlsChannel below that mailbox, and the identity
that the peer proved. Certificate and contexts are made once per host, and again a month before the
certificate expires. Never asks an authority, never sends or reads a server name, never resumes a session,
never accepts less than TLS 1.3. Specification: libp2p tls; connections, "Inlining multiplexer negotiation".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from OpenSSL import SSL

from p2pcore._fast.crypto.openssl import SslEnd, set_groups, set_signatures
from p2pcore._fast.crypto.tls_handshake import advance, chain_len, chosen_protocol, decide_by_peer
from p2pcore.aio.tls_stream import handshake, prepare
from p2pcore.errors import HandshakeError, PeerIdMismatch, PeerIsSelf, ProtocolNotSupported
from p2pcore.interfaces import Secured
from p2pcore.limits import TLS_RENEW_DAYS
from p2pcore.security.tls_cert import Identity, make_certificate, read_certificate

if TYPE_CHECKING:
    from p2pcore._fast.chain.layer import Mailbox
    from p2pcore.values.keys import PrivateKey
    from p2pcore.values.peer_id import PeerId

PROTOCOL: Final = "/tls/1.0.0"
"""The multistream-select id."""
ALPN: Final = b"libp2p"
"""The ALPN protocol both sides must offer; multiplexers come before it in the client's list (spec tls)."""

_AES: Final = b"TLS_AES_128_GCM_SHA256"
_CHACHA: Final = b"TLS_CHACHA20_POLY1305_SHA256"
_AES_256: Final = b"TLS_AES_256_GCM_SHA384"
_GROUPS: Final = b"X25519:P-256:P-384"  # no ML-KEM: Noise has none either (docs/decisions/0012)
# Signatures of accepted certificates (tls_cert.py). OpenSSL walks through the list several times.
_SIGNATURES: Final = (
    b"ecdsa_secp256r1_sha256:ed25519:ecdsa_secp384r1_sha384"
    b":rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512"
    b":rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512"
    b":rsa_pkcs1_sha256:rsa_pkcs1_sha384:rsa_pkcs1_sha512"
)
_NO_AUTO_CHAIN: Final = 0x8  # SSL_MODE_NO_AUTO_CHAIN of openssl/ssl.h: there is no chain
_OLDER_CIPHER: Final = b"ECDHE-ECDSA-AES128-GCM-SHA256"  # never used; without it OpenSSL walks through a list
_SHOWN: Final = 8  # how many of a peer's protocols an error names
_CPU_CHARS: Final = 8192  # of /proc/cpuinfo: one processor with all its flags


class _Peer:
    """The peer of one handshake: what it must prove, what it has proved. `advance` asks it for decisions."""

    __slots__ = ("_expected", "_names", "_now", "_ours", "error", "identity")

    def __init__(
        self, ours: PeerId, expected: PeerId | None, names: tuple[bytes, ...], now: datetime
    ) -> None:
        self._ours = ours
        self._expected = expected
        self._names = names
        self._now = now
        self.identity: Identity | None = None
        self.error: BaseException | None = None

    def check(self, der: bytes, depth: int) -> None:
        """Reads the peer's certificate. In go's order: an unexpected id is reported last.

        OpenSSL calls it before the handshake goes on, and sends the alert for the exception that it raises.
        """
        if depth > 0:
            raise HandshakeError("the peer has sent more than one certificate")
        identity = read_certificate(der)
        if not identity.not_before <= self._now <= identity.not_after:
            raise HandshakeError(
                f"the peer's certificate is valid from {identity.not_before} to {identity.not_after},"
                f" but our clock says {self._now:%Y-%m-%d %H:%M:%S}"
            )
        if self._expected is not None and identity.peer != self._expected:
            raise PeerIdMismatch(self._expected, identity.peer)
        if identity.peer == self._ours:
            raise PeerIsSelf(identity.peer)
        self.identity = identity

    def choose(self, offered: Sequence[bytes]) -> int:
        """A server's choice from a list of protocols: the index of the first one we support (spec tls).

        Raises ProtocolNotSupported if there is none; OpenSSL then sends the alert no_application_protocol.
        """
        for place, name in enumerate(offered):
            if name in self._names:
                return place
        names = [name.decode(errors="backslashreplace") for name in offered[:_SHOWN]]
        raise ProtocolNotSupported(names, "muxer negotiation", True, " (TLS ALPN)")


class _Prepared(NamedTuple):
    """The contexts of both sides for one list of multiplexers, and the protocols that ALPN may agree on."""

    client: SSL.Context
    server: SSL.Context
    names: tuple[bytes, ...]


class TlsTransport:
    """`/tls/1.0.0` for one host; satisfies interfaces.SecureTransport.

    Args:
        private_key: the host's key. It signs once for each certificate, the first one here.
        now: returns the time, with a time zone.
    """

    __slots__ = (
        "_certificate",
        "_key",
        "_now",
        "_peer_id",
        "_prepared",
        "_private_key",
        "_renew_at",
        "_valid_from",
    )

    protocol: Final = PROTOCOL

    def __init__(
        self, private_key: PrivateKey, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._private_key = private_key
        self._peer_id = private_key.peer_id()
        self._now = now
        self._prepared: dict[tuple[str, ...], _Prepared] = {}
        self._renew(now())

    async def secure_inbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """See interfaces.SecureTransport. After any error the caller closes the connection."""
        return await self._secure(mailbox, expected, tuple(muxers), True)

    async def secure_outbound(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        """See interfaces.SecureTransport. After any error the caller closes the connection.

        When this returns, the server has not seen our certificate yet. If it refuses the certificate, the
        connection ends with a HandshakeError before any data is read.
        """
        return await self._secure(mailbox, expected, tuple(muxers), False)

    async def _secure(
        self, mailbox: Mailbox, expected: PeerId | None, muxers: tuple[str, ...], is_server: bool
    ) -> Secured:
        now = self._now()
        if not self._valid_from <= now < self._renew_at:
            self._renew(now)
        prepared = self._prepared_for(muxers)
        connection = SslEnd(prepared.server if is_server else prepared.client, is_server)
        peer = _Peer(self._peer_id, expected, prepared.names, now)
        await handshake(mailbox, connection, partial(advance, connection, peer), can_wait=is_server)
        _check_chain(connection, is_server)
        if peer.identity is None:
            raise HandshakeError("the peer has sent no certificate")
        return Secured(peer.identity.peer, peer.identity.key, _agreed(connection, muxers))

    def _renew(self, now: datetime) -> None:
        """Makes a certificate for the handshakes from now on."""
        self._certificate, self._key = make_certificate(self._private_key, now)
        self._valid_from = self._certificate.not_valid_before_utc
        self._renew_at = self._certificate.not_valid_after_utc - timedelta(days=TLS_RENEW_DAYS)
        self._prepared.clear()

    def _prepared_for(self, muxers: tuple[str, ...]) -> _Prepared:
        """The contexts for `muxers`. A host always offers the same muxers, so they are kept."""
        found = self._prepared.get(muxers)
        if found is None:
            names = (*(name.encode() for name in muxers), ALPN)
            found = _Prepared(self._new_context(), self._new_context(), names)
            found.client.set_alpn_protos(list(names))
            self._prepared.clear()
            self._prepared[muxers] = found
        return found

    def _new_context(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        prepare(context)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_mode(_NO_AUTO_CHAIN)
        context.set_tls13_ciphersuites(_CIPHERS)
        context.set_cipher_list(_OLDER_CIPHER)
        set_groups(context, _GROUPS)
        set_signatures(context, _SIGNATURES)
        context.use_certificate(self._certificate)
        context.use_privatekey(self._key)
        # The peer's object alone decides: there is no authority that it could contradict.
        decide_by_peer(context)
        return context


def _check_chain(connection: SslEnd, is_server: bool) -> None:
    """Checks that there is one certificate. A client's list includes the peer's own, a server's does not."""
    shown = chain_len(connection) + is_server
    if shown != 1:
        raise HandshakeError(f"the peer has sent {shown} certificates instead of one")


def _agreed(connection: SslEnd, muxers: tuple[str, ...]) -> str | None:
    """The multiplexer agreed by ALPN; None if it must still be negotiated, for instance without ALPN."""
    chosen = chosen_protocol(connection)
    if chosen in (b"", ALPN):
        return None
    for name in muxers:
        if name.encode() == chosen:
            return name
    raise HandshakeError(f"the peer chose {chosen!r}, which was not offered")


def _has_aes() -> bool:
    """Whether this processor has instructions for AES; True if the system does not say."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return " aes" in file.read(_CPU_CHARS)
    except OSError:
        return True


# Our ciphers, best first; a server takes the first of the client's list. With AES instructions, AES is twice
# as fast as ChaCha20 (docs/decisions/0012); without them it is slower.
_CIPHERS: Final = b":".join((_AES, _CHACHA, _AES_256) if _has_aes() else (_CHACHA, _AES, _AES_256))

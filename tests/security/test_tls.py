"""security/tls.py: ALPN, the certificate's life, and every peer that must not pass."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from OpenSSL import SSL
from tls_vectors import HELLO_ALPN

from harness import looped, run
from p2pcore import Host
from p2pcore.errors import HandshakeError, PeerIdMismatch, PeerIsSelf, ProtocolNotSupported
from p2pcore.interfaces import Secured
from p2pcore.limits import TLS_CERTIFICATE_DAYS, TLS_RENEW_DAYS
from p2pcore.security.tls import TlsTransport
from p2pcore.security.tls_cert import make_certificate, read_certificate
from p2pcore.values.keys import PrivateKey
from tls_pairs import advanced, connection, opened, output
from wires import connected

HOST, PEER = PrivateKey.generate(), PrivateKey.generate()
MUXER, OTHER = "/yamux/1.0.0", "/mplex/6.7.0"
NOW = datetime.now(UTC)


def peer_context(
    certificates: Sequence[tuple[x509.Certificate, Any]] = (make_certificate(PEER, NOW),),
    alpn: Sequence[bytes] | None = (b"libp2p",),
    version: int = SSL.TLS1_3_VERSION,
) -> SSL.Context:
    """A peer's context, of pyOpenSSL alone, that trusts everybody."""
    made = SSL.Context(SSL.TLS_METHOD)
    made.set_max_proto_version(version)
    made.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    for i, (certificate, key) in enumerate(certificates):
        if i == 0:
            made.use_certificate(certificate)
            made.use_privatekey(key)
        else:
            made.add_extra_chain_cert(certificate)
    if alpn is not None:
        made.set_alpn_protos(list(alpn))
        made.set_alpn_select_callback(lambda _, offered: next((a for a in alpn if a in offered), alpn[0]))
    return made


Results = tuple[Secured | BaseException, BaseException | None, SSL.Connection]


async def meet(
    made: SSL.Context,
    is_server: bool,
    muxers: Sequence[str] = (MUXER,),
    expected: Any = None,
    transport: TlsTransport | None = None,
) -> Results:
    """One handshake of ours with a peer of this context: what we came to, what the peer did, the peer."""
    ours = transport or TlsTransport(HOST)
    peer = connection(made, not is_server)
    async with connected() as (mailbox, theirs):
        step = ours.secure_inbound if is_server else ours.secure_outbound

        async def we() -> Secured:
            try:
                return await step(mailbox, expected, muxers)
            except BaseException:
                mailbox.abort()
                raise

        async def they() -> None:
            loop = asyncio.get_running_loop()
            while True:
                try:
                    is_done = advanced(peer)
                except SSL.Error:
                    await loop.sock_sendall(theirs, output(peer))
                    raise
                if sent := output(peer):
                    await loop.sock_sendall(theirs, sent)
                if is_done:
                    return
                data = await loop.sock_recv(theirs, 1 << 16)
                if not data:
                    raise EOFError
                peer.bio_write(data)

        results = await asyncio.gather(we(), they(), return_exceptions=True)
        if results[1] is None and isinstance(results[0], BaseException):
            # A client is done before the server has looked at its certificate: the alert comes behind.
            try:
                data = await asyncio.get_running_loop().sock_recv(theirs, 1 << 16)
                peer.bio_write(data)
                peer.recv(1)
            except (SSL.Error, OSError) as error:
                results[1] = error
        return results[0], results[1], peer


both_sides = pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])


def failure(results: Results) -> HandshakeError:
    assert isinstance(results[0], HandshakeError), results
    return results[0]


# -- multiplexers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("muxers", "extension"), HELLO_ALPN)
@looped
async def test_alpn_of_our_hello(muxers: Sequence[str], extension: str) -> None:
    async with connected() as (mailbox, theirs):
        dialling = asyncio.create_task(TlsTransport(HOST).secure_outbound(mailbox, None, muxers))
        hello = await asyncio.get_running_loop().sock_recv(theirs, 1 << 16)
        assert bytes.fromhex(extension) in hello
        assert b"\x00\x00\x00" + b"localhost" not in hello
        dialling.cancel()


@pytest.mark.parametrize(
    ("offered", "muxers", "agreed"),
    [
        ((b"/mplex/6.7.0", b"/yamux/1.0.0", b"libp2p"), (MUXER, OTHER), OTHER),
        ((b"/yamux/1.0.0", b"libp2p"), (MUXER,), MUXER),
        ((b"/other/1", b"libp2p"), (MUXER,), None),
        ((b"libp2p", b"/yamux/1.0.0"), (MUXER,), None),
        ((b"libp2p",), (MUXER,), None),
        (None, (MUXER,), None),
    ],
)
def test_a_server_takes_the_first_of_the_clients_protocols_it_has(
    offered: Sequence[bytes] | None, muxers: Sequence[str], agreed: str | None
) -> None:
    secured, _, peer = run(meet(peer_context(alpn=offered), True, muxers))
    assert isinstance(secured, Secured)
    assert secured.muxer == agreed
    if offered is not None:
        assert peer.get_alpn_proto_negotiated() == (agreed or "libp2p").encode()


def test_no_protocol_in_common_is_refused_with_the_alert_for_it() -> None:
    results = run(meet(peer_context(alpn=(b"h2",)), True))
    assert isinstance(results[0], ProtocolNotSupported)
    assert (results[0].stage, results[0].protocols) == ("muxer negotiation", ("h2",))
    assert "no application protocol" in str(results[1])


@pytest.mark.parametrize("answer", [b"/mplex/6.7.0", b"h2"])
def test_a_server_that_chooses_what_was_not_offered_is_refused(answer: bytes) -> None:
    made = peer_context()
    made.set_alpn_select_callback(lambda *_: answer)
    failure(run(meet(made, False, (MUXER,))))


def test_a_server_without_alpn_negotiates_the_muxer_later() -> None:
    secured, _, _ = run(meet(peer_context(alpn=None), False))
    assert secured == Secured(PEER.peer_id(), PEER.public_key, None)


# -- who the peer is -------------------------------------------------------------------------------


@both_sides
def test_another_peer_than_expected_is_named_and_told_by_an_alert(is_server: bool) -> None:
    results = run(meet(peer_context(), is_server, expected=HOST.peer_id()))
    error = failure(results)
    assert isinstance(error, PeerIdMismatch)
    assert (error.expected, error.actual) == (HOST.peer_id(), PEER.peer_id())
    assert "alert" in str(results[1])


@both_sides
def test_ourselves_are_refused(is_server: bool) -> None:
    assert isinstance(run(meet(peer_context([make_certificate(HOST, NOW)]), is_server))[0], PeerIsSelf)


@both_sides
@pytest.mark.parametrize(
    "off", [timedelta(days=2), timedelta(days=-TLS_CERTIFICATE_DAYS)], ids=["fast", "old"]
)
def test_a_certificate_not_valid_now_is_refused(is_server: bool, off: timedelta) -> None:
    made = peer_context([make_certificate(PEER, NOW + off)])
    assert "is valid from" in str(failure(run(meet(made, is_server))))


@both_sides
def test_a_clock_that_is_an_hour_fast_does_not_matter(is_server: bool) -> None:
    made = peer_context([make_certificate(PEER, NOW + timedelta(minutes=59))])
    assert isinstance(run(meet(made, is_server))[0], Secured)


@both_sides
def test_more_than_one_certificate_is_refused(is_server: bool) -> None:
    two = [make_certificate(PEER, NOW), make_certificate(PEER, NOW)]
    assert "certificate" in str(failure(run(meet(peer_context(two), is_server))))


def test_a_client_without_a_certificate_is_refused() -> None:
    results = run(meet(peer_context([]), True))
    assert "peer did not return a certificate" in str(failure(results))
    assert "certificate required" in str(results[1])


@both_sides
def test_tls_1_2_is_refused(is_server: bool) -> None:
    results = run(meet(peer_context(version=SSL.TLS1_2_VERSION), is_server))
    ours, theirs = str(failure(results)), str(results[1])
    assert "unsupported protocol" in (ours if is_server else theirs)
    assert "alert protocol version" in (theirs if is_server else ours)


@both_sides
def test_a_certificate_without_the_extension_is_refused(is_server: bool) -> None:
    from tls_pairs import certificate

    assert "no libp2p extension" in str(failure(run(meet(peer_context([certificate()]), is_server))))


@looped
async def test_a_refused_client_learns_it_before_its_first_byte() -> None:
    """It was done before the server had looked at its certificate (sheet, section 5)."""

    client, server = TlsTransport(PEER), TlsTransport(HOST)
    from _fast.chains import wire_pair

    a, b = await wire_pair()
    box_a, box_b = a.mailbox, b.mailbox
    assert box_a is not None
    assert box_b is not None
    results = await asyncio.gather(
        client.secure_outbound(box_a, None, ()),
        server.secure_inbound(box_b, HOST.peer_id(), ()),
        return_exceptions=True,
    )
    box_b.abort()
    assert isinstance(results[0], Secured)
    assert isinstance(results[1], PeerIdMismatch)
    with pytest.raises(HandshakeError, match="refused"):
        await box_a.read_exactly(1)
    await a.wait_closed()
    await b.wait_closed()


# -- certificates verified before ------------------------------------------------------------------


@both_sides
def test_a_certificate_is_verified_once_and_its_time_and_peer_each_time(is_server: bool) -> None:
    clock = [NOW]
    transport = TlsTransport(HOST, now=lambda: clock[0])
    made = peer_context([make_certificate(PEER, NOW)])

    def outcome(expected: Any = None) -> Any:
        return run(meet(made, is_server, expected=expected, transport=transport))[0]

    assert isinstance(outcome(PEER.peer_id()), Secured)
    before = read_certificate.cache_info()
    assert isinstance(outcome(PEER.peer_id()), Secured)
    assert isinstance(outcome(HOST.peer_id()), PeerIdMismatch)
    clock[0] += timedelta(days=TLS_CERTIFICATE_DAYS, seconds=1)
    assert "is valid from" in str(outcome())
    after = read_certificate.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (3, 0)


@both_sides
def test_a_known_certificate_without_its_key_is_refused(is_server: bool, tmp_path: Path) -> None:
    """What is kept spares nobody the proof, in each handshake, of having the certificate's key."""
    certificate, key = make_certificate(PEER, NOW)
    assert isinstance(run(meet(peer_context([(certificate, key)]), is_server))[0], Secured)
    other = ec.generate_private_key(ec.SECP256R1())
    der = other.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    forged = base64.b64encode(der.replace(point(other), point(key))).decode()
    file = tmp_path / "forged.pem"
    file.write_text(f"-----BEGIN EC PRIVATE KEY-----\n{forged}\n-----END EC PRIVATE KEY-----\n")
    thief = peer_context([])
    thief.use_certificate(certificate)
    thief.use_privatekey_file(str(file))  # OpenSSL looks at its public half, which is the certificate's
    misses = read_certificate.cache_info().misses
    assert "bad signature" in str(failure(run(meet(thief, is_server))))
    assert read_certificate.cache_info().misses == misses


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


# -- sessions and names ----------------------------------------------------------------------------


async def dial(transport: TlsTransport, peer: SSL.Connection) -> None:
    """`peer` dials `transport`, and reads what comes behind the handshake."""
    loop = asyncio.get_running_loop()
    async with connected() as (mailbox, theirs):
        inbound = asyncio.create_task(transport.secure_inbound(mailbox, None, ()))
        while not advanced(peer):
            await loop.sock_sendall(theirs, output(peer))
            peer.bio_write(await loop.sock_recv(theirs, 1 << 16))
        await loop.sock_sendall(theirs, output(peer))
        assert (await inbound).remote_peer == PEER.peer_id()
        mailbox.write(b"!")
        while b"!" not in opened(peer, await loop.sock_recv(theirs, 1 << 16)):
            pass


@looped
async def test_a_server_never_resumes_a_session() -> None:
    """OpenSSL sends tickets nevertheless; presented, they are worth nothing."""

    transport, made = TlsTransport(HOST), peer_context()
    first, second = connection(made, False), connection(made, False)
    await dial(transport, first)
    session = first.get_session()
    assert session is not None
    second.set_session(session)
    await dial(transport, second)
    assert SSL._lib.SSL_session_reused(first._ssl) == SSL._lib.SSL_session_reused(second._ssl) == 0


@looped
async def test_a_server_name_is_ignored() -> None:
    peer = connection(peer_context(), False)
    peer.set_tlsext_host_name(b"example.com")
    await dial(TlsTransport(HOST), peer)


# -- our own certificate ---------------------------------------------------------------------------


def test_the_certificate_is_renewed_a_month_before_it_expires() -> None:
    clock = [NOW]
    transport = TlsTransport(HOST, now=lambda: clock[0])

    def shown() -> bytes:
        return run(meet_at_any_time())

    async def meet_at_any_time() -> bytes:
        made = peer_context([make_certificate(PEER, clock[0])])
        secured, _, peer = await meet(made, True, transport=transport)
        assert isinstance(secured, Secured)
        certificate = peer.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        return certificate.public_bytes(Encoding.DER)

    first = shown()
    clock[0] += timedelta(days=TLS_CERTIFICATE_DAYS - TLS_RENEW_DAYS - 1)
    assert shown() == first
    clock[0] += timedelta(days=2)
    second = shown()
    assert second != first
    clock[0] = NOW - timedelta(days=400)  # a clock that was set back
    assert shown() not in (first, second)


def test_contexts_are_made_once_and_anew_only_for_other_multiplexers() -> None:
    transport = TlsTransport(HOST)
    contexts = transport._prepared_for((MUXER,))
    assert transport._prepared_for((MUXER,)) is contexts
    assert transport._prepared_for((MUXER, OTHER)) is not contexts
    assert len(transport._prepared) == 1


# -- hosts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialer", "server", "agreed"),
    [
        (("tls",), ("tls",), "/tls/1.0.0"),
        (("tls", "noise"), ("noise", "tls"), "/tls/1.0.0"),
        (("noise", "tls"), ("tls",), "/tls/1.0.0"),
        (("tls",), ("noise", "plaintext", "tls"), "/tls/1.0.0"),
        (("plaintext", "tls"), ("noise", "plaintext"), "/plaintext/2.0.0"),
        (("tls", "noise"), ("noise",), "/noise"),
    ],
)
@looped
async def test_hosts_agree_on_the_diallers_first_choice(
    dialer: Sequence[str], server: Sequence[str], agreed: str
) -> None:
    async with Host(security=server) as one, Host(listen=(), security=dialer) as two:
        conn = await two.connect(one.addrs_with_peer[0])
        assert conn.state.security == agreed
        assert conn.remote_peer == one.peer_id
        assert conn.state.early_muxer == (agreed != "/plaintext/2.0.0")
        assert len(await two.ping(conn)) == 1


@looped
async def test_hosts_with_nothing_in_common_say_so() -> None:
    from p2pcore.errors import DialError, ProtocolNotSupported

    async with Host(security=["noise"]) as one, Host(listen=(), security=["tls", "plaintext"]) as two:
        with pytest.raises(DialError, match=r"/tls/1\.0\.0, /plaintext/2\.0\.0") as caught:
            await two.connect(one.addrs_with_peer[0])
        assert isinstance(caught.value.causes[0][1], ProtocolNotSupported)


def test_an_unknown_security_protocol_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="'noise', 'tls', 'plaintext'"):
        Host(security=["ssl"])

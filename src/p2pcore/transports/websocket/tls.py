"""TLS of web servers and browsers, below a WebSocket: certificates for host names, not for peers.

Comes in: certificates and keys, or the authorities to trust; a mailbox on top of TCP. Goes out: the same
mailbox on top of TLS. It proves the name of a host, never a peer id: the security protocol inside does that.
TLS 1.2 or later, ALPN http/1.1. Specification: RFC 8446, RFC 6125, libp2p websockets "Addressing".
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Self

from p2pcore.aio import tls_stream
from p2pcore.errors import HandshakeError
from p2pcore.limits import MAX_CERTIFICATE_FILE_BYTES
from p2pcore.values.host_name import normal_host
from p2pcore.values.key_files import read_file, shown

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from OpenSSL import SSL

    from p2pcore._fast.chain.layer import Mailbox

_HTTP = b"http/1.1"
_HANDSHAKE_RECORD = b"\x16"  # RFC 8446 section 5.1
_NO_PARTIAL_WILDCARDS = 4  # of openssl/x509_vfy.h: "*.example.com", not "w*.example.com"
_CLOCK_SKEW = datetime.timedelta(hours=1)  # a client whose clock is slow accepts a new certificate too


@dataclass(frozen=True, slots=True)
class WebCertificate:
    """A server's certificate and key, as objects of `cryptography`.

    Attributes:
        chain: the server's certificate first, then those that lead to an authority.
        private_key: RSA, ECDSA or Ed25519.

    Raises: ValueError: there is no certificate, or the key does not belong to it.
    """

    chain: tuple[Certificate, ...]
    private_key: Any = field(repr=False)

    def __post_init__(self) -> None:
        server_context(self)

    @classmethod
    def load(
        cls,
        certificate: str | os.PathLike[str],
        private_key: str | os.PathLike[str],
        password: bytes | None = None,
    ) -> Self:
        """Reads PEM files: a certificate with its chain ("fullchain.pem"), and its key.

        Raises:
            OSError: a file cannot be read; ValueError: its content is wrong, or the password is, or the key
                does not belong to the certificate.
        """
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from cryptography.x509 import load_pem_x509_certificates

        try:
            chain = load_pem_x509_certificates(read_file(certificate, MAX_CERTIFICATE_FILE_BYTES))
        except ValueError as error:
            raise ValueError(f"{shown(certificate)} has no certificate in PEM: {error}") from error
        try:
            key = load_pem_private_key(read_file(private_key), password)
        except (TypeError, ValueError) as error:  # TypeError: a password is missing, or not needed
            raise ValueError(f"{shown(private_key)}: {error}") from error
        try:
            return cls(tuple(chain), key)
        except ValueError as error:
            raise ValueError(f"{shown(certificate)} and {shown(private_key)}: {error}") from error

    @classmethod
    def self_signed(cls, *names: str, days: int = 365) -> Self:
        """A new certificate for these host names and IP addresses; clients trust it only if told to.

        Raises:
            ValueError: there is no name. AddressError: a name is not a host name.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256

        if not names:
            raise ValueError("a certificate needs a host name or an IP address")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "p2pcore")])
        ips = [_ip(name) for name in names]
        subjects: list[x509.GeneralName] = [
            x509.DNSName(normal_host(name)) if ip is None else x509.IPAddress(ip)
            for name, ip in zip(names, ips, strict=True)
        ]
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName(subjects), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, SHA256())
        )
        return cls((certificate,), key)

    @property
    def pem(self) -> bytes:
        """The chain, without the key. A client of a self-signed certificate needs it as `ca_file`."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return b"".join(each.public_bytes(Encoding.PEM) for each in self.chain)


def server_context(certificate: WebCertificate) -> SSL.Context:
    """The context of a listener.

    Raises:
        ValueError: there is no certificate, or the key does not belong to it.
    """
    from OpenSSL import SSL

    context = _context()
    if not certificate.chain:
        raise ValueError("there is no certificate")
    context.use_certificate(certificate.chain[0])
    for each in certificate.chain[1:]:
        context.add_extra_chain_cert(each)
    try:
        context.use_privatekey(certificate.private_key)
        context.check_privatekey()
    except SSL.Error as error:
        raise ValueError("the private key does not belong to the certificate") from error
    context.set_alpn_select_callback(_select_alpn)
    return context


def client_context(ca_file: str | os.PathLike[str] | None = None, verify: bool = True) -> SSL.Context:
    """The context of a dialler.

    Args:
        ca_file: PEM file of trusted authorities; None: the system's. verify: False trusts every server.

    Raises:
        OSError: `ca_file` cannot be read, or has no certificate.
    """
    from OpenSSL import SSL

    context = _context()
    context.set_alpn_protos([_HTTP])
    if not verify:
        return context
    if ca_file is None:
        context.set_default_verify_paths()
    else:
        path = os.fspath(ca_file)
        with open(path, "rb"):
            pass  # OpenSSL would not say why it cannot
        try:
            context.load_verify_locations(path)
        except SSL.Error as error:
            raise OSError(f"{path}: there is no certificate (PEM) in this file") from error
    context.set_verify(SSL.VERIFY_PEER, _verified)
    return context


async def serve(mailbox: Mailbox, context: SSL.Context) -> None:
    """The server's handshake; then `mailbox` is on top of TLS. Raises HandshakeError, ConnectionClosed."""
    from OpenSSL import SSL

    # Plain HTTP would look like the start of a long record, and we would wait for its end until the deadline.
    first = await mailbox.peek(1)
    if first not in (_HANDSHAKE_RECORD, b""):
        raise HandshakeError(f"a TLS handshake begins with {_HANDSHAKE_RECORD!r}, not with {first!r}")
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    await tls_stream.handshake(mailbox, connection)


async def connect(mailbox: Mailbox, context: SSL.Context, host: str) -> None:
    """The client's handshake with `host`; then `mailbox` is on top of TLS.

    Args:
        host: a name in normal form, or an IP address.

    Raises:
        HandshakeError: it failed, or the certificate is not trusted or is for another host.
        ConnectionClosed: the server left.
    """
    from OpenSSL import SSL

    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    connection.set_app_data(host)
    _expect(connection, host)
    await tls_stream.handshake(mailbox, connection)


def _context() -> SSL.Context:
    from OpenSSL import SSL

    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    tls_stream.prepare(context)
    return context


def _expect(connection: SSL.Connection, host: str) -> None:
    """Makes OpenSSL check the certificate's name; pyOpenSSL has no function for that."""
    from OpenSSL import SSL

    lib: Any = SSL._lib  # type: ignore[attr-defined]
    param = lib.SSL_get0_param(connection._ssl)
    ip = _ip(host)
    if ip is not None:
        done = lib.X509_VERIFY_PARAM_set1_ip(param, ip.packed, len(ip.packed))
    else:
        name = host.encode("ascii")
        connection.set_tlsext_host_name(name)
        lib.X509_VERIFY_PARAM_set_hostflags(param, _NO_PARTIAL_WILDCARDS)
        done = lib.X509_VERIFY_PARAM_set1_host(param, name, len(name))
    if done != 1:
        raise HandshakeError(f"OpenSSL does not accept {host!r} as a host name")


def _verified(connection: SSL.Connection, certificate: Any, code: int, depth: int, ok: int) -> bool:
    """Returns OpenSSL's verdict; raises its reason if the certificate is bad."""
    from OpenSSL import SSL

    if ok:
        return True
    reason = SSL._ffi.string(SSL._lib.X509_verify_cert_error_string(code)).decode()  # type: ignore[attr-defined]
    raise HandshakeError(f"the TLS certificate of {connection.get_app_data()} is not trusted: {reason}")


def _select_alpn(connection: SSL.Connection, offered: Sequence[bytes]) -> Any:
    from OpenSSL import SSL

    return _HTTP if _HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None

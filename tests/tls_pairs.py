"""TLS peers for tests: pyOpenSSL connections, and records that are sealed by hand with their secrets.

Comes in: which version, which side. Goes out: connections in memory after the handshake, records of any
content type. Never verifies a certificate, because these tests are not about trust.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL

from p2pcore.aio.tls_stream import prepare

ALERT, HANDSHAKE, DATA = 21, 22, 23
"""Content types (RFC 8446, section 5.1)."""
CLOSE_NOTIFY, BAD_RECORD_MAC, USER_CANCELED = 0, 20, 90
"""Alerts (RFC 8446, section 6)."""
KEY_UPDATE = bytes.fromhex("1800000100")
KEY_UPDATE_REQUESTED = bytes.fromhex("1800000101")
TICKET = bytes.fromhex("04000010 00000001 00000000 01aa 0002bbbb 0000")
CERTIFICATE_REQUEST = bytes.fromhex("0d00000d 01aa 000a 000d0006 0004 04030804")
"""Handshake messages (RFC 8446, sections 4.6.3, 4.6.1, 4.3.2)."""
NUM_TICKETS = 2
"""OpenSSL's server sends this many, each in a record (the binding lacks SSL_CTX_set_num_tickets)."""


@functools.cache
def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A self-signed certificate of "localhost"."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    alternative = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    return builder.add_extension(alternative, critical=False).sign(key, SHA256()), key


def context(version: int = SSL.TLS1_3_VERSION, is_server: bool = False) -> SSL.Context:
    """A context of this version and no other."""
    made = SSL.Context(SSL.TLS_METHOD)
    prepare(made)
    made.set_min_proto_version(version)
    made.set_max_proto_version(version)
    made.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
    if is_server:
        shown, key = certificate()
        made.use_certificate(shown)
        made.use_privatekey(key)
    return made


def connection(made: SSL.Context, is_server: bool) -> SSL.Connection:
    """A connection over memory."""
    found = SSL.Connection(made, None)
    if is_server:
        found.set_accept_state()
    else:
        found.set_connect_state()
    return found


def advanced(one: SSL.Connection) -> bool:
    """Continues the handshake. Returns: whether it is done."""
    try:
        one.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def output(one: SSL.Connection) -> bytes:
    """The bytes that it has sent."""
    try:
        return one.bio_read(1 << 20)
    except SSL.WantReadError:
        return b""


class Secrets:
    """Records the secrets of connections; their contexts report them."""

    def __init__(self, *contexts: SSL.Context) -> None:
        self._lines: dict[str, bytes] = {}
        for each in contexts:
            each.set_keylog_callback(self._note)

    def _note(self, connection: SSL.Connection, line: bytes) -> None:
        label, _, secret = line.decode().split()
        self._lines[label] = bytes.fromhex(secret)

    def sealer(self, is_client: bool) -> Sealer:
        """Seals records like that side, beginning with its first record of data."""
        side, sent = ("CLIENT", 0) if is_client else ("SERVER", NUM_TICKETS)
        return Sealer(self._lines[f"{side}_TRAFFIC_SECRET_0"], sent)


class Sealer:
    """Records of TLS 1.3 with AES-128-GCM (RFC 8446, sections 5.2 and 7.3)."""

    def __init__(self, secret: bytes, sent: int) -> None:
        self._begin(secret)
        self._count = sent

    def _begin(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(_expand(secret, b"key", 16))
        self._iv = int.from_bytes(_expand(secret, b"iv", 12))
        self._count = 0

    def update(self) -> None:
        """Continues with the next keys, as after a KeyUpdate."""
        self._begin(_expand(self._secret, b"traffic upd", 32))

    def seal(self, content: bytes, kind: int = DATA, padding: int = 0) -> bytes:
        """The next record."""
        inner = content + bytes((kind,)) + bytes(padding)
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2)
        return header + self._cipher.encrypt(self._nonce(), inner, header)

    def open(self, record: bytes) -> tuple[int, bytes]:
        """Content type and content of the next record."""
        inner = self._cipher.decrypt(self._nonce(), record[5:], record[:5]).rstrip(b"\0")
        return inner[-1], inner[:-1]

    def _nonce(self) -> bytes:
        self._count += 1
        return (self._iv ^ (self._count - 1)).to_bytes(12)


def _expand(secret: bytes, label: bytes, n: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446, section 7.1)."""
    label = b"tls13 " + label
    info = n.to_bytes(2) + bytes((len(label),)) + label + b"\0"
    return HKDFExpand(SHA256(), n, info).derive(secret)


def records(data: bytes) -> list[bytes]:
    """Cuts bytes into whole records."""
    out = []
    while data:
        end = 5 + int.from_bytes(data[3:5])
        assert len(data) >= end
        out.append(data[:end])
        data = data[end:]
    return out


def shaken(
    version: int = SSL.TLS1_3_VERSION, secrets: list[Secrets] | None = None, ciphers: bytes = b""
) -> tuple[SSL.Connection, SSL.Connection]:
    """A client and a server after the handshake, with the server's tickets read; `ciphers`: of TLS 1.2."""
    client_context, server_context = context(version), context(version, is_server=True)
    if ciphers:
        client_context.set_cipher_list(ciphers)
    if secrets is not None:
        secrets.append(Secrets(client_context))
    client, server = connection(client_context, False), connection(server_context, True)
    while not (advanced(client) and advanced(server)):
        server.bio_write(output(client))
        advanced(server)
        client.bio_write(output(server))
    opened(client, b"")
    return client, server


def opened(one: SSL.Connection, sealed: bytes) -> bytes:
    """The bytes that `one` reads from `sealed`."""
    if sealed:
        one.bio_write(sealed)
    data = b""
    try:
        while True:
            data += one.recv(1 << 16)
    except (SSL.WantReadError, SSL.ZeroReturnError):
        return data


def sealed(one: SSL.Connection, pieces: Iterable[bytes]) -> bytes:
    """Records in which `one` sends these pieces."""
    for piece in pieces:
        one.sendall(piece)
    return output(one)


Channels = tuple[Any, Any]


def channels() -> Channels:
    """A client's and a server's TlsChannel."""
    from p2pcore._fast.crypto.tls import TlsChannel

    client, server = shaken()
    return TlsChannel(client), TlsChannel(server)

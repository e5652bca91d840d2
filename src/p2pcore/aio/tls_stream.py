"""TLS over a mailbox: runs the handshake of a pyOpenSSL connection, then inserts its record layer.

Comes in: the mailbox of any chain, an OpenSSL.SSL.Connection that knows its side and what it accepts. Goes
out: a TlsChannel below the mailbox, which holds the peer's first plaintext. Never decides what to trust (the
connection's context does), never reads beyond whole records, never sets a deadline: the caller does.
libp2p's TLS and the TLS of web servers use it. RFC 8446.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from p2pcore._fast.crypto.tls import TlsChannel, take_input, take_output
from p2pcore._fast.crypto.tls_handshake import give_input
from p2pcore.errors import HandshakeError, LimitExceeded, RemoteProtocolError
from p2pcore.limits import MAX_TLS_HANDSHAKE_BYTES, MAX_TLS_RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from OpenSSL import SSL

    from p2pcore._fast.chain.layer import Layer
    from p2pcore._fast.crypto.openssl import SslEnd

_HEADER_BYTES: Final = 5
_READ_BYTES: Final = 32 * 1024


class Chain(Protocol):
    """The methods of a Mailbox that a handshake uses."""

    def read(self, most: int, /) -> Awaitable[bytes]: ...
    def unread(self, data: bytes, /) -> None: ...
    def write(self, data: bytes, /) -> None: ...
    def insert(self, layer: Layer, /) -> None: ...


def prepare(context: SSL.Context) -> None:
    """Sets the options of every context: little memory when idle; no renegotiation, resumption, compression.

    A server still sends the two tickets of TLS 1.3, but nobody can use them (docs/decisions/0012).
    """
    from OpenSSL import SSL

    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)


async def handshake(
    mailbox: Chain,
    connection: SSL.Connection | SslEnd,
    step: Callable[[], bool] | None = None,
    *,
    can_wait: bool = False,
) -> None:
    """Does the handshake; on return `mailbox` is on top of a TlsChannel.

    Args:
        mailbox: top of the chain; the handshake begins with the bytes it already holds. The end of its
            input is the end of the connection.
        connection: made with socket None and set to its side (`set_connect_state`, `set_accept_state`), or a
            SslEnd, which needs `step`. After that, only ask it for results (`get_peer_certificate`, ...).
        step: goes on as far as it can without reading, and returns whether the handshake is done. Default: a
            step of `connection`, which calls back through pyOpenSSL.
        can_wait: the last output may wait for the next write: a server of TLS 1.3 has only tickets to send.

    Raises:
        HandshakeError: one side refused, with OpenSSL's reason; or the peer left before the end; or it sent
            too much. The peer has been sent the alert with the reason, if there is one. An error raised by a
            callback of the context comes out unchanged.
        ConnectionClosed: the connection broke.
    """
    try:
        step = step or partial(_step, connection)  # type: ignore[arg-type]  # an SslEnd comes with a step
        rest = await _shake(mailbox, connection, step, can_wait)
        held = take_input(connection) + rest
        channel = TlsChannel(connection)
        if held:
            mailbox.unread(held)
        mailbox.insert(channel)
    except (RemoteProtocolError, LimitExceeded) as error:
        raise HandshakeError(f"the data after the peer's TLS handshake is invalid: {error}") from error


async def _shake(
    mailbox: Chain, connection: SSL.Connection | SslEnd, step: Callable[[], bool], can_wait: bool
) -> bytes:
    """Runs the handshake to its end. Returns: bytes of a record that is not complete yet."""
    rest = b""
    received = 0
    while not _advance(mailbox, connection, step, can_wait):
        whole = 0
        while not whole:
            piece = await mailbox.read(_READ_BYTES)
            if not piece:
                raise HandshakeError("the peer ended the connection during the TLS handshake")
            received += len(piece)
            if received > MAX_TLS_HANDSHAKE_BYTES:
                raise HandshakeError(f"a TLS handshake of more than {MAX_TLS_HANDSHAKE_BYTES} bytes")
            rest += piece
            whole = whole_records(rest)
        give_input(connection, rest[:whole])
        rest = rest[whole:]
    return rest


def _advance(
    mailbox: Chain, connection: SSL.Connection | SslEnd, step: Callable[[], bool], can_wait: bool
) -> bool:
    """Goes on as far as possible without reading, and sends the output; True when the handshake is done."""
    try:
        is_done = step()
    except BaseException:
        _send(mailbox, connection)
        raise
    if not (is_done and can_wait):
        _send(mailbox, connection)
    return is_done


def _step(connection: SSL.Connection) -> bool:
    """Lets pyOpenSSL go on as far as possible without reading; True when the handshake is complete."""
    from OpenSSL import SSL

    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return False
    except SSL.Error as error:
        raise HandshakeError(f"the TLS handshake failed: {_words(error)}") from error
    return True


def _send(mailbox: Chain, connection: SSL.Connection | SslEnd) -> None:
    """Sends the output of OpenSSL in one write."""
    output = take_output(connection)
    if output:
        mailbox.write(output)


def whole_records(data: bytes) -> int:
    """How many bytes at the start of `data` are complete TLS records.

    Raises:
        HandshakeError: a record is longer than TLS allows.
    """
    end = 0
    while len(data) >= end + _HEADER_BYTES:
        size = int.from_bytes(data[end + 3 : end + _HEADER_BYTES])
        if size > MAX_TLS_RECORD_BYTES:
            raise HandshakeError(f"a TLS record of {size} bytes is over the limit of {MAX_TLS_RECORD_BYTES}")
        if len(data) < end + _HEADER_BYTES + size:
            break
        end += _HEADER_BYTES + size
    return end


def _words(error: SSL.Error) -> str:
    """OpenSSL's reasons, oldest first."""
    queue = error.args[0] if error.args and isinstance(error.args[0], (list, tuple)) else ()
    reasons = [str(entry[-1]) for entry in queue if entry]
    return "; ".join(reasons) or str(error) or type(error).__name__

"""tls_stream.py: the handshake over a mailbox, in any cut, against plain pyOpenSSL; all ways it can fail."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given, strategies as st
from OpenSSL import SSL

from harness import cuts, looped, run
from p2pcore.aio.tls_stream import handshake, whole_records
from p2pcore.errors import ConnectionClosed, HandshakeError
from p2pcore.limits import MAX_TLS_HANDSHAKE_BYTES, MAX_TLS_RECORD_BYTES
from tls_pairs import advanced, certificate, connection, context, opened, output, sealed
from wires import connected

VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_3_VERSION, SSL.TLS1_2_VERSION], ids=["1.3", "1.2"])


class Peer:
    """The other end of a wire: pyOpenSSL moved by hand."""

    def __init__(self, sock: socket.socket, made: SSL.Context, is_server: bool) -> None:
        self.sock = sock
        self.tls = connection(made, is_server)

    async def shake(self, cut: int = 0, behind: bytes = b"") -> None:
        """Shakes hands; what it sends last has `behind` sealed behind it, and is cut there."""
        loop = asyncio.get_running_loop()
        is_done = False
        while True:
            is_done = is_done or advanced(self.tls)
            sent = output(self.tls)
            if is_done and behind:
                sent += sealed(self.tls, [behind])
            at = cut if is_done else 0
            for piece in filter(None, (sent[:at], sent[at:])):
                await loop.sock_sendall(self.sock, piece)
                await asyncio.sleep(0)
            if is_done:
                return
            data = await loop.sock_recv(self.sock, 1 << 16)
            assert data
            self.tls.bio_write(data)

    async def read(self) -> bytes:
        """What comes next."""
        return opened(self.tls, await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16))


async def met(version: int, ours_is_server: bool, cut: int = 0, behind: bytes = b"") -> bytes:
    """One handshake, data both ways; what came of `behind`."""
    async with connected() as (mailbox, theirs):
        peer = Peer(theirs, context(version, not ours_is_server), not ours_is_server)
        ours = connection(context(version, ours_is_server), ours_is_server)
        await asyncio.gather(handshake(mailbox, ours), peer.shake(cut, behind))
        came: bytes = await mailbox.read_exactly(len(behind))
        mailbox.write(b"there")
        read = b""
        while not read:  # tickets may come by themselves
            read = await peer.read()
        assert read == b"there"
        await asyncio.get_running_loop().sock_sendall(theirs, sealed(peer.tls, [b"back"]))
        assert await mailbox.read_exactly(4) == b"back"
        return came


@VERSIONS
@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_data_goes_both_ways_behind_the_handshake(version: int, is_server: bool) -> None:
    run(met(version, is_server))


@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
@looped
async def test_bytes_behind_the_handshake_are_not_lost_wherever_they_are_cut(is_server: bool) -> None:
    """The peer's last flight and the data behind it, in two pieces, cut at each place."""

    for at in range(1, 700, 9):
        assert await met(SSL.TLS1_3_VERSION, is_server, at, bytes(600)) == bytes(600)


@looped
async def test_a_handshake_may_come_byte_by_byte() -> None:
    async with connected() as (mailbox, theirs):
        peer = connection(context(), False)
        ours = asyncio.create_task(handshake(mailbox, connection(context(is_server=True), True)))
        while not (advanced(peer) and ours.done()):
            for byte in output(peer):
                theirs.send(bytes((byte,)))
                await asyncio.sleep(0)
            if not ours.done():
                try:
                    peer.bio_write(theirs.recv(1 << 16))
                except BlockingIOError:
                    await asyncio.sleep(0.001)
        await ours


# -- failures --------------------------------------------------------------------------------------


async def refused(data: bytes, is_server: bool = True, ends: bool = True) -> HandshakeError:
    """Why our side fails where a peer sends this."""
    async with connected() as (mailbox, theirs):
        theirs.setblocking(True)
        sender = asyncio.to_thread(theirs.sendall, data)
        ours = connection(context(is_server=is_server), is_server)

        async def fails() -> HandshakeError:
            with pytest.raises(HandshakeError) as caught:
                await handshake(mailbox, ours)
            mailbox.abort()
            return caught.value

        failing = asyncio.create_task(fails())
        try:
            await sender
            if ends:
                theirs.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has been refused already
        return await failing


def client_hello() -> bytes:
    client = connection(context(), False)
    advanced(client)
    return output(client)


@looped
async def test_the_end_of_input_anywhere_fails_the_handshake() -> None:
    hello = client_hello()
    for at in range(0, len(hello) + 1, 50):
        assert "ended the connection" in str(await refused(hello[:at]))


def test_what_is_no_tls_fails_the_handshake() -> None:
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x13/multistream/1.0.0\n", bytes(100)):
        assert isinstance(run(refused(data)), HandshakeError)


def test_a_record_too_long_is_refused_by_its_header() -> None:
    header = b"\x16\x03\x01" + (MAX_TLS_RECORD_BYTES + 1).to_bytes(2)
    assert str(MAX_TLS_RECORD_BYTES) in str(run(refused(header, ends=False)))


def test_a_handshake_without_end_is_refused() -> None:
    """A hello of 128 KiB, which OpenSSL would gather."""
    body = b"\x01\x01\xff\x00" + bytes(0x1FF00)
    pieces = [body[i : i + 16384] for i in range(0, len(body), 16384)]
    data = b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)
    assert str(MAX_TLS_HANDSHAKE_BYTES) in str(run(refused(data, ends=False)))


@looped
async def test_openssls_reason_is_told_to_us_and_an_alert_to_the_peer() -> None:
    async with connected() as (mailbox, theirs):
        peer = Peer(theirs, context(SSL.TLS1_2_VERSION), False)
        ours = connection(context(SSL.TLS1_3_VERSION, True), True)
        results = await asyncio.gather(handshake(mailbox, ours), peer.shake(), return_exceptions=True)
        assert isinstance(results[0], HandshakeError)
        assert "unsupported protocol" in str(results[0])
        assert isinstance(results[1], SSL.Error)
        assert "protocol version" in str(results[1])


@looped
async def test_a_web_client_that_trusts_somebody_else_refuses() -> None:
    async with connected() as (mailbox, theirs):
        made = context()
        made.set_verify(SSL.VERIFY_PEER)
        ours = connection(made, False)
        peer = Peer(theirs, context(is_server=True), True)
        results = await asyncio.gather(handshake(mailbox, ours), peer.shake(), return_exceptions=True)
        assert isinstance(results[0], HandshakeError)
        assert "certificate verify failed" in str(results[0])
        assert isinstance(results[1], SSL.Error)


def test_a_web_client_that_trusts_the_certificate_and_its_name_accepts() -> None:
    from OpenSSL import crypto

    async def main(name: bytes) -> None:
        async with connected() as (mailbox, theirs):
            made = context()
            store = made.get_cert_store()
            assert store is not None
            store.add_cert(crypto.X509.from_cryptography(certificate()[0]))
            made.set_verify(SSL.VERIFY_PEER)
            ours = connection(made, False)
            ours.set_tlsext_host_name(name)
            ours.set_verify(SSL.VERIFY_PEER)
            peer = Peer(theirs, context(is_server=True), True)
            await asyncio.gather(handshake(mailbox, ours), peer.shake())
            assert peer.tls.get_servername() == name
            mailbox.write(b"hello")
            assert await peer.read() == b"hello"

    run(main(b"localhost"))


@looped
async def test_what_a_callback_raises_comes_out_as_it_is() -> None:
    class Refusal(Exception):
        pass

    def verify(*_: Any) -> bool:
        raise Refusal("not you")

    async with connected() as (mailbox, theirs):
        made = context()
        made.set_verify(SSL.VERIFY_PEER, verify)
        peer = Peer(theirs, context(is_server=True), True)
        results = await asyncio.gather(
            handshake(mailbox, connection(made, False)), peer.shake(), return_exceptions=True
        )
        assert isinstance(results[0], Refusal)
        assert isinstance(results[1], SSL.Error)  # the alert


@looped
async def test_a_bad_record_right_behind_the_handshake_fails_it() -> None:
    async with connected() as (mailbox, theirs):
        peer = Peer(theirs, context(), False)
        ours = connection(context(is_server=True), True)
        shaking = asyncio.create_task(handshake(mailbox, ours))
        while not advanced(peer.tls):
            theirs.send(output(peer.tls))
            peer.tls.bio_write(await asyncio.get_running_loop().sock_recv(theirs, 1 << 16))
        theirs.send(output(peer.tls) + b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(HandshakeError):
            await shaking


@looped
async def test_a_broken_connection_is_reported_as_such() -> None:
    async with connected() as (mailbox, _):
        shaking = asyncio.create_task(handshake(mailbox, connection(context(), False)))
        await asyncio.sleep(0)
        mailbox.abort()
        with pytest.raises(ConnectionClosed):
            await shaking


@looped
async def test_a_silent_peer_is_left_to_the_callers_deadline() -> None:
    async with connected() as (mailbox, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await handshake(mailbox, connection(context(), False))


@given(
    st.lists(st.tuples(st.sampled_from([20, 21, 22, 23, 0]), st.binary(max_size=80)), max_size=4),
    st.booleans(),
)
def test_any_records_fail_with_a_handshake_error(pieces: list[tuple[int, bytes]], is_server: bool) -> None:
    data = b"".join(bytes((kind, 3, 3)) + len(body).to_bytes(2) + body for kind, body in pieces)
    assert isinstance(run(refused(data, is_server)), HandshakeError)


def test_whole_records_are_counted_in_any_cut() -> None:
    data = b"".join(b"\x16\x03\x03" + n.to_bytes(2) + bytes(n) for n in (0, 1, 300, 5))
    ends = [5, 11, 316, 326]
    for chunks in cuts(data):
        held = b""
        for chunk in chunks:
            held += chunk
            assert whole_records(held) == max((end for end in ends if end <= len(held)), default=0)

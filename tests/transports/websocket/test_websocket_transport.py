"""The WebSocket transport: each form of address, both roles, TLS, plain HTTP, deadlines, what it leaves."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from websocket_nodes import CERTIFICATE, WS, WSS, listening, talk, tcp_part, websocket

from harness import eventually, looped, seconds
from nodes import make_node
from p2pcore import DialOptions, Host, Multiaddr
from p2pcore._fast.loop.loop_state import loop_state
from p2pcore.errors import (
    AddressError,
    DialError,
    HandshakeError,
    ListenError,
    NegotiationError,
    PeerIdMismatch,
)
from p2pcore.interfaces import Transport
from p2pcore.manet.listener import MaListener, open_listening
from p2pcore.manet.sockaddr import parse_endpoint
from p2pcore.transports.tcp.transport import TcpOptions, TcpTransport
from p2pcore.transports.websocket.tls import WebCertificate
from p2pcore.transports.websocket.transport import (
    WebsocketListener,
    WebsocketOptions,
    WebsocketTransport,
)
from p2pcore.transports.websocket.upgrade import HttpAnswer
from p2pcore.upgrade.upgrader import Stage
from p2pcore.values.keys import PrivateKey

PEER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
OTHER = WebCertificate.self_signed("elsewhere.example")

pytestmark = [
    pytest.mark.filterwarnings("error::ResourceWarning"),  # a socket left to the collector
    pytest.mark.usefixtures("no_proxies"),
]


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "can"),
    [
        ("/ip4/192.0.2.1/tcp/4001/ws", True),
        ("/ip4/192.0.2.1/tcp/4001/wss", True),
        ("/ip4/192.0.2.1/tcp/4001/tls/ws", True),
        ("/ip6/2001:db8::1/tcp/4001/tls/sni/example.com/ws", True),
        (f"/ip4/192.0.2.1/tcp/4001/ws/p2p/{PEER}", True),
        (f"/ip4/192.0.2.1/tcp/4001/tls/ws/p2p/{PEER}", True),
        ("/ip4/192.0.2.1/tcp/0/ws", False),
        ("/ip4/192.0.2.1/tcp/4001", False),
        ("/ip4/192.0.2.1/tcp/4001/tls", False),
        ("/dns4/example.com/tcp/4001/ws", False),
        (f"/ip4/192.0.2.1/tcp/4001/ws/p2p/{PEER}/p2p-circuit", False),
    ],
)
def test_it_dials_websocket_addresses_with_numeric_hosts_only(text: str, can: bool) -> None:
    transport: Transport = websocket(make_node())
    assert transport.can_dial(Multiaddr(text)) is can
    assert transport.protocols == ("ws", "wss")
    assert not transport.is_proxy


@pytest.mark.parametrize("host", ["ip4/127.0.0.1", "ip6/::1"])
@pytest.mark.parametrize(
    ("form", "bound"),
    [
        ("/ws", "/ws"),
        ("/wss", "/tls/ws"),
        ("/tls/ws", "/tls/ws"),
        ("/tls/sni/localhost/ws", "/tls/sni/localhost/ws"),
    ],
)
@looped
async def test_a_host_listens_and_dials_each_form(host: str, form: str, bound: str, ca: Path) -> None:
    served = WebsocketOptions(certificate=CERTIFICATE)
    async with (
        Host(listen=[f"/{host}/tcp/0{form}"], echo=True, websocket=served) as server,
        Host(listen=(), websocket=WebsocketOptions(ca_file=ca)) as dialer,
    ):
        [addr] = server.addrs
        port = addr["tcp"]
        assert str(addr) == f"/{host}/tcp/{port}{bound}"
        for text in {f"/{host}/tcp/{port}{form}", str(addr)}:
            for suffix in ("", f"/p2p/{server.peer_id}"):
                conn = await dialer.swarm.dial_addr(text + suffix)
                assert conn.remote_peer == server.peer_id
                assert conn.state.transport == "websocket"
                assert str(conn.remote_multiaddr) == text
                data = bytes(range(256)) * 1200
                assert await dialer.echo(conn, data) == data
                [inbound] = server.swarm.conns_to_peer(dialer.peer_id)
                assert inbound.local_multiaddr == addr
                assert str(inbound.remote_multiaddr).endswith(bound)
                assert str(conn.local_multiaddr).endswith(bound)
                await conn.close()
                await eventually(lambda: not server.swarm.num_conns)


@pytest.mark.parametrize("form", ["/ws", "/wss", "/tls/ws"])
@looped
async def test_a_host_name_is_resolved_and_is_what_the_certificate_must_say(form: str, ca: Path) -> None:
    class Names:
        """Every name leads to this machine."""

        async def addresses(self, name: str, version: int) -> list[str]:
            return ["127.0.0.1"] if version == 4 else []

        async def texts(self, name: str) -> list[str]:
            return []

    served = WebsocketOptions(certificate=CERTIFICATE)
    async with (
        Host(listen=[f"/ip4/127.0.0.1/tcp/0{form}"], websocket=served) as server,
        Host(listen=(), websocket=WebsocketOptions(ca_file=ca), dial=DialOptions(resolver=Names())) as dialer,
    ):
        port = server.addrs[0]["tcp"]
        conn = await dialer.connect(f"/dns4/a.example.com/tcp/{port}{form}/p2p/{server.peer_id}")
        assert ("sni" in (conn.remote_multiaddr or ())) is (form != "/ws")
        await conn.close()
        if form != "/ws":
            with pytest.raises(DialError, match=r"b\.example\.org is not trusted"):
                await dialer.connect(f"/dns4/b.example.org/tcp/{port}{form}/p2p/{server.peer_id}")


@looped
async def test_tcp_and_websocket_addresses_of_one_host_do_not_meet() -> None:
    async with (
        Host(listen=["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"]) as server,
        Host(listen=()) as dialer,
    ):
        for addr, transport in zip(server.addrs, ("tcp", "websocket"), strict=True):
            conn = await dialer.swarm.dial_addr(addr)
            assert conn.state.transport == transport
        for addr in (tcp_part(server.addrs[1]), server.addrs[0].encapsulate("/ws")):
            with pytest.raises(DialError):
                await dialer.swarm.dial_addr(addr)


@pytest.mark.parametrize(
    "text", ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/ws", f"/ip4/127.0.0.1/tcp/0/ws/p2p/{PEER}"]
)
@looped
async def test_it_does_not_listen_on_other_addresses(text: str) -> None:
    with pytest.raises(AddressError):
        await websocket(make_node()).listen(Multiaddr(text))


@looped
async def test_a_secure_address_without_a_certificate_is_a_clear_error() -> None:
    with pytest.raises(ListenError, match=r"/tls/ws needs a certificate: WebsocketOptions\(certificate"):
        async with Host(listen=["/ip4/127.0.0.1/tcp/0/wss"]):
            pass
    with pytest.raises(ValueError, match="private key does not belong"):
        WebCertificate(CERTIFICATE.chain, OTHER.private_key)
    with pytest.raises(ValueError, match="no certificate"):
        WebCertificate((), OTHER.private_key)


def test_files_of_certificates_are_looked_at_when_they_are_named(tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    form = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    chain.write_bytes(CERTIFICATE.pem)
    key.write_bytes(OTHER.private_key.private_bytes(*form))
    with pytest.raises(ValueError, match=r"chain\.pem.*key\.pem.*does not belong"):
        WebCertificate.load(chain, key)
    with pytest.raises(ValueError, match=r"key\.pem.* has no certificate in PEM"):
        WebCertificate.load(key, key)
    with pytest.raises(ValueError, match=r"chain\.pem"):
        WebCertificate.load(chain, chain)
    with pytest.raises(OSError, match=r"none\.pem"):
        WebsocketOptions(ca_file=tmp_path / "none.pem")
    with pytest.raises(OSError, match=r"key\.pem: there is no certificate"):
        WebsocketOptions(ca_file=key)
    key.write_bytes(CERTIFICATE.private_key.private_bytes(*form))
    assert WebCertificate.load(chain, key).chain == CERTIFICATE.chain
    assert WebsocketOptions(ca_file=chain).ca_file == chain


@looped
async def test_a_taken_port_is_an_os_error() -> None:
    async with listening() as listener:
        with pytest.raises(OSError) as caught:
            await websocket(make_node()).listen(listener.multiaddr)
        assert caught.value.errno == errno.EADDRINUSE


@looped
async def test_tcp_options_hold_for_websockets_too() -> None:
    sock = open_listening(parse_endpoint(Multiaddr("/ip4/127.0.0.1/tcp/0")), reuse_port=True)
    port = sock.getsockname()[1]
    upgrader = make_node().upgrader
    tcp = TcpTransport(upgrader, TcpOptions(sockets=(sock,), linger=0))
    listener = await WebsocketTransport(upgrader, tcp).listen(Multiaddr(f"/ip4/127.0.0.1/tcp/{port}/ws"))
    outbound = await websocket(make_node()).dial(listener.multiaddr, None)
    inbound = await listener.accept()
    inbound.abort()
    outbound.abort()
    await listener.close()
    assert sock.fileno() == -1  # it was taken over


# -- whom it trusts ----------------------------------------------------------------------------------


@looped
async def test_the_id_must_be_proved_whatever_the_certificate_says(ca: Path) -> None:
    stranger = PrivateKey.generate().peer_id()
    for options in ({"ca_file": ca}, {"verify": False}):
        dialer = websocket(make_node(), **options)
        async with listening(WSS) as listener:
            with pytest.raises(PeerIdMismatch):
                await dialer.dial(listener.multiaddr, stranger)
            with pytest.raises(AddressError):
                await dialer.dial(Multiaddr(f"{listener.multiaddr}/p2p/{PEER}"), stranger)


@pytest.mark.parametrize(
    ("form", "trusts", "reason"),
    [
        ("/tls/ws", False, "self-signed"),
        ("/tls/sni/elsewhere.example/ws", True, "hostname mismatch"),
        ("/tls/sni/a.b.example.com/ws", True, "hostname mismatch"),
        ("/tls/sni/example.com/ws", True, "hostname mismatch"),
        ("/tls/sni/a.example.com/ws", True, None),
        ("/tls/sni/localhost/ws", True, None),
        ("/tls/ws", True, None),
    ],
)
@looped
async def test_certificates_are_verified_with_the_hosts_name(
    form: str, trusts: bool, reason: str | None, ca: Path
) -> None:
    async with listening(WSS) as listener:
        addr = tcp_part(listener.multiaddr).encapsulate(form)
        dialer = websocket(make_node(), **({"ca_file": ca} if trusts else {}))
        if reason is None:
            (await dialer.dial(addr, None)).abort()
            return
        with pytest.raises(HandshakeError) as caught:
            await dialer.dial(addr, None)
        assert reason in str(caught.value).lower()
        assert caught.value.stage == Stage.TRANSPORT
        assert str(parse_host(addr)) in str(caught.value)
        (await websocket(make_node(), verify=False).dial(addr, None)).abort()


def parse_host(addr: Multiaddr) -> str | None:
    return addr["sni"] if "sni" in addr else addr["ip4"]


@looped
async def test_authorities_come_from_a_file_that_must_hold_some(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for path in (empty, tmp_path / "absent.pem"):
        with pytest.raises(OSError, match=path.name):
            await websocket(make_node(), ca_file=path).dial(Multiaddr("/ip4/127.0.0.1/tcp/1/tls/ws"), None)


def test_certificates_are_read_from_files(tmp_path: Path, ca: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = tmp_path / "key.pem"
    secret = CERTIFICATE.private_key
    key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    loaded = WebCertificate.load(ca, key)
    assert loaded.pem == CERTIFICATE.pem
    assert "private_key" not in repr(loaded)
    key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")))
    assert WebCertificate.load(ca, key, b"pw").pem == CERTIFICATE.pem
    for password in (None, b"wrong"):
        with pytest.raises(ValueError):
            WebCertificate.load(ca, key, password)
    with pytest.raises(ValueError):
        WebCertificate.load(key, key)
    with pytest.raises(FileNotFoundError):
        WebCertificate.load(tmp_path / "absent.pem", key)
    with pytest.raises(ValueError):
        WebCertificate.self_signed()


@looped
async def test_a_context_of_ones_own_is_used_as_it_is(ca: Path) -> None:
    from OpenSSL import SSL

    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(CERTIFICATE.chain[0])
    context.use_privatekey(CERTIFICATE.private_key)
    async with listening(WSS, certificate=context) as listener:
        (await websocket(make_node(), ca_file=ca).dial(listener.multiaddr, None)).abort()


# -- who else calls ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "body"), [("GET", b"up"), ("HEAD", b"")])
@looped
async def test_plain_http_on_the_port_is_answered_by_the_handler(method: str, body: bytes) -> None:
    async def handler(method: str, target: str, headers: Any) -> HttpAnswer:
        return HttpAnswer(200 if target == "/health" else 404, body=b"up")

    async with listening(http_handler=handler) as listener:
        ask = f"{method} /health HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        answer = await talk(listener.multiaddr, ask)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n" + body)
        await eventually(lambda: listener.num_requests == 1)
        assert not listener.failures
        (await websocket(make_node()).dial(listener.multiaddr, None)).abort()


@looped
async def test_plain_http_without_a_handler_is_404_on_both_kinds_of_port() -> None:
    ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with listening() as listener:
        answer = await talk(listener.multiaddr, ask)
        assert answer == b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with listening(WSS) as listener:
        assert not (await talk(listener.multiaddr, ask)).startswith(b"HTTP")  # an alert of TLS


@looped
async def test_https_on_a_secure_port_reaches_the_handler_and_agrees_on_http_1_1(ca: Path) -> None:
    import http.client
    import ssl

    async def handler(*_: Any) -> HttpAnswer:
        return HttpAnswer(body=b"secure")

    def fetch(port: int) -> tuple[int, bytes, str | None]:
        context = ssl.create_default_context(cafile=str(ca))
        context.set_alpn_protocols(["h2", "http/1.1"])
        conn = http.client.HTTPSConnection("localhost", port, context=context)
        conn.request("GET", "/")
        alpn = conn.sock.selected_alpn_protocol()  # type: ignore[union-attr]
        answer = conn.getresponse()
        return answer.status, answer.read(), alpn

    async with listening(WSS, http_handler=handler) as listener:
        fetched = await asyncio.to_thread(fetch, parse_endpoint(tcp_part(listener.multiaddr)).port)
        assert fetched == (200, b"secure", "http/1.1")


@looped
async def test_a_tls_hello_on_a_plain_port_and_a_dial_of_the_wrong_kind_fail_clearly(ca: Path) -> None:
    async with listening() as listener:
        with pytest.raises(HandshakeError):
            await websocket(make_node(), ca_file=ca).dial(
                tcp_part(listener.multiaddr).encapsulate("/tls/ws"), None
            )
    async with listening(WSS) as listener:
        with pytest.raises(NegotiationError) as caught:
            await websocket(make_node()).dial(tcp_part(listener.multiaddr).encapsulate("/ws"), None)
        assert caught.value.stage == Stage.TRANSPORT


# -- listening, as for tcp ---------------------------------------------------------------------------


@looped
async def test_a_lost_socket_is_bound_anew_on_the_same_port() -> None:
    async with listening() as listener:
        addr = listener.multiaddr
        inner = listener._inner
        assert isinstance(inner, WebsocketListener)
        bound = inner._inner
        assert isinstance(bound, MaListener)
        assert bound._sock is not None
        bound._sock.shutdown(socket.SHUT_RDWR)
        await eventually(lambda: listener.num_rebinds == 1)
        assert listener.multiaddr == addr
        (await websocket(make_node()).dial(addr, None)).abort()


@looped
async def test_a_drain_serves_what_is_queued_and_then_ends() -> None:
    async with Host(listen=[WS], echo=True) as server, Host(listen=()) as dialer:
        conn = await dialer.connect(server.addrs_with_peer[0])
        stream = await conn.new_stream("/echo/1.0.0")
        await stream.write(b"x")
        assert await stream.read_exactly(1) == b"x"
        draining = asyncio.ensure_future(server.drain(seconds(20)))
        await eventually(lambda: not server.swarm.listen_addresses())
        await stream.write(b"y")
        assert await stream.read_exactly(1) == b"y"
        await stream.close()
        assert await draining == 0
        await eventually(lambda: conn.is_closed)


@looped
async def test_an_idle_connection_has_no_task_no_timer_and_no_buffer() -> None:
    async with listening() as listener:
        dialer = websocket(make_node())
        state = loop_state(asyncio.get_running_loop())
        tasks = len(asyncio.all_tasks())
        conns = []
        for _ in range(30):
            conns += [await dialer.dial(listener.multiaddr, None), await listener.accept()]
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        assert state.num_watched == 0
        first, *_, last = conns[1::2]
        assert not isinstance(first, BaseException)
        assert first.local_multiaddr is last.local_multiaddr
        for conn in conns:
            conn.abort()

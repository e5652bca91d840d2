"""Proxies of the environment: which is chosen, the tunnel through one, what goes wrong with them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from _fast.chains import Cable
from harness import looped, settle
from nodes import make_node
from p2pcore import Host, Multiaddr
from p2pcore.errors import (
    AddressError,
    ConnectionClosed,
    DialError,
    LimitExceeded,
    NegotiationError,
    P2PError,
    RemoteProtocolError,
)
from p2pcore.limits import MAX_HTTP_HEAD_BYTES
from p2pcore.transports.websocket.proxy import Proxy, open_tunnel, parse_proxy, proxy_for
from p2pcore.transports.websocket.tls import WebCertificate
from p2pcore.transports.websocket.transport import WebsocketOptions, WebsocketTransport

CERTIFICATE = WebCertificate.self_signed("localhost", "127.0.0.1")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# -- which -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "scheme", "host", "found"),
    [
        ({}, "http", "192.0.2.1", None),
        ({"HTTP_PROXY": "http://p:3128"}, "http", "192.0.2.1", Proxy("p", 3128)),
        ({"http_proxy": "p:3128"}, "http", "192.0.2.1", Proxy("p", 3128)),
        ({"HTTP_PROXY": "http://p"}, "http", "192.0.2.1", Proxy("p", 80)),
        ({"HTTP_PROXY": "http://[::1]:81/"}, "http", "192.0.2.1", Proxy("::1", 81)),
        ({"HTTP_PROXY": "http://p:3128"}, "https", "192.0.2.1", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https", "192.0.2.1", Proxy("p", 3128)),
        ({"ALL_PROXY": "http://p:3128"}, "https", "192.0.2.1", Proxy("p", 3128)),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http", "192.0.2.1", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, "http", "192.0.2.1", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "192.0.2.1"}, "http", "192.0.2.1", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "192.0.2.1:4001"}, "http", "192.0.2.1", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "192.0.2.1:80"}, "http", "192.0.2.1", Proxy("p", 1)),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "example.com"}, "https", "a.example.com", None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "example.org"}, "https", "example.com", Proxy("p", 1)),
        ({"HTTP_PROXY": ""}, "http", "192.0.2.1", None),
    ],
)
def test_the_environment_chooses(
    environment: dict[str, str],
    scheme: str,
    host: str,
    found: Proxy | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(scheme, host, 4001) == found


def test_credentials_become_basic_authorization_and_are_not_shown() -> None:
    proxy = parse_proxy("http://us%40er:p%3Ass@proxy.example:8080")
    assert (proxy.host, proxy.port) == ("proxy.example", 8080)
    assert proxy.authorization == "Basic " + base64.b64encode(b"us@er:p:ss").decode()
    assert "Basic" not in repr(proxy)
    assert parse_proxy("http://user@h:1").authorization == "Basic " + base64.b64encode(b"user:").decode()


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@p:1",
        "socks5://user:secret@p:1",
        "http://user:secret@:1",
        "http://user:secret@p:99999",
        "http://user:secret@p:x",
        "http://user:secret@[::1",
    ],
)
def test_other_proxies_are_refused_without_showing_credentials(url: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_proxy(url)
    assert "secret" not in str(caught.value)


# -- the tunnel ------------------------------------------------------------------------------------


@looped
async def test_a_tunnel_asks_for_the_host_and_gives_back_what_follows() -> None:
    for host, target in (("192.0.2.1", "192.0.2.1:443"), ("2001:db8::1", "[2001:db8::1]:443")):
        cable = Cable()
        opening = asyncio.ensure_future(open_tunnel(cable.mailbox, Proxy("p", 1, "Basic eA=="), host, 443))
        await settle()
        assert cable.sent().decode().split("\r\n") == [
            f"CONNECT {target} HTTP/1.1",
            f"Host: {target}",
            "Proxy-Authorization: Basic eA==",
            "",
            "",
        ]
        cable.deliver(b"HTTP/1.0 200 Connection established\r\nVia: p\r\n\r\nearly")
        await opening
        assert await cable.mailbox.read_exactly(5) == b"early"
        cable.mailbox.write(b"through")
        assert cable.sent() == b"through"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", NegotiationError),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", NegotiationError),
        (b"HTTP/1.1 101 Switching\r\n\r\n", P2PError),
        (b"SOCKS\r\n\r\n", RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HTTP_HEAD_BYTES, RemoteProtocolError),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, LimitExceeded),
        (b"HTTP/1.1 20", ConnectionClosed),
    ],
)
@looped
async def test_what_a_proxy_answers_wrongly_is_an_error(answer: bytes, error: type[Exception]) -> None:
    cable = Cable()
    opening = asyncio.ensure_future(open_tunnel(cable.mailbox, Proxy("p", 1), "192.0.2.1", 443))
    await settle()
    cable.deliver(answer)
    cable.deliver_eof()
    with pytest.raises(error) as caught:
        await opening
    if error is NegotiationError:
        assert "the proxy p:1 answered HTTP 40" in str(caught.value)


class ConnectProxy:
    """A proxy of the plainest kind; `seen` is what was asked of it."""

    def __init__(self, authorization: str = "") -> None:
        self.seen: list[str] = []
        self._authorization = authorization

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """The port it listens on."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.seen.append(head.split("\r\n")[0])
        if self._authorization not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, _, port = head.split()[1].rpartition(":")
        there, back = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, back), pump(there, writer))


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    sink.close()


@pytest.mark.parametrize("form", ["/ws", "/tls/ws", "/tls/sni/localhost/ws"])
@looped
async def test_a_websocket_through_a_proxy(
    form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(CERTIFICATE.pem)

    proxy = ConnectProxy("Proxy-Authorization: Basic " + base64.b64encode(b"me:word").decode())
    served = WebsocketOptions(certificate=CERTIFICATE)
    async with (
        proxy.running() as port,
        Host(listen=[f"/ip4/127.0.0.1/tcp/0{form}"], echo=True, websocket=served) as server,
        Host(listen=(), websocket=WebsocketOptions(ca_file=ca)) as dialer,
    ):
        monkeypatch.setenv(
            "HTTPS_PROXY" if "tls" in form else "HTTP_PROXY", f"http://me:word@127.0.0.1:{port}"
        )
        conn = await dialer.connect(server.addrs_with_peer[0])
        data = bytes(range(256)) * 1000
        assert await dialer.echo(conn, data) == data
        assert conn.remote_multiaddr == server.addrs[0]
        host = "localhost" if "sni" in form else "127.0.0.1"
        assert proxy.seen == [f"CONNECT {host}:{server.addrs[0]['tcp']} HTTP/1.1"]
        monkeypatch.setenv("HTTPS_PROXY" if "tls" in form else "HTTP_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(DialError, match="answered HTTP 407"):
            await dialer.swarm.dial_addr(server.addrs[0])
        assert len(proxy.seen) == 2
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        await dialer.swarm.dial_addr(server.addrs[0])
        assert len(proxy.seen) == 2
        await dialer.close()


@looped
async def test_proxies_can_be_switched_off_and_one_that_is_not_there_is_an_os_error(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_tcp_port}")

    async with Host(listen=["/ip4/127.0.0.1/tcp/0/ws"]) as server:
        node = make_node()
        with pytest.raises(ConnectionRefusedError):
            await WebsocketTransport(node.upgrader, node.transport).dial(server.addrs[0], None)
        options = WebsocketOptions(use_proxies=False)
        dialer = WebsocketTransport(node.upgrader, node.transport, options)
        (await dialer.dial(server.addrs[0], None)).abort()
        monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
        with pytest.raises(AddressError, match="socks5"):
            await WebsocketTransport(node.upgrader, node.transport).dial(
                Multiaddr("/ip4/127.0.0.1/tcp/1/ws"), None
            )


@pytest.fixture
def unused_tcp_port() -> int:
    """A port nobody listens on, bound for a moment."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port

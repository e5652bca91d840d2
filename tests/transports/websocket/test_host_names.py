"""A WebSocket at a host name: server, certificate and proxy get the name, in its normal form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness import looped
from p2pcore import DialOptions, Host
from p2pcore.errors import AddressError, DialError, ResolutionError
from p2pcore.transports.websocket.proxy import Proxy, proxy_for
from p2pcore.transports.websocket.tls import WebCertificate
from p2pcore.transports.websocket.transport import WebsocketOptions


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Names:
    """Some names lead to this machine; `asked` is what was asked for."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.asked: list[str] = []

    async def addresses(self, name: str, version: int) -> list[str]:
        self.asked.append(name)
        if name not in self.known:
            raise ResolutionError(f"{name}: no such name")
        return ["127.0.0.1"]

    async def texts(self, name: str) -> list[str]:
        raise ResolutionError(f"{name}: no such name")


class Front:
    """A web server in front of others, or a proxy: notes request lines and Host, and goes on to `target`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.seen: list[tuple[str, str]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """The port it listens on."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        host = next(each[6:] for each in headers if each.startswith("Host: "))
        self.seen.append((line, host))
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        if line.startswith("CONNECT"):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            back.write(head)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    sink.close()


def port_of(host: Host) -> int:
    return int(host.addrs[0]["tcp"] or 0)


NAMES = [
    ("a.example", "a.example", "a.example"),
    ("A.Example.", "a.example.", "a.example"),
    ("bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
]


@pytest.mark.parametrize(("name", "asked", "sent"), NAMES)
@looped
async def test_a_plain_websocket_names_its_host(name: str, asked: str, sent: str) -> None:
    async with Host(listen=["/ip4/127.0.0.1/tcp/0/ws"]) as server:
        front = Front(port_of(server))
        async with (
            front.running() as port,
            Host(listen=(), dial=DialOptions(resolver=Names(asked))) as dialer,
        ):
            await dialer.ping(f"/dns4/{name}/tcp/{port}/ws/p2p/{server.peer_id}")
            assert front.seen == [("GET / HTTP/1.1", f"{sent}:{port}")]
            (conn,) = dialer.swarm.conns()
            assert str(conn.remote_multiaddr) == f"/ip4/127.0.0.1/tcp/{port}/ws"
            await dialer.close()


@pytest.mark.parametrize(("name", "asked", "sent"), NAMES)
@looped
async def test_a_secure_websocket_proves_the_normal_form_of_its_name(
    name: str, asked: str, sent: str, tmp_path: Path
) -> None:
    certificate = WebCertificate.self_signed(name)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(certificate.pem)
    served = WebsocketOptions(certificate=certificate)
    async with (
        Host(listen=["/ip4/127.0.0.1/tcp/0/tls/ws"], websocket=served) as server,
        Host(
            listen=(),
            websocket=WebsocketOptions(ca_file=ca),
            dial=DialOptions(resolver=Names(asked, "other")),
        ) as dialer,
    ):
        rest = f"tcp/{port_of(server)}/tls/ws/p2p/{server.peer_id}"
        await dialer.ping(f"/dns4/{name}/{rest}")
        await dialer.close_peer(server.peer_id)
        with pytest.raises(DialError, match="not trusted"):
            await dialer.connect(f"/dns4/other/{rest}")


@pytest.mark.parametrize("form", ["/ws", "/tls/ws"])
@pytest.mark.parametrize(("name", "_asked", "sent"), NAMES)
@looped
async def test_a_name_that_only_the_proxy_knows_is_asked_of_the_proxy(
    name: str, _asked: str, sent: str, form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = WebCertificate.self_signed(name)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(certificate.pem)
    served = WebsocketOptions(certificate=certificate)
    names = Names()
    async with Host(listen=[f"/ip4/127.0.0.1/tcp/0{form}"], websocket=served) as server:
        proxy = Front(port_of(server))
        async with (
            proxy.running() as port,
            Host(
                listen=(), websocket=WebsocketOptions(ca_file=ca), dial=DialOptions(resolver=names)
            ) as dialer,
        ):
            monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
            addr = f"/dns4/{name}/tcp/4001{form}/p2p/{server.peer_id}"
            await dialer.ping(addr)
            await dialer.swarm.dial_addr(addr)
            assert proxy.seen == 2 * [(f"CONNECT {sent}:4001 HTTP/1.1", f"{sent}:4001")]
            assert names.asked == []
            await dialer.close()


@looped
async def test_a_relay_behind_a_proxy_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names()
    async with Host(listen=["/ip4/127.0.0.1/tcp/0/ws"]) as server:
        proxy = Front(port_of(server))
        async with proxy.running() as port, Host(listen=(), dial=DialOptions(resolver=names)) as dialer:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
            target = Host(listen=()).peer_id
            with pytest.raises(DialError, match=r"protocol|support"):  # it is no relay, but it was reached
                await dialer.connect(
                    f"/dns4/r.example/tcp/80/ws/p2p/{server.peer_id}/p2p-circuit/p2p/{target}"
                )
            assert [line for line, _ in proxy.seen] == ["CONNECT r.example:80 HTTP/1.1"]
            assert names.asked == []
            await dialer.close()


@pytest.mark.parametrize(
    ("no_proxy", "name"),
    [
        ("a.example", "a.example"),
        ("A.Example.", "a.example"),
        (".example", "A.EXAMPLE"),
        ("a.example", "a.example."),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "bücher.example"),
        ("x.example, bücher.example", "www.bücher.example"),
    ],
)
@looped
async def test_a_name_in_no_proxy_is_looked_up_and_dialled(
    no_proxy: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Every(Names):
        async def addresses(self, name: str, version: int) -> list[str]:
            return ["127.0.0.1"]

    async with (
        Host(listen=["/ip4/127.0.0.1/tcp/0/ws"]) as server,
        Host(listen=(), dial=DialOptions(resolver=Every())) as dialer,
    ):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", no_proxy)
        await dialer.ping(f"/dns4/{name}/tcp/{port_of(server)}/ws/p2p/{server.peer_id}")


def test_exceptions_with_ports_and_the_names_of_proxies_are_normal_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://Bücher.example.:3128")
    assert proxy_for("http", "a.example", 80) == Proxy("xn--bcher-kva.example", 3128)
    for entry in ("bücher.example:81", "*", "b.example,[2001:db8::1]:81"):
        monkeypatch.setenv("NO_PROXY", entry)
        assert (proxy_for("http", "xn--bcher-kva.example", 80) is None) is (entry == "*")
        assert (proxy_for("http", "xn--bcher-kva.example", 81) is None) is (entry[0] != "b" or "ü" in entry)
        assert (proxy_for("http", "2001:db8::1", 81) is None) is ("*" in entry or "2001" in entry)


@looped
async def test_a_plain_listener_takes_no_name() -> None:
    async with Host(listen=()) as host:
        with pytest.raises(AddressError, match="only for listeners with TLS"):
            await host.swarm.add_listen_addr("/ip4/127.0.0.1/tcp/0/sni/a.example/ws")


def test_a_certificate_of_what_is_no_name_is_refused() -> None:
    with pytest.raises(AddressError, match="no host name"):
        WebCertificate.self_signed("a..b")

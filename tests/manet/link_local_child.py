"""What test_link_local.py runs: one promise, in a network namespace with veth0 and veth1."""

from __future__ import annotations

import asyncio
import sys

import p2pcore
from p2pcore import Host, TcpOptions
from p2pcore.manet.packet import MaPacketConn
from p2pcore.values.multiaddr import Multiaddr

HERE = "/ip6zone/veth1/ip6/fe80::99"


async def _pings(listen: str, **dialler: object) -> tuple[str, str]:
    """Dials a host on `listen`; both ends of the connection as the listener sees them."""
    async with Host(listen=[listen]) as host, Host(**{"listen": (), **dialler}) as other:
        await other.ping(host.addrs_with_peer[0])
        (conn,) = host.swarm.conns()
        return str(conn.local_multiaddr), str(conn.remote_multiaddr)


async def tcp_connects() -> None:
    local, remote = await _pings(f"{HERE}/tcp/0")
    assert local.startswith(f"{HERE}/tcp/"), local
    assert remote.startswith(f"{HERE}/tcp/"), remote


async def websocket_connects() -> None:
    local, _ = await _pings(f"{HERE}/tcp/0/ws")
    assert local.startswith(HERE), local
    assert local.endswith("/ws"), local


async def dialling_from_the_listener_connects() -> None:
    """The first listener has the same address on the other interface."""
    listen = ["/ip6zone/veth0/ip6/fe80::99/tcp/0", f"{HERE}/tcp/0"]
    async with (
        Host(listen=[f"{HERE}/tcp/0"]) as host,
        Host(listen=listen, tcp=TcpOptions(dial_from_listener=True)) as other,
    ):
        await other.ping(host.addrs_with_peer[0])
        (conn,) = host.swarm.conns()
        assert conn.remote_multiaddr == other.addrs[1], (conn.remote_multiaddr, other.addrs)


async def dialling_from_an_address_with_a_zone_connects() -> None:
    _, remote = await _pings(f"{HERE}/tcp/0", tcp=TcpOptions(dial_from="fe80::99%veth1"))
    assert remote.startswith(HERE), remote


async def packets_arrive() -> None:
    one = MaPacketConn.bind(Multiaddr("/ip6/::/udp/0"))  # says nothing of the interface to leave by
    other = MaPacketConn.bind(Multiaddr(f"{HERE}/udp/0"))
    await one.send_to(b"there", other.local_multiaddr)
    data, sender = await other.recv_from()
    assert (data, str(sender)) == (b"there", f"{HERE}/udp/{one.local_multiaddr['udp']}"), (data, sender)
    await other.send_to(b"and back", sender)
    assert (await one.recv_from())[0] == b"and back"
    await one.close()
    await other.close()


async def a_wildcard_with_a_zone_is_told_as_the_addresses_of_that_interface() -> None:
    async with Host(listen=["/ip6zone/veth1/ip6/::/tcp/0"]) as host, Host(listen=()) as other:
        port = host.swarm.listen_addresses()[0]["tcp"]
        texts = [str(addr) for addr in host.addrs]
        assert {f"/ip6/fd00::7/tcp/{port}", f"{HERE}/tcp/{port}"} <= set(texts), texts
        assert all("127.0.0.1" not in text and "::1/" not in text and "veth0" not in text for text in texts)
        for addr in host.addrs_with_peer:
            assert (await other.swarm.dial_addr(addr)).remote_peer == host.peer_id


async def zones_are_never_told_to_peers() -> None:
    listen = [f"{HERE}/tcp/0", "/ip6/fd00::7/tcp/0"]
    async with Host(listen=listen) as host, Host(listen=()) as other:
        info = await other.identify(host.addrs_with_peer[0])
        assert info.addrs == info.listen_addrs == (host.addrs[1],), info
        assert str(info.observed_addr).startswith("/ip6/fe80::99/tcp/"), info.observed_addr


if __name__ == "__main__":
    p2pcore.run(asyncio.wait_for(globals()[sys.argv[1]](), 30))

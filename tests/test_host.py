"""The host: composed from keyword arguments, used as a context manager, gone without a trace."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

import p2pcore
from harness import HANG_S, eventually, looped, seconds
from hosts import pair
from p2pcore import Host, Multiaddr, PeerId, PrivateKey, SwarmConn
from p2pcore.errors import AddressError, DialError, IdentityError, ListenError, SwarmClosed


@looped
async def test_a_host_listens_on_real_ports_and_names_itself() -> None:
    key = PrivateKey.from_seed(b"\x01" * 32)
    async with Host(key, ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]) as host:
        assert host.peer_id == key.peer_id()
        four, six = host.addrs
        assert four.value_for_protocol("tcp") != "0"
        assert str(six).startswith("/ip6/::1/tcp/")
        assert host.addrs_with_peer == [addr.with_p2p(host.peer_id) for addr in host.addrs]
        assert set(host.protocols) == {"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"}
    assert host.addrs == []


@looped
async def test_an_unspecified_address_is_told_as_interface_addresses() -> None:
    async with Host(listen=["/ip4/0.0.0.0/tcp/0"]) as host, Host(listen=()) as other:
        assert "/ip4/0.0.0.0" not in {str(addr)[:12] for addr in host.addrs}
        port = host.addrs[0].value_for_protocol("tcp")
        assert Multiaddr(f"/ip4/127.0.0.1/tcp/{port}") in host.addrs
        await other.connect(host.addrs_with_peer[0])


@looped
async def test_a_host_that_can_listen_nowhere_does_not_start(caplog: pytest.LogCaptureFixture) -> None:
    async with Host() as first:
        taken = first.addrs[0]
        with pytest.raises(ListenError, match="in use"):
            await Host(listen=[taken]).start()
        async with Host(listen=[taken, "/ip4/127.0.0.1/tcp/0"]) as partly:
            assert [result.bound is None for result in partly.listen_results] == [True, False]
    assert "cannot listen on" in caplog.text


@pytest.mark.parametrize(
    "form", ["conn", "peer id", "peer id text", "addr with peer", "addr text", "addr only"]
)
@looped
async def test_a_target_may_be_given_in_any_form(form: str) -> None:
    async with pair({"echo": True}) as p:
        full = p.server.addrs_with_peer[0]
        target: Any = {
            "conn": p.conn,
            "peer id": p.server.peer_id,
            "peer id text": str(p.server.peer_id),
            "addr with peer": full,
            "addr text": str(full),
            "addr only": p.server.addrs[0],
        }[form]
        conn = await p.dialer.connect(target)
        assert (conn is p.conn) == (form != "addr only")
        assert await p.dialer.echo(target, b"hello") == b"hello"
        assert conn.remote_peer == p.server.peer_id


@looped
async def test_further_addresses_of_a_peer_are_tried_too() -> None:
    async with Host() as server, Host(listen=()) as dialer:
        dead = Multiaddr("/ip4/127.0.0.1/tcp/1").with_p2p(server.peer_id)
        conn = await dialer.connect(dead, server.addrs[0])
        assert conn.remote_multiaddr == server.addrs[0]
        with pytest.raises(AddressError, match="names no peer"):
            await dialer.connect(server.addrs[0], dead)


@looped
async def test_bad_targets_are_refused() -> None:
    async with Host(listen=()) as host:
        with pytest.raises(IdentityError):
            await host.connect("nonsense")
        with pytest.raises(AddressError):
            await host.connect("/nonsense/1")
        with pytest.raises(DialError, match="no addresses"):
            await host.connect(PrivateKey.generate().peer_id())
        with pytest.raises(DialError, match="no transport"):
            await host.connect("/ip4/127.0.0.1/udp/1/quic-v1")
    with pytest.raises(SwarmClosed):
        await host.connect("/ip4/127.0.0.1/tcp/1")


@looped
async def test_a_peer_with_another_identity_is_not_connected() -> None:
    async with Host() as server, Host(listen=()) as dialer:
        other = PrivateKey.generate().peer_id()
        with pytest.raises(DialError, match="expected peer"):
            await dialer.connect(server.addrs[0].with_p2p(other))
        assert dialer.swarm.num_conns == 0


@looped
async def test_both_ends_agree_on_what_the_connection_is() -> None:
    async with pair() as p:
        assert p.conn.state == p.server_conn.state
        assert (p.conn.state.security, p.conn.state.muxer) == ("/noise", "/yamux/1.0.0")
        assert p.conn.state.early_muxer
        assert p.conn.remote_peer == p.server_conn.local_peer == p.server.peer_id
        assert p.conn.remote_public_key == p.server.private_key.public_key
        assert p.conn.local_multiaddr == p.server_conn.remote_multiaddr
        assert [p.conn.direction.value, p.server_conn.direction.value] == ["outbound", "inbound"]


@looped
async def test_a_connection_closed_here_ends_there() -> None:
    async with pair() as p:
        await p.conn.close()
        assert p.dialer.swarm.num_conns == 0
        await eventually(lambda: p.server.swarm.num_conns == 0)
        assert p.server_conn.is_closed


@looped
async def test_notifiees_of_a_host_hear_of_connections() -> None:
    from swarm_fakes import Recorder

    log: list[Any] = []
    recorder = Recorder(log)
    async with Host() as server, Host(listen=()) as dialer:
        server.notify(recorder)
        conn = await dialer.connect(server.addrs_with_peer[0])
        await eventually(lambda: log)
        await conn.close()
        await eventually(lambda: len(log) == 2)
        server.stop_notify(recorder)
    assert [event for event, _ in log] == ["connected", "disconnected"]
    assert isinstance(log[0][1], SwarmConn)


@looped
async def test_two_hosts_may_dial_each_other_at_once() -> None:
    async with Host() as one, Host() as two:
        conns = await asyncio.gather(one.connect(two.addrs_with_peer[0]), two.connect(one.addrs_with_peer[0]))
        assert [conn.remote_peer for conn in conns] == [two.peer_id, one.peer_id]
        assert await one.ping(two.peer_id)


def test_a_host_runs_on_plain_asyncio_too() -> None:
    async def main() -> None:
        serving = {"echo": True, "ping": True, "identify": True}
        async with asyncio.timeout(seconds(HANG_S)), pair(serving) as p:
            assert await p.dialer.echo(p.conn, b"x" * 300_000) == b"x" * 300_000
            assert len(await p.dialer.ping(p.conn, 2)) == 2
            assert (await p.dialer.identify(p.conn)).agent_version.startswith("p2pcore/")

    asyncio.run(main())


def test_run_runs_on_uvloop() -> None:
    async def main() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert p2pcore.run(main()) == "uvloop"


@looped
async def test_closing_twice_and_without_a_start_is_fine() -> None:
    host = Host()
    await host.close()
    await host.close()
    with pytest.raises(SwarmClosed):
        await host.start()


# -- the package -------------------------------------------------------------------------------


def test_every_public_name_exists_and_is_listed() -> None:
    for name in p2pcore.__all__:
        assert getattr(p2pcore, name) is not None
    assert set(p2pcore.__all__) <= set(dir(p2pcore))
    assert set(p2pcore._HOMES) == set(p2pcore.__all__) - {"__version__"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = p2pcore.nothing  # type: ignore[attr-defined]
    assert p2pcore.PeerId is PeerId


def test_importing_the_package_is_cheap() -> None:
    script = (
        "import sys; before = set(sys.modules); import p2pcore; new = set(sys.modules) - before\n"
        "heavy = {'asyncio', 'google', 'click', 'rich', 'multiaddr', 'nacl', 'cryptography', 'uvloop'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in new}), 'p2pcore.host' in new)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] False"


def test_a_protocol_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no security protocol is named 'nois'; there are: noise"):
        Host(security=["nois"])
    with pytest.raises(ValueError, match="no multiplexer is named 'spdy'"):
        Host(muxers=["spdy"])
    with pytest.raises(ValueError, match="a sequence of multiplexers is expected"):
        Host(muxers="yamux")

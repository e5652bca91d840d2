"""The host: composed from keyword arguments, used as a context manager, gone without a trace."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import p2pcore
from harness import HANG_S, eventually, looped, run, seconds
from hosts import pair
from p2pcore import Conn, Host, Multiaddr, PeerId, PrivateKey, Stream, limits
from p2pcore._fast.loop.loop_state import loop_state
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


@looped
async def test_a_closed_host_says_that_it_cannot_start_again_and_what_to_do() -> None:
    for listen in ((), ("/ip4/127.0.0.1/tcp/0",)):
        host = Host(listen=listen)
        async with host:
            pass
        with pytest.raises(SwarmClosed, match=r"make a new Host; with private_key=host.private_key"):
            await host.start()
        async with Host(host.private_key, listen) as again:
            assert again.peer_id == host.peer_id


@looped
async def test_a_host_starts_once() -> None:
    async with Host(listen=["/memory/0"]) as host:
        addrs = host.addrs
        with pytest.raises(RuntimeError, match="started already"):
            await host.start()
        assert host.addrs == addrs


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
        with pytest.raises(AddressError, match="need the id of their peer"):
            await dialer.connect(server.addrs[0], dead)


@looped
async def test_bad_targets_are_refused() -> None:
    async with Host(listen=()) as host:
        with pytest.raises(IdentityError):
            await host.connect("nonsense")
        with pytest.raises(AddressError):
            await host.connect("/nonsense/1")
        with pytest.raises(DialError, match="no addresses are known; give one that ends with its /p2p/"):
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
    assert isinstance(log[0][1], Conn)


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


def test_run_inside_a_running_loop_is_one_clear_line() -> None:
    async def main() -> None: ...

    async def outer() -> None:
        with pytest.raises(RuntimeError, match="one runs here already: await the coroutine"):
            p2pcore.run(main())  # a warning about a coroutine that nobody awaits would fail the test

    run(outer())


def test_what_belongs_to_the_loop_is_said_to_the_loop() -> None:
    async def spin() -> float:
        return loop_state(asyncio.get_running_loop()).spin_s

    async def tuned() -> float:
        p2pcore.tune_loop(spin_s=0.0005)
        async with Host(listen=()):
            return await spin()

    assert p2pcore.run(spin(), spin_s=0) == 0
    assert p2pcore.run(spin()) == limits.SPIN_S
    assert asyncio.run(tuned()) == 0.0005
    for wrong in (-1e-6, limits.MAX_SPIN_S * 2, float("nan")):
        with pytest.raises(ValueError, match=r"spin_s must be a number of seconds from 0 \(never\) to 0.001"):
            p2pcore.tune_loop(spin_s=wrong)
    with pytest.raises(RuntimeError, match="no running event loop"):
        p2pcore.tune_loop(spin_s=0)


@looped
async def test_a_host_used_from_another_threads_loop_says_so() -> None:
    errors: list[str] = []

    async def handler(stream: Stream) -> None: ...

    async def abroad() -> None:
        for use in (
            host.start,
            host.close,
            host.drain,
            lambda: host.connect(host.addrs[0]),
            lambda: host.new_stream(host.addrs[0], "/x"),
            lambda: host.ping(host.addrs[0]),
            lambda: host.close_peer(host.peer_id),
            lambda: host.swarm.dial_addr(host.addrs[0]),
            lambda: host.swarm.dial_peer(host.peer_id),
            lambda: host.swarm.new_stream(host.peer_id, "/x"),
            lambda: host.swarm.listen("/ip4/127.0.0.1/tcp/0"),
            lambda: host.swarm.add_listen_addr("/ip4/127.0.0.1/tcp/0"),
            lambda: host.swarm.listen_close(host.addrs[0]),
            lambda: host.swarm.close_peer(host.peer_id),
            lambda: host.swarm.close_conn("1"),
            host.swarm.drain,
            host.swarm.close,
        ):
            with pytest.raises(RuntimeError) as caught:
                await use()
            errors.append(str(caught.value))
        for call in (lambda: host.set_stream_handler("/x", handler), host.events):
            with pytest.raises(RuntimeError) as caught:
                call()
            errors.append(str(caught.value))

    async with Host() as host:
        await asyncio.to_thread(lambda: asyncio.run(abroad()))
        assert host.addrs
    assert len(errors) == 19
    assert len(set(errors)) == 1
    assert re.match("this host belongs to the event loop of thread 'MainThread' and was called", errors[0])
    assert "run_coroutine_threadsafe" in errors[0]


def test_a_host_used_on_a_second_loop_says_so() -> None:
    host = Host(listen=())

    async def use() -> None:
        async with host:
            pass

    asyncio.run(use())
    with pytest.raises(RuntimeError, match="make one host for each loop"):
        asyncio.run(use())


def test_a_host_may_be_made_before_its_loop_and_in_another_thread() -> None:
    made: list[Host] = []
    maker = threading.Thread(target=lambda: made.append(Host()))
    maker.start()
    maker.join()

    async def use() -> None:
        async with made[0] as host:
            assert host.addrs

    run(use())


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
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = p2pcore.nothing  # type: ignore[attr-defined]
    assert p2pcore.PeerId is PeerId


@pytest.mark.source
def test_type_checkers_see_the_names_that_are_there() -> None:
    """The table of __init__.py and the imports of __init__.pyi, name by name and module by module."""
    tree = ast.parse(Path(p2pcore.__file__).with_suffix(".pyi").read_text())
    seen = {
        alias.name: node.module.removeprefix("p2pcore.")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("p2pcore.")
        for alias in node.names
        if alias.asname == alias.name  # the form that exports
    }
    assert seen == vars(p2pcore)["_HOMES"]
    assert sorted({"__version__", *seen}) == sorted(p2pcore.__all__)


def test_every_option_class_that_a_host_takes_is_public() -> None:
    hints = inspect.signature(Host.__init__).parameters.values()
    named = {name for hint in hints for name in re.findall(r"\w+Options", str(hint.annotation))}
    assert len(named) == 14
    assert named <= set(p2pcore.__all__)


def test_importing_the_package_is_cheap() -> None:
    script = (
        "import sys; before = set(sys.modules); import p2pcore; new = set(sys.modules) - before\n"
        "heavy = {'asyncio', 'google', 'click', 'rich', 'multiaddr', 'nacl', 'cryptography', 'uvloop'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in new}), 'p2pcore.host' in new)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] False"


def test_a_host_without_a_fleet_loads_nothing_of_it() -> None:
    script = (
        "import sys; from p2pcore import Host, run\n"
        "async def main():\n"
        "    async with Host() as one, Host() as two:\n"
        "        await (await one.connect(two.addrs_with_peer[0])).close()\n"
        "        one.metrics.text()\n"
        "run(main())\n"
        "print([name for name in sys.modules if name.startswith(('p2pcore.fleet', 'nats'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_protocol_that_is_not_there_is_named() -> None:
    known = "each item of security must be one of 'noise', 'tls', 'plaintext', not 'nois'"
    with pytest.raises(ValueError, match=known):
        Host(security=["nois"])
    with pytest.raises(ValueError, match="each item of muxers must be one of 'yamux', 'mplex', not 'spdy'"):
        Host(muxers=["spdy"])
    with pytest.raises(TypeError, match="muxers must be a list of names or objects, not a str 'yamux'"):
        Host(muxers="yamux")


@looped
async def test_a_wrong_target_and_wrong_data_are_type_errors() -> None:
    async with pair({"echo": True}) as p:
        for target in (None, 5, b"x", ("127.0.0.1", 4001)):
            with pytest.raises(TypeError, match="target must be a multiaddr, a peer id or a Conn, not "):
                await p.dialer.connect(target)  # type: ignore[arg-type]
        for data in ("hello", 5, [1, 2]):
            with pytest.raises(TypeError, match="data must be bytes, not a "):
                await p.dialer.echo(p.conn, data)  # type: ignore[arg-type]
        assert await p.dialer.echo(p.conn, b"x") == b"x"

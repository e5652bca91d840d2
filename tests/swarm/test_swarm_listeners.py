"""Listening: results for each address, the choice of transports, accept loops, notifications."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from harness import eventually, looped, run
from p2pcore.errors import ListenError, NoTransport, SwarmClosed
from p2pcore.interfaces import Direction
from p2pcore.manet.netif import interface_addresses
from p2pcore.swarm.swarm import Swarm
from p2pcore.values.multiaddr import Multiaddr
from swarm_fakes import US, FakeConn, FakeTransport, Recorder, addr, make_swarm, peer


@looped
async def test_listen_gives_a_result_for_each_address_and_one_success_is_enough() -> None:
    swarm, tcp = make_swarm()
    tcp.broken.add(addr(2))
    results = await swarm.listen(str(addr(1)), addr(2), "/unix/%2Ftmp%2Fx")
    assert [result.bound for result in results] == [addr(1), None, None]
    assert results[0].error is None
    assert isinstance(results[1].error, OSError)
    assert isinstance(results[2].error, NoTransport)
    assert swarm.listen_addresses() == [addr(1)]
    await swarm.close()


@looped
async def test_listen_fails_with_every_cause_when_no_address_works() -> None:
    swarm, tcp = make_swarm()
    tcp.broken.update({addr(1), addr(2)})
    with pytest.raises(ListenError, match="address in use") as caught:
        await swarm.listen(addr(1), addr(2))
    assert [cause[0] for cause in caught.value.causes] == [addr(1), addr(2)]
    assert all(isinstance(cause[1], OSError) for cause in caught.value.causes)
    await swarm.close()


@looped
async def test_listening_on_nothing_is_fine() -> None:
    swarm, _ = make_swarm()
    assert await swarm.listen() == []
    await swarm.close()


@looped
async def test_the_transports_error_is_raised_unchanged() -> None:
    swarm, tcp = make_swarm()
    tcp.broken.add(addr(1))
    with pytest.raises(OSError, match="address in use") as caught:
        await swarm.add_listen_addr(addr(1))
    assert type(caught.value) is OSError
    await swarm.close()


def test_listening_uses_the_transport_of_the_last_component_or_the_last_proxy() -> None:
    ws, relay, other = (
        FakeTransport("ws"),
        FakeTransport("p2p-circuit", is_proxy=True),
        FakeTransport("onion3"),
    )
    swarm, tcp = make_swarm(ws, relay, other)
    assert swarm.transport_for_listening(addr(1)) is tcp
    assert swarm.transport_for_listening(Multiaddr("/ip4/1.2.3.4/tcp/1/ws")) is ws
    assert swarm.transport_for_listening(Multiaddr(f"/ip4/1.2.3.4/tcp/1/p2p/{US}/p2p-circuit")) is relay
    assert swarm.transport_for_listening(Multiaddr(f"/ip4/1.2.3.4/tcp/1/p2p/{US}/p2p-circuit/tcp/2")) is relay
    assert swarm.transport_for_listening(Multiaddr("/ip4/1.2.3.4/udp/1")) is None
    assert swarm.transport_for_listening(addr(1).with_p2p(US)) is None


def test_dialling_prefers_proxies_for_their_addresses_and_then_the_order_of_registration() -> None:
    second, relay = FakeTransport("onion3", "ws"), FakeTransport("p2p-circuit", is_proxy=True)
    second.can_dial = lambda target: True  # type: ignore[method-assign]
    swarm, tcp = make_swarm(second, relay)
    assert swarm.transport_for_dialing(addr(1)) is tcp
    assert swarm.transport_for_dialing(addr(1).with_p2p(peer(1))) is tcp
    assert swarm.transport_for_dialing(Multiaddr("/ip4/1.2.3.4/tcp/1/ws")) is second
    relayed = Multiaddr(f"/ip4/1.2.3.4/tcp/1/p2p/{peer(2)}/p2p-circuit/p2p/{peer(1)}")
    assert swarm.transport_for_dialing(relayed) is relay


@looped
async def test_a_transport_needs_protocols_of_its_own() -> None:
    swarm, _ = make_swarm()
    empty = FakeTransport()
    empty.protocols = ()
    with pytest.raises(ValueError, match="no protocol"):
        swarm.add_transport(empty)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tcp"):
        swarm.add_transport(FakeTransport("ws", "tcp"))  # type: ignore[arg-type]
    await swarm.close()
    with pytest.raises(SwarmClosed):
        swarm.add_transport(FakeTransport("ws"))  # type: ignore[arg-type]


@looped
async def test_notifiees_hear_of_a_listener_before_anything_is_accepted_and_of_its_end() -> None:
    log: list[Any] = []
    swarm, tcp = make_swarm()
    recorder = Recorder(log)
    swarm.notify(recorder)
    recorder.on["listen"] = lambda network, bound: tcp.listeners[0].queue.put_nowait(FakeConn(peer(1)))
    await swarm.add_listen_addr(addr(1))
    assert log == [("listen", addr(1))]
    await eventually(lambda: len(log) == 2)
    assert log[1][0] == "connected"
    await swarm.listen_close(addr(1), addr(9))
    assert log[2:] == [("listen_close", addr(1))]
    assert swarm.listen_addresses() == []
    assert tcp.listeners[0].is_closed
    assert swarm.num_conns == 1, "connections outlive their listener"
    await swarm.close()
    assert [event for event, _ in log] == ["listen", "connected", "listen_close", "disconnected"]


@looped
async def test_an_accepted_connection_is_registered_at_once() -> None:
    swarm, tcp = make_swarm()
    await swarm.add_listen_addr(addr(1))
    conn = FakeConn(peer(1))
    tcp.listeners[0].queue.put_nowait(conn)
    await eventually(lambda: swarm.num_conns)
    (held,) = swarm.conns()
    assert (held.session, held.direction, conn.owner) == (conn, Direction.INBOUND, held)
    assert swarm.conns_to_peer(peer(1)) == [held]
    await swarm.close()


def test_a_listener_that_ends_by_itself_is_told_and_removed(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        log: list[Any] = []
        swarm, tcp = make_swarm()
        swarm.notify(Recorder(log))
        await swarm.add_listen_addr(addr(1))
        tcp.listeners[0].queue.put_nowait(OSError("gone"))
        await eventually(lambda: log[-1] == ("listen_close", addr(1)))
        assert swarm.listen_addresses() == []
        assert tcp.listeners[0].is_closed
        await swarm.close()
        assert log.count(("listen_close", addr(1))) == 1

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "ended by itself" in caplog.text


@looped
async def test_a_swarm_closed_while_it_binds_closes_the_new_listener() -> None:
    swarm, tcp = make_swarm()
    gate = asyncio.Event()
    bind = tcp.listen

    async def slow(target: Multiaddr) -> Any:
        await gate.wait()
        return await bind(target)

    tcp.listen = slow  # type: ignore[method-assign]
    listening = asyncio.create_task(swarm.add_listen_addr(addr(1)))
    await asyncio.sleep(0)
    await swarm.close()
    gate.set()
    with pytest.raises(SwarmClosed):
        await listening
    assert tcp.listeners[0].is_closed


@looped
async def test_a_closed_swarm_does_not_listen() -> None:
    swarm, _ = make_swarm()
    await swarm.close()
    with pytest.raises(SwarmClosed):
        await swarm.listen(addr(1))
    with pytest.raises(SwarmClosed):
        await swarm.add_listen_addr(addr(1))


@looped
async def test_wildcards_become_the_addresses_of_the_interfaces() -> None:
    swarm = Swarm(US, [FakeTransport("tcp")])  # type: ignore[list-item]
    await swarm.listen("/ip4/0.0.0.0/tcp/7", "/ip6/::/tcp/8", "/ip4/127.0.0.1/tcp/9")
    texts = interface_addresses()
    fours = [f"/ip4/{text}/tcp/7" for text in texts if ":" not in text]
    sixes = [f"/ip6/{text}/tcp/8" for text in texts if ":" in text]
    expected = [*fours, *sixes, "/ip4/127.0.0.1/tcp/9"]
    assert [str(each) for each in swarm.interface_listen_addresses()] == expected
    assert "/ip4/127.0.0.1/tcp/7" in fours
    await swarm.listen_close("/ip4/0.0.0.0/tcp/7")
    left = [*sixes, "/ip4/127.0.0.1/tcp/9"]
    assert [str(each) for each in swarm.interface_listen_addresses()] == left, "no stale cache"
    await swarm.close()

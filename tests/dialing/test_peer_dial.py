"""Dialling: one dial for all who ask, at most eight addresses at once, the first success wins."""

from __future__ import annotations

import asyncio

import pytest

from harness import eventually, looped
from p2pcore import limits
from p2pcore.errors import AddressError, DialError, NoTransport, PeerIsSelf, SwarmClosed
from swarm_fakes import US, FakeConn, addr, make_swarm, peer

THEM = peer(1)


@looped
async def test_an_existing_connection_is_returned() -> None:
    swarm, tcp = make_swarm()
    conn = swarm.add_conn(FakeConn(THEM))
    assert await swarm.dial_peer(THEM, [addr(1)]) is conn
    assert tcp.dialled == []
    await swarm.close()


@looped
async def test_concurrent_callers_share_one_dial_and_its_result() -> None:
    swarm, tcp = make_swarm()
    gate = tcp.gate(addr(1))
    callers = [asyncio.create_task(swarm.dial_peer(THEM, [addr(1)])) for _ in range(5)]
    await eventually(lambda: tcp.dialled)
    gate.set()
    results = await asyncio.gather(*callers)
    assert len(set(map(id, results))) == 1
    assert tcp.dialled == [addr(1)]
    await swarm.close()


@looped
async def test_a_late_caller_brings_its_addresses_to_the_dial() -> None:
    swarm, tcp = make_swarm()
    tcp.gate(addr(1))
    first = asyncio.create_task(swarm.dial_peer(THEM, [addr(1)]))
    await eventually(lambda: tcp.dialled)
    second = await swarm.dial_peer(THEM, [addr(1), addr(2)])
    assert await first is second
    assert tcp.dialled == [addr(1), addr(2)], "each address is dialled once"
    assert tcp.cancelled == [addr(1)]
    await swarm.close()


@looped
async def test_at_most_eight_addresses_are_dialled_at_once() -> None:
    swarm, tcp = make_swarm()
    addrs = [addr(port) for port in range(1, 21)]
    for each in addrs:
        tcp.gate(each)
        tcp.errors[each] = OSError("refused")
    caller = asyncio.create_task(swarm.dial_peer(THEM, addrs))
    await eventually(lambda: tcp.running == limits.MAX_DIALS_PER_PEER)
    for each in addrs:
        tcp.gates[each].set()
    with pytest.raises(DialError) as caught:
        await caller
    assert tcp.most_running == limits.MAX_DIALS_PER_PEER
    assert [cause[0] for cause in caught.value.causes] == addrs
    await swarm.close()


@looped
async def test_the_first_success_wins_and_the_others_are_cancelled() -> None:
    swarm, tcp = make_swarm()
    tcp.gate(addr(1))
    tcp.errors[addr(2)] = OSError("refused")
    conn = await swarm.dial_peer(THEM, [addr(1), addr(2), addr(3)])
    assert conn.session is tcp.conns[0]
    await eventually(lambda: tcp.cancelled == [addr(1)])
    assert swarm.num_conns == 1
    await swarm.close()


@looped
async def test_a_failed_dial_lists_each_address_with_its_cause() -> None:
    swarm, tcp = make_swarm()
    tcp.errors[addr(1)] = OSError("refused")
    tcp.errors[addr(2)] = TimeoutError()
    bad = ["/ip4/1.2.3.4/udp/1/quic-v1", "/ip4/0.0.0.0/tcp/1", addr(3).with_p2p(peer(2))]
    with pytest.raises(DialError) as caught:
        await swarm.dial_peer(THEM, [addr(1), addr(2).with_p2p(THEM), *bad])
    kinds = {str(where): type(error) for where, error in caught.value.causes}
    assert kinds == {
        str(addr(1)): OSError,
        str(addr(2)): TimeoutError,
        bad[0]: NoTransport,
        bad[1]: AddressError,
        str(bad[2]): AddressError,
    }
    assert "no connection after 5 s" in str(caught.value), "a timeout says how long it waited"
    await swarm.close()


@pytest.mark.parametrize("addrs", [[], ["/ip4/0.0.0.0/tcp/1"]], ids=["none", "none usable"])
@looped
async def test_without_a_usable_address_there_is_no_dial(addrs: list[str]) -> None:
    swarm, tcp = make_swarm()
    with pytest.raises(DialError, match="address"):
        await swarm.dial_peer(THEM, addrs)
    assert tcp.dialled == []
    await swarm.close()


@looped
async def test_dialling_oneself_is_refused() -> None:
    swarm, tcp = make_swarm()
    await swarm.listen(addr(5))
    for attempt in (swarm.dial_peer(US, [addr(1)]), swarm.dial_addr(addr(1).with_p2p(US))):
        with pytest.raises(DialError, match="this host itself") as caught:
            await attempt
        assert isinstance(caught.value.cause, PeerIsSelf)
    with pytest.raises(DialError, match="itself listens"):
        await swarm.dial_peer(THEM, [addr(5)])
    with pytest.raises(DialError, match="this host itself") as caught:
        await swarm.dial_addr(addr(5))
    assert isinstance(caught.value.cause, PeerIsSelf), "the same without an id"
    assert tcp.dialled == []
    await swarm.close()


@looped
async def test_one_address_has_5_seconds_here_and_15_on_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DIAL_TIMEOUT_LOCAL_S", 0.01)
    monkeypatch.setattr(limits, "DIAL_TIMEOUT_S", 0.02)

    swarm, tcp = make_swarm()
    addrs = [addr(1), addr(1, "192.168.0.1"), addr(1, "8.8.8.8")]
    for each in addrs:
        tcp.gate(each)
    with pytest.raises(DialError) as caught:
        await swarm.dial_peer(THEM, addrs)
    texts = [str(error) for _, error in caught.value.causes]
    assert ["0.01" in texts[0], "0.01" in texts[1], "0.02" in texts[2]] == [True] * 3
    await swarm.close()


@looped
async def test_a_whole_dial_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DIAL_PEER_TIMEOUT_S", 0.01)

    swarm, tcp = make_swarm()
    tcp.gate(addr(1))
    with pytest.raises(DialError, match=r"no connection after 0\.01 s"):
        await swarm.dial_peer(THEM, [addr(1)])
    await eventually(lambda: tcp.cancelled)
    await swarm.close()


@looped
async def test_a_cancelled_caller_leaves_the_dial_to_the_others() -> None:
    swarm, tcp = make_swarm()
    gate = tcp.gate(addr(1))
    leaver, stayer = (asyncio.create_task(swarm.dial_peer(THEM, [addr(1)])) for _ in range(2))
    await eventually(lambda: tcp.dialled)
    leaver.cancel()
    await asyncio.wait([leaver])
    assert leaver.cancelled()
    gate.set()
    assert (await stayer).remote_peer == THEM
    assert tcp.cancelled == []
    await swarm.close()


@looped
async def test_the_last_caller_to_leave_ends_the_dial_and_a_new_one_starts_afresh() -> None:
    swarm, tcp = make_swarm()
    gate = tcp.gate(addr(1))
    callers = [asyncio.create_task(swarm.dial_peer(THEM, [addr(1)])) for _ in range(3)]
    await eventually(lambda: tcp.dialled)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    gate.set()
    await swarm.dial_peer(THEM, [addr(1)])
    assert tcp.cancelled == [addr(1)]
    assert tcp.dialled == [addr(1), addr(1)]
    await swarm.close()


@looped
async def test_a_connection_that_came_meanwhile_is_as_good_as_a_dial() -> None:
    swarm, tcp = make_swarm()
    gate = tcp.gate(addr(1))
    tcp.errors[addr(1)] = OSError("refused")
    caller = asyncio.create_task(swarm.dial_peer(THEM, [addr(1)]))
    await eventually(lambda: tcp.dialled)
    inbound = swarm.add_conn(FakeConn(THEM))
    gate.set()
    assert await caller is inbound
    await swarm.close()


@looped
async def test_closing_the_swarm_ends_its_dials() -> None:
    swarm, tcp = make_swarm()
    tcp.gate(addr(1))
    caller = asyncio.create_task(swarm.dial_peer(THEM, [addr(1)]))
    await eventually(lambda: tcp.dialled)
    await swarm.close()
    with pytest.raises(SwarmClosed):
        await caller
    assert tcp.cancelled == [addr(1)]
    with pytest.raises(SwarmClosed):
        await swarm.dial_peer(THEM, [addr(1)])
    with pytest.raises(SwarmClosed):
        await swarm.dial_addr(addr(1))


@looped
async def test_a_dial_of_one_address_ends_with_the_swarm_and_is_cancelled_by_nobody_else() -> None:
    swarm, tcp = make_swarm()
    tcp.gate(addr(1))
    cancelled = asyncio.create_task(swarm.dial_addr(addr(1)))
    await eventually(lambda: tcp.dialled)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    caller = asyncio.create_task(swarm.dial_addr(addr(1)))
    await eventually(lambda: len(tcp.dialled) == 2)
    await swarm.close()
    with pytest.raises(SwarmClosed):
        await caller
    assert tcp.cancelled == [addr(1), addr(1)]
    assert not caller.cancelling()


@looped
async def test_dial_addr_makes_a_new_connection_every_time() -> None:
    swarm, tcp = make_swarm()
    first = await swarm.dial_addr(addr(1).with_p2p(THEM))
    second = await swarm.dial_addr(addr(1))
    assert first is not second
    assert swarm.conns_to_peer(THEM) == [first, second]
    tcp.errors[addr(1)] = OSError("refused")
    with pytest.raises(DialError, match="refused") as caught:
        await swarm.dial_addr(addr(1))
    assert isinstance(caught.value.__cause__, OSError)
    await swarm.close()


@looped
async def test_an_address_is_dialled_at_most_once_and_a_hundred_in_all() -> None:
    swarm, tcp = make_swarm()
    addrs = [addr(port) for port in range(1, 301)]
    for each in addrs:
        tcp.errors[each] = OSError("refused")
    with pytest.raises(DialError):
        await swarm.dial_peer(THEM, [*addrs[:50], *addrs])
    assert len(tcp.dialled) == len(set(tcp.dialled)) <= limits.MAX_DIAL_ADDRS
    await swarm.close()

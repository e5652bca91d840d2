"""A relay of several workers: reservations on any, circuits to any, common limits, workers that die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import ANY

import pytest

import worker_hosts
from harness import eventually, looped
from hosts import BARE
from p2pcore import Conn, DialError, Host, Multiaddr, P2PError, PrivateKey, RelayOptions, Supervisor
from p2pcore.relay.ledger import Ledger
from p2pcore.relay.messages import Hop, HopType, Status
from relays import UNLIMITED, ask_hop
from worker_hosts import COUNTS, WHO

RESERVE = Hop(HopType.RESERVE)


class Relay:
    """A relay of several workers, and hosts that are connected to the worker that a test wants."""

    def __init__(self, supervisor: Supervisor, stack: AsyncExitStack) -> None:
        self.supervisor = supervisor
        self._stack = stack

    @property
    def addr(self) -> Multiaddr:
        return self.supervisor.addrs_with_peer[0]

    @property
    def ledger(self) -> Ledger:
        ledger = self.supervisor._relay.ledger
        assert ledger is not None
        return ledger

    async def host(self, pid: int | None = None, **more: Any) -> tuple[Host, int]:
        """A host with one connection to the relay: to worker `pid`, if given; and that worker's pid."""
        host = await self._stack.enter_async_context(Host(**BARE | {"listen": []} | more))
        for _ in range(200):
            conn = await host.swarm.dial_addr(self.addr)
            stream = await conn.new_stream(WHO)
            found = int(await stream.read())
            await stream.close()
            if pid in (None, found):
                return host, found
            await conn.close()
        raise AssertionError(f"no connection to worker {pid}")

    async def target(self, pid: int | None = None, **more: Any) -> tuple[Host, Multiaddr, int]:
        """A host that has reserved a place, its address through the relay, and the worker that has it."""
        host, found = await self.host(pid, echo=True, listen=["/p2p-circuit"], **more)
        await host.relay.reserve(self.addr.encapsulate("/p2p-circuit"))
        return host, self.addr.encapsulate(f"/p2p-circuit/p2p/{host.peer_id}"), found

    def others(self, pid: int) -> list[int]:
        return [each for each in self.supervisor.pids if each != pid]

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def relaying(workers: int = 2, options: RelayOptions = UNLIMITED) -> AsyncIterator[Relay]:
    async with (
        Supervisor(worker_hosts.relaying, (options,), workers=workers) as supervisor,
        AsyncExitStack() as stack,
    ):
        yield Relay(supervisor, stack)


@looped
async def test_a_circuit_runs_from_any_worker_to_any_other() -> None:
    async with relaying(4) as relay:
        pids = relay.supervisor.pids
        targets = [await relay.target(pid) for pid in pids]
        dialers = [await relay.host(pid) for pid in pids]
        data = os.urandom(300_000)
        for dialer, _ in dialers:
            for _, addr, _ in targets:
                conn = await dialer.connect(addr)
                assert await dialer.echo(conn, data) == data
                assert not conn.is_direct
        await eventually(lambda: relay.ledger.num_circuits == 16)
        assert relay.ledger.num_reservations == 4
        for dialer, _ in dialers:
            for target, _, _ in targets:
                await dialer.close_peer(target.peer_id)
        await eventually(lambda: relay.ledger.num_circuits == 0)
        for target, _, _ in targets:
            await target.close()
        await eventually(lambda: relay.ledger.num_reservations == 0)
        assert not relay.ledger._ends


@looped
async def test_the_limits_of_reservations_hold_for_all_workers_together() -> None:
    async with relaying(2, replace(UNLIMITED, max_reservations_per_ip=3)) as relay:
        one, two = relay.supervisor.pids
        held = [await relay.target(pid) for pid in (one, two, one)]
        for pid in (one, two):
            refused, _ = await relay.host(pid)
            assert (
                await ask_hop(refused, relay.supervisor.peer_id, RESERVE)
            ).status is Status.RESERVATION_REFUSED
        await held[0][0].close()
        await eventually(lambda: relay.ledger.num_reservations == 2)
        await relay.target(two)


@looped
async def test_a_peer_that_reserves_on_two_workers_has_one_reservation_until_both_connections_end() -> None:
    async with relaying(2) as relay:
        one, two = relay.supervisor.pids
        target, addr, _ = await relay.target(one)
        first = target.swarm.conns_to_peer(relay.supervisor.peer_id)[0]
        second, found = first, one
        while found != two:
            second = await target.swarm.dial_addr(relay.addr)
            found = int(await (await second.new_stream(WHO)).read())
        assert (await ask_hop(target, second, RESERVE)).status is Status.OK
        assert relay.ledger.num_reservations == 1
        dialer, _ = await relay.host()
        assert await dialer.echo(await dialer.connect(addr), b"on the newer") == b"on the newer"
        await dialer.close_peer(target.peer_id)
        await second.close()
        await eventually(lambda: list(relay.ledger._slots[target.peer_id].holders) != [])
        assert await dialer.echo(await _dialled(dialer, addr), b"on the older") == b"on the older"
        await dialer.close_peer(target.peer_id)
        for conn in target.swarm.conns_to_peer(relay.supervisor.peer_id):
            await conn.close()
        await eventually(lambda: relay.ledger.num_reservations == 0)


async def _dialled(dialer: Host, addr: Multiaddr) -> Conn:
    """A circuit, once the relay knows which connection to the target is left."""
    while True:
        try:
            return await dialer.swarm.dial_addr(addr)
        except DialError:
            await asyncio.sleep(0.01)


@looped
async def test_the_limits_of_circuits_hold_for_all_workers_together() -> None:
    async with relaying(2, replace(UNLIMITED, max_circuits_per_peer=2, max_circuits_per_ip=3)) as relay:
        one, two = relay.supervisor.pids
        _, addr, _ = await relay.target(one)
        _, other, _ = await relay.target(two)
        dialers = [(await relay.host(pid))[0] for pid in (one, two, one, two)]
        conns = [await each.connect(addr) for each in dialers[:2]]
        with pytest.raises(DialError, match="RESOURCE_LIMIT_EXCEEDED"):
            await dialers[2].connect(addr)  # the target has two
        await dialers[2].connect(other)
        with pytest.raises(DialError, match="RESOURCE_LIMIT_EXCEEDED"):
            await dialers[3].connect(other)  # the address has three
        await conns[0].close()
        await eventually(lambda: relay.ledger.num_circuits == 2)
        await dialers[3].swarm.dial_addr(other)


@looped
async def test_bytes_and_time_of_a_circuit_are_counted_once_and_end_it_at_both_workers() -> None:
    options = RelayOptions(circuit_bytes=20_000, circuit_s=60)
    async with relaying(2, options) as relay:
        one, two = relay.supervisor.pids
        target, addr, _ = await relay.target(one)
        dialer, _ = await relay.host(two)
        conn = await dialer.connect(addr)
        assert conn.is_limited
        assert len(await dialer.echo(conn, bytes(10_000), True)) == 10_000
        with pytest.raises(P2PError):
            await dialer.echo(conn, bytes(10_000), True)
        await eventually(lambda: conn.is_closed)
        await eventually(lambda: not target.swarm.conns_to_peer(dialer.peer_id))
        await eventually(lambda: relay.ledger.num_circuits == 0)
    async with relaying(2, replace(UNLIMITED, circuit_s=1)) as relay:
        one, two = relay.supervisor.pids
        target, addr, _ = await relay.target(one)
        dialer, _ = await relay.host(two)
        conn = await dialer.connect(addr)
        await eventually(lambda: conn.is_closed)
        await eventually(lambda: not target.swarm.conns_to_peer(dialer.peer_id))


@looped
async def test_a_flood_of_requests_does_not_reach_the_supervisor() -> None:
    options = replace(UNLIMITED, circuits_per_min_per_peer=5, reservations_per_min_per_peer=5)
    async with relaying(2, options) as relay:
        one, two = relay.supervisor.pids
        attacker, _ = await relay.host(one)
        heard: list[str] = []
        for op in ("relay-open", "relay-closed", "relay-reserve", "relay-release"):
            _count_calls(relay.supervisor, op, heard)
        node = relay.supervisor.peer_id
        nobody = Hop(HopType.CONNECT, peer=PrivateKey.generate().peer_id())
        told = [(await ask_hop(attacker, node, nobody)).status for _ in range(20)]
        assert told == [Status.NO_RESERVATION] * 5 + [Status.RESOURCE_LIMIT_EXCEEDED] * 15
        told = [(await ask_hop(attacker, node, RESERVE)).status for _ in range(20)]
        assert told == [Status.OK] * 5 + [Status.RESERVATION_REFUSED] * 15
        assert len(heard) <= 20
        _, addr, _ = await relay.target(two)  # the honest ones
        dialer, _ = await relay.host(one)
        assert await dialer.echo(await dialer.connect(addr), b"x") == b"x"


def _count_calls(supervisor: Supervisor, op: str, heard: list[str]) -> None:
    service = supervisor.hub._services[op]

    def counted(member: Any, header: Any) -> Any:
        heard.append(op)
        return service(member, header)

    supervisor.hub.add_service(op, counted)


@looped
async def test_a_worker_that_is_killed_takes_its_reservations_and_its_circuits_with_it() -> None:
    async with relaying(2) as relay:
        one, two = relay.supervisor.pids
        target, addr, _ = await relay.target(one)
        dialer, _ = await relay.host(two)
        conn = await dialer.connect(addr)
        writing = asyncio.ensure_future(_write_for_ever(conn))
        relay.kill(one)  # it holds the reservation
        await eventually(lambda: conn.is_closed)
        with pytest.raises(P2PError):
            await writing
        await eventually(lambda: relay.ledger.num_circuits == relay.ledger.num_reservations == 0)
        with pytest.raises(DialError, match="NO_RESERVATION"):
            await dialer.swarm.dial_addr(addr)
        assert not relay.ledger._ends
        await eventually(lambda: not target.swarm.conns_to_peer(dialer.peer_id))


@looped
async def test_a_worker_that_is_killed_ends_the_circuits_that_it_opened_and_no_others() -> None:
    async with relaying(3) as relay:
        one, two, three = relay.supervisor.pids
        target, addr, _ = await relay.target(one)
        dialer, _ = await relay.host(two)
        other, _ = await relay.host(three)
        conn, kept = await dialer.connect(addr), await other.connect(addr)
        writing = asyncio.ensure_future(_write_for_ever(conn))
        relay.kill(two)  # the dialler was connected to it
        with pytest.raises(P2PError):
            await writing
        await eventually(lambda: not target.swarm.conns_to_peer(dialer.peer_id))
        await eventually(lambda: relay.ledger.num_circuits == 1)
        assert await other.echo(kept, b"still here") == b"still here"
        assert relay.ledger.num_reservations == 1


async def _write_for_ever(conn: Conn) -> None:
    stream = await conn.new_stream("/echo/1.0.0")
    while True:
        await stream.write(bytes(10_000))
        await stream.read_exactly(10_000)


@looped
async def test_a_worker_that_is_stopped_holds_up_no_circuits_but_those_through_it() -> None:
    async with relaying(2) as relay:
        one, two = relay.supervisor.pids
        target, addr, _ = await relay.target(one)
        _, near, _ = await relay.target(two)
        dialer, _ = await relay.host(two)
        await (await dialer.connect(addr)).close()
        os.kill(one, signal.SIGSTOP)
        try:
            dialling = asyncio.ensure_future(dialer.swarm.dial_addr(addr))
            conn = await dialer.connect(near)  # through the other worker alone
            assert await dialer.echo(conn, b"x") == b"x"
            assert not dialling.done()
        finally:
            os.kill(one, signal.SIGCONT)
        await dialling
        await eventually(lambda: len(target.swarm.conns_to_peer(dialer.peer_id)) == 1)


@looped
async def test_a_worker_that_is_replaced_drains_and_its_peers_reserve_elsewhere() -> None:
    async with relaying(2) as relay:
        circuit = relay.addr.encapsulate("/p2p-circuit")
        async with Host(**BARE | {"listen": [circuit], "echo": True}) as target:
            dialer, _ = await relay.host()
            addr = target.addrs_with_peer[0]
            assert await dialer.echo(await dialer.connect(addr), b"x") == b"x"
            await dialer.close_peer(target.peer_id)
            await relay.supervisor.restart(timeout_s=0.2)
            async with Host(**BARE | {"listen": []}) as newcomer:
                assert await newcomer.echo(await _dialled(newcomer, addr), b"y") == b"y"
            assert relay.ledger.num_reservations == 1


@looped
async def test_many_circuits_come_and_go_and_leave_nothing() -> None:
    async with relaying(2) as relay:
        one, two = relay.supervisor.pids
        _, addr, _ = await relay.target(one)
        dialer, _ = await relay.host(two)

        async def come_and_go(number: int) -> None:
            conn = await dialer.swarm.dial_addr(addr)
            if number % 2:
                assert await dialer.echo(conn, b"x") == b"x"
                await conn.close()
            else:
                conn.abort()

        for _ in range(6):
            await asyncio.gather(*map(come_and_go, range(8)))
        await eventually(lambda: relay.ledger.num_circuits == 0)
        for pid in (one, two):
            _, _ = await relay.host(pid)
        asker = dialer.swarm.conns_to_peer(relay.supervisor.peer_id)[0]
        await eventually(lambda: not relay.ledger._ends)
        assert await _counts(asker) == {"reservations": 0, "circuits": 0, "bytes": ANY, "stops": 0, "ends": 0}
        holder, _ = await relay.host(one)
        conn = holder.swarm.conns_to_peer(relay.supervisor.peer_id)[0]
        assert await _counts(conn) == {"reservations": 1, "circuits": 0, "bytes": 0, "stops": 0, "ends": 0}


async def _counts(conn: Conn) -> dict[str, int]:
    stream = await conn.new_stream(COUNTS)
    counts: dict[str, int] = json.loads(await stream.read())
    await stream.close()
    return counts

"""Limits of a running node: reserved places, rates, changes, warnings and the report."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import fields, replace
from typing import Any

import pytest

from harness import ended_by, eventually, looped, settle
from p2pcore import BasicGater, DialError, Direction, Host, LimitExceeded, Limits, Multiaddr, Reserved, codes
from p2pcore.resources.options import UNLIMITED
from p2pcore.resources.report import table
from p2pcore.swarm.admission import Admission
from p2pcore.swarm.events import Refused
from swarm_fakes import FakeConn, addr, make_swarm, peer

FRIENDS = "198.51.100.0/24"
FRIEND_AT = "/ip4/198.51.100.7/tcp/{}"
STRANGER_AT = "/ip4/1.2.3.4/tcp/{}"


class Raw:
    """As much of a raw connection as admission looks at."""

    def __init__(self, remote: str) -> None:
        self.local_multiaddr = addr(1)
        self.remote_multiaddr = Multiaddr(remote)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def admission(clock: Clock | None = None, **fields: Any) -> Admission:
    return Admission(limits=replace(UNLIMITED, **fields), clock=clock or Clock())


def taken(raw: Raw, by: Admission) -> bool:
    return by.admits(raw)  # type: ignore[arg-type]


# -- reserved places ---------------------------------------------------------------------------


@looped
async def test_a_reserved_network_gets_in_although_the_node_is_full() -> None:  # RM-T09
    friend = peer(7)
    by = admission(max_conns=2, reserved=[Reserved(1, FRIENDS, friend)])
    swarm, _ = make_swarm(admission=by)
    held = [swarm.add_conn(FakeConn(peer(n), at=STRANGER_AT.format(n))) for n in (1, 2)]
    assert not taken(Raw(STRANGER_AT.format(3)), by)
    assert taken(Raw(FRIEND_AT.format(1)), by)
    impostor = FakeConn(peer(3), at=FRIEND_AT.format(1))
    with pytest.raises(LimitExceeded, match="2 of 2 connections"):
        swarm.add_conn(impostor)
    assert impostor.abort_code == codes.CONN_RESOURCE_LIMIT_EXCEEDED
    conn = swarm.add_conn(FakeConn(friend, at=FRIEND_AT.format(1)))
    assert not taken(Raw(FRIEND_AT.format(2)), by)  # the only place is used
    assert by.is_full
    await conn.close()
    assert taken(Raw(FRIEND_AT.format(2)), by)
    await held[0].close()
    assert taken(Raw(STRANGER_AT.format(3)), by)
    await swarm.close()
    assert not by._placed


@looped
async def test_a_connection_in_a_reserved_place_takes_none_of_the_others() -> None:
    by = admission(max_conns=2, reserved=[Reserved(1, FRIENDS)])
    swarm, _ = make_swarm(admission=by)
    first = swarm.add_conn(FakeConn(peer(1), at=STRANGER_AT.format(1)))
    swarm.add_conn(FakeConn(peer(2), at=STRANGER_AT.format(2)))
    swarm.add_conn(FakeConn(peer(3), at=FRIEND_AT.format(1)))
    await first.close()
    swarm.add_conn(FakeConn(peer(4), at=STRANGER_AT.format(3)))
    with pytest.raises(LimitExceeded):
        swarm.add_conn(FakeConn(peer(5), at=STRANGER_AT.format(4)))
    assert swarm.num_conns == 3
    await swarm.close()


@looped
async def test_a_reserved_peer_is_found_by_its_handshake_wherever_it_comes_from() -> None:
    friend = peer(7)
    by = admission(max_conns=2, reserved=[Reserved(1, peer=str(friend))])
    swarm, _ = make_swarm(admission=by)
    swarm.add_conn(FakeConn(peer(9), at=STRANGER_AT.format(9)))
    swarm.add_conn(FakeConn(peer(1), at=STRANGER_AT.format(1)))
    assert taken(Raw(STRANGER_AT.format(2)), by)  # it may be the friend
    with pytest.raises(LimitExceeded):
        swarm.add_conn(FakeConn(peer(2), at=STRANGER_AT.format(2)))
    by.check_peer_dial(friend)  # and we may dial it
    with pytest.raises(LimitExceeded):
        by.check_peer_dial(peer(3))
    swarm.add_conn(FakeConn(friend, at=STRANGER_AT.format(3)))
    assert not taken(Raw(STRANGER_AT.format(2)), by)
    await swarm.close()


@looped
async def test_a_reserved_network_is_not_held_to_the_limits_of_its_subnet() -> None:
    by = admission(
        max_conns_per_subnet=1,
        conn_rate_per_subnet=0.001,
        conn_burst_per_subnet=1,
        reserved=[Reserved(2, "198.51.100.7")],
    )
    swarm, _ = make_swarm(admission=by)
    for number in range(1, 4):
        assert taken(Raw(FRIEND_AT.format(number)), by)
        swarm.add_conn(FakeConn(peer(number), at=FRIEND_AT.format(number)))
    assert not taken(Raw(FRIEND_AT.format(4)), by)
    await swarm.close()
    assert by._blocks.counts == {}


# -- where it is refused -----------------------------------------------------------------------


@looped
async def test_a_new_connection_above_the_rate_is_refused_before_its_handshake() -> None:
    clock = Clock()
    by = admission(clock, conn_rate_per_subnet=1, conn_burst_per_subnet=3)
    assert [taken(Raw(STRANGER_AT.format(n)), by) for n in range(1, 6)] == [True] * 3 + [False] * 2
    refused = Raw(STRANGER_AT.format(9))
    assert not taken(refused, by)
    assert taken(Raw("/ip4/1.2.3.5/tcp/1"), by)
    clock.now += 1.0
    assert taken(Raw(STRANGER_AT.format(6)), by)
    assert by.refusals.counts == {"conn_rate_per_subnet": 3}


@looped
async def test_outbound_connections_are_not_held_to_the_rate() -> None:
    by = admission(conn_rate_per_subnet=0.001, conn_burst_per_subnet=1, max_conns_per_subnet=1)
    swarm, _ = make_swarm(admission=by)
    for number in range(1, 10):
        swarm.add_conn(FakeConn(peer(number), Direction.OUTBOUND, at=STRANGER_AT.format(number)))
    assert taken(Raw(STRANGER_AT.format(1)), by)
    await swarm.close()


@looped
async def test_a_refused_socket_is_reset_not_closed() -> None:
    strict = Limits(max_conns_per_subnet=1, exempt=())
    async with Host(limits=strict) as server, Host(listen=()) as client:
        await client.connect(server.addrs_with_peer[0])
        await eventually(lambda: server.swarm.num_conns)
        with socket.create_connection(("127.0.0.1", int(server.addrs[0]["tcp"]))) as sock:
            sock.setblocking(False)
            seen: list[object] = []

            def is_reset() -> bool:
                try:
                    seen.append(sock.recv(1))
                except BlockingIOError:
                    return False
                except OSError as error:
                    seen.append(error)
                return True

            await eventually(is_reset)
            assert isinstance(seen[0], ConnectionResetError), seen


@looped
async def test_the_rate_holds_for_a_real_host() -> None:
    strict = Limits(conn_rate_per_subnet=0.001, conn_burst_per_subnet=1, exempt=())
    async with Host(limits=strict) as server, Host(listen=()) as client:
        conn = await client.connect(server.addrs_with_peer[0])
        await conn.close()
        with server.events(Refused) as events:
            with pytest.raises(DialError):
                await client.swarm.dial_addr(server.addrs_with_peer[0])
            event: Any = await anext(events)
        assert str(event.error) == (
            "1 of 1 new connections at once from 127.0.0.1 (Limits.conn_rate_per_subnet)"
        )
        assert event.addr["ip4"] == "127.0.0.1"


@looped
async def test_an_ipv6_site_over_its_limit_is_named() -> None:
    by = admission(max_conns_per_subnet=2, max_conns_per_site=2)
    swarm, _ = make_swarm(admission=by)
    swarm.add_conn(FakeConn(peer(9), at="/ip6/2a00:1:2:300::1/tcp/1"))
    swarm.add_conn(FakeConn(peer(1), at="/ip6/2a00:1:2:100::1/tcp/1"))
    with pytest.raises(LimitExceeded) as caught:
        swarm.add_conn(FakeConn(peer(2), at="/ip6/2a00:1:2:200::1/tcp/1"))
    assert str(caught.value) == "2 of 2 connections from 2a00:1:2::/48 (Limits.max_conns_per_site)"
    await swarm.close()


@looped
async def test_a_network_over_its_own_limit_is_named() -> None:
    by = admission(subnets={FRIENDS: 1})
    swarm, _ = make_swarm(admission=by)
    swarm.add_conn(FakeConn(peer(1), at=FRIEND_AT.format(1)))
    with pytest.raises(LimitExceeded) as caught:
        swarm.add_conn(FakeConn(peer(2), at="/ip4/198.51.100.8/tcp/1"))
    assert str(caught.value) == f"1 of 1 connections from {FRIENDS} (Limits.subnets)"
    await swarm.close()


# -- changes -----------------------------------------------------------------------------------


@looped
async def test_lower_limits_close_nothing_and_refuse_what_is_new() -> None:  # RM-T14
    swarm, _ = make_swarm(admission=admission())
    for number in range(1, 5):
        swarm.add_conn(FakeConn(peer(number), at=STRANGER_AT.format(number)))
    swarm.set_limits(replace(UNLIMITED, max_conns=2, max_conns_per_subnet=3))
    assert swarm.num_conns == 4
    assert [(use.used, use.maximum) for use in swarm.limits_report()][:3] == [(4, 2), (1, None), (4, 3)]
    with pytest.raises(LimitExceeded, match="4 of 2 connections"):
        swarm.add_conn(FakeConn(peer(5), at=STRANGER_AT.format(5)))
    swarm.set_limits(UNLIMITED)
    swarm.add_conn(FakeConn(peer(5), at=STRANGER_AT.format(5)))
    await swarm.close()
    assert swarm.admission._blocks.counts == {}


@looped
async def test_what_is_exempt_may_change_while_connections_are_open() -> None:
    by = admission(max_conns_per_subnet=1, exempt=())
    swarm, _ = make_swarm(admission=by)
    conn = swarm.add_conn(FakeConn(peer(1), at=STRANGER_AT.format(1)))
    swarm.set_limits(replace(swarm.limits, exempt=("1.0.0.0/8",)))
    swarm.add_conn(FakeConn(peer(2), at=STRANGER_AT.format(2)))
    swarm.set_limits(replace(swarm.limits, exempt=()))
    assert list(by._blocks.counts.values()) == [2]
    await conn.close()
    assert list(by._blocks.counts.values()) == [1]
    await swarm.close()
    assert by._blocks.counts == {}


@looped
async def test_a_running_host_takes_new_limits_and_reads_the_machine_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Host(limits=Limits(max_conns=1)) as server, Host(listen=()) as one, Host(listen=()) as two:
        await one.connect(server.addrs_with_peer[0])
        await eventually(lambda: server.swarm.num_conns)
        waiting = asyncio.create_task(two.connect(server.addrs_with_peer[0]))
        server.set_limits(Limits(max_conns=2))
        await waiting
        monkeypatch.setattr("p2pcore.resources.machine._descriptors", lambda: 164)
        server.set_limits(Limits())
        assert server.limits.max_conns == 100
        with pytest.raises(TypeError, match="limits must be a Limits, not a dict"):
            server.set_limits({})  # type: ignore[arg-type]


# -- what is told ------------------------------------------------------------------------------


def test_one_warning_a_limit_and_ten_seconds_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    by = admission(clock, conn_rate_per_subnet=0.001, conn_burst_per_subnet=1)

    def refuse(times: int) -> None:
        for _ in range(times):
            taken(Raw(STRANGER_AT.format(1)), by)

    text = "1 of 1 new connections at once from 1.2.3.4 (Limits.conn_rate_per_subnet)"
    with caplog.at_level(logging.WARNING, "p2pcore.limits"):
        refuse(500)
        clock.now += 9
        refuse(1)
        assert caplog.messages == [f"refused: {text}"]
        clock.now += 1
        refuse(1)
        assert caplog.messages[1:] == [f"refused: {text} (500 times since the last warning)"]
        clock.now += 10
        refuse(1)
        assert caplog.messages[2:] == [f"refused: {text}"]
    assert by.refusals.counts == {"conn_rate_per_subnet": 502}


def test_a_refusal_under_attack_makes_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    by = admission(max_conns_per_subnet=1, conn_rate_per_subnet=0.001, conn_burst_per_subnet=1)
    raw = Raw(STRANGER_AT.format(1))
    assert taken(raw, by)
    assert not taken(raw, by)
    monkeypatch.setattr("p2pcore.swarm.admission.exceeded", None)  # not called: it was warned of just now
    for _ in range(100):
        assert not taken(raw, by)
    assert by.refusals.counts == {"conn_rate_per_subnet": 101}


@looped
async def test_the_report_has_used_peak_maximum_and_refused() -> None:
    swarm, _ = make_swarm(admission=admission(max_conns=2, max_conns_per_peer=1, max_conns_per_subnet=2))
    held = [swarm.add_conn(FakeConn(peer(n), at=STRANGER_AT.format(n))) for n in (1, 2)]
    with pytest.raises(LimitExceeded):
        swarm.add_conn(FakeConn(peer(3), at=STRANGER_AT.format(3)))
    await held[0].close()
    rows = [line.split() for line in table(swarm.limits_report())]
    assert rows[:4] == [
        ["limit", "used", "peak", "maximum", "refused"],
        ["max_conns", "1", "2", "2", "1"],
        ["max_conns_per_peer", "1", "-", "1", "0"],
        ["max_conns_per_subnet", "1", "2", "2", "0"],
    ]
    await swarm.close()


def test_memory_is_shown_in_mib() -> None:
    from p2pcore import LimitUse

    assert table([LimitUse("memory", 3 << 19, 1 << 20, None, 0)])[1].split() == (
        ["memory", "1.5", "MiB", "1.0", "MiB", "-", "0"]
    )


@looped
async def test_every_limit_has_a_line_in_the_report() -> None:
    """But those that only say to whom or how others apply."""
    others = {"conn_burst_per_subnet", "reserved_descriptors", "exempt"}
    async with Host() as host:
        lines = {use.limit for use in host.limits_report()}
    assert lines == {field.name for field in fields(Limits)} - others


@looped
async def test_a_node_of_many_workers_is_one_peer() -> None:
    """The busiest honest peer: 256 workers with one identity, each with a connection, and the defaults."""
    by = Admission(limits=Limits(max_conns=10_000).resolved())
    swarm, _ = make_swarm(admission=by)
    for number in range(1, 257):
        at = STRANGER_AT.format(number)
        assert taken(Raw(at), by)
        swarm.add_conn(FakeConn(peer(1), at=at))
    await swarm.close()
    assert by.refusals.counts == {}


# -- nothing is lost ---------------------------------------------------------------------------


class Says(BasicGater):
    """Refuses every inbound connection at one point."""

    def __init__(self, point: str) -> None:
        super().__init__()
        setattr(self, f"intercept_{point}", lambda *_: False)


def refused_by(point: str) -> dict[str, Any]:
    return {"gater": Says(point)}


@pytest.mark.parametrize(
    "options",
    [
        *map(refused_by, ("accept", "secured", "upgraded")),
        {"security": ("tls",)},
        {"muxers": ("mplex",)},
    ],
    ids=["accept", "secured", "upgraded", "security", "muxer"],
)
@looped
async def test_a_failed_upgrade_leaves_the_counts_as_they_were(options: dict[str, Any]) -> None:  # RM-T17
    async with Host(limits=Limits(exempt=()), **options) as server, Host(listen=(), identify=False) as client:
        with contextlib.suppress(DialError):
            conn = await client.swarm.dial_addr(server.addrs_with_peer[0])
            await ended_by(conn.session)
        await eventually(lambda: not server.swarm.num_conns)
        assert server.swarm.admission._blocks.counts == {}
        assert server.swarm.ledger.num_conns == 0
        assert server.swarm.ledger.num_peers == 0


@looped
async def test_a_dialler_that_gives_up_leaves_the_counts_as_they_were() -> None:
    async with Host(limits=Limits(exempt=())) as server, Host(listen=()) as client:
        for turns in range(12):
            dialling = asyncio.create_task(client.swarm.dial_addr(server.addrs_with_peer[0]))
            await settle(turns)
            dialling.cancel()
            with contextlib.suppress(asyncio.CancelledError, DialError):
                await (await dialling).close()
        await eventually(lambda: not server.swarm.num_conns)
        assert server.swarm.admission._blocks.counts == {}
        assert server.swarm.ledger.num_conns == 0

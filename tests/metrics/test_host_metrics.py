"""What `Host.metrics` counts: connections, streams, dials, refusals, errors of handlers.

Comes in: real hosts on the loopback. Goes out: the samples of one host, by name and labels.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from harness import eventually, looped
from hosts import BARE, pair
from p2pcore import (
    AccessLogOptions,
    DialError,
    Host,
    Limits,
    Multiaddr,
    ProtocolNotSupported,
    RemoteProtocolError,
    Stream,
    StreamReset,
)
from p2pcore.limits import MAX_METRIC_LISTENERS, MAX_METRIC_PROTOCOLS
from p2pcore.metrics.family import Buckets, Value
from p2pcore.metrics.names import OTHER, SPECS
from p2pcore.metrics.recorder import Recorder
from p2pcore.metrics.text import size_of

PROTOCOL = "/test/1"


def values(host: Host, name: str, **labels: str) -> list[Value]:
    """The samples of `name` that have these labels."""
    family = next(each for each in host.metrics.families() if each.name == name)
    return [
        sample
        for key, sample in family.samples.items()
        if labels.items() <= dict(zip(family.labels, key, strict=True)).items()
    ]


def value(host: Host, name: str, **labels: str) -> Any:
    """The one sample of `name` with these labels; 0: there is none."""
    found = values(host, name, **labels)
    assert len(found) <= 1, found
    return found[0] if found else 0


def num(host: Host, name: str, **labels: str) -> int:
    """How many values the histogram `name` has seen."""
    return sum(sum(each.counts) for each in values(host, name, **labels) if isinstance(each, Buckets))


@looped
async def test_connections_count_when_they_open_and_when_they_end() -> None:
    async with Host(**BARE) as server, Host(listen=(), **BARE) as dialer:
        target = server.addrs_with_peer[0].without_p2p()
        conns = [await dialer.swarm.dial_addr(target) for _ in range(10)]
        await eventually(lambda: server.swarm.num_conns == 10)
        for conn in conns[:4]:
            await conn.close()
        await eventually(lambda: server.swarm.num_conns == 6)
        for host, way in ((server, "inbound"), (dialer, "outbound")):
            labels = {"dir": way, "transport": "tcp", "security": "/noise", "muxer": "/yamux/1.0.0"}
            labels |= {"early_muxer": "true", "ip_version": "ip4"}
            assert value(host, "libp2p_swarm_connections_opened_total", **labels) == 10
            assert value(host, "libp2p_swarm_connections_closed_total", **labels) == 4
            assert num(host, "libp2p_swarm_connection_duration_seconds", **labels) == 4
            assert value(host, "p2pcore_connections", dir=way) == 6
            assert value(host, "libp2p_rcmgr_connections", dir=way, scope="system") == 6
            assert value(host, "libp2p_swarm_key_types_total", dir=way, key_type="Ed25519") == 10
        assert value(server, "p2pcore_accept_total") == 10
        assert num(dialer, "libp2p_swarm_handshake_latency_seconds", transport="tcp") == 10
        assert value(dialer, "libp2p_swarm_dials_per_peer_total", outcome="success", num_dials="1") == 10


@looped
async def test_bytes_of_connections_are_those_of_both_ends() -> None:
    async with pair({"echo": True}, {"echo": True}) as both:
        await both.dialer.echo(both.conn, bytes(100_000))
        for one, other in ((both.dialer, both.server), (both.server, both.dialer)):
            sent = value(one, "p2pcore_connection_bytes_total", dir="out")
            assert sent > 100_000
            await eventually(
                lambda other=other, sent=sent: (
                    value(other, "p2pcore_connection_bytes_total", dir="in") >= sent
                )
            )


async def answer(stream: Stream) -> None:
    """Reads all, then sends twice as much."""
    size = 0
    while data := await stream.read():
        size += len(data)
    await stream.write(bytes(2 * size))


@looped
async def test_streams_and_their_bytes_count_by_protocol() -> None:
    async with pair() as both:
        both.server.set_stream_handler(PROTOCOL, answer)
        for size in (10, 1000):
            stream = await both.conn.new_stream(PROTOCOL)
            await stream.write(bytes(size))
            assert value(both.dialer, "p2pcore_streams", dir="outbound", protocol=PROTOCOL) == 1
            await stream.close_write()
            await stream.read_exactly(2 * size)
            assert await stream.read() == b""
            await stream.close()
        await eventually(lambda: value(both.server, "p2pcore_streams", dir="inbound", protocol=PROTOCOL) == 0)
        for host, way, sent, received in (
            (both.server, "inbound", 2020, 1010),
            (both.dialer, "outbound", 1010, 2020),
        ):
            assert value(host, "p2pcore_streams_opened_total", dir=way, protocol=PROTOCOL) == 2
            assert value(host, "p2pcore_stream_bytes_total", dir="in", protocol=PROTOCOL) == received
            assert value(host, "p2pcore_stream_bytes_total", dir="out", protocol=PROTOCOL) == sent
            assert value(host, "p2pcore_streams", dir=way, protocol=PROTOCOL) == 0
            assert value(host, "libp2p_rcmgr_streams", dir=way, scope="protocol", protocol=PROTOCOL) == 0


@looped
async def test_what_came_with_the_proposal_counts_too() -> None:
    """The first bytes of a stream are here before its protocol is agreed."""
    got = asyncio.Event()

    async def take(stream: Stream) -> None:
        assert await stream.read_exactly(5) == b"hello"
        got.set()

    async with pair() as both:
        both.server.set_stream_handler(PROTOCOL, take)
        stream = await both.conn.new_stream(PROTOCOL)
        await stream.write(b"hello")
        await got.wait()
        assert value(both.server, "p2pcore_stream_bytes_total", dir="in", protocol=PROTOCOL) == 5


@pytest.mark.parametrize("how", ["reset here", "reset there", "lost", "closed"])
@looped
async def test_a_stream_that_ends_in_whatever_way_is_open_no_more(how: str) -> None:
    async def wait(stream: Stream) -> None:
        with contextlib.suppress(StreamReset):
            await stream.read()
        if how == "reset there":
            stream.reset()

    async with pair() as both:
        both.server.set_stream_handler(PROTOCOL, wait)
        stream = await both.conn.new_stream(PROTOCOL)
        await stream.write(b"x" if how == "reset there" else b"")
        opened = {"dir": "inbound", "protocol": PROTOCOL}
        await eventually(lambda: value(both.server, "p2pcore_streams_opened_total", **opened) == 1)
        if how != "reset there":
            assert value(both.server, "p2pcore_streams", **opened) == 1
        if how == "reset here":
            stream.reset()
        elif how == "lost":
            both.conn.abort()
        elif how == "closed":
            await stream.close()
        for host in (both.server, both.dialer):
            await eventually(lambda host=host: sum(values(host, "p2pcore_streams")) == 0)


@looped
async def test_a_handler_that_raises_counts_with_its_protocol() -> None:
    errors: list[Exception] = [
        ValueError("a bug"),
        RemoteProtocolError("the peer broke it"),
        KeyError("a bug"),
    ]

    async def fail(stream: Stream) -> None:
        raise errors.pop()

    async with pair() as both:
        both.server.set_stream_handler(PROTOCOL, fail)
        for left in (2, 1, 0):
            stream = await both.conn.new_stream(PROTOCOL)
            await stream.write(b"x")
            await eventually(lambda left=left: len(errors) == left)
            with pytest.raises(StreamReset):
                await stream.read()
        assert value(both.server, "p2pcore_handler_errors_total", protocol=PROTOCOL) == 2


@looped
async def test_peers_and_unknown_protocols_make_no_series() -> None:
    async with Host(**BARE) as server:
        server.set_stream_handler(PROTOCOL, answer)
        sizes = []
        for number in range(4):
            async with Host(listen=(), **BARE) as dialer:
                conn = await dialer.connect(server.addrs_with_peer[0])
                for each in range(20):
                    with pytest.raises(ProtocolNotSupported):
                        await (await conn.new_stream(f"/unknown/{number}/{each}")).read()
                await (await conn.new_stream(PROTOCOL)).close()
            await eventually(lambda: not server.swarm.num_conns)
            sizes.append(size_of(server.metrics.own_families()))
        assert sizes[1:] == sizes[:1] * 3


def test_ten_thousand_labels_make_no_more_series_than_the_bound() -> None:
    """The same without ten thousand connections: the recorder is asked directly."""

    recorder = Recorder()
    for number in range(10_000):
        recorder.inbound.row(f"/in/{number}").errors += 1
        recorder.outbound.row(f"/out/{number}")
        recorder.listener_is(Multiaddr(f"/ip4/127.0.0.1/tcp/{number}"), True)
        recorder.peer_dialled(True, number, 1.0)
    for rows in (recorder.inbound.by_name(), recorder.outbound.by_name()):
        assert len(rows) == MAX_METRIC_PROTOCOLS + 1
        assert OTHER in rows
    assert recorder.inbound.row("/new").errors == 10_000 - MAX_METRIC_PROTOCOLS
    assert len(recorder.listeners) == MAX_METRIC_LISTENERS + 1
    assert len(recorder.peer_dials) == 7


@looped
async def test_two_hosts_of_one_process_count_apart() -> None:
    async with pair() as both, Host(**BARE) as third:
        assert sum(values(both.server, "libp2p_swarm_connections_opened_total")) == 1
        assert values(third, "libp2p_swarm_connections_opened_total") == []


@looped
async def test_failed_dials_count_by_their_error(tmp_path: Path) -> None:
    async with Host(listen=(), **BARE) as dialer:
        with pytest.raises(DialError):
            await dialer.connect("/ip4/127.0.0.1/tcp/1")
        with pytest.raises(DialError):
            await dialer.connect(f"/unix/{tmp_path}/nobody".replace("//", "/"))
        failed = {"error": "connection refused", "transport": "tcp", "ip_version": "ip4"}
        assert value(dialer, "libp2p_swarm_dial_errors_total", **failed) == 1
        assert value(dialer, "libp2p_swarm_dial_errors_total", transport="unix", ip_version="unknown") == 1
        assert value(dialer, "libp2p_swarm_dials_per_peer_total", outcome="failed", num_dials="1") == 2
        assert num(dialer, "libp2p_swarm_dial_latency_seconds", outcome="failed") == 2


@looped
async def test_a_dial_of_several_addresses_counts_once() -> None:
    async with Host(**BARE) as server, Host(listen=(), **BARE) as dialer:
        peer = server.peer_id
        await dialer.connect(f"/ip4/127.0.0.1/tcp/1/p2p/{peer}", server.addrs[0])
        assert sum(values(dialer, "libp2p_swarm_dials_per_peer_total", outcome="success")) == 1
        (success,) = values(dialer, "libp2p_swarm_dial_latency_seconds", outcome="success")
        assert isinstance(success, Buckets)
        assert num(dialer, "libp2p_swarm_dial_ranking_delay_seconds") == 1


@looped
async def test_failed_handshakes_count_on_both_sides() -> None:
    async with (
        Host(security=("noise",), **BARE) as server,
        Host(listen=(), security=("tls",), **BARE) as dialer,
    ):
        with pytest.raises(DialError):
            await dialer.connect(server.addrs_with_peer[0])
        failures = "p2pcore_handshake_failures_total"
        await eventually(lambda: values(server, failures, dir="inbound"))
        stage = "security negotiation"
        assert value(server, failures, dir="inbound", stage=stage) == 1
        assert value(dialer, failures, dir="outbound", stage=stage) == 1


@looped
async def test_a_limit_that_refuses_counts_by_its_name() -> None:
    limits = Limits(max_conns=1, max_conns_per_peer=1)
    async with Host(limits=limits, **BARE) as server, Host(listen=(), **BARE) as dialer:
        target = server.addrs_with_peer[0].without_p2p()
        await dialer.swarm.dial_addr(target)
        await eventually(lambda: server.swarm.num_conns)
        server.set_limits(Limits(max_conns=9, max_conns_per_peer=1))
        with contextlib.suppress(DialError):
            await dialer.swarm.dial_addr(target)
        refused = {"reason": "max_conns_per_peer", "stage": "connection"}
        await eventually(lambda: value(server, "p2pcore_refused_total", **refused) == 1)
        assert value(server, "p2pcore_refused_total", reason="gater", stage="connection") == 0
        assert value(server, "p2pcore_limit_maximum", limit="max_conns") == 9
        assert value(server, "p2pcore_limit_used", limit="max_conns") == 1


@looped
async def test_what_the_gater_refuses_counts_apart() -> None:
    from p2pcore import BasicGater

    gater = BasicGater()
    async with Host(gater=gater, **BARE) as server, Host(listen=(), **BARE) as dialer:
        gater.block_peer(dialer.peer_id)
        with contextlib.suppress(DialError):
            conn = await dialer.connect(server.addrs_with_peer[0])
            await eventually(lambda: conn.is_closed)
        await eventually(
            lambda: value(server, "p2pcore_refused_total", reason="gater", stage="connection") == 1
        )


@looped
async def test_identify_and_ping_are_counted() -> None:
    async with pair({"identify": True, "ping": True}, {"identify": True}) as both:
        await both.dialer.identify(both.conn)
        await both.dialer.ping(both.conn, 3)
        assert num(both.dialer, "p2pcore_ping_rtt_seconds") == 3
        assert value(both.dialer, "libp2p_identify_total", dir="inbound") == 1
        await eventually(lambda: value(both.server, "libp2p_identify_total", dir="outbound") == 1)


@looped
async def test_every_family_has_a_name_of_the_table_and_its_labels() -> None:
    async with pair() as both:
        families = both.server.metrics.families()
        names = [each.name for each in families]
        assert len(set(names)) == len(names)
        for each in families:
            assert each.labels == SPECS[each.name].labels
            assert all(len(key) == len(each.labels) for key in each.samples)
        of_others = {name for name in SPECS if "relay" in name or "worker" in name or "fleet" in name}
        assert set(SPECS) - set(names) - of_others == set()


@looped
async def test_without_metrics_nothing_is_counted_on_the_way() -> None:
    async with pair({"metrics": False, "echo": True}) as both:
        assert await both.dialer.echo(both.conn, b"x") == b"x"
        assert not both.server.metrics.is_counting
        names = {each.name for each in both.server.metrics.families()}
        assert "p2pcore_memory_used_bytes" in names
        assert "p2pcore_streams" not in names
        assert "process_open_fds" in both.server.metrics.text()


@looped
async def test_the_lag_of_the_loop_is_measured_from_the_first_scrape_to_the_end() -> None:
    async with Host(**BARE) as host:
        lag = host.metrics.lag
        assert lag._timer is None, "a host that nobody watches has no timer"
        host.metrics.text()
        await eventually(lambda: sum(lag.seconds.read()[0]) > 0)
    assert lag._timer is not None
    assert lag._timer.cancelled()


@pytest.mark.parametrize("wrong", [1, "yes", None])
def test_a_wrong_option_says_what_is_expected(wrong: Any) -> None:
    with pytest.raises(TypeError, match="metrics"):
        Host(metrics=wrong)
    with pytest.raises(TypeError, match="access_log"):
        Host(access_log=wrong)
    with pytest.raises((TypeError, ValueError), match="every"):
        AccessLogOptions(every=0)

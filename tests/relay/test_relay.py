"""Connections through a relay, end to end; and dialling through relays that cheat.

Each relay is a host of this process, and then one of four workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import relays
from harness import eventually, looped
from hosts import BARE
from p2pcore import (
    AddressError,
    ConnectionClosed,
    DialError,
    Host,
    IdentifyOptions,
    IncompleteRead,
    LimitedConnection,
    LimitExceeded,
    Multiaddr,
    PeerIdMismatch,
    PrivateKey,
    RelayOptions,
    RelayRefused,
    Stream,
    StreamReset,
    limits,
)
from p2pcore._fast.codec import varint
from p2pcore._fast.mux.splice import Splice
from p2pcore.errors import DeadlineExceeded, RemoteProtocolError
from p2pcore.interfaces import ConnState
from p2pcore.relay.messages import (
    STOP,
    Hop,
    HopType,
    Status,
    Stop,
    StopType,
    read_body,
)
from relays import (
    UNLIMITED,
    behind,
    cause_of,
    fake_relay,
    grant,
    relay_host,
    relayed,
    tasks_unchanged,
)

BEYOND_BUFFERS = 4 * limits.YAMUX_INITIAL_WINDOW_BYTES
NOBODY = PrivateKey.from_seed(bytes([7]) * 32).peer_id()
ECHO = {"echo": True}
IDENTIFY = {"identify": IdentifyOptions(push_delay_s=0.0)}


@pytest.fixture(scope="module", params=["one process", "four workers"], autouse=True)
def relays_that_tests_get(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each circuit here runs through a relay that is a host, and through one that is four processes."""
    relays.workers = relays.FourWorkers() if request.param == "four workers" else None
    try:
        yield
    finally:
        if relays.workers is not None:
            relays.workers.close()
            relays.workers = None


def words(n: int) -> bytes:
    return bytes(i % 251 for i in range(n))


# -- connections through a relay -------------------------------------------------------------------


@looped
async def test_a_node_behind_a_relay_is_reached_and_the_connection_says_how() -> None:
    """W45: the state of a relayed connection shows its security and its muxer."""

    async with tasks_unchanged(), relayed(UNLIMITED, {"ping": True}) as r:
        assert r.addr == behind(r.relay).with_p2p(r.target.peer_id)
        conn = await r.dialer.connect(r.addr)
        await eventually(lambda: r.target.swarm.conns_to_peer(r.dialer.peer_id))
        there = r.target.swarm.conns_to_peer(r.dialer.peer_id)[0]
        for end in (conn, there):
            assert end.state == ConnState("/noise", "/yamux/1.0.0", "p2p-circuit", True)
            assert end.remote_multiaddr is not None
            assert end.remote_multiaddr.ends_with(f"/p2p/{r.relay.peer_id}/p2p-circuit")
            assert not end.is_limited
        assert conn.remote_multiaddr == behind(r.relay)
        assert conn.remote_peer == r.target.peer_id
        assert there.remote_peer == r.dialer.peer_id
        assert len(await r.dialer.ping(conn, 2)) == 2


@looped
async def test_more_than_all_buffers_comes_back_as_it_was_sent() -> None:
    async with relayed(UNLIMITED, ECHO) as r:
        data = words(BEYOND_BUFFERS)
        assert await r.dialer.echo(r.addr, data) == data
        assert r.service.num_circuits == 1


@looped
async def test_neither_end_nor_the_relay_has_a_task_or_a_handler_for_an_idle_relayed_connection() -> None:
    async with relayed() as r:
        await r.dialer.connect(r.relay.addrs_with_peer[0])
        await eventually(lambda: r.relay.swarm.num_conns == 2)
        before = asyncio.all_tasks()
        await r.dialer.connect(r.addr)
        await eventually(lambda: not r.relay.swarm.num_handlers_running)
        await eventually(lambda: not r.target.swarm.num_handlers_running)
        await eventually(lambda: asyncio.all_tasks() == before)


@looped
async def test_a_thousand_streams_at_once_on_one_relayed_connection() -> None:
    async with relayed(UNLIMITED, ECHO) as r:
        conn = await r.dialer.connect(r.addr)

        async def one(number: int) -> bool:
            text = number.to_bytes(4, "big") * 64
            return await r.dialer.echo(conn, text) == text

        assert all(await asyncio.gather(*map(one, range(1000))))
        assert r.service.num_circuits == 1


@looped
async def test_half_close_and_reset_reach_the_other_end_through_the_relay() -> None:
    ends: list[Any] = []

    async def serve(stream: Stream) -> None:
        data = await stream.read_exactly(3)
        assert await stream.read() == b"", "its end has come, and ours goes on"
        await stream.write(data + b" seen")
        ends.append(data)

    async def reset(stream: Stream) -> None:
        try:
            await stream.read()
        except StreamReset as error:
            ends.append(error.code)

    async with relayed() as r:
        r.target.set_stream_handler("/half", serve)
        r.target.set_stream_handler("/reset", reset)
        stream = await r.dialer.new_stream(r.addr, "/half")
        await stream.write(b"all")
        await stream.close_write()
        assert await stream.read_exactly(8) == b"all seen"
        assert await stream.read() == b""
        stream = await r.dialer.new_stream(r.addr, ["/reset", "/other"])
        stream.reset(77)
        await eventually(lambda: ends == [b"all", 77])


@looped
async def test_identify_runs_over_it_and_peers_are_told_the_relayed_address() -> None:
    async with relayed(RelayOptions(), IDENTIFY, IDENTIFY) as r:
        conn = await r.dialer.connect(r.addr)
        assert conn.is_limited
        info = await r.dialer.identify(conn)
        assert info.listen_addrs == info.record_addrs == (behind(r.relay),)
        assert STOP in info.protocols


@looped
async def test_an_orderly_close_ends_both_ends_and_the_circuit() -> None:
    async with relayed() as r:
        conn = await r.dialer.connect(r.addr)
        await eventually(lambda: r.target.swarm.conns_to_peer(r.dialer.peer_id))
        await conn.close()
        await eventually(lambda: not r.target.swarm.conns_to_peer(r.dialer.peer_id))
        await eventually(lambda: not r.service.num_circuits)
        assert r.dialer.swarm.conns_to_peer(r.relay.peer_id), "the way to the relay stays"


@looped
async def test_two_nodes_behind_one_relay_reach_each_other() -> None:
    async with relayed(UNLIMITED, ECHO) as r, Host(**BARE | {"listen": [behind(r.relay)]}) as other:
        assert await other.echo(r.addr, b"neighbour") == b"neighbour"


@looped
async def test_a_relay_that_is_connected_needs_no_address() -> None:
    async with relayed(UNLIMITED, ECHO) as r:
        short = f"/p2p/{r.relay.peer_id}/p2p-circuit/p2p/{r.target.peer_id}"
        async with Host(listen=[], **BARE) as stranger:
            with pytest.raises(DialError):
                await stranger.connect(short)
        await r.dialer.connect(r.relay.addrs_with_peer[0])
        assert await r.dialer.echo(short, b"x") == b"x"


# -- limited connections ---------------------------------------------------------------------------


@looped
async def test_a_stream_on_a_limited_connection_is_opened_on_request_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with relayed(RelayOptions(), ECHO | {"ping": True}) as r:
        conn = await r.dialer.connect(r.addr)
        monkeypatch.setattr(limits, "DIAL_PEER_TIMEOUT_S", 0.05)  # how long a direct one is waited for
        assert conn.is_limited
        await eventually(lambda: r.target.swarm.conns_to_peer(r.dialer.peer_id))
        assert r.target.swarm.conns_to_peer(r.dialer.peer_id)[0].is_limited
        for opening in (
            conn.new_stream("/echo/1.0.0"),
            r.dialer.new_stream(conn, "/echo/1.0.0"),
            r.dialer.swarm.new_stream(r.target.peer_id, "/echo/1.0.0"),
            r.dialer.echo(conn, b"x"),
        ):
            with pytest.raises(LimitedConnection):
                await opening
        assert await r.dialer.echo(conn, b"asked for", allow_limited=True) == b"asked for"
        assert await r.dialer.ping(conn), "ping is allowed, as in go-libp2p"


@looped
async def test_a_direct_connection_is_used_rather_than_a_limited_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay_host(RelayOptions()) as relay:
        listen = [behind(relay), "/ip4/127.0.0.1/tcp/0"]
        async with Host(**BARE | ECHO | {"listen": listen}) as target, Host(listen=[], **BARE) as dialer:
            limited = await dialer.swarm.dial_addr(behind(relay).with_p2p(target.peer_id))
            streams = [await limited.new_stream("/echo/1.0.0", True) for _ in range(3)]
            direct = next(addr for addr in target.addrs_with_peer if not addr.is_relayed)
            conn = await dialer.swarm.dial_addr(direct)
            stream = await dialer.swarm.new_stream(target.peer_id, "/echo/1.0.0")
            assert stream.conn is conn
            stream = await dialer.swarm.new_stream(target.peer_id, "/echo/1.0.0", allow_limited=True)
            assert stream.conn is conn, "however few streams it has"
            await conn.close()
            monkeypatch.setattr(limits, "DIAL_PEER_TIMEOUT_S", 0.05)  # how long another is waited for
            with pytest.raises(LimitedConnection):
                await dialer.swarm.new_stream(target.peer_id, "/echo/1.0.0")
            assert len(streams) == limited.num_streams


@looped
async def test_the_relays_limit_of_bytes_ends_the_connection() -> None:
    async with relayed(RelayOptions(circuit_bytes=20000), ECHO) as r:
        conn = await r.dialer.connect(r.addr)
        assert len(await r.dialer.echo(conn, bytes(10000), True)) == 10000
        with pytest.raises((ConnectionClosed, StreamReset)):
            await r.dialer.echo(conn, bytes(10000), True)
        await eventually(lambda: conn.is_closed)


# -- dialling: what goes wrong -----------------------------------------------------------------------


@looped
async def test_a_target_that_is_not_there_is_a_refusal_with_its_status() -> None:
    async with relayed() as r:
        with pytest.raises(DialError) as caught:
            await r.dialer.connect(behind(r.relay).with_p2p(NOBODY))
        refused = cause_of(caught.value)
        assert isinstance(refused, RelayRefused)
        assert refused.status == Status.NO_RESERVATION
        assert "NO_RESERVATION (204)" in str(refused)


@pytest.mark.parametrize(
    "text",
    [
        "{relay}/p2p-circuit",
        "{relay}/p2p-circuit/p2p/{nobody}/p2p-circuit/p2p/{target}",
        "/ip4/127.0.0.1/tcp/1/p2p-circuit/p2p/{target}",
        "{relay}/p2p-circuit/p2p/{relay_id}",
    ],
)
@looped
async def test_an_address_that_makes_no_circuit_is_refused_before_anything_is_dialled(text: str) -> None:
    async with relayed() as r:
        relay = r.relay.addrs_with_peer[0]
        addr = Multiaddr(
            text.format(relay=relay, nobody=NOBODY, target=r.target.peer_id, relay_id=r.relay.peer_id)
        )
        with pytest.raises(DialError) as caught:
            await r.dialer.connect(addr)
        assert isinstance(cause_of(caught.value), AddressError)
        assert not r.dialer.swarm.num_conns
        assert not r.dialer.relay.can_dial(addr) or addr.peer_id is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Hop(HopType.STATUS, status=Status.RESOURCE_LIMIT_EXCEEDED).encode(), RelayRefused),
        (Hop(HopType.STATUS, status=Status.UNUSED).encode(), RelayRefused),
        (bytes.fromhex("05080228cd01"), RelayRefused),
        (Hop(HopType.STATUS).encode(), RelayRefused),
        (Hop(HopType.CONNECT, peer=NOBODY).encode(), RemoteProtocolError),
        (b"\x02\xff\xff", RemoteProtocolError),
        (varint.encode(4097) + bytes(10), LimitExceeded),
        (b"noise before the status" + Hop(HopType.STATUS, status=Status.OK).encode(), IncompleteRead),
        (b"\x10cut", IncompleteRead),
        (b"", IncompleteRead),
    ],
    ids=[
        "refused",
        "unused",
        "unknown",
        "no status",
        "connect",
        "garbage",
        "too long",
        "bytes before",
        "cut off",
        "nothing",
    ],
)
@looped
async def test_a_relay_that_does_not_say_ok_is_an_error_and_its_stream_is_reset(
    answer: bytes, expected: Any
) -> None:
    async def say(stream: Stream, request: Hop) -> None:
        await stream.write(answer)

    async with fake_relay(say) as (relay, asked), Host(listen=[], **BARE) as dialer:
        addr = behind(relay).with_p2p(NOBODY)
        with pytest.raises(DialError) as caught:
            await dialer.connect(addr)
        assert isinstance(cause_of(caught.value), expected), repr(cause_of(caught.value))
        with pytest.raises(expected):
            await dialer.relay.reserve(behind(relay))
        assert [request.type for request in asked] == [HopType.CONNECT, HopType.RESERVE]
        await eventually(lambda: not dialer.swarm.conns_to_peer(relay.peer_id)[0].num_streams)


@looped
async def test_whoever_answers_must_be_the_target(caplog: pytest.LogCaptureFixture) -> None:
    """A relay that connects us with somebody else gains nothing."""

    async with relay_host() as true, Host(**BARE | {"listen": [behind(true)]}) as other:

        async def misdirect(stream: Stream, request: Hop) -> Stream:
            stop = await relay.new_stream(other.peer_id, STOP)
            return await cross(stream, stop, other)

        async def cross(stream: Stream, stop: Stream, whom: Host) -> Stream:

            await stop.write(Stop(StopType.CONNECT, peer=dialer.peer_id).encode())
            await read_body(stop)
            await stream.write(Hop(HopType.STATUS, status=Status.OK).encode())
            Splice(stream, stop, -1, 0, lambda error: None).start()  # type: ignore[arg-type]
            return stream

        async with fake_relay(grant) as (relay, _), Host(listen=[], **BARE) as dialer:
            await other.swarm.listen(behind(relay))
            relay.set_stream_handler(
                "/libp2p/circuit/relay/0.2.0/hop", lambda stream: _read_then(misdirect, stream)
            )
            with pytest.raises(DialError) as caught:
                await dialer.connect(behind(relay).with_p2p(NOBODY))
            assert isinstance(cause_of(caught.value), PeerIdMismatch)


async def _read_then(answer: Any, stream: Stream) -> Any:

    return await answer(stream, Hop.parse(await read_body(stream)))


@looped
async def test_a_relay_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_DIAL_TIMEOUT_S", 0.05)
    monkeypatch.setattr(limits, "RELAY_RESERVE_TIMEOUT_S", 0.05)

    async def mute(stream: Stream, request: Hop) -> None:
        await stream.read_exactly(1)

    async with fake_relay(mute) as (relay, _), Host(listen=[], **BARE) as dialer:
        with pytest.raises(DialError, match="deadline"):
            await dialer.connect(behind(relay).with_p2p(NOBODY))
        with pytest.raises(DeadlineExceeded):
            await dialer.relay.reserve(behind(relay))

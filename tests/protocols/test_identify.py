"""identify and push between hosts: what is learned, when, and how often."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from harness import eventually, looped, run, settle
from hosts import Pair, pair
from p2pcore import (
    Conn,
    DeadlineExceeded,
    Host,
    IdentifyInfo,
    IdentifyOptions,
    LimitExceeded,
    Multiaddr,
    PrivateKey,
    ProtocolNotSupported,
    RemoteProtocolError,
    Stream,
    StreamReset,
    codes,
    limits,
)
from p2pcore._fast.codec import varint
from p2pcore.pb.identify_pb2 import Identify
from p2pcore.protocols import identify
from p2pcore.protocols.identify_message import MessageReader, update
from p2pcore.values.scope import Scope, scope_of

BOTH = {"identify": IdentifyOptions(push_delay_s=0.0)}
PUSHED = Identify(protocols=[b"/pushed"])


def framed(message: Identify) -> bytes:
    data = message.SerializeToString()
    return varint.encode(len(data)) + data


def info_of(conn: Conn) -> IdentifyInfo:
    info = identify.info_of(conn)
    assert info is not None
    return info


@looped
async def test_each_side_learns_everything_about_the_other_by_itself() -> None:
    server, dialer = (IdentifyOptions(name, push_delay_s=0.0) for name in ("server/1", "dialer/2"))
    async with pair({"identify": server}, {"identify": dialer}) as p:
        await eventually(lambda: identify.info_of(p.conn) and identify.info_of(p.server_conn))
        told = info_of(p.conn)
        assert told.peer == p.server.peer_id
        assert (told.agent_version, told.protocol_version) == ("server/1", "ipfs/0.1.0")
        assert told.protocols == p.server.protocols
        assert list(told.listen_addrs) == p.server.addrs
        assert told.record_addrs == told.listen_addrs
        assert told.signed_record
        assert told.observed_addr is p.conn.local_multiaddr, "equal, and kept only once"
        assert info_of(p.server_conn).agent_version == "dialer/2"
        assert info_of(p.server_conn).observed_addr == p.conn.remote_multiaddr
        assert info_of(p.server_conn).signed_record is None, "a node that does not listen certifies nothing"
        assert await p.dialer.identify(p.conn) is told, "it is not asked twice"


@looped
async def test_nothing_waits_for_it_and_no_task_stays() -> None:
    async def mute(stream: Stream) -> None:
        await stream.read()

    async with pair({"echo": True}, BOTH) as p:
        p.server.set_stream_handler(identify.PROTOCOL, mute)
        conn = await p.dialer.swarm.dial_addr(p.server.addrs_with_peer[0])
        assert await p.dialer.echo(conn, b"at once") == b"at once"
        assert identify.info_of(conn) is None
    async with pair(BOTH, BOTH) as p:
        await eventually(lambda: identify.info_of(p.conn) and identify.info_of(p.server_conn))
        await eventually(lambda: not p.server.swarm.num_handlers_running)
        names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
        assert not [name for name in names if "identify" in name.lower() or "Stream" in name]


@looped
async def test_concurrent_callers_share_one_exchange() -> None:
    opened = 0
    async with pair(BOTH) as p:

        async def counted(stream: Stream) -> None:
            nonlocal opened
            opened += 1
            await p.server._identify.serve(stream)

        p.server.set_stream_handler(identify.PROTOCOL, counted)
        told = await asyncio.gather(*(p.dialer.identify(p.conn) for _ in range(5)))
        assert opened == 1
        assert len(set(map(id, told))) == 1


@looped
async def test_a_host_without_identify_can_still_ask_and_is_not_asked() -> None:
    async with pair({"identify": True}) as p:
        assert (await p.dialer.identify(p.conn)).protocols == p.server.protocols
    async with pair() as p:
        with pytest.raises(ProtocolNotSupported):
            await p.dialer.identify(p.conn)
        assert identify.info_of(p.conn) is None


async def served_by(p: Pair, data: bytes, end: bool = True) -> IdentifyInfo:
    """What the dialer learns from a server that answers identify with `data`."""

    async def handler(stream: Stream) -> None:
        await stream.write(data)
        if not end:
            await stream.read()

    p.server.set_stream_handler(identify.PROTOCOL, handler)
    return await p.dialer.identify(p.conn)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (varint.encode(8193) + bytes(8193), LimitExceeded),
        (framed(PUSHED) * 11, LimitExceeded),
        (b"\x02\x0a\xff", RemoteProtocolError),
        (b"\x05ab", RemoteProtocolError),
        (b"", RemoteProtocolError),
        (framed(Identify(publicKey=PrivateKey.generate().public_key.to_protobuf())), RemoteProtocolError),
    ],
    ids=["long message", "many messages", "malformed", "cut", "empty", "another key"],
)
@looped
async def test_a_bad_answer_leaves_the_peer_unidentified_and_connected(
    data: bytes, error: type[Exception]
) -> None:
    async with pair({"echo": True}) as p:
        with pytest.raises(error):
            await served_by(p, data)
        assert identify.info_of(p.conn) is None
        assert await p.dialer.echo(p.conn, b"alive") == b"alive"


@looped
async def test_a_peer_that_never_ends_is_given_up_and_what_came_is_discarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "IDENTIFY_TIMEOUT_S", 0.05)

    async with pair() as p:
        with pytest.raises(DeadlineExceeded):
            await served_by(p, framed(PUSHED), end=False)
        assert identify.info_of(p.conn) is None


@looped
async def test_identify_is_answered_ten_times_a_minute() -> None:
    async with pair({"identify": True}) as p:
        asked = limits.MAX_IDENTIFY_PER_MINUTE
        for number in range(asked + 1):
            stream = await p.conn.new_stream(identify.PROTOCOL)
            if number < asked:
                while await stream.read():
                    pass
            else:
                with pytest.raises(StreamReset) as caught:
                    await stream.read()
        assert caught.value.code == codes.STREAM_RESOURCE_LIMIT_EXCEEDED


def test_the_rate_limit_counts_each_connection_and_forgets_after_a_minute() -> None:
    now = 0.0
    limit = identify.RateLimit(1, lambda: now)
    for _ in range(limits.MAX_IDENTIFY_PER_MINUTE):
        limit.enter(1)
        with pytest.raises(LimitExceeded):
            limit.enter(1)
        limit.enter(2)
        limit.release(1)
        limit.release(2)
    with pytest.raises(LimitExceeded):
        limit.enter(1)
    limit.enter(3)
    now = 60.0
    limit.enter(1)
    with pytest.raises(LimitExceeded):
        limit.enter(3)


async def push(p: Pair, message: Identify) -> None:
    stream = await p.conn.new_stream(identify.PUSH_PROTOCOL)
    await stream.write(framed(message))
    await stream.close()


@looped
async def test_a_push_changes_what_it_names_and_is_taken_without_an_identify() -> None:
    async with pair({"identify": True}) as p:
        p.server.swarm.stop_notify(p.server._identify)
        conn = await p.dialer.swarm.dial_addr(p.server.addrs[0])
        await eventually(lambda: p.server.swarm.num_conns == 2)
        server_conn = p.server.swarm.conns()[-1]
        p = Pair(p.dialer, p.server, conn, server_conn)
        server_conn._info = None
        await push(p, PUSHED)
        await eventually(lambda: identify.info_of(server_conn))
        await push(p, Identify(agentVersion=b"new"))
        await eventually(lambda: info_of(server_conn).agent_version == "new")
        assert info_of(server_conn).protocols == ("/pushed",)
        await push(p, Identify(publicKey=b"\x08\x01", protocols=[b"/wrong"]))
        await push(p, Identify(protocolVersion=b"last"))
        await eventually(lambda: info_of(server_conn).protocol_version == "last")
        assert info_of(server_conn).protocols == ("/pushed",)


async def change(p: Pair, what: Callable[[], Any], known: Callable[[IdentifyInfo], bool]) -> None:
    result = what()
    if asyncio.iscoroutine(result):
        await result
    await eventually(lambda: known(info_of(p.conn)))


@looped
async def test_changes_are_pushed_to_peers() -> None:
    async def handler(stream: Stream) -> None: ...

    async with pair(BOTH, BOTH) as p:
        await eventually(lambda: identify.info_of(p.conn) and identify.info_of(p.server_conn))
        server = p.server
        await change(p, lambda: server.set_stream_handler("/x", handler), lambda i: "/x" in i.protocols)
        await change(p, lambda: server.remove_stream_handler("/x"), lambda i: "/x" not in i.protocols)
        seq = info_of(p.conn).record_seq
        await change(p, lambda: server.swarm.listen("/ip4/127.0.0.1/tcp/0"), lambda i: len(i.addrs) == 2)
        assert info_of(p.conn).record_seq > seq
        gone = server.addrs[0]
        await change(p, lambda: server.swarm.listen_close(gone), lambda i: gone not in i.addrs)


@looped
async def test_changes_are_gathered_into_one_push() -> None:
    async def handler(stream: Stream) -> None: ...

    pushes = 0
    async with pair({"identify": IdentifyOptions(push_delay_s=0.05)}, BOTH) as p:
        await eventually(lambda: identify.info_of(p.conn) and identify.info_of(p.server_conn))

        async def counted(stream: Stream) -> None:
            nonlocal pushes
            pushes += 1
            await p.dialer._identify.serve_push(stream)

        p.dialer.swarm.set_stream_handler(identify.PUSH_PROTOCOL, counted)
        for number in range(20):
            p.server.set_stream_handler(f"/x/{number}", handler)
        await eventually(lambda: "/x/19" in info_of(p.conn).protocols)
        assert pushes == 1


@looped
async def test_peers_that_do_not_take_pushes_get_none() -> None:
    async def handler(stream: Stream) -> None: ...

    async with pair(BOTH) as p:
        await p.dialer.identify(p.conn)
        p.server.set_stream_handler("/x", handler)
        await settle(100)
        assert "/x" not in info_of(p.conn).protocols
        assert not p.conn.num_streams


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("/ip4/127.0.0.1/tcp/1", Scope.LOOPBACK),
        ("/ip6/::1/tcp/1", Scope.LOOPBACK),
        ("/unix/%2Ftmp%2Fx", Scope.LOOPBACK),
        ("/ip4/192.168.1.1/tcp/1", Scope.PRIVATE),
        ("/ip4/10.1.1.1/tcp/1", Scope.PRIVATE),
        ("/ip6/fd00::1/tcp/1", Scope.PRIVATE),
        ("/ip4/8.8.8.8/tcp/1", Scope.PUBLIC),
        ("/ip6/2001:4860:4860::8888/tcp/1", Scope.PUBLIC),
        ("/dns4/example.com/tcp/1", Scope.PUBLIC),
    ],
)
def test_scopes(text: str, scope: Scope) -> None:
    assert scope_of(Multiaddr(text)) is scope


def test_a_socket_without_a_name_is_local() -> None:
    assert scope_of(None) is Scope.LOOPBACK


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("127.0.0.1", "127.0.0.1 192.168.0.7 8.8.8.8"),
        ("10.0.0.1", "192.168.0.7 8.8.8.8"),
        ("9.9.9.9", "8.8.8.8"),
    ],
)
@looped
async def test_a_peer_is_told_only_addresses_that_reach_it(remote: str, expected: str) -> None:
    from swarm_fakes import FakeConn, make_swarm, peer

    swarm, _ = make_swarm()
    key = PrivateKey.from_seed(bytes(32))
    service = identify.IdentifyService(swarm, key)
    await swarm.listen(*(f"/ip4/{ip}/tcp/1" for ip in ("127.0.0.1", "192.168.0.7", "8.8.8.8")))
    fake = FakeConn(peer(1))
    fake.remote_multiaddr = Multiaddr(f"/ip4/{remote}/tcp/9")
    reader = MessageReader()
    reader.feed(service._message_for(swarm.add_conn(fake)))
    told = update(IdentifyInfo(key.peer_id()), reader.result())
    assert told is not None
    assert [str(addr) for addr in told.listen_addrs] == [f"/ip4/{ip}/tcp/1" for ip in expected.split()]
    assert told.record_addrs == told.listen_addrs
    assert told.observed_addr == fake.remote_multiaddr
    await swarm.close()


@pytest.mark.parametrize("remote", ["/unix/tmp/socket", "/memory/7"])
@looped
async def test_a_peer_on_this_machine_is_told_no_address_of_its_own(remote: str) -> None:
    from swarm_fakes import FakeConn, make_swarm, peer

    swarm, _ = make_swarm()
    service = identify.IdentifyService(swarm, PrivateKey.from_seed(bytes(32)))
    fake = FakeConn(peer(1))
    fake.remote_multiaddr = Multiaddr(remote)
    reader = MessageReader()
    reader.feed(service._message_for(swarm.add_conn(fake)))
    assert not reader.result().HasField("observedAddr")
    await swarm.close()


@looped
async def test_closing_ends_an_exchange_under_way() -> None:
    async def mute(stream: Stream) -> None:
        await stream.read()

    rarely = IdentifyOptions(push_delay_s=100.0)
    async with Host(identify=False) as server, Host(listen=(), identify=rarely) as dialer:
        server.set_stream_handler(identify.PROTOCOL, mute)
        conn = await dialer.connect(server.addrs_with_peer[0])
        asking = asyncio.create_task(dialer.identify(conn))
        await eventually(lambda: server.swarm.num_handlers_running)
        dialer.set_stream_handler("/x", mute)
        await dialer.close()
        with pytest.raises(asyncio.CancelledError):
            await asking


def test_a_caller_that_leaves_does_not_end_the_exchange_nor_leave_a_complaint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        answer = asyncio.Event()

        async def slow(stream: Stream) -> None:
            await answer.wait()
            raise RemoteProtocolError("no")

        async with pair() as p:
            p.server.set_stream_handler(identify.PROTOCOL, slow)
            leaving = asyncio.create_task(p.dialer.identify(p.conn))
            await eventually(lambda: p.server.swarm.num_handlers_running)
            leaving.cancel()
            await asyncio.wait([leaving])
            answer.set()
            await eventually(lambda: not p.dialer._identify._running)

    run(main())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_limit_forgets_a_connection_that_has_ended() -> None:
    limit = identify.RateLimit(1, lambda: 0.0)
    for _ in range(limits.MAX_IDENTIFY_PER_MINUTE):
        limit.enter(1)
        limit.release(1)
    limit.forget(2)
    with pytest.raises(LimitExceeded):
        limit.enter(1)
    limit.forget(1)
    limit.enter(1)

"""UpgradedListener: bounds, deadlines, survival, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness import eventually, looped, seconds, settle
from nodes import (
    LOOPBACK,
    Reports,
    make_node,
    num_descriptors,
    open_raw,
    open_socket,
    other_tasks,
    read_all,
    settled_descriptors,
)
from p2pcore.aio.intake import Why
from p2pcore.errors import ConnectionClosed, ListenerClosed, UpgradeTimeout
from p2pcore.manet.listener import MaListener
from p2pcore.upgrade.listener import NOT_ACCEPTED, TIMEOUT
from p2pcore.upgrade.upgrader import Upgraded

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")  # a socket left to the collector


# -- bounds --------------------------------------------------------------------------------------


@looped
async def test_48_handshakes_stall_at_once_and_all_finish_when_released() -> None:
    dialler, node = make_node(), make_node()
    async with node.listening() as listener:
        raws = [await open_raw(listener.multiaddr) for _ in range(48)]
        await eventually(lambda: listener.num_upgrading == 48)
        assert listener.num_ready == 0
        dialled = asyncio.gather(*(dialler.upgrader.upgrade_outbound(raw, node.peer) for raw in raws))
        accepted = [await listener.accept() for _ in range(48)]
        assert len(await dialled) == 48
        assert len({str(conn.remote_multiaddr) for conn in accepted}) == 48
        assert listener.num_upgrading == listener.num_ready == listener.failures.total() == 0
        for conn in (*accepted, *await dialled):
            conn.abort()


@looped
async def test_a_stalled_handshake_does_not_hold_up_others() -> None:
    dialler, node = make_node(), make_node()
    async with node.listening() as listener:
        silent = await open_socket(listener.multiaddr)
        await eventually(lambda: listener.num_upgrading == 1)
        outbound = await dialler.dial(listener.multiaddr)
        (await listener.accept()).abort()
        assert listener.num_upgrading == 1
        silent.close()
        outbound.abort()


@looped
async def test_16_connections_not_accepted_hold_back_the_17th() -> None:
    dialler, node = make_node(), make_node()
    async with node.listening() as listener:
        dialled = [await dialler.dial(listener.multiaddr) for _ in range(16)]
        await eventually(lambda: listener.num_ready == 16)
        late = asyncio.ensure_future(dialler.dial(listener.multiaddr))
        await eventually(lambda: listener.num_accepted == 17)
        later = asyncio.ensure_future(dialler.dial(listener.multiaddr))
        await settle(20)
        assert (listener.num_ready, listener.num_upgrading, listener.num_accepted) == (16, 0, 17)
        assert not late.done()
        first = await listener.accept()
        dialled.append(await late)
        second = await listener.accept()
        dialled.append(await later)
        assert (first.remote_multiaddr, second.remote_multiaddr) == tuple(
            conn.local_multiaddr for conn in dialled[:2]
        )
        for conn in (first, second, *dialled):
            conn.abort()


@looped
async def test_when_all_upgrades_are_in_use_peers_stay_in_the_backlog() -> None:
    dialler, node = make_node(), make_node(max_upgrading=4, max_slow=0, max_waiting=0)
    async with node.listening() as listener:
        silent = [await open_socket(listener.multiaddr) for _ in range(4)]
        await eventually(lambda: listener.num_upgrading == 4)
        dialling = [asyncio.ensure_future(dialler.dial(listener.multiaddr)) for _ in range(6)]
        await settle(20)
        assert listener.num_accepted == 4
        for sock in silent:
            sock.close()
        accepted = [await listener.accept() for _ in range(6)]
        for conn in (*accepted, *await asyncio.gather(*dialling)):
            conn.abort()


@looped
async def test_peers_that_say_nothing_do_not_keep_others_out() -> None:
    dialler, node = make_node(), make_node(max_upgrading=2, slow_after=0.001)
    async with node.listening() as listener:
        silent = [await open_socket(listener.multiaddr) for _ in range(20)]
        dialling = [asyncio.ensure_future(dialler.dial(listener.multiaddr)) for _ in range(6)]
        accepted = [await listener.accept() for _ in range(6)]
        assert listener.num_upgrading == 20
        assert not listener.failures
        for conn in (*accepted, *await asyncio.gather(*dialling)):
            conn.abort()
        for sock in silent:
            sock.close()


@looped
async def test_a_slow_handshake_that_goes_on_is_served() -> None:
    dialler, node = make_node(), make_node(max_upgrading=1, slow_after=0.001)
    async with node.listening() as listener:
        raw = await open_raw(listener.multiaddr)
        other = await open_socket(listener.multiaddr)
        await eventually(lambda: listener.num_upgrading == 2)
        upgrading = asyncio.ensure_future(dialler.upgrader.upgrade_outbound(raw, None))
        conn = await listener.accept()
        for each in (conn, await upgrading):
            each.abort()
        other.close()


@looped
async def test_of_too_many_slow_handshakes_the_oldest_is_ended() -> None:
    node = make_node(max_upgrading=4, slow_after=0.001, max_slow=3)
    async with node.listening() as listener:
        silent = [await open_socket(listener.multiaddr) for _ in range(14)]
        ended = [await read_all(sock) for sock in silent[:7]]
        assert ended == [b""] * 7
        await eventually(lambda: listener.num_accepted == 14)
        assert listener.failures[Why.TOO_MANY_SLOW] >= 7
        assert listener.num_upgrading <= 7
        for sock in silent:
            sock.close()


@looped
async def test_handshakes_that_end_in_a_burst_leave_the_next_peer_in_the_backlog() -> None:
    dialler, node = make_node(), make_node(max_upgrading=3, max_slow=0, max_waiting=0, queue_length=1)
    async with node.listening() as listener:
        raws = [await open_raw(listener.multiaddr) for _ in range(4)]
        await eventually(lambda: listener.num_upgrading == 3)
        upgrading = [asyncio.ensure_future(dialler.upgrader.upgrade_outbound(raw, None)) for raw in raws]
        conns = [await each for each in upgrading[:3]]
        await eventually(lambda: listener.num_ready == 3)
        await settle(20)
        assert listener.num_accepted == 3
        accepted = [await listener.accept() for _ in range(4)]
        for conn in (*conns, *accepted, await upgrading[3]):
            conn.abort()


# -- deadlines -----------------------------------------------------------------------------------


@looped
async def test_silent_peers_are_gone_after_the_accept_deadline() -> None:
    failed: list[tuple[str, object, BaseException, object]] = []
    node = make_node(accept_timeout=seconds(0.05), news=Reports(failed=lambda *args: failed.append(args)))
    async with node.listening() as listener:
        silent = [await open_socket(listener.multiaddr) for _ in range(20)]
        assert await asyncio.gather(*map(read_all, silent)) == [b""] * 20
        assert dict(listener.failures) == {TIMEOUT: 20}
        assert listener.num_upgrading == 0
        assert {reason for reason, _, _, _ in failed} == {TIMEOUT}
        assert all(isinstance(error, UpgradeTimeout) for _, _, error, _ in failed)
        assert {str(remote) for _, remote, _, _ in failed} == {
            f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}" for sock in silent
        }
        for sock in silent:
            sock.close()


@looped
async def test_a_peer_that_drips_bytes_gets_no_more_time() -> None:
    node = make_node(accept_timeout=seconds(0.05))
    async with node.listening() as listener:
        sock = await open_socket(listener.multiaddr)
        loop = asyncio.get_running_loop()

        async def drip() -> None:
            while not listener.failures:
                await loop.sock_sendall(sock, b"\x13"[: not listener.num_upgrading] or b"")
                await asyncio.sleep(0.001)

        await asyncio.gather(drip(), read_all(sock))
        assert dict(listener.failures) == {TIMEOUT: 1}
        sock.close()


@looped
async def test_a_finished_connection_not_accepted_in_time_is_closed() -> None:
    failed: list[tuple[Any, ...]] = []
    dialler = make_node()
    node = make_node(accept_timeout=seconds(0.5), news=Reports(failed=lambda *args: failed.append(args)))
    async with node.listening() as listener:
        outbound = await dialler.dial(listener.multiaddr)
        reasons: list[BaseException | None] = []
        outbound.session.add_close_callback(reasons.append)
        await eventually(lambda: reasons)
        assert getattr(reasons[0], "code", None) == 0x1002
        assert listener.num_ready == 0
        assert [(reason, remote) for reason, remote, _, _ in failed] == [
            (NOT_ACCEPTED, outbound.local_multiaddr)
        ]
        second = await dialler.dial(listener.multiaddr)
        inbound = await listener.accept()  # its place in the queue is free again
        assert inbound.remote_multiaddr == second.local_multiaddr
        inbound.abort()


@looped
async def test_a_connection_held_back_has_the_same_deadline() -> None:
    dialler, node = make_node(), make_node(accept_timeout=seconds(0.5), queue_length=1)
    async with node.listening() as listener:
        first = await dialler.dial(listener.multiaddr)
        await eventually(lambda: listener.num_ready == 1)
        held = await open_socket(listener.multiaddr)
        assert await read_all(held) == b""
        held.close()
        await eventually(lambda: listener.failures.total() == 2)
        assert dict(listener.failures) == {NOT_ACCEPTED: 1, TIMEOUT: 1}
        assert listener.num_upgrading == listener.num_ready == 0
        first.abort()


# -- accept --------------------------------------------------------------------------------------


@looped
async def test_accept_skips_connections_that_have_died() -> None:
    dialler, node = make_node(), make_node()
    async with node.listening() as listener:
        dead = [await dialler.dial(listener.multiaddr) for _ in range(5)]
        await eventually(lambda: listener.num_ready == 5)
        waiting = [conn for _, conn in listener._ready]
        for conn in dead:
            conn.abort()
        await eventually(lambda: all(conn.is_closed for conn in waiting))
        alive = await dialler.dial(listener.multiaddr)
        inbound = await listener.accept()
        assert inbound.remote_multiaddr == alive.local_multiaddr
        inbound.abort()
        alive.abort()


@looped
async def test_an_accept_cancelled_as_a_connection_comes_loses_nothing() -> None:
    dialler, node = make_node(), make_node()
    async with node.listening() as listener:
        accepting = [asyncio.ensure_future(listener.accept()) for _ in range(2)]
        await settle(20)
        dialling = asyncio.ensure_future(dialler.dial(listener.multiaddr))
        while not listener.num_ready:  # noqa: ASYNC110 - cancel between the hand-over and the accept
            await asyncio.sleep(0)
        accepting[0].cancel()
        inbound = await accepting[1]
        assert inbound.remote_multiaddr == (await dialling).local_multiaddr
        assert accepting[0].cancelled()
        assert not listener._accepters
        inbound.abort()
        (await dialling).abort()


# -- the end -------------------------------------------------------------------------------------


@looped
async def test_close_with_handshakes_in_flight_leaves_no_task_and_no_descriptor() -> None:
    before, tasks = await settled_descriptors(), other_tasks()
    dialler, node = make_node(), make_node()
    for silent in (0, 1, 30):
        listener = node.upgrader.upgrade_listener(MaListener.bind(LOOPBACK))
        stalled = [await open_socket(listener.multiaddr) for _ in range(silent)]
        dialled = [await dialler.dial(listener.multiaddr) for _ in range(3)]
        await eventually(lambda: listener.num_ready == 3 and listener.num_upgrading == silent)  # noqa: B023
        accepting = asyncio.ensure_future(listener.accept())
        (await accepting).abort()
        await listener.close()
        await listener.close()
        assert other_tasks() == tasks
        assert (listener.num_ready, listener.num_upgrading) == (0, 0)
        assert not listener.failures  # an aborted upgrade is not the peer's failure
        for sock in stalled:
            assert await read_all(sock) == b""
            sock.close()
        await eventually(lambda: all(conn.is_closed for conn in dialled))  # noqa: B023
    await eventually(lambda: num_descriptors() <= before)


@looped
async def test_close_at_any_moment_of_a_burst_leaves_nothing() -> None:
    before, tasks = await settled_descriptors(), other_tasks()
    dialler, node = make_node(), make_node()
    for ticks in range(0, 40, 3):
        listener = node.upgrader.upgrade_listener(MaListener.bind(LOOPBACK))
        dialling = [asyncio.ensure_future(dialler.dial(listener.multiaddr)) for _ in range(8)]
        await settle(ticks)
        await listener.close()
        for result in await asyncio.gather(*dialling, return_exceptions=True):
            if isinstance(result, Upgraded):
                await eventually(lambda: result.is_closed)  # noqa: B023
            else:
                assert isinstance(result, (OSError, ConnectionClosed)) or getattr(result, "stage", None)
        assert other_tasks() == tasks
    await eventually(lambda: num_descriptors() <= before)


@looped
async def test_close_wakes_every_accept() -> None:
    listener = make_node().upgrader.upgrade_listener(MaListener.bind(LOOPBACK))
    accepting = [asyncio.ensure_future(listener.accept()) for _ in range(4)]
    await settle(20)
    await asyncio.gather(listener.close(), listener.close())
    for result in await asyncio.gather(*accepting, return_exceptions=True):
        assert isinstance(result, ListenerClosed)


@looped
async def test_a_connection_in_the_queue_at_close_is_told() -> None:
    listener = make_node().upgrader.upgrade_listener(MaListener.bind(LOOPBACK))
    outbound = await make_node().dial(listener.multiaddr)
    reasons: list[BaseException | None] = []
    outbound.session.add_close_callback(reasons.append)
    await eventually(lambda: listener.num_ready == 1)
    await listener.close()
    await eventually(lambda: reasons)
    assert getattr(reasons[0], "code", None) == 0x1002


@looped
async def test_accepted_connections_outlive_their_listener() -> None:
    listener = make_node().upgrader.upgrade_listener(MaListener.bind(LOOPBACK))
    outbound = await make_node().dial(listener.multiaddr)
    inbound = await listener.accept()
    await listener.close()
    stream = await outbound.session.open_stream()
    await stream.write(b"still here")
    assert await (await inbound.session.accept_stream()).read() == b"still here"
    outbound.abort()
    inbound.abort()


@looped
async def test_an_idle_accepted_connection_keeps_no_task() -> None:
    tasks = other_tasks()
    node, dialler = make_node(), make_node()
    async with node.listening() as listener:
        conns: list[Any] = []
        for _ in range(20):
            conns += [await dialler.dial(listener.multiaddr), await listener.accept()]
        await settle(20)
        assert other_tasks() == tasks + 1  # the accept loop
        for conn in conns:
            conn.abort()

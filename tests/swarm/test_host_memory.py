"""A host counts what its connections use, in its ledger, and nothing is left when they have ended.

Comes in: hosts that dial, echo, hang up and break off. Goes out: the counts of their ledgers.
"""

from __future__ import annotations

import asyncio

from harness import eventually, looped
from p2pcore import Host, Limits, Stream, errors

HOLD = "/hold/1"
MIB = 1 << 20


async def hold(stream: Stream) -> None:
    """Serves a stream by reading nothing until its connection ends."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream.conn.add_close_callback(lambda error: ended.done() or ended.set_result(None))
    await ended


def is_idle(host: Host) -> bool:
    ledger = host.swarm.ledger
    return ledger.recount(conn.session for conn in host.swarm.conns()) == {} and ledger.used == 0


@looped
async def test_nothing_is_left_when_connections_have_ended_in_any_way() -> None:
    server, dialer = Host(echo=True), Host(listen=())
    server.set_stream_handler(HOLD, hold)
    async with server, dialer:
        target = server.addrs_with_peer[0]
        for way in ("close", "abort", "peer closes"):
            conn = await dialer.swarm.dial_addr(target)
            echo, held = await conn.new_stream("/echo/1.0.0"), await conn.new_stream(HOLD)
            await echo.write(bytes(1000))
            assert await echo.read_exactly(1000) == bytes(1000)
            await held.write(bytes(100_000))
            await eventually(lambda: server.swarm.ledger.unread >= 100_000)
            (theirs,) = server.swarm.conns()
            assert server.swarm.ledger.recount([theirs.session]) == {}
            if way == "close":
                await conn.close()
            elif way == "abort":
                conn.abort()
            else:
                await theirs.close()
            del echo, held, conn, theirs
            await eventually(lambda: is_idle(server))
            await eventually(lambda: is_idle(dialer))
        assert server.swarm.ledger.num_peers == 0
        assert server.swarm.ledger.peaks["num_streams"] >= 2


@looped
async def test_a_peer_that_fills_windows_stays_within_the_budget_and_others_are_served() -> None:
    """RM-T13: the connection that holds most goes; after that the state is calm again."""
    server = Host(echo=True, limits=Limits(memory=4 * MIB, max_conns=100))
    server.set_stream_handler(HOLD, hold)
    attacker, honest = Host(listen=()), Host(listen=())
    async with server, attacker, honest:
        target = server.addrs_with_peer[0]
        answer = await honest.new_stream(target, "/echo/1.0.0")
        writes = []
        conn = await attacker.swarm.dial_addr(target)
        try:
            for _ in range(64):
                stream = await conn.new_stream(HOLD)
                writes.append(asyncio.ensure_future(stream.write(bytes(200_000))))
                await answer.write(b"?")
                assert await answer.read_exactly(1) == b"?"
        except errors.P2PError:
            pass
        await eventually(lambda: conn.is_closed)
        await asyncio.gather(*writes, return_exceptions=True)
        assert server.swarm.ledger.peaks["used"] <= 4 * MIB
        await eventually(lambda: server.swarm.ledger.state == 0)
        await answer.write(b"!")
        assert await answer.read_exactly(1) == b"!"

"""A gater that waits and gives reasons, and what happens to connections whose peer or network is blocked."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from harness import ended_by, eventually, looped, settle
from hosts import BARE, pair
from p2pcore import BasicGater, DialError, GaterRefused, GoAway, Host, Multiaddr, Refusal, codes, limits
from p2pcore.errors import SwarmClosed
from p2pcore.interfaces import Stream, Verdict
from p2pcore.swarm.admission import Admission
from p2pcore.swarm.events import Refused
from p2pcore.upgrade.listener import REFUSED
from swarm_fakes import FakeConn, make_swarm, peer
from virtual_time import virtual

POINTS = {
    "peer dial": "intercept_peer_dial",
    "addr dial": "intercept_addr_dial",
    "accept": "intercept_accept",
    "secured": "intercept_secured",
    "upgraded": "intercept_upgraded",
}
NO = Refusal("the customer has not paid", 0x2A)


class Waiting(BasicGater):
    """Answers at each point after a turn of the loop: `answers[point]`, or yes."""

    def __init__(self, **answers: object) -> None:
        super().__init__()
        self.answers: dict[str, object] = answers
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None

    async def _answer(self, method: str) -> Any:
        self.asked.append(method)
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.get(method, True)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def intercept_peer_dial(self, *_: object) -> Any:
        return await self._answer("intercept_peer_dial")

    async def intercept_addr_dial(self, *_: object) -> Any:
        return await self._answer("intercept_addr_dial")

    async def intercept_accept(self, *_: object) -> Any:
        return await self._answer("intercept_accept")

    async def intercept_secured(self, *_: object) -> Any:
        return await self._answer("intercept_secured")

    async def intercept_upgraded(self, *_: object) -> Any:
        return await self._answer("intercept_upgraded")


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


@looped
async def test_a_gater_that_waits_is_asked_at_five_points_and_streams_wait_for_it() -> None:
    server, dialer = Waiting(), Waiting()
    async with pair({"gater": server, "echo": True}, {"gater": dialer}) as ends:
        assert dialer.asked == [POINTS[each] for each in ("peer dial", "addr dial", "secured", "upgraded")]
        assert server.asked == [POINTS[each] for each in ("accept", "secured", "upgraded")]
        assert await ends.dialer.echo(ends.conn, b"hello") == b"hello"


@pytest.mark.parametrize("answer", [False, NO, RuntimeError("a bug"), "yes"], ids=str)
@pytest.mark.parametrize("point", ["peer dial", "addr dial", "secured", "upgraded"])
@looped
async def test_a_dialler_that_refuses_after_a_while_says_why(point: str, answer: object) -> None:
    gater = Waiting(**{POINTS[point]: answer})
    async with Host(**BARE) as server, Host(listen=(), gater=gater) as dialer:
        with dialer.events(Refused) as events:
            for target in (server.addrs_with_peer[0], server.addrs[0]):
                if target.peer_id is None and point == "peer dial":
                    continue  # there is no peer to ask about
                with pytest.raises(DialError) as caught:
                    await dialer.connect(target, ignore_backoff=True)
                why = caught.value.cause if point == "peer dial" else caught.value.causes[0][1]
                assert isinstance(why, GaterRefused)
                assert why.point == point
                event = await anext(events)
                assert isinstance(event, Refused)
                assert event.error is why
                if answer is NO:
                    assert (why.reason, why.code) == (NO.reason, NO.code)
                    assert NO.reason in str(caught.value)
        assert dialer.swarm.num_conns == 0
        await eventually(lambda: server.swarm.num_conns == 0)


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("point", ["secured", "upgraded"])
@looped
async def test_the_peer_gets_the_code_of_a_refusal_and_the_log_the_reason(
    point: str, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    gater: BasicGater = Waiting(**{POINTS[point]: NO}) if waits else BasicGater()
    if not waits:
        setattr(gater, POINTS[point], lambda *_: NO)
    with caplog.at_level(logging.DEBUG, "p2pcore.admission"):
        async with Host(**BARE, gater=gater) as server, Host(**BARE | {"listen": ()}) as dialer:
            conn = await dialer.connect(server.addrs_with_peer[0])
            error = await ended_by(conn)
            assert isinstance(error, GoAway)
            assert (error.code, error.remote) == (NO.code, True)
            assert server.swarm.num_conns == 0
    assert NO.reason in caplog.text


@looped
async def test_a_refusal_before_a_multiplexer_is_agreed_closes_without_a_code() -> None:
    gater = Waiting(intercept_accept=NO)
    async with Host(**BARE, gater=gater) as server, Host(**BARE | {"listen": ()}) as dialer:
        with pytest.raises(DialError):
            await dialer.connect(server.addrs_with_peer[0])
        assert gater.asked == ["intercept_accept"]
        assert server.counters()[f"upgrades failed: {REFUSED}"] == 1
        gater.answers.clear()
        await dialer.connect(server.addrs_with_peer[0], ignore_backoff=True)


@virtual
async def test_an_answer_that_does_not_come_is_no() -> None:
    gater = Waiting()
    gater.gate = asyncio.Event()
    swarm, _ = make_swarm(admission=Admission(gater))
    conn = FakeConn(peer(1))
    begun = swarm.begin_conn(conn)
    began = asyncio.get_running_loop().time()
    with pytest.raises(GaterRefused, match=f"no answer within {limits.GATER_TIMEOUT_S:g} s"):
        await begun  # type: ignore[misc]
    assert asyncio.get_running_loop().time() - began == limits.GATER_TIMEOUT_S
    assert conn.abort_code == codes.CONN_GATED
    await swarm.close()


@looped
async def test_one_slow_answer_holds_up_nobody_else() -> None:
    gater = Waiting()
    gater.gate = asyncio.Event()
    async with Host(**BARE, gater=gater) as server:
        slow = Host(**BARE | {"listen": ()})
        async with slow, Host(**BARE | {"listen": ()}) as quick:
            gater.answers["intercept_accept"] = True
            dialling = asyncio.create_task(slow.connect(server.addrs_with_peer[0]))
            await eventually(lambda: gater.asked)
            waiting, gater.gate = gater.gate, None
            await quick.connect(server.addrs_with_peer[0])
            await eventually(lambda: server.swarm.num_conns == 1)
            waiting.set()
            await dialling
            await eventually(lambda: server.swarm.num_conns == 2)


@looped
async def test_connections_that_wait_for_the_gater_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_GATER_WAITS", 2)
    gater = Waiting()
    swarm, transport = make_swarm(admission=Admission(gater))
    gater.gate = asyncio.Event()
    await swarm.listen("/ip4/127.0.0.1/tcp/1")
    (listener,) = transport.listeners
    conns = [FakeConn(peer(number)) for number in range(1, 6)]
    for conn in conns:
        listener.queue.put_nowait(conn)
    await settle()
    assert (len(gater.asked), listener.queue.qsize()) == (2, 3)
    gater.gate.set()
    await eventually(lambda: swarm.num_conns == 5)
    await swarm.close()


@looped
async def test_a_swarm_that_closes_ends_the_connections_that_wait() -> None:
    gater = Waiting()
    swarm, transport = make_swarm(admission=Admission(gater))
    gater.gate = asyncio.Event()
    await swarm.listen("/ip4/127.0.0.1/tcp/1")
    conn = FakeConn(peer(1))
    transport.listeners[0].queue.put_nowait(conn)
    await eventually(lambda: gater.asked)
    await swarm.close()
    assert conn.abort_code == codes.CONN_SHUTDOWN
    late = FakeConn(peer(2))
    gater.gate.set()
    with pytest.raises(SwarmClosed):
        await swarm.begin_conn(late)  # type: ignore[misc]


@looped
async def test_a_plain_method_that_returns_an_awaitable_at_accept_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gater = BasicGater()

    async def later() -> bool:
        return True

    gater.intercept_accept = lambda *_: later()  # type: ignore[method-assign, assignment, return-value]
    async with Host(**BARE, gater=gater) as server, Host(**BARE | {"listen": ()}) as dialer:
        with pytest.raises(DialError):
            await dialer.connect(server.addrs_with_peer[0])
    assert "declare it with `async def`" in caplog.text


def test_a_refusal_checks_its_fields() -> None:
    with pytest.raises(ValueError, match="code must be"):
        Refusal(code=2**32)
    with pytest.raises(TypeError, match="reason must be"):
        Refusal(reason=7)  # type: ignore[arg-type]
    assert Refusal().code == codes.CONN_GATED


# -- blocking ----------------------------------------------------------------------------------


class Other:
    """A gater of somebody else's, that admits everybody."""

    def intercept_peer_dial(self, peer: Any) -> Verdict:
        return True

    def intercept_addr_dial(self, peer: Any, addr: Any) -> Verdict:
        return True

    def intercept_accept(self, local: Any, remote: Any) -> Verdict:
        return True

    def intercept_secured(self, direction: Any, peer: Any, local: Any, remote: Any) -> Verdict:
        return True

    def intercept_upgraded(self, conn: Any) -> Verdict:
        return True


@pytest.mark.parametrize("gater", [None, BasicGater, Other, Waiting], ids=str)
@looped
async def test_to_block_a_peer_closes_what_is_open_and_refuses_it_until_it_is_unblocked(gater: Any) -> None:
    given = None if gater is None else gater()
    async with pair({"gater": given}) as ends:
        ends.server.block_peer(str(ends.dialer.peer_id))
        error = await ended_by(ends.conn)
        assert isinstance(error, GoAway)
        assert (error.code, error.remote) == (codes.CONN_GATED, True)
        await eventually(lambda: not ends.server.swarm.num_conns)
        if gater is not Waiting:  # whose own answers take the place of BasicGater's
            again = await ends.dialer.connect(ends.server.addrs_with_peer[0])
            await ended_by(again)
            with pytest.raises(DialError, match="gater"):
                await ends.server.connect(f"/ip4/127.0.0.1/tcp/1/p2p/{ends.dialer.peer_id}")
            assert not ends.server.swarm.num_conns
        ends.server.unblock_peer(ends.dialer.peer_id)
        await ends.dialer.connect(ends.server.addrs_with_peer[0])
        await eventually(lambda: ends.server.swarm.num_conns)


@looped
async def test_to_block_on_the_gater_closes_too_and_only_what_is_meant() -> None:
    gater = BasicGater()
    swarm, _ = make_swarm(admission=Admission(gater))
    fakes = {
        text: FakeConn(peer(number), at=text)
        for number, text in enumerate(
            ("/ip4/10.0.0.1/tcp/1", "/ip4/10.1.0.1/tcp/1", "/ip6/2001:db8::1/tcp/1"), 1
        )
    }
    for fake in fakes.values():
        swarm.add_conn(fake)
    gater.block_subnet("10.1.0.0/16")
    await eventually(lambda: swarm.num_conns == 2)
    assert [fake.abort_code for fake in fakes.values()] == [None, codes.CONN_GATED, None]
    gater.block_peer(peer(3))
    await eventually(lambda: swarm.num_conns == 1)
    await swarm.close()
    gater.block_peer(peer(1))  # the swarm does not listen any more
    assert gater._watchers == []


@looped
async def test_a_network_with_many_connections_is_closed_in_turns() -> None:
    gater = BasicGater()
    swarm, _ = make_swarm(admission=Admission(gater))
    for number in range(1500):
        swarm.add_conn(FakeConn(peer(number % 200 + 1), at=f"/ip4/10.0.0.1/tcp/{number + 1}"))
    gater.block_subnet("10.0.0.0/8")
    gater.block_subnet("11.0.0.0/8")  # while the first is under way
    assert swarm.num_conns == 1500
    await eventually(lambda: swarm.num_conns == 0)
    await swarm.close()


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"subnets": "10.0.0.0/8"}, TypeError, "subnets must be a list of networks, not a str '10.0.0.0/8'"),
        ({"peers": str(peer(1))}, TypeError, "peers must be a list of peer ids"),
        ({"subnets": [10]}, TypeError, "each item of subnets must be"),
        ({"subnets": ["10.0.0.1/8"]}, ValueError, "an IP network such as"),
    ],
)
def test_wrong_arguments_are_found_at_once(given: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        BasicGater(**given)


def test_sets_and_generators_of_networks_are_taken() -> None:
    gater = BasicGater(peers={peer(1)}, subnets=(f"10.{n}.0.0/16" for n in range(2)))
    assert gater.blocked_subnets == {"10.0.0.0/16", "10.1.0.0/16"}
    assert gater.blocks(peer(1), None)
    assert gater.blocks(peer(2), Multiaddr("/ip4/10.1.2.3/tcp/1"))
    assert not gater.blocks(peer(2), None)

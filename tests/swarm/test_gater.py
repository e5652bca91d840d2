"""The ready-made gater: what it blocks, and at which points."""

from __future__ import annotations

from typing import Any

import pytest

from harness import eventually, looped
from hosts import pair
from p2pcore import BasicGater, DialError, Direction, GaterRefused, GoAway, Host, Multiaddr, codes
from p2pcore.errors import IdentityError, NegotiationError
from p2pcore.swarm.admission import Admission
from p2pcore.swarm.events import Refused, UpgradeFailed
from p2pcore.upgrade.listener import REFUSED
from swarm_fakes import FakeConn, addr, make_swarm, peer

THEM = peer(1)
LOCAL = addr(1)


def admits(gater: BasicGater, text: str) -> bool:
    remote = Multiaddr(text)
    answers = {gater.intercept_accept(LOCAL, remote), gater.intercept_addr_dial(THEM, remote)}
    assert len(answers) == 1
    return answers.pop()


def test_a_blocked_peer_is_refused_both_ways_until_it_is_unblocked() -> None:
    gater = BasicGater(peers=[str(THEM)])
    for blocked in (True, False):
        assert gater.intercept_peer_dial(THEM) is not blocked
        assert gater.intercept_secured(Direction.INBOUND, THEM, LOCAL, None) is not blocked
        assert gater.intercept_peer_dial(peer(2))
        gater.unblock_peer(THEM)
    assert gater.blocked_peers == frozenset()
    gater.block_peer(THEM)
    assert gater.blocked_peers == {THEM}


def test_blocked_networks_and_addresses_are_refused_both_ways() -> None:
    gater = BasicGater(subnets=["10.0.0.0/8", "2001:db8::/32"])
    gater.block_subnet("1.2.3.4")
    assert gater.blocked_subnets == {"10.0.0.0/8", "2001:db8::/32", "1.2.3.4/32"}
    for text in (
        "/ip4/10.9.9.9/tcp/1",
        "/ip6/2001:db8::9/tcp/1",
        "/ip4/1.2.3.4/udp/1",
        "/ip6/::ffff:10.0.0.1/tcp/1",
    ):
        assert not admits(gater, text), text
    for text in (
        "/ip4/11.0.0.1/tcp/1",
        "/ip4/1.2.3.5/tcp/1",
        "/ip6/2001:db9::1/tcp/1",
        "/unix/%2Fx",
        "/dns/x",
    ):
        assert admits(gater, text), text
    assert gater.intercept_accept(LOCAL, None)
    gater.unblock_subnet("10.0.0.0/8")
    assert admits(gater, "/ip4/10.9.9.9/tcp/1")


def test_what_is_no_network_or_peer_is_an_error() -> None:
    with pytest.raises(ValueError, match="300"):
        BasicGater(subnets=["300.0.0.0/8"])
    with pytest.raises(IdentityError):
        BasicGater(peers=["nonsense"])


# -- in a swarm --------------------------------------------------------------------------------


class Choosy:
    """Refuses at one point, and writes down where it was asked."""

    def __init__(self, refuses: str = "", raises: bool = False) -> None:
        self.refuses = refuses
        self.raises = raises
        self.asked: list[str] = []

    def _answer(self, point: str) -> bool:
        self.asked.append(point)
        if point == self.refuses and self.raises:
            raise RuntimeError("a bug in the gater")
        return point != self.refuses

    def intercept_peer_dial(self, peer: Any) -> bool:
        return self._answer("peer dial")

    def intercept_addr_dial(self, peer: Any, addr: Any) -> bool:
        return self._answer("addr dial")

    def intercept_accept(self, local: Any, remote: Any) -> bool:
        assert remote is not None
        return self._answer("accept")

    def intercept_secured(self, direction: Any, peer: Any, local: Any, remote: Any) -> bool:
        return self._answer("secured")

    def intercept_upgraded(self, conn: Any) -> bool:
        assert conn.remote_peer
        return self._answer("upgraded")


@looped
async def test_the_gater_is_asked_at_five_points_in_order() -> None:
    server, dialer = Choosy(), Choosy()
    async with pair({"gater": server}, {"gater": dialer}):
        assert dialer.asked == ["peer dial", "addr dial", "secured", "upgraded"]
        assert server.asked == ["accept", "secured", "upgraded"]


@pytest.mark.parametrize("raises", [False, True], ids=["says no", "raises"])
@pytest.mark.parametrize("point", ["peer dial", "addr dial", "secured", "upgraded"])
@looped
async def test_a_dialler_that_refuses_gets_a_dial_error_with_the_reason(point: str, raises: bool) -> None:
    async with Host() as server, Host(listen=(), gater=Choosy(point, raises)) as dialer:
        with dialer.events(Refused) as events:
            with pytest.raises(DialError) as caught:
                await dialer.connect(server.addrs_with_peer[0])
            failure = caught.value
            why = failure.cause if point == "peer dial" else failure.causes[0][1]
            assert isinstance(why, GaterRefused)
            assert why.point == point
            event = await anext(events)
            assert isinstance(event, Refused)
            assert event.error is why
            assert event.peer == server.peer_id
        assert dialer.swarm.num_conns == 0
        assert dialer.counters()["connections refused"] == 1
        await eventually(lambda: server.swarm.num_conns == 0)


@pytest.mark.parametrize("point", ["peer dial", "addr dial"])
@looped
async def test_what_is_refused_before_the_dial_is_not_dialled(point: str) -> None:
    gater = Choosy(point)
    async with Host() as server, Host(listen=(), gater=gater) as dialer:
        for target in (server.addrs_with_peer[0], server.addrs[0]):
            if target.peer_id is None and point == "peer dial":
                continue  # there is no peer to ask about
            with pytest.raises(DialError):
                await dialer.connect(target)
        assert set(gater.asked) <= {"peer dial", "addr dial"}


@pytest.mark.parametrize("point", ["accept", "secured", "upgraded"])
@looped
async def test_a_listener_that_refuses_goes_on_listening(point: str) -> None:
    async def refused_dial(dialer: Host, server: Host, point: str) -> None:
        if point == "accept":
            with pytest.raises(DialError) as caught:
                await dialer.connect(server.addrs_with_peer[0])
            assert isinstance(caught.value.causes[0][1], NegotiationError)
            return
        conn = await dialer.connect(server.addrs_with_peer[0])
        ended: list[Any] = []
        conn.add_close_callback(ended.append)
        await eventually(lambda: ended)
        assert isinstance(ended[0], GoAway)
        assert (ended[0].code, ended[0].remote) == (codes.CONN_GATED, True)

    gater = Choosy(point)
    async with Host(gater=gater) as server, Host(listen=(), identify=False) as dialer:
        with server.events(Refused, UpgradeFailed) as events:
            await refused_dial(dialer, server, point)
            event = await anext(events)
            assert isinstance(event, Refused)
            assert isinstance(event.error, GaterRefused)
            assert event.error.point == point
            assert event.addr is not None
            assert (event.peer == dialer.peer_id) == (point != "accept")
            if point == "secured":
                failed = await anext(events)
                assert isinstance(failed, UpgradeFailed)
                assert failed.stage == "connection gater"
        assert server.swarm.num_conns == 0
        counted = {"accept": REFUSED, "secured": "connection gater"}.get(point)
        assert counted is None or server.counters()[f"upgrades failed: {counted}"] == 1
        gater.refuses = ""
        await dialer.connect(server.addrs_with_peer[0], ignore_backoff=True)


@looped
async def test_accepting_is_refused_before_anything_is_read() -> None:
    gater = Choosy("accept")
    async with Host(gater=gater) as server, Host(listen=()) as dialer:
        with pytest.raises(DialError):
            await dialer.connect(server.addrs_with_peer[0])
        assert gater.asked == ["accept"]


@looped
async def test_a_gater_that_refuses_a_taken_over_connection_aborts_it_with_its_code() -> None:
    from p2pcore.swarm.admission import Admission

    swarm, _ = make_swarm(admission=Admission(Choosy("upgraded")))
    conn = FakeConn(THEM)
    with pytest.raises(GaterRefused):
        swarm.add_conn(conn)
    assert conn.abort_code == codes.CONN_GATED
    assert swarm.conns() == []
    await swarm.close()


def test_only_true_admits() -> None:
    gater = BasicGater()
    gater.intercept_peer_dial = lambda peer: "yes"  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(GaterRefused):
        Admission(gater).check_peer_dial(peer(1))


def test_a_notifiee_whose_methods_are_coroutines_is_refused() -> None:
    class Late:
        async def connected(self, *args: object) -> None: ...
        def disconnected(self, *args: object) -> None: ...
        def listen(self, *args: object) -> None: ...
        def listen_close(self, *args: object) -> None: ...

    with pytest.raises(TypeError, match=r"notifiee\.connected must be a plain function"):
        Host(listen=[]).notify(Late())  # type: ignore[arg-type]

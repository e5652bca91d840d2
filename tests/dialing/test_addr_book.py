"""The address book: what is believed, from whom, how far, for how long, and how much of it is kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from harness import ended_by, eventually, looped, settle
from hosts import BARE
from p2pcore import AddrBook, AddrSource, DialError, Host, Multiaddr, PrivateKey, limits
from p2pcore.codes import Direction
from p2pcore.errors import AddressError, IdentityError, LimitExceeded
from p2pcore.protocols.identify_message import IdentifyInfo
from p2pcore.swarm.conn import Conn
from p2pcore.swarm.swarm import Swarm
from p2pcore.values.record import PeerRecord
from swarm_fakes import FakeConn, addr, make_swarm, peer

KEY = PrivateKey.from_seed(b"\x01" * 32)
THEM = KEY.peer_id()
OTHER = peer(2)
PUBLIC = addr(4001, "5.6.7.8")
SECOND = addr(4002, "5.6.7.8")
PRIVATE = addr(4001, "10.0.0.1")
LOOPBACK = addr(4001)
FAR = addr(999, "9.9.9.9")


class Clock:
    """Unix seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def book_and_swarm(**options: Any) -> tuple[AddrBook, Swarm, Clock]:
    clock = Clock()
    book = AddrBook(now=clock, **options)
    return book, make_swarm(addr_book=book)[0], clock


def sealed(*addrs: Multiaddr, seq: int = 1, key: PrivateKey = KEY) -> bytes:
    return PeerRecord(key.peer_id(), seq, addrs).seal(key).raw


def connected(
    swarm: Swarm,
    *claims: Multiaddr,
    at: Multiaddr = FAR,
    direction: Direction = Direction.INBOUND,
    **info: Any,
) -> Conn:
    """A connection of THEM from `at`, identified: it claims `claims`."""
    conn = swarm.add_conn(FakeConn(THEM, direction, at=at))
    conn._info = IdentifyInfo(THEM, listen_addrs=claims, **info)
    return conn


async def end(conn: Conn) -> None:
    conn.session.end()  # type: ignore[attr-defined]
    await asyncio.sleep(0)


# -- the program's own -------------------------------------------------------------------------


def test_what_the_program_adds_is_believed_for_ever_or_as_long_as_it_says() -> None:
    clock = Clock()
    book = AddrBook(now=clock)
    book.add(THEM, PUBLIC.with_p2p(THEM))
    book.add(str(THEM), "/dns4/example.com/tcp/1", ttl_s=60)
    assert {(each.addr, each.source, each.expires_at) for each in book.entries(THEM)} == {
        (PUBLIC, AddrSource.USER, None),
        (Multiaddr("/dns4/example.com/tcp/1"), AddrSource.USER, clock.now + 60),
    }
    clock.now += 61
    assert book.addrs(THEM) == [PUBLIC]
    assert book.peers() == [THEM]
    assert THEM in book
    book.forget(THEM, PUBLIC)
    assert (book.addrs(THEM), book.peers(), len(book)) == ([], [], 0)


def test_wrong_arguments_are_named() -> None:
    book = AddrBook()
    with pytest.raises(AddressError, match="leads to another peer"):
        book.add(THEM, PUBLIC.with_p2p(OTHER))
    with pytest.raises(ValueError, match="ttl_s must be"):
        book.add(THEM, PUBLIC, ttl_s=-1)
    with pytest.raises(ValueError, match="recent_s must be"):
        AddrBook(recent_s=float("nan"))
    with pytest.raises(TypeError, match="path must be"):
        AddrBook(5)  # type: ignore[arg-type]
    with pytest.raises(LimitExceeded):
        book.add(THEM, *(addr(port) for port in range(1, limits.MAX_BOOK_ADDRS + 2)))
    assert len(book) == 0


# -- what connections bring --------------------------------------------------------------------


@looped
async def test_a_connection_costs_the_book_nothing_until_it_ends() -> None:
    book, swarm, clock = book_and_swarm()
    conn = connected(swarm, PUBLIC)
    assert len(book) == 0
    await end(conn)
    (known,) = book.entries(THEM)
    assert (known.addr, known.source) == (PUBLIC, AddrSource.IDENTIFY)
    assert known.expires_at == clock.now + limits.BOOK_RECENT_S
    clock.now += limits.BOOK_RECENT_S
    assert book.addrs(THEM) == []
    await swarm.close()


@looped
async def test_the_addresses_of_a_connected_peer_do_not_expire() -> None:
    book, swarm, clock = book_and_swarm()
    connected(swarm, PUBLIC, at=SECOND, direction=Direction.OUTBOUND)
    book.dialled(THEM, Multiaddr("/dns4/them.example/tcp/1"))
    clock.now += 100 * limits.BOOK_RECENT_S
    assert set(book.addrs(THEM)) == {PUBLIC, SECOND, Multiaddr("/dns4/them.example/tcp/1")}
    assert book.addrs(THEM)[-1] == PUBLIC, "what was reached comes before what is only claimed"
    await swarm.close()


@looped
async def test_a_name_that_led_to_a_peer_is_believed_a_while_after_the_last_connection() -> None:
    book, swarm, clock = book_and_swarm()
    name = Multiaddr("/dns4/them.example/tcp/1")
    first, second = connected(swarm), connected(swarm)
    book.dialled(THEM, name)
    await end(first)
    assert [each.expires_at for each in book.entries(THEM)] == [None]
    await end(second)
    assert [each.expires_at for each in book.entries(THEM)] == [clock.now + limits.BOOK_RECENT_S]
    await swarm.close()


@looped
async def test_the_port_from_which_a_peer_dialled_us_is_no_address_of_it() -> None:
    book, swarm, _ = book_and_swarm()
    await end(connected(swarm, at=SECOND))
    assert book.addrs(THEM) == []
    await swarm.close()


@pytest.mark.parametrize(
    ("at", "believed"),
    [
        (FAR, [PUBLIC]),
        (addr(9, "192.168.0.7"), [PUBLIC, PRIVATE]),
        (addr(9), [PUBLIC, PRIVATE, LOOPBACK]),
    ],
)
@pytest.mark.parametrize("is_signed", [False, True])
@looped
async def test_a_peer_sends_us_no_nearer_than_it_is_itself(
    at: Multiaddr, believed: list[Multiaddr], is_signed: bool
) -> None:
    book, swarm, _ = book_and_swarm()
    every = (PUBLIC, PRIVATE, LOOPBACK, Multiaddr("/ip6zone/eth0/ip6/fe80::1/tcp/1"))
    signed = {"record_addrs": every, "record_seq": 5, "signed_record": b"r"} if is_signed else {}
    await end(connected(swarm, *every, at=at, **signed))
    assert set(book.addrs(THEM)) == set(believed)
    await swarm.close()


@looped
async def test_claims_replace_earlier_claims_and_leave_what_others_said() -> None:
    book, swarm, _ = book_and_swarm()
    book.add(THEM, addr(1, "7.7.7.7"))
    conn = connected(swarm, PUBLIC)
    assert set(book.addrs(THEM)) == {addr(1, "7.7.7.7"), PUBLIC}
    conn._info = replace(conn._info, listen_addrs=(SECOND,))  # type: ignore[type-var]
    assert set(book.addrs(THEM)) == {addr(1, "7.7.7.7"), SECOND}
    await end(conn)
    assert set(book.addrs(THEM)) == {addr(1, "7.7.7.7"), SECOND}
    await swarm.close()


@looped
async def test_signed_addresses_replace_claims_and_older_records_change_nothing() -> None:
    book, swarm, clock = book_and_swarm()
    await end(connected(swarm, PUBLIC))
    newer = {"record_addrs": (SECOND,), "record_seq": 7, "signed_record": b"seven"}
    await end(connected(swarm, PUBLIC, **newer))
    assert [(each.addr, each.source) for each in book.entries(THEM)] == [(SECOND, AddrSource.RECORD)]
    assert book.record(THEM) == b"seven"
    await end(connected(swarm, PUBLIC))  # claims, after a record
    await end(connected(swarm, PUBLIC, record_addrs=(PUBLIC,), record_seq=6, signed_record=b"six"))
    assert (book.addrs(THEM), book.record(THEM)) == ([SECOND], b"seven")
    clock.now += limits.BOOK_RECENT_S
    await end(connected(swarm, PUBLIC))  # the record is over: claims count again
    assert (book.addrs(THEM), book.record(THEM)) == ([PUBLIC], None)
    await swarm.close()


# -- records from elsewhere --------------------------------------------------------------------


def test_a_record_that_the_program_hands_in_counts_if_it_is_newer() -> None:
    clock = Clock()
    book = AddrBook(now=clock)
    assert book.add_record(sealed(PUBLIC, seq=2)) == THEM
    book.add_record(sealed(SECOND, seq=1))
    assert (book.addrs(THEM), book.record(THEM)) == ([PUBLIC], sealed(PUBLIC, seq=2))
    book.add_record(sealed(SECOND.with_p2p(THEM), PUBLIC.with_p2p(OTHER), seq=2**64 - 1))
    assert book.addrs(THEM) == [SECOND]
    clock.now += limits.BOOK_RECORD_S
    assert (book.addrs(THEM), book.record(THEM)) == ([], None)
    for bad in (b"", b"junk", sealed(PUBLIC)[:-1]):
        with pytest.raises(IdentityError):
            book.add_record(bad)


# -- bounds ------------------------------------------------------------------------------------


@looped
async def test_a_flood_of_peers_pushes_out_the_oldest_and_never_what_the_program_added() -> None:
    book, swarm, _ = book_and_swarm(max_peers=4)
    book.add(OTHER, PUBLIC)
    for number in range(10, 20):
        conn = swarm.add_conn(FakeConn(peer(number), at=FAR))
        conn._info = IdentifyInfo(peer(number), listen_addrs=(PUBLIC,))
        await end(conn)
    assert book.peers() == [OTHER, *map(peer, range(16, 20))]
    for number in range(30, 33):
        book.add(peer(number), PUBLIC)
    with pytest.raises(LimitExceeded, match="max_peers"):
        book.add(peer(40), PUBLIC)
    book.add(peer(30), SECOND)
    assert set(book.addrs(peer(30))) == {PUBLIC, SECOND}
    await swarm.close()


@looped
async def test_memory_is_bounded_whatever_the_peers_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BOOK_BYTES", 40_000)
    book, swarm, _ = book_and_swarm()
    for number in range(10, 30):
        conn = swarm.add_conn(FakeConn(peer(number), at=FAR))
        claims = tuple(addr(port, "5.6.7.8") for port in range(1, 200))
        conn._info = IdentifyInfo(peer(number), listen_addrs=claims)
        await end(conn)
        assert len(book.addrs(peer(number))) == limits.MAX_BOOK_ADDRS
    assert 1 <= len(book) < 5
    assert book._size == sum(each.size for each in book._peers.values()) <= 40_000
    for known in book.peers():
        book.forget(known)
    assert book._size == 0
    await swarm.close()


@looped
async def test_a_flood_of_claims_pushes_out_no_address_that_is_trusted_more() -> None:
    book, swarm, _ = book_and_swarm()
    book.add(THEM, addr(1, "7.7.7.7"), ttl_s=1)
    claims = tuple(addr(port, "5.6.7.8") for port in range(1, 200))
    await end(connected(swarm, *claims, at=SECOND, direction=Direction.OUTBOUND))
    found = book.addrs(THEM)
    assert len(found) == limits.MAX_BOOK_ADDRS
    assert found[:2] == [addr(1, "7.7.7.7"), SECOND]
    await swarm.close()


@looped
async def test_what_is_over_goes_when_others_come() -> None:
    book, swarm, clock = book_and_swarm()
    for number in range(10, 20):
        book.add(peer(number), PUBLIC, ttl_s=1)
    clock.now += 2
    for number in range(20, 25):
        book.add(peer(number), PUBLIC, ttl_s=1)
    assert len(book) == 5
    await swarm.close()


# -- with hosts --------------------------------------------------------------------------------


@looped
async def test_a_peer_is_dialled_by_its_id_after_the_connection_was_lost() -> None:
    async with Host(**BARE) as server, Host(**BARE | {"listen": ()}) as dialer:
        first = await dialer.connect(server.addrs_with_peer[0])
        await first.close()
        await eventually(lambda: not dialer.swarm.num_conns)
        again = await dialer.connect(server.peer_id)
        assert again is not first
        assert again.remote_multiaddr == server.addrs[0]


@looped
async def test_a_peer_that_dialled_us_is_dialled_back_at_what_it_told() -> None:
    async with Host() as server, Host() as dialer:
        await dialer.connect(server.addrs_with_peer[0])
        await eventually(lambda: server.swarm.num_conns)
        await server.identify(dialer.peer_id)
        assert len(server.addr_book) == 0
        assert server.addr_book.addrs(dialer.peer_id) == dialer.addrs
        (known,) = server.addr_book.entries(dialer.peer_id)
        assert known.source is AddrSource.RECORD
        await dialer.close_peer(server.peer_id)
        await eventually(lambda: not server.swarm.num_conns)
        assert (await server.ping(dialer.peer_id))[0] > 0


@looped
async def test_the_book_alone_is_enough_and_without_it_the_error_says_so() -> None:
    async with Host(**BARE | {"ping": True}) as server, Host(**BARE | {"listen": ()}) as dialer:
        with pytest.raises(DialError, match="no addresses are known; give one that ends with its /p2p/"):
            await dialer.connect(server.peer_id)
        dialer.addr_book.add(server.peer_id, *server.addrs)
        assert (await dialer.ping(server.peer_id))[0] > 0


@looped
async def test_addresses_that_are_given_are_the_only_ones_dialled() -> None:
    async with Host(**BARE) as server, Host(**BARE | {"listen": ()}) as dialer:
        dialer.addr_book.add(server.peer_id, *server.addrs)
        with pytest.raises(DialError) as failed:
            await dialer.connect(f"/ip4/127.0.0.1/tcp/1/p2p/{server.peer_id}")
        assert [str(where) for where, _ in failed.value.causes] == ["/ip4/127.0.0.1/tcp/1"]


@looped
async def test_an_address_where_somebody_else_answers_is_forgotten() -> None:
    async with Host(**BARE) as victim, Host(**BARE | {"listen": ()}) as dialer:
        (where,) = victim.addrs
        dialer.addr_book.add_record(sealed(where, PUBLIC))
        dialer.addr_book.add(OTHER, where)
        for liar in (THEM, OTHER):
            with pytest.raises(DialError, match="but it proved to be"):
                await dialer.connect(where.with_p2p(liar))
        assert dialer.addr_book.addrs(THEM) == [PUBLIC]
        assert dialer.addr_book.addrs(OTHER) == [where], "the program wanted it"


@looped
async def test_a_host_name_is_remembered_as_a_name() -> None:
    from p2pcore import DialOptions

    class Names:
        async def addresses(self, name: str, version: int) -> list[str]:
            return ["127.0.0.1"] if version == 4 else []

        async def texts(self, name: str) -> list[str]:
            return []

    async with (
        Host(**BARE) as server,
        Host(**BARE | {"listen": (), "dial": DialOptions(resolver=Names())}) as dialer,
    ):
        port = server.addrs[0]["tcp"]
        name = Multiaddr(f"/dns4/them.example/tcp/{port}")
        for target in (name, name.with_p2p(server.peer_id)):
            conn = await dialer.connect(target)
            assert name in dialer.addr_book.addrs(server.peer_id)
            await conn.close()
            await ended_by(conn)
            await settle()
            dialer.addr_book.forget(server.peer_id)


@looped
async def test_a_book_serves_one_host_at_a_time() -> None:
    book = AddrBook()
    async with Host(**BARE, addr_book=book) as first:
        assert first.addr_book is book
        with pytest.raises(ValueError, match="one for each host"):
            Host(**BARE, addr_book=book)
    async with Host(**BARE, addr_book=book):
        pass

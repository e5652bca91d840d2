"""What a peer told on a connection that has ended is set aside: unread, bounded, read before it is used."""

from __future__ import annotations

from typing import Any

import pytest
from test_addr_book import FAR, OTHER, PRIVATE, PUBLIC, SECOND, THEM, book_and_swarm, end, sealed

from harness import looped
from p2pcore import AddrBook, AddrSource, Multiaddr, limits
from p2pcore.codes import Direction
from p2pcore.pb.identify_pb2 import Identify
from p2pcore.protocols import identify_message
from p2pcore.protocols.identify_unread import Unread
from p2pcore.values.record import PeerRecord, open_peer_record
from swarm_fakes import FakeConn, peer


async def met(
    swarm: Any,
    *claims: Multiaddr,
    record: bytes = b"",
    at: Multiaddr = FAR,
    direction: Any = Direction.INBOUND,
) -> None:
    """THEM connects, tells this, and leaves."""
    conn = swarm.add_conn(FakeConn(THEM, direction, at=at))
    message = Identify(listenAddrs=[addr.to_bytes() for addr in claims], signedPeerRecord=record)
    conn._info = Unread.of(THEM, message)
    await end(conn)


def entries(book: AddrBook) -> list[tuple[Multiaddr, AddrSource]]:
    return [(each.addr, each.source) for each in book.entries(THEM)]


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The records whose signatures were checked."""
    found: list[bytes] = []

    def opened(data: bytes, *args: Any) -> PeerRecord:
        found.append(data)
        return open_peer_record(data, *args)

    monkeypatch.setattr(identify_message, "open_peer_record", opened)
    return found


def is_aside(book: AddrBook) -> bool:
    known = book._peers.get(THEM)
    return known is not None and known.aside is not None


@looped
async def test_it_is_read_when_somebody_asks_for_the_peer() -> None:
    book, swarm, clock = book_and_swarm()
    await met(swarm, PUBLIC, record=sealed(SECOND))
    assert is_aside(book)
    assert (book.peers(), len(book)) == ([THEM], 1)
    assert is_aside(book)
    assert entries(book) == [(SECOND, AddrSource.RECORD)]
    assert book.record(THEM) == sealed(SECOND)
    assert not is_aside(book)
    assert book.entries(THEM)[0].expires_at == clock.now + limits.BOOK_RECENT_S
    await swarm.close()


@looped
async def test_a_forged_record_is_never_given_out() -> None:
    book, swarm, _ = book_and_swarm()
    bad = sealed(SECOND)[:-1] + b"\x00"
    await met(swarm, PUBLIC, record=bad)
    assert book.record(THEM) is None
    assert entries(book) == [(PUBLIC, AddrSource.IDENTIFY)]
    await met(swarm, record=bad)
    assert book.record(THEM) is None
    assert entries(book) == [(PUBLIC, AddrSource.IDENTIFY)]
    book.forget(THEM)
    await met(swarm, record=bad)
    assert (book.addrs(THEM), len(book)) == ([], 0)
    await swarm.close()


@looped
async def test_what_came_first_counts_first() -> None:
    book, swarm, _ = book_and_swarm()
    await met(swarm, PUBLIC, record=sealed(PUBLIC, seq=7))
    await met(swarm, SECOND, record=sealed(SECOND, seq=6))
    await met(swarm, SECOND)
    assert entries(book) == [(PUBLIC, AddrSource.RECORD)]
    await met(swarm, SECOND, record=sealed(SECOND, seq=8))
    book.add_record(sealed(PUBLIC, seq=7))
    assert entries(book) == [(SECOND, AddrSource.RECORD)]
    await swarm.close()


@looped
async def test_the_same_once_more_is_not_read_and_counts_longer(checked: list[bytes]) -> None:
    book, swarm, clock = book_and_swarm()
    await met(swarm, PUBLIC, record=sealed(PUBLIC))
    clock.now += 10
    await met(swarm, PUBLIC, record=sealed(PUBLIC))
    assert is_aside(book)
    assert checked == []
    assert book.entries(THEM)[0].expires_at == clock.now + limits.BOOK_RECENT_S
    await swarm.close()


@looped
async def test_it_is_believed_only_as_far_as_the_peer_was_away() -> None:
    book, swarm, _ = book_and_swarm()
    await met(swarm, PRIVATE, record=sealed(PRIVATE))
    assert len(book) == 0, "nothing in it can be of use"
    await met(swarm, PRIVATE, PUBLIC, record=sealed(PRIVATE, PUBLIC))
    assert book.addrs(THEM) == [PUBLIC]
    await met(swarm, PRIVATE, PUBLIC, record=sealed(PRIVATE, PUBLIC, seq=2), at=PRIVATE)
    assert set(book.addrs(THEM)) == {PUBLIC, PRIVATE}
    await swarm.close()


@looped
async def test_it_is_over_as_what_was_read_is(checked: list[bytes]) -> None:
    book, swarm, clock = book_and_swarm()
    await met(swarm, PUBLIC, record=sealed(PUBLIC))
    clock.now += limits.BOOK_RECENT_S
    assert book.peers() == []
    assert (book.addrs(THEM), book.record(THEM), len(book)) == ([], None, 0)
    assert checked == []
    await swarm.close()


@looped
async def test_where_we_have_reached_the_peer_is_taken_down_beside_it() -> None:
    book, swarm, _ = book_and_swarm()
    await met(swarm, PUBLIC, record=sealed(PUBLIC), at=SECOND, direction=Direction.OUTBOUND)
    assert is_aside(book)
    assert entries(book) == [(SECOND, AddrSource.CONNECTION), (PUBLIC, AddrSource.RECORD)]
    await swarm.close()


@looped
async def test_an_address_of_the_program_stays_beside_it() -> None:
    book, swarm, _ = book_and_swarm()
    book.add(THEM, SECOND)
    await met(swarm, PUBLIC, record=sealed(PUBLIC))
    assert entries(book) == [(SECOND, AddrSource.USER), (PUBLIC, AddrSource.RECORD)]
    await swarm.close()


@looped
async def test_its_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BOOK_BYTES", 20_000)
    book, swarm, _ = book_and_swarm()
    book.add(OTHER, PUBLIC)
    for number in range(10, 30):
        conn = swarm.add_conn(FakeConn(peer(number), at=FAR))
        message = Identify(listenAddrs=[PUBLIC.to_bytes()], protocolVersion=b"x" * 3000)
        conn._info = Unread.of(peer(number), message)
        await end(conn)
        assert book._size == sum(each.size for each in [*book._peers.values(), *book._pinned.values()])
    assert 3 <= len(book._peers) <= 6
    assert book.peers()[0] == OTHER
    await swarm.close()


@looped
async def test_a_book_with_a_file_reads_at_once(tmp_path: Any) -> None:
    book, swarm, _ = book_and_swarm(path=tmp_path / "book")
    await met(swarm, PUBLIC, record=sealed(SECOND))
    assert not is_aside(book)
    assert list(book._peers[THEM].addrs) == [SECOND]
    await swarm.close()

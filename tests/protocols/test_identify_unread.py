"""What a peer tells is read when somebody asks: nothing is checked before, and nothing unchecked gets out."""

from __future__ import annotations

import pytest

from harness import eventually, looped
from hosts import pair
from p2pcore import Conn, Multiaddr, PrivateKey, limits
from p2pcore.pb.identify_pb2 import Identify
from p2pcore.protocols import identify, identify_message
from p2pcore.protocols.identify_message import IdentifyInfo, update
from p2pcore.protocols.identify_unread import Unread
from p2pcore.values.record import PeerRecord, open_peer_record
from p2pcore.values.scope import Scope

KEY = PrivateKey.from_seed(b"\x01" * 32)
PEER = KEY.peer_id()
CLAIM = Multiaddr("/ip4/5.6.7.8/tcp/1")
SIGNED = Multiaddr("/ip4/5.6.7.8/tcp/2")
PRIVATE = Multiaddr("/ip4/10.0.0.1/tcp/3")
BOTH = {"identify": True}


def sealed(*addrs: Multiaddr, seq: int = 1) -> bytes:
    return PeerRecord(PEER, seq, addrs).seal(KEY).raw


def forged(record: bytes) -> bytes:
    """The same record with one bit of its signature changed."""
    return record[:-1] + bytes((record[-1] ^ 1,))


def told(*claims: Multiaddr, record: bytes = b"", **fields: object) -> Identify:
    return Identify(listenAddrs=[addr.to_bytes() for addr in claims], signedPeerRecord=record, **fields)


def unread(message: Identify) -> Unread:
    found = Unread.of(PEER, message)
    assert found is not None
    return found


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The records whose signatures were checked."""
    found: list[bytes] = []

    def opened(data: bytes, *args: object) -> PeerRecord:
        found.append(data)
        return open_peer_record(data, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(identify_message, "open_peer_record", opened)
    return found


def was_told(conn: Conn) -> bool:
    return conn._info is not None


@looped
async def test_a_record_is_checked_when_somebody_asks_and_once(checked: list[bytes]) -> None:
    async with pair(BOTH, {**BOTH, "listen": ["/ip4/127.0.0.1/tcp/0"]}) as p:
        await eventually(lambda: was_told(p.conn) and was_told(p.server_conn))
        assert checked == []
        told = p.server.info_of(p.server_conn)
        assert told is not None
        assert checked == [told.signed_record]
        assert list(told.record_addrs or ()) == p.dialer.addrs
        assert p.server.info_of(p.server_conn) is told
        assert len(checked) == 1


@looped
async def test_the_end_of_a_connection_checks_no_record_and_the_book_does_when_asked(
    checked: list[bytes],
) -> None:
    async with pair(BOTH, {**BOTH, "listen": ["/ip4/127.0.0.1/tcp/0"]}) as p:
        peer = p.dialer.peer_id
        await eventually(lambda: was_told(p.server_conn))
        await p.conn.close()
        await eventually(lambda: not p.server.swarm.num_conns and len(p.server.addr_book))
        assert p.server.addr_book.peers() == [peer]
        assert checked == []
        assert p.server.addr_book.addrs(peer) == p.dialer.addrs
        assert [p.server.addr_book.record(peer)] == checked


@looped
async def test_what_is_shown_of_a_connection_needs_no_reading(checked: list[bytes]) -> None:
    async with pair(BOTH, {**BOTH, "listen": ["/ip4/127.0.0.1/tcp/0"]}) as p:
        await eventually(lambda: was_told(p.server_conn))
        assert (p.server_conn.stat.agent or "").startswith("p2pcore/")
        assert identify._takes_push(p.server_conn)
        assert isinstance(p.server_conn._info, Unread)
        assert checked == []


def test_it_reads_as_if_it_were_read_at_once() -> None:
    for record in (b"", sealed(SIGNED), forged(sealed(SIGNED)), b"junk"):
        message = told(
            CLAIM, record=record, agentVersion=b"a", protocolVersion=b"p", protocols=[b"/x", b"/x"]
        )
        kept = unread(message)
        assert kept.read() == update(IdentifyInfo(PEER), message)
        assert (kept.protocols, kept.agent_version) == (("/x",), "a")


def test_a_forged_record_gives_nothing() -> None:
    info = unread(told(CLAIM, record=forged(sealed(SIGNED)))).read()
    assert (info.addrs, info.record_addrs, info.signed_record, info.record_seq) == ((CLAIM,), None, None, -1)


def test_a_long_message_is_read_at_once() -> None:
    fits = Identify(protocolVersion=b"x" * (limits.MAX_IDENTIFY_UNREAD_BYTES - 3))
    assert unread(fits).size == limits.MAX_IDENTIFY_UNREAD_BYTES
    fits.protocolVersion += b"x"
    assert Unread.of(PEER, fits) is None


def test_two_tell_the_same_if_addresses_and_record_are_the_same() -> None:
    one = unread(told(CLAIM, record=sealed(SIGNED), observedAddr=CLAIM.to_bytes()))
    assert one.tells_as(unread(told(CLAIM, record=sealed(SIGNED), observedAddr=SIGNED.to_bytes())))
    assert not one.tells_as(unread(told(CLAIM, record=sealed(SIGNED, seq=2))))
    assert not one.tells_as(unread(told(SIGNED, record=sealed(SIGNED))))


@pytest.mark.parametrize(
    ("message", "leads"),
    [
        (told(CLAIM), True),
        (told(PRIVATE), False),
        (told(PRIVATE, record=sealed(PRIVATE)), False),
        (told(PRIVATE, record=sealed(SIGNED)), True),
        (told(record=forged(sealed(SIGNED))), True),
        (told(record=b"junk"), False),
        (told(), False),
    ],
)
def test_it_says_whether_anything_in_it_can_be_of_use(message: Identify, leads: bool) -> None:
    assert unread(message).may_lead_from(Scope.PUBLIC) is leads
